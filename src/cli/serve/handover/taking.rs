//! Which server takes over, as one that comes meanwhile learns.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
};
use tokio::{io::Interest, net::UnixStream};

/// The server that takes over, or was the last to try.
#[derive(Debug, Default)]
pub(super) struct Taking(Mutex<Option<(i32, Weak<OwnedFd>)>>);

impl Taking {
    /// A server begins, for as long as what this gives is kept.
    pub(super) fn begins(&self, pid: i32, stream: &UnixStream) -> io::Result<Arc<OwnedFd>> {
        let own = Arc::new(stream.as_fd().try_clone_to_owned()?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((pid, Arc::downgrade(&own)));
        Ok(own)
    }

    /// Its process, and whether it still takes over: its end of the connection is open.
    pub(super) fn who(&self) -> Option<(i32, bool)> {
        let (pid, stream) = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some((pid, stream.upgrade().is_some_and(|stream| is_open(&stream))))
    }
}

/// Whether the other end is open. This does not wait.
fn is_open(stream: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::empty())];
    let asked = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    asked.is_ok() && !polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
}

/// Waits until the other end says something, which stays to be read, or is closed.
pub(super) async fn stirs(stream: &UnixStream) {
    // That it is ready to be read may be what it was before.
    let _ = stream.async_io(Interest::READABLE, || Ok(recv(stream, &mut [0; 1], RecvFlags::PEEK)?)).await;
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_no_news() {
        use tokio::io::AsyncReadExt;
        let (mut here, there) = UnixStream::pair().unwrap();
        there.try_write(b"chosen").unwrap();
        here.read_exact(&mut [0; 6]).await.unwrap();
        let mut waiting = Box::pin(stirs(&here));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(there);
        waiting.await;
    }

    #[tokio::test]
    async fn one_whose_end_is_closed_has_ended() {
        let taking = Taking::default();
        assert_eq!(taking.who(), None);
        let (here, there) = UnixStream::pair().unwrap();
        let kept = taking.begins(7, &here).unwrap();
        assert_eq!(taking.who(), Some((7, true)));
        // Also if it has said something that is not read yet.
        there.try_write(b"fails").unwrap();
        assert_eq!(taking.who(), Some((7, true)));
        drop(there);
        assert_eq!(taking.who(), Some((7, false)));
        let (here, _there) = UnixStream::pair().unwrap();
        drop(kept);
        let kept = taking.begins(8, &here).unwrap();
        assert_eq!(taking.who(), Some((8, true)));
        drop(kept);
        assert_eq!(taking.who(), Some((8, false)));
    }
}
