//! How the probes for macOS do what they do. Whatever succeeds changes nothing, or is undone at once.

#![expect(
    clippy::disallowed_methods,
    reason = "an attempt starts programs as a job does; all of it runs inside the sandbox that is tried"
)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use camino::Utf8Path;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::{Outside, Refusal};
use crate::host::Os;

type Outcome = Result<(), Refusal>;

/// An address nobody has (RFC 5737, TEST-NET-1).
const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

fn secret(outside: &Outside) -> camino::Utf8PathBuf {
    outside.sibling.join("home/secret")
}

fn done<T>(result: io::Result<T>) -> Outcome {
    result.map(drop).map_err(Refusal::Call)
}

/// An error for an answer that is not the right one.
fn wrong(what: &str) -> Refusal {
    Refusal::Call(io::Error::other(what.to_owned()))
}

pub(super) fn read_sibling(outside: &Outside) -> Outcome {
    done(fs::read(secret(outside)))
}

pub(super) fn list_sibling(outside: &Outside) -> Outcome {
    done(fs::read_dir(outside.sibling.join("home")))
}

pub(super) fn write_sibling(outside: &Outside) -> Outcome {
    done(OpenOptions::new().write(true).open(secret(outside)))
}

pub(super) fn create_at_sibling(outside: &Outside) -> Outcome {
    let path = outside.sibling.join("home/made");
    File::create_new(&path)?;
    done(fs::remove_file(path))
}

fn there_and_back(path: &Utf8Path) -> Outcome {
    let other = Utf8Path::new(path.as_str().trim_end_matches('/')).with_extension("renamed");
    fs::rename(path, &other)?;
    done(fs::rename(other, path))
}

pub(super) fn rename_sibling(outside: &Outside) -> Outcome {
    there_and_back(&outside.sibling.join("work"))
}

pub(super) fn rename_workspace(outside: &Outside) -> Outcome {
    there_and_back(&outside.workspace)
}

pub(super) fn link_sibling(outside: &Outside) -> Outcome {
    let link = outside.workspace.join("work/probe-link");
    fs::hard_link(secret(outside), &link)?;
    done(fs::remove_file(link))
}

pub(super) fn read_state(outside: &Outside) -> Outcome {
    let mut last = Refusal::Nothing("there are no files of a daemon");
    for path in &outside.state_files {
        match File::open(path) {
            Ok(_) => return Ok(()),
            Err(error) => last = Refusal::Call(error),
        }
    }
    Err(last)
}

pub(super) fn write_sudoers(_: &Outside) -> Outcome {
    let path = Utf8Path::new("/etc/sudoers");
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(Refusal::Nothing("there is no /etc/sudoers"));
    }
    done(OpenOptions::new().append(true).open(path))
}

pub(super) fn signal_sibling(outside: &Outside) -> Outcome {
    done(kill(Pid::from_raw(outside.sibling_pid), None).map_err(io::Error::from))
}

/// Runs a tool of macOS that must be there.
fn tool(program: &str, args: &[&str]) -> Result<String, Refusal> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::Nothing("this system does not have the tool"));
        }
        output => output?,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Refusal::Tool(output.status.code().unwrap_or(-1)))
}

/// `ps -E` shows the environment of processes it may read (ps(1) of macOS), by sysctl `kern.procargs2`.
pub(super) fn environment_of_sibling(outside: &Outside) -> Outcome {
    if Os::host() != Os::MacOs {
        return Err(Refusal::Nothing(
            "only ps(1) of macOS shows environments this way",
        ));
    }
    let shown = tool(
        "/bin/ps",
        &["-E", "-o", "command=", "-p", &outside.sibling_pid.to_string()],
    )?;
    if shown.contains(super::stage::MARK) {
        return Ok(());
    }
    // The process itself may be listed; what it was started with is not.
    Err(Refusal::Tool(0))
}

pub(super) fn submit_to_launchd(outside: &Outside) -> Outcome {
    let label = format!("ephemerd.probe.{}", outside.sibling_pid);
    let launchctl = "/bin/launchctl";
    tool(launchctl, &["submit", "-l", &label, "--", "/usr/bin/true"])?;
    // What has got out must not stay; that it did is the answer.
    let _ = tool(launchctl, &["remove", &label]);
    Ok(())
}

pub(super) fn connect_sibling(outside: &Outside) -> Outcome {
    done(UnixStream::connect(outside.sibling.join("tmp/sock")))
}

pub(super) fn connect_control(outside: &Outside) -> Outcome {
    match &outside.control_socket {
        Some(socket) => done(UnixStream::connect(socket)),
        None => Err(Refusal::Nothing("no daemon listens")),
    }
}

pub(super) fn connect_elsewhere(outside: &Outside) -> Outcome {
    if outside.online {
        return Err(Refusal::Nothing("the profile lets jobs reach other hosts"));
    }
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    done(socket.connect(ELSEWHERE))
}

pub(super) fn icmp_socket(_: &Outside) -> Outcome {
    // SAFETY: socket takes three integers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP) });
    let fd = fd.map_err(io::Error::from)?;
    // SAFETY: `fd` was just opened, and nothing uses it afterwards.
    unsafe { libc::close(fd) };
    Ok(())
}

pub(super) fn write_own(outside: &Outside) -> Outcome {
    for folder in ["home", "tmp", "work"] {
        let path = outside.workspace.join(folder).join("probe");
        fs::write(&path, folder)?;
        if fs::read_to_string(&path)? != folder {
            return Err(wrong("what was read is not what was written"));
        }
        fs::remove_file(path)?;
    }
    Ok(())
}

pub(super) fn rename_own(outside: &Outside) -> Outcome {
    let from = outside.workspace.join("tmp/probe-from");
    let to = outside.workspace.join("work/probe-to");
    fs::write(&from, "")?;
    fs::rename(from, &to)?;
    done(fs::remove_file(to))
}

pub(super) fn working_folder(_: &Outside) -> Outcome {
    done(std::env::current_dir())
}

pub(super) fn devices(_: &Outside) -> Outcome {
    fs::write("/dev/null", "gone")?;
    done(File::open("/dev/urandom")?.read_exact(&mut [0; 8]))
}

pub(super) fn run_shell(_: &Outside) -> Outcome {
    let status = Command::new("/bin/sh").args(["-c", "exit 7"]).status()?;
    match status.code() {
        Some(7) => Ok(()),
        _ => Err(wrong("the shell did not end with 7")),
    }
}

pub(super) fn kill_child(_: &Outside) -> Outcome {
    let mut child = Command::new("/bin/cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    child.kill()?;
    done(child.wait())
}

pub(super) fn terminal(_: &Outside) -> Outcome {
    done(nix::pty::openpty(None, None).map_err(io::Error::from))
}

pub(super) fn own_socket(outside: &Outside) -> Outcome {
    let path = outside.workspace.join("tmp/probe.sock");
    let listener = UnixListener::bind(&path)?;
    UnixStream::connect(&path)?.write_all(b"x")?;
    listener.accept()?.0.read_exact(&mut [0])?;
    done(fs::remove_file(path))
}

pub(super) fn loopback(outside: &Outside) -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, outside.own_port))?;
    TcpStream::connect(listener.local_addr()?)?.write_all(b"x")?;
    done(listener.accept()?.0.read_exact(&mut [0]))
}
