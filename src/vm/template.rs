//! Arguments with holes. A command is a list of words from its first to its last day: what fills a hole is part of one
//! word and is never read by a shell, so that no value can become an option, a word or a command of its own.

use std::fmt;
use std::str::FromStr;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize, Serializer};

/// What can be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// The guest's name.
    Name,
    /// The image.
    Image,
    /// Processors.
    Cpu,
    /// Memory in MiB.
    MemoryMib,
    /// Disk in GiB.
    DiskGib,
    /// A folder of the guest's own on this host.
    Dir,
    /// The backend's tool, `tool` in the configuration.
    Tool,
    /// This program.
    Ephemerd,
    /// The words for the guest's network; only as a whole word, in whose place there are any number of words.
    Network,
    /// The words of `share` for each shared folder, likewise.
    Shares,
    /// In `share`: the folder on this host.
    Path,
    /// In `share`: the folder's name.
    Share,
}

const HOLES: [(&str, Hole); 12] = [
    ("name", Hole::Name),
    ("image", Hole::Image),
    ("cpu", Hole::Cpu),
    ("memory_mib", Hole::MemoryMib),
    ("disk_gib", Hole::DiskGib),
    ("dir", Hole::Dir),
    ("tool", Hole::Tool),
    ("ephemerd", Hole::Ephemerd),
    ("network", Hole::Network),
    ("shares", Hole::Shares),
    ("path", Hole::Path),
    ("share", Hole::Share),
];

impl Hole {
    /// Whether any number of words stand in its place.
    const fn is_list(self) -> bool {
        matches!(self, Self::Network | Self::Shares)
    }

    /// Whether it has a value only in `share`.
    const fn is_of_share(self) -> bool {
        matches!(self, Self::Path | Self::Share)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Hole(Hole),
}

/// One word with holes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Word {
    text: String,
    pieces: Vec<Piece>,
}

/// A command with holes; the first word is the program.
pub type Argv = Vec<Word>;

/// Words as the configuration has them.
impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Word {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Word {
    type Err = String;

    /// Reads a word. A hole is a name in braces; a brace of its own is doubled.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if from.starts_with("{{") || from.starts_with("}}") {
                plain.push_str(&from[..1]);
                rest = &from[2..];
                continue;
            }
            let Some((name, after)) = from.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
                return Err(format!(
                    "`{}` has a brace that belongs to no placeholder\nhint: write a brace of its own twice",
                    text.escape_debug()
                ));
            };
            let hole = HOLES.iter().find(|(known, _)| *known == name);
            let Some((_, hole)) = hole else {
                let known: Vec<String> = HOLES.iter().map(|(name, _)| format!("{{{name}}}")).collect();
                return Err(format!(
                    "`{{{}}}` is not a placeholder\nhint: placeholders are {}",
                    name.escape_debug(),
                    known.join(", ")
                ));
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Hole(*hole));
            rest = after;
        }
        plain.push_str(rest);
        if plain.contains('\0') {
            return Err("a word cannot hold a NUL character".to_owned());
        }
        if !plain.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        let lists = pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Hole(hole) if hole.is_list()));
        if lists && pieces.len() > 1 {
            return Err(format!(
                "`{}` has words in the middle of a word\nhint: `{{network}}` and `{{shares}}` stand alone",
                text.escape_debug()
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            pieces,
        })
    }
}

/// What is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filling<'a> {
    /// The guest's name.
    pub name: &'a str,
    /// The image; empty when there is none.
    pub image: &'a str,
    /// Processors.
    pub cpu: u32,
    /// Memory in bytes.
    pub memory_byte: u64,
    /// Disk in bytes.
    pub disk_byte: u64,
    /// The guest's folder on this host.
    pub dir: &'a Utf8Path,
    /// The backend's tool.
    pub tool: &'a Utf8Path,
    /// This program.
    pub program: &'a Utf8Path,
    /// The words for the network.
    pub network: &'a [Word],
    /// The words for one shared folder.
    pub share: &'a [Word],
    /// The shared folders, by name.
    pub shares: &'a [Share],
}

/// A folder of this host that guests may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The last part of the path, by which the guest knows it.
    pub name: String,
    /// Absolute path on this host.
    pub path: Utf8PathBuf,
}

/// The words of a command with every hole filled.
pub fn fill(words: &[Word], with: &Filling<'_>) -> Vec<String> {
    words
        .iter()
        .flat_map(|word| match word.pieces.as_slice() {
            [Piece::Hole(Hole::Network)] => fill(with.network, with),
            [Piece::Hole(Hole::Shares)] => with
                .shares
                .iter()
                .flat_map(|share| with.share.iter().map(move |word| one(word, with, Some(share))))
                .collect(),
            _ => vec![one(word, with, None)],
        })
        .collect()
}

