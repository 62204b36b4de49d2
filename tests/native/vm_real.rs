//! Guests that are real: QEMU boots the image of `scripts/vm-image.sh`, by emulation, for KVM is not everywhere. Where the
//! image or QEMU is missing, these tests fail; `scripts/test.sh` makes and installs both. runc runs containers.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use camino::Utf8PathBuf;
use ephemerd::job::{JobId, Outcome};
use ephemerd::trust::Route;
use ephemerd::vm::Isolation;

use crate::harness::net::{DENIED, Net, PORT, PUBLIC};
use crate::harness::{Daemon, PROGRAM, Site, command, out, said, wait_for, wait_within};
use crate::vm::give;

/// Boots take some seconds each on a machine that has nothing else to do.
const BOOT: Duration = Duration::from_secs(90);

/// Whom QEMU runs as.
const USER: &str = "daemon";

/// Somebody whom no rule is about.
const NOBODY: u32 = 65534;

/// A place where untrusted jobs get guests of QEMU, two at once.
fn site() -> Site {
    site_with("", "")
}

/// The same with more of the backend's settings and of others.
fn site_with(backend: &str, more: &str) -> Site {
    let site = Site::new("");
    let image = Utf8PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/vm-image/debian"));
    assert!(
        image.join("image.sum").exists(),
        "no image: run SUITE=trixie scripts/vm-image.sh"
    );
    // Whoever QEMU runs as need not get to where this is built.
    let copy = site.top.join("image");
    fs::create_dir(&copy).unwrap();
    for file in ["disk.qcow2", "vmlinuz", "initrd.img"] {
        fs::copy(image.join(file), copy.join(file)).unwrap();
        fs::set_permissions(copy.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    site.configure(&format!(
        "\"vm/*\" = \"vm\"\n[native]\nslots = 2\n[native.limits]\nmemory = \"256MiB\"\n[vm]\nuser = \"{USER}\"\nlinux = 2\nhost_memory = \"256MiB\"\n[vm.backends.qemu]\npreset = \"qemu-tcg\"\nimage = \"{copy}\"\ncpu = 1\nmemory = \"512MiB\"\ndisk = \"2GiB\"\nboot_timeout = \"100s\"\n{backend}\n{more}"
    ));
    site
}

fn start(site: Site) -> Daemon {
    let copied = site.top.join("bin/ephemerd");
    // What an earlier daemon of this place ran may still be in use.
    let program = if copied.exists() {
        copied
    } else {
        site.copy(PROGRAM.into(), "ephemerd")
    };
    let mut run = command(&program);
    run.args(["--config", site.config.as_str(), "run"]);
    Daemon::start_by(site, run)
}

fn submit(daemon: &Daemon, script: &str) -> JobId {
    daemon.submit("vm/app", &["sh", "-c", script])
}

/// Command lines of QEMU that name this place.
fn machines(site: &Site) -> Vec<String> {
    let line = |entry: std::io::Result<fs::DirEntry>| {
        let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    };
    let all = fs::read_dir("/proc").unwrap().filter_map(line);
    all.filter(|line| line.starts_with("/usr/bin/qemu-system") && line.contains(site.top.as_str()))
        .collect()
}

fn assert_gone(site: &Site) {
    assert_eq!(machines(site), Vec::<String>::new());
    assert_eq!(site.data_dir.join("vm").read_dir_utf8().unwrap().count(), 0);
}

#[test]
fn heavy_trusted_jobs_use_slots_while_untrusted_ones_queue_for_two_real_machines() {
    let daemon = start(site());
    let untrusted: Vec<_> = (10..13)
        .map(|n| submit(&daemon, &format!("uname -n; exit {n}")))
        .collect();
    let trusted: Vec<_> = (1..4).map(|n| daemon.script(&format!("exit {n}"))).collect();
    wait_within(BOOT, "two machines at once", || {
        let kind = daemon.status().vm.unwrap().kinds.remove(0);
        assert!(kind.running.len() <= 2);
        (machines(daemon.site()).len() == 2 && kind.queued.len() == 1).then_some(())
    });
    for (n, job) in (1..).zip(&trusted) {
        assert_eq!(daemon.outcome(job), Outcome::Exited { code: n });
    }
    for (n, job) in (10..).zip(&untrusted) {
        let story = daemon.ended(job);
        assert_eq!(story.job.outcome, Some(Outcome::Exited { code: n }), "{story:?}");
        assert_eq!(
            (story.job.route, story.job.isolation),
            (Route::Vm, Some(Isolation::Vm))
        );
        assert_eq!(daemon.output(job), "ephemerd-guest\n");
        assert!(
            story.job.memory_peak_byte.is_some_and(|byte| byte > 64 << 20),
            "{story:?}"
        );
    }
    assert_gone(daemon.site());
    let table = out(&daemon.cli(&["jobs", "--all"]));
    assert!(
        table.contains("vm (qemu)") && table.contains("sandbox"),
        "{table}"
    );
}

#[test]
fn heavy_a_real_machine_reaches_neither_this_host_nor_its_lan() {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // The control: from here it is reached.
    let address = command("hostname").arg("-I").output().unwrap();
    let address = out(&address)
        .split_whitespace()
        .next()
        .unwrap_or("127.0.0.1")
        .to_owned();
    let control = command("curl")
        .args(["-s", "-m", "5", &format!("telnet://{address}:{port}")])
        .output()
        .unwrap();
    assert_ne!(
        control.status.code(),
        Some(7),
        "nobody listens: {}",
        said(&control)
    );
    let daemon = start(site());
    let script = format!(
        "ls /sys/class/net; for to in {address} 10.0.2.2; do curl -s -m 5 telnet://$to:{port} </dev/null; echo $to $?; done"
    );
    let job = submit(&daemon, &script);
    let story = wait_within(BOOT, "the end of the job", || {
        let story = daemon.story(&job);
        story.job.outcome.is_some().then_some(story)
    });
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }), "{story:?}");
    // No device but its own loopback, and curl's word for "could not connect".
    assert_eq!(daemon.output(&job), format!("lo\n{address} 7\n10.0.2.2 7\n"));
}

