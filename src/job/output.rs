//! A job's output: read from pipes as it comes, written where it belongs, cut at the limit.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Where a job's output goes and its input comes from.
#[derive(Debug)]
pub enum Stream {
    /// Output and errors, in the order they were written, to one new file; no input.
    Log {
        /// The file.
        file: Utf8PathBuf,
        /// Bytes kept; the rest is read and dropped, so that the job does not block.
        limit_byte: u64,
    },
    /// To and from this process's own standard streams.
    Own,
}

/// Who is told what a job writes, as it comes.
pub(crate) type Heard = Box<dyn Fn(&[u8]) + Send + Sync>;

/// The descriptors a job gets, and what reads their other ends.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// Standard input, output and error of the job.
    pub(crate) job: [OwnedFd; 3],
    /// The other end of its output, where that goes to a log.
    pub(crate) output: Option<OwnedFd>,
    copies: Copies,
}

impl Pipes {
    /// Makes the pipes and starts reading them.
    ///
    /// # Errors
    /// No pipe or no log file can be made.
    pub(crate) fn open(stream: &Stream, heard: Option<Heard>) -> io::Result<Self> {
        match stream {
            Stream::Log { file, limit_byte } => {
                let (reader, writer) = io::pipe()?;
                let output = OwnedFd::from(reader.try_clone()?);
                let copies = Copies::go_on((file, *limit_byte), reader.into(), heard)?;
                let stdout = OwnedFd::from(writer);
                let stderr = stdout.try_clone()?;
                let stdin = File::open("/dev/null")?.into();
                Ok(Self {
                    job: [stdin, stdout, stderr],
                    output: Some(output),
                    copies,
                })
            }
            Stream::Own => {
                let (stdin, input) = io::pipe()?;
                // Blocks on our own standard input, which nothing can interrupt; it ends with the program.
                std::thread::spawn(move || {
                    let mut input = input;
                    let _ = io::copy(&mut io::stdin(), &mut input);
                });
                let (out_reader, out) = io::pipe()?;
                let (err_reader, err) = io::pipe()?;
                let out_copy = copy(
                    receiver(out_reader.into())?,
                    Kept::new(io::stdout(), u64::MAX),
                    heard,
                );
                let err_copy = copy(
                    receiver(err_reader.into())?,
                    Kept::new(io::stderr(), u64::MAX),
                    None,
                );
                Ok(Self {
                    job: [stdin.into(), out.into(), err.into()],
                    output: None,
                    copies: Copies(vec![tokio::spawn(out_copy), tokio::spawn(err_copy)]),
                })
            }
        }
    }

    /// Lets go of the job's ends, so that the other ends see when the job has closed them.
    pub(crate) fn hand_over(self) -> Copies {
        self.copies
    }
}

/// Copies that are still running.
#[derive(Debug, Default)]
pub(crate) struct Copies(Vec<tokio::task::JoinHandle<u64>>);

impl Copies {
    /// Reads what a job writes from `output` to the end of its log, which may have the beginning already.
    ///
    /// # Errors
    /// The log cannot be opened.
    pub(crate) fn go_on(
        (log, limit_byte): (&Utf8Path, u64),
        output: OwnedFd,
        heard: Option<Heard>,
    ) -> io::Result<Self> {
        let log = File::options().append(true).create(true).open(log)?;
        let came = log.metadata()?.len();
        let kept = Kept {
            came,
            ..Kept::new(log, limit_byte)
        };
        Ok(Self(vec![tokio::spawn(copy(receiver(output)?, kept, heard))]))
    }

    /// Waits until everything the job wrote has arrived; returns how many bytes that were.
    pub(crate) async fn finish(self) -> u64 {
        let mut sum = 0;
        for copy in self.0 {
            sum += copy.await.unwrap_or_default();
        }
        sum
    }
}

/// The asynchronous reader of a pipe.
pub(crate) fn receiver(pipe: OwnedFd) -> io::Result<Receiver> {
    Receiver::from_owned_fd(pipe)
}

