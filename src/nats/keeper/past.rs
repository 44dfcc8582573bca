//! Reads what is older than the ring.
//!
//! What a server returns is right, but not what it leaves out: any replica answers a Direct Get and may have a
//! consumer, also one that lags. So whatever seems to be missing is looked for at the stream's leader before a viewer
//! skips it.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{consumer::PullConsumer, message::StreamMessage, stream::Info};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::{
    task::unconstrained,
    time::{sleep, timeout},
};

use super::{JetStream, chunk, epoch, reader::REACH, seq};
use crate::{
    chunk::{Chunk, Epoch},
    feed::{Keeper, Past},
    nats::{alone, connection::ANSWER, error::KeepError, stored::Stored},
};

/// How many chunks, and how many bytes, are read of the past at once; one chunk may be larger. A viewer holds as much
/// until it has written it, and as much again that is read ahead.
pub(super) const READ_CHUNKS: usize = 512;
pub(super) const READ_BYTES: usize = 64 << 10;
/// How many requests to the leader are on their way at once where a replica lags.
const ASKED: usize = 8;
/// The first pause before the servers are asked again that don't agree.
const SOON: Duration = Duration::from_millis(20);

/// What follows others in a Direct Get, and is only there where servers know batches (2.11 and later).
const PENDING: &str = "Nats-Num-Pending";
/// The number of the message before, in the same batch.
const BEFORE: &str = "Nats-Last-Sequence";

impl JetStream {
    /// Reads some chunks from `next` on, as soon as it is certain what is there.
    pub(super) async fn read_past(self: &Arc<Self>, wanted: Epoch, next: u64) -> Result<Past, KeepError> {
        let mut run = self.runs.take(wanted, next);
        if self.is_spoiled(next, REACH) {
            run.stop();
        } else if let Some(chunks) = self.read_on(&mut run, wanted, next).await {
            let past = past(next, chunks, next);
            self.runs.put(wanted, &past, run);
            return Ok(past);
        }
        let mut pause = SOON;
        loop {
            if let Some(past) = self.try_past(wanted, next).await? {
                self.runs.put(wanted, &past, run);
                return Ok(past);
            }
            sleep(pause).await;
            pause = (pause * 2).min(super::AGAIN);
        }
    }

    /// `None` if that is not certain: a server has not seen yet what the ring has.
    async fn try_past(&self, wanted: Epoch, next: u64) -> Result<Option<Past>, KeepError> {
        // In a stream of many subjects the next number is mostly another feed's, so that it is asked for anyway.
        let ahead = async {
            if !self.is_sparse() {
                return None;
            }
            tokio::select! {
                ahead = self.leaders_next(next) => ahead.ok().flatten(),
                () = self.connection.lost() => None,
            }
        };
        let (chunks, ahead) = tokio::join!(self.found(next), ahead);
        let chunks = chunks?;
        if chunks.first().is_some_and(|chunk| chunk.seq == next) {
            // After them, so that they are of the same stream.
            let info = self.info_of(wanted).await?;
            return Ok(Some(past(seq(info.state.first_sequence).min(next), chunks, next)));
        }
        let message = match ahead {
            Some(message) => Some(message),
            None => self.leaders_next(next).await?,
        };
        if let Some(message) = message {
            let lacks = chunks.first().is_none_or(|chunk| chunk.seq > seq(message.sequence));
            let chunks = if lacks { self.leaders(message).await? } else { chunks };
            let info = self.info_of(wanted).await?;
            let at = chunks.first().map_or(next, |chunk| chunk.seq);
            // In a feed of its own stream all numbers up to there are gone; in another one some are of other feeds.
            let first = if self.is_sparse() { seq(info.state.first_sequence).min(at) } else { at };
            return Ok(Some(past(first, chunks, next)));
        }
        // That there is nothing more is true of what that server has, and an answer without a message does not show
        // how much that is.
        let before = self.info_of(wanted).await?;
        let more = self.leaders_next(next).await?.is_some();
        let after = self.info_of(wanted).await?;
        let end = before.state.last_sequence;
        if more || leader(&before) != leader(&after) || end <= next {
            return Ok(None);
        }
        let first = if self.is_sparse() { seq(after.state.first_sequence).min(end) } else { end };
        Ok(Some(past(first, Vec::new(), end)))
    }

