//! What the first process of a job says, read so that none of it is lost with who reads it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Socket;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Bytes that are looked at at once; a line has some hundred.
const MOST: usize = 16 * 1024;

/// Lines from a socket. A line stays in it until the next one is asked for, which is when the ledger has what follows from it:
/// whoever comes after a reader that was killed reads it again.
#[derive(Debug)]
pub(super) struct Lines {
    socket: UnixStream,
    /// Bytes of the line that was read last, which are still in the socket.
    read: usize,
    /// The beginning of a line that came in pieces, which are not.
    piece: Vec<u8>,
}

impl Lines {
    /// Reads from this end of a socket. Needs a runtime.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UnixStream::from_std(socket)?,
            read: 0,
            piece: vec![],
        })
    }

    /// The next line; `None` at the end. Nothing is lost when this is not waited for to its end.
    ///
    /// # Errors
    /// The socket cannot be read.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        let read = std::mem::take(&mut self.read);
        self.take(read)?;
        loop {
            self.socket.readable().await?;
            let mut seen = vec![0; MOST];
            let fd = self.socket.as_raw_fd();
            let peek = || Ok(recv(fd, &mut seen, MsgFlags::MSG_PEEK)?);
            let count = match self.socket.try_io(Interest::READABLE, peek) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                other => other?,
            };
            let seen = &seen[..count];
            if count == 0 {
                return Ok(None);
            }
            match seen.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let mut line = std::mem::take(&mut self.piece);
                    line.extend_from_slice(&seen[..end]);
                    self.read = end + 1;
                    return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
                }
                None => {
                    self.piece.extend_from_slice(seen);
                    self.take(count)?;
                }
            }
        }
    }

    /// Takes bytes out that are there.
    fn take(&self, count: usize) -> io::Result<()> {
        let mut bytes = vec![0; count];
        let mut left = bytes.as_mut_slice();
        while !left.is_empty() {
            let got = recv(self.socket.as_raw_fd(), left, MsgFlags::empty())?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left = &mut left[got..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    async fn next(lines: &mut Lines) -> Option<String> {
        lines.next().await.unwrap()
    }

    #[tokio::test]
    async fn a_line_that_was_read_is_there_for_the_next_reader_until_another_is_asked_for() {
        let (reader, mut writer) = Socket::pair().unwrap();
        let again = || Lines::new(reader.try_clone().unwrap().into()).unwrap();
        writer.write_all(b"ready\nexited\n").unwrap();
        drop(writer);
        assert_eq!(next(&mut again()).await.as_deref(), Some("ready"));
        let mut second = again();
        assert_eq!(next(&mut second).await.as_deref(), Some("ready"));
        assert_eq!(next(&mut second).await.as_deref(), Some("exited"));
        let mut third = again();
        assert_eq!(next(&mut third).await.as_deref(), Some("exited"));
        assert_eq!(next(&mut third).await, None);
        assert_eq!(next(&mut again()).await, None);
    }

    #[tokio::test]
    async fn a_line_in_pieces_and_a_long_one_are_lines_and_half_a_line_is_none() {
        let (reader, mut writer) = Socket::pair().unwrap();
        let mut lines = Lines::new(reader.into()).unwrap();
        let long = "x".repeat(3 * MOST);
        let text = format!("{long}\nhalf");
        let writing = tokio::task::spawn_blocking(move || {
            writer.write_all(b"in ").unwrap();
            writer.write_all(b"pieces\n").unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        });
        assert_eq!(next(&mut lines).await.as_deref(), Some("in pieces"));
        assert_eq!(next(&mut lines).await.as_deref(), Some(long.as_str()));
        assert_eq!(next(&mut lines).await, None);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_stops_waiting_loses_nothing() {
        let (reader, mut writer) = Socket::pair().unwrap();
        let mut lines = Lines::new(reader.into()).unwrap();
        writer.write_all(b"first\n").unwrap();
        assert_eq!(next(&mut lines).await.as_deref(), Some("first"));
        tokio::select! {
            biased;
            line = lines.next() => panic!("{line:?}"),
            () = std::future::ready(()) => {}
        }
        writer.write_all(b"second\n").unwrap();
        assert_eq!(next(&mut lines).await.as_deref(), Some("second"));
    }
}
