//! Connections over TCP without a request: new ones, those between two requests, and those that have ended here while
//! their clients do not have everything. They give up their places when no other is left, as in nginx.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{sync::Notify, time::timeout};

use super::{
    Admission, Key, PAUSE, Refusal,
    places::{Places, Taken},
};

/// In which order they came, on all listeners.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// The places of a listener over TCP.
#[derive(Debug)]
pub(crate) struct ListenerPlaces {
    places: Arc<Places>,
    idlers: Arc<Idlers>,
}

impl ListenerPlaces {
    pub(super) fn new(places: usize) -> Self {
        Self { places: Places::new(places), idlers: Arc::default() }
    }

    pub(super) fn places(&self) -> &Arc<Places> {
        &self.places
    }

    pub(super) fn idlers(&self) -> &Arc<Idlers> {
        &self.idlers
    }

    /// Waits for a place of the listener's. When all are taken, the connection that has been without a request for
    /// longest is closed to make room. When every connection has one, `full` decides: `true` gives up and returns
    /// `None`, `false` keeps waiting. Cancel-safe.
    pub(super) async fn next(&self, admission: &Admission, mut full: impl FnMut() -> bool) -> Option<Taken> {
        loop {
            if let Some(place) = self.places.try_take() {
                return Some(place);
            }
            match self.idlers.oust() {
                Some(key) => admission.refused(Refusal::TcpConnections, key),
                None if full() => return None,
                None => {}
            }
            if let Ok(place) = timeout(PAUSE, self.places.take()).await {
                return place;
            }
        }
    }
}

/// The connections of a listener that have no request.
#[derive(Debug, Default)]
pub(super) struct Idlers(Mutex<Lines>);

#[derive(Debug, Default)]
struct Lines {
    /// Those that have not had one, the oldest first.
    new: BTreeMap<u64, Arc<Seat>>,
    /// Those that have, in the order in which it ended.
    idle: BTreeMap<u64, Arc<Seat>>,
    /// Those that have ended, in the order in which they did. They come last: a slow client may still be reading.
    ended: BTreeMap<u64, Arc<Seat>>,
}

/// What those know of a connection who want its place.
#[derive(Debug)]
struct Seat {
    key: Mutex<Key>,
    /// Told when it has to make room.
    ousted: Notify,
    /// That was so, and it has had no request since.
    is_ousted: AtomicBool,
}

impl Idlers {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        lock(&self.0)
    }

    /// Since when the oldest has been here that has not had a request.
    pub(super) fn oldest_new(&self) -> Option<u64> {
        self.lines().new.first_key_value().map(|(number, _)| *number)
    }

    /// Has the oldest of those make room.
    pub(super) fn oust_new(&self) -> Option<Key> {
        let mut lines = self.lines();
        let oldest = lines.new.pop_first();
        oldest.map(|(_, seat)| seat.oust())
    }

    /// Has one make room: the oldest new one, or the one whose last request is the longest time ago, or one that has
    /// ended.
    fn oust(&self) -> Option<Key> {
        let mut lines = self.lines();
        let oldest = lines.new.pop_first().or_else(|| lines.idle.pop_first()).or_else(|| lines.ended.pop_first());
        oldest.map(|(_, seat)| seat.oust())
    }
}

impl Seat {
    /// While the lines are locked, so that a request comes before or after it.
    fn oust(&self) -> Key {
        self.is_ousted.store(true, Ordering::Relaxed);
        self.ousted.notify_one();
        *lock(&self.key)
    }
}

/// A connection, as one that may have no request.
#[derive(Debug)]
pub(crate) struct Idler {
    idlers: Arc<Idlers>,
    seat: Arc<Seat>,
    now: Mutex<Now>,
}

/// What it has now; what is in line has a number there.
#[derive(Debug, Clone, Copy)]
enum Now {
    New(u64),
    Request,
    Idle(u64),
    Ended(u64),
    /// It is not there any more.
    Gone,
}

impl Idler {
    /// A new connection, which counts for an address.
    pub(super) fn new(idlers: &Arc<Idlers>, key: Key) -> Self {
        let seat = Arc::new(Seat { key: Mutex::new(key), ousted: Notify::new(), is_ousted: AtomicBool::new(false) });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        idlers.lines().new.insert(number, seat.clone());
        Self { idlers: idlers.clone(), seat, now: Mutex::new(Now::New(number)) }
    }