    /// The stream's state, as its leader has it, if its epoch is that one.
    pub(super) async fn info_of(&self, wanted: Epoch) -> Result<Info, KeepError> {
        let info = self.info().await?;
        if epoch(&info) != wanted {
            return Err(KeepError::Recreated);
        }
        // A viewer who was not told that numbers are left out would take those of other feeds for a gap.
        if self.is_shared() && !self.is_sparse() {
            return Err(KeepError::Shared);
        }
        Ok(info)
    }

    /// That message of the leader's, and those that follow it if they are known by their numbers.
    async fn leaders(&self, first: Stored) -> Result<Vec<Chunk>, KeepError> {
        let (mut size, mut chunks) = (first.payload.len(), vec![first.chunk()]);
        if self.is_sparse() {
            return Ok(chunks);
        }
        let numbers = chunks[0].seq + 2..;
        let mut more = stream::iter(numbers.take(READ_CHUNKS)).map(|number| self.leaders_own(number)).buffered(ASKED);
        while size < READ_BYTES
            && let Some(Ok(Some(message))) = more.next().await
            && message.subject == self.subject
        {
            size += message.payload.len();
            chunks.push(message.chunk());
        }
        Ok(chunks)
    }

    /// Some chunks from `next` on: nothing that the server has is left out between them, and in a feed of its own
    /// stream no number.
    async fn found(&self, next: u64) -> Result<Vec<Chunk>, KeepError> {
        if !self.is_spoiled(next, READ_CHUNKS) {
            let losses = self.connection.losses();
            let found = tokio::select! {
                biased;
                found = self.found_together(next) => found,
                () = self.connection.lost() => Err(KeepError::Disconnected),
            };
            if losses == self.connection.losses() {
                return found;
            }
            if found.is_ok() {
                // Those who were brought before it was lost, which are to be confirmed by another client.
                self.connection.connected().await;
                return found;
            }
            // Perhaps for what was to be read.
            self.spoiled.suspect(&self.subject, next + 1);
            self.connection.connected().await;
        }
        self.found_singly(next).await
    }

    /// The same, many at once, all of which the client must be able to read.
    async fn found_together(&self, next: u64) -> Result<Vec<Chunk>, KeepError> {
        if self.is_direct()
            && let Some(chunks) = self.batch(next).await?
        {
            return Ok(chunks);
        }
        let mut chunks = self.consumed(next).await?;
        // A replica that lags has a consumer begin after what it has itself, which may be before that.
        chunks.retain(|chunk| chunk.seq >= next);
        Ok(chunks)
    }

    /// By a Direct Get of many; `None` if none of the servers answers such requests.
    async fn batch(&self, next: u64) -> Result<Option<Vec<Chunk>>, KeepError> {
        let now = self.connection.now();
        let client = &now.client;
        let inbox = client.new_inbox();
        let answers = client.subscribe(inbox.clone()).await.map_err(KeepError::nats)?;
        // They end when the client is gone. That is noticed as a loss, in a moment.
        let mut answers = answers.chain(stream::pending());
        let asked = json!({
            "seq": next + 1, "batch": READ_CHUNKS, "max_bytes": READ_BYTES, "next_by_subj": self.subject,
        });
        let subject = format!("$JS.API.DIRECT.GET.{}", self.stream.name);
        client.publish_with_reply(subject, inbox, asked.to_string().into()).await.map_err(KeepError::nats)?;
        let mut chunks: Vec<Chunk> = Vec::new();
        let lost = self.connection.lost();
        tokio::pin!(lost);
        loop {
            let answer = tokio::select! {
                biased;
                answer = timeout(ANSWER, answers.next()) => answer,
                () = &mut lost => {
                    let Some(last) = chunks.last() else { return Err(KeepError::Disconnected) };
                    self.spoiled.suspect(&self.subject, last.seq + 2);
                    return Ok(Some(chunks));
                }
            };
            let Ok(answer) = answer else { break };
            let Some(message) = answer else { return Err(KeepError::Disconnected) };
            match message.status.map(|status| status.as_u16()) {
                None => {}
                // The end of the batch, or nothing found.
                Some(204 | 404) => return Ok(Some(chunks)),
                // None of them does now, as where the setting has been changed.
                Some(_) => return Ok(None),
            }
            let headers = message.headers.as_ref();
            let number = |name: &str| headers.and_then(|headers| headers.get(name)?.as_str().parse::<u64>().ok());
            let batched = number(PENDING).is_some();
            // What was lost on the way is asked for again.
            if batched && number(BEFORE) != Some(chunks.last().map_or(0, |last| last.seq + 1)) {
                return Ok(Some(chunks));
            }
            let chunk = stored(StreamMessage::try_from(message).map_err(KeepError::nats)?);
            let apart = chunks.last().is_some_and(|last| chunk.seq != last.seq + 1);
            if apart && !self.is_sparse() {
                return Ok(Some(chunks));
            }
            chunks.push(chunk);
            if !batched {
                return Ok(Some(chunks));
            }
        }
        if chunks.is_empty() { Err(KeepError::Silent) } else { Ok(Some(chunks)) }
    }

