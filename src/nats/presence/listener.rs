//! Hears what the servers tell in the bucket.

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
    stream::Stream,
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{STREAM, SUBJECTS, TELL};
use crate::nats::{connection::LinkState, error::BoxError, stored};

/// For how long messages are read one at a time after one that the client cannot read.
const QUIET: Duration = Duration::from_secs(60);

/// Hears what is in the bucket. A message that the client cannot read costs the connection: after that was lost, they
/// are read one at a time, and without a consumer as long as there are others of that kind.
pub(super) struct Listener<'a> {
    jetstream: &'a jetstream::Context,
    bucket: &'a Stream<()>,
    state: watch::Receiver<LinkState>,
    /// How often the connection was lost before.
    losses: u64,
    messages: Option<pull::Ordered>,
    /// The last one that was read singly.
    sequence: u64,
    /// Until when they are, at least.
    until: Instant,
}

impl<'a> Listener<'a> {
    pub(super) async fn new(
        jetstream: &'a jetstream::Context,
        bucket: &'a Stream<()>,
        (state, losses): (watch::Receiver<LinkState>, u64),
        singly: bool,
    ) -> Result<Self, BoxError> {
        let mut own = Self { jetstream, bucket, state, losses, messages: None, sequence: 0, until: Instant::now() };
        if !singly {
            own.consume(DeliverPolicy::LastPerSubject).await?;
        }
        Ok(own)
    }

    async fn consume(&mut self, deliver_policy: DeliverPolicy) -> Result<(), BoxError> {
        let filter_subject = format!("{SUBJECTS}.>");
        let config = pull::OrderedConfig { deliver_policy, filter_subject, ..Default::default() };
        self.messages = Some(self.bucket.create_consumer(config).await?.messages().await?);
        Ok(())
    }

    /// The subject, the payload and the time of a message; `None` if there may be more. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<(String, Bytes, SystemTime)>, BoxError> {
        if let Some(messages) = &mut self.messages {
            let message = tokio::select! {
                biased;
                message = messages.next() => message.ok_or("its consumer is gone")??,
                _ = self.state.wait_for(|state| state.losses != self.losses) => return Err("the connection is lost".into()),
            };
            let told = message.info()?.published.into();
            return Ok(Some((message.subject.to_string(), message.payload.clone(), told)));
        }
        let asked = json!({ "seq": self.sequence + 1, "next_by_subj": format!("{SUBJECTS}.>") });
        let Some(message) = stored::stored(self.jetstream, STREAM, asked).await? else {
            if Instant::now() >= self.until {
                self.consume(DeliverPolicy::ByStartSequence { start_sequence: self.sequence + 1 }).await?;
            } else {
                sleep(TELL / 4).await;
            }
            return Ok(None);
        };
        self.sequence = message.sequence;
        if message.is_spoiled {
            self.until = Instant::now() + QUIET;
            stored::tell(STREAM, std::slice::from_ref(&message));
            return Ok(None);
        }
        Ok(Some((message.subject, message.payload, message.time)))
    }
}
