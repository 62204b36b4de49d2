//! Messages over a Unix stream: a length, JSON, and descriptors that travel with the first byte.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Request;
use super::serve::Numbered;

/// Bytes a message may have; a policy with hundreds of rules stays far below.
const LONGEST: usize = 1 << 20;

/// Descriptors a message may carry.
const MOST_DESCRIPTORS: usize = 8;

/// Descriptors that the kernel lets one carry (unix(7), `SCM_MAX_FD`). There must be room for all of them: those that were
/// there before the room ended would stay open in this process, and nobody would know them.
const MOST_OF_KERNEL: usize = 253;

/// Sends one message. Up to some kilobytes it goes out as one piece, so that processes sharing the socket do
/// not interleave.
pub(crate) fn send<T: Serialize>(
    stream: &UnixStream,
    message: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = framed(&serde_json::to_vec(message)?)?;
    let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
    let control = if raw.is_empty() {
        vec![]
    } else {
        vec![ControlMessage::ScmRights(&raw)]
    };
    let sent = loop {
        match sendmsg::<()>(
            stream.as_raw_fd(),
            &[IoSlice::new(&bytes)],
            &control,
            MsgFlags::empty(),
            None,
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    (&mut &*stream).write_all(&bytes[sent..])
}

/// The requests in a stream of bytes, up to its end or to what is none: what the warden hears when somebody sends that.
///
/// # Errors
/// The system has no socket to send them by.
pub fn requests(bytes: &[u8]) -> io::Result<Vec<Request>> {
    let (mut sender, receiver) = UnixStream::pair()?;
    let sent = bytes.to_vec();
    // Whoever stops listening must not keep the sender.
    let sending = std::thread::spawn(move || sender.write_all(&sent));
    let next = || receive::<Numbered<Request>>(&receiver).ok().flatten();
    let heard = std::iter::from_fn(next)
        .map(|(request, _)| request.message)
        .collect();
    drop(receiver);
    // One that was not heard to its end is told so.
    let _ = sending.join();
    Ok(heard)
}

/// The bytes by which a request is asked.
///
/// # Errors
/// It is too long.
pub fn bytes(request: Request) -> io::Result<Vec<u8>> {
    let message = Numbered {
        number: 0,
        message: request,
    };
    framed(&serde_json::to_vec(&message)?)
}

fn framed(body: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "message too long"))?;
    Ok([&length.to_le_bytes()[..], body].concat())
}

/// Receives one message and its descriptors; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0u8; 4];
    let (got, descriptors) = receive_head(stream, &mut length)?;
    if got == 0 {
        return Ok(None);
    }
    (&mut &*stream).read_exact(&mut length[got..])?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message of {length} bytes"),
        ));
    }
    let mut body = vec![0; length];
    (&mut &*stream).read_exact(&mut body)?;
    Ok(Some((serde_json::from_slice(&body)?, descriptors)))
}

fn receive_head(stream: &UnixStream, head: &mut [u8; 4]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; MOST_OF_KERNEL]);
    let mut parts = [IoSliceMut::new(head)];
    let message = loop {
        match recvmsg::<()>(
            stream.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        ) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just made these descriptors for this process; nobody else owns them.
            descriptors.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a message with {} descriptors", descriptors.len()),
        ));
    }
    for descriptor in &descriptors {
        fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok((message.bytes, descriptors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_message_arrives_with_its_descriptors() {
        let (a, b) = UnixStream::pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send(&a, &"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let (text, mut descriptors): (String, _) = receive(&b).unwrap().unwrap();
        assert_eq!(text, "hello");
        std::fs::File::from(descriptors.pop().unwrap())
            .write_all(b"through")
            .unwrap();
        drop(descriptors);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "through");
    }

    #[test]
    fn more_descriptors_than_a_message_may_carry_are_an_error_and_none_stays_open() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let many: Vec<_> = (0..200).map(|_| writer.as_fd()).collect();
        send(&a, &"hello", &many).unwrap();
        drop(writer);
        assert!(receive::<String>(&b).is_err());
        // Were one of them open, there would be no end.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn the_end_of_the_stream_is_no_message() {
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(receive::<String>(&b).unwrap().is_none());
    }

    #[test]
    fn half_a_message_garbage_and_a_huge_length_are_errors() {
        for bytes in [
            &[9, 0, 0, 0, b'"'][..],
            &[2, 0, 0, 0, b'{', b'{'],
            &[0xff; 8],
            &[1],
        ] {
            let (mut a, b) = UnixStream::pair().unwrap();
            a.write_all(bytes).unwrap();
            drop(a);
            assert!(receive::<String>(&b).is_err(), "{bytes:?}");
        }
    }

    /// What a reader makes of these bytes, to the end of the stream; and it does come to an end.
    fn understood(bytes: &[u8]) -> usize {
        requests(bytes).unwrap().len()
    }

    proptest::proptest! {
        #[test]
        fn whatever_bytes_come_they_are_a_message_an_error_or_the_end(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..512),
        ) {
            understood(&bytes);
        }

        #[test]
        fn a_message_with_any_byte_changed_is_a_message_an_error_or_the_end(
            at in proptest::prelude::any::<proptest::sample::Index>(), byte in proptest::prelude::any::<u8>(),
        ) {
            let text = r#"{"number":7,"message":{"signal":{"job":"0a1b2c3d4e5","politely":true}}}"#;
            let length = u32::try_from(text.len()).unwrap().to_le_bytes();
            let mut bytes = [&length[..], text.as_bytes()].concat();
            assert_eq!(understood(&bytes), 1);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            proptest::prop_assert!(understood(&bytes) <= 1);
        }
    }
}
