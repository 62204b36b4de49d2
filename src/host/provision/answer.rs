//! Answers, by looking. All questions are answered at the same time, each in a thread of its own: most of them wait
//! for a tool, and the slowest decides how long all take.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{AccessFlags, access};
use sha2::{Digest, Sha256};

use crate::host::command::{CommandError, CommandSpec, run, run_as, run_here};
use crate::host::files::way;
use crate::host::{Host, Os, egress, os, probe};
use crate::provision::manifest::hex;
use crate::provision::question::{Ability, Answer, Disk, Entry, EntryKind, Question, Ran, Tool, View};
use crate::slot::Account;

/// Questions that are answered at once; more than any manifest has, and few enough for the limits of a job.
const AT_ONCE: usize = 128;

/// The longest file that is read, in bytes.
const TEXT_MAX_BYTE: u64 = 1024 * 1024;

/// How long a question about files may take: a dead network file system never answers.
const FILES: Duration = Duration::from_secs(20);

/// What a tool gets besides its own time, to be ended and to hand over what it said.
const SLACK: Duration = Duration::from_secs(5);

/// Answers all `questions`, in their order, with the eyes of this process. `view` says what those are: as a job it
/// starts tools in its own surroundings, otherwise in a clean one. `told` is called with the number of answers so far.
pub fn answer_all(host: &Host, view: View, questions: &[Question], told: &dyn Fn(usize)) -> Vec<Answer> {
    let limit = |question: &Question| match question {
        Question::Run(tool) => Duration::from_millis(tool.timeout_ms) + SLACK,
        _ => FILES + SLACK,
    };
    let rounds = u32::try_from(questions.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    let slowest = questions.iter().map(limit).max().unwrap_or_default();
    let deadline = Instant::now() + slowest.saturating_mul(rounds);
    let left: Vec<(usize, Question)> = questions.iter().cloned().enumerate().rev().collect();
    let left = Arc::new(Mutex::new(left));
    let (send, answered) = channel();
    let mut threads = 0;
    for _ in 0..questions.len().min(AT_ONCE) {
        let (left, send, host) = (Arc::clone(&left), send.clone(), host.clone());
        let work = move || {
            loop {
                let taken = left.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some((at, question)) = taken else { return };
                if send.send((at, answer(&host, view, &question))).is_err() {
                    return;
                }
            }
        };
        // A job may have fewer threads than questions; the others do the rest. One that never comes back is left
        // alone: nothing can end a system call that hangs.
        if std::thread::Builder::new().spawn(work).is_err() {
            break;
        }
        threads += 1;
    }
    drop(send);
    let mut answers = vec![None; questions.len()];
    let mut count = 0;
    while threads > 0 && count < questions.len() {
        match answered.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((at, answer)) => {
                answers[at] = Some(answer);
                count += 1;
                told(count);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    let unanswered = if threads > 0 {
        Answer::TimedOut
    } else {
        Answer::Failed("no thread could be started to look".to_owned())
    };
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|| unanswered.clone()))
        .collect()
}

/// Answers one question.
fn answer(host: &Host, view: View, question: &Question) -> Answer {
    match question {
        Question::Run(tool) => run_tool(view, tool),
        Question::Find { name, path } => find(name, path),
        Question::Look { path, digest } => look(path, *digest),
        Question::Resolve(path) => resolve(path),
        Question::Read(path) => read(path),
        Question::List(path) => list(path),
        Question::Load(library) => load_elsewhere(library),
        Question::Variable(name) => match std::env::var(name) {
            Ok(value) => Answer::Text(value),
            Err(std::env::VarError::NotPresent) => Answer::Missing,
            Err(error @ std::env::VarError::NotUnicode(_)) => Answer::Failed(error.to_string()),
        },
        Question::Writable(path) => writable(path),
        Question::Disk(path) => disk(host, path),
        Question::Ability(ability) => able(host, *ability),
    }
}

/// What an error says about the thing that was asked for.
fn failed(error: &io::Error) -> Answer {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Answer::Missing,
        io::ErrorKind::PermissionDenied => Answer::Denied,
        _ => Answer::Failed(error.to_string()),
    }
}

