//! Files and folders: what is there, whose it is, what it says, and whether it can be changed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use camino::Utf8Path;
use sha2::{Digest, Sha256};

use super::failed;
use crate::provision::manifest::hex;
use crate::provision::question::{Answer, Entry, EntryKind};

/// The longest file that is read, in bytes.
const TEXT_MAX_BYTE: u64 = 1024 * 1024;

pub(super) fn look(path: &Utf8Path, digest: bool) -> Answer {
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
pub(crate) fn look_entry(path: &Utf8Path) -> io::Result<Option<Entry>> {
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
pub(crate) fn hash(path: &Utf8Path) -> io::Result<String> {
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
pub(super) fn resolve(path: &Utf8Path) -> Answer {
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

pub(super) fn read(path: &Utf8Path) -> Answer {
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

pub(super) fn list(path: &Utf8Path) -> Answer {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return failed(&error),
    };
    let name = |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.sort();
    Answer::Names(names)
}

/// Tries to write: only that tells what a sandbox allows.
pub(super) fn writable(path: &Utf8Path) -> Answer {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{ask, folder};
    use crate::provision::question::Question;

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
}
