//! Tokio as quinn's runtime, with less work for each packet.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use quinn::{
    AsyncTimer, AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Sleep, sleep_until};

use super::relay::Relay;
use crate::rarely::Door;

/// What an application makes of a socket.
#[derive(Clone)]
pub(crate) struct Wrap(Arc<WrapFn>);

type WrapFn = dyn Fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> + Send + Sync;

impl Wrap {
    pub(crate) fn new(
        wrap: impl Fn(Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(wrap))
    }
}

impl fmt::Debug for Wrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wrap").finish_non_exhaustive()
    }
}

/// Like [`quinn::TokioRuntime`], with a [`Timer`] and a [`Socket`] of our own.
#[derive(Debug, Default)]
pub(crate) struct Runtime {
    /// Of its socket.
    pub(super) failure: Failure,
    /// What other processes have to do with its socket.
    pub(super) relay: Option<Arc<Relay>>,
    /// What its socket is wrapped in.
    pub(super) wrap: Option<Wrap>,
}

/// Why a socket could not be read. quinn itself only logs it.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn note(&self, error: &io::Error) {
        let copy = match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code),
            None => io::Error::new(error.kind(), error.to_string()),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy);
    }

    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, due: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(Timer { sleep: Box::pin(sleep_until(due.into())), door: Door::new() })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let bound = one(socket.local_addr()?.ip());
        let mut inner = quinn::TokioRuntime.wrap_udp_socket(socket)?;
        if let Some(Wrap(wrap)) = &self.wrap {
            inner = wrap(inner);
        }
        Ok(Arc::new(Socket {
            inner,
            bound,
            blocked: AtomicU64::new(0),
            failure: self.failure.clone(),
            relay: self.relay.clone(),
        }))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}

/// The one address that a socket is bound to, if it is bound to one.
fn one(bound: IpAddr) -> Option<IpAddr> {
    Some(bound.to_canonical()).filter(|bound| !bound.is_unspecified())
}

/// A connection's driver asks for its timer each time that it wakes up, which is several times for
/// each packet. It gets an answer when the timer has something to say.
#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    door: Door,
}

impl AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, due: Instant) {
        // It wakes whoever it was to wake before.
        self.sleep.as_mut().reset(due.into());
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { sleep, door } = &mut *self;
        door.poll(cx, |cx| Future::poll(sleep.as_mut(), cx))
    }
}

/// A UDP socket that is taken to be writable until it says otherwise: to ask before each packet
/// takes a lock and a place in a list.
#[derive(Debug)]
struct Socket {
    inner: Arc<dyn AsyncUdpSocket>,
    /// To which one address, which the system then puts on each packet by itself: to name it again takes some 5 % of a
    /// send. Packets for others can arrive all the same (`IP_TRANSPARENT`), and answers must come from those.
    bound: Option<IpAddr>,
    /// How many times it was full.
    blocked: AtomicU64,
    failure: Failure,
    relay: Option<Arc<Relay>>,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { inner: self.inner.clone().create_io_poller(), seen: 0, socket: self })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let source = transmit.src_ip.map(|source| source.to_canonical());
        let sent = match source.is_some() && source == self.bound {
            true => self.inner.try_send(&Transmit { src_ip: None, ..*transmit }),
            false => self.inner.try_send(transmit),
        };
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.blocked.fetch_add(1, Ordering::Release);
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = match crate::fault::fallible("udp") {
            Ok(()) => match &self.relay {
                Some(relay) => relay.poll_recv(&*self.inner, cx, bufs, meta),
                None => self.inner.poll_recv(cx, bufs, meta),
            },
            Err(error) => Poll::Ready(Err(error)),
        };
        if let Poll::Ready(Err(error)) = &received {
            self.failure.note(error);
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

/// Waits for a socket that was full.
struct Poller {
    inner: Pin<Box<dyn UdpPoller>>,
    socket: Arc<Socket>,
    /// How many of the times at which it was full have been waited for.
    seen: u64,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let blocked = self.socket.blocked.load(Ordering::Acquire);
        if self.seen != blocked {
            ready!(self.inner.as_mut().poll_writable(cx))?;
            self.seen = blocked;
        }
        Poll::Ready(Ok(()))
    }
}
