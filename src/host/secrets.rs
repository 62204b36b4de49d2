//! Files of secrets: read only when nobody but us and root could have read or written them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use crate::config::{GitHub, Identity};
use crate::github::secret::Secret;

/// Bytes a secret may have: a private key of 4096 bits has 3,300.
const LONGEST: u64 = 64 * 1024;

/// Why a secret is not taken from a file.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("could not read the secret in `{path}`")]
    Read {
        /// The file.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read or write it.
    #[error(
        "`{path}` is not kept secret: mode {mode:o}, owner {owner}\nhint: chown root `{path}` && chmod 600 `{path}`"
    )]
    Open {
        /// The file.
        path: Utf8PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// It holds no secret.
    #[error("`{path}` {what}\nhint: put the secret in it and nothing else")]
    Content {
        /// The file.
        path: Utf8PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// The secrets that a configuration names, by their files.
#[derive(Debug, Clone, Default)]
pub struct Secrets(BTreeMap<Utf8PathBuf, Secret>);

impl Secrets {
    /// Reads what `github` names.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(github: &GitHub) -> Result<Self, SecretError> {
        let identity = match &github.identity {
            Identity::App { private_key, .. } => private_key,
            Identity::Token { file } => file,
        };
        let webhook = github.webhook.as_ref().map(|webhook| &webhook.secret);
        let files = std::iter::once(identity).chain(webhook);
        files
            .map(|file| Ok((file.clone(), read(file)?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What is in a file.
    ///
    /// # Errors
    /// It was not read.
    pub fn of(&self, path: &Utf8Path) -> Result<Secret, SecretError> {
        let found = self.0.get(path).cloned();
        found.ok_or_else(|| SecretError::Content {
            path: path.to_owned(),
            what: "was not read",
        })
    }
}

/// Secrets on their way from the warden to the dispatcher, over a socket pair and nothing else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Packed(BTreeMap<Utf8PathBuf, String>);

/// Leaves the secrets out.
impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Packed").field(&self.0.keys()).finish()
    }
}

impl From<&Secrets> for Packed {
    fn from(secrets: &Secrets) -> Self {
        let pack = |(path, secret): (&Utf8PathBuf, &Secret)| (path.clone(), secret.expose().to_owned());
        Self(secrets.0.iter().map(pack).collect())
    }
}

impl From<Packed> for Secrets {
    fn from(packed: Packed) -> Self {
        let unpack = |(path, text): (Utf8PathBuf, String)| (path, Secret::new(text));
        Self(packed.0.into_iter().map(unpack).collect())
    }
}

/// The text in the file at `path`, which must be ours or root's and closed to everybody else.
///
/// # Errors
/// It is not there, is open to others, or holds nothing that could be a secret.
fn read(path: &Utf8Path) -> Result<Secret, SecretError> {
    let failed = |source: io::Error| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    // A pipe somebody put there must not hold us up.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let file = open(path.as_std_path(), flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let file = File::from(file);
    // Of what was opened, whatever the name is given to meanwhile.
    let found = file.metadata().map_err(failed)?;
    let content = |what| SecretError::Content {
        path: path.to_owned(),
        what,
    };
    if !found.is_file() {
        return Err(content("is no file"));
    }
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    let is_ours = owner == 0 || owner == nix::unistd::geteuid().as_raw();
    if mode & 0o077 != 0 || !is_ours {
        let path = path.to_owned();
        return Err(SecretError::Open { path, mode, owner });
    }
    let mut text = String::new();
    file.take(LONGEST + 1)
        .read_to_string(&mut text)
        .map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => content("is no text"),
            _ => failed(error),
        })?;
    if text.trim().is_empty() {
        return Err(content("is empty"));
    }
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > LONGEST {
        return Err(content("is larger than any secret"));
    }
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_that_is_closed_to_others_is_read() {
        let (_folder, path) = file(b"hunter2\n", 0o600);
        assert_eq!(read(&path).unwrap().expose(), "hunter2\n");
        let (_folder, path) = file(b"hunter2", 0o400);
        assert_eq!(read(&path).unwrap().expose(), "hunter2");
    }

    #[test]
    fn one_that_others_may_read_or_write_is_not_and_the_way_out_is_told() {
        for mode in [0o640, 0o604, 0o620, 0o602] {
            let (_folder, path) = file(b"hunter2", mode);
            let said = read(&path).unwrap_err().to_string();
            assert!(
                said.contains(&format!("mode {mode:o}")) && said.contains("chmod 600"),
                "{said}"
            );
            assert!(!said.contains("hunter2"));
        }
    }

    #[test]
    fn what_is_no_secret_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let place = Utf8Path::from_path(folder.path()).unwrap();
        let told = |path: &Utf8Path| crate::chain(&read(path).unwrap_err());
        assert!(told(place).contains("is no file"));
        assert!(told(&place.join("nothing")).contains("No such file"));
        for (content, what) in [
            (&b" \n"[..], "is empty"),
            (&[0xff, 0xfe], "is no text"),
            (&[b'a'; 70_000], "is larger"),
        ] {
            let (_folder, path) = file(content, 0o600);
            assert!(told(&path).contains(what), "{}", told(&path));
        }
    }
}