    /// It counts for another address.
    #[cfg(feature = "tcp")]
    pub(super) fn count_for(&self, key: Key) {
        *lock(&self.seat.key) = key;
    }

    /// It has a request.
    pub(crate) fn busy(&self) {
        self.become_(|_, seat| {
            seat.is_ousted.store(false, Ordering::Relaxed);
            Now::Request
        });
    }

    /// It has none any more.
    pub(crate) fn idle(&self) {
        self.become_(|lines, seat| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            lines.idle.insert(number, seat.clone());
            Now::Idle(number)
        });
    }

    /// It has ended on this side; whatever it had is not there any more.
    #[cfg(feature = "tcp")]
    pub(crate) fn ended(&self) {
        self.become_(|lines, seat| {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            if !seat.is_ousted.load(Ordering::Relaxed) {
                lines.ended.insert(number, seat.clone());
            }
            Now::Ended(number)
        });
    }

    /// It can no longer be asked to make room.
    pub(super) fn gone(&self) {
        self.become_(|_, _| Now::Gone);
        if let Now::Ended(number) = *lock(&self.now) {
            self.idlers.lines().ended.remove(&number);
        }
    }

    fn become_(&self, next: impl FnOnce(&mut Lines, &Arc<Seat>) -> Now) {
        let (mut now, mut lines) = (lock(&self.now), self.idlers.lines());
        match *now {
            Now::New(number) => drop(lines.new.remove(&number)),
            Now::Idle(number) => drop(lines.idle.remove(&number)),
            Now::Request => {}
            Now::Ended(_) | Now::Gone => return,
        }
        *now = next(&mut lines, &self.seat);
    }

    /// Waits until it has to make room. Cancel-safe.
    pub(crate) async fn ousted(&self) {
        self.seat.ousted.notified().await;
    }

    /// Whether it has to make room.
    #[cfg(feature = "tcp")]
    pub(crate) fn is_ousted(&self) -> bool {
        self.seat.is_ousted.load(Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    /// New connections of so many addresses, from 192.0.2.0 on.
    fn crowd(count: u8) -> (Arc<Idlers>, Vec<Idler>) {
        let idlers = Arc::new(Idlers::default());
        let key = |last| Key::from(std::net::IpAddr::from([192, 0, 2, last]));
        let all = (0..count).map(|last| Idler::new(&idlers, key(last))).collect();
        (idlers, all)
    }

    fn address(last: u8) -> Option<String> {
        Some(format!("192.0.2.{last}"))
    }

    #[test]
    fn new_ones_make_room_before_idle_ones_and_busy_ones_never() {
        let (idlers, all) = crowd(5);
        let ousted = || idlers.oust().map(|key| key.to_string());
        all[0].busy();
        all[1].busy();
        all[1].idle();
        all[0].idle();
        all[3].gone();
        assert_eq!(ousted(), address(2));
        assert!(all[2].ousted().now_or_never().is_some() && all[4].ousted().now_or_never().is_none());
        // One was asked to make room, and had a request in the same moment.
        all[2].busy();
        assert_eq!([ousted(), ousted()], [address(4), address(1)]);
        all[0].busy();
        assert_eq!(ousted(), None);
        all[3].idle();
        assert_eq!(ousted(), None);
        all[2].idle();
        assert_eq!(ousted(), address(2));
    }

    #[cfg(feature = "tcp")]
    #[test]
    fn those_that_have_ended_make_room_last() {
        let (idlers, all) = crowd(4);
        let ousted = || idlers.oust().map(|key| key.to_string());
        all[0].busy();
        all[0].ended();
        // A request that is dropped late does not make it idle again.
        all[0].idle();
        all[1].ended();
        all[1].gone();
        all[2].busy();
        all[2].idle();
        assert_eq!([ousted(), ousted()], [address(3), address(2)]);
        assert!(all[2].is_ousted() && !all[0].is_ousted());
        // A request came in the moment in which it was asked.
        all[2].busy();
        assert!(!all[2].is_ousted());
        assert_eq!([ousted(), ousted()], [address(0), None]);
        assert!(all[0].is_ousted());
        // Asked before its end, it is not asked again.
        all[3].ended();
        assert!(all[3].is_ousted());
        assert_eq!(ousted(), None);
    }
}
