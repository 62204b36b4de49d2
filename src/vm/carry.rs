//! Carries scripts into a guest, and their output and code out of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

use super::life::{Class, Infra, Stage};
use super::room::Room;
use super::script::{Nonce, Scanner};
use super::stage::{Tools, judge, plain};
use crate::host::command::Output;
use crate::host::command::attend::is_not_started;

/// Bytes that are kept of what a tool says besides.
const TAIL_BYTE: usize = 16 * 1024;

/// Runs a script in the guest whose output nobody wants; its code.
pub(super) async fn scripted(
    room: &Room,
    tools: &Tools<'_>,
    stage: Stage,
    script: (&Nonce, String),
) -> Result<u8, Infra> {
    told(room, tools, stage, script, |_| {}).await
}

/// Runs a script in the guest and returns its code as soon as the guest says it, whatever becomes of the tool that
/// carries it. What it prints is told as it comes.
pub(super) async fn told(
    room: &Room,
    tools: &Tools<'_>,
    stage: Stage,
    (nonce, script): (&Nonce, String),
    mut tell: impl FnMut(&[u8]),
) -> Result<u8, Infra> {
    let Some(mut spec) = tools.of(stage) else {
        return Err(Infra::new(
            Class::Setup,
            stage,
            "the backend has no `exec`".to_owned(),
        ));
    };
    spec.stdin = Some(script);
    let tool = |why| Infra::new(Class::Tool, stage, why);
    let mut carrier = room
        .hands
        .attendant
        .start(&spec)
        .map_err(|error| tool(crate::chain(&error)))?;
    let complaints: Arc<Mutex<Vec<u8>>> = Arc::default();
    let stderr = carrier
        .stderr
        .take()
        .map(|s| Box::new(s) as Box<dyn AsyncRead + Unpin + Send>);
    let complaining = tokio::spawn(keep_tail(stderr, Arc::clone(&complaints)));
    let mut scanner = Scanner::new(nonce);
    let Some(mut stdout) = carrier.stdout.take() else {
        return Err(tool("the tool has no output".to_owned()));
    };
    carrier
        .begin()
        .await
        .map_err(|error| tool(format!("could not hand over: {error}")))?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stdout.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(got) => {
                tell(&scanner.take(&buffer[..got]));
                if let Some(code) = scanner.code() {
                    carrier.end().await;
                    return Ok(code);
                }
            }
        }
    }
    tell(&scanner.rest());
    let status = carrier.ended().await.map_err(|error| tool(error.to_string()))?;
    let _ = timeout(Duration::from_secs(1), complaining).await;
    let said = complaints.lock().unwrap_or_else(PoisonError::into_inner);
    let stderr = String::from_utf8_lossy(&said).into_owned();
    if is_not_started(status) {
        return Err(Infra::new(Class::Setup, stage, plain(&stderr)));
    }
    let output = Output {
        status,
        stdout: String::new(),
        stderr,
    };
    match judge(tools.backend.dialect, stage, &spec, &output) {
        Err(infra) => Err(infra),
        Ok(()) => Err(Infra::new(
            Class::Guest,
            stage,
            "the connection to the guest ended before its command did".to_owned(),
        )),
    }
}

/// Keeps the last bytes of a stream.
pub(super) async fn keep_tail(stream: Option<Box<dyn AsyncRead + Unpin + Send>>, kept: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stream) = stream else { return };
    let mut buffer = vec![0; 4096];
    while let Ok(got @ 1..) = stream.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&buffer[..got]);
        let over = kept.len().saturating_sub(TAIL_BYTE);
        kept.drain(..over);
    }
}
