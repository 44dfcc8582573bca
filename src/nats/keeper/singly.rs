//! Reads messages one at a time: after something has gone wrong, and where there are some that the client cannot read.
//! A message that has cost the connection does so once.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::{
    JetStream, epoch,
    fill::{Fill, Told},
    seq,
};
use crate::{
    chunk::{Chunk, Epoch},
    feed::Keeper,
    nats::{
        alone,
        counts::Place,
        error::KeepError,
        stored::{Stored, stored, tell},
    },
};

/// How many messages are read in a row, or how many bytes.
const PIECE: usize = 64;
const PIECE_BYTES: usize = 1 << 20;
/// How many numbers after one that the client cannot read are read singly, too.
const SINCE: u64 = 512;
/// For how long a ring is filled like this after a message that the client cannot read: others of its kind may follow,
/// each of which would cost all feeds of that system their connection.
const QUIET: Duration = Duration::from_secs(60);
/// How many messages in a row that it can read end that: a consumer is faster.
const SOUND: u32 = 1000;
/// If it happens again within that time, it takes four times as long, and as many; at most so often.
const AGAIN_WITHIN: Duration = Duration::from_secs(3600);
const LONGER: u32 = 5;
/// How long to wait where there is no message.
const POLL: Duration = Duration::from_millis(100);

/// How often in a row messages that the client cannot read have cost a feed the connection.
#[derive(Default)]
pub(super) struct Spells {
    /// Until when the feed is read like this.
    until: Option<Instant>,
    /// What comes before that comes again.
    again: Option<Instant>,
    count: u32,
}

impl Spells {
    /// There is such a message. Until when the feed is read like this from now on.
    fn note(&mut self, now: Instant) -> Instant {
        if self.until(now).is_none() {
            let is_again = self.again.is_some_and(|again| now < again);
            self.count = if is_again { (self.count + 1).min(LONGER) } else { 0 };
        }
        let until = now + QUIET * self.factor();
        (self.until, self.again) = (Some(until), Some(until + AGAIN_WITHIN));
        until
    }

    /// Until when the feed is read like this, if it is now. The connection may have been lost for something else.
    fn until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| now < *until)
    }

    /// Enough has come that the client can read.
    fn end(&mut self) {
        self.until = None;
    }

    /// How much longer than the first time that is.
    fn factor(&self) -> u32 {
        4_u32.pow(self.count)
    }
}

impl Stored {
    /// It as a chunk of its feed.
    pub(super) fn chunk(self) -> Chunk {
        Chunk::published_at(seq(self.sequence), self.time, alone(&self.payload))
    }
}

impl JetStream {
    /// The message of that number of the stream, as its leader has it.
    pub(super) async fn leaders_own(&self, sequence: u64) -> Result<Option<Stored>, KeepError> {
        stored(&self.connection.now().jetstream, &self.stream.name, json!({ "seq": sequence })).await
    }

    /// The first message of the feed from `next` on, as the stream's leader has it.
    pub(super) async fn leaders_next(&self, next: u64) -> Result<Option<Stored>, KeepError> {
        let asked = json!({ "seq": next + 1, "next_by_subj": self.subject });
        stored(&self.connection.now().jetstream, &self.stream.name, asked).await
    }

    /// Some messages from `next` on: nothing that the leader has is left out between them.
    async fn piece(&self, mut next: u64) -> Result<Vec<Stored>, KeepError> {
        let (mut messages, mut size, from) = (Vec::new(), 0, next + 1);
        while messages.len() < PIECE
            && size < PIECE_BYTES
            && let Some(message) = self.leaders_next(next).await?
        {
            size += message.payload.len();
            next = message.sequence;
            messages.push(message);
        }
        // Those that are known already were told of.
        if self.spoiled.note(&self.subject, from, &messages) {
            tell(&self.stream.name, &messages);
        }
        Ok(messages)
    }

    /// Whether one of the next messages that a reading of `most` may bring is known to cost the connection.
    pub(super) fn is_spoiled(&self, next: u64, most: usize) -> bool {
        if self.spoiled.are_many() {
            return true;
        }
        // In a stream of many subjects, how many there are before that is not known.
        let is_near = |sequence: u64| self.is_sparse() || seq(sequence).saturating_sub(next) < most as u64;
        // Where there was one, others may follow.
        self.spoiled.next(&self.subject, (next + 1).saturating_sub(SINCE)).is_some_and(is_near)
    }

    /// Some chunks from `next` on: nothing that the leader has is left out between them, and in a feed of its own
    /// stream no number.
    pub(super) async fn found_singly(&self, next: u64) -> Result<Vec<Chunk>, KeepError> {
        let mut chunks: Vec<Chunk> = self.piece(next).await?.into_iter().map(Stored::chunk).collect();
        if !self.is_sparse() {
            let is_next = |(before, after): (&Chunk, &Chunk)| after.seq == before.seq + 1;
            let whole = chunks.iter().zip(chunks.iter().skip(1)).take_while(|pair| is_next(*pair)).count();
            chunks.truncate(whole + 1);
        }
        Ok(chunks)
    }

    /// Fills rings with the next messages. If there are some among them that the client cannot read, it goes on until
    /// no more of them come for a while.
    pub(super) async fn fill_singly(
        &self,
        filler: &impl Fill,
        place: Option<&Place>,
        of: Epoch,
        told: &mut Told,
    ) -> Result<(), KeepError> {
        let (mut until, mut sound) = (told.spells.until(Instant::now()), 0);
        loop {
            let messages = match self.piece(filler.next()).await {
                Ok(messages) => messages,
                Err(error) => {
                    debug!(stream = self.stream.name, "cannot read messages one at a time: {error}");
                    return Ok(());
                }
            };
            // After them: they are of the same stream.
            if !messages.is_empty() && epoch(&self.info().await?) != of {
                return Err(KeepError::Recreated);
            }
            let is_all = messages.is_empty();
            for message in messages {
                sound += 1;
                if message.is_spoiled {
                    (until, sound) = (Some(told.spells.note(Instant::now())), 0);
                }
                self.reach(filler, place, seq(message.sequence)).await?;
                filler.add_stored(message);
            }
            if until.is_none_or(|until| Instant::now() >= until) || sound >= SOUND * told.spells.factor() {
                told.spells.end();
                return Ok(());
            }
            self.resume(filler, told);
            if is_all {
                sleep(POLL).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_avoided_for_longer() {
        let (mut spells, start) = (Spells::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let factors = [0, 30, 100, 400, 500].map(|seconds| {
            spells.note(at(seconds));
            spells.factor()
        });
        // The second and the last one come while it is avoided.
        assert_eq!(factors, [1, 1, 4, 16, 16]);
        assert_eq!(spells.until(at(1459)), Some(at(1460)));
        assert_eq!(spells.until(at(1460)), None);
        for number in 0..20 {
            spells.end();
            spells.note(at(1460 + number));
        }
        assert_eq!(spells.factor(), 1024);
        spells.note(at(1_000_000));
        assert_eq!(spells.factor(), 1);
    }
}
