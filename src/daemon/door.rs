//! The door of a slot: where the hook of a GitHub job says what it was given, and waits. See
//! [`crate::github::admission`].
//!
//! The kernel says who knocks (unix(7), `SO_PEERCRED`; `LOCAL_PEEREPID` and getpeereid(3) on macOS). It must be the slot's
//! account and a process that the job's first one started. The first message of such a process counts, and every other
//! attempt is refused and counted. Nobody whom the door does not know waits in it: who is refused for who it is, is so at
//! once, and only processes of the job can fill the few places for those that have not spoken yet.
//!
//! A pid may be another's by the time it is looked up, when who had it has ended. Who knocks must therefore still descend
//! from the job after it has spoken; and a message decides nothing that GitHub does not say as well.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener as Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use crate::github::admission::{Answer, LONGEST, Message};
use crate::host::ancestry::descends;

/// How long a process may take to say its message.
const SPEAK_WITHIN: Duration = Duration::from_secs(10);

/// How long an answer may take to be read: it fits into the socket's buffer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Processes of a job that may be in the door at once. Its hook is the only one that should.
const MOST: usize = 8;

/// How long to wait when no connection can be accepted: out of descriptors, most likely.
const PAUSE: Duration = Duration::from_millis(100);

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// It is of another account.
    #[error("somebody of another account tried to report for the job")]
    Account,
    /// It is of the account, but no process of the job's.
    #[error("a process that the job did not start tried to report for it")]
    Outside,
    /// The system does not say who it is.
    #[error("a process that the system did not name tried to report for the job")]
    Unknown,
    /// The job has no process yet.
    #[error("a process reported before its job was started")]
    Early,
    /// Too many of the job's processes are in the door.
    #[error("the job tried to report {MOST} times at once")]
    Crowd,
    /// It did not say anything in time.
    #[error("a process of the job opened the door and said nothing within {} s", SPEAK_WITHIN.as_secs())]
    Slow,
    /// It said too much.
    #[error("the job tried to report more than {LONGEST} bytes")]
    Long,
    /// It said something else.
    #[error("the job's report is not one")]
    Garbage,
    /// Somebody has reported for the job.
    #[error("the job tried to report a second time")]
    Again,
}

/// What a job's hook says, and the way to answer it.
#[derive(Debug)]
pub struct Claim {
    /// What it says.
    pub message: Message,
    /// Holds the hook until it is answered.
    pub answer: AnswerHandle,
}

/// The hook that waits. When this is dropped the hook is not answered, and holds the job.
#[derive(Debug)]
pub struct AnswerHandle {
    stream: BufReader<UnixStream>,
}

impl AnswerHandle {
    /// Lets the job run.
    ///
    /// # Errors
    /// The hook is gone: the job must be killed.
    pub async fn go(self) -> io::Result<()> {
        self.say(&Answer::Go).await
    }

    /// Tells the hook why the job may not run; it still holds the job.
    ///
    /// # Errors
    /// The hook is gone: the job must be killed.
    pub async fn stop(self, reason: String) -> io::Result<()> {
        self.say(&Answer::Stop { reason }).await
    }

    async fn say(mut self, answer: &Answer) -> io::Result<()> {
        say(self.stream.get_mut(), answer).await
    }

    /// Waits until the hook is gone, or does what no hook of ours does and goes on speaking.
    pub async fn gone(&mut self) {
        let mut byte = [0];
        // Whatever comes: nothing more was to come.
        let _ = self.stream.read(&mut byte).await;
    }
}

async fn say(stream: &mut UnixStream, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    let said = tokio::time::timeout(ANSWER_WITHIN, stream.write_all(&line));
    said.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// An open door. It closes when it is dropped.
#[derive(Debug)]
pub struct Door {
    claims: mpsc::Receiver<Claim>,
    first: watch::Sender<Option<i32>>,
    shared: Arc<Shared>,
    _keeper: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    account: u32,
    first: watch::Receiver<Option<i32>>,
    /// Whether somebody has reported.
    claimed: AtomicBool,
    claims: mpsc::Sender<Claim>,
    refusals: Mutex<BTreeMap<Refusal, u64>>,
}

impl Door {
    /// Opens the door for one job that will run as the user `account`. Needs a runtime.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(socket: Bound, account: u32) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let listener = UnixListener::from_std(socket)?;
        let (first, known) = watch::channel(None);
        let (sender, claims) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            account,
            first: known,
            claimed: AtomicBool::new(false),
            claims: sender,
            refusals: Mutex::default(),
        });
        let keeper = tokio::spawn(keep(listener, Arc::clone(&shared)));
        Ok(Self {
            claims,
            first,
            shared,
            _keeper: AbortOnDropHandle::new(keeper),
        })
    }

    /// Says which process is the job's first, as the host sees it. Until then whoever knocks has to wait.
    pub fn launched(&self, pid: i32) {
        self.first.send_replace(Some(pid));
    }

    /// Waits for the job's hook. There is one at most, so a second call does not end; the door must be kept open until the
    /// job has ended, or whoever tries again is not noticed.
    pub async fn handshake(&mut self) -> Claim {
        match self.claims.recv().await {
            Some(claim) => claim,
            // Cannot be: a sender is in `shared`.
            None => std::future::pending().await,
        }
    }

    /// How often somebody was refused, and why.
    pub fn refusals(&self) -> BTreeMap<Refusal, u64> {
        self.shared
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Accepts connections until the door closes, which ends those that are open.
async fn keep(listener: UnixListener, shared: Arc<Shared>) {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => knock(stream, &shared, &mut visits),
                Err(error) => {
                    warn!(%error, "could not accept a job's report");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = visits.join_next() => {}
        }
    }
}