    /// By a consumer. What it has brought before the connection is lost is as good, and what comes next may be what it
    /// was lost for.
    async fn consumed(&self, next: u64) -> Result<Vec<Chunk>, KeepError> {
        let (losses, mut chunks, mut is_all) = (self.connection.losses(), Vec::new(), false);
        let bringing = async {
            let mut own = self.own();
            let consumer = self.create(&mut own, next).await?;
            let brought = self.brought(&consumer, &mut chunks).await;
            is_all = matches!(brought, Ok(true));
            // There are never many more than are used.
            if !timeout(ANSWER, own.delete()).await.unwrap_or(false) && !is_all {
                // If the client is gone, that is noticed in a moment.
                sleep(super::AGAIN).await;
            }
            brought
        };
        let brought = tokio::select! {
            biased;
            brought = bringing => brought,
            () = self.connection.lost() => Err(KeepError::Disconnected),
        };
        if is_all {
            return Ok(chunks);
        }
        if self.connection.losses() == losses {
            return brought.map(|_| chunks);
        }
        let last = chunks.last().ok_or(KeepError::Disconnected)?;
        self.spoiled.suspect(&self.subject, last.seq + 2);
        Ok(chunks)
    }

    /// Some of what a consumer has. Returns whether nothing more was on its way.
    async fn brought(&self, consumer: &PullConsumer, chunks: &mut Vec<Chunk>) -> Result<bool, KeepError> {
        if consumer.cached_info().num_pending == 0 {
            return Ok(true);
        }
        let is_all = self.fetch(consumer, READ_CHUNKS, chunks).await?;
        if !chunks.is_empty() {
            return Ok(is_all);
        }
        // The next one alone is larger than what is asked for.
        self.fetch(consumer, 1, chunks).await
    }

    /// Takes what the consumer brings next, at most so many chunks. Returns whether that is all that it has, or all that
    /// was requested.
    async fn fetch(&self, consumer: &PullConsumer, most: usize, chunks: &mut Vec<Chunk>) -> Result<bool, KeepError> {
        let fetch = consumer.fetch().max_messages(most);
        // The server refuses a message that is larger than what is asked for.
        let fetch = if most == 1 { fetch } else { fetch.max_bytes(READ_BYTES) };
        let mut messages = fetch.messages().await.map_err(KeepError::nats)?;
        // Also if the connection is lost, so that what it was lost for is what comes next.
        while let Some(Ok(message)) = unconstrained(messages.next()).await {
            let about = message.info().map_err(KeepError::nats)?;
            let chunk = chunk(&message, &about);
            let apart = chunks.last().is_some_and(|last: &Chunk| chunk.seq != last.seq + 1);
            // Lost on the way, or dropped while it was looked for: the next reading tells.
            if about.consumer_sequence != chunks.len() as u64 + 1 || (apart && !self.is_sparse()) {
                break;
            }
            chunks.push(chunk);
            if about.pending == 0 || chunks.len() == most {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What was read: nothing before its `next` is left out.
fn past(first: u64, chunks: Vec<Chunk>, next: u64) -> Past {
    Past { first, next: chunks.last().map_or(next, |last| last.seq + 1), chunks }
}

/// Who answered.
fn leader(info: &Info) -> Option<&str> {
    info.cluster.as_ref()?.leader.as_deref()
}

/// A stored message as a chunk of its feed.
fn stored(message: StreamMessage) -> Chunk {
    Chunk::published_at(seq(message.sequence), message.time.into(), alone(&message.payload))
}
