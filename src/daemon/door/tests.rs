use std::io::{BufRead as _, Write as _};
use std::os::unix::net::UnixStream as Caller;

use camino::Utf8PathBuf;
use nix::unistd::{getpid, getppid, getuid};
use serde_json::{Value, json};

use super::*;

/// A door at which this process knocks, as a job whose first process is this one's parent.
struct Bench {
    door: Door,
    socket: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self::of(getuid().as_raw());
        bench.door.launched(getppid().as_raw());
        bench
    }

    fn of(account: u32) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let socket = Utf8PathBuf::from_path_buf(keep.path().join("admission.sock")).unwrap();
        let bound = Bound::bind(&socket).unwrap();
        let door = Door::open(bound, account).unwrap();
        Self {
            door,
            socket,
            _keep: keep,
        }
    }

    fn knock(&self) -> Caller {
        Caller::connect(&self.socket).unwrap()
    }

    /// Says this, and returns what the door says to that.
    async fn said(&self, bytes: &[u8]) -> String {
        let mut caller = self.knock();
        // The door may have hung up before everything was said.
        let _ = caller.write_all(bytes);
        answer(caller).await
    }

    fn refused(&self) -> Vec<(Refusal, u64)> {
        self.door.refusals().into_iter().collect()
    }
}

/// Reads the answer on a thread of its own: the runtime's clock, where it is a test's, stands still for its own threads.
async fn answer(caller: Caller) -> String {
    let (sender, answer) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // A door that hangs up with something unread resets the connection.
        let _ = std::io::BufReader::new(caller).read_line(&mut line);
        let _ = sender.send(line);
    });
    answer.await.unwrap()
}

fn message() -> Value {
    json!({"repository": "acme/app", "run_id": 77, "run_attempt": 1, "job": "build", "event": "push", "sha": "c0ffee",
        "runner": "mac01-9f2c", "event_file": true})
}

fn line() -> Vec<u8> {
    format!("{}\n", message()).into_bytes()
}

const GO: &str = "{\"answer\":\"go\"}\n";

#[tokio::test]
async fn a_hook_says_what_it_has_and_gets_its_answer() {
    let mut bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    let claim = bench.door.handshake().await;
    assert_eq!(claim.message.run_id, 77);
    claim.answer.go().await.unwrap();
    assert_eq!(answer(caller).await, GO);
    assert_eq!(bench.refused(), []);
}

#[tokio::test]
async fn a_hook_is_told_why_it_may_not_and_one_without_an_answer_sees_the_end() {
    let mut bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    let claim = bench.door.handshake().await;
    claim.answer.stop("of a fork".to_owned()).await.unwrap();
    assert_eq!(
        answer(caller).await,
        "{\"answer\":\"stop\",\"reason\":\"of a fork\"}\n"
    );

    let mut bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    drop(bench.door.handshake().await);
    assert_eq!(answer(caller).await, "");
}

#[tokio::test]
async fn a_hook_that_is_gone_is_noticed_before_and_when_it_is_answered() {
    let mut bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    let mut claim = bench.door.handshake().await;
    drop(caller);
    claim.answer.gone().await;
    claim.answer.go().await.unwrap_err();

    let mut bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    let mut claim = bench.door.handshake().await;
    // One that goes on speaking is none of ours.
    caller.write_all(b"x").unwrap();
    claim.answer.gone().await;
}

#[tokio::test]
async fn only_the_first_report_counts_whatever_becomes_of_it() {
    let mut bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    let claim = bench.door.handshake().await;
    let again = bench.said(&line()).await;
    assert!(again.contains("a second time"), "{again}");
    drop(claim);
    let again = bench.said(&line()).await;
    assert!(again.contains("a second time"), "{again}");
    assert_eq!(bench.refused(), [(Refusal::Again, 2)]);
}

#[tokio::test]
async fn two_that_speak_at_once_are_told_apart() {
    let mut bench = Bench::new();
    let (mut first, mut second) = (bench.knock(), bench.knock());
    let (start, end) = (line()[..10].to_vec(), line()[10..].to_vec());
    first.write_all(&start).unwrap();
    second.write_all(&start).unwrap();
    first.write_all(&end).unwrap();
    bench.door.handshake().await.answer.go().await.unwrap();
    second.write_all(&end).unwrap();
    assert!(answer(second).await.contains("a second time"));
    assert_eq!(answer(first).await, GO);
}

