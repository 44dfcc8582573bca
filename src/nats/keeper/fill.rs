//! Fills the ring of a feed on JetStream.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use async_nats::jetstream::{Message, message::Info as About};
use tokio::{
    task::{consume_budget, unconstrained},
    time::{Instant, sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{AGAIN, JetStream, epoch, seq, singly::Spells};
use crate::{
    chunk::Epoch,
    feed::Keeper,
    nats::{counts::Place, error::KeepError, stored::Stored},
    panics,
};

/// The longest time between two attempts to fill a feed.
const LONGEST_AGAIN: Duration = Duration::from_secs(2);

/// How often the leader of a stream of many subjects is asked whether a feed has all of its own.
const LOOK: Duration = Duration::from_secs(2);

/// How many answers in a row are not that of a leader that has yet to come to its end: some 12 s of them.
const SHORT: u32 = 8;

/// What is filled: the ring of one feed, or those of many.
pub(super) trait Fill: Sync {
    fn epoch(&self) -> Epoch;
    /// The number from which on nothing has been added yet.
    fn next(&self) -> u64;
    fn renew(&self, epoch: Epoch, next: u64, now: u64);
    fn skip_to(&self, next: u64);
    /// Tells viewers that nothing new comes, and why, in words, or that it does again.
    fn stall(&self, why: Option<String>);
    /// Why nothing new comes, if that is so.
    fn cause(&self) -> Option<String>;
    fn add(&self, message: &Message, about: &About<'_>);
    fn add_stored(&self, message: Stored);
}

/// What was told of a feed that is not filled.
#[derive(Default)]
pub(super) struct Told {
    stalled: bool,
    /// That its stream is to be deleted.
    forgotten: bool,
    /// That its stream is to be created.
    missing: bool,
    short: Short,
    pub(super) spells: Spells,
}

impl Told {
    /// Whether people are told of it now: once, and again when there is something for them to do.
    fn is_news(&mut self, ended: &KeepError) -> bool {
        let forgotten = matches!(ended, KeepError::Forgotten { .. });
        let missing = matches!(ended, KeepError::Missing(_));
        let is_news = !self.stalled || (forgotten && !self.forgotten) || (missing && !self.missing);
        (self.stalled, self.forgotten, self.missing) = (true, self.forgotten || forgotten, self.missing || missing);
        is_news
    }

    /// Whether people were told that it had stalled.
    fn has_resumed(&mut self) -> bool {
        (self.forgotten, self.missing) = (false, false);
        std::mem::take(&mut self.stalled)
    }
}

/// All chunks of a feed before that number have come, though numbers of its stream are left out.
#[derive(Default)]
struct Whole(AtomicU64);

/// How many answers in a row had the stream end before what the ring has.
#[derive(Default)]
struct Short(u32);

impl Short {
    /// Refuses a stream that ends before what the ring has. Its servers have lost their memory, or their disks: the
    /// same numbers would be given twice, and nobody could tell. An epoch that every server of the feed agrees on is
    /// only had with a new stream. But a leader that was just elected may not have come to its own end yet.
    fn see(&mut self, stream: &str, last: u64, had: u64) -> Result<(), KeepError> {
        self.0 = if last < had { self.0.saturating_add(1) } else { 0 };
        match self.0 {
            0 => Ok(()),
            SHORT.. => Err(KeepError::Forgotten { stream: stream.into(), last, had }),
            _ => Err(KeepError::Behind),
        }
    }
}

impl JetStream {
    /// Fills the feed's ring, or those of its family, as long as it is polled.
    pub(super) async fn fill(&self, filler: &impl Fill) {
        let (mut told, mut pause, whole) = (Told::default(), AGAIN, Whole::default());
        // In a stream of many subjects, numbers are no measure of what a feed has yet to read.
        let place = (!self.is_sparse()).then(|| self.connection.counts.place(self.leader.head()));
        loop {
            let since = Instant::now();
            let reading = AtomicBool::default();
            let lost = async {
                self.connection.lost().await;
                if reading.load(Ordering::Relaxed) {
                    // What has come is added first. Then that ends by itself.
                    std::future::pending::<()>().await;
                }
            };
            let Err(ended) = tokio::select! {
                biased;
                () = lost => Err(KeepError::Disconnected),
                failed = self.leader.failed(|| self.epoch.load(Ordering::Relaxed)) => Err(failed),
                () = self.becomes_shared() => {
                    self.renew_if_shared(filler);
                    continue;
                }
                // A panic stalls the feed as whatever else goes wrong does, until it is filled again.
                filled = panics::caught_async(self.fill_once(filler, place.as_deref(), &mut told, &whole, &reading)) => {
                    filled.unwrap_or_else(|panic| Err(KeepError::Panicked(panic)))
                }
            };
            self.checked.store(false, Ordering::Relaxed);
            filler.stall(Some(match &ended {
                KeepError::Disconnected => self.connection.unreachable(),
                // Its words are for the log.
                KeepError::Panicked(_) => "reading it has failed".into(),
                _ => ended.to_string(),
            }));
            self.leader.fills(matches!(ended, KeepError::Behind | KeepError::Forgotten { .. }));
            match told.is_news(&ended) {
                true => warn!(stream = self.stream.name, subject = self.subject, "a feed has stalled: {ended}"),
                false => debug!(stream = self.stream.name, subject = self.subject, "a feed has stalled: {ended}"),
            }
            self.can_be_asked(filler).await;
            pause = if since.elapsed() > LONGEST_AGAIN { AGAIN } else { (pause * 2).min(LONGEST_AGAIN) };
            sleep(pause).await;
        }
    }

    /// Waits until there is a connection and a leader, and notes which of them is missing. Cancel-safe.
    async fn can_be_asked(&self, filler: &impl Fill) {
        loop {
            if !self.connection.is_connected() {
                filler.stall(Some(self.connection.unreachable()));
                self.connection.connected().await;
            }
            if !self.leader.is_silent() {
                // It is reached by now, and what it has of the stream is not known yet.
                if filler.cause() == Some(self.connection.unreachable()) {
                    filler.stall(Some(KeepError::Unchecked.to_string()));
                }
                return;
            }
            tokio::select! {
                () = self.leader.answers(|silence| filler.stall(Some(silence.to_string()))) => {}
                () = self.connection.lost() => {}
            }
        }
    }

    /// Waits until somebody sees that the stream of a feed has other subjects by now. Cancel-safe.
    async fn becomes_shared(&self) {
        // An error would mean that the sender is gone, which `self` holds.
        let _ = self.shared.subscribe().wait_for(|shared| *shared && !self.is_sparse()).await;
    }

    /// Starts the ring over once the stream has other subjects: its viewers come again, and are told that numbers are
    /// left out.
    fn renew_if_shared(&self, filler: &impl Fill) {
        if self.is_shared() && !self.sparse.swap(true, Ordering::Relaxed) {
            warn!(stream = self.stream.name, subject = self.subject, "the stream has other subjects by now");
            let next = filler.next();
            filler.renew(filler.epoch(), next, next);
        }
    }

    /// Fills it until something is wrong.
    async fn fill_once(
        &self,
        filler: &impl Fill,
        place: Option<&Place>,
        told: &mut Told,
        whole: &Whole,
        reading: &AtomicBool,
    ) -> Result<Infallible, KeepError> {
        let info = self.info().await?;
        let epoch = epoch(&info);
        if epoch != filler.epoch() {
            warn!(stream = self.stream.name, "the stream was recreated: its feed starts over");
            self.epoch.store(epoch.0, Ordering::Relaxed);
            self.sparse.store(self.is_shared(), Ordering::Relaxed);
            let (next, now) = self.begins(&info);
            filler.renew(epoch, next, now);
            whole.0.store(0, Ordering::Relaxed);
            self.spoiled.clear();
        }
        self.renew_if_shared(filler);
        told.short.see(&self.stream.name, info.state.last_sequence, filler.next())?;
        self.checked.store(true, Ordering::Relaxed);
        if let Some(place) = place {
            place.read_up_to(if self.is_sparse() { u64::MAX } else { filler.next() });
        }
        // What is gone there does not come; its viewers are told when they ask for it. Where only other subjects are
        // gone, there is nothing to tell.
        let first = seq(info.state.first_sequence);
        if !self.is_sparse() || first > whole.0.load(Ordering::Relaxed) {
            filler.skip_to(first);
        }
        if told.stalled {
            // The next message may be why.
            tokio::select! {
                never = self.look(filler, epoch, whole) => match never {},
                filled = self.fill_singly(filler, place, epoch, told) => filled?,
            }
        }
        let mut own = self.own();
        let consumer = self.create(&mut own, filler.next()).await?;
        let _consumer = self.connection.counts.consumer();
        // When it is made anew after this, its consumers go with it.
        if super::epoch(&self.info().await?) != epoch {
            return Err(KeepError::Recreated);
        }
        let mut messages = self.pull(&consumer).await?;
        self.resume(filler, told);
        let lost = self.connection.lost();
        reading.store(true, Ordering::Relaxed);
        let (mut before, mut pending) = (0, self.connection.counts.pending());
        let looking = self.look(filler, epoch, whole);
        tokio::pin!(looking, lost);
        loop {
            let message = tokio::select! {
                biased;
                // First: it says what is missing if the consumer is gone.
                never = &mut looking => match never {},
                // Also if the connection is lost, so that what it was lost for is what comes next.
                message = unconstrained(messages.next()) => message?,
                () = &mut lost => return Err(KeepError::Disconnected),
            };
            let Some(message) = message else {
                // So it is when the client is gone, which is noticed in a moment.
                timeout(AGAIN, lost).await.map_err(|_| KeepError::ConsumerGone)?;
                return Err(KeepError::Disconnected);
            };
            let about = message.info().map_err(KeepError::nats)?;
            if about.consumer_sequence != before + 1 {
                return Err(KeepError::Lost);
            }
            before = about.consumer_sequence;
            pending.set(about.pending);
            self.reach(filler, place, seq(about.stream_sequence)).await?;
            filler.add(&message, &about);
            consume_budget().await;
        }
    }

    /// The next message has that number.
    pub(super) async fn reach(&self, filler: &impl Fill, place: Option<&Place>, at: u64) -> Result<(), KeepError> {
        if !self.is_sparse() && at > filler.next() {
            self.info().await?;
            self.renew_if_shared(filler);
            if !self.is_sparse() {
                // What is between was dropped before it came here: viewers are told.
                filler.skip_to(at);
            }
        }
        if let Some(place) = place {
            place.read_up_to(if self.is_sparse() { u64::MAX } else { at + 1 });
        }
        Ok(())
    }

    /// It is filled again, or for the first time.
    pub(super) fn resume(&self, filler: &impl Fill, told: &mut Told) {
        filler.stall(None);
        self.leader.fills(true);
        if told.has_resumed() {
            info!(stream = self.stream.name, subject = self.subject, "a feed has resumed");
        }
    }

    /// Notes now and then, while a consumer is there, how far a feed of a stream of many subjects is whole. The stream
    /// may drop messages of others before this feed has another one; from the numbers alone, nobody could tell later
    /// that it has lost none.
    async fn look(&self, filler: &impl Fill, of: Epoch, whole: &Whole) -> Infallible {
        let head = self.leader.head();
        loop {
            sleep(LOOK).await;
            let known = filler.next().max(whole.0.load(Ordering::Relaxed));
            if self.is_sparse() && head.load(Ordering::Relaxed) > known {
                // Without an answer, there is the next time.
                if let Ok(Some(now)) = self.is_whole_up_to(known, of).await {
                    whole.0.fetch_max(now, Ordering::Relaxed);
                }
            }
        }
    }

    /// The number before which the feed has no message from `known` on, as the stream's leader has it. `None` if it
    /// does not matter yet: a good part of the stream is older.
    async fn is_whole_up_to(&self, known: u64, of: Epoch) -> Result<Option<u64>, KeepError> {
        let info = self.info().await?;
        let (first, end) = (seq(info.state.first_sequence), info.state.last_sequence);
        let older = known.saturating_sub(first);
        if epoch(&info) != of || older > end.saturating_sub(known) {
            return Ok(None);
        }
        // What is stored after that answer has greater numbers.
        let next = self.leaders_next(known).await?;
        Ok(Some(next.map_or(end, |message| seq(message.sequence)).min(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_forgotten_after_several_answers() {
        let mut short = Short::default();
        let mut told = Told::default();
        let mut news = |seen: Result<(), KeepError>| seen.is_err_and(|ended| told.is_news(&ended));
        for answer in 1..SHORT {
            assert!(matches!(short.see("s", 4, 5), Err(KeepError::Behind)), "{answer}");
        }
        // One that has come to its end by then has lost nothing.
        assert!(short.see("s", 5, 5).is_ok());
        let told: Vec<_> = (0..2 * SHORT).map(|_| news(short.see("s", 4, 5))).collect();
        assert!(matches!(short.see("s", 4, 5), Err(KeepError::Forgotten { last: 4, had: 5, .. })));
        let due: Vec<_> = (1..=2 * SHORT).map(|answer| answer == 1 || answer == SHORT).collect();
        assert_eq!(told, due);
    }
}
