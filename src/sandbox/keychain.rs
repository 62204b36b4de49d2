//! The keychain of one macOS job: a file in its own HOME, the only one in its search list, unlocked, and gone with
//! the workspace.
//!
//! Security.framework takes search list and default keychain from `$HOME/Library/Preferences`, unless the caller is
//! in the root security session (`OSX/libsecurity_keychain/lib/StorageManager.cpp`, `defaultPreferenceDomain`). So
//! everything here runs as the job's account, with the job's HOME, in the job's own session, before its first
//! command. Whether a session made with setaudit_addr(2) is enough for that has not been seen on a Mac.
//!
//! The password is the job's to know: a key that is imported later can be used without a prompt only after
//! `security set-key-partition-list -k PASSWORD`. It opens nothing but this keychain.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::host::command::{CommandSpec, Output};

/// The name Security.framework looks for by itself.
const NAME: &str = "login.keychain-db";

/// How long it stays unlocked without being used, in seconds, as CI scripts have it. Without `-l` and `-u` it is
/// not locked when the host sleeps.
const TIMEOUT_S: &str = "21600";

/// Programs of Apple's and codesign(1), which may use the keys of this keychain.
const PARTITIONS: &str = "apple-tool:,apple:,codesign:";

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest line that `security -i` reads (security.c, `MAX_LINE_LEN`).
const LINE_BYTE: usize = 4096;

/// What is wrong with a keychain's path or its making.
#[derive(Debug, thiserror::Error)]
pub enum KeychainError {
    /// A path that cannot be written on a line of `security -i`.
    #[error("`{}` cannot be a keychain's path\nhint: keep control characters out of `host.data_dir`", .0.as_str().escape_debug())]
    Path(Utf8PathBuf),
    /// A call failed.
    #[error("security {doing}: {}{}", ended(.status), said(.stderr))]
    Call {
        /// Its subcommand.
        doing: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote to standard error.
        stderr: String,
    },
    /// Every call reported success, but the keychain is not what the job will use.
    #[error(
        "security {doing} says `{found}`, not `{expected}`\nhint: see which session the job is in: a job in the root session does not use its own keychains"
    )]
    NotUsed {
        /// The subcommand that was asked.
        doing: &'static str,
        /// What it says.
        found: String,
        /// The keychain.
        expected: Utf8PathBuf,
    },
}

fn ended(status: &std::process::ExitStatus) -> String {
    match status.code().and_then(meaning) {
        Some(meaning) => format!("{status} ({meaning})"),
        None => status.to_string(),
    }
}

fn said(stderr: &str) -> String {
    stderr.trim().lines().map(|line| format!("\n  {line}")).collect()
}

/// What an exit code of security(1) means: it is the lowest byte of an OSStatus (security.c).
fn meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        2 => "wrong usage",
        36 => "the keychain asks for a person, and there is none",
        37 => "there is no default keychain",
        44 => "no such item",
        45 => "there is such an item already",
        48 => "there is such a keychain already",
        49 => "not a keychain",
        50 => "no such keychain",
        51 => "the password is wrong",
        128 => "cancelled",
        195 => "no permission to write",
        _ => return None,
    })
}

/// A job's keychain.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keychain {
    /// The HOME it belongs to.
    pub home: Utf8PathBuf,
    /// Its password.
    pub password: String,
}

/// Leaves the password out.
impl std::fmt::Debug for Keychain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keychain")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

/// One call of security(1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// Its subcommand.
    pub(crate) doing: &'static str,
    /// The command.
    pub(crate) spec: CommandSpec,
    /// An exit code that is as good as success.
    pub(crate) accepts: i32,
    /// Whether its answer must name this keychain and no other.
    pub(crate) must_name_it: bool,
}

impl Keychain {
    /// A keychain in `home` whose password is made of `chance`.
    pub fn new(home: Utf8PathBuf, chance: u128) -> Self {
        Self {
            home,
            password: format!("{chance:032x}"),
        }
    }

