//! Why there is nothing to say about a file.

use camino::Utf8PathBuf;

/// Why a file could not be scanned.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// It could not be read.
    #[error("could not read `{path}`")]
    Read {
        /// The file or folder.
        path: Utf8PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The folder has no workflows.
    #[error(
        "`{path}` has no workflows\nhint: name a workflow file, or a repository's folder with .github/workflows in it"
    )]
    NoWorkflows {
        /// The folder.
        path: Utf8PathBuf,
    },
    /// It is too large, as it stands or after its aliases are replaced by what they stand for.
    #[error("`{file}` has more than {limit} bytes\nhint: split it, or name the files to scan")]
    Large {
        /// The file.
        file: String,
        /// The most it may have.
        limit: usize,
    },
    /// It is nested too deeply.
    #[error("{file}:{line}: more than {limit} levels deep\nhint: no workflow needs that many; is this one?")]
    Deep {
        /// The file.
        file: String,
        /// Where the level begins that is too many.
        line: usize,
        /// The most it may have.
        limit: usize,
    },
    /// It is not YAML.
    #[error("{file}:{line}: {problem}\nhint: {hint}")]
    Yaml {
        /// The file.
        file: String,
        /// Where.
        line: usize,
        /// What is wrong.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// It is YAML and something else.
    #[error(
        "{file}:{line}: has neither `jobs:` nor `runs:`\nhint: scan workflows and composite actions only"
    )]
    NotAWorkflow {
        /// The file.
        file: String,
        /// Where its content begins.
        line: usize,
    },
}