#[test]
fn heavy_a_real_machine_reaches_the_internet_and_neither_lan_nor_loopback_of_this_host() {
    let net = Net::new();
    let site = site_with(
        "network = \"internet\"",
        "[egress]\nmode = \"block-lan\"\ndns = [\"192.168.77.53\"]\n",
    );
    net.listen_on_host(9999);
    let denied: Vec<&str> = DENIED.into_iter().filter(|to| !to.contains(':')).collect();
    let targets: Vec<String> = denied.iter().map(|to| format!("tcp {to} {PORT}")).collect();
    let reached: Vec<String> = targets.iter().map(|to| format!("{to} reached")).collect();
    assert_eq!(net.attempts_as(NOBODY, &targets), reached, "the control");
    let loopback = ["tcp 127.0.0.1 9999".to_owned()];
    assert_eq!(
        net.attempts_as(NOBODY, &loopback),
        ["tcp 127.0.0.1 9999 reached"],
        "the control"
    );
    let copied = site.copy(PROGRAM.into(), "ephemerd");
    let mut run = net.on_host(copied.as_str());
    run.args(["--config", site.config.as_str(), "run"]);
    let daemon = Daemon::start_by(site, run);
    // QEMU shows this host's loopback as 10.0.2.2.
    let script = format!(
        "for to in {public}:{PORT} 10.0.2.2:9999 {denied}; do \
         curl -s -m 20 telnet://$to </dev/null; echo \" $to $?\"; done",
        public = PUBLIC[0],
        denied = denied
            .iter()
            .map(|to| format!("{to}:{PORT}"))
            .collect::<Vec<_>>()
            .join(" "),
    );
    let job = submit(&daemon, &script);
    let story = wait_within(BOOT, "the end of the job", || {
        let story = daemon.story(&job);
        story.job.outcome.is_some().then_some(story)
    });
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 0 }), "{story:?}");
    let said = daemon.output(&job);
    let mut lines = said.lines();
    assert_eq!(
        lines.next(),
        Some(format!("hello {}:{PORT} 0", PUBLIC[0]).as_str()),
        "{said}"
    );
    assert_eq!(lines.next(), Some(" 10.0.2.2:9999 7"), "{said}");
    for to in denied {
        assert_eq!(lines.next(), Some(format!(" {to}:{PORT} 7").as_str()), "{said}");
    }
    let told = out(&daemon.cli(&["jobs", "show", job.as_str()]));
    assert!(told.contains("10.9.8.7"), "what was blocked is told: {told}");
    assert_gone(daemon.site());
}

