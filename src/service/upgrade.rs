//! Upgrades, as far as they are decisions: whether a program may replace the one that is there, and how far an upgrade
//! has come.
//!
//! ```text
//!  stage a copy ─► verify it ─► drain ─► Record ─► stop ─► keep ledger and program ─► swap ─► start ─► ready? ─► Record gone
//!                     │                     └───────────────────── any failure, or a Record found later ─┴─► Rollback
//!                     └─► Refusal
//! ```

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

/// Version of a record.
pub const VERSION: u32 = 1;

/// An upgrade that has begun and not ended, as written down before anything is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Version of this form.
    pub version: u32,
    /// The version that is replaced.
    pub from: String,
    /// The SHA-256 of its program.
    pub from_sha256: String,
    /// The version that replaces it.
    pub to: String,
    /// The SHA-256 of its program.
    pub to_sha256: String,
}

/// What a program was found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// What it is built for.
    pub machine: Option<Machine>,
    /// Its version, as it says itself.
    pub version: Option<String>,
}

/// What a program is built for: the system's format, and its number of the processor in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// ELF of Linux: `e_machine`, elf(5).
    Elf(u16),
    /// Mach-O of macOS: `cputype`, mach-o/loader.h.
    MachO(u32),
}

/// What the start of a program's file says it is built for.
pub fn machine(start: &[u8]) -> Option<Machine> {
    match start {
        // Both processors that ephemerd runs on are little-endian, and only 64 bits wide here.
        [0x7f, b'E', b'L', b'F', 2, 1, ..] => {
            let bytes: [u8; 2] = start.get(18..20)?.try_into().ok()?;
            Some(Machine::Elf(u16::from_le_bytes(bytes)))
        }
        // MH_MAGIC_64
        [0xcf, 0xfa, 0xed, 0xfe, ..] => {
            let bytes: [u8; 4] = start.get(4..8)?.try_into().ok()?;
            Some(Machine::MachO(u32::from_le_bytes(bytes)))
        }
        _ => None,
    }
}

/// What is asked of an upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The hash that the program must have.
    pub sha256: Option<String>,
    /// Whether it may be older.
    pub allow_downgrade: bool,
}

/// Why a program does not replace the one that is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Somebody may have changed it on its way.
    #[error(
        "its SHA-256 is {found}, not {wanted}\nhint: fetch it again, and compare with what its release says"
    )]
    Hash {
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// It cannot run here.
    #[error(
        "it is built for another system or processor than the program that is installed\nhint: fetch the one for this host"
    )]
    Machine,
    /// It is not ephemerd.
    #[error("it does not say which version of ephemerd it is\nhint: is it ephemerd?")]
    Nameless,
    /// It is older.
    #[error(
        "it is version {new}, older than {old}, which may have written what it cannot read\nhint: --allow-downgrade, if you know that it can"
    )]
    Older {
        /// Its version.
        new: String,
        /// That of the program that is installed.
        old: String,
    },
}

/// What becomes of a program that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one that is installed.
    Same,
    /// It replaces it, being this version.
    Replaces(String),
}

/// Whether `new` may replace `old`.
///
/// # Errors
/// See [`Refusal`].
pub fn judge(old: &Candidate, new: &Candidate, terms: &Terms) -> Result<Verdict, Refusal> {
    if let Some(wanted) = &terms.sha256
        && !wanted.eq_ignore_ascii_case(&new.sha256)
    {
        return Err(Refusal::Hash {
            found: new.sha256.clone(),
            wanted: wanted.clone(),
        });
    }
    if new.sha256 == old.sha256 {
        return Ok(Verdict::Same);
    }
    if new.machine.is_none() || new.machine != old.machine {
        return Err(Refusal::Machine);
    }
    let Some(version) = new.version.clone() else {
        return Err(Refusal::Nameless);
    };
    // A version that cannot be told is older than any.
    let was = old.version.clone().unwrap_or_default();
    if compare(&version, &was) == Ordering::Less && !terms.allow_downgrade {
        return Err(Refusal::Older {
            new: version,
            old: was,
        });
    }
    Ok(Verdict::Replaces(version))
}

/// The version in what `ephemerd --version` prints.
pub fn version_in(text: &str) -> Option<String> {
    let version = text.trim().strip_prefix("ephemerd ")?;
    let first = version.bytes().next()?;
    (first.is_ascii_digit() && !version.contains(char::is_whitespace)).then(|| version.to_owned())
}

