//! Items that cannot all be met.

use camino::Utf8Path;

use super::Located;
use crate::config::{Place, Problem};
use crate::provision::Item;
use crate::provision::kind::Kind;

/// What an item makes of a path.
#[derive(PartialEq, Eq)]
enum Makes {
    File,
    Folder,
    /// A folder that no other archive may be unpacked into.
    Archive,
}

/// Every pair of items that contradict each other, told where the later of the two stands.
pub(super) fn find(items: &[Item]) -> Vec<Located> {
    let paths: Vec<(&Item, &Utf8Path, Makes)> = items
        .iter()
        .filter_map(|item| match &item.kind {
            Kind::File(path, _) => Some((item, Utf8Path::new(path), Makes::File)),
            Kind::Folder(path, _) => Some((item, Utf8Path::new(path), Makes::Folder)),
            Kind::Archive(_, archive) => Some((item, archive.to.as_path(), Makes::Archive)),
            _ => None,
        })
        .collect();
    let mut found = vec![];
    for (at, (one, one_path, one_makes)) in paths.iter().enumerate() {
        for (other, other_path, other_makes) in &paths[at + 1..] {
            if !can_meet(one, other) {
                continue;
            }
            let clash = match (one_makes, other_makes) {
                _ if one_path == other_path => match (one_makes, other_makes) {
                    (Makes::Archive, Makes::Archive) => Some("both become the same folder"),
                    (Makes::File, _) | (_, Makes::File) => Some("one path cannot be both"),
                    _ if disagree_on_owner(&one.kind, &other.kind) => Some("one path has one owner"),
                    _ => None,
                },
                (Makes::File, _) if other_path.starts_with(one_path) => Some("the second lies in the first"),
                (_, Makes::File) if one_path.starts_with(other_path) => Some("the first lies in the second"),
                (Makes::Archive, Makes::Archive)
                    if one_path.starts_with(other_path) || other_path.starts_with(one_path) =>
                {
                    Some("one would be unpacked into the other")
                }
                _ => None,
            };
            if let Some(clash) = clash {
                found.push(told(one, other, clash));
            }
        }
    }
    found
}

/// Whether both can count on one host.
fn can_meet(one: &Item, other: &Item) -> bool {
    let meet = |one: &[String], other: &[String]| {
        one.is_empty() || other.is_empty() || one.iter().any(|name| other.contains(name))
    };
    let systems = match (one.os, other.os) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    // A distribution can be like two others, so that only machines are told apart.
    systems && meet(&one.only_if.arch, &other.only_if.arch)
}

/// Whether two items want one path to belong to different accounts or groups.
fn disagree_on_owner(one: &Kind, other: &Kind) -> bool {
    let named = |kind: &Kind| match kind {
        Kind::Folder(_, it) => (it.owner.clone(), it.group.clone()),
        Kind::File(_, it) => (it.owner.clone(), it.group.clone()),
        Kind::Archive(_, it) => (it.owner.clone(), it.group.clone()),
        _ => (None, None),
    };
    let differ =
        |one: Option<String>, other: Option<String>| matches!((one, other), (Some(a), Some(b)) if a != b);
    let ((owner, group), (other_owner, other_group)) = (named(one), named(other));
    differ(owner, other_owner) || differ(group, other_group)
}

fn told(one: &Item, other: &Item, clash: &str) -> Located {
    let (first, later) = if one.origin <= other.origin {
        (one, other)
    } else {
        (other, one)
    };
    let message = format!(
        "`{}` contradicts `{}` of {}:{}: {clash}\nhint: keep one of the two",
        later.id(),
        first.id(),
        first.origin.file,
        first.origin.line
    );
    Located {
        file: later.origin.file.clone(),
        problem: Problem {
            place: Place {
                line: later.origin.line,
                column: 1,
            },
            message,
        },
    }
}