/// The folders to look for programs in: those named, or this process's own.
fn folders(path: &[Utf8PathBuf]) -> Vec<Utf8PathBuf> {
    if path.is_empty() {
        let own = std::env::var("PATH").unwrap_or_default();
        own.split(':')
            .filter(|folder| folder.starts_with('/'))
            .map(Utf8PathBuf::from)
            .collect()
    } else {
        path.to_vec()
    }
}

/// The first program of that name that can be started.
fn find(name: &Utf8Path, path: &[Utf8PathBuf]) -> Answer {
    if name.is_absolute() {
        return startable(name);
    }
    let mut best = Answer::Missing;
    for folder in folders(path) {
        match startable(&folder.join(name)) {
            Answer::At(found) => return Answer::At(found),
            Answer::Missing => {}
            other => best = other,
        }
    }
    best
}

/// Whether a program can be started from `path`. Landlock lets access(2) say yes to what it forbids, so a program that
/// everybody may read is opened too.
fn startable(path: &Utf8Path) -> Answer {
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Answer::Missing,
        Err(error) => return failed(&error),
    };
    if let Err(errno) = access(path.as_std_path(), AccessFlags::X_OK) {
        return failed(&errno.into());
    }
    match File::open(path) {
        Err(error) if metadata.mode() & 0o004 != 0 => failed(&error),
        Ok(_) | Err(_) => Answer::At(path.to_owned()),
    }
}

/// Why a program cannot be run as a tool says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is none.
    #[error("there is no `{0}`\nhint: install it first")]
    Missing(Utf8PathBuf),
    /// It may not be started.
    #[error("`{0}` cannot be started: permission denied")]
    Denied(Utf8PathBuf),
    /// Its owner is nobody.
    #[error("{0}")]
    Owner(String),
}

/// How a tool is run, and as whom, where that is not as whoever runs it.
pub(super) fn prepared(tool: &Tool) -> Result<(CommandSpec, Option<Account>), AnswerError> {
    let Tool {
        program,
        path,
        args,
        as_owner,
        passes_on,
        env,
        timeout_ms,
    } = tool;
    let program = match find(program, path) {
        Answer::At(program) => program,
        Answer::Denied => return Err(AnswerError::Denied(program.clone())),
        _ => return Err(AnswerError::Missing(program.clone())),
    };
    let mut spec = CommandSpec {
        program,
        args: args.clone(),
        stdin: None,
        home: None,
        env: env.clone(),
        timeout: Duration::from_millis(*timeout_ms),
    };
    // Everybody else can only be who they are.
    if !nix::unistd::geteuid().is_root() {
        return Ok((spec, None));
    }
    let code = [
        Some(&spec.program),
        passes_on.as_ref().filter(|path| path.exists()),
    ];
    let controller = controller(code.into_iter().flatten()).map_err(AnswerError::Owner)?;
    match controller {
        Some(uid) => {
            let (account, home) = account(uid).map_err(AnswerError::Owner)?;
            spec.home = Some(home);
            Ok((spec, Some(account)))
        }
        None if *as_owner => Err(AnswerError::Owner(format!(
            "`{}` belongs to root, and is not to be run as root",
            spec.program
        ))),
        None => Ok((spec, None)),
    }
}

/// The groups whose members are root as soon as they like: root's own, and `admin` of macOS, which may use sudo(8).
const ROOT_LIKE: &[u32] = match Os::host() {
    Os::Linux => &[0],
    Os::MacOs => &[0, 80],
};

/// The one account besides root that could put something else at one of `paths`, if there is one: root runs what lies
/// there as that account. Everything on the way is looked at, so that whoever could change an answer of this function is
/// the answer.
fn controller<'a>(paths: impl Iterator<Item = &'a Utf8PathBuf>) -> Result<Option<u32>, String> {
    let mut found: Option<u32> = None;
    for path in paths {
        let way = way(path).map_err(|error| format!("`{path}`: {error}"))?;
        for (entry, metadata) in way.entries {
            let (mode, uid) = (metadata.mode(), metadata.uid());
            let is_group_root = uid != 0 || ROOT_LIKE.contains(&metadata.gid());
            let is_open = mode & 0o002 != 0 || (mode & 0o020 != 0 && !is_group_root);
            // In a folder with the sticky bit everybody can change only what is their own.
            if is_open && mode & 0o1000 == 0 && !metadata.is_symlink() {
                return Err(format!(
                    "`{entry}` can be changed by others, so that root runs nothing there"
                ));
            }
            match found {
                _ if uid == 0 => {}
                Some(other) if other != uid => {
                    return Err(format!(
                        "`{path}` is in the hands of the accounts {other} and {uid}"
                    ));
                }
                Some(_) | None => found = Some(uid),
            }
        }
    }
    Ok(found)
}