#[test]
fn heavy_a_killed_daemon_leaves_no_real_machine() {
    let mut daemon = start(site());
    for state in ["booting", "running"] {
        let job = submit(&daemon, "echo ready; sleep 1000");
        wait_within(BOOT, state, || {
            (daemon.story(&job).job.state == state).then_some(())
        });
        let site = daemon.kill();
        wait_for("the end of the machine", || {
            machines(&site).is_empty().then_some(())
        });
        daemon = start(site);
        let story = daemon.ended(&job);
        assert!(
            matches!(story.job.outcome, Some(Outcome::Failed { .. })),
            "{state}: {story:?}"
        );
        assert_eq!(story.job.clean, Some(true), "{state}: {story:?}");
        assert_gone(daemon.site());
    }
}

/// What is tried in a machine whose kernel has all control groups in version 2, with one job at a time. Names what failed.
const GROUPS: &str = r#"
set -u
fail() { echo "FAILED: $*"; exit 1; }
mkdir -p /etc/ephemerd && chmod 755 /usr/local/bin/ephemerd || fail program
cat >/etc/ephemerd/ephemerd.toml <<'END'
[host]
manifest = "none"
min_free_disk = "16MiB"
min_free_memory = "16MiB"
[native]
slots = 1
homebrew = "none"
[native.limits]
memory = "64MiB"
processes = 40
cgroup = "required"
[egress]
mode = "offline"
[trust.repos]
"acme/*" = "native"
END
ephemerd host setup >/dev/null || fail setup
in_job() { ephemerd exec -- "$@" 2>/tmp/said; }
group=$(in_job cat /proc/self/cgroup) || fail "a job: $(cat /tmp/said)"
echo "group ${group%/*}"
in_job cat /sys/fs/cgroup/cgroup.procs >/dev/null && fail "a job sees control groups"
in_job perl -e 'my $x = "x" x (8 << 20); print length $x, "
"' || fail "a small job: $(cat /tmp/said)"
in_job perl -e 'my @a; push @a, "x" x (1 << 20) while 1'
echo "hog $?: $(grep -o 'memory [0-9]* MiB: the kernel ended' /tmp/said)"
in_job perl -e '$n = 0; for (1..200) { my $p = fork; last unless defined $p; $p or sleep 1000; $n++ } print $n < 40 ? "few
" : "many
"; exit 0' || fail "forks: $(cat /tmp/said)"
rmdir /sys/fs/cgroup/ephemerd || fail "left: $(ls /sys/fs/cgroup/ephemerd)"
echo "nothing left"
"#;

#[test]
fn heavy_in_a_machine_with_control_groups_the_kernel_keeps_whole_jobs_to_their_limits() {
    let site = site();
    let image = site.top.join("image");
    let [stripped, raw, disk] = ["ephemerd", "raw", "disk.qcow2"].map(|name| image.join(name).into_string());
    let run = |program: &str, args: &[&str]| {
        let output = command(program).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", said(&output));
    };
    // Into the file system of the image, without mounting it.
    run("strip", &["-o", &stripped, PROGRAM]);
    run("qemu-img", &["convert", "-O", "raw", &disk, &raw]);
    let write = format!("write {stripped} /usr/local/bin/ephemerd");
    run("/usr/sbin/debugfs", &["-w", "-R", &write, &raw]);
    run("qemu-img", &["convert", "-O", "qcow2", &raw, &disk]);
    let daemon = start(site);
    let job = submit(&daemon, GROUPS);
    let story = wait_within(BOOT, "the end of the job", || {
        let story = daemon.story(&job);
        story.job.outcome.is_some().then_some(story)
    });
    let said = daemon.output(&job);
    assert_eq!(
        story.job.outcome,
        Some(Outcome::Exited { code: 0 }),
        "{said}\n{story:?}"
    );
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "group 0::/ephemerd",
            "8388608",
            "hog 137: memory 64 MiB: the kernel ended",
            "few",
            "nothing left"
        ]
    );
}

