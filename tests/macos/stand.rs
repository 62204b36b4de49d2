//! A Mac made of stand-ins, in a folder of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::host::{Host, MacTools, Os, ServicePlaces};
use ephemerd::workspace::{Place, Workspace};
use serde_json::{Value, json};

use crate::network::Network;

const FAKES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fakes/macos");

/// Counts Macs of one process, so that no two share an account.
static MACS: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Mac {
    pub(crate) top: Utf8PathBuf,
    pub(crate) host: Host,
    /// The uid of slot 1, where [`Mac::with_accounts`] made it.
    pub(crate) uid: u32,
    /// Where its programs run, if not in the network of this machine.
    pub(crate) network: Option<Network>,
    _keep: tempfile::TempDir,
}

impl Mac {
    /// A Mac without accounts for jobs.
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        for (folder, mode) in [
            ("", 0o755),
            ("bin", 0o755),
            ("state", 0o777),
            ("state/faults", 0o777),
            ("folders", 0o755),
            ("folders/zz", 0o777),
            ("shared", 0o1777),
            ("run", 0o755),
        ] {
            fs::create_dir_all(top.join(folder)).unwrap();
            fs::set_permissions(top.join(folder), fs::Permissions::from_mode(mode)).unwrap();
        }
        for file in ["calls", "unconfined"] {
            fs::write(top.join("state").join(file), "").unwrap();
            fs::set_permissions(top.join("state").join(file), fs::Permissions::from_mode(0o666)).unwrap();
        }
        let host = host(&top);
        let mac = Self {
            uid: 600_000 + (std::process::id() % 50_000) * 16 + MACS.fetch_add(1, Ordering::Relaxed) % 16,
            top,
            host,
            network: None,
            _keep: keep,
        };
        mac.install();
        mac.write_host();
        mac.write_state(
            "records",
            &json!({"Users": {"root": {"UniqueID": ["0"]}}, "Groups": {"wheel": {"PrimaryGroupID": ["0"], "GroupMembership": ["root"]}}}),
        );
        mac.write_state(
            "developer-dir",
            &json!("/Applications/Xcode.app/Contents/Developer"),
        );
        mac
    }

    /// A Mac with a group, the service account and one slot, which no other test uses.
    pub(crate) fn with_accounts() -> Self {
        let mac = Self::new();
        let gid = "450".to_owned();
        let user = |uid: u32| {
            json!({
                "UniqueID": [uid.to_string()], "PrimaryGroupID": [gid], "NFSHomeDirectory": ["/var/empty"],
                "UserShell": ["/usr/bin/false"], "Password": ["*"], "IsHidden": ["1"],
            })
        };
        mac.write_state(
            "records",
            &json!({
                "Users": {"root": {"UniqueID": ["0"]}, "_ephemerd": user(450), "_ephemerd1": user(mac.uid)},
                "Groups": {"wheel": {"PrimaryGroupID": ["0"], "GroupMembership": ["root"]}, "_ephemerd": {"PrimaryGroupID": [gid]}},
            }),
        );
        fs::write(mac.top.join("ephemerd.toml"), mac.config()).unwrap();
        mac
    }

    /// As [`Mac::with_accounts`], but its jobs have a network that pf filters: one of its own.
    pub(crate) fn with_filter(more: &str) -> Self {
        let mut mac = Self::with_accounts();
        mac.network = Some(Network::new());
        mac.host.resolv_conf = mac.top.join("resolv.conf");
        fs::write(&mac.host.resolv_conf, "nameserver 10.0.0.53\n").unwrap();
        mac.write_host();
        let egress = format!("mode = \"block-lan\"\n{more}");
        let config = mac.config().replace("mode = \"offline\"", &egress);
        fs::write(mac.top.join("ephemerd.toml"), config).unwrap();
        mac
    }

    fn config(&self) -> String {
        let top = &self.top;
        format!(
            "[host]\ndata_dir = \"{top}/data\"\nmanifest = \"none\"\n[egress]\nmode = \"offline\"\n[native]\nslots = 1\nallow_degraded = [\"ipc\"]\n"
        )
    }

    fn install(&self) {
        let bin = self.top.join("bin");
        for entry in Utf8Path::new(FAKES).read_dir_utf8().unwrap() {
            let entry = entry.unwrap();
            if entry.path().extension() != Some("rs") && entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), bin.join(entry.file_name())).unwrap();
            }
        }
        for name in ["chmod", "dscacheutil"] {
            fs::copy(bin.join("note"), bin.join(name)).unwrap();
        }
        for (example, name) in [("mac", "ephemerd"), ("mac-sandbox-exec", "sandbox-exec")] {
            let built = examples().join(example);
            assert!(built.exists(), "{built} is missing: cargo build --examples");
            if fs::hard_link(&built, bin.join(name)).is_err() {
                fs::copy(&built, bin.join(name)).unwrap();
            }
        }
    }

    /// Tells the program of this Mac what `host` is.
    pub(crate) fn write_host(&self) {
        let text = serde_json::to_vec(&self.host).unwrap();
        fs::write(self.top.join("bin/host.json"), text).unwrap();
    }

    pub(crate) fn write_state(&self, name: &str, value: &Value) {
        let path = self.top.join("state").join(name);
        // In one step: a tool may be reading it.
        let fresh = path.with_extension("fresh");
        fs::write(&fresh, value.to_string()).unwrap();
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o666)).unwrap();
        fs::rename(&fresh, &path).unwrap();
    }

    pub(crate) fn state(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.top.join("state").join(name)).unwrap()).unwrap()
    }

    /// Makes `tool` fail, `times` times, when its arguments contain `when`.
    pub(crate) fn fail(&self, tool: &str, when: &str, times: u32, how: &Value) {
        let mut fault = json!({"when": when, "times": times});
        fault
            .as_object_mut()
            .unwrap()
            .extend(how.as_object().unwrap().clone());
        self.write_state(&format!("faults/{tool}"), &json!([fault]));
    }

    /// Makes `tool` hang, `times` times, when its arguments contain `when`.
    pub(crate) fn hang(&self, tool: &str, when: &str, times: u32) {
        self.fail(tool, when, times, &json!({"signal": libc::SIGSTOP}));
    }

    /// Installs formulae in this Mac's Homebrew, each by its name, version and programs: a keg that `opt` and `bin` link.
    pub(crate) fn brewed(&self, formulae: &[(&str, &str, &[&str])]) {
        let prefix = &self.host.homebrew;
        for (name, version, programs) in formulae {
            let keg = prefix.join("Cellar").join(name).join(version);
            for folder in [&keg.join("bin"), &prefix.join("opt"), &prefix.join("bin")] {
                fs::create_dir_all(folder).unwrap();
            }
            std::os::unix::fs::symlink(
                format!("../Cellar/{name}/{version}"),
                prefix.join("opt").join(name),
            )
            .unwrap();
            for program in *programs {
                let path = keg.join("bin").join(program);
                fs::write(&path, format!("#!/bin/sh\necho {program} {version}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
                let link = format!("../Cellar/{name}/{version}/bin/{program}");
                std::os::unix::fs::symlink(link, prefix.join("bin").join(program)).unwrap();
            }
        }
    }

    /// The calls of `tool`, arguments joined by blanks.
    pub(crate) fn calls(&self, tool: &str) -> Vec<String> {
        let text = fs::read_to_string(self.top.join("state/calls")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<Vec<String>>(line).unwrap())
            .filter(|call| call[0] == tool)
            .map(|call| call[1..].join(" "))
            .collect()
    }

    /// A program of this Mac, in its network.
    pub(crate) fn command(&self, name: &str) -> Command {
        let program = self.top.join("bin").join(name);
        match &self.network {
            Some(network) => network.command(program.as_str()),
            None => Command::new(program),
        }
    }

    /// The program of this Mac, with its configuration.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = self.command("ephemerd");
        command.arg("--config").arg(self.top.join("ephemerd.toml"));
        command.args(args);
        command
    }

    /// Runs the program of this Mac.
    pub(crate) fn ephemerd(&self, args: &[&str]) -> Output {
        self.program(args).output().unwrap()
    }

    /// Runs a script of a shell as a job; its exit code, standard output and standard error.
    pub(crate) fn exec(&self, script: &str) -> (i32, String, String) {
        let output = self.ephemerd(&["exec", "--", "/bin/sh", "-c", script]);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// Where the runner of slot 1 is.
    pub(crate) fn runner_place(&self) -> Utf8PathBuf {
        let job = "0a1b2c3d4e5".parse().unwrap();
        let workspace = Workspace::new(&self.top.join("data"), &job);
        Place::of_runner(Os::MacOs, &self.host.runner_places, &workspace, 1).real
    }

    /// What is left of jobs, in the data folder and of the slot's account.
    pub(crate) fn remains(&self) -> Vec<String> {
        let mut found = Vec::new();
        for folder in ["data/native", "data/profiles", "shared"] {
            if let Ok(entries) = self.top.join(folder).read_dir_utf8() {
                found.extend(entries.map(|entry| entry.unwrap().path().to_string()));
            }
        }
        let user_folder = self.top.join(format!("folders/zz/of{}", self.uid));
        if let Ok(parts) = user_folder.read_dir_utf8() {
            found.extend(parts.map(|part| part.unwrap().path().to_string()));
        }
        found.extend(processes_of(self.uid).iter().map(|pid| format!("process {pid}")));
        found
    }
}

/// Ids of the processes of a user.
pub(crate) fn processes_of(uid: u32) -> Vec<String> {
    let line = format!("Uid:\t{uid}\t");
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        let status = fs::read_to_string(format!("/proc/{name}/status")).ok()?;
        (status.contains(&line) && !status.contains("State:\tZ")).then_some(name)
    });
    pids.filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .collect()
}