/// An account and its home.
fn account(uid: u32) -> Result<(Account, Utf8PathBuf), String> {
    let user = users::get_user_by_uid(uid).ok_or_else(|| format!("there is no account with uid {uid}"))?;
    let home = users::os::unix::UserExt::home_dir(&user).to_owned();
    let home =
        Utf8PathBuf::from_path_buf(home).map_err(|home| format!("`{}` is not UTF-8", home.display()))?;
    let account = Account {
        name: user.name().to_string_lossy().into_owned(),
        uid,
        gid: user.primary_group_id(),
    };
    Ok((account, home))
}

fn run_tool(view: View, tool: &Tool) -> Answer {
    let (spec, account) = match prepared(tool) {
        Ok(found) => found,
        Err(AnswerError::Missing(_)) => return Answer::Missing,
        Err(AnswerError::Denied(_)) => return Answer::Denied,
        Err(AnswerError::Owner(why)) => return Answer::Failed(why),
    };
    let ran = match view {
        View::Job => run_here(&spec),
        View::Host => run_as(&spec, account.as_ref()),
    };
    match ran {
        Ok(output) => Answer::Ran(Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: output.stderr,
        }),
        Err(CommandError::TimedOut { .. }) => Answer::TimedOut,
        Err(CommandError::Start { source, .. }) => failed(&source),
        Err(error) => Answer::Failed(crate::chain(&error)),
    }
}

fn look(path: &Utf8Path, digest: bool) -> Answer {
    let looked = look_entry(path).and_then(|entry| match entry {
        Some(entry) if digest && entry.is == EntryKind::File => {
            let sha256 = Some(hash(path)?);
            Ok(Some(Entry { sha256, ..entry }))
        }
        other => Ok(other),
    });
    match looked {
        Ok(Some(entry)) => Answer::Entry(entry),
        Ok(None) => Answer::Missing,
        Err(error) => failed(&error),
    }
}

/// What is at `path`, without its hash; `None` when there is nothing.
pub(super) fn look_entry(path: &Utf8Path) -> io::Result<Option<Entry>> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if failed(&error) == Answer::Missing => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = metadata.file_type();
    let is = if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Folder
    } else if kind.is_symlink() {
        EntryKind::Link
    } else {
        EntryKind::Other
    };
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let owner = users::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned());
    let group = users::get_group_by_gid(gid).map(|group| group.name().to_string_lossy().into_owned());
    Ok(Some(Entry {
        is,
        owner: owner.unwrap_or_else(|| uid.to_string()),
        group: group.unwrap_or_else(|| gid.to_string()),
        mode: metadata.mode() & 0o7777,
        sha256: None,
    }))
}

/// SHA-256 of a file, in hexadecimal.
pub(super) fn hash(path: &Utf8Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hash.finalize())),
            Ok(got) => hash.update(&buffer[..got]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Follows a path to its end, and opens what is there: a sandbox may let one see a name and no more.
fn resolve(path: &Utf8Path) -> Answer {
    let real = match path.canonicalize_utf8() {
        Ok(real) => real,
        Err(error) => return failed(&error),
    };
    let metadata = match fs::metadata(&real) {
        Ok(metadata) => metadata,
        Err(error) => return failed(&error),
    };
    // Opening a pipe or a device waits, or does things.
    if !metadata.is_file() && !metadata.is_dir() {
        return Answer::At(real);
    }
    match File::open(&real) {
        Ok(_) => Answer::At(real),
        Err(error) => failed(&error),
    }
}

fn read(path: &Utf8Path) -> Answer {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => return Answer::Failed(format!("`{path}` is no file")),
        Ok(_) => {}
        Err(error) => return failed(&error),
    }
    let mut text = vec![];
    let got = File::open(path).and_then(|file| file.take(TEXT_MAX_BYTE + 1).read_to_end(&mut text));
    match got {
        Ok(got) if u64::try_from(got).unwrap_or(u64::MAX) > TEXT_MAX_BYTE => {
            Answer::Failed(format!("`{path}` is longer than 1 MiB"))
        }
        Ok(_) => Answer::Text(String::from_utf8_lossy(&text).into_owned()),
        Err(error) => failed(&error),
    }
}

