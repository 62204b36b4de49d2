//! What is run in a guest: POSIX shell scripts that are handed over on standard input, and never as arguments, which
//! other programs of the guest and of the host can see.
//!
//! The exit code of the tool that carries a script says nothing: `tart exec`, a container engine and a serial line fail
//! with codes of their own. So each script prints, as its last word, a mark with a number that nobody can know before
//! and with the code of the command; a script without that mark has not ended. A command that reads the mark out of
//! the memory of its own shell and prints it lies about nobody's result but its own.

use std::fmt::Write as _;

use crate::host::command::{quoted, shell_line};
use crate::job::JobSpec;

/// Where a job's files are in the guest, below the home of whoever runs commands there.
const PLACE: &str = "${HOME:-/root}/.ephemerd";

/// A number that is new for every script, as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

impl Nonce {
    /// A new one.
    ///
    /// # Errors
    ///
    /// The system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        Ok(Self(format!("{:016x}", getrandom::u64()?)))
    }

    /// What a script prints before its code; a line feed first, for the command's last line may have none.
    fn mark(&self) -> String {
        format!("\nephemerd-{}:", self.0)
    }

    /// The end of a script, which prints the mark and the code in `$code`. It then waits to be ended by whoever has read
    /// that: older guest agents of Tart lose what a command printed last.
    fn end(&self) -> String {
        format!("printf '\\nephemerd-%s:%d\\n' {} \"$code\"\nsleep 1\n", self.0)
    }
}

/// A file of a job in its guest.
#[derive(Clone, PartialEq, Eq)]
pub struct GuestFile {
    /// Its name in the job's folder, or below [`GuestFile::folder`].
    pub name: String,
    /// The folder, as an absolute path; the job's own when not set.
    pub folder: Option<String>,
    /// What is in it, in base 64.
    pub base64: String,
}

/// Leaves the content out, which may be a credential.
impl std::fmt::Debug for GuestFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestFile")
            .field("name", &self.name)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// A script that does nothing but end, by which a guest shows that it is ready.
pub fn probe(nonce: &Nonce) -> String {
    format!("code=0\n{}", nonce.end())
}

/// A script that writes a job's files, readable by their owner only, and its command as the file `job`.
pub fn put(nonce: &Nonce, spec: &JobSpec, files: &[GuestFile]) -> String {
    let mut text = format!("code=0\numask 077\nplace=\"{PLACE}\"\nmkdir -p \"$place/work\" || code=$?\n");
    for GuestFile { name, folder, base64 } in files {
        let target = match folder {
            Some(folder) => quoted(&format!("{folder}/{name}")),
            None => format!("\"$place\"/{}", quoted(name)),
        };
        here_document(
            &mut text,
            &format!("base64 -d > {target}"),
            std::iter::once(base64.as_str()),
            nonce,
        );
    }
    let job = job(spec);
    here_document(
        &mut text,
        "cat > \"$place/job\"",
        job.iter().map(String::as_str),
        nonce,
    );
    text + &nonce.end()
}

/// `command` with `lines` as its standard input, which no shell changes; the code is kept when it fails.
fn here_document<'a>(text: &mut String, command: &str, lines: impl Iterator<Item = &'a str>, nonce: &Nonce) {
    let end = format!("end-{}", nonce.0);
    // Writing to a string does not fail.
    let _ = writeln!(text, "{command} <<'{end}' || code=$?");
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    let _ = writeln!(text, "{end}");
}

/// The job as a script of its own.
fn job(spec: &JobSpec) -> Vec<String> {
    let mut lines: Vec<String> = spec
        .env
        .iter()
        .map(|(name, value)| format!("export {name}={}", quoted(value)))
        .collect();
    let (program, args) = spec
        .command
        .split_first()
        .map_or(("", [].as_slice()), |(p, a)| (p, a));
    lines.push(format!("exec {}", shell_line(program, args)));
    lines
}

/// A script that runs the job that [`put`] has written, with nothing on its standard input and both streams in one.
pub fn run(nonce: &Nonce) -> String {
    format!(
        "cd \"{PLACE}/work\" || exit\nsh ../job </dev/null 2>&1\ncode=$?\n{}",
        nonce.end()
    )
}

/// Finds a script's mark in what comes from a guest, piece by piece.
#[derive(Debug)]
pub struct Scanner {
    mark: Vec<u8>,
    /// What may be the beginning of the mark, or the mark without its whole code.
    held: Vec<u8>,
    code: Option<u8>,
}

/// Most digits of an exit code, with room for a line's end; more is no code.
const LONGEST_CODE: usize = 8;

impl Scanner {
    /// One that looks for the mark of the script with this number.
    pub fn new(nonce: &Nonce) -> Self {
        Self {
            mark: nonce.mark().into_bytes(),
            held: vec![],
            code: None,
        }
    }