/// A place where untrusted jobs get containers of runc, with busybox as their whole system.
fn containers() -> Site {
    let site = Site::new("");
    let bundle = site.top.join("bundle");
    for folder in ["bin", "dev", "proc", "sys", "tmp", "root"] {
        fs::create_dir_all(bundle.join("rootfs").join(folder)).unwrap();
    }
    let bin = bundle.join("rootfs/bin");
    // runc runs as the account of the service, and keeps what it knows below this folder.
    let service = nix::unistd::User::from_name(site.family.name).unwrap().unwrap();
    let runtime = site.top.join("runtime");
    fs::create_dir(&runtime).unwrap();
    give(&runtime, &site.family);
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for applet in ["sh", "sleep", "cat", "mkdir", "id", "ls", "touch"] {
        std::os::unix::fs::symlink("busybox", bin.join(applet)).unwrap();
    }
    let tmpfs = |at: &str| serde_json::json!({"destination": at, "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=64m"]});
    let config = serde_json::json!({
        "ociVersion": "1.0.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "cwd": "/", "args": ["sleep", "infinity"], "env": ["PATH=/bin", "HOME=/root"],
            "capabilities": {}, "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "container",
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}, tmpfs("/dev"), tmpfs("/tmp"), tmpfs("/root")],
        "linux": {
            "namespaces": [{"type": "user"}, {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}],
            "uidMappings": [{"containerID": 0, "hostID": service.uid.as_raw(), "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": service.gid.as_raw(), "size": 1}],
        },
    });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    site.configure(&format!(
        "\"vm/*\" = \"vm\"\n[native]\nslots = 2\n[native.limits]\nmemory = \"256MiB\"\n[vm]\nhost_memory = \"1MiB\"\n[vm.backends.runc]\npreset = \"oci\"\nimage = \"{bundle}\"\nmemory = \"64MiB\"\nenv = {{ XDG_RUNTIME_DIR = \"{runtime}\" }}\n"
    ));
    site
}

/// Names of containers of runc that are ours.
fn listed(site: &Site) -> Vec<String> {
    let output = command("/usr/bin/runc")
        .args([
            "--root",
            site.top.join("runtime/runc").as_str(),
            "list",
            "--quiet",
        ])
        .output()
        .unwrap();
    out(&output)
        .lines()
        .map(str::to_owned)
        .filter(|name| name.starts_with("eph-"))
        .collect()
}

#[test]
fn a_job_runs_in_a_real_container_that_sees_neither_files_nor_network_of_the_host() {
    let daemon = start(containers());
    let secret = daemon.site().top.join("secret");
    fs::write(&secret, "").unwrap();
    let script = format!("touch /root/mine && ls {secret} /root; ls -A /etc 2>&1; cat /proc/net/dev; exit 9");
    let job = submit(&daemon, &script);
    let story = daemon.ended(&job);
    assert_eq!(story.job.outcome, Some(Outcome::Exited { code: 9 }), "{story:?}");
    assert_eq!(story.job.isolation, Some(Isolation::Container));
    let said = daemon.output(&job);
    assert!(
        said.contains("mine") && said.contains(&format!("{secret}: No such file")),
        "{said}"
    );
    let devices: Vec<&str> = said
        .lines()
        .filter(|line| line.contains(':') && line.contains(" 0 "))
        .collect();
    assert!(
        devices.len() == 1 && devices[0].trim_start().starts_with("lo:"),
        "{said}"
    );
    assert_eq!(
        daemon.site().data_dir.join("vm").read_dir_utf8().unwrap().count(),
        0
    );
    assert!(
        !listed(daemon.site())
            .iter()
            .any(|name| name.contains(job.as_str())),
        "{:?}",
        listed(daemon.site())
    );
}

#[test]
fn a_container_that_outlives_a_killed_daemon_is_removed_by_the_next_start() {
    let daemon = start(containers());
    let job = submit(&daemon, "echo ready; sleep 1000");
    daemon.wait_for_output(&job, "ready");
    let site = daemon.kill();
    let daemon = start(site);
    let story = daemon.ended(&job);
    assert!(
        matches!(story.job.outcome, Some(Outcome::Failed { .. })),
        "{story:?}"
    );
    assert_eq!(story.job.clean, Some(true), "{story:?}");
    assert!(
        !listed(daemon.site())
            .iter()
            .any(|name| name.contains(job.as_str())),
        "{:?}",
        listed(daemon.site())
    );
}
