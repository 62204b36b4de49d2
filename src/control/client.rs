//! The asking side, for the commands.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use camino::{Utf8Path, Utf8PathBuf};

use super::{Answer, Ask};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "could not reach the daemon at `{socket}`\nhint: start it with `ephemerd run`, or name its configuration with --config"
    )]
    Connect {
        /// The socket.
        socket: Utf8PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke")]
    Broken(#[source] io::Error),
    /// What came is not an answer.
    #[error("the daemon's answer is not understood\nhint: are the daemon and this command the same version?")]
    Answer(#[source] serde_json::Error),
    /// The daemon says no.
    #[error("{0}")]
    Refused(String),
}

/// Asks one question. The reader yields what follows the answer, which is a job's output after
/// [`Ask::Logs`] and nothing otherwise.
///
/// # Errors
/// The daemon cannot be reached, or answers with an error.
pub fn ask(socket: &Utf8Path, question: &Ask) -> Result<(Answer, impl Read + use<>), ControlError> {
    let mut stream = UnixStream::connect(socket).map_err(|source| ControlError::Connect {
        socket: socket.to_owned(),
        source,
    })?;
    let mut line = serde_json::to_vec(question).map_err(ControlError::Answer)?;
    line.push(b'\n');
    // A daemon that has refused us may be gone before the question is out; its answer waits all the same.
    let sent = stream.write_all(&line);
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    let read = reader.read_line(&mut answer);
    if answer.is_empty() {
        sent.and(read.map(drop)).map_err(ControlError::Broken)?;
        return Err(ControlError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_str(&answer).map_err(ControlError::Answer)? {
        Answer::Error { message } => Err(ControlError::Refused(message)),
        answer => Ok((answer, reader)),
    }
}
