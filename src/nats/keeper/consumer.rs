//! Consumers of this server, which are deleted with what reads them.
//!
//! After a while, JetStream removes one that nobody asks for messages. Until then it takes one of the places that a stream
//! has. So however a reading ends, also where its viewer leaves, its time is over or its consumer is not confirmed, the
//! consumer is deleted, unless the process ends: its name is known before it is created.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull},
    stream::ConsumerErrorKind,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{
    runtime::Handle,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

use super::{AGAIN, JetStream};
use crate::nats::{
    cause::{CREATE, DELETE, NAMES, subject_of},
    connection::Link,
    error::KeepError,
};

/// How long the server keeps a consumer that nobody asks.
pub(super) const INACTIVE: Duration = Duration::from_secs(30);
/// The longest time between two attempts to delete one.
const LONGEST_AGAIN: Duration = Duration::from_secs(4);

/// A consumer, from when it is asked for until this is dropped.
pub(super) struct Own {
    connection: Link,
    stream: String,
    name: String,
    state: State,
}

enum State {
    /// It was not asked for, or is refused.
    None,
    /// It may be there, or come yet.
    Asked,
    There,
}

impl JetStream {
    /// One that is not there yet.
    pub(super) fn own(&self) -> Own {
        let mut name = [0; 12];
        // Without it, names are the same, and a consumer of another reading may be deleted: it is read again.
        let _ = crate::identity::provider().secure_random.fill(&mut name);
        Own {
            connection: self.connection.clone(),
            stream: self.stream.name.clone(),
            name: format!("{NAMES}{}", URL_SAFE_NO_PAD.encode(name)),
            state: State::None,
        }
    }

    /// Creates it, from the feed's number `next` on.
    pub(super) async fn create(&self, own: &mut Own, next: u64) -> Result<PullConsumer, KeepError> {
        let config = pull::Config {
            name: Some(own.name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next + 1 },
            filter_subject: self.subject.clone(),
            // What is lost on the way is noticed by its number, and asked for again.
            ack_policy: AckPolicy::None,
            max_deliver: 1,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..Default::default()
        };
        let stream = self.handle().await?;
        if !self.connection.is_connected() {
            // It would be asked for once the connection is there, when nobody reads it any more.
            return Err(KeepError::Disconnected);
        }
        let since = Instant::now();
        own.state = State::Asked;
        let created = stream.create_consumer(config).await.map_err(|error| {
            let denied = self.connection.denied(&subject_of(CREATE, &self.stream.name), since);
            if denied.is_some() || matches!(error.kind(), ConsumerErrorKind::JetStream(_)) {
                own.state = State::None;
            }
            denied.unwrap_or_else(|| self.failed(error))
        })?;
        own.state = State::There;
        Ok(created)
    }
}

impl Own {
    /// Deletes it. Whether it is gone; dropped before that, it is deleted all the same.
    pub(super) async fn delete(mut self) -> bool {
        match self.end() {
            None => true,
            Some(deleting) => deleting.await.unwrap_or(false),
        }
    }

    /// Begins to delete it, if there is something to delete.
    fn end(&mut self) -> Option<JoinHandle<bool>> {
        let is_certain = match std::mem::replace(&mut self.state, State::None) {
            State::None => return None,
            State::Asked => false,
            State::There => true,
        };
        // Without a runtime its connection is gone, too.
        let runtime = Handle::try_current().ok()?;
        let (stream, name) = (std::mem::take(&mut self.stream), std::mem::take(&mut self.name));
        Some(runtime.spawn(delete(self.connection.clone(), stream, name, is_certain)))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// Deletes a consumer, however often that takes until it goes by itself. One that is not `certain` to have been there may
/// come after an answer that it is not.
async fn delete(connection: Link, stream: String, name: String, is_certain: bool) -> bool {
    let (since, mut pause) = (Instant::now(), AGAIN);
    let subject = subject_of(DELETE, &stream);
    let deleting = async {
        loop {
            connection.connected().await;
            // There may be many, for instance when the connection is there again.
            let place = connection.deleting.acquire().await;
            match connection.now().jetstream.delete_consumer_from_stream(&name, &stream).await {
                Ok(_) => return true,
                Err(error) if is_certain && is_gone(&error.kind()) => return true,
                Err(_) if connection.denied(&subject, since).is_some() => return false,
                Err(_) => {}
            }
            drop(place);
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_AGAIN);
        }
    };
    timeout_at(since + INACTIVE, deleting).await.unwrap_or(false)
}

/// Whether the consumer or its stream no longer exists.
fn is_gone(answer: &ConsumerErrorKind) -> bool {
    let ConsumerErrorKind::JetStream(error) = answer else { return false };
    [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND].contains(&error.error_code())
}
