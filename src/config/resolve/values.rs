//! Single values: from what TOML holds to what is meant, or what is wrong with it.

use std::collections::BTreeSet;
use std::time::Duration;

use camino::Utf8PathBuf;
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as PlainError, StrDeserializer};

use super::super::NO_MANIFEST;
use super::super::keys::{Key, Kind, quoted_list};
use super::super::raw::Raw;
use super::super::size;
use super::reader::{Complaint, Complaints};
use crate::provision::manifest::built_in;
use crate::sandbox::Axis;

/// Variables that ephemerd sets for every job, or that the dynamic loader obeys (ld.so(8), dyld(1)).
const RESERVED: [&str; 5] = ["HOME", "TMPDIR", "USER", "LOGNAME", "SHELL"];
/// Beginnings of variable names that are reserved as well, and why.
const RESERVED_BEGINNINGS: [(&str, &str); 3] = [
    ("EPHEMERD_", "ephemerd tells a job about itself with it"),
    (
        "LD_",
        "the dynamic loader would load other code into every program of the job",
    ),
    (
        "DYLD_",
        "the dynamic loader would load other code into every program of the job",
    ),
];

/// The string of a value that was read as one; empty for any other.
pub(super) fn text(raw: &Raw) -> &str {
    match raw {
        Raw::Text(text) => text,
        Raw::Number(_) | Raw::Flag(_) | Raw::List(_) | Raw::Table => "",
    }
}

/// A manifest: one that comes with the program, an absolute path, or where `may_be_none` the word for asking nothing.
pub(super) fn manifest(text: &str, may_be_none: bool) -> Result<String, String> {
    if may_be_none && text == NO_MANIFEST {
        return Ok(text.to_owned());
    }
    if text.contains('/') || text.ends_with(".toml") {
        return super::super::grants::absolute(text).map(Utf8PathBuf::into_string);
    }
    let names: Vec<&str> = built_in().chain(may_be_none.then_some(NO_MANIFEST)).collect();
    if names.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(not_among(text, "a manifest, and no absolute path", &names))
}

pub(super) fn flag(_: &Key, raw: &Raw) -> Result<bool, Complaints> {
    Ok(*raw == Raw::Flag(true))
}

/// A whole number within the bounds of its key.
pub(super) fn number<T: TryFrom<u32>>(key: &Key, raw: &Raw) -> Result<T, Complaints> {
    let (Kind::Number { min, max }, &Raw::Number(number)) = (key.kind, raw) else {
        return Err("is not a number".to_owned().into());
    };
    u32::try_from(number)
        .ok()
        .filter(|number| (min..=max).contains(number))
        .and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| format!("{number} is not within {min} to {max}").into())
}

pub(super) fn size(_: &Key, raw: &Raw) -> Result<u64, Complaints> {
    size::parse_size(text(raw)).map_err(|error| error.to_string().into())
}

pub(super) fn duration(_: &Key, raw: &Raw) -> Result<Duration, Complaints> {
    size::parse_duration(text(raw)).map_err(|error| error.to_string().into())
}

/// The variant that a key of [`Kind::Choice`] names.
pub(super) fn choice<T: DeserializeOwned>(key: &Key, raw: &Raw) -> Result<T, Complaints> {
    let Kind::Choice(names) = key.kind else {
        return Err("is not one of several".to_owned().into());
    };
    Ok(variant(text(raw), names)?)
}

/// The variant of an enum that `text` names; `names` are all of them, for the message.
fn variant<T: DeserializeOwned>(text: &str, names: &[&str]) -> Result<T, String> {
    let deserializer: StrDeserializer<'_, PlainError> = text.into_deserializer();
    T::deserialize(deserializer).map_err(|_| not_among(text, "a known value", names))
}

/// Says that `text` is no `what`, and which of `names` is meant if one is near.
pub(super) fn not_among(text: &str, what: &str, names: &[&str]) -> String {
    let near = names
        .iter()
        .map(|name| {
            (
                strsim::normalized_damerau_levenshtein(&text.to_ascii_lowercase(), name),
                name,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let hint = match near {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => format!("use one of {}", quoted_list(names)),
    };
    format!("`{}` is not {what}\nhint: {hint}", text.escape_debug())
}

/// Each string of a list through `parse`; everything wrong with any of them when something is.
pub(super) fn each<T>(raw: &Raw, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Complaints> {
    let Raw::List(items) = raw else {
        return Err("is not a list".to_owned().into());
    };
    let mut values = Vec::new();
    let mut complaints = Vec::new();
    for item in items {
        match parse(&item.text) {
            Ok(value) => values.push(value),
            Err(text) => complaints.push(Complaint::at(item.place, text)),
        }
    }
    if complaints.is_empty() {
        Ok(values)
    } else {
        Err(Complaints(complaints))
    }
}

/// As [`each`], for a list that says something only when it has items.
pub(super) fn some<T>(raw: &Raw, parse: impl Fn(&str) -> Result<T, String>) -> Result<Vec<T>, Complaints> {
    let values = each(raw, parse)?;
    if values.is_empty() {
        return Err(
            "an empty list lets nothing be native\nhint: leave the key out to restrict nothing"
                .to_owned()
                .into(),
        );
    }
    Ok(values)
}

/// The axes that may be degraded.
pub(super) fn axes(_: &Key, raw: &Raw) -> Result<BTreeSet<Axis>, Complaints> {
    const NAMES: [&str; 5] = ["accounts", "processes", "ipc", "network", "limits"];
    let axis = |text: &str| match variant(text, &NAMES)? {
        Axis::Filesystem | Axis::Credentials => Err(format!(
            "`{text}` can never be degraded: without it a job reaches what belongs to others\n\
             hint: axes that can be are {}",
            quoted_list(&NAMES)
        )),
        axis @ (Axis::Accounts | Axis::Processes | Axis::Ipc | Axis::Network | Axis::Limits) => Ok(axis),
    };
    each(raw, axis).map(BTreeSet::from_iter)
}

/// `text` when it can be the name of the service account: short enough for a slot's number after it.
pub(super) fn account(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
    if first && rest && text.len() <= 21 {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{}` cannot be an account's name\nhint: begin with a-z or `_` and go on with at most 20 of a-z, 0-9, `_` and `-`",
            text.escape_debug()
        ))
    }
}

/// `text` when it can be a group's name.
pub(super) fn group(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    // useradd(8): names are up to 32 characters long.
    if first && rest && text.len() <= 32 {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{}` cannot be a group's name\nhint: begin with a letter or `_` and go on with at most 31 letters, digits, `.`, `_` and `-`",
            text.escape_debug()
        ))
    }
}

/// Checks that the configuration may set the variable `name`.
pub(in crate::config) fn variable(name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!(
            "`{}` cannot be a variable's name\nhint: use letters, digits and `_`, and no digit first",
            name.escape_debug()
        ));
    }
    let reserved = |why: &str| Err(format!("`{name}` is reserved: {why}\nhint: remove it"));
    if RESERVED.contains(&name) {
        return reserved("every job gets its own");
    }
    match RESERVED_BEGINNINGS
        .iter()
        .find(|(beginning, _)| name.starts_with(beginning))
    {
        Some((_, why)) => reserved(why),
        None => Ok(()),
    }
}

/// `text` when a variable can hold it; execve(2) ends strings at NUL.
pub(super) fn variable_value(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("a variable cannot hold a NUL character".to_owned());
    }
    Ok(text.to_owned())
}

/// `text` unless it is empty.
pub(super) fn filled(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty\nhint: write a name or leave it out".to_owned());
    }
    Ok(text.to_owned())
}
