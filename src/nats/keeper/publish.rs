//! Publishes to a stream, and tries again for a while.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use async_nats::jetstream::{self, ErrorCode, context::PublishErrorKind, message::PublishMessage};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::{AGAIN, JetStream, seq};
use crate::{
    chunk::{Cursor, Epoch},
    feed::{KeeperError, PublishError, Receipt},
    nats::{
        cause::PUBLISH,
        error::{KeepError, Refusal},
    },
};

/// For how long publishing is tried: elections were seen to take 4 to 10 s.
const TRIED: Duration = Duration::from_secs(15);
/// For how long where there is no room: that is an answer, though a leader may leave it to one that has some.
const TRIED_FULL: Duration = Duration::from_secs(1);

impl JetStream {
    /// Notes in `sent` that it may be stored from then on.
    async fn try_publish(&self, bytes: &Bytes, id: &str, sent: &AtomicBool) -> Result<Stored, Refused> {
        let epoch = self.checked_epoch().map_err(Refused::Now)?;
        let publishing = self.connection.counts.publishing();
        let message = PublishMessage::build().payload(bytes.clone()).message_id(id).expected_stream(&self.stream.name);
        sent.store(true, Ordering::Relaxed);
        let acknowledged = self.connection.now().jetstream.send_publish(self.subject.clone(), message).await?;
        let kept = acknowledged.await?;
        publishing.acknowledged();
        if !kept.duplicate {
            self.leader.fullness.stored();
        }
        let size = match kept.duplicate {
            false => bytes.len(),
            true => size_of(self, kept.sequence).await.map_err(Refused::Now)?.unwrap_or(bytes.len()),
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

    /// Whether a publication to the feed's subject was denied since then. Where only its answer was, it may be stored.
    pub(super) fn was_denied(&self, since: Instant) -> bool {
        let denied = self.connection.denied(&self.subject, since);
        matches!(denied, Some(KeepError::Denied { what: PUBLISH, subject }) if subject == self.subject)
    }

    /// `in_doubt` if it may be stored already.
    pub(super) async fn publish_soon(
        &self,
        bytes: Bytes,
        id: &str,
        mut in_doubt: bool,
    ) -> Result<Stored, PublishError> {
        let began = Instant::now();
        let until = began + TRIED;
        loop {
            let since = Instant::now();
            let (left, sent) = (until.saturating_duration_since(since), AtomicBool::default());
            let tried = async {
                self.connection.connected().await;
                self.try_publish(&bytes, id, &sent).await
            };
            let (why, is_refused) = match timeout(left, tried).await {
                Ok(Ok(stored)) => return Ok(stored),
                Ok(Err(Refused::TooLarge)) => {
                    self.connection.counts.refused(Refusal::TooLarge);
                    let longest = match self.info().await {
                        Ok(info) => usize::try_from(info.config.max_message_size).ok(),
                        Err(_) => None,
                    };
                    let max = longest.unwrap_or(usize::MAX).min(self.connection.now().client.server_info().max_payload);
                    return Err(PublishError::TooLarge { size: bytes.len(), max });
                }
                Ok(Err(Refused::ForCertain(why))) => (why, true),
                Ok(Err(Refused::Now(why))) => (why, false),
                Err(_) => (KeepError::Silent, false),
            };
            // One attempt in doubt is enough: what NATS says of a later one, it does not say of that.
            in_doubt |= sent.into_inner() && !is_refused && !self.was_denied(since);
            // By its id it is kept once, however often it is sent. What is denied will be the next time, too.
            let denied = self.connection.denied(&self.subject, began);
            if began + patience(&why, denied.is_some()) <= Instant::now() + AGAIN {
                // What else is in the way of a stream that is gone says less.
                let missing = || self.leader.missing().filter(|_| self.connection.is_connected());
                let why = self.connection.refused(denied.or_else(missing).unwrap_or(why));
                let is_full = matches!(why, KeepError::Full { .. });
                if is_full {
                    self.leader.fullness.refused(&self.subject, &why);
                }
                let why = KeeperError::new(why);
                return Err(match (in_doubt, is_full) {
                    (true, _) => PublishError::Keeper(why),
                    (false, true) => PublishError::Full(why),
                    (false, false) => PublishError::Refused(why),
                });
            }
            sleep(AGAIN).await;
        }
    }
}

/// For how long in all it is tried after that answer: no longer where the next one is certain to be the same.
fn patience(why: &KeepError, is_denied: bool) -> Duration {
    match why {
        _ if is_denied => Duration::ZERO,
        KeepError::Full { is_certain: true, .. } => Duration::ZERO,
        KeepError::Full { .. } => TRIED_FULL,
        _ => TRIED,
    }
}

/// What the leader of a stream has.
trait Leading {
    /// How large the message of that number is, if the leader has it.
    fn stored_size(&self, sequence: u64) -> impl Future<Output = Result<Option<usize>, KeepError>> + Send;

    /// The number of its last message.
    fn last(&self) -> impl Future<Output = Result<u64, KeepError>> + Send;
}

impl Leading for JetStream {
    async fn stored_size(&self, sequence: u64) -> Result<Option<usize>, KeepError> {
        // Ours are never empty.
        Ok(self.leaders_own(sequence).await?.map(|message| message.payload.len()).filter(|size| *size > 0))
    }

    async fn last(&self) -> Result<u64, KeepError> {
        Ok(self.info().await?.state.last_sequence)
    }
}

/// How large the message of that number is; `None` when it is there no more.
async fn size_of(leader: &impl Leading, sequence: u64) -> Result<Option<usize>, KeepError> {
    if sequence == 0 {
        return Err(KeepError::Busy);
    }
    let size = leader.stored_size(sequence).await?;
    if size.is_some() {
        return Ok(size);
    }
    // A new leader may not have come to it yet: that it is gone is known once that has.
    if leader.last().await? < sequence {
        return Err(KeepError::Busy);
    }
    leader.stored_size(sequence).await
}

/// A chunk that is stored.
pub(super) struct Stored {
    pub(super) receipt: Receipt,
    /// It was stored before.
    pub(super) duplicate: bool,
}

/// Whether a stream that gives this answer has not stored the message. Servers older than 2.12 may say of another
/// failure to store it what holds for the leader alone, and so they may of memory and disks that are full: its replicas
/// may have room. And a message with the same id may be on its way to the disk.
pub(super) fn refuses(answer: &jetstream::Error) -> bool {
    match answer.error_code() {
        ErrorCode::STREAM_STORE_FAILED => {
            let text = answer.to_string();
            text.contains("maximum ") || text.contains("message to large")
        }
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM
        | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM
        | ErrorCode::STREAM_NOT_MATCH
        | ErrorCode::STREAM_SEALED => true,
        _ => false,
    }
}

/// Why a chunk was not taken.
enum Refused {
    /// It never will be.
    TooLarge,
    /// The same as `Now`, and it is not stored.
    ForCertain(KeepError),
    /// It may be accepted when it is tried again.
    Now(KeepError),
}

impl From<jetstream::context::PublishError> for Refused {
    fn from(error: jetstream::context::PublishError) -> Self {
        let told = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<jetstream::Error>());
        let too_large = told.is_some_and(|error| error.error_code() == ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM);
        match error.kind() == PublishErrorKind::MaxPayloadExceeded || too_large {
            true => Self::TooLarge,
            // Nobody has received it, or who has says that it is not stored.
            false if error.kind() == PublishErrorKind::StreamNotFound || told.is_some_and(refuses) => {
                Self::ForCertain(KeepError::publish(error))
            }
            false => Self::Now(KeepError::publish(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn what_is_certain_is_told_at_once() {
        let full = |is_certain| KeepError::Full { why: "full".into(), is_certain };
        assert_eq!(
            (patience(&full(true), false), patience(&KeepError::Silent, true)),
            (Duration::ZERO, Duration::ZERO)
        );
        assert_eq!((patience(&full(false), false), patience(&KeepError::Silent, false)), (TRIED_FULL, TRIED));
    }

    /// Has these sizes one after another, and that last number.
    struct Leader(Mutex<Vec<Option<usize>>>, u64);

    impl Leading for Leader {
        async fn stored_size(&self, _: u64) -> Result<Option<usize>, KeepError> {
            Ok(self.0.lock().unwrap().remove(0))
        }

        async fn last(&self) -> Result<u64, KeepError> {
            Ok(self.1)
        }
    }

    #[tokio::test]
    async fn a_leader_that_has_not_come_to_a_chunk_does_not_tell_its_size() {
        let found =
            async |sequence, sizes: [_; 2], last| size_of(&Leader(Mutex::new(sizes.into()), last), sequence).await;
        assert!(matches!(found(7, [Some(3), None], 0).await, Ok(Some(3))));
        // Just elected, it has yet to come there: the size may be another one than that of what is sent again.
        assert!(matches!(found(7, [None, None], 6).await, Err(KeepError::Busy)));
        // It has come there meanwhile, or what was stored is gone.
        assert!(matches!(found(7, [None, Some(3)], 7).await, Ok(Some(3))));
        assert!(matches!(found(7, [None, None], 9).await, Ok(None)));
        // Another request is publishing it.
        assert!(matches!(found(0, [Some(3), None], 9).await, Err(KeepError::Busy)));
    }
}
