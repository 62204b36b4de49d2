//! The dispatcher's side: starts the warden and asks it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8Path;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::serve::Numbered;
use super::{Hello, Memo, News, Reply, Request, wire};
use crate::host::command::halves;
use crate::host::secrets::Secrets;
use crate::job::JobId;

/// Why the warden did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    /// It could not be started.
    #[error("could not start the warden")]
    Start(#[source] io::Error),
    /// It is gone; every job it started is gone with it.
    #[error("the warden has ended")]
    Gone,
    /// It is another program's.
    #[error("the warden is of version {0}, and this program is not\nhint: restart the service")]
    Version(String),
    /// The request could not be sent.
    #[error("could not reach the warden")]
    Send(#[source] io::Error),
    /// It answered that it could not.
    #[error("{0}")]
    Failed(String),
    /// What an earlier dispatcher has left makes no sense.
    #[error("what an earlier dispatcher has left cannot be read: {0}")]
    Memo(String),
    /// It answered something that does not fit the request.
    #[error("the warden answered {0:?}, which does not fit the request")]
    Unexpected(Box<Reply>),
}

/// An answer to come, with its descriptors.
pub(crate) type Answered = oneshot::Receiver<(Reply, Vec<OwnedFd>)>;

/// What an earlier dispatcher has left.
#[derive(Debug)]
pub(crate) struct Recalled<T> {
    /// Its memo.
    pub(crate) memo: T,
    /// The job's first process, as the host sees it, while it has one.
    pub(crate) pid: Option<i32>,
    /// The descriptors, in the order in which they were left.
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Requests that wait for their reply, by number; `None` once the warden is gone.
type Pending = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<(Reply, Vec<OwnedFd>)>>>>>;

/// A running warden. Dropping it ends the warden, which kills every job it started.
#[derive(Debug)]
pub struct Warden {
    socket: UnixStream,
    /// Held while one message goes out.
    sending: Mutex<()>,
    pending: Pending,
    next: AtomicU64,
    /// The warden's process, where this one has started it.
    process: Option<Child>,
    ended: CancellationToken,
}

impl Warden {
    /// Starts `program` (ephemerd itself) as the warden of `data_dir`. Must be called inside a tokio runtime, which then reads the replies.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(program: &Utf8Path, data_dir: &Utf8Path) -> Result<Self, WardenError> {
        let (ours, theirs) = UnixStream::pair().map_err(WardenError::Start)?;
        let process = halves::start_warden(program, data_dir, theirs.into());
        Self::speak(ours, Some(process.map_err(WardenError::Start)?))
    }

    /// Joins the warden that has started this process, whose standard input is the socket. Must be called inside a tokio
    /// runtime. Returns what the warden says first, and the descriptors that come with it.
    ///
    /// # Errors
    /// This process was not started by a warden.
    pub fn join() -> Result<(Self, Box<Hello>, Vec<OwnedFd>), WardenError> {
        let socket = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(WardenError::Start)?;
        let socket = UnixStream::from(socket);
        match wire::receive::<Numbered<Reply>>(&socket) {
            Ok(Some((Numbered { message, .. }, descriptors))) => match message {
                Reply::Hello(hello) if hello.ground.version != env!("CARGO_PKG_VERSION") => {
                    Err(WardenError::Version(hello.ground.version))
                }
                Reply::Hello(hello) => Ok((Self::speak(socket, None)?, hello, descriptors)),
                other => Err(WardenError::Unexpected(Box::new(other))),
            },
            Ok(None) => Err(WardenError::Gone),
            Err(error) => Err(WardenError::Start(error)),
        }
    }

    fn speak(ours: UnixStream, process: Option<Child>) -> Result<Self, WardenError> {
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

    /// Whether it is the warden of a daemon, which does what this process may not do itself.
    pub fn is_of_daemon(&self) -> bool {
        self.process.is_none()
    }

    /// Asks for something and waits for the answer.
    ///
    /// # Errors
    /// The warden is gone, or answers that it failed.
    pub async fn ask(&self, request: Request, descriptors: &[BorrowedFd<'_>]) -> Result<Reply, WardenError> {
        self.ask_for(request, descriptors).await.map(|(reply, _)| reply)
    }

    /// The same, where the answer carries descriptors.
    ///
    /// # Errors
    /// As there.
    pub async fn ask_for(
        &self,
        request: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), WardenError> {
        let answer = self.begin(request, descriptors)?;
        match answer.await {
            Ok((Reply::Failed { reason }, _)) => Err(WardenError::Failed(reason)),
            Ok(answered) => Ok(answered),
            Err(_) => Err(WardenError::Gone),
        }
    }

    /// The secrets that the configuration of the daemon names, which only its warden may read.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn secrets(&self) -> Result<Secrets, WardenError> {
        match self.ask(Request::Secrets, &[]).await? {
            Reply::Secrets(packed) => Ok(packed.into()),
            other => Err(WardenError::Unexpected(Box::new(other))),
        }
    }

    /// Leaves a memo for the dispatcher that follows when this one is killed, in the place of an earlier one. What could not be
    /// kept is lost with this process, and nothing else is.
    pub(crate) fn keep<T: Serialize>(&self, of: Option<&JobId>, memo: &T, descriptors: &[BorrowedFd<'_>]) {
        if !self.is_of_daemon() {
            return;
        }
        let sent = serde_json::to_string(memo)
            .map_err(|error| error.to_string())
            .and_then(|text| {
                let (of, memo) = (of.cloned(), Memo(text));
                let sent = self.say(Request::Keep { of, memo }, descriptors);
                sent.map_err(|error| crate::chain(&error))
            });
        if let Err(error) = sent {
            tracing::warn!(error, "nobody could go on with this after a crash");
            // Nor by an earlier one, which says too little.
            if let Some(job) = of {
                self.forget(job);
            }
        }
    }

    /// Forgets the memo of a job that is over.
    pub(crate) fn forget(&self, job: &JobId) {
        if self.is_of_daemon() {
            let job = job.clone();
            // A warden that is gone has forgotten everything.
            let _ = self.say(Request::Forget { job }, &[]);
        }
    }

    /// What an earlier dispatcher has left, with its descriptors, and the job's first process while it has one.
    ///
    /// # Errors
    /// The warden is gone.
    pub(crate) async fn recall<T: DeserializeOwned>(
        &self,
        of: Option<&JobId>,
    ) -> Result<Option<Recalled<T>>, WardenError> {
        let of = of.cloned();
        match self.ask_for(Request::Recall { of }, &[]).await? {
            (Reply::Kept { memo: None, .. }, _) => Ok(None),
            (
                Reply::Kept {
                    memo: Some(memo),
                    pid,
                },
                descriptors,
            ) => match serde_json::from_str(&memo.0) {
                Ok(memo) => Ok(Some(Recalled {
                    memo,
                    pid,
                    descriptors,
                })),
                Err(error) => Err(WardenError::Memo(error.to_string())),
            },
            (other, _) => Err(WardenError::Unexpected(Box::new(other))),
        }
    }

    /// Asks for something whose answer nobody waits for.
    pub fn tell(&self, news: News) {
        // A warden that is gone is noticed by itself.
        let _ = self.begin(Request::Tell { news }, &[]);
    }

    /// Asks for something whose answer somebody waits for elsewhere.
    ///
    /// # Errors
    /// The warden is gone.
    pub(crate) fn begin(
        &self,
        message: Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Answered, WardenError> {
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
        self.send(number, message, descriptors)?;
        Ok(answer)
    }

    /// Asks for something that is not answered.
    fn say(&self, message: Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), WardenError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(number, message, descriptors)
    }

    fn send(&self, number: u64, message: Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), WardenError> {
        let _one_at_a_time = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        wire::send(&self.socket, &Numbered { number, message }, descriptors).map_err(WardenError::Send)
    }
}

impl Drop for Warden {
    fn drop(&mut self) {
        // The end of the stream tells the warden to kill what is left and to end.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        if let Some(process) = &mut self.process {
            let _ = process.wait();
        }
    }
}

/// Hands replies to whoever waits for them, until the warden is gone.
async fn listen(socket: AsyncFd<UnixStream>, pending: Pending, _ended: DropGuard) {
    let lock = || pending.lock().unwrap_or_else(PoisonError::into_inner);
    while let Ok(mut ready) = socket.readable().await {
        // A reply goes out whole, so this does not wait for the rest of one.
        let Ok(Some((Numbered { number, message }, descriptors))) =
            wire::receive::<Numbered<Reply>>(socket.get_ref())
        else {
            break;
        };
        if let Some(waiting) = lock().as_mut().and_then(|pending| pending.remove(&number)) {
            // Whoever asked may have stopped waiting.
            let _ = waiting.send((message, descriptors));
        }
        if !is_readable(socket.get_ref().as_fd()) {
            ready.clear_ready();
        }
    }
    // Dropping the senders tells everyone who waits.
    *lock() = None;
}

/// Whether there is something to read, or the end: the event that told of it will not come again.
pub(super) fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let mut sockets = [PollFd::new(socket, PollFlags::POLLIN)];
    poll(&mut sockets, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
