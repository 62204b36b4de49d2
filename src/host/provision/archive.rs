//! Fetching an archive, and unpacking it beside its place so that it is there whole or not at all.
//!
//! Only what its hash is known of is unpacked, and even that may not put anything outside of its folder: no absolute
//! paths, no `..`, no links that lead out, nothing through a link, no devices. Whoever made the archive made the hash
//! too, and may have been somebody else than the manifest's author thinks.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::time::Duration;

use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use tar::EntryType;

use super::answer::hash;
use crate::host::Host;
use crate::host::command::{CommandError, CommandSpec, run};
use crate::host::files::{FilesError, check_data_dir};
use crate::provision::kind::archive::STAMP;
use crate::provision::step::Fetch;

/// How long fetching may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Why an archive is not in its place.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder above its place is not safe.
    #[error(transparent)]
    Folder(#[from] FilesError),
    /// It could not be fetched.
    #[error("could not fetch `{url}`")]
    Fetch {
        /// Where from.
        url: String,
        /// What the tool said.
        source: CommandError,
    },
    /// It is not the one that is wanted.
    #[error(
        "`{url}` has SHA-256 {found}, and {wanted} is wanted\nhint: somebody has changed what is there, or the manifest is wrong; compare with what its makers publish"
    )]
    Hash {
        /// Where from.
        url: String,
        /// What came.
        found: String,
        /// What should have come.
        wanted: String,
    },
    /// It holds something that must not be unpacked.
    #[error("the archive holds `{path}`, which {why}\nhint: nothing of it was unpacked")]
    Entry {
        /// The path in it.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Nothing is left of its paths.
    #[error("nothing in the archive lies {strip} folders deep\nhint: lower `strip`")]
    Empty {
        /// How many folders are left out.
        strip: u32,
    },
    /// Something cannot be read or written.
    #[error("could not {doing} `{path}`")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn io_error(doing: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.into();
    move |source| ArchiveError::Io { doing, path, source }
}

/// Fetches an archive and puts it into its place, owned by `owner`.
///
/// # Errors
/// See [`ArchiveError`]; what was in its place is still there, and nothing is left beside it.
pub fn install(host: &Host, fetch: &Fetch, owner: (u32, u32)) -> Result<(), ArchiveError> {
    let to = &fetch.to.path;
    let parent = to.parent().unwrap_or(Utf8Path::new("/"));
    check_data_dir(parent, nix::unistd::geteuid().as_raw())?;
    let stage = parent.join(format!(".ephemerd-{}", to.file_name().unwrap_or_default()));
    // What a kill has left; between the two moves, the only copy of what was there.
    let kept = stage.join("before");
    if kept.symlink_metadata().is_ok() && to.symlink_metadata().is_err() {
        fs::rename(&kept, to).map_err(io_error("put back", to))?;
    }
    clear(&stage)?;
    let result = build(host, fetch, owner, &stage);
    let cleared = clear(&stage);
    result.and(cleared)
}

fn clear(stage: &Utf8Path) -> Result<(), ArchiveError> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", stage)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn build(host: &Host, fetch: &Fetch, owner: (u32, u32), stage: &Utf8Path) -> Result<(), ArchiveError> {
    let Fetch {
        url,
        sha256,
        to,
        strip,
    } = fetch;
    let to = &to.path;
    fs::create_dir(stage).map_err(io_error("make", stage))?;
    fs::set_permissions(stage, Permissions::from_mode(0o700)).map_err(io_error("close", stage))?;
    let packed = stage.join("packed");
    let args = [
        "--fail",
        "--location",
        "--silent",
        "--show-error",
        "--output",
        packed.as_str(),
        url,
    ];
    let curl = CommandSpec::new(&host.tools.curl, &args, FETCH_TIMEOUT);
    let fetched = run(&curl).and_then(|output| output.require_success(&curl));
    fetched.map_err(|source| ArchiveError::Fetch {
        url: url.clone(),
        source,
    })?;
    let found = hash(&packed).map_err(io_error("read", &packed))?;
    if found != *sha256 {
        return Err(ArchiveError::Hash {
            url: url.clone(),
            found,
            wanted: sha256.clone(),
        });
    }
    let tree = stage.join("tree");
    fs::create_dir(&tree).map_err(io_error("make", &tree))?;
    let file = File::open(&packed).map_err(io_error("open", &packed))?;
    unpack(reader(url, file), &tree, *strip)?;
    let stamp = tree.join(STAMP);
    fs::write(&stamp, format!("{sha256}\n")).map_err(io_error("write", &stamp))?;
    give(&tree, owner)?;
    fs::set_permissions(&tree, Permissions::from_mode(0o755)).map_err(io_error("open", &tree))?;
    // A power cut must not leave names of files without their content.
    nix::unistd::sync();
    let kept = stage.join("before");
    let was_there = match fs::rename(to, &kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("move away", to)(error));
        }
        moved => moved.is_ok(),
    };
    let placed = fs::rename(&tree, to).map_err(io_error("put in place", to));
    if placed.is_err() && was_there {
        fs::rename(&kept, to).map_err(io_error("put back", to))?;
    }
    nix::unistd::sync();
    placed
}

/// What unpacks the outer shell of an archive, by the end of its name.
fn reader(url: &str, file: File) -> Box<dyn Read> {
    let name = url.split(['?', '#']).next().unwrap_or_default();
    let file = io::BufReader::new(file);
    if name.ends_with("gz") {
        Box::new(flate2::bufread::MultiGzDecoder::new(file))
    } else if name.ends_with("xz") {
        Box::new(lzma_rust2::XzReader::new(file, true))
    } else {
        Box::new(file)
    }
}