/// Looks at who knocks, and takes them in if they may be the hook.
fn knock(stream: UnixStream, shared: &Arc<Shared>, visits: &mut JoinSet<()>) {
    let who = stream.peer_cred();
    let shared = Arc::clone(shared);
    let pid = match who {
        Ok(who) if who.uid() != shared.account => return shared.refuse(stream, Refusal::Account),
        // A pid of zero is a process that cannot be seen from here.
        Ok(who) => who.pid().filter(|pid| *pid > 0),
        Err(_) => None,
    };
    let Some(pid) = pid else {
        return shared.refuse(stream, Refusal::Unknown);
    };
    if let Some(refusal) = shared.first.borrow().and_then(|first| stranger(pid, first)) {
        return shared.refuse(stream, refusal);
    }
    // Checked before anybody takes a place.
    if shared.claimed.load(Ordering::SeqCst) {
        return shared.refuse(stream, Refusal::Again);
    }
    // Those that are over do not count.
    while visits.try_join_next().is_some() {}
    if visits.len() >= MOST {
        return shared.refuse(stream, Refusal::Crowd);
    }
    visits.spawn(async move { visit(stream, pid, &shared).await });
}

/// Why `pid` is no process of the job whose first is `first`.
fn stranger(pid: i32, first: i32) -> Option<Refusal> {
    match descends(pid, first) {
        Ok(true) => None,
        Ok(false) => Some(Refusal::Outside),
        Err(_) => Some(Refusal::Unknown),
    }
}

async fn visit(stream: UnixStream, pid: i32, shared: &Shared) {
    let mut stream = BufReader::new(stream);
    let heard = tokio::time::timeout(SPEAK_WITHIN, hear(&mut stream, pid, shared)).await;
    let first_is_known = shared.first.borrow().is_some();
    match heard {
        Ok(Ok(message)) => {
            let answer = AnswerHandle { stream };
            // There is room: whoever set the flag is the only one to come here.
            if shared.claims.try_send(Claim { message, answer }).is_err() {
                debug!("nobody waits for a job's report any more");
            }
        }
        Ok(Err(refusal)) => shared.refuse(stream.into_inner(), refusal),
        Err(_) if first_is_known => shared.refuse(stream.into_inner(), Refusal::Slow),
        Err(_) => shared.refuse(stream.into_inner(), Refusal::Early),
    }
}

/// Reads the message of whoever may be the hook.
async fn hear(stream: &mut BufReader<UnixStream>, pid: i32, shared: &Shared) -> Result<Message, Refusal> {
    let mut known = shared.first.clone();
    let first = match known.wait_for(Option::is_some).await {
        Ok(first) => first.ok_or(Refusal::Early)?,
        Err(_) => return Err(Refusal::Early),
    };
    if let Some(refusal) = stranger(pid, first) {
        return Err(refusal);
    }
    let mut line = Vec::new();
    // One byte more tells too much from just enough.
    let most = u64::try_from(LONGEST + 1).unwrap_or(u64::MAX);
    let read = stream.take(most).read_until(b'\n', &mut line).await;
    match read {
        Ok(_) if line.len() > LONGEST => return Err(Refusal::Long),
        // More than one line is no hook's of ours.
        Ok(_) if line.ends_with(b"\n") && stream.buffer().is_empty() => {}
        Ok(_) | Err(_) => return Err(Refusal::Garbage),
    }
    let message = Message::parse(&line).map_err(|error| {
        debug!(error = %crate::chain(&error), "a job's report");
        Refusal::Garbage
    })?;
    // It waits for its answer, so it is still there, and still the job's.
    if let Some(refusal) = stranger(pid, first) {
        return Err(refusal);
    }
    match shared.claimed.swap(true, Ordering::SeqCst) {
        false => Ok(message),
        true => Err(Refusal::Again),
    }
}

impl Shared {
    /// Counts and tells, and says so to whoever it was, if that takes no time.
    fn refuse(&self, stream: UnixStream, refusal: Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let count = refusals.entry(refusal).or_default();
        *count += 1;
        // Whoever tries again and again does not fill the log.
        if *count == 1 {
            warn!(account = self.account, "{refusal}");
        }
        drop(refusals);
        let reason = refusal.to_string();
        if let Ok(mut line) = serde_json::to_vec(&Answer::Stop { reason }) {
            line.push(b'\n');
            let _ = stream.try_write(&line);
        }
    }
}

#[cfg(test)]
mod tests;