    /// The keychain's file.
    pub fn file(&self) -> Utf8PathBuf {
        self.home.join("Library/Keychains").join(NAME)
    }

    /// The variables that tell a job of it.
    pub fn environment(&self) -> [(String, String); 2] {
        [
            ("EPHEMERD_KEYCHAIN".to_owned(), self.file().into_string()),
            ("EPHEMERD_KEYCHAIN_PASSWORD".to_owned(), self.password.clone()),
        ]
    }

    /// Folders that must exist before: Security.framework makes the first, does not make the second, and passes
    /// over the error in silence (DLDBListCFPref.cpp).
    pub(crate) fn folders(&self) -> [Utf8PathBuf; 2] {
        [
            self.home.join("Library/Keychains"),
            self.home.join("Library/Preferences"),
        ]
    }

    /// The calls of `security` that make it, and ask in the end whether it is used. Each call is a process of its
    /// own, because `security -i` ends with the status of its last line alone; where a password is needed, the
    /// line goes to standard input, for everybody may read arguments.
    ///
    /// # Errors
    /// The path cannot be written on such a line.
    pub(crate) fn calls(&self, security: &Utf8Path) -> Result<Vec<Call>, KeychainError> {
        let file = self.file();
        let quoted = quoted(&file).ok_or_else(|| KeychainError::Path(file.clone()))?;
        let password = &self.password;
        let call = |doing, args: &[&str]| Call {
            doing,
            spec: CommandSpec {
                home: Some(self.home.clone()),
                ..CommandSpec::new(security, args, PATIENCE)
            },
            accepts: 0,
            must_name_it: false,
        };
        let secret = |doing, rest: &str| {
            let mut call = call(doing, &["-i"]);
            call.spec.stdin = Some(format!("{doing} {rest}\n"));
            call
        };
        Ok(vec![
            secret("create-keychain", &format!("-p {password} {quoted}")),
            call(
                "default-keychain",
                &["default-keychain", "-d", "user", "-s", file.as_str()],
            ),
            call(
                "list-keychains",
                &["list-keychains", "-d", "user", "-s", file.as_str()],
            ),
            call(
                "set-keychain-settings",
                &["set-keychain-settings", "-t", TIMEOUT_S, file.as_str()],
            ),
            secret("unlock-keychain", &format!("-p {password} {quoted}")),
            Call {
                // It holds no key yet (44); that the password is right is checked all the same.
                accepts: 44,
                ..secret(
                    "set-key-partition-list",
                    &format!("-S {PARTITIONS} -s -k {password} {quoted}"),
                )
            },
            Call {
                must_name_it: true,
                ..call("default-keychain", &["default-keychain", "-d", "user"])
            },
            Call {
                must_name_it: true,
                ..call("list-keychains", &["list-keychains", "-d", "user"])
            },
        ])
    }

    /// Whether a call did what it was for.
    ///
    /// # Errors
    /// It failed, or it names another keychain.
    pub(crate) fn judge(&self, call: &Call, output: &Output) -> Result<(), KeychainError> {
        if !output.status.success() && output.status.code() != Some(call.accepts) {
            return Err(KeychainError::Call {
                doing: call.doing,
                status: output.status,
                stderr: output.stderr.clone(),
            });
        }
        if call.must_name_it && !names_only(&output.stdout, &self.file()) {
            return Err(KeychainError::NotUsed {
                doing: call.doing,
                found: output.stdout.trim().to_owned(),
                expected: self.file(),
            });
        }
        Ok(())
    }
}

/// Whether `listed`, quoted paths on lines of their own (keychain_list.c), is this file and nothing else. The
/// ending `-db` may be left out.
fn names_only(listed: &str, file: &Utf8Path) -> bool {
    let stem = |path: &str| path.strip_suffix("-db").unwrap_or(path).to_owned();
    let mut lines = listed.lines().filter(|line| !line.trim().is_empty());
    lines.next().map(|line| stem(line.trim().trim_matches('"'))) == Some(stem(file.as_str()))
        && lines.next().is_none()
}

