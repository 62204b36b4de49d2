//! The stage: a sibling, a daemon's state and a listener to attack, all made for one run and removed with it.
//!
//! Modes are as open as they can be, so that only the sandbox can be in the way and never the owner's caution.
//! Everything carries the run's mark, and only what carries it is ever removed or killed.
//!
//! ```text
//!  <dir>/native/<own>/{home,tmp,work}        the job's workspace, unless the target is given a real one
//!  <dir>/native/<sibling>/{home,tmp,work}    with home/secret and tmp/sock
//!  <dir>/<mark>/{ephemerd.toml,ledger.db,job.log,app.pem,control.sock}
//!  /tmp, /var/tmp, /dev/shm: one file each   System V segment, message queue, abstract socket, TCP port
//! ```

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Stdio};
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use super::super::table::table;
use super::super::{Attempt, ProbeError, Report, Target};
use super::accounts::status_field;
use super::processes::{open_pidfd, start_ticks};
use crate::job::JobId;

/// What there is to attack. Dropping it removes everything, after the job that attacks has been torn down.
#[derive(Debug)]
pub struct Stage {
    target: Target,
    /// Paths to remove, newest last.
    made: Vec<Utf8PathBuf>,
    segment: Option<i32>,
    queue: Option<CString>,
    sibling: Option<Child>,
    listeners: Vec<OwnedFd>,
}

/// Names a step for its error.
trait Step<T> {
    fn step(self, what: impl Into<String>) -> Result<T, ProbeError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, what: impl Into<String>) -> Result<T, ProbeError> {
        self.map_err(|source| ProbeError::Stage {
            what: what.into(),
            source: source.into(),
        })
    }
}

impl Stage {
    /// Sets a stage in `dir`, which a job's account must be able to reach; `program` is this program's binary,
    /// which plays the sibling.
    ///
    /// # Errors
    /// When something could not be set up; what was set up until then is removed.
    pub fn set(dir: &Utf8Path, program: &Utf8Path) -> Result<Self, ProbeError> {
        let chance = getrandom::u32()
            .map_err(|e| io::Error::other(e.to_string()))
            .step("a name")?;
        let mut stage = Self {
            target: plan(dir, chance),
            made: Vec::new(),
            segment: None,
            queue: None,
            sibling: None,
            listeners: Vec::new(),
        };
        stage.make_workspaces(dir)?;
        stage.make_state()?;
        stage.make_shared_objects()?;
        stage.listen()?;
        stage.start_sibling(program)?;
        Ok(stage)
    }

    /// What a probe run needs to be told.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The same, to be adapted to a real job: its workspace, the daemon's real files, its egress mode.
    pub fn target_mut(&mut self) -> &mut Target {
        &mut self.target
    }

    /// Replaces what was [`Attempt::Planted`] by what came of it. To be called once the job has been torn down.
    pub fn settle(&self, reports: &mut [Report]) {
        for report in reports {
            if !matches!(report.attempt, Attempt::Planted { .. }) {
                continue;
            }
            let reached = match report.name.as_str() {
                "signal-everyone" => self.sibling_was_signalled(),
                "survive-the-job" => survivors(&self.target.mark).into_iter().next(),
                _ => None,
            };
            let attempt = match reached {
                Some(pid) => Attempt::succeeded(format!("seen from outside at process {pid}")),
                None => Attempt::failed(libc::ESRCH, "seen from outside nowhere"),
            };
            if let Some(info) = table().iter().find(|info| info.name == report.name) {
                *report = Report::new(info, attempt);
            }
        }
    }

    /// The sibling's pid if SIGURG, which it blocks, is pending there or it is gone.
    fn sibling_was_signalled(&self) -> Option<i32> {
        let pid = self.target.sibling_pid;
        // The shared set: a signal to a process and not to a thread (proc_pid_status(5)).
        let pending = status_field(&pid.to_string(), "ShdPnd").ok();
        let pending = pending.and_then(|text| u64::from_str_radix(&text, 16).ok());
        let bit = 1u64 << (Signal::SIGURG as i32 - 1);
        pending.is_none_or(|set| set & bit != 0).then_some(pid)
    }