/// The order of versions as <https://semver.org> says it: by number, and one with a suffix comes before the one without.
fn compare(a: &str, b: &str) -> Ordering {
    let split = |text: &str| {
        let text = text.split('+').next().unwrap_or_default();
        let (numbers, suffix) = text.split_once('-').unwrap_or((text, ""));
        let numbers: Vec<u64> = numbers.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        (numbers, suffix.to_owned())
    };
    let ((a, a_suffix), (b, b_suffix)) = (split(a), split(b));
    a.cmp(&b)
        .then_with(|| match (a_suffix.is_empty(), b_suffix.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => by_parts(&a_suffix, &b_suffix),
        })
}

/// The order of suffixes: part by part, numbers by their value and before words.
fn by_parts(a: &str, b: &str) -> Ordering {
    let key = |part: &str| match part.parse::<u64>() {
        Ok(number) => (0, number, String::new()),
        Err(_) => (1, 0, part.to_owned()),
    };
    a.split('.').map(key).cmp(b.split('.').map(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(sha256: &str, version: &str) -> Candidate {
        Candidate {
            sha256: sha256.to_owned(),
            machine: Some(Machine::Elf(62)),
            version: Some(version.to_owned()),
        }
    }

    fn judged(new: &Candidate, terms: &Terms) -> Result<Verdict, Refusal> {
        judge(&candidate("aa", "0.2.0"), new, terms)
    }

    #[test]
    fn a_newer_program_and_one_of_the_same_version_replace_the_old_one() {
        for version in ["0.2.0", "0.2.1", "0.10.0", "1.0.0-rc.1"] {
            let verdict = judged(&candidate("bb", version), &Terms::default());
            assert_eq!(verdict, Ok(Verdict::Replaces(version.to_owned())));
        }
    }

    #[test]
    fn an_older_one_only_where_that_is_said() {
        for version in ["0.1.9", "0.2.0-rc.1"] {
            let new = candidate("bb", version);
            assert!(matches!(
                judged(&new, &Terms::default()),
                Err(Refusal::Older { .. })
            ));
            let terms = Terms {
                allow_downgrade: true,
                ..Terms::default()
            };
            assert_eq!(judged(&new, &terms), Ok(Verdict::Replaces(version.to_owned())));
        }
    }

    #[test]
    fn the_same_program_again_is_nothing_to_do() {
        assert_eq!(
            judged(&candidate("aa", "0.2.0"), &Terms::default()),
            Ok(Verdict::Same)
        );
    }

    #[test]
    fn a_hash_that_is_named_must_be_the_programs_in_either_case() {
        let wants = |sha256: &str| Terms {
            sha256: Some(sha256.to_owned()),
            ..Terms::default()
        };
        assert!(judged(&candidate("bb", "0.2.0"), &wants("BB")).is_ok());
        assert!(matches!(
            judged(&candidate("bb", "0.2.0"), &wants("cc")),
            Err(Refusal::Hash { .. })
        ));
        // Not even for the one that is there.
        assert!(judged(&candidate("aa", "0.2.0"), &wants("cc")).is_err());
    }

    #[test]
    fn a_program_for_another_processor_or_none_is_refused() {
        for machine in [Some(Machine::Elf(183)), Some(Machine::MachO(0x0100_000c)), None] {
            let new = Candidate {
                machine,
                ..candidate("bb", "0.2.0")
            };
            assert_eq!(judged(&new, &Terms::default()), Err(Refusal::Machine));
        }
    }

    #[test]
    fn what_does_not_say_that_it_is_ephemerd_is_refused() {
        for text in ["", "bash 5.2", "ephemerd", "ephemerd x", "ephemerd 1.0 and more"] {
            assert_eq!(version_in(text), None, "{text}");
        }
        assert_eq!(version_in("ephemerd 0.1.0\n").as_deref(), Some("0.1.0"));
        let new = Candidate {
            version: None,
            ..candidate("bb", "0.2.0")
        };
        assert_eq!(judged(&new, &Terms::default()), Err(Refusal::Nameless));
    }

    #[test]
    fn suffixes_are_in_the_order_of_semver() {
        let order = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0",
        ];
        for pair in order.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        assert_eq!(compare("1.0.0+5", "1.0.0"), Ordering::Equal);
    }

    #[test]
    fn the_processor_is_read_from_the_files_own_words() {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1];
        elf.resize(20, 0);
        elf[18] = 62;
        assert_eq!(machine(&elf), Some(Machine::Elf(62)));
        let mach = [0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1];
        assert_eq!(machine(&mach), Some(Machine::MachO(0x0100_000c)));
        for nothing in [&b"#!/bin/sh"[..], &elf[..10], &mach[..6], b""] {
            assert_eq!(machine(nothing), None);
        }
    }
}
