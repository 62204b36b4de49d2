//! What a runner has logged about itself, kept when its copy goes: often the only way to tell why it failed.
//!
//! The logs lie in `_diag` of the copy, which belonged to the job. So only regular files of the job's account that have
//! one name are read, through no link, and no more of them than fits: the end of each, which is where it failed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use super::RunnerError;
use crate::host::files::{make_dir, open_folder};

/// The folder of logs in a runner's folder (Runner.Common/Constants.cs, `DiagDirectory`).
const DIAG: &str = "_diag";

/// Logs of listener and worker are called so (Runner.Common/HostTraceListener.cs).
const KINDS: [&str; 2] = ["Runner_", "Worker_"];

/// Most files that are kept. A runner for one job writes two.
const FILES: usize = 8;

/// Longest name of a file that is kept; real ones have 31 bytes.
const NAME_BYTE: usize = 64;

/// Copies the logs of the runner at `root`, which ran as `uid`, into the new folder `to`: at most `limit_byte` in all.
/// Returns how many bytes that were; without logs no folder is made.
///
/// # Errors
/// When the folder cannot be made or written to. What cannot be read is left out.
pub fn keep_logs(root: &Utf8Path, uid: u32, to: &Utf8Path, limit_byte: u64) -> Result<u64, RunnerError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let diag = open_folder(root).ok();
    let Some(mut diag) = diag.and_then(|root| Dir::openat(&root, DIAG, flags, Mode::empty()).ok()) else {
        return Ok(0);
    };
    let names = names(&mut diag);
    let logs: Vec<_> = names
        .iter()
        .filter_map(|name| Some((name, log(diag.as_fd(), name, uid)?)))
        .collect();
    if logs.is_empty() {
        return Ok(0);
    }
    let failed = |path: Utf8PathBuf| move |source| RunnerError::Write { path, source };
    let made = make_dir(to, Mode::S_IRWXU, geteuid().as_raw(), getegid().as_raw());
    made.map_err(io::Error::other).map_err(failed(to.to_owned()))?;
    let folder = open_folder(to)
        .map_err(io::Error::other)
        .map_err(failed(to.to_owned()))?;
    let mut kept = 0;
    for (at, (name, log)) in logs.iter().enumerate() {
        let files = u64::try_from(logs.len() - at).unwrap_or(1);
        let share = (limit_byte - kept) / files;
        kept += keep(folder.as_fd(), name, log, share).map_err(failed(to.join(name)))?;
    }
    Ok(kept)
}

/// The first names of logs, in their order; a job may have made any number of them.
fn names(diag: &mut Dir) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in diag.iter().map_while(Result::ok) {
        let Ok(name) = entry.file_name().to_str() else {
            continue;
        };
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let is_log = KINDS.iter().any(|kind| name.starts_with(kind)) && name.ends_with(".log");
        if is_log && name.len() <= NAME_BYTE && name.bytes().all(is_plain) {
            names.insert(name.to_owned());
        }
        if names.len() > FILES {
            names.pop_last();
        }
    }
    names
}

/// A log, if it is a file of the job's that lies nowhere else as well.
fn log(diag: BorrowedFd<'_>, name: &str, uid: u32) -> Option<File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let log = File::from(openat(diag, name, flags, Mode::empty()).ok()?);
    let status = log.metadata().ok()?;
    (status.is_file() && status.uid() == uid && status.nlink() == 1).then_some(log)
}

/// Writes the end of a log.
fn keep(folder: BorrowedFd<'_>, name: &str, mut log: &File, limit_byte: u64) -> io::Result<u64> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|errno: Errno| io::Error::from(errno))?;
    let skipped = log.metadata()?.len().saturating_sub(limit_byte);
    log.seek(SeekFrom::Start(skipped))?;
    io::copy(&mut log.take(limit_byte), &mut File::from(made))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Bench {
        top: Utf8PathBuf,
        _keep: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let keep = tempfile::tempdir().unwrap();
            let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
            fs::create_dir_all(top.join("runner/_diag")).unwrap();
            Self { top, _keep: keep }
        }

        fn diag(&self, name: &str) -> Utf8PathBuf {
            self.top.join("runner/_diag").join(name)
        }

        fn keep(&self, limit_byte: u64) -> u64 {
            let uid = geteuid().as_raw();
            keep_logs(&self.top.join("runner"), uid, &self.top.join("kept"), limit_byte).unwrap()
        }

        fn kept(&self) -> Vec<(String, String)> {
            let Ok(entries) = self.top.join("kept").read_dir_utf8() else {
                return vec![];
            };
            let read = |entry: camino::Utf8DirEntry| {
                let text = fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().to_owned(), text)
            };
            let mut kept: Vec<_> = entries.map(|entry| read(entry.unwrap())).collect();
            kept.sort();
            kept
        }
    }

    #[test]
    fn the_ends_of_logs_are_kept_and_what_one_does_not_need_another_gets() {
        let bench = Bench::new();
        fs::write(bench.diag("Runner_1.log"), "abc").unwrap();
        fs::write(bench.diag("Worker_1.log"), "0123456789").unwrap();
        assert_eq!(bench.keep(10), 10);
        let expected = [("Runner_1.log", "abc"), ("Worker_1.log", "3456789")];
        assert_eq!(
            bench.kept(),
            expected.map(|(name, text)| (name.to_owned(), text.to_owned()))
        );
    }

    #[test]
    fn links_second_names_and_what_is_no_log_are_left_out() {
        let bench = Bench::new();
        fs::write(bench.top.join("secret"), "secret").unwrap();
        symlink(bench.top.join("secret"), bench.diag("Runner_1.log")).unwrap();
        fs::hard_link(bench.top.join("secret"), bench.diag("Runner_2.log")).unwrap();
        fs::create_dir(bench.diag("Runner_3.log")).unwrap();
        nix::unistd::mkfifo(bench.diag("Runner_4.log").as_std_path(), Mode::S_IRWXU).unwrap();
        for name in [
            "Runner_\u{1b}.log",
            "other.log",
            "Runner_5",
            &format!("Runner_{}.log", "x".repeat(100)),
        ] {
            fs::write(bench.diag(name), "x").unwrap();
        }
        assert_eq!((bench.keep(100), bench.kept()), (0, vec![]));
        let other = keep_logs(
            &bench.top.join("runner"),
            geteuid().as_raw() + 1,
            &bench.top.join("kept"),
            100,
        );
        assert_eq!(other.unwrap(), 0);
    }

    #[test]
    fn a_folder_of_logs_that_leads_elsewhere_or_is_not_there_is_none() {
        let bench = Bench::new();
        fs::remove_dir(bench.diag("")).unwrap();
        assert_eq!(bench.keep(100), 0);
        fs::create_dir(bench.top.join("elsewhere")).unwrap();
        fs::write(bench.top.join("elsewhere/Runner_1.log"), "x").unwrap();
        symlink(bench.top.join("elsewhere"), bench.top.join("runner/_diag")).unwrap();
        assert_eq!((bench.keep(100), bench.kept()), (0, vec![]));
    }

    #[test]
    fn however_many_logs_there_are_few_are_kept_and_never_more_than_the_limit() {
        let bench = Bench::new();
        for number in 0..100 {
            fs::write(bench.diag(&format!("Worker_{number:03}.log")), "x".repeat(1000)).unwrap();
        }
        assert_eq!(bench.keep(100), 100);
        assert_eq!(bench.kept().len(), FILES);
    }
}