    /// Makes a folder that any account may use.
    fn folder(&mut self, path: &Utf8Path) -> Result<(), ProbeError> {
        fs::create_dir(path).step(path.as_str())?;
        self.made.push(path.to_owned());
        fs::set_permissions(path, Permissions::from_mode(0o777)).step(path.as_str())
    }

    /// Makes a file that any account may read and write.
    fn file(&mut self, path: &Utf8Path) -> Result<(), ProbeError> {
        fs::File::create_new(path).step(path.as_str())?;
        self.made.push(path.to_owned());
        fs::write(path, &self.target.mark).step(path.as_str())?;
        fs::set_permissions(path, Permissions::from_mode(0o666)).step(path.as_str())
    }

    fn make_workspaces(&mut self, dir: &Utf8Path) -> Result<(), ProbeError> {
        let native = dir.join("native");
        if !native.exists() {
            self.folder(&native)?;
        }
        for root in [
            self.target.workspace.clone(),
            self.target.sibling_workspace.clone(),
        ] {
            self.folder(&root)?;
            for name in ["home", "tmp", "work"] {
                self.folder(&root.join(name))?;
            }
        }
        self.file(&self.target.sibling_workspace.join("home/secret"))
    }

    fn make_state(&mut self) -> Result<(), ProbeError> {
        if let Some(folder) = self.target.control_socket.clone().parent() {
            self.folder(folder)?;
        }
        self.target
            .state_files
            .clone()
            .iter()
            .try_for_each(|path| self.file(path))
    }

    fn make_shared_objects(&mut self) -> Result<(), ProbeError> {
        self.file(&self.target.host_tmp_file.clone())?;
        self.file(&self.target.host_var_tmp_file.clone())?;
        self.file(&Utf8Path::new("/dev/shm").join(&self.target.posix_shm))?;
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | 0o666;
        // SAFETY: shmget takes three integers.
        let id = Errno::result(unsafe { libc::shmget(self.target.sysv_shm_key, 4096, flags) });
        self.segment = Some(id.step("a System V segment")?);
        let name = CString::new(format!("/{}", self.target.message_queue)).map_err(io::Error::from);
        let name = name.step("a message queue")?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
        // SAFETY: `name` is NUL-terminated and outlives the call; null attributes mean the defaults.
        let queue = unsafe { libc::mq_open(name.as_ptr(), flags, 0o666, std::ptr::null::<libc::mq_attr>()) };
        match Errno::result(queue) {
            Ok(queue) => {
                self.queue = Some(name);
                // SAFETY: `queue` was just opened; fchmod and close take integers.
                unsafe { libc::fchmod(queue, 0o666) };
                // SAFETY: as above, and nothing uses it afterwards.
                unsafe { libc::mq_close(queue) };
                Ok(())
            }
            // A kernel without queues has none to attack.
            Err(Errno::ENOSYS) => Ok(()),
            Err(errno) => Err(errno).step("a message queue"),
        }
    }

    fn listen(&mut self) -> Result<(), ProbeError> {
        for path in [
            self.target.sibling_workspace.join("tmp/sock"),
            self.target.control_socket.clone(),
        ] {
            self.listeners
                .push(UnixListener::bind(&path).step(path.as_str())?.into());
            self.made.push(path.clone());
            fs::set_permissions(&path, Permissions::from_mode(0o777)).step(path.as_str())?;
        }
        let named = SocketAddr::from_abstract_name(&self.target.sibling_abstract_socket);
        let listener = named.and_then(|address| UnixListener::bind_addr(&address));
        self.listeners
            .push(listener.step("an abstract Unix socket")?.into());
        // Dual stack is not needed: a mapped address is an IPv4 one to the listener.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).step("a TCP listener")?;
        self.target.loopback_port = Some(listener.local_addr().step("a TCP listener")?.port());
        self.listeners.push(listener.into());
        Ok(())
    }