/// Copies until the end of the pipe; returns how many bytes came, kept or not.
async fn copy(mut from: Receiver, mut kept: Kept<impl Write + Send + 'static>, heard: Option<Heard>) -> u64 {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let got = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(got) => got,
        };
        if let Some(heard) = &heard {
            heard(&buffer[..got]);
        }
        kept.take(&buffer[..got]);
    }
    kept.came
}

/// What is kept of an output: its beginning, up to the limit.
#[derive(Debug)]
pub struct Kept<W> {
    to: W,
    limit_byte: u64,
    /// Bytes that came, kept or not.
    pub came: u64,
    broken: bool,
}

impl<W: Write> Kept<W> {
    /// Nothing yet, to be written to `to`.
    pub fn new(to: W, limit_byte: u64) -> Self {
        Self {
            to,
            limit_byte,
            came: 0,
            broken: false,
        }
    }

    /// Keeps what came, as far as there is room, and says so once when there is not.
    pub fn take(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.limit_byte.saturating_sub(self.came)).unwrap_or(usize::MAX);
        let was_within = self.came <= self.limit_byte;
        self.came += u64::try_from(bytes.len()).unwrap_or_default();
        if !self.broken && room > 0 {
            // A full disk or a closed terminal must not stop the reading, or the job would block.
            self.broken = self
                .to
                .write_all(&bytes[..bytes.len().min(room)])
                .and_then(|()| self.to.flush())
                .is_err();
        }
        if was_within && self.came > self.limit_byte {
            let limit_byte = self.limit_byte;
            let _ = write!(
                self.to,
                "\n[ephemerd: output cut here, at the limit of {limit_byte} bytes]\n"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn logged(limit_byte: u64, text: &[u8]) -> (String, u64) {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::from_path_buf(dir.path().join("log")).unwrap();
        let pipes = Pipes::open(
            &Stream::Log {
                file: file.clone(),
                limit_byte,
            },
            None,
        )
        .unwrap();
        let mut writer = File::from(pipes.job[1].try_clone().unwrap());
        let copies = pipes.hand_over();
        let text = text.to_vec();
        tokio::task::spawn_blocking(move || writer.write_all(&text).unwrap())
            .await
            .unwrap();
        let came = copies.finish().await;
        (std::fs::read_to_string(file).unwrap(), came)
    }

    #[tokio::test]
    async fn output_up_to_the_limit_is_kept_whole() {
        assert_eq!(logged(5, b"hello").await, ("hello".into(), 5));
    }

    #[tokio::test]
    async fn what_comes_after_another_has_read_the_beginning_counts_with_that() {
        let dir = tempfile::tempdir().unwrap();
        let log = Utf8PathBuf::from_path_buf(dir.path().join("log")).unwrap();
        std::fs::write(&log, "hel").unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let copies = Copies::go_on((&log, 5), reader.into(), None).unwrap();
        writer.write_all(b"lo, and more").unwrap();
        drop(writer);
        assert_eq!(copies.finish().await, 15);
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(
            text,
            "hello\n[ephemerd: output cut here, at the limit of 5 bytes]\n"
        );
        // The mark stands there once, whoever reads on.
        let (reader, mut writer) = io::pipe().unwrap();
        let copies = Copies::go_on((&log, 5), reader.into(), None).unwrap();
        writer.write_all(b"and more").unwrap();
        drop(writer);
        copies.finish().await;
        assert_eq!(std::fs::read_to_string(&log).unwrap(), text);
    }

    #[tokio::test]
    async fn output_past_the_limit_is_cut_with_a_mark_and_still_read() {
        let (text, came) = logged(5, &[b'x'; 100_000]).await;
        assert_eq!(
            text,
            "xxxxx\n[ephemerd: output cut here, at the limit of 5 bytes]\n"
        );
        assert_eq!(came, 100_000);
    }
}