fn list(path: &Utf8Path) -> Answer {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return failed(&error),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    Answer::Names(names)
}

/// The option that makes this program load one library and say how that went.
pub const LOAD: &str = "--load";

/// How loading a library in a process of its own ends when there is none of that name; 0 when it was loaded.
pub const NO_LIBRARY: u8 = 3;

/// Loads a library in a process of its own: what a library does while it is loaded may end the process.
fn load_elsewhere(library: &str) -> Answer {
    let own = std::env::current_exe().and_then(|path| {
        Utf8PathBuf::from_path_buf(path)
            .map_err(|path| io::Error::other(format!("`{}` is not UTF-8", path.display())))
    });
    let own = match own {
        Ok(own) => own,
        Err(error) => return Answer::Failed(error.to_string()),
    };
    let spec = CommandSpec::new(&own, &["__look", LOAD, library], Duration::from_secs(20));
    match run_here(&spec) {
        Ok(output) => match output.status.code() {
            Some(0) => Answer::At(output.stdout.trim().into()),
            Some(code) if code == i32::from(NO_LIBRARY) => Answer::Missing,
            Some(_) => Answer::Text(output.stdout.trim().to_owned()),
            None => Answer::Text(format!("loading it ends the process: {}", output.status)),
        },
        Err(CommandError::TimedOut { .. }) => Answer::TimedOut,
        Err(error) => Answer::Failed(crate::chain(&error)),
    }
}

/// Loads a library into this process, and returns where it was found, or its name where that is not told.
///
/// # Errors
/// What the dynamic loader says, and true when it found no file.
pub fn load(library: &str) -> Result<String, (String, bool)> {
    let name = CString::new(library).map_err(|error| (error.to_string(), true))?;
    // SAFETY: `name` is NUL-terminated and outlives the call. What the library does while it is loaded is what is
    // asked, and this process does nothing else.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !handle.is_null() {
        let name = Utf8Path::new(library).file_name().unwrap_or(library);
        let loaded = os::loaded_objects();
        let found = loaded
            .into_iter()
            .find(|path| Utf8Path::new(path).file_name() == Some(name));
        return Ok(found.unwrap_or_else(|| library.to_owned()));
    }
    // SAFETY: takes no arguments; the text is valid until the next call of the loader's.
    let text = unsafe { libc::dlerror() };
    let why = if text.is_null() {
        "no reason".to_owned()
    } else {
        // SAFETY: not null, NUL-terminated, and nothing has called the loader since.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    // glibc: `libx.so: cannot open shared object file: No such file or directory`, with the name of a library that it
    // needs in place of its own when that is what is missing; dyld: `dlopen(libx.dylib, 0x0002): tried: '…' (no such file)`.
    let is_missing = match Os::host() {
        Os::Linux => {
            why.starts_with(&format!("{library}: cannot open")) && why.ends_with("No such file or directory")
        }
        Os::MacOs => why.contains("(no such file)") && !why.contains("Library not loaded"),
    };
    Err((why, is_missing))
}

/// Tries to write: only that tells what a sandbox allows.
fn writable(path: &Utf8Path) -> Answer {
    let tried = match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let name = format!(".ephemerd-look-{}", getrandom::u64().unwrap_or_default());
            let probe = path.join(name);
            File::create_new(&probe).map(|_| {
                let _ = fs::remove_file(&probe);
            })
        }
        Ok(_) => File::options().append(true).open(path).map(|_| ()),
        Err(error) => Err(error),
    };
    match tried {
        Ok(()) => Answer::Yes,
        Err(error) => match failed(&error) {
            Answer::Denied => Answer::No,
            Answer::Failed(_) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Answer::No,
            other => other,
        },
    }
}