    /// Starts this program as the sibling and waits until it has blocked its signal.
    fn start_sibling(&mut self, program: &Utf8Path) -> Result<(), ProbeError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the stand-in is this program itself, started to be attacked and ended with its input"
        )]
        let mut command = std::process::Command::new(program);
        command
            .args(["__probe", "--stand-in"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
            .env_clear()
            .env("EPHEMERD_PROBE_SECRET", &self.target.mark);
        command.current_dir(self.target.sibling_workspace.join("work"));
        let child = self.sibling.insert(command.spawn().step("a sibling's process")?);
        let mut ready = [0u8; 6];
        let stdout = child
            .stdout
            .as_mut()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EPIPE));
        stdout
            .and_then(|out| out.read_exact(&mut ready))
            .step("a sibling's process")?;
        self.target.sibling_pid = child.id().cast_signed();
        self.target.sibling_start_ticks = start_ticks(self.target.sibling_pid);
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Nothing here may fail loudly: whatever is gone already is as it should be.
        if let Some(mut sibling) = self.sibling.take() {
            drop(sibling.stdin.take());
            let _ = sibling.kill();
            let _ = sibling.wait();
        }
        survivors(&self.target.mark).into_iter().for_each(end);
        if let Some(id) = self.segment {
            // SAFETY: IPC_RMID uses no buffer.
            unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
        if let Some(name) = &self.queue {
            // SAFETY: `name` is NUL-terminated and outlives the call.
            unsafe { libc::mq_unlink(name.as_ptr()) };
        }
        for path in self.made.iter().rev() {
            let _ = match path.symlink_metadata() {
                Ok(meta) if meta.is_dir() && path.file_name() == Some("native") => fs::remove_dir(path),
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
                Ok(_) => fs::remove_file(path),
                Err(error) => Err(error),
            };
        }
    }
}

/// Names and numbers of everything, before any of it exists.
fn plan(dir: &Utf8Path, chance: u32) -> Target {
    let mark = format!("eph{chance:08x}");
    let native = dir.join("native");
    let now = SystemTime::now();
    let state = dir.join(&mark);
    let own = std::process::id().cast_signed();
    let files = ["ephemerd.toml", "ledger.db", "job.log", "app.pem"];
    Target {
        workspace: native.join(JobId::new(now, chance % 46_656).as_str()),
        sibling_workspace: native.join(JobId::new(now, (chance % 46_656 + 1) % 46_656).as_str()),
        sibling_pid: 0,
        sibling_start_ticks: None,
        daemon_pid: own,
        daemon_start_ticks: start_ticks(own),
        outer_pid_namespace: fs::metadata("/proc/self/ns/pid").map(|meta| meta.ino()).ok(),
        sibling_abstract_socket: mark.clone(),
        // Any positive number is a key; zero is IPC_PRIVATE.
        sysv_shm_key: (chance >> 1).cast_signed().max(1),
        posix_shm: mark.clone(),
        message_queue: mark.clone(),
        state_files: files.iter().map(|name| state.join(name)).collect(),
        control_socket: state.join("control.sock"),
        host_tmp_file: Utf8Path::new("/tmp").join(&mark),
        host_var_tmp_file: Utf8Path::new("/var/tmp").join(&mark),
        loopback_port: None,
        own_port: None,
        shown: vec![],
        process_limit: 64,
        mark,
    }
}

/// Pids of living processes called `mark`, which nothing but a survivor of this run is.
fn survivors(mark: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let field = |pid: &i32, name| status_field(&pid.to_string(), name).unwrap_or_default();
    pids.filter(|pid| field(pid, "Name") == mark && !field(pid, "State").starts_with('Z'))
        .collect()
}

/// How long the end of a killed process is waited for, in milliseconds.
const END_MS: i32 = 2000;

/// Kills a process that is no child of this one and waits until it has ended.
fn end(pid: i32) {
    let Ok(pidfd) = open_pidfd(pid) else {
        return;
    };
    // Fails only when it has gone.
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    let mut ended = libc::pollfd {
        fd: pidfd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: `ended` is one initialised pollfd that outlives the call.
    unsafe { libc::poll(&raw mut ended, 1, END_MS) };
}

/// Plays the sibling: blocks SIGURG, so that it stays pending as evidence, says so, and waits for the end of
/// standard input.
///
/// # Errors
/// When the signal cannot be blocked or the stage has gone.
pub fn stand_in() -> Result<(), ProbeError> {
    let mut evidence = SigSet::empty();
    evidence.add(Signal::SIGURG);
    evidence.thread_block().step("a blocked signal")?;
    io::Write::write_all(&mut io::stdout(), b"ready\n").step("the word to the stage")?;
    io::Write::flush(&mut io::stdout()).step("the word to the stage")?;
    io::copy(&mut io::stdin(), &mut io::sink()).step("the end of the stage")?;
    Ok(())
}
