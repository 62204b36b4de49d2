//! The JIT configuration of one runner: unpacked, looked at, and changed where it must be.
//!
//! It is base64 of a JSON object that gives every file by its name, in base64 again (Runner.Listener/Runner.cs, the branch
//! of `--jitconfig`). The runner itself would write any name it finds there. Here only names it is known to read are
//! accepted, and everything else makes the whole configuration refused: whoever could put a name in could write a file
//! beside the runner's program.
//!
//! Of the settings, three are made sure of: jobs work in the folder we made, the runner does not replace its own program,
//! and it takes one job only. The files go into the runner's folder and never through arguments or environment, which other
//! processes can read.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use camino::{Utf8Path, Utf8PathBuf};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::github::secret::Secret;

/// Most bytes of a configuration, packed. Real ones have a few thousand; nobody says what the most is.
pub const LIMIT_BYTE: usize = 1024 * 1024;

/// Permissions of its files: the runner alone reads and removes them.
pub const FILE_MODE: u32 = 0o600;

/// A file the runner may be given (Runner.Common/Constants.cs and ConfigurationStore.cs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    name: &'static str,
    required: bool,
    /// Settings, of which some are made sure; the others are credentials and stay as they are.
    settings: bool,
}

const MEMBERS: [Member; 5] = [
    Member {
        name: ".runner",
        required: true,
        settings: true,
    },
    Member {
        name: ".credentials",
        required: true,
        settings: false,
    },
    Member {
        name: ".credentials_rsaparams",
        required: true,
        settings: false,
    },
    // Take the place of the first two while GitHub moves runners to other servers.
    Member {
        name: ".runner_migrated",
        required: false,
        settings: true,
    },
    Member {
        name: ".credentials_migrated",
        required: false,
        settings: false,
    },
];

/// Most characters of a hostile name that are shown.
const SHOWN: usize = 60;

/// Why a configuration is refused. None of the texts holds anything of its content but names of members.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JitError {
    /// It is larger than any real one.
    #[error("the JIT configuration is larger than {LIMIT_BYTE} bytes\nhint: what answered may not be GitHub")]
    TooLarge,
    /// Something is not base64.
    #[error("{what} of the JIT configuration is not base64\nhint: what answered may not be GitHub")]
    NotBase64 {
        /// Which part.
        what: String,
    },
    /// Something is not text.
    #[error("{what} of the JIT configuration is not UTF-8\nhint: what answered may not be GitHub")]
    NotText {
        /// Which part.
        what: String,
    },
    /// Something is no JSON object.
    #[error(
        "{what} of the JIT configuration is no JSON object of the expected kind (line {line}, column {column})"
    )]
    NotJson {
        /// Which part.
        what: String,
        /// Where, from one.
        line: usize,
        /// Where, from one.
        column: usize,
    },
    /// It brings a file that the runner is not known to read.
    #[error(
        "the JIT configuration holds {name}, which is none of the runner's files\nhint: nothing was written; update ephemerd if GitHub has added a file"
    )]
    Unknown {
        /// Its name, quoted.
        name: String,
    },
    /// A name is there twice.
    #[error("the JIT configuration holds {name} twice")]
    Twice {
        /// The name.
        name: String,
    },
    /// A file is missing.
    #[error("the JIT configuration lacks `{name}`")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A setting is missing, or not what it must be.
    #[error("`{setting}` in `{file}` of the JIT configuration {why}")]
    Setting {
        /// In which file.
        file: &'static str,
        /// Its name.
        setting: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The work folder was named in a way that depends on where the runner is.
    #[error("the work folder `{path}` is not an absolute path without `..`")]
    Work {
        /// As it was named.
        path: Utf8PathBuf,
    },
}

/// A file of a configuration.
#[derive(Debug, Clone)]
pub struct JitFile {
    /// Its name in the runner's folder: one of a fixed few, without a slash.
    pub name: &'static str,
    /// What is in it.
    pub content: Secret,
    /// Its permissions.
    pub mode: u32,
}

/// The configuration of one runner.
#[derive(Debug, Clone)]
pub struct JitConfig {
    agent_id: u64,
    agent_name: String,
    files: Vec<JitFile>,
}