/// Where the examples are built: beside the folder of this test.
pub(crate) fn examples() -> Utf8PathBuf {
    let own = Utf8PathBuf::try_from(std::env::current_exe().unwrap()).unwrap();
    own.ancestors().nth(2).unwrap().join("examples")
}

fn host(top: &Utf8Path) -> Host {
    let tool = |name: &str| top.join("bin").join(name);
    Host {
        os: Os::MacOs,
        run: top.join("run"),
        shared_places: vec![top.join("shared")],
        user_folders: top.join("folders"),
        homebrew: top.join("homebrew"),
        prefixes: top.join("prefixes"),
        runner_places: top.join("runner-places"),
        retry_pause: Duration::ZERO,
        mac: MacTools {
            arch: tool("arch"),
            chmod: tool("chmod"),
            csrutil: tool("csrutil"),
            defaults: tool("defaults"),
            diskutil: tool("diskutil"),
            dscacheutil: tool("dscacheutil"),
            dscl: tool("dscl"),
            dseditgroup: tool("dseditgroup"),
            fdesetup: tool("fdesetup"),
            getconf: tool("getconf"),
            id: tool("id"),
            ifconfig: tool("ifconfig"),
            ipcrm: tool("ipcrm"),
            ipcs: tool("ipcs"),
            launchctl: tool("launchctl"),
            log: tool("note"),
            mdutil: tool("mdutil"),
            pfctl: tool("pfctl"),
            pkgutil: tool("pkgutil"),
            pmset: tool("pmset"),
            sandbox_exec: tool("sandbox-exec"),
            security: tool("security"),
            softwareupdate: tool("softwareupdate"),
            spctl: tool("spctl"),
            sqlite3: tool("sqlite3"),
            sw_vers: tool("sw_vers"),
            sysctl: tool("sysctl"),
            systemsetup: tool("systemsetup"),
            r#true: "/bin/true".into(),
            xcode_select: tool("xcode-select"),
            xcodebuild: tool("xcodebuild"),
            xcrun: tool("xcrun"),
        },
        service: ServicePlaces {
            program: top.join("local/bin/ephemerd"),
            logs: top.join("log"),
            daemons: top.join("daemons"),
            newsyslog: top.join("newsyslog.d"),
            ..Host::system().service
        },
        ..Host::system()
    }
}