fn disk(host: &Host, path: &Utf8Path) -> Answer {
    let looked = path.canonicalize_utf8().and_then(|real| {
        let found = nix::sys::statvfs::statvfs(real.as_std_path())?;
        // The widths of the fields differ between the systems.
        #[expect(clippy::useless_conversion, reason = "they are u32 on macOS")]
        let free_byte = u64::from(found.blocks_available()) * u64::from(found.fragment_size());
        let disk = match host.os {
            Os::Linux => mounted(&fs::read_to_string("/proc/self/mounts")?, &real).map(|filesystem| Disk {
                free_byte,
                filesystem,
            }),
            Os::MacOs => {
                let spec = CommandSpec::new(&host.mac.diskutil, &["info", "-plist", real.as_str()], DISKUTIL);
                let output = run(&spec).and_then(|output| output.require_success(&spec));
                let output = output.map_err(|error| io::Error::other(crate::chain(&error)))?;
                volume(&output.stdout, free_byte)
            }
        };
        disk.ok_or_else(|| io::Error::other("nobody says which file system this is"))
    });
    match looked {
        Ok(disk) => Answer::Disk(disk),
        Err(error) => failed(&error),
    }
}

/// How long diskutil(8) may take.
const DISKUTIL: Duration = Duration::from_secs(20);

/// The kind of the file system that `path`, which has no links in it, lies on, from proc_pid_mounts(5). Where a mount point
/// is named twice, the later mount is on top.
fn mounted(mounts: &str, path: &Utf8Path) -> Option<String> {
    let fields = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let point = fields.nth(1)?.replace("\\040", " ");
        Some((point, fields.next()?))
    });
    let deepest = fields
        .filter(|(point, _)| path.starts_with(point))
        .max_by_key(|(point, _)| point.len());
    deepest.map(|(_, kind)| kind.to_owned())
}

/// What `diskutil info -plist` says of a path. Volumes of APFS share the room of their container; of other file systems
/// `free_byte` is what is free.
fn volume(text: &str, free_byte: u64) -> Option<Disk> {
    let value = plist::Value::from_reader_xml(text.as_bytes()).ok()?;
    let told = value.as_dictionary()?;
    let container = told
        .get("APFSContainerFree")
        .and_then(plist::Value::as_unsigned_integer);
    Some(Disk {
        free_byte: container.unwrap_or(free_byte),
        filesystem: told.get("FilesystemType")?.as_string()?.to_owned(),
    })
}