    /// Takes what came; returns what of it, and of what came before, is the command's own output. After the mark
    /// nothing is.
    pub fn take(&mut self, came: &[u8]) -> Vec<u8> {
        if self.code.is_some() {
            return vec![];
        }
        self.held.extend_from_slice(came);
        let Some(at) = find(&self.held, &self.mark) else {
            let keep = beginning(&self.held, &self.mark);
            return self.held.drain(..self.held.len() - keep).collect();
        };
        let rest = &self.held[at + self.mark.len()..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == rest.len() && digits <= LONGEST_CODE {
            // The code may go on in what comes next.
            return self.held.drain(..at).collect();
        }
        let code = std::str::from_utf8(&rest[..digits]).ok();
        self.code = Some(code.and_then(|text| text.parse().ok()).unwrap_or(u8::MAX));
        self.held.truncate(at);
        std::mem::take(&mut self.held)
    }

    /// What was held back and is the command's own, once nothing more comes.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// The code of the command, once the mark was seen.
    pub fn code(&self) -> Option<u8> {
        self.code
    }
}

/// Where `needle` begins in `hay`.
fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

/// How many bytes at the end of `hay` may be the beginning of `needle`.
fn beginning(hay: &[u8], needle: &[u8]) -> usize {
    (1..needle.len().min(hay.len() + 1))
        .rev()
        .find(|length| hay.ends_with(&needle[..*length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::command::{CommandSpec, run as run_command};
    use crate::job::Origin;
    use proptest::prelude::*;
    use std::time::Duration;

    fn nonce() -> Nonce {
        Nonce("0123456789abcdef".to_owned())
    }

    fn spec(command: &[&str], env: &[(&str, &str)]) -> JobSpec {
        JobSpec {
            origin: Origin::own(&"acme/ios".parse().unwrap()),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: env
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            timeout_s: None,
        }
    }

    /// Runs scripts one after the other in a shell whose home is a folder of their own, as a guest would.
    fn in_guest(home: &tempfile::TempDir, script: &str) -> (String, Option<u8>) {
        let mut command = CommandSpec::new("/bin/sh".into(), &["-s"], Duration::from_secs(60));
        command.home = Some(home.path().to_str().unwrap().into());
        command.stdin = Some(script.to_owned());
        let output = run_command(&command).unwrap();
        let mut scanner = Scanner::new(&nonce());
        let mut said = scanner.take(output.stdout.as_bytes());
        said.extend(scanner.rest());
        (String::from_utf8(said).unwrap(), scanner.code())
    }

    fn job_in_guest(spec: &JobSpec) -> (String, Option<u8>) {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(
            in_guest(&home, &put(&nonce(), spec, &[])),
            (String::new(), Some(0))
        );
        in_guest(&home, &run(&nonce()))
    }

    #[test]
    fn a_shell_runs_the_job_and_says_its_code_after_its_output() {
        let (said, code) = job_in_guest(&spec(&["sh", "-c", "echo out; printf err >&2; exit 7"], &[]));
        assert_eq!((said.as_str(), code), ("out\nerr", Some(7)));
    }

    #[test]
    fn what_a_job_controls_reaches_it_unchanged_and_reaches_no_shell() {
        let evil = "$(touch /tmp/x); `id` 'q' \"d\" \\ \n end-0123456789abcdef\nend-0123456789abcdef \u{e9}";
        let (said, code) = job_in_guest(&spec(
            &["sh", "-c", "printf '%s|%s' \"$1\" \"$V\"", "sh", evil],
            &[("V", evil)],
        ));
        assert_eq!(code, Some(0));
        assert_eq!(said, format!("{evil}|{evil}"));
    }

    #[test]
    fn a_job_has_nothing_on_its_standard_input_and_starts_in_an_empty_folder() {
        let (said, _) = job_in_guest(&spec(&["sh", "-c", "cat; ls -A"], &[]));
        assert_eq!(said, "");
    }

    #[test]
    fn files_are_written_for_their_owner_only() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, folder: Option<String>| GuestFile {
            name: name.to_owned(),
            folder,
            base64: "c2VjcmV0".to_owned(),
        };
        let other = home.path().join("it's");
        std::fs::create_dir(&other).unwrap();
        let files = [
            file(".credentials", Some(other.to_str().unwrap().to_owned())),
            file("a b", None),
        ];
        let (_, code) = in_guest(&home, &put(&nonce(), &spec(&["true"], &[]), &files));
        assert_eq!(code, Some(0));
        for path in [other.join(".credentials"), home.path().join(".ephemerd/a b")] {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(!format!("{files:?}").contains("c2Vj"));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told() {
        let home = tempfile::tempdir().unwrap();
        let file = GuestFile {
            name: "x".to_owned(),
            folder: Some("/nonexistent".to_owned()),
            base64: String::new(),
        };
        let (_, code) = in_guest(&home, &put(&nonce(), &spec(&["true"], &[]), &[file]));
        assert!(code.is_some_and(|code| code != 0), "{code:?}");
    }

    #[test]
    fn a_code_that_is_no_code_is_a_failure() {
        let mut scanner = Scanner::new(&nonce());
        scanner.take(b"\nephemerd-0123456789abcdef:99999999999\n");
        assert_eq!(scanner.code(), Some(255));
    }

    proptest! {
        #[test]
        fn the_mark_is_found_however_the_output_is_cut(
            before in prop::collection::vec(prop::sample::select(b"\neph-0:1x".to_vec()), 0..60),
            code in 0u8..=255,
            cuts in prop::collection::vec(1usize..9, 1..200),
        ) {
            let mut whole = before.clone();
            whole.extend(format!("\nephemerd-0123456789abcdef:{code}\nmore").bytes());
            let mut scanner = Scanner::new(&nonce());
            let (mut said, mut rest) = (vec![], whole.as_slice());
            for cut in cuts.into_iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                said.extend(scanner.take(piece));
                rest = after;
            }
            prop_assert_eq!(scanner.code(), Some(code));
            prop_assert_eq!(said, before);
        }
    }
}
