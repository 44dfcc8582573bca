//! A feed that is a subject of NATS without JetStream: what comes while the server is there.

use std::{future::poll_fn, sync::atomic::Ordering, task::Poll};

use tracing::{debug, info, warn};

use super::{
    Address,
    allowed::{self, Pauses},
    connection::{ANSWER, BUFFER, Link},
    keeper::AGAIN,
};
use crate::{
    feed::{Feed, Publisher, Trouble},
    source::{Feeding, Options},
};
use futures_util::StreamExt;
use tokio::{
    task::{consume_budget, unconstrained},
    time::{Instant, sleep},
};

/// `connection` is for this feed alone: that is how the messages that its client drops are counted.
pub(super) fn start(name: &str, address: &Address, connection: Link, options: &Options) -> (Feed, Feeding) {
    let (feed, publisher) = Feed::live(name, options.history, options.lag);
    let noted = feed.for_list();
    (feed, Box::pin(follow(address.subject.clone(), connection, publisher, noted)))
}

/// Publishes what comes, as long as it is polled.
async fn follow(subject: String, connection: Link, publisher: Publisher, feed: Feed) {
    let mut told = false;
    let mut tell = |missing: u64| {
        if missing == 0 {
            return;
        }
        publisher.leave_out(missing);
        match std::mem::replace(&mut told, true) {
            false => warn!(subject, missing, "messages arrived faster than they could be read, and some are lost"),
            true => debug!(subject, missing, "more messages are lost"),
        }
    };
    let killed = |clients: u64| {
        if clients > 0 {
            publisher.leave_out(clients);
            warn!(subject, "the message that the client panicked at is lost, as are those that arrived until now");
        }
    };
    // What is denied is noted where it is.
    let unreachable = |is_so: bool, is_denied: bool| {
        // Before its viewers are told of it.
        if !is_denied {
            feed.set_trouble(is_so.then(|| Trouble::Other(connection.unreachable())));
        }
        publisher.stall(is_so || is_denied);
    };
    // The server does not confirm a subscription, and one that it denies is not made by itself once it is allowed.
    let (mut is_denied, mut pauses, mut deaths) = (false, Pauses::default(), connection.deaths());
    loop {
        connection.connected().await;
        let (mut lost, mut stalled) = (Box::pin(connection.lost()), false);
        let now = connection.now();
        // One message at least, which the client had not counted, is what it panicked at.
        let died = connection.deaths();
        killed(died.saturating_sub(std::mem::replace(&mut deaths, died)));
        // Those of a client are of one subscription, until it is gone, or denied.
        let (statistics, mut tally, since) = (now.client.statistics(), Tally::default(), Instant::now());
        let before = statistics.in_messages.load(Ordering::Relaxed);
        let received = || statistics.in_messages.load(Ordering::Relaxed) - before;
        match now.client.subscribe(subject.clone()).await {
            Ok(mut messages) => {
                unreachable(false, is_denied);
                let denied = allowed::subscription_denied(&connection, &subject, since);
                let stands = sleep(ANSWER);
                tokio::pin!(denied, stands);
                loop {
                    tokio::select! {
                        biased;
                        // That there is none must mean just that.
                        message = unconstrained(messages.next()) => {
                            let Some(message) = message else { break };
                            if std::mem::take(&mut is_denied) {
                                resume(&subject, &feed, &publisher);
                            }
                            tell(tally.take(received()));
                            if publisher.publish(super::alone(&message.payload)).await.is_err() {
                                return;
                            }
                            consume_budget().await;
                        }
                        missing = poll_fn(|_| match tally.idle(received(), Instant::now()) {
                            0 => Poll::Pending,
                            missing => Poll::Ready(missing),
                        }) => tell(missing),
                        why = &mut denied => {
                            feed.set_trouble(Some(Trouble::Other(why.to_string())));
                            publisher.stall(true);
                            is_denied = true;
                            break;
                        }
                        () = &mut stands, if is_denied && !stalled => {
                            is_denied = false;
                            resume(&subject, &feed, &publisher);
                        }
                        // What comes meanwhile is lost, and viewers are told that nothing comes. The client
                        // subscribes again by itself.
                        () = &mut lost, if !stalled => {
                            stalled = true;
                            unreachable(true, is_denied);
                        }
                        () = connection.connected(), if stalled => {
                            stalled = false;
                            stands.as_mut().reset(Instant::now() + ANSWER);
                            unreachable(false, is_denied);
                            lost = Box::pin(connection.lost());
                        }
                        () = sleep(AGAIN), if tally.is_short(received()) => {}
                    }
                }
                // The client is gone, and another one is coming; or its subscription was denied.
                unreachable(true, is_denied);
                tell(tally.rest(received()));
            }
            Err(error) => warn!(subject, "cannot subscribe to NATS: {error}"),
        }
        if !is_denied {
            pauses = Pauses::default();
        }
        sleep(if is_denied { pauses.next() } else { AGAIN }).await;
    }
}

