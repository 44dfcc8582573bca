//! What the system reports of a process, and how much of it is in use.
//!
//! Allocators keep memory that was given back to them, and what is left of it is scattered. After a surge of clients
//! the process stays large, therefore, though nothing that the server could end would make it smaller, and what comes
//! next fits into what it has. Only what the process still has, though: an allocator may return memory to the system as
//! well, and what the process grows by after that is in use.

/// For how long clients count that have gone, in milliseconds: the system reports late, and a surge may be over when
/// the process is largest.
const RECENT: u64 = 10_000;
/// By how much a process may grow beyond its peak, in percent of the limit, until that is a new peak.
const STEP: u64 = 5;

/// Up to this much above the least counts as having no clients, in percent of the limit.
const ALONE: u64 = 1;

/// The peak of the process, and the clients of then.
#[derive(Debug, Default)]
pub(super) struct Heap {
    /// What was reported then, without the histories and with them.
    peak: u64,
    size: u64,
    /// What the clients of then were charged.
    clients: u64,
    /// The least that was reported since, without the histories and with them.
    lowest: [u64; 2],
    /// The least that clients were ever charged: what is not theirs.
    least: Option<u64>,
    /// Since when it has been too large without clients to speak of.
    alone: Option<u64>,
    /// By how much the process was larger without clients than where pressure ends.
    excess: u64,
    /// The most that clients were charged: since `since`, and in the time before that.
    most: [u64; 2],
    since: u64,
}

impl Heap {
    /// How much of what the system reports is in use: without what the clients have given back that were there at
    /// the peak and are not now, as far as the process still has it, and without what stays too much though there are
    /// no clients, since to refuse some would not make it less.
    pub(super) fn in_use(
        &mut self,
        now: u64,
        reported: u64,
        (histories, charged, viewers): (u64, u64, u64),
        limit: u64,
    ) -> u64 {
        let clients = charged + viewers;
        let least = *self.least.insert(self.least.map_or(clients, |least| least.min(clients)));
        if now >= self.since + RECENT {
            let before = if now >= self.since + 2 * RECENT { clients } else { self.most[0] };
            (self.most, self.since) = ([clients, before], now);
        }
        self.most[0] = self.most[0].max(clients);
        let too_much = reported.saturating_sub(super::part(limit, super::LOW));
        self.excess = self.excess.min(too_much);
        match too_much > 0 && viewers == 0 && clients <= least + super::part(limit, ALONE) {
            true if now >= *self.alone.get_or_insert(now) + super::PATIENCE => self.excess = too_much,
            true => {}
            false => self.alone = None,
        }
        let others = reported.saturating_sub(histories);
        self.lowest = [self.lowest[0].min(others), self.lowest[1].min(reported)];
        // More in any way: not only histories that have grown, nor histories that made room for others.
        let grown = (others - self.lowest[0]).min(reported - self.lowest[1]);
        // Part of what was not needed without them.
        let theirs = self.peak.saturating_sub(charged);
        let (then, gone) = (self.clients.saturating_sub(least), self.clients.saturating_sub(clients));
        let given_back = u128::from(theirs) * u128::from(gone) / u128::from(then.max(1));
        // Of that the system has some, and histories have taken some. What has grown found no room in the rest.
        let returned = self.peak.saturating_sub(others);
        let kept = u64::try_from(given_back).unwrap_or(u64::MAX).saturating_sub(returned).saturating_sub(grown);
        let step = super::part(limit, STEP);
        let regrown = kept == 0 && grown > step;
        if regrown {
            // By those who are there now: what was needed for others before is gone.
            self.most = [clients; 2];
        }
        let more = others.saturating_sub(self.peak).min(reported.saturating_sub(self.size));
        if regrown || more > step || self.peak == 0 {
            self.peaked(others, reported, self.most[0].max(self.most[1]));
            return reported.saturating_sub(self.excess);
        }
        if others > self.peak && clients >= self.clients {
            self.peaked(others, reported, clients);
        }
        reported.saturating_sub(self.excess.max(kept))
    }

    /// The process is larger than it was, or than what was left of it.
    fn peaked(&mut self, others: u64, reported: u64, clients: u64) {
        (self.peak, self.size, self.clients, self.lowest) = (others, reported, clients, [others, reported]);
    }
}
