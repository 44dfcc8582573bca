//! What a connection over QUIC sets aside for streams that its client may open.

use std::sync::{Mutex, PoisonError, atomic::Ordering};

use super::Counters;
use crate::limits::STREAMS;

/// What is set aside for one connection, and counts until this is dropped.
#[derive(Debug)]
pub(crate) struct Aside {
    counters: Counters,
    now: Mutex<Allowed>,
}

#[derive(Debug)]
struct Allowed {
    bi: u32,
    uni: u32,
    /// What of it counts.
    bytes: u64,
}

impl Aside {
    /// That of a connection that allows a few streams.
    pub(crate) fn new(counters: Counters, (bi, uni): (u32, u32)) -> Self {
        Self { counters, now: Mutex::new(Allowed { bi, uni, bytes: 0 }) }
    }

    /// It is about to allow so many bidirectional streams.
    pub(crate) fn bi(&self, streams: u32) {
        self.set(|allowed| allowed.bi = streams);
    }

    /// It is about to allow so many unidirectional streams.
    pub(crate) fn uni(&self, streams: u32) {
        self.set(|allowed| allowed.uni = streams);
    }

    fn set(&self, change: impl FnOnce(&mut Allowed)) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        let bytes = tables(now.bi, now.uni).saturating_sub(tables(STREAMS, STREAMS));
        self.counters.0.set_aside.fetch_add(bytes, Ordering::Relaxed);
        self.counters.0.set_aside.fetch_sub(std::mem::replace(&mut now.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        let now = self.now.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.counters.0.set_aside.fetch_sub(now.bytes, Ordering::Relaxed);
    }
}

/// The engine's tables of streams that its peer may open, in bytes: of halves to send on, and of those to receive on.
/// Each entry has its stream's number, and a byte for the table.
fn tables(bi: u32, uni: u32) -> u64 {
    const SEND: u64 = 8 + 8 + 1;
    const RECEIVE: u64 = 8 + 16 + 1;
    // At most seven of eight places are taken.
    let places = |entries: u64| (entries * 8 / 7).next_power_of_two();
    places(bi.into()) * SEND + places(u64::from(bi) + u64::from(uni)) * RECEIVE
}
