//! Images: whether they are here, and how they come.

use std::time::Duration;

use camino::Utf8Path;
use nix::sys::statvfs::statvfs;

use super::room::Room;
use super::stage::complaint;
use super::template::Argv;
use super::{Backend, Dialect};
use crate::config::size::show_size;

/// How long fetching an image may take: 25 to 100 GB come over an ordinary line.
const PULL_WITHIN: Duration = Duration::from_secs(6 * 60 * 60);

/// What an image needs while it is fetched, in tenths of what it takes: the layers and the disk made of them.
const ROOM_TENTHS: u64 = 22;

/// Says that a backend's image is here, or the one of a rule where that is named.
///
/// # Errors
/// It is not, or nobody can tell, or the tool itself is missing; in words with a hint.
pub async fn missing(room: &Room, backend: &Backend, of_rule: Option<&str>) -> Result<(), String> {
    let tool = &backend.tool;
    if !tool.as_str().is_empty() && !tool.exists() {
        return Err(format!(
            "`{tool}` is not on this host\nhint: install it, or set `tool`"
        ));
    }
    let commands = &backend.commands;
    let names_image = |argv: &Option<Argv>| {
        argv.iter()
            .flatten()
            .any(|word| word.to_string().contains("{image}"))
    };
    if !names_image(&commands.clone) && !names_image(&commands.start) {
        return Ok(());
    }
    let Some(image) = of_rule
        .filter(|image| !image.is_empty())
        .or(backend.image.as_deref())
    else {
        return Err(
            "no image is named\nhint: set `image` of the backend, or of the repository's rule".to_owned(),
        );
    };
    if let Some(argv) = &commands.images {
        let mut known = room.names(backend, argv).await?;
        if let (Dialect::Tart, Some(argv)) = (backend.dialect, &commands.list) {
            // A guest that is there can be cloned as well.
            known.extend(room.names(backend, argv).await?);
        }
        if !known.iter().any(|name| is_image(name, image)) {
            return Err(format!(
                "the image `{image}` is not on this host\nhint: `ephemerd vm pull` fetches it"
            ));
        }
    } else if image.starts_with('/') && !Utf8Path::new(image).exists() {
        return Err(format!(
            "the image `{image}` is not on this host\nhint: docs/vm-images.md says how to make one"
        ));
    }
    Ok(())
}

/// Whether a listed image is the one that is meant. Container engines list images of this host below `localhost/` and
/// those of the usual registry in full.
fn is_image(listed: &str, meant: &str) -> bool {
    let tagged = |name: &str| {
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.contains([':', '@']) {
            name.to_owned()
        } else {
            format!("{name}:latest")
        }
    };
    let (listed, meant) = (tagged(listed), tagged(meant));
    listed == meant
        || ["localhost/", "docker.io/", "docker.io/library/"]
            .iter()
            .any(|host| listed.strip_prefix(host) == Some(meant.as_str()))
}

/// Fetches a backend's image if it is not here.
///
/// # Errors
/// There is no room for it, or it cannot be fetched; in words with a hint.
pub async fn pull(room: &Room, backend: &Backend) -> Result<(), String> {
    if missing(room, backend, None).await.is_ok() {
        return Ok(());
    }
    let Some(argv) = &backend.commands.pull else {
        return Err(
            "the backend has no `pull`\nhint: docs/vm-images.md says how to make an image".to_owned(),
        );
    };
    let store = room.store(backend);
    let free = statvfs(store.as_std_path())
        // Of different width on different systems.
        .map(|stat| u128::from(stat.blocks_available()) * u128::from(stat.fragment_size()))
        .map(|free| u64::try_from(free).unwrap_or(u64::MAX))
        .map_err(|error| format!("cannot tell how much room `{store}` has: {error}"))?;
    if let Some(why) = too_little(backend.image_byte, free) {
        return Err(format!("`{store}` {why}"));
    }
    let mut spec = room.command(backend, argv);
    spec.timeout = PULL_WITHIN;
    let output = room
        .hands
        .attendant
        .run(&spec)
        .await
        .map_err(|error| crate::chain(&error))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(complaint(&spec, output.status, &output.stderr))
    }
}

/// Why there is too little room for an image; `None` when there is enough.
fn too_little(image_byte: u64, free_byte: u64) -> Option<String> {
    let needed = image_byte.saturating_mul(ROOM_TENTHS) / 10;
    (free_byte < needed).then(|| {
        let free = show_size(free_byte >> 20 << 20);
        format!(
            "has {free} free, and an image of {} needs {} while it is fetched\nhint: make room, or set `image_size` to what it really takes",
            show_size(image_byte),
            show_size(needed >> 20 << 20)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_the_names_that_engines_list() {
        for (listed, meant, is) in [
            ("localhost/base:latest", "base", true),
            ("docker.io/library/debian:13", "debian:13", true),
            ("debian:13", "debian:12", false),
            ("host:5000/base:latest", "host:5000/base", true),
            ("ghcr.io/x/base@sha256:aa", "ghcr.io/x/base@sha256:aa", true),
            ("ghcr.io/x/base@sha256:ab", "ghcr.io/x/base@sha256:aa", false),
            ("evil/base:latest", "base", false),
        ] {
            assert_eq!(is_image(listed, meant), is, "{listed} {meant}");
        }
    }

    #[test]
    fn an_image_is_fetched_only_where_more_than_twice_its_size_is_free() {
        let gib = |n: u64| n << 30;
        assert_eq!(too_little(gib(10), gib(22)), None);
        insta::assert_snapshot!(too_little(gib(10), gib(22) - 1).unwrap(), @"
        has 22527MiB free, and an image of 10GiB needs 22GiB while it is fetched
        hint: make room, or set `image_size` to what it really takes
        ");
    }
}