/// A subscription that was denied before stands.
fn resume(subject: &str, feed: &Feed, publisher: &Publisher) {
    feed.set_trouble(None);
    publisher.stall(false);
    info!(subject, "the NATS user may subscribe to this subject now: its feed has resumed");
}

/// What became of the messages that a client has received. It drops one when as many wait as it keeps, and reports only
/// that it did.
#[derive(Debug, Default)]
struct Tally {
    /// Messages that were taken.
    taken: u64,
    /// Messages that were told as missing.
    told: u64,
    /// Messages that are missing, and have not been told yet.
    missing: u64,
    /// How many were taken, or waited, before the first of those.
    before: u64,
    /// Since when some were neither taken nor told, each time that there was none to be taken, and how many at least.
    short: Option<(Instant, u64)>,
}

impl Tally {
    /// One is taken, when so many were received. Gives how many are missing before it that have not been told.
    fn take(&mut self, received: u64) -> u64 {
        self.taken += 1;
        // Since the last look, one more may have been counted than there is a place for.
        let kept = self.taken + self.told + self.missing + BUFFER as u64 + 1;
        if let Some(dropped @ 1..) = received.checked_sub(kept) {
            if self.missing == 0 {
                self.before = self.taken - 1 + BUFFER as u64;
            }
            self.missing += dropped;
        }
        if self.missing == 0 || self.taken <= self.before {
            return 0;
        }
        self.told += self.missing;
        std::mem::take(&mut self.missing)
    }

    /// Whether some were neither taken nor told as missing.
    fn is_short(&self, received: u64) -> bool {
        received > self.taken + self.told
    }

    /// None comes any more. Gives how many are missing that have not been told.
    fn rest(&self, received: u64) -> u64 {
        received.saturating_sub(self.taken + self.told)
    }

    /// There is none to be taken. Gives how many are missing that have not been told: after a while, since the client
    /// counts a message just before it can be taken.
    fn idle(&mut self, received: u64, now: Instant) -> u64 {
        if !self.is_short(received) {
            self.short = None;
            return 0;
        }
        let short = received - self.taken - self.told;
        let (since, least) = self.short.get_or_insert((now, short));
        *least = short.min(*least);
        if now < *since + AGAIN {
            return 0;
        }
        let missing = *least;
        (self.told, self.missing, self.short) = (self.told + missing, 0, None);
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = BUFFER as u64;

    #[test]
    fn what_is_missing_is_told_where_it_is_missed() {
        let mut tally = Tally::default();
        // 1,000 more than the buffer holds arrive before the first one is taken.
        let received = FULL + 1000;
        let told: Vec<_> = (0..FULL).map(|_| tally.take(received)).collect();
        assert_eq!(told.iter().sum::<u64>(), 0, "all of these arrived before");
        assert!(tally.is_short(received));
        let after = tally.take(received + 1);
        assert!((997..=1000).contains(&after), "{after}");
        assert_eq!(tally.take(received + 2), 0);
        let now = Instant::now();
        // One more was counted, and is not there yet.
        assert_eq!(tally.idle(received + 3, now), 0);
        assert_eq!(tally.take(received + 3), 0);
        assert_eq!(tally.idle(received + 3, now + AGAIN / 2), 0);
        assert_eq!(after + tally.idle(received + 4, now + AGAIN), 1000);
        assert!(tally.is_short(received + 4) && !tally.is_short(received + 3));
        assert_eq!(tally.take(received + 4), 0);
        assert_eq!(tally.idle(received + 4, now + AGAIN * 2), 0);
    }

    #[test]
    fn nothing_is_missing_as_long_as_there_is_room() {
        let mut tally = Tally::default();
        for taken in 0..3 * FULL {
            assert_eq!(tally.take((taken + 1 + FULL).min(3 * FULL)), 0);
        }
        assert!(!tally.is_short(3 * FULL));
    }
}