#[tokio::test]
async fn what_is_no_report_is_refused_and_the_hook_still_gets_in() {
    let mut bench = Bench::new();
    let mut wrong = message();
    wrong["run_id"] = json!("77");
    for bytes in [
        &b"\n"[..],
        b"hello\n",
        b"\xff\xfe\n",
        format!("{wrong}\n").as_bytes(),
        &[line(), line()].concat(),
    ] {
        let answer = bench.said(bytes).await;
        assert!(answer.contains("is not one"), "{answer}");
    }
    let huge = bench.said(&vec![b'x'; LONGEST + 1]).await;
    assert!(huge.contains("more than 16384 bytes"), "{huge}");
    assert_eq!(bench.refused(), [(Refusal::Long, 1), (Refusal::Garbage, 5)]);
    // A message of exactly the longest is still one: JSON may end in spaces.
    let mut longest = line();
    longest.splice(0..0, vec![b' '; LONGEST - longest.len()]);
    let mut caller = bench.knock();
    caller.write_all(&longest).unwrap();
    bench.door.handshake().await.answer.go().await.unwrap();
    assert_eq!(answer(caller).await, GO);
}

#[tokio::test]
async fn a_report_that_breaks_off_is_none() {
    let bench = Bench::new();
    let mut caller = bench.knock();
    caller.write_all(&line()[..20]).unwrap();
    caller.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(answer(caller).await.contains("is not one"));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_in_time_is_refused_and_the_hook_still_gets_in() {
    let mut bench = Bench::new();
    let (silent, mut slow) = (bench.knock(), bench.knock());
    slow.write_all(&line()[..20]).unwrap();
    // The clock is one of the test's, and goes on when nothing else does.
    for caller in [silent, slow] {
        assert!(answer(caller).await.contains("said nothing within 10 s"));
    }
    assert_eq!(bench.refused(), [(Refusal::Slow, 2)]);
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    bench.door.handshake().await.answer.go().await.unwrap();
}

#[tokio::test]
async fn more_than_a_few_at_once_are_refused_until_there_is_room() {
    let mut bench = Bench::new();
    let mut silent: Vec<_> = (0..MOST).map(|_| bench.knock()).collect();
    let crowd = bench.said(&line()).await;
    assert!(crowd.contains("8 times at once"), "{crowd}");
    // The last one's place is free when the door has noticed that it is gone.
    drop(silent.pop());
    loop {
        let mut caller = bench.knock();
        caller.write_all(&line()).unwrap();
        tokio::select! {
            claim = bench.door.handshake() => break claim.answer.go().await.unwrap(),
            answer = answer(caller) => assert!(answer.contains("8 times at once"), "{answer}"),
        }
    }
}

#[tokio::test]
async fn who_is_of_another_account_or_not_the_jobs_is_refused_at_once() {
    let bench = Bench::of(getuid().as_raw() + 1);
    bench.door.launched(getppid().as_raw());
    assert!(bench.said(&line()).await.contains("another account"));
    assert_eq!(bench.refused(), [(Refusal::Account, 1)]);

    // This process is the job's first one, and no child of it.
    let bench = Bench::of(getuid().as_raw());
    bench.door.launched(getpid().as_raw());
    assert!(bench.said(&line()).await.contains("did not start"));
    assert_eq!(bench.refused(), [(Refusal::Outside, 1)]);
}

#[tokio::test]
async fn who_comes_before_the_job_is_known_waits_for_it() {
    let mut bench = Bench::of(getuid().as_raw());
    let mut caller = bench.knock();
    caller.write_all(&line()).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(bench.refused(), []);
    bench.door.launched(getppid().as_raw());
    bench.door.handshake().await.answer.go().await.unwrap();
    assert_eq!(answer(caller).await, GO);
}

#[tokio::test(start_paused = true)]
async fn where_no_job_ever_starts_nobody_waits_for_ever() {
    let bench = Bench::of(getuid().as_raw());
    assert!(bench.said(&line()).await.contains("before its job was started"));
    assert_eq!(bench.refused(), [(Refusal::Early, 1)]);
}

#[tokio::test]
async fn a_door_that_closes_lets_go_of_everybody() {
    let bench = Bench::new();
    let caller = bench.knock();
    let Bench { door, socket, _keep } = bench;
    drop(door);
    assert_eq!(answer(caller).await, "");
    Caller::connect(socket).unwrap_err();
}