/// Unpacks a tar archive into the empty folder `tree`, leaving out `strip` leading folders.
fn unpack(reader: impl Read, tree: &Utf8Path, strip: u32) -> Result<(), ArchiveError> {
    let broken = |source| ArchiveError::Io {
        doing: "read",
        path: "the archive".into(),
        source,
    };
    let mut is_empty = true;
    let mut archive = tar::Archive::new(reader);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |why| ArchiveError::Entry {
            path: name.clone(),
            why,
        };
        let Some(inner) = inner(&name, strip).map_err(refuse)? else {
            continue;
        };
        is_empty = false;
        let path = tree.join(&inner);
        // What an archive does not name is made, as tar(1) does.
        let parent = path.parent().unwrap_or(tree);
        no_link_above(tree, &inner).map_err(refuse)?;
        fs::create_dir_all(parent).map_err(io_error("make", parent))?;
        let mode = entry.header().mode().map_err(broken)?;
        match entry.header().entry_type() {
            EntryType::Directory => match fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
                made => made.map_err(io_error("make", &path))?,
            },
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = File::create_new(&path).map_err(io_error("make", &path))?;
                io::copy(&mut entry, &mut file).map_err(io_error("write", &path))?;
                file.flush().map_err(io_error("write", &path))?;
                // Readable for everybody, writable for its owner; what else a mode can say is not for tools.
                let mode = if mode & 0o111 == 0 { 0o644 } else { 0o755 };
                file.set_permissions(Permissions::from_mode(mode))
                    .map_err(io_error("open", &path))?;
            }
            EntryType::Symlink => {
                let target = link(&entry)?;
                let depth = Utf8Path::new(&inner).components().count() - 1;
                stays_inside(&target, depth).map_err(refuse)?;
                symlink(&target, &path).map_err(io_error("link", &path))?;
            }
            EntryType::Link => {
                let target = link(&entry)?;
                let target = self::inner(&target, strip).map_err(refuse)?;
                let target = target.ok_or_else(|| refuse("is a link to what is left out"))?;
                no_link_above(tree, &target).map_err(refuse)?;
                let target = tree.join(target);
                if !target.symlink_metadata().is_ok_and(|it| it.is_file()) {
                    return Err(refuse("is a link to no file before it"));
                }
                fs::hard_link(&target, &path).map_err(io_error("link", &path))?;
            }
            // What follows is told of the next entry, and the reader has told it already.
            EntryType::XGlobalHeader => {}
            _ => return Err(refuse("is neither file, folder nor link")),
        }
    }
    if is_empty {
        return Err(ArchiveError::Empty { strip });
    }
    Ok(())
}

fn link<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, ArchiveError> {
    let name = entry.link_name_bytes().unwrap_or_default();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

/// A path in the archive without its leading folders; `None` when nothing is left of it.
fn inner(name: &str, strip: u32) -> Result<Option<String>, &'static str> {
    let mut parts = vec![];
    for part in Utf8Path::new(name).components() {
        match part {
            Utf8Component::Normal(part) => parts.push(part),
            Utf8Component::CurDir => {}
            Utf8Component::ParentDir => return Err("contains `..`"),
            Utf8Component::RootDir | Utf8Component::Prefix(_) => return Err("is absolute"),
        }
    }
    let strip = usize::try_from(strip).unwrap_or(usize::MAX);
    let left = parts.get(strip..).unwrap_or_default();
    if left.first() == Some(&STAMP) {
        return Err("is the name of the file that says where the archive came from");
    }
    Ok((!left.is_empty()).then(|| left.join("/")))
}

/// Whether a link in a folder `depth` levels deep leads to somewhere inside: no further up than the top, and up only
/// at its beginning, where it is known from which folder it goes.
fn stays_inside(target: &str, depth: usize) -> Result<(), &'static str> {
    let mut up = 0;
    let mut down = false;
    for part in Utf8Path::new(target).components() {
        match part {
            Utf8Component::ParentDir if down => return Err("is a link that goes down and up again"),
            Utf8Component::ParentDir => up += 1,
            Utf8Component::Normal(_) => down = true,
            Utf8Component::CurDir => {}
            Utf8Component::RootDir | Utf8Component::Prefix(_) => return Err("is a link to an absolute path"),
        }
    }
    if up > depth {
        return Err("is a link that leads out");
    }
    Ok(())
}

/// Whether none of the folders above `inner` is a link, through which something would be written.
fn no_link_above(tree: &Utf8Path, inner: &str) -> Result<(), &'static str> {
    let above = Utf8Path::new(inner)
        .ancestors()
        .skip(1)
        .filter(|path| !path.as_str().is_empty());
    for folder in above {
        if tree
            .join(folder)
            .symlink_metadata()
            .is_ok_and(|it| it.is_symlink())
        {
            return Err("lies behind a link");
        }
    }
    Ok(())
}

/// Gives everything in `tree` to `owner`, without following links.
fn give(tree: &Utf8Path, (uid, gid): (u32, u32)) -> Result<(), ArchiveError> {
    for entry in walkdir::WalkDir::new(tree).follow_links(false) {
        let entry = entry.map_err(|error| io_error("walk", tree)(error.into()))?;
        lchown(entry.path(), Some(uid), Some(gid)).map_err(io_error("give away", tree))?;
        if entry.file_type().is_dir() {
            // Made with the mask of whoever runs this.
            fs::set_permissions(entry.path(), Permissions::from_mode(0o755))
                .map_err(io_error("open", tree))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "archive/tests.rs"]
mod tests;
