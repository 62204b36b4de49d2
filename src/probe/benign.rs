//! Benign probes of files, IPC and network: what every build does and no sandbox may prevent.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use camino::{Utf8Path, Utf8PathBuf};
use nix::errno::Errno;
use nix::unistd::{User, getuid};

use super::{Attempt, Probes, Target, tried};

pub(super) const PROBES: Probes = &[
    ("use-own-folders", |t| {
        tried(use_own_folders(t), "write and read in home, tmp and work")
    }),
    ("rename-across-folders", |t| {
        tried(rename_across(t), "rename from tmp to work")
    }),
    ("link-in-workspace", |t| {
        tried(link(t), "folder, symbolic and hard link in work")
    }),
    ("use-tmp", |t| {
        let path = format!("/tmp/{}.benign", t.mark);
        tried(write_and_read(Utf8Path::new(&path)), path)
    }),
    ("read-accounts", |_| match User::from_uid(getuid()) {
        Ok(Some(user)) => Attempt::succeeded(format!("this is {}", user.name)),
        Ok(None) => Attempt::failed(libc::ENOENT, format!("uid {} has no name", getuid())),
        Err(errno) => tried(Err::<(), _>(errno), "getpwuid"),
    }),
    ("read-proc-self", |_| {
        tried(read_proc_self(), "read status, maps and environ of /proc/self")
    }),
    ("write-dev-null", |_| {
        tried(fs::write("/dev/null", b"x"), "write /dev/null")
    }),
    ("read-dev-urandom", |_| {
        let result = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut [0; 16]));
        tried(result, "read /dev/urandom")
    }),
    ("reopen-stdout", |_| {
        // Nothing is written: this is where the report goes.
        tried(
            OpenOptions::new().write(true).open("/dev/stdout"),
            "open /dev/stdout",
        )
    }),
    ("unix-socket-in-tmp", |t| {
        tried(unix_socket(t), "Unix socket in tmp")
    }),
    ("own-abstract-socket", |t| {
        tried(abstract_socket(t), "abstract Unix socket")
    }),
    ("own-sysv-shm", |_| tried(sysv(), "System V segment")),
    ("own-posix-shm", |t| {
        let path = format!("/dev/shm/{}.benign", t.mark);
        tried(write_and_read(Utf8Path::new(&path)), path)
    }),
    ("own-loopback", |t| tried(loopback(t), "TCP over loopback")),
    ("resolve-localhost", |_| {
        tried(("localhost", 80).to_socket_addrs(), "getaddrinfo of localhost")
    }),
];

/// A path of this run in one of the workspace's folders.
fn own(target: &Target, folder: &str) -> Utf8PathBuf {
    target
        .workspace
        .join(folder)
        .join(format!("{}.benign", target.mark))
}

/// Fails unless what was read is what was written.
fn same(heard: &[u8], said: &[u8]) -> io::Result<()> {
    if heard == said {
        Ok(())
    } else {
        Err(io::Error::other("read something else than was written"))
    }
}

/// Writes a new file, reads it back and removes it.
fn write_and_read(path: &Utf8Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)?
        .write_all(b"hello")?;
    let heard = fs::read(path)?;
    fs::remove_file(path)?;
    same(&heard, b"hello")
}

fn use_own_folders(target: &Target) -> io::Result<()> {
    ["home", "tmp", "work"]
        .iter()
        .try_for_each(|folder| write_and_read(&own(target, folder)))
}

fn rename_across(target: &Target) -> io::Result<()> {
    let (from, to) = (own(target, "tmp"), own(target, "work"));
    File::create_new(&from)?;
    fs::rename(&from, &to)?;
    fs::remove_file(&to)
}

fn link(target: &Target) -> io::Result<()> {
    let folder = own(target, "work");
    fs::create_dir(&folder)?;
    fs::write(folder.join("file"), b"hello")?;
    symlink("file", folder.join("soft"))?;
    fs::hard_link(folder.join("file"), folder.join("hard"))?;
    let heard = [fs::read(folder.join("soft"))?, fs::read(folder.join("hard"))?].concat();
    fs::remove_dir_all(&folder)?;
    same(&heard, b"hellohello")
}

fn read_proc_self() -> io::Result<()> {
    ["status", "maps", "environ"]
        .iter()
        .try_for_each(|name| fs::read(format!("/proc/self/{name}")).map(drop))
}

/// Sends a word from one end to the other.
fn talk(mut from: impl Write, mut to: impl Read) -> io::Result<()> {
    from.write_all(b"hello")?;
    let mut heard = [0; 5];
    to.read_exact(&mut heard)?;
    same(&heard, b"hello")
}

fn unix_socket(target: &Target) -> io::Result<()> {
    let path = own(target, "tmp");
    let listener = UnixListener::bind(&path)?;
    let result = UnixStream::connect(&path).and_then(|from| talk(from, listener.accept()?.0));
    fs::remove_file(&path)?;
    result
}

fn abstract_socket(target: &Target) -> io::Result<()> {
    let address = SocketAddr::from_abstract_name(format!("{}.benign", target.mark))?;
    let listener = UnixListener::bind_addr(&address)?;
    talk(UnixStream::connect_addr(&address)?, listener.accept()?.0)
}

fn sysv() -> io::Result<()> {
    // SAFETY: shmget takes three integers.
    let id = Errno::result(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) })?;
    // SAFETY: a null address lets the kernel choose a free one.
    let address = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    let attached = if address.addr() == usize::MAX {
        Err(Errno::last())
    } else {
        Ok(())
    };
    // SAFETY: IPC_RMID uses no buffer; the segment goes when this process does.
    let removed = Errno::result(unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) });
    attached.and(removed.map(drop)).map_err(Into::into)
}

fn loopback(target: &Target) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, target.own_port.unwrap_or(0)))?;
    talk(TcpStream::connect(listener.local_addr()?)?, listener.accept()?.0)
}