fn one(word: &Word, with: &Filling<'_>, share: Option<&Share>) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Hole(hole) => match hole {
            Hole::Name => with.name.to_owned(),
            Hole::Image => with.image.to_owned(),
            Hole::Cpu => with.cpu.to_string(),
            Hole::MemoryMib => (with.memory_byte >> 20).to_string(),
            Hole::DiskGib => with.disk_byte.div_ceil(1 << 30).to_string(),
            Hole::Dir => with.dir.to_string(),
            Hole::Tool => with.tool.to_string(),
            Hole::Ephemerd => with.program.to_string(),
            Hole::Path => share.map(|share| share.path.to_string()).unwrap_or_default(),
            Hole::Share => share.map(|share| share.name.clone()).unwrap_or_default(),
            // Only ever whole words, which `fill` puts there.
            Hole::Network | Hole::Shares => String::new(),
        },
    };
    word.pieces.iter().map(piece).collect()
}

/// Checks the words of a command: that there is a program and that it is an absolute path or a placeholder of one.
///
/// # Errors
///
/// In words, with a hint.
pub fn check_command(words: &[Word]) -> Result<(), String> {
    let Some(program) = words.first() else {
        return Err("is empty\nhint: write the program and its arguments as separate strings".to_owned());
    };
    let is_known = matches!(
        program.pieces.as_slice(),
        [Piece::Hole(Hole::Tool | Hole::Ephemerd)]
    );
    let is_absolute = matches!(program.pieces.as_slice(), [Piece::Text(text)] if text.starts_with('/'));
    if !is_known && !is_absolute {
        return Err(format!(
            "`{}` is not the absolute path of a program\nhint: no shell looks for it; write its path, or `{{tool}}`",
            program.text.escape_debug()
        ));
    }
    check_words(words, false)
}

/// Checks words that are not a command: those of `share`, in which a shared folder can be named, or of a network.
///
/// # Errors
///
/// In words, with a hint.
pub fn check_words(words: &[Word], is_share: bool) -> Result<(), String> {
    let holes = words.iter().flat_map(|word| &word.pieces);
    for piece in holes {
        if let Piece::Hole(hole) = piece
            && hole.is_of_share()
            && !is_share
        {
            return Err("`{path}` and `{share}` have values only in `share`".to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Argv {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn filled(texts: &[&str]) -> Vec<String> {
        let (network, share) = (words(&["-nic", "none"]), words(&["--dir={share}:{path}:ro"]));
        let shares = ["cache", "sdk"].map(|name| Share {
            name: name.to_owned(),
            path: format!("/srv/a b/{name}").into(),
        });
        let filling = Filling {
            name: "eph-x-1",
            image: "$(rm -rf /); a 'b'",
            cpu: 4,
            memory_byte: 2 << 30,
            disk_byte: (20 << 30) + 1,
            dir: "/var/lib/ephemerd/vm/eph-x-1".into(),
            tool: "/usr/bin/tool".into(),
            program: "/usr/bin/ephemerd".into(),
            network: &network,
            share: &share,
            shares: &shares,
        };
        fill(&words(texts), &filling)
    }

    #[test]
    fn fills_holes_inside_of_words() {
        assert_eq!(
            filled(&[
                "{tool}",
                "-m",
                "{memory_mib}M,x={{y}}",
                "{cpu}",
                "{disk_gib}G",
                "{dir}/disk"
            ]),
            [
                "/usr/bin/tool",
                "-m",
                "2048M,x={y}",
                "4",
                "21G",
                "/var/lib/ephemerd/vm/eph-x-1/disk"
            ]
        );
    }

    #[test]
    fn a_value_stays_in_its_word_whatever_is_in_it() {
        assert_eq!(filled(&["a", "{image}", "b"]), ["a", "$(rm -rf /); a 'b'", "b"]);
    }

    #[test]
    fn lists_become_any_number_of_words() {
        assert_eq!(
            filled(&["a", "{network}", "{shares}", "b"]),
            [
                "a",
                "-nic",
                "none",
                "--dir=cache:/srv/a b/cache:ro",
                "--dir=sdk:/srv/a b/sdk:ro",
                "b"
            ]
        );
    }

    #[test]
    fn refuses_what_no_placeholder_is() {
        for (bad, expected) in [
            ("{nmae}", "is not a placeholder"),
            ("{}", "is not a placeholder"),
            ("{name", "belongs to no placeholder"),
            ("name}", "belongs to no placeholder"),
            ("x{network}", "middle of a word"),
            ("a\0b", "NUL"),
        ] {
            let error = bad.parse::<Word>().unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
        }
    }

    #[test]
    fn a_command_begins_with_the_absolute_path_of_its_program() {
        assert!(check_command(&words(&["/usr/bin/qemu-img", "create"])).is_ok());
        assert!(check_command(&words(&["{tool}", "run"])).is_ok());
        for bad in [
            vec![],
            vec!["tart", "run"],
            vec!["{image}"],
            vec!["{tool}", "{path}"],
        ] {
            assert!(check_command(&words(&bad)).is_err(), "{bad:?}");
        }
    }
}
