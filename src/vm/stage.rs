//! The command of each stage, and what its end means. Pure.
//!
//! A tool tells by its exit code what kind of failure it was. The codes are those of sysexits(3); a script of one's own
//! finds them in its environment as `EPHEMERD_EXIT_CAPACITY` and `EPHEMERD_EXIT_SETUP`, as scripts for GitLab's custom
//! executor find theirs. None of them is the job's result: that is what the guest itself says (see [`super::script`]).

use std::process::ExitStatus;
use std::time::Duration;

use camino::Utf8Path;

use super::life::{Class, Infra, Stage};
use super::name::VmName;
use super::tart::{self, Complaint};
use super::template::{Argv, Filling, Word, fill};
use super::{Backend, Dialect, Network, Wanted};
use crate::host::command::{CommandSpec, Output};

/// There is no room for a guest now: `EX_TEMPFAIL`.
pub const CAPACITY: i32 = 75;

/// The backend is not set up as it must be, and trying again changes nothing: `EX_CONFIG`.
pub const SETUP: i32 = 78;

/// Variables by which a tool is told of these two.
pub const CODES: [&str; 2] = ["EPHEMERD_EXIT_CAPACITY", "EPHEMERD_EXIT_SETUP"];

/// What shells end with when there is no such program.
const NO_PROGRAM: i32 = 127;

/// Lines of a tool's complaint that are told, the last ones.
const TOLD: usize = 5;

/// One guest, for its commands.
#[derive(Debug, Clone, Copy)]
pub struct Tools<'a> {
    /// Its backend.
    pub backend: &'a Backend,
    /// What it is to be.
    pub wanted: &'a Wanted,
    /// Its name.
    pub name: &'a VmName,
    /// Its folder on this host.
    pub dir: &'a Utf8Path,
    /// This program.
    pub program: &'a Utf8Path,
}

impl Tools<'_> {
    /// A command with everything filled in.
    pub fn command(&self, argv: &Argv, timeout: Duration) -> CommandSpec {
        let Self {
            backend,
            wanted,
            name,
            dir,
            program,
        } = self;
        let empty: &[Word] = &[];
        let network = match backend.network {
            Network::None => backend.commands.network_none.as_deref(),
            Network::Internet => backend.commands.network_internet.as_deref(),
        };
        let words = fill(
            argv,
            &Filling {
                name: name.as_str(),
                image: &wanted.image,
                cpu: wanted.cpu,
                memory_byte: wanted.memory_byte,
                disk_byte: wanted.disk_byte,
                dir,
                tool: &backend.tool,
                program,
                network: network.unwrap_or(empty),
                share: backend.commands.share.as_deref().unwrap_or(empty),
                shares: &backend.shares,
            },
        );
        let (tool, args) = words
            .split_first()
            .map_or(("", [].as_slice()), |(tool, args)| (tool, args));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut spec = CommandSpec::new(tool.into(), &args, timeout);
        spec.env = backend.env.clone();
        for (name, code) in CODES.into_iter().zip([CAPACITY, SETUP]) {
            spec.env.insert(name.to_owned(), code.to_string());
        }
        spec
    }

    /// The command of a stage; `None` when the backend has none for it.
    pub fn of(&self, stage: Stage) -> Option<CommandSpec> {
        let commands = &self.backend.commands;
        let argv = match stage {
            Stage::Clone => &commands.clone,
            Stage::Configure => &commands.configure,
            Stage::Start => &commands.start,
            Stage::Ready | Stage::Put | Stage::Run => &commands.exec,
            Stage::Stop => &commands.stop,
            Stage::Delete => &commands.delete,
        };
        argv.as_ref()
            .map(|argv| self.command(argv, self.backend.stage_timeout))
    }
}