impl JitConfig {
    /// Unpacks a configuration for a runner whose jobs work in `work`.
    ///
    /// # Errors
    /// See [`JitError`].
    pub fn decode(encoded: &Secret, work: &Utf8Path) -> Result<Self, JitError> {
        if !work.is_absolute() || work.components().any(|part| part.as_str() == "..") {
            return Err(JitError::Work {
                path: work.to_owned(),
            });
        }
        let whole = "the whole";
        let text = unpack(encoded, whole)?;
        let Pairs(members) = parse::<Secret>(&text, whole)?;
        if let Some((name, _)) = members.iter().find(|(name, _)| member(name).is_none()) {
            return Err(JitError::Unknown { name: shown(name) });
        }
        let mut files = Vec::new();
        let mut agent = None;
        for known in MEMBERS {
            let mut given = members.iter().filter(|(name, _)| name == known.name);
            let Some((_, packed)) = given.next() else {
                if known.required {
                    return Err(JitError::Missing { name: known.name });
                }
                continue;
            };
            if given.next().is_some() {
                let name = shown(known.name);
                return Err(JitError::Twice { name });
            }
            let what = format!("`{}`", known.name);
            let text = unpack(packed, &what)?;
            let content = if known.settings {
                let mut settings = Settings {
                    file: known.name,
                    pairs: parse::<Value>(&text, &what)?.0,
                };
                let this = settings.agent()?;
                if agent.get_or_insert_with(|| this.clone()) != &this {
                    return Err(settings.wrong(AGENT_ID, "is another runner's"));
                }
                settings.secure(work)?;
                Secret::new(settings.render())
            } else {
                // Not one more copy of a key than there must be.
                parse::<IgnoredAny>(&text, &what)?;
                text
            };
            files.push(JitFile {
                name: known.name,
                content,
                mode: FILE_MODE,
            });
        }
        let (agent_id, agent_name) = agent.ok_or(JitError::Missing { name: ".runner" })?;
        Ok(Self {
            agent_id,
            agent_name,
            files,
        })
    }

    /// GitHub's number of the runner: what it is deleted by.
    pub fn agent_id(&self) -> u64 {
        self.agent_id
    }

    /// The runner's name.
    pub fn agent_name(&self) -> &str {
        &self.agent_name
    }

    /// The files to write into the runner's folder.
    pub fn files(&self) -> &[JitFile] {
        &self.files
    }
}

/// A configuration on its way to the warden, over a socket pair and nothing else.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq)]
pub struct Packed {
    agent_id: u64,
    agent_name: String,
    files: Vec<(String, String)>,
}

/// Leaves what is in the files out.
impl fmt::Debug for Packed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.files.iter().map(|(name, _)| name).collect();
        f.debug_struct("Packed")
            .field("agent_id", &self.agent_id)
            .field("agent_name", &self.agent_name)
            .field("files", &names)
            .finish()
    }
}

impl From<&JitConfig> for Packed {
    fn from(config: &JitConfig) -> Self {
        let JitConfig {
            agent_id,
            agent_name,
            files,
        } = config;
        let file = |file: &JitFile| (file.name.to_owned(), file.content.expose().to_owned());
        Self {
            agent_id: *agent_id,
            agent_name: agent_name.clone(),
            files: files.iter().map(file).collect(),
        }
    }
}

impl TryFrom<Packed> for JitConfig {
    type Error = JitError;

    /// Takes only files that the runner is known to read: whoever packed it may have been taken over.
    fn try_from(packed: Packed) -> Result<Self, JitError> {
        let file = |(name, content): (String, String)| match member(&name) {
            Some(known) => Ok(JitFile {
                name: known.name,
                content: Secret::new(content),
                mode: FILE_MODE,
            }),
            None => Err(JitError::Unknown { name: shown(&name) }),
        };
        Ok(Self {
            agent_id: packed.agent_id,
            agent_name: packed.agent_name,
            files: packed.files.into_iter().map(file).collect::<Result<_, _>>()?,
        })
    }
}

fn member(name: &str) -> Option<Member> {
    MEMBERS.into_iter().find(|member| member.name == name)
}

