//! The system's own notice that an address or a table has changed.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
/// Sockets that tell of changes, to be waited for; without any, the clock is all there is.
pub(super) fn sockets(opened: Vec<OwnedFd>) -> Vec<AsyncFd<OwnedFd>> {
    opened.into_iter().filter_map(watched).collect()
}

fn watched(socket: OwnedFd) -> Option<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` has one descriptor all its life, and the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }.ok()
}

/// Waits until one of the sockets has something to say, and takes all of it.
pub(super) async fn changed(sockets: &mut [AsyncFd<OwnedFd>]) {
    let waiting = sockets.iter_mut().map(|socket| Box::pin(drained(socket)));
    let mut waiting: Vec<_> = waiting.collect();
    std::future::poll_fn(|context| {
        let ready = waiting
            .iter_mut()
            .any(|one| one.as_mut().poll(context).is_ready());
        if ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

/// Waits until there is something to read, and reads everything.
async fn drained(socket: &mut AsyncFd<OwnedFd>) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            return std::future::pending().await;
        };
        let mut buffer = [0; 8192];
        let mut got = false;
        // Too much at once is an error that is read like a message, and means a change as well.
        loop {
            match nix::unistd::read(ready.get_inner(), &mut buffer) {
                Ok(0) | Err(nix::errno::Errno::EAGAIN) => break,
                Ok(_) | Err(_) => got = true,
            }
        }
        ready.clear_ready();
        if got {
            return;
        }
    }
}
