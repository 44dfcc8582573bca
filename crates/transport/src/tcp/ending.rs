//! An answer that has no length and is not chunked, as to HTTP/1.0: the end of its connection is its end, so
//! that a connection that is closed makes a cut answer look whole.
//!
//! So its connection is reset unless the answer ended well. The system does that by itself, whatever ends the
//! connection, a panic and SIGKILL included: with SO_LINGER and no time, a close is a reset. It drops what has
//! not arrived, so a failure waits for that.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep},
};
use tracing::debug;

use super::{lingering::Lingering, stalled::Progress};
use crate::{
    admission::Place,
    diag,
    outstanding::{LINGER, LONGEST, PATIENCE},
};

/// How often it is looked whether everything has arrived.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is looked whether a connection is still there that nobody reads.
const PROBE: Duration = Duration::from_secs(15);

/// No answer is ended by the end of the connection.
const FRAMED: u8 = 0;
/// One is, and has more to come.
const OPEN: u8 = 1;
/// One was, and everything of it was given.
const WHOLE: u8 = 2;

/// What the end of a connection means to its client.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    state: Arc<AtomicU8>,
    local: Option<SocketAddr>,
    remote: SocketAddr,
    progress: Arc<Progress>,
    /// What the connection counts as, until it has ended.
    place: Arc<Mutex<Option<Place>>>,
    lingering: Option<Lingering>,
}

impl Ending {
    pub(super) fn new(local: Option<SocketAddr>, remote: SocketAddr) -> Self {
        let progress = Arc::new(Progress::new(local, remote));
        Self { state: Arc::default(), local, remote, progress, place: Arc::default(), lingering: None }
    }

    /// Where it waits until its client has everything.
    pub(super) fn lingering(mut self, lingering: &Lingering) -> Self {
        self.lingering = Some(lingering.clone());
        self
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection has that place until its end, whoever has it then.
    pub(super) fn keep(&self, place: Place) {
        *self.place() = Some(place);
    }

    /// How far the client has come with what was written.
    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// It is the end of an answer that begins now.
    pub(super) fn begin(&self) {
        self.state.store(OPEN, Ordering::Release);
    }

    /// That answer is complete.
    pub(super) fn complete(&self) {
        self.state.store(WHOLE, Ordering::Release);
    }

    /// Whether it would make a cut answer look whole.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Ordering::Acquire) == OPEN
    }

    fn is_framed(&self) -> bool {
        self.state.load(Ordering::Acquire) == FRAMED
    }

    /// Waits until the client has what was written, and has had a moment to read it: many systems drop that
    /// when a reset arrives.
    pub(super) async fn arrived(&self) {
        let begun = Instant::now();
        let (mut left, mut progress) = (u32::MAX, begun);
        loop {
            match diag::unacknowledged(self.local, self.remote).await {
                Some(0) => break,
                Some(now) => {
                    if now < left {
                        (left, progress) = (now, Instant::now());
                    }
                    if progress.elapsed() >= PATIENCE || begun.elapsed() >= LONGEST {
                        return debug!(left, "a client did not receive in time what was written before a reset");
                    }
                    sleep(LOOK).await;
                }
                // Long enough for most.
                None => return sleep(PATIENCE).await,
            }
        }
        sleep(LINGER).await;
    }
}

/// A TCP connection that ends as its answers need it.
#[derive(Debug)]
pub(super) struct Socket {
    /// `None` when it has ended.
    stream: Option<TcpStream>,
    ending: Ending,
    /// Its close is a reset.
    resets: bool,
    /// When it is looked whether it is still there.
    probe: Interval,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, ending: Ending) -> Self {
        let mut probe = interval_at(Instant::now() + PROBE, PROBE);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { stream: Some(stream), ending, resets: false, probe }
    }

    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn prepare(&mut self) -> io::Result<()> {
        if !self.resets && !self.ending.is_framed() {
            SockRef::from(&*self.stream()?).set_linger(Some(Duration::ZERO))?;
            self.resets = true;
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let (place, progress) = (self.ending.place().take(), &self.ending.progress);
        let Some(stream) = self.stream.take() else { return };
        let waits = !self.resets && progress.may_wait();
        match (&self.ending.lingering, place) {
            _ if progress.is_given_up() => {}
            (Some(lingering), Some(place)) if waits => return lingering.end(stream, progress.clone(), place),
            // It would count for nobody.
            (Some(_), None) if waits => {}
            _ => return,
        }
        // What the client does not take would stay in the system, for as long as the client acknowledges that it takes
        // nothing.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.prepare()?;
        let written = Pin::new(self.stream()?).poll_write(cx, buf);
        self.ending.progress.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.prepare()?;
        let written = Pin::new(self.stream()?).poll_write_vectored(cx, bufs);
        self.ending.progress.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // While hyper holds the beginning of the next request it reads nothing, and a feed may be silent for ever: only
        // here does it show that the connection was reset, or that the system's probes have failed.
        while self.probe.poll_tick(cx).is_ready() {
            self.stream()?.peer_addr()?;
        }
        Pin::new(self.stream()?).poll_flush(cx)
    }

    /// Only after everything was written: what is on its way arrives then, though the socket is closed.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(self.stream()?).poll_shutdown(cx))?;
        if self.resets {
            SockRef::from(&*self.stream()?).set_linger(None)?;
            self.resets = false;
            self.ending.state.store(FRAMED, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    /// A viewer that had begun its next request, which is not read before the feed says something.
    #[tokio::test]
    async fn a_client_that_has_gone_shows_without_reading() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, remote) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"GET").await.unwrap();
        let mut socket = Socket::new(stream, Ending::new(None, remote));
        tokio::time::pause();
        // Waits on, as hyper does, until there is an error.
        let mut gone = async || {
            let flushed = poll_fn(|cx| match Pin::new(&mut socket).poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(error),
                _ => Poll::Pending,
            });
            timeout(3 * PROBE, flushed).await
        };
        assert!(gone().await.is_err(), "it is still there");
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        assert_eq!(gone().await.unwrap().kind(), io::ErrorKind::NotConnected);
    }
}
