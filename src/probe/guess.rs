//! A target guessed from inside a job, for a hostile job that nobody on the outside helps.
//!
//! What the sandbox hides cannot be known from inside, so the guess takes whatever can be seen, and where nothing
//! can be seen it names what would be there on a host set up by the book.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use super::{ProbeError, Target};

/// The largest pid Linux gives out (proc_sys_kernel(5), `pid_max`); next to certainly no process.
const LAST_PID: i32 = 4_194_303;

/// A port on which most hosts listen.
const SSH: u16 = 22;

impl Target {
    /// Guesses the outside from `home`, the `HOME` of a job, and `process_limit`.
    ///
    /// # Errors
    /// When `home` is not in a workspace: then this is no job, and an attack would hit the host.
    pub fn guess(home: &Utf8Path, process_limit: u64) -> Result<Self, ProbeError> {
        let not_a_job = |why: &str| ProbeError::NotAJob(format!("HOME is `{home}`, {why}"));
        let (Some("home"), Some(workspace)) = (home.file_name(), home.parent()) else {
            return Err(not_a_job("not the `home` of a workspace"));
        };
        let Some(native) = workspace
            .parent()
            .filter(|native| native.file_name() == Some("native"))
        else {
            return Err(not_a_job("not below a folder `native`"));
        };
        if !workspace.join("tmp").is_dir() || !workspace.join("work").is_dir() {
            return Err(not_a_job("without `tmp` and `work` beside it"));
        }
        let data_dir = native.parent().unwrap_or(native);
        let mark = format!(
            "eph{:08x}",
            getrandom::u32().unwrap_or_else(|_| std::process::id())
        );
        let sibling =
            other_entry(native, workspace.file_name()).unwrap_or_else(|| native.join("00000000000"));
        let mut foreign = foreign_processes();
        let (sibling_pid, daemon_pid) = (foreign.next(), foreign.next());
        Ok(Self {
            workspace: workspace.to_owned(),
            sibling_workspace: sibling,
            sibling_pid: sibling_pid.unwrap_or(LAST_PID),
            sibling_start_ticks: None,
            daemon_pid: daemon_pid.unwrap_or(LAST_PID - 1),
            daemon_start_ticks: None,
            outer_pid_namespace: None,
            sibling_abstract_socket: abstract_socket().unwrap_or_else(|| mark.clone()),
            sysv_shm_key: 0x6570_6865,
            posix_shm: foreign_file(Utf8Path::new("/dev/shm"))
                .and_then(|path| path.file_name().map(str::to_owned))
                .unwrap_or_else(|| mark.clone()),
            message_queue: mark.clone(),
            state_files: state_files(data_dir),
            control_socket: data_dir.join("run/ephemerd.sock"),
            host_tmp_file: foreign_file(Utf8Path::new("/tmp")).unwrap_or_else(|| "/tmp".into()),
            host_var_tmp_file: foreign_file(Utf8Path::new("/var/tmp")).unwrap_or_else(|| "/var/tmp".into()),
            loopback_port: is_offline().then_some(SSH),
            own_port: None,
            shown: vec![],
            process_limit,
            mark,
        }
        .with_absent_files())
    }

    /// Replaces folders that stand for "nothing found there" by a file that does not exist.
    fn with_absent_files(mut self) -> Self {
        let absent = format!("{}.absent", self.mark);
        for file in [&mut self.host_tmp_file, &mut self.host_var_tmp_file] {
            if matches!(file.as_str(), "/tmp" | "/var/tmp") {
                *file = file.join(&absent);
            }
        }
        self
    }
}

/// The entries of `dir`, sorted; none where it cannot be listed.
fn entries(dir: &Utf8Path) -> Vec<Utf8PathBuf> {
    let read = || -> io::Result<Vec<_>> {
        dir.read_dir_utf8()?
            .map(|entry| entry.map(|entry| entry.path().to_owned()))
            .collect()
    };
    let mut all = read().unwrap_or_default();
    all.sort();
    all
}

