//! The careless sibling: this test program itself, run as a job, with everything open that can be.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::harness::{command, wait_for};

/// The name under which the test program knows the sibling.
pub(super) const NAME: &str = "escape::sibling::plays_the_sibling";

/// Key of its System V segment; any number does, because its IPC namespace is its own.
pub(super) const SHM_KEY: i32 = 0x6570_6874;

/// What nobody may change.
const SECRET: &str = "the sibling's secret";

static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// Not a test: started as a job by those that are.
#[test]
#[ignore = "the other side of the escape tests, which start it inside a job"]
fn plays_the_sibling() {
    if std::env::var_os("EPHEMERD_JOB_ID").is_none() {
        return;
    }
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler adds to an atomic, which is safe at any moment.
    unsafe { sigaction(Signal::SIGURG, &action) }.unwrap();
    let mark = wait_for("the mark", || {
        fs::read_to_string("mark").ok().filter(|mark| !mark.is_empty())
    });
    let home = std::env::var("HOME").unwrap();
    let root = Path::new(&home).parent().unwrap();
    for folder in [root, Path::new(&home), &root.join("tmp"), &root.join("work")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let secret = root.join("home/secret");
    write_open(&secret, SECRET);
    write_open(Path::new(&format!("/dev/shm/{mark}")), SECRET);
    let listeners = [
        UnixListener::bind(root.join("tmp/sock")).unwrap(),
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&mark).unwrap()).unwrap(),
    ];
    fs::set_permissions(root.join("tmp/sock"), fs::Permissions::from_mode(0o777)).unwrap();
    let segment = shared_memory();
    println!("the stage is set");

    wait_for("the end", || {
        if let Ok(args) = fs::read_to_string("probe") {
            attack_itself(&args);
        }
        fs::exists("end").unwrap().then_some(())
    });
    assert_eq!(fs::read_to_string(&secret).unwrap(), SECRET);
    assert_eq!(fs::read_to_string(format!("/dev/shm/{mark}")).unwrap(), SECRET);
    assert_eq!(names(&root.join("home")), ["secret"]);
    assert_eq!(names(&root.join("work")), ["end", "mark"]);
    assert_eq!(names(&root.join("tmp")), ["sock"]);
    assert_eq!(SIGNALS.load(Ordering::Relaxed), 0, "signals");
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        assert_eq!(
            listener.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "somebody connected"
        );
    }
    assert_eq!(attached(segment), 0, "somebody has the segment attached");
    println!("nobody was here");
}

fn write_open(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs the probes that were asked for, once.
fn attack_itself(args: &str) {
    fs::remove_file("probe").unwrap();
    let mut words = args.lines();
    let output = command(words.next().unwrap()).args(words).output().unwrap();
    fs::write("answer.new", output.stdout).unwrap();
    fs::rename("answer.new", "answer").unwrap();
}

fn shared_memory() -> i32 {
    // SAFETY: shmget takes three integers.
    Errno::result(unsafe { libc::shmget(SHM_KEY, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o666) }).unwrap()
}

fn attached(segment: i32) -> libc::shmatt_t {
    // SAFETY: all-zero bytes are a valid shmid_ds: integers.
    let mut status: libc::shmid_ds = unsafe { std::mem::zeroed() };
    // SAFETY: IPC_STAT writes one shmid_ds, which outlives the call.
    Errno::result(unsafe { libc::shmctl(segment, libc::IPC_STAT, &raw mut status) }).unwrap();
    status.shm_nattch
}
