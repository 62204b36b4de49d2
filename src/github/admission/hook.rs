//! The hook: where it lies, and what is written in it.

use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest, Sha256};

/// Bytes that the path of a socket may have: `sun_path` of sys/un.h has 104 on macOS (108 on Linux), with the zero at the
/// end.
const LONGEST_SOCKET: usize = 103;

/// Where the entrance of one slot is: a folder that no job can write to, outside of the data folder, with the hook and the
/// socket in it.
///
/// ```text
///  <run>/ephemerd               0755 ours
///  └─ <data folder's>           0755 ours      a name for each data folder
///     └─ slot-N                 0755 ours
///        ├─ job-started.sh      0555 ours      the runner runs it as the slot's account
///        └─ admission.sock      0620 ours      of the group of the slot's account
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    folder: Utf8PathBuf,
}

/// The name of the socket.
const SOCKET: &str = "admission.sock";

/// The socket's path is too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is too long for a socket, which may have {LONGEST_SOCKET} bytes")]
pub struct TooLong(Utf8PathBuf);

impl Place {
    /// The place of slot `index` of the daemon whose data folder, resolved, is `data_dir`; `run` is the folder of what
    /// running programs share.
    ///
    /// # Errors
    /// The path would be too long for a socket.
    pub fn new(run: &Utf8Path, data_dir: &Utf8Path, index: u32) -> Result<Self, TooLong> {
        let hash = Sha256::digest(data_dir.as_str());
        let name: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let folder = run.join("ephemerd").join(name).join(format!("slot-{index}"));
        let place = Self { folder };
        match place.socket() {
            socket if socket.as_str().len() > LONGEST_SOCKET => Err(TooLong(socket)),
            _ => Ok(place),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Utf8Path {
        &self.folder
    }

    /// The hook.
    pub fn hook(&self) -> Utf8PathBuf {
        self.folder.join("job-started.sh")
    }

    /// The socket.
    pub fn socket(&self) -> Utf8PathBuf {
        self.folder.join(SOCKET)
    }
}

/// The socket that the hook at this path reports by.
pub fn socket_beside(hook: &Utf8Path) -> Utf8PathBuf {
    hook.with_file_name(SOCKET)
}

/// The hook's text, which starts `program` (ephemerd itself); the runner runs it by `bash -e` (ScriptHandler.cs).
///
/// It ends with 0 when the program does, and in no other way: not when the program is missing or was killed, and not at a
/// signal that the runner ends steps with, because steps that always run would then run without an admission. That is why
/// the program does not take the place of the shell. What is left waits for `SIGKILL`, without a program that might not be
/// there.
pub fn text(program: &Utf8Path, socket: &Utf8Path) -> String {
    let (program, socket) = (quoted(program.as_str()), quoted(socket.as_str()));
    format!(
        "#!/bin/bash\n\
         # Holds a job until ephemerd has admitted it. Written by ephemerd; it comes and goes with the runner.\n\
         trap '' HUP INT QUIT TERM\n\
         {program} __job-started {socket} && exit 0\n\
         while :; do kill -STOP \"$$\"; done\n"
    )
}

/// The text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_hook_ends_by_itself_only_after_the_program() {
        let text = text("/opt/it's here/ephemerd".into(), "/run/a.sock".into());
        insta::assert_snapshot!(text, @r#"
        #!/bin/bash
        # Holds a job until ephemerd has admitted it. Written by ephemerd; it comes and goes with the runner.
        trap '' HUP INT QUIT TERM
        '/opt/it'\''s here/ephemerd' __job-started '/run/a.sock' && exit 0
        while :; do kill -STOP "$$"; done
        "#);
    }

    #[test]
    fn every_data_folder_has_places_of_its_own_outside_of_it() {
        let place =
            |data_dir: &str, index| Place::new("/private/var/run".into(), data_dir.into(), index).unwrap();
        let first = place("/var/lib/ephemerd", 1);
        insta::assert_snapshot!(first.socket(), @"/private/var/run/ephemerd/fd111cb1d1b63c17/slot-1/admission.sock");
        assert_eq!(first.hook(), first.folder().join("job-started.sh"));
        assert_ne!(first, place("/var/lib/ephemerd", 2));
        assert_ne!(first, place("/srv/ephemerd", 1));
        assert!(place("/var/lib/ephemerd", u32::MAX).socket().as_str().len() <= LONGEST_SOCKET);
    }

    #[test]
    fn a_place_that_no_socket_fits_in_is_refused() {
        let run = |length: usize| Utf8PathBuf::from(format!("/{}", "r".repeat(length - 1)));
        let rest = Place::new("/".into(), "/data".into(), 1)
            .unwrap()
            .socket()
            .as_str()
            .len();
        let most = LONGEST_SOCKET - rest;
        assert!(Place::new(&run(most), "/data".into(), 1).is_ok());
        let error = Place::new(&run(most + 1), "/data".into(), 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("is too long for a socket, which may have 103 bytes"),
            "{error}"
        );
    }

    proptest! {
        /// A word of a shell is what stands between the quotes, and a quote inside is a word of its own.
        #[test]
        fn what_is_quoted_is_one_word(text in "[ -~\n]*") {
            let word = quoted(&text);
            let inner = word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')).unwrap();
            prop_assert_eq!(inner.split(r"'\''").collect::<Vec<_>>().join("'"), text);
            prop_assert!(!inner.replace(r"'\''", "").contains('\''));
        }
    }
}