/// A name of somebody else's making, for a message.
fn shown(name: &str) -> String {
    let cut: String = name.chars().take(SHOWN).collect();
    let more = if cut.len() < name.len() { "…" } else { "" };
    format!("`{}{more}`", cut.escape_debug())
}

/// The text that is packed in `encoded`, without the mark that .NET puts before UTF-8.
fn unpack(encoded: &Secret, what: &str) -> Result<Secret, JitError> {
    if encoded.expose().len() > LIMIT_BYTE {
        return Err(JitError::TooLarge);
    }
    let not_base64 = |_| JitError::NotBase64 {
        what: what.to_owned(),
    };
    let bytes = STANDARD.decode(encoded.expose().trim()).map_err(not_base64)?;
    let not_text = |_| JitError::NotText {
        what: what.to_owned(),
    };
    let text = String::from_utf8(bytes).map_err(not_text)?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => Secret::new(rest),
        None => Secret::new(text),
    })
}

/// An object, member by member as it stands: twice the same name is not lost.
struct Pairs<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Pairs<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Members(std::marker::PhantomData))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(text: &Secret, what: &str) -> Result<Pairs<T>, JitError> {
    // What the parser says may quote the text, so only the place is passed on.
    serde_json::from_str(text.expose()).map_err(|error| JitError::NotJson {
        what: what.to_owned(),
        line: error.line(),
        column: error.column(),
    })
}

const AGENT_ID: &str = "AgentId";
const AGENT_NAME: &str = "AgentName";
const EPHEMERAL: &str = "Ephemeral";
const WORK_FOLDER: &str = "WorkFolder";
const DISABLE_UPDATE: &str = "DisableUpdate";
/// Makes the listener send the token of every job to an address (Runner.Listener/JobDispatcher.cs).
const MONITOR: &str = "MonitorSocketAddress";

/// The settings in one file. Newtonsoft's parser, which reads them, takes names in any case, so we do too.
struct Settings {
    file: &'static str,
    pairs: Vec<(String, Value)>,
}

impl Settings {
    fn wrong(&self, setting: &'static str, why: &'static str) -> JitError {
        JitError::Setting {
            file: self.file,
            setting,
            why,
        }
    }

    /// The value of a setting; which one counts when it is there twice is the parser's secret, so it is refused.
    fn get(&self, setting: &'static str) -> Result<&Value, JitError> {
        let mut found = self
            .pairs
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(setting));
        match (found.next(), found.next()) {
            (None, _) => Err(self.wrong(setting, "is missing")),
            (Some((_, value)), None) => Ok(value),
            (Some(_), Some(_)) => Err(self.wrong(setting, "is there twice")),
        }
    }

    fn agent(&self) -> Result<(u64, String), JitError> {
        let id = self.get(AGENT_ID)?.as_u64().filter(|id| *id > 0);
        let id = id.ok_or_else(|| self.wrong(AGENT_ID, "is no number above zero"))?;
        let name = self.get(AGENT_NAME)?.as_str();
        let name = name.filter(|name| !name.is_empty() && !name.chars().any(char::is_control));
        let name = name.ok_or_else(|| self.wrong(AGENT_NAME, "is no name"))?;
        Ok((id, name.to_owned()))
    }

    /// Sees to it that the runner works in `work`, stays as it is, and takes one job.
    fn secure(&mut self, work: &Utf8Path) -> Result<(), JitError> {
        if self.get(EPHEMERAL)? != &Value::Bool(true) {
            return Err(self.wrong(
                EPHEMERAL,
                "is not true, so the runner would take more than one job",
            ));
        }
        self.remove(MONITOR);
        self.set(WORK_FOLDER, Value::String(work.to_string()));
        self.set(DISABLE_UPDATE, Value::Bool(true));
        Ok(())
    }

    fn remove(&mut self, setting: &str) {
        self.pairs.retain(|(name, _)| !name.eq_ignore_ascii_case(setting));
    }

    fn set(&mut self, setting: &str, value: Value) {
        self.remove(setting);
        self.pairs.push((setting.to_owned(), value));
    }

    fn render(self) -> String {
        Value::Object(self.pairs.into_iter().collect()).to_string()
    }
}

#[cfg(test)]
#[path = "jit/tests.rs"]
mod tests;
