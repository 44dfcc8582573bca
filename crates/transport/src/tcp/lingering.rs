//! Connections that have ended on this side while their clients do not have everything.
//!
//! The system would go on to offer them the rest for minutes, after the server has forgotten them: what it holds would
//! count for no address and no limit. So they keep their places until the client has acknowledged everything; one that
//! does not is reset, and nothing of it stays.

use std::{
    convert::Infallible,
    net::Shutdown,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::SockRef;
use tokio::{net::TcpStream, sync::Notify, time::Instant};
use tracing::debug;

use super::stalled::Progress;
use crate::{
    admission::{Admission, Place, Refusal},
    diag,
};

/// How often it is looked which have everything: at first, and for each at most twice as long after the time before.
const LOOK: Duration = Duration::from_millis(20);
/// The longest time between two looks at one.
const RARELY: Duration = Duration::from_millis(500);
/// How long a client may acknowledge nothing of what was written before its connection was closed by the application.
const CLOSED: Duration = Duration::from_secs(1);
/// The same of a response that is not complete, or of a handshake: the client has to ask again anyway.
const INCOMPLETE: Duration = Duration::from_secs(10);
/// The same of one that is complete, when there is no send timeout.
const COMPLETE: Duration = Duration::from_secs(60);
/// How long it may take in all, whatever the client acknowledges: what waits in the system (see `send_buffer`) needs
/// less at 2 kB/s.
const LONGEST: Duration = Duration::from_secs(120);
/// How long it may acknowledge nothing while others need its place: longer than most round trips, and shorter than who
/// needs it waits before the next one is asked for its own.
const OUSTED: Duration = Duration::from_millis(250);
/// The same while memory is short.
const SHORT: Duration = Duration::from_secs(2);

/// Those of a listener. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Lingering(Arc<Arrivals>);

#[derive(Debug, Default)]
struct Arrivals {
    new: Mutex<Vec<Lingerer>>,
    more: Notify,
}

#[derive(Debug)]
struct Lingerer {
    stream: TcpStream,
    progress: Arc<Progress>,
    /// Taken until then.
    place: Place,
    begun: Instant,
    /// How long it may acknowledge nothing.
    patience: Duration,
    /// The least that it had not acknowledged, and since when.
    left: u32,
    since: Instant,
    /// When it is looked at next, and how long before that it was.
    next: Instant,
    pause: Duration,
}

/// What becomes of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It has everything, or nobody knows.
    Complete,
    Reset,
    /// Since memory is short.
    Short,
}

impl Lingering {
    /// Ends a connection, which keeps its place until its client has everything.
    pub(super) fn end(&self, stream: TcpStream, progress: Arc<Progress>, place: Place) {
        // After what was written, as a close would do.
        let _ = SockRef::from(&stream).shutdown(Shutdown::Write);
        let now = Instant::now();
        let patience = match () {
            () if progress.is_closed() => CLOSED,
            () if progress.is_blocked() || !progress.is_served() => INCOMPLETE,
            () => COMPLETE,
        };
        if let Some(idler) = place.idler() {
            idler.ended();
        }
        let (begun, since, next) = (now, now, now);
        let lingerer = Lingerer { stream, progress, place, begun, patience, left: u32::MAX, since, next, pause: LOOK };
        self.0.new.lock().unwrap_or_else(PoisonError::into_inner).push(lingerer);
        self.0.more.notify_one();
    }

    fn arrived(&self) -> Vec<Lingerer> {
        std::mem::take(&mut *self.0.new.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends them, each when it is time. When this is dropped, all are closed; the system offers the rest on then.
    pub(super) async fn watch(&self, admission: &Admission) -> Infallible {
        let mut all = Vec::new();
        loop {
            match all.is_empty() {
                true => self.0.more.notified().await,
                false => tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    () = self.0.more.notified() => {}
                },
            }
            all.append(&mut self.arrived());
            let now = Instant::now();
            let (mut due, rest): (Vec<_>, _) = all.into_iter().partition(|one: &Lingerer| one.is_due(now));
            all = rest;
            let left = diag::all_unacknowledged(due.iter().map(|one| one.progress.addresses()).collect()).await;
            let (now, short) = (Instant::now(), admission.is_short());
            for (mut one, left) in due.drain(..).zip(left) {
                let fate = one.look(left, short, now);
                match fate {
                    Fate::Stays => {
                        all.push(one);
                        continue;
                    }
                    Fate::Complete => continue,
                    Fate::Short => admission.refused(Refusal::Memory, one.progress.remote()),
                    Fate::Reset => {}
                }
                debug!(remote = %one.progress.remote(), left, "a client did not take what was sent before the end of its connection: it is reset");
                let _ = SockRef::from(&one.stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

impl Lingerer {
    /// Others need its place.
    fn is_ousted(&self) -> bool {
        self.place.idler().is_some_and(|idler| idler.is_ousted())
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next <= now || self.is_ousted()
    }

    fn look(&mut self, left: Option<u32>, short: bool, now: Instant) -> Fate {
        let Some(left) = left.filter(|left| *left > 0) else { return Fate::Complete };
        if left < self.left {
            (self.left, self.since) = (left, now);
        }
        self.pause = (2 * self.pause).min(RARELY);
        self.next = now + self.pause;
        match () {
            // By the send timeout, which began before.
            () if self.progress.is_given_up() => Fate::Reset,
            // One that takes what it has gets the time for it.
            () if self.is_ousted()
                && (now.duration_since(self.since) >= OUSTED || now.duration_since(self.begun) >= SHORT) =>
            {
                Fate::Reset
            }
            () if now.duration_since(self.since) >= self.patience => Fate::Reset,
            () if now.duration_since(self.begun) >= LONGEST => Fate::Reset,
            () if short && now.duration_since(self.begun) >= SHORT => Fate::Short,
            () => Fate::Stays,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        admission::{AskRoom, Carrier, Counters},
        limits::Limits,
    };

    /// A client that acknowledges one byte at each look.
    #[tokio::test]
    async fn a_byte_now_and_then_is_not_enough_for_ever() {
        let admission =
            Admission::new(&Limits::default(), Counters::default(), Box::new(|_| false), AskRoom::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (lingering, remote) = (Lingering::default(), listener.local_addr().unwrap());
        let place = Arc::new(admission).tcp(remote.ip(), Carrier::Plain, false).unwrap();
        lingering.end(stream, Arc::new(Progress::new(None, remote)), place);
        let mut one = lingering.arrived().pop().unwrap();
        assert_eq!(one.patience, INCOMPLETE, "it was not served");
        let after = |seconds| one.begun + Duration::from_secs(seconds);
        let end = after(LONGEST.as_secs());
        let (mut now, mut left) = (after(5), 1000);
        while now < end {
            assert_eq!(one.look(Some(left), false, now), Fate::Stays);
            (now, left) = (now + INCOMPLETE / 2, left - 1);
        }
        assert_eq!(one.look(Some(left), false, now), Fate::Reset);
        assert_eq!(one.look(Some(0), false, now), Fate::Complete);
    }
}
