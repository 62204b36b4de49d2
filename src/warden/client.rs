//! The dispatcher's side: starts the warden and asks it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8Path;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serve::Numbered;
use super::{Reply, Request, wire};
use crate::host::command;

/// Why the warden did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    /// It could not be started.
    #[error("could not start the warden")]
    Start(#[source] io::Error),
    /// It is gone; every job it started is gone with it.
    #[error("the warden has ended")]
    Gone,
    /// The request could not be sent.
    #[error("could not reach the warden")]
    Send(#[source] io::Error),
    /// It answered that it could not.
    #[error("{0}")]
    Failed(String),
    /// It answered something that does not fit the request.
    #[error("the warden answered {0:?}, which does not fit the request")]
    Unexpected(Box<Reply>),
}

/// Requests that wait for their reply, by number; `None` once the warden is gone.
type Pending = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<Reply>>>>>;

/// A running warden. Dropping it ends the warden, which kills every job it started.
#[derive(Debug)]
pub struct Warden {
    socket: UnixStream,
    /// Held while one message goes out.
    sending: Mutex<()>,
    pending: Pending,
    next: AtomicU64,
    process: Child,
    ended: CancellationToken,
}

impl Warden {
    /// Starts `program` (ephemerd itself) as the warden of `data_dir`. Must be called inside a tokio runtime,
    /// which then reads the replies.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Utf8Path, data_dir: &Utf8Path) -> Result<Self, WardenError> {
        let (ours, theirs) = UnixStream::pair().map_err(WardenError::Start)?;
        let process = command::start_warden(program, data_dir, theirs.into()).map_err(WardenError::Start)?;
        let pending: Pending = Arc::new(Mutex::new(Some(BTreeMap::new())));
        let socket = ours.try_clone().map_err(WardenError::Start)?;
        // SAFETY: a `UnixStream` has one descriptor all its life, and the `AsyncFd` owns the stream.
        let answers = unsafe { AsyncFd::register_with_interest(ours, Interest::READABLE) };
        let answers = answers.map_err(|error| WardenError::Start(error.into()))?;
        let ended = CancellationToken::new();
        tokio::spawn(listen(answers, Arc::clone(&pending), ended.clone().drop_guard()));
        Ok(Self {
            socket,
            sending: Mutex::new(()),
            pending,
            next: AtomicU64::new(0),
            process,
            ended,
        })
    }

    /// Waits until the warden is gone, and every job with it.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// The warden's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// The warden is gone, or answers that it failed.
    pub async fn ask(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, WardenError> {
        let answer = self.send(request, descriptors)?;
        match answer.await {
            Ok(Reply::Failed { reason }) => Err(WardenError::Failed(reason)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(WardenError::Gone),
        }
    }

    fn send(
        &self,
        message: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<oneshot::Receiver<Reply>, WardenError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (tell, answer) = oneshot::channel();
        match self
            .pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()
        {
            Some(pending) => pending.insert(number, tell),
            None => return Err(WardenError::Gone),
        };
        let _one_at_a_time = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        wire::send(&self.socket, &Numbered { number, message }, descriptors).map_err(WardenError::Send)?;
        Ok(answer)
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // The end of the stream tells the warden to kill what is left and to end.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// Hands replies to whoever waits for them, until the warden is gone.
async fn listen(socket: AsyncFd<UnixStream>, pending: Pending, _ended: DropGuard) {
    let lock = || pending.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(mut ready) = socket.readable().await {
        // A reply goes out whole, so this does not wait for the rest of one.
        let Ok(Some((Numbered { number, message }, _))) = wire::receive::<Numbered<Reply>>(socket.get_ref())
        else {
            break;
        };
        if let Some(waiting) = lock().as_mut().and_then(|pending| pending.remove(&number)) {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send(message);
        }
        if !is_readable(socket.get_ref()) {
            ready.clear_ready();
        }
    }
    // Dropping the senders tells everyone who waits.
    *lock() = None;
}

/// Whether another reply, or the end, is there already: the event that told of it will not come again.
fn is_readable(socket: &UnixStream) -> bool {
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