/// The first entry of `dir` not called `own`.
fn other_entry(dir: &Utf8Path, own: Option<&str>) -> Option<Utf8PathBuf> {
    entries(dir).into_iter().find(|path| path.file_name() != own)
}

/// The first file of `dir` that belongs to another account.
fn foreign_file(dir: &Utf8Path) -> Option<Utf8PathBuf> {
    let own = nix::unistd::getuid().as_raw();
    let is_foreign = |path: &Utf8PathBuf| {
        path.symlink_metadata()
            .is_ok_and(|meta| meta.is_file() && meta.uid() != own)
    };
    entries(dir).into_iter().find(is_foreign)
}

/// Processes of other accounts, apart from the sandbox's own init.
fn foreign_processes() -> impl Iterator<Item = i32> {
    let own = nix::unistd::getuid().as_raw();
    entries(Utf8Path::new("/proc"))
        .into_iter()
        .filter_map(move |path| {
            let pid = path.file_name()?.parse::<i32>().ok()?;
            let uid = path.metadata().ok()?.uid();
            (pid != 1 && uid != own).then_some(pid)
        })
}

/// The first abstract socket of this network namespace; the last field of /proc/net/unix, after an `@`.
fn abstract_socket() -> Option<String> {
    let table = fs::read_to_string("/proc/net/unix").ok()?;
    let names = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7));
    names
        .filter_map(|name| name.strip_prefix('@'))
        .find(|name| !name.contains('@'))
        .map(str::to_owned)
}

/// Whether there is no interface but loopback; two lines of /proc/net/dev are its head (proc_pid_net(5)).
fn is_offline() -> bool {
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut names = table
        .lines()
        .skip(2)
        .filter_map(|line| line.split(':').next())
        .map(str::trim);
    names.next() == Some("lo") && names.next().is_none()
}

/// What is where the daemon keeps its state, seen or by the book.
fn state_files(data_dir: &Utf8Path) -> Vec<Utf8PathBuf> {
    let seen = entries(data_dir)
        .into_iter()
        .filter(|path| path.file_name() != Some("native"));
    let book = ["ledger.db", "logs", "run"]
        .into_iter()
        .map(|name| data_dir.join(name));
    let config = ["/etc/ephemerd/ephemerd.toml", "/etc/ephemerd/app.pem"]
        .into_iter()
        .map(Utf8PathBuf::from);
    let mut all: Vec<_> = seen.chain(book).chain(config).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> (tempfile::TempDir, Utf8PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(dir.path().to_owned())
            .unwrap()
            .join("native/0abc0000xyz");
        for folder in ["home", "tmp", "work"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        (dir, root)
    }

    #[test]
    fn guesses_the_workspace_from_home() {
        let (_dir, root) = workspace();
        let target = Target::guess(&root.join("home"), 64).unwrap();
        assert_eq!(target.workspace, root);
        assert_eq!(target.sibling_workspace.parent(), root.parent());
        assert_ne!(target.sibling_workspace, root);
    }

    #[test]
    fn takes_a_sibling_it_can_see() {
        let (_dir, root) = workspace();
        let sibling = root.parent().unwrap().join("0abc0001xyz");
        fs::create_dir(&sibling).unwrap();
        assert_eq!(
            Target::guess(&root.join("home"), 64).unwrap().sibling_workspace,
            sibling
        );
    }

    #[test]
    fn takes_for_state_whatever_it_sees_beside_the_workspaces() {
        let (_dir, root) = workspace();
        let other = root.parent().unwrap().with_file_name("keys.pem");
        fs::write(&other, "").unwrap();
        assert!(
            Target::guess(&root.join("home"), 64)
                .unwrap()
                .state_files
                .contains(&other)
        );
    }

    #[test]
    fn refuses_to_attack_from_outside_a_job() {
        let (_dir, root) = workspace();
        for home in ["/root", "/home", "/"] {
            assert!(Target::guess(Utf8Path::new(home), 64).is_err(), "{home}");
        }
        fs::remove_dir(root.join("tmp")).unwrap();
        assert!(Target::guess(&root.join("home"), 64).is_err());
    }
}