fn able(host: &Host, ability: Ability) -> Answer {
    match ability {
        Ability::PacketFilter => match egress::available(host) {
            Ok(()) => Answer::Text("available".to_owned()),
            Err(error) => Answer::Failed(crate::chain(&error)),
        },
        Ability::Landlock => match os::landlock_abi() {
            Ok(abi) => Answer::Text(abi.to_string()),
            Err(_) => Answer::Missing,
        },
        Ability::Namespaces => match probe::missing_namespaces() {
            missing if missing.is_empty() => Answer::Text("available".to_owned()),
            missing => Answer::Failed(format!("the kernel has no namespaces of {}", missing.join(", "))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        (folder, path)
    }

    fn ask(question: Question) -> Answer {
        answer(&Host::system(), View::Host, &question)
    }

    fn program(path: &Utf8Path, text: &str) {
        fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_first_program_that_can_be_started_is_found() {
        let (_keep, top) = folder();
        for name in ["a", "b", "c"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        fs::write(top.join("a/tool"), "no program").unwrap();
        fs::create_dir(top.join("b/tool")).unwrap();
        let path: Vec<_> = ["a", "b", "c"].iter().map(|name| top.join(name)).collect();
        let found = |name: &str| {
            ask(Question::Find {
                name: name.into(),
                path: path.clone(),
            })
        };
        assert_eq!(found("tool"), Answer::Denied);
        program(&top.join("c/tool"), "");
        assert_eq!(found("tool"), Answer::At(top.join("c/tool")));
        assert_eq!(found("other"), Answer::Missing);
    }

    #[test]
    fn a_tool_says_what_it_says_or_that_it_took_too_long() {
        let (_keep, top) = folder();
        program(&top.join("tool"), "echo out $1; echo err >&2; exit 3");
        let ran = ask(Question::Run(Tool::at(&top.join("tool"), &["x"])));
        let expected = Ran {
            code: Some(3),
            stdout: "out x\n".to_owned(),
            stderr: "err\n".to_owned(),
        };
        assert_eq!(ran, Answer::Ran(expected));
        program(&top.join("slow"), "sleep 1000");
        let slow = Tool {
            timeout_ms: 200,
            ..Tool::at(&top.join("slow"), &[])
        };
        assert_eq!(ask(Question::Run(slow)), Answer::TimedOut);
        assert_eq!(
            ask(Question::Run(Tool::at(&top.join("none"), &[]))),
            Answer::Missing
        );
    }

    #[test]
    fn root_runs_what_is_in_somebodys_hands_as_that_somebody() {
        let (_keep, top) = folder();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(top.join("bin")).unwrap();
        let (tool, link) = (top.join("bin/tool"), top.join("bin/link"));
        program(&tool, "id -u; echo $HOME");
        std::os::unix::fs::symlink("/usr/bin/id", &link).unwrap();
        let said = |path: &Utf8Path, args: &[&str]| ask(Question::Run(Tool::at(path, args)));
        let printed = |answer: Answer| match answer {
            Answer::Ran(ran) => ran.stdout,
            other => panic!("{other:?}"),
        };
        let own = nix::unistd::geteuid();
        assert_eq!(
            printed(said(&tool, &[])).lines().next(),
            Some(own.to_string().as_str())
        );
        if !own.is_root() {
            return;
        }
        let nobody = users::get_user_by_name("nobody").unwrap();
        let give = |path: &Utf8Path, uid: u32| {
            nix::unistd::chown(path.as_std_path(), Some(uid.into()), None).unwrap()
        };
        give(&tool, nobody.uid());
        let home = users::os::unix::UserExt::home_dir(&nobody).display().to_string();
        assert_eq!(printed(said(&tool, &[])), format!("{}\n{home}\n", nobody.uid()));
        // Whoever has the folder could put something else there, also instead of a link to a program of root's.
        give(&tool, 0);
        give(&top.join("bin"), nobody.uid());
        assert_eq!(
            printed(said(&tool, &[])).lines().next(),
            Some(nobody.uid().to_string().as_str())
        );
        assert_eq!(printed(said(&link, &["-u"])).trim(), nobody.uid().to_string());
        // So could whoever has a folder that a link only leads through.
        let outer = top.join("outer");
        std::os::unix::fs::symlink(&link, &outer).unwrap();
        assert_eq!(printed(said(&outer, &["-u"])).trim(), nobody.uid().to_string());
        // Nobody knows as whom to run what two could have put there, or everybody.
        give(&tool, 1);
        assert!(matches!(said(&tool, &[]), Answer::Failed(why) if why.contains("in the hands of")));
        give(&tool, 0);
        give(&top.join("bin"), 0);
        fs::set_permissions(top.join("bin"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(said(&tool, &[]), Answer::Failed(why) if why.contains("can be changed by others")));
        fs::set_permissions(top.join("bin"), fs::Permissions::from_mode(0o755)).unwrap();
        let never = Tool {
            as_owner: true,
            ..Tool::at(&tool, &[])
        };
        assert!(
            matches!(ask(Question::Run(never)), Answer::Failed(why) if why.contains("not to be run as root"))
        );
    }

    #[test]
    fn files_are_looked_at_without_following_the_last_link() {
        let (_keep, top) = folder();
        fs::write(top.join("file"), "abc").unwrap();
        fs::set_permissions(top.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("file", top.join("link")).unwrap();
        let entry = |name: &str| match ask(Question::Look {
            path: top.join(name),
            digest: true,
        }) {
            Answer::Entry(entry) => entry,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            entry("file").sha256.as_deref(),
            // FIPS 180-2, appendix B.1.
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!((entry("file").is, entry("file").mode), (EntryKind::File, 0o640));
        assert_eq!(entry("link").is, EntryKind::Link);
        assert_eq!(
            ask(Question::Resolve(top.join("link"))),
            Answer::At(top.join("file"))
        );
        assert_eq!(ask(Question::Resolve(top.join("none"))), Answer::Missing);
        assert_eq!(
            ask(Question::Read(top.join("file"))),
            Answer::Text("abc".to_owned())
        );
        assert!(matches!(ask(Question::Read(top.clone())), Answer::Failed(_)));
        assert_eq!(
            ask(Question::List(top.clone())),
            Answer::Names(vec!["file".to_owned(), "link".to_owned()])
        );
    }

    #[test]
    fn a_probe_of_writing_leaves_nothing() {
        let (_keep, top) = folder();
        fs::write(top.join("file"), "abc").unwrap();
        assert_eq!(ask(Question::Writable(top.clone())), Answer::Yes);
        assert_eq!(ask(Question::Writable(top.join("file"))), Answer::Yes);
        assert_eq!(fs::read_dir(&top).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(top.join("file")).unwrap(), "abc");
        assert_eq!(ask(Question::Writable(top.join("none"))), Answer::Missing);
    }

    #[test]
    fn a_disk_tells_its_room_and_kind() {
        let Answer::Disk(disk) = ask(Question::Disk("/".into())) else {
            panic!("no disk");
        };
        assert!(disk.free_byte > 0 && !disk.filesystem.is_empty(), "{disk:?}");
        assert_eq!(ask(Question::Disk("/no/such".into())), Answer::Missing);
    }

    #[test]
    fn the_kind_of_a_file_system_is_that_of_the_deepest_and_latest_mount() {
        let mounts = "/dev/vda / ext4 rw 0 0\nproc /proc proc rw 0 0\ntmpfs /srv/a\\040b tmpfs rw 0 0\n/dev/x /srv/a\\040b xfs rw 0 0\n";
        for (path, kind) in [
            ("/usr/bin", "ext4"),
            ("/proc/1", "proc"),
            ("/process", "ext4"),
            ("/srv/a b/c", "xfs"),
        ] {
            assert_eq!(mounted(mounts, path.into()).as_deref(), Some(kind), "{path}");
        }
        assert_eq!(mounted("", "/".into()), None);
        // tests/fakes/macos/diskutil prints the same.
        let plist = |more: &str| {
            format!(
                "<?xml version=\"1.0\"?><plist version=\"1.0\"><dict><key>FilesystemType</key><string>apfs</string>{more}</dict></plist>"
            )
        };
        let disk = |free_byte| {
            Some(Disk {
                free_byte,
                filesystem: "apfs".to_owned(),
            })
        };
        assert_eq!(volume(&plist(""), 7), disk(7));
        assert_eq!(
            volume(&plist("<key>APFSContainerFree</key><integer>9</integer>"), 7),
            disk(9)
        );
        assert_eq!(volume("garbage", 7), None);
    }

    #[test]
    fn a_library_that_is_not_there_is_told_from_one_that_does_not_load() {
        let (_keep, top) = folder();
        fs::write(top.join("libbad.so"), "no library").unwrap();
        assert!(matches!(load("libephemerd-none.so.1"), Err((_, true))));
        assert!(matches!(load(top.join("libbad.so").as_str()), Err((_, false))));
        assert!(
            load(match Os::host() {
                Os::Linux => "libc.so.6",
                Os::MacOs => "libSystem.B.dylib",
            })
            .is_ok()
        );
    }

    #[test]
    fn everything_is_answered_at_once_and_in_order() {
        let (_keep, top) = folder();
        // Each waits for all others, so that one after the other would never end.
        program(
            &top.join("meet"),
            "touch \"$1/met-$2\"; while [ $(ls \"$1\" | grep -c met-) -lt 20 ]; do sleep 0.05; done; echo $2",
        );
        let questions: Vec<_> = (0..20)
            .map(|n| Question::Run(Tool::at(&top.join("meet"), &[top.as_str(), &n.to_string()])))
            .collect();
        let answers = answer_all(&Host::system(), View::Host, &questions, &|_| {});
        for (n, answer) in answers.iter().enumerate() {
            assert!(
                matches!(answer, Answer::Ran(ran) if ran.stdout == format!("{n}\n")),
                "{answer:?}"
            );
        }
    }
}