/// What the end of a tool means for the stage it was started for.
///
/// # Errors
/// The stage failed, and in which way.
pub fn judge(dialect: Dialect, stage: Stage, spec: &CommandSpec, output: &Output) -> Result<(), Infra> {
    let Output { status, stderr, .. } = output;
    if status.success() {
        return Ok(());
    }
    let mut hint = None;
    let by_code = match status.code() {
        Some(NO_PROGRAM) => Class::Setup,
        Some(CAPACITY) if dialect == Dialect::Plain => Class::Capacity,
        Some(SETUP) if dialect == Dialect::Plain => Class::Setup,
        Some(_) | None => Class::Tool,
    };
    let class = match dialect {
        Dialect::Plain => by_code,
        Dialect::Tart => {
            let complaint = tart::complaint(stderr);
            hint = complaint.hint();
            match complaint {
                // Gone is what was wanted.
                Complaint::Absent if stage >= Stage::Stop => return Ok(()),
                Complaint::Limit => Class::Capacity,
                Complaint::Keychain | Complaint::Softnet | Complaint::NoImage => Class::Setup,
                // Arguments that Tart does not know (swift-argument-parser: EX_USAGE).
                _ if status.code() == Some(64) => Class::Setup,
                Complaint::Absent | Complaint::Running | Complaint::NotStarted | Complaint::Other => by_code,
            }
        }
    };
    let hint = hint.map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    Err(Infra {
        class,
        stage,
        why: format!("{}{hint}", complaint(spec, *status, stderr)),
    })
}

/// How a tool ended, and its last words.
pub fn complaint(spec: &CommandSpec, status: ExitStatus, stderr: &str) -> String {
    let said: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let last = said[said.len().saturating_sub(TOLD)..].join("; ");
    let tool = spec.program.file_name().unwrap_or(spec.program.as_str());
    if last.is_empty() {
        format!("`{tool}` ended with {status}")
    } else {
        format!("`{tool}` ended with {status}: {}", crate::vm::stage::plain(&last))
    }
}

