//! Publishes to a stream, and tries again for a while.

use std::{sync::atomic::Ordering, time::Duration};

use async_nats::jetstream::{
    self, ErrorCode, context::PublishErrorKind, message::PublishMessage, stream::RawMessageErrorKind,
};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{AGAIN, JetStream, seq};
use crate::{
    chunk::{Cursor, Epoch},
    feed::{KeeperError, PublishError, Receipt},
    nats::error::{KeepError, Refusal},
};

/// For how long publishing is tried: elections were seen to take 4 to 10 s.
const PUBLISH: Duration = Duration::from_secs(15);

impl JetStream {
    async fn try_publish(&self, bytes: &Bytes, id: &str) -> Result<Stored, Refused> {
        let epoch = self.checked_epoch().map_err(Refused::Now)?;
        let publishing = self.connection.counts.publishing();
        let message = PublishMessage::build().payload(bytes.clone()).message_id(id).expected_stream(&self.stream.name);
        let sent = self.connection.jetstream.send_publish(self.subject.clone(), message).await?;
        let kept = sent.await?;
        publishing.acknowledged();
        let size = match kept.duplicate {
            false => bytes.len(),
            true => self.size_of(kept.sequence).await?.unwrap_or(bytes.len()),
        };
        // It may be in a newer stream: by its id it is found there, and by then it is known which one it is.
        if self.checked_epoch().map_err(Refused::Now)? != epoch {
            return Err(Refused::Now(KeepError::Recreated));
        }
        let cursor = Cursor { epoch, seq: seq(kept.sequence) };
        Ok(Stored { receipt: Receipt { cursor, size }, duplicate: kept.duplicate })
    }

    /// The run of numbers of what is published now.
    pub(super) fn checked_epoch(&self) -> Result<Epoch, KeepError> {
        match self.checked.load(Ordering::Relaxed) {
            true => Ok(Epoch(self.epoch.load(Ordering::Relaxed))),
            false => Err(KeepError::Unchecked),
        }
    }

    /// How large the message of that number is; `None` when it is there no more.
    async fn size_of(&self, sequence: u64) -> Result<Option<usize>, Refused> {
        if sequence == 0 {
            return Err(Refused::Now(KeepError::Busy));
        }
        let size = self.stored_size(sequence).await.map_err(Refused::Now)?;
        if size.is_some() {
            return Ok(size);
        }
        // A new leader may not have come to it yet: that it is gone is known once that has.
        if self.info().await.map_err(Refused::Now)?.state.last_sequence < sequence {
            return Err(Refused::Now(KeepError::Busy));
        }
        self.stored_size(sequence).await.map_err(Refused::Now)
    }

    /// The same, as far as the stream's leader has come.
    async fn stored_size(&self, sequence: u64) -> Result<Option<usize>, KeepError> {
        let stream = self.handle().await?;
        match stream.get_raw_message(sequence).await {
            // Ours are never empty.
            Ok(message) => Ok(Some(message.payload.len()).filter(|size| *size > 0)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(KeepError::nats(error)),
        }
    }

    pub(super) async fn publish_soon(&self, bytes: Bytes, id: &str) -> Result<Stored, PublishError> {
        let began = Instant::now();
        let until = began + PUBLISH;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let tried = async {
                self.connection.connected().await;
                self.try_publish(&bytes, id).await
            };
            let why = match timeout(left, tried).await {
                Ok(Ok(stored)) => return Ok(stored),
                Ok(Err(Refused::TooLarge)) => {
                    self.connection.counts.refused(Refusal::TooLarge);
                    let longest = match self.info().await {
                        Ok(info) => usize::try_from(info.config.max_message_size).ok(),
                        Err(_) => None,
                    };
                    let max = longest.unwrap_or(usize::MAX).min(self.connection.client.server_info().max_payload);
                    return Err(PublishError::TooLarge { size: bytes.len(), max });
                }
                Ok(Err(Refused::Now(why))) => why,
                Err(_) => KeepError::Silent,
            };
            // By its id it is kept once, however often it is sent. What is denied will be the next time, too.
            let denied = self.connection.denied(&self.subject, began);
            if until <= Instant::now() + AGAIN || denied.is_some() {
                let why = self.connection.refused(denied.unwrap_or(why));
                return Err(PublishError::Keeper(KeeperError::new(why)));
            }
            sleep(AGAIN).await;
        }
    }
}

/// A chunk that is stored.
pub(super) struct Stored {
    pub(super) receipt: Receipt,
    /// It was stored before.
    pub(super) duplicate: bool,
}

/// Why a chunk was not taken.
enum Refused {
    /// It never will be.
    TooLarge,
    /// It may be accepted when it is tried again.
    Now(KeepError),
}

impl From<jetstream::context::PublishError> for Refused {
    fn from(error: jetstream::context::PublishError) -> Self {
        let told = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<jetstream::Error>());
        let too_large = told.is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
        match error.kind() == PublishErrorKind::MaxPayloadExceeded || too_large {
            true => Self::TooLarge,
            false => Self::Now(KeepError::publish(error)),
        }
    }
}
