//! The way to a path: every folder and every link that the system passes until it is there. Whoever can change one of
//! them can make the path lead to somewhere else.

use std::fs::{self, Metadata};
use std::io;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};

/// Links that are followed before the system gives up (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// The way to a path, from the root on; `/` is the first entry.
#[derive(Debug)]
pub(crate) struct Way {
    /// What is passed, as it is itself: a link is not followed here, and what it leads to comes next.
    pub(crate) entries: Vec<(Utf8PathBuf, Metadata)>,
    /// Whether the last entry is what the path leads to; otherwise something on the way is not there.
    pub(crate) is_whole: bool,
}

/// The way to `path`, which must be absolute.
///
/// # Errors
/// What the system says of an entry, except that it is not there; and when links never come to an end.
pub(crate) fn way(path: &Utf8Path) -> io::Result<Way> {
    let mut here = Utf8PathBuf::from("/");
    let mut entries = vec![(here.clone(), fs::symlink_metadata(&here)?)];
    // The next one last.
    let mut ahead: Vec<String> = parts(path);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            here.pop();
            continue;
        }
        let next = here.join(&part);
        let metadata = match fs::symlink_metadata(&next) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Way {
                    entries,
                    is_whole: false,
                });
            }
            looked => looked?,
        };
        entries.push((next.clone(), metadata));
        if entries.last().is_some_and(|(_, metadata)| metadata.is_symlink()) {
            links += 1;
            if links > LINKS_MAX {
                return Err(io::Error::other(format!("`{path}` leads through too many links")));
            }
            let target = next.read_link_utf8()?;
            if target.is_absolute() {
                here = "/".into();
            }
            ahead.extend(parts(&target));
        } else {
            here = next;
        }
    }
    Ok(Way {
        entries,
        is_whole: true,
    })
}

/// The names in a path and its `..`, the first one last.
fn parts(path: &Utf8Path) -> Vec<String> {
    let part = |part: Utf8Component<'_>| match part {
        Utf8Component::Normal(name) => Some(name.to_owned()),
        Utf8Component::ParentDir => Some("..".to_owned()),
        Utf8Component::RootDir | Utf8Component::CurDir | Utf8Component::Prefix(_) => None,
    };
    path.components().rev().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_link_and_every_folder_that_links_lead_through_is_on_the_way() {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        for folder in ["a", "b/deep", "c"] {
            fs::create_dir_all(top.join(folder)).unwrap();
        }
        fs::write(top.join("c/file"), "").unwrap();
        // a/one → b/deep/two, absolute; two → ../../c/file, relative.
        symlink(top.join("b/deep/two"), top.join("a/one")).unwrap();
        symlink("../../c/file", top.join("b/deep/two")).unwrap();
        let found = way(&top.join("a/one")).unwrap();
        assert!(found.is_whole);
        let below: Vec<&str> = found
            .entries
            .iter()
            .filter_map(|(path, _)| path.strip_prefix(&top).ok().map(Utf8Path::as_str))
            .filter(|path| !path.is_empty())
            .collect();
        assert_eq!(below, ["a", "a/one", "b", "b/deep", "b/deep/two", "c", "c/file"]);
    }

    #[test]
    fn what_is_not_there_ends_the_way_and_a_circle_is_none() {
        let keep = tempfile::tempdir().unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let found = way(&top.join("none/below")).unwrap();
        assert!(!found.is_whole);
        assert_eq!(found.entries.last().unwrap().0, top);
        symlink("circle", top.join("circle")).unwrap();
        assert!(way(&top.join("circle")).is_err());
    }
}