/// Somebody else's text, without what would move a terminal's cursor.
pub fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The names of guests, or of images, that a tool listed.
///
/// # Errors
/// It printed something else, in words.
pub fn names(dialect: Dialect, stdout: &str) -> Result<Vec<String>, String> {
    match dialect {
        Dialect::Plain => Ok(stdout
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()),
        Dialect::Tart => tart::list(stdout)
            .map(|rows| rows.into_iter().map(|row| row.name).collect())
            .map_err(|error| format!("the list is not what Tart prints: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::job::JobId;
    use crate::vm::name::Owner;
    use crate::vm::{VmChoice, VmConfig};
    use std::os::unix::process::ExitStatusExt;
    use std::time::UNIX_EPOCH;

    fn vm(text: &str) -> VmConfig {
        config::parse(text, "e.toml").unwrap().config.vm
    }

    fn every_command(preset: &str) -> String {
        let vm = vm(&format!(
            "vm.backends.b = {{ preset = \"{preset}\", image = \"/images/base\", cpu = 2, memory = \"2GiB\", disk = \"20GiB\", shares = [\"/srv/cache\"] }}"
        ));
        let wanted = Wanted::new(&vm, &VmChoice::default()).unwrap();
        let name = Owner::new("00mini", "/var/lib/ephemerd".into()).name(&JobId::new(UNIX_EPOCH, 0), 1);
        let tools = Tools {
            backend: &vm.backends["b"],
            wanted: &wanted,
            name: &name,
            dir: "/var/lib/ephemerd/vm/x".into(),
            program: "/usr/bin/ephemerd".into(),
        };
        let stages = [
            Stage::Clone,
            Stage::Configure,
            Stage::Start,
            Stage::Run,
            Stage::Stop,
            Stage::Delete,
        ];
        let line = |stage: Stage| tools.of(stage).map(|spec| format!("{stage}: {spec}\n"));
        stages.into_iter().filter_map(line).collect()
    }

    #[test]
    fn tarts_commands_are_those_of_its_documentation() {
        insta::assert_snapshot!(every_command("tart"), @r"
        clone: /opt/homebrew/bin/tart clone /images/base eph-00minifd11-00000000000-1
        configure: /opt/homebrew/bin/tart set eph-00minifd11-00000000000-1 --cpu 2 --memory 2048 --disk-size 20 --random-mac
        start: /opt/homebrew/bin/tart run eph-00minifd11-00000000000-1 --no-graphics --no-audio --no-clipboard --root-disk-opts=sync=none --net-softnet --dir=cache:/srv/cache:ro
        run: /opt/homebrew/bin/tart exec -i eph-00minifd11-00000000000-1 /bin/sh -s
        stop: /opt/homebrew/bin/tart stop eph-00minifd11-00000000000-1 --timeout 5
        delete: /opt/homebrew/bin/tart delete eph-00minifd11-00000000000-1
        ");
    }

    #[test]
    fn qemus_commands_give_the_guest_a_disk_a_channel_and_no_network() {
        insta::assert_snapshot!(every_command("qemu"), @r"
        clone: /usr/bin/qemu-img create -q -f qcow2 -F qcow2 -b /images/base/disk.qcow2 /var/lib/ephemerd/vm/x/disk.qcow2 20G
        start: /usr/bin/qemu-system-x86_64 -name eph-00minifd11-00000000000-1 -nodefaults -no-user-config -display none -machine q35,accel=kvm -cpu host -smp 2 -m 2048M -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny -kernel /images/base/vmlinuz -initrd /images/base/initrd.img -append 'root=/dev/vda rw console=ttyS0 quiet init=/sbin/ephemerd-guest' -drive file=/var/lib/ephemerd/vm/x/disk.qcow2,if=virtio,format=qcow2,cache=unsafe -serial file:/var/lib/ephemerd/vm/x/console.log -device virtio-rng-pci -device virtio-serial-pci -chardev socket,id=exec,path=/var/lib/ephemerd/vm/x/exec,server=on,wait=off -device virtserialport,chardev=exec,name=org.ephemerd.exec -nic none -virtfs local,path=/srv/cache,mount_tag=cache,security_model=none,readonly=on
        run: /usr/bin/ephemerd __channel /var/lib/ephemerd/vm/x/exec
        ");
    }

    #[test]
    fn podmans_commands_take_everything_from_the_container_that_it_does_not_need() {
        insta::assert_snapshot!(every_command("podman"), @r"
        start: /usr/bin/podman run --rm --name eph-00minifd11-00000000000-1 --init --cpus 2 --memory 2048m --pids-limit 2048 --cap-drop all --security-opt no-new-privileges --pull never --network=none --volume=/srv/cache:/shared/cache:ro /images/base sleep infinity
        run: /usr/bin/podman exec -i eph-00minifd11-00000000000-1 /bin/sh -s
        stop: /usr/bin/podman kill eph-00minifd11-00000000000-1
        delete: /usr/bin/podman rm --force --ignore --volumes eph-00minifd11-00000000000-1
        ");
    }

    fn judged(dialect: Dialect, stage: Stage, code: i32, stderr: &str) -> Result<(), Class> {
        let spec = CommandSpec::new("/usr/bin/tool".into(), &[], Duration::ZERO);
        let output = Output {
            status: ExitStatus::from_raw(code << 8),
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        judge(dialect, stage, &spec, &output).map_err(|infra| infra.class)
    }

    #[test]
    fn reserved_codes_tell_what_kind_of_failure_it_was() {
        for (code, expected) in [
            (0, Ok(())),
            (1, Err(Class::Tool)),
            (CAPACITY, Err(Class::Capacity)),
            (SETUP, Err(Class::Setup)),
            (NO_PROGRAM, Err(Class::Setup)),
        ] {
            assert_eq!(judged(Dialect::Plain, Stage::Start, code, ""), expected, "{code}");
        }
    }

    #[test]
    fn tarts_words_tell_what_kind_of_failure_it_was() {
        let limit = "The number of VMs exceeds the system limit";
        let absent = "the specified VM \"x\" does not exist";
        for (stage, code, said, expected) in [
            (Stage::Start, 1, limit, Err(Class::Capacity)),
            (Stage::Delete, 2, absent, Ok(())),
            (Stage::Stop, 2, "VM \"x\" is not running", Ok(())),
            (Stage::Clone, 2, absent, Err(Class::Tool)),
            (
                Stage::Start,
                1,
                "SecKeyCreateRandomKey_ios failed",
                Err(Class::Setup),
            ),
            (Stage::Configure, 64, "Error: Unknown option", Err(Class::Setup)),
            // Nobody reserved this one for us.
            (Stage::Start, CAPACITY, "", Err(Class::Tool)),
        ] {
            assert_eq!(
                judged(Dialect::Tart, stage, code, said),
                expected,
                "{stage} {said}"
            );
        }
    }

    #[test]
    fn a_complaint_is_told_by_its_last_lines_and_moves_no_cursor() {
        let spec = CommandSpec::new("/usr/bin/tool".into(), &[], Duration::ZERO);
        let said = "1\n2\n3\n4\n\n5\n\u{1b}[2J6\n";
        let told = complaint(&spec, ExitStatus::from_raw(256), said);
        assert_eq!(told, "`tool` ended with exit status: 1: 2; 3; 4; 5;  [2J6");
    }
}