/// A path as one word of a line of `security -i`, which knows quotes and backslashes; `None` where no quotes help.
fn quoted(path: &Utf8Path) -> Option<String> {
    let fits = path.as_str().len() < LINE_BYTE / 4 && !path.as_str().chars().any(char::is_control);
    let escaped = path.as_str().replace('\\', r"\\").replace('"', r#"\""#);
    fits.then(|| format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keychain() -> Keychain {
        Keychain::new("/data/native/0a1b2c3d4e5/home".into(), 0xfeed)
    }

    #[test]
    fn the_calls_of_one_keychain() {
        let calls = keychain().calls("/usr/bin/security".into()).unwrap();
        let text: String = calls
            .iter()
            .map(|call| {
                let stdin = call.spec.stdin.as_deref().unwrap_or_default().trim_end();
                format!("{} {stdin}\n", call.spec).replace(" \n", "\n")
            })
            .collect();
        insta::assert_snapshot!(text, @r#"
        /usr/bin/security -i create-keychain -p 0000000000000000000000000000feed "/data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain-db"
        /usr/bin/security default-keychain -d user -s /data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain-db
        /usr/bin/security list-keychains -d user -s /data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain-db
        /usr/bin/security set-keychain-settings -t 21600 /data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain-db
        /usr/bin/security -i unlock-keychain -p 0000000000000000000000000000feed "/data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain-db"
        /usr/bin/security -i set-key-partition-list -S apple-tool:,apple:,codesign: -s -k 0000000000000000000000000000feed "/data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain-db"
        /usr/bin/security default-keychain -d user
        /usr/bin/security list-keychains -d user
        "#);
    }

    #[test]
    fn no_argument_and_no_debug_text_holds_the_password() {
        let keychain = keychain();
        for call in keychain.calls("/usr/bin/security".into()).unwrap() {
            assert!(!call.spec.args.join(" ").contains(&keychain.password), "{call:?}");
            for text in [
                format!("{call:?}"),
                format!("{call:#?}"),
                format!("{:?}", call.spec),
            ] {
                assert!(!text.contains(&keychain.password), "{text}");
            }
            assert_eq!(call.spec.home.as_ref(), Some(&keychain.home));
        }
        assert!(!format!("{keychain:?}").contains(&keychain.password));
    }

    #[test]
    fn a_path_is_one_word_of_a_line_or_refused() {
        assert_eq!(quoted(r#"/a b/"c"\d"#.into()).unwrap(), r#""/a b/\"c\"\\d""#);
        assert_eq!(quoted("/a\nb".into()), None);
        assert_eq!(quoted(Utf8Path::new(&"x".repeat(5000))), None);
    }

    #[test]
    fn only_this_keychain_may_be_listed() {
        let file = keychain().file();
        assert!(names_only(&format!("    \"{file}\"\n"), &file));
        assert!(names_only(
            "    \"/data/native/0a1b2c3d4e5/home/Library/Keychains/login.keychain\"\n",
            &file
        ));
        assert!(!names_only("", &file));
        assert!(!names_only("    \"/Library/Keychains/System.keychain\"\n", &file));
        assert!(!names_only(&format!("    \"{file}\"\n    \"/other\"\n"), &file));
    }

    #[test]
    fn a_failed_call_tells_what_its_code_means() {
        let output = |code: i32| {
            Output {
            status: std::os::unix::process::ExitStatusExt::from_raw(code << 8),
            stdout: String::new(),
            stderr: "security: SecKeychainUnlock <NULL>: The user name or passphrase you entered is not correct.\n".into(),
        }
        };
        let keychain = keychain();
        let calls = keychain.calls("/usr/bin/security".into()).unwrap();
        let unlock = &calls[4];
        let text = keychain.judge(unlock, &output(51)).unwrap_err().to_string();
        assert!(
            text.starts_with(
                "security unlock-keychain: exit status: 51 (the password is wrong)\n  security:"
            ),
            "{text}"
        );
        keychain.judge(&calls[5], &output(44)).unwrap();
        keychain.judge(unlock, &output(44)).unwrap_err();
    }
}
