//! The answering side, in the daemon.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tracing::{debug, warn};

use super::{Answer, Ask, LONGEST_QUESTION};
use crate::daemon::Daemon;
use crate::job::JobId;

/// How long a client may take to ask.
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// How much of a log is sent at once.
const CHUNK_BYTE: usize = 64 * 1024;

/// Makes the control socket: mode 0660, owned by us and by the admin group where that exists.
///
/// # Errors
/// Another daemon listens there, or the socket cannot be made.
pub fn listen(path: &Utf8Path, admin_group: &str) -> io::Result<std::os::unix::net::UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another daemon answers there",
        ));
    }
    match path.symlink_metadata() {
        // What a daemon left that was killed. Anything else there is somebody's, and binding fails.
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    if let Some(group) = users::get_group_by_name(admin_group) {
        std::os::unix::fs::chown(path, None, Some(group.gid()))?;
    }
    Ok(listener)
}

/// Answers one connection.
pub async fn serve(daemon: Arc<Daemon>, stream: UnixStream) {
    if let Err(error) = converse(&daemon, stream).await {
        // Whoever asked is gone or talks nonsense; the daemon is not concerned.
        debug!(%error, "control connection");
    }
}

async fn converse(daemon: &Arc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    if !daemon.may_ask(peer.uid(), peer.gid()) {
        warn!(uid = peer.uid(), "refused a control connection");
        let message =
            "this user may not control the daemon\nhint: use sudo, or join the admin group".to_owned();
        return say(&mut writer, &Answer::Error { message }).await;
    }
    let mut line = Vec::new();
    let mut limited = BufReader::new(reader).take(LONGEST_QUESTION);
    let read = tokio::time::timeout(ASK_WITHIN, limited.read_until(b'\n', &mut line));
    if read.await.is_err() {
        return say(
            &mut writer,
            &Answer::Error {
                message: "no question came in time".into(),
            },
        )
        .await;
    }
    let question = match serde_json::from_slice::<Ask>(&line) {
        Ok(question) => question,
        Err(error) => {
            let message =
                format!("not a question: {error}\nhint: are the daemon and this command the same version?");
            return say(&mut writer, &Answer::Error { message }).await;
        }
    };
    match question {
        Ask::Logs { job, follow } => logs(daemon, &mut writer, &job, follow).await,
        question => say(&mut writer, &daemon.answer(question).await).await,
    }
}

async fn say(writer: &mut (impl AsyncWriteExt + Unpin), answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// Sends a job's output; with `follow`, what comes of it until the job has ended.
async fn logs(
    daemon: &Arc<Daemon>,
    writer: &mut (impl AsyncWriteExt + Unpin),
    job: &JobId,
    follow: bool,
) -> io::Result<()> {
    if let Err(message) = daemon.is_finished(job) {
        return say(writer, &Answer::Error { message }).await;
    }
    say(writer, &Answer::Done {}).await?;
    let mut changes = daemon.changes();
    let path = daemon.log_of(job);
    let mut file = None;
    let mut buffer = vec![0; CHUNK_BYTE];
    loop {
        // Asked before the file is read: what is written by then is sent by then.
        let finished = daemon.is_finished(job).unwrap_or(true);
        if file.is_none() {
            file = tokio::fs::File::open(&path).await.ok();
        }
        if let Some(file) = &mut file {
            loop {
                let got = file.read(&mut buffer).await?;
                if got == 0 {
                    break;
                }
                writer.write_all(&buffer[..got]).await?;
            }
        }
        if finished || !follow {
            return Ok(());
        }
        // A log that grows makes no event, so look twice a second as well.
        let _ = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
    }
}
