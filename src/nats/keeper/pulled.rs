//! Has a consumer bring messages, so many bytes at a time.
//!
//! A request that has no bound on its bytes has the client hold as many messages as it asks for, however large. One
//! that has is refused where the next message is larger than that, and so is each one after it: NATS' client asks again
//! and again, without an end. So a message that is too large for a whole request is asked for by itself; and only one of
//! those at a time is on its way on a connection.

use std::{sync::Arc, time::Duration};

use async_nats::{
    Subscriber,
    jetstream::{self, consumer::PullConsumer},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::json;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::JetStream;
use crate::nats::{client::Current, error::KeepError};

/// How many bytes are asked for at once, with what belongs to each message. When half of them have come, as many again are
/// asked for. A message of 1 MiB, the most that nats-server takes if it is not told otherwise, is less than that.
const BYTES: usize = 2 << 20;
/// How many messages: more than so many bytes are.
const MESSAGES: usize = 50_000;
/// How often a consumer with nothing to bring says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a request stands, and one for a large message, which is there.
const EXPIRES: Duration = Duration::from_secs(30);
const EXPIRES_ALONE: Duration = Duration::from_secs(5);
/// How long a large message may be on its way. Nothing else comes meanwhile.
const ALONE: Duration = Duration::from_secs(10);

/// What a consumer brings, until it is dropped.
pub(super) struct Pull {
    current: Arc<Current>,
    requests: String,
    inbox: String,
    answers: Subscriber,
    asked: Asked,
    request: Bytes,
    /// The place for the large message that is on its way, or that was brought last.
    alone: Option<OwnedSemaphorePermit>,
    large: Arc<Semaphore>,
}

/// What is on its way at most, as far as is known.
#[derive(Debug)]
struct Asked {
    most: usize,
    messages: usize,
    bytes: usize,
    /// The next message is larger than a whole request.
    is_large: bool,
    /// It was asked for.
    alone: bool,
}

/// A status that the server sends in place of a message.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// The consumer is there.
    Alive,
    /// A request has ended, with so much of it left.
    Ended { messages: usize, bytes: usize, for_size: bool },
}

impl JetStream {
    /// What that consumer brings. Nothing is asked for before it is polled.
    pub(super) async fn pull(&self, consumer: &PullConsumer) -> Result<Pull, KeepError> {
        let (current, info) = (self.connection.now(), consumer.cached_info());
        let inbox = current.client.new_inbox();
        let answers = current.client.subscribe(inbox.clone()).await.map_err(KeepError::nats)?;
        let requests = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", info.stream_name, info.name);
        // A server may have a bound of its own.
        let most = usize::try_from(info.config.max_batch).ok().filter(|most| *most > 0);
        let asked = Asked::up_to(most.map_or(MESSAGES, |most| most.min(MESSAGES)));
        let large = self.connection.large.clone();
        let request = request(asked.most, BYTES, EXPIRES);
        Ok(Pull { current, requests, inbox, answers, asked, request, alone: None, large })
    }
}

impl Pull {
    /// The next message; `None` if the client is gone. If the connection is lost, those that came before that are given
    /// first, and then nothing.
    pub(super) async fn next(&mut self) -> Result<Option<jetstream::Message>, KeepError> {
        if !self.asked.alone {
            self.alone = None;
        }
        loop {
            if self.asked.is_large && !self.asked.alone {
                let place = self.large.clone().acquire_owned().await.map_err(KeepError::nats)?;
                self.ask(request(1, 0, EXPIRES_ALONE)).await?;
                (self.alone, self.asked.alone) = (Some(place), true);
            } else if self.asked.wants_more() {
                self.ask(self.request.clone()).await?;
                self.asked.asked();
            }
            let patience = if self.asked.alone { ALONE } else { 2 * HEARTBEAT };
            let answer = timeout(patience, self.answers.next()).await.map_err(|_| KeepError::Silent)?;
            let Some(message) = answer else { return Ok(None) };
            let Some(status) = message.status else {
                self.asked.brought(message.length);
                return Ok(Some(jetstream::Message { message, context: self.current.jetstream.clone() }));
            };
            let number = |name| message.headers.as_ref().and_then(|headers| headers.get(name)?.as_str().parse().ok());
            let left = [number("Nats-Pending-Messages"), number("Nats-Pending-Bytes")];
            let told = told(status.as_u16(), message.description.as_deref().unwrap_or_default(), left)?;
            self.asked.told(&told);
            if !self.asked.alone {
                self.alone = None;
            }
        }
    }

    async fn ask(&self, request: Bytes) -> Result<(), KeepError> {
        let sent = self.current.client.publish_with_reply(self.requests.clone(), self.inbox.clone(), request);
        sent.await.map_err(KeepError::nats)
    }
}

/// A request for so many messages, and bytes, if that is not 0.
fn request(messages: usize, bytes: usize, expires: Duration) -> Bytes {
    let [expires, heartbeat] = [expires, HEARTBEAT].map(|time| time.as_nanos() as u64);
    let asked = json!({ "batch": messages, "max_bytes": bytes, "expires": expires, "idle_heartbeat": heartbeat });
    asked.to_string().into()
}

/// What a status means, with how many messages and bytes of its request are left, if it says so.
fn told(status: u16, words: &str, [messages, bytes]: [Option<usize>; 2]) -> Result<Told, KeepError> {
    match (status, words) {
        (100, _) => Ok(Told::Alive),
        (409, "Consumer Deleted") => Err(KeepError::ConsumerGone),
        // It would be refused again.
        (409, words) if words.starts_with("Exceeded") || words == "Consumer is push based" => {
            Err(KeepError::nats(format!("the server refuses to bring messages: {words}")))
        }
        (408 | 409, words) => Ok(Told::Ended {
            messages: messages.unwrap_or(MESSAGES),
            bytes: bytes.unwrap_or(BYTES),
            for_size: words == "Message Size Exceeds MaxBytes",
        }),
        (503, _) => Err(KeepError::ConsumerGone),
        (status, words) => Err(KeepError::nats(format!("the server does not bring messages: {status} {words}"))),
    }
}

impl Asked {
    /// Nothing yet; so many messages at once.
    fn up_to(most: usize) -> Self {
        Self { most, messages: 0, bytes: 0, is_large: false, alone: false }
    }

    fn wants_more(&self) -> bool {
        !self.alone && (self.messages <= self.most / 2 || self.bytes <= BYTES / 2)
    }

    fn asked(&mut self) {
        self.messages += self.most;
        self.bytes += BYTES;
    }

    /// A message of that length has come.
    fn brought(&mut self, length: usize) {
        // It is the one that was asked for by itself, or what was to come before that is gone.
        if !std::mem::take(&mut self.alone) {
            self.messages = self.messages.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(length);
        }
        self.is_large = false;
    }

    fn told(&mut self, told: &Told) {
        let Told::Ended { messages, bytes, for_size } = *told else { return };
        if for_size && bytes >= BYTES {
            self.is_large = true;
        }
        // One of several ends before a large message is asked for. None that is asked for by itself ends for its size.
        if self.alone && !for_size {
            (self.alone, self.is_large) = (false, false);
        }
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: &str = "Message Size Exceeds MaxBytes";

    fn ended(left: [usize; 2]) -> Told {
        told(409, ENDED, left.map(Some)).unwrap()
    }

    #[test]
    fn more_is_asked_for_before_all_has_come() {
        let mut asked = Asked::up_to(MESSAGES);
        assert!(asked.wants_more());
        asked.asked();
        assert!(!asked.wants_more());
        asked.brought(BYTES / 2 - 1);
        assert!(!asked.wants_more());
        asked.brought(1);
        assert!(asked.wants_more());
        // Where a server gives few messages at once, they are what ends a request.
        let mut asked = Asked::up_to(10);
        asked.asked();
        (0..5).for_each(|_| asked.brought(100));
        assert!(asked.wants_more());
    }

    #[test]
    fn a_large_message_is_asked_for_by_itself() {
        let mut asked = Asked::up_to(MESSAGES);
        asked.asked();
        asked.brought(BYTES / 2);
        asked.asked();
        // It does not fit into what is left of the first request.
        asked.told(&ended([MESSAGES - 1, BYTES / 2]));
        assert!(!asked.is_large && !asked.wants_more(), "{asked:?}");
        asked.told(&ended([MESSAGES, BYTES]));
        assert!(asked.is_large && asked.bytes == 0 && asked.messages == 0, "{asked:?}");
        asked.alone = true;
        assert!(!asked.wants_more());
        asked.told(&Told::Alive);
        asked.brought(10 * BYTES);
        assert!(!asked.alone && !asked.is_large && asked.wants_more(), "{asked:?}");
    }

    #[test]
    fn a_large_message_that_is_gone_is_not_waited_for() {
        let mut asked = Asked::up_to(MESSAGES);
        (asked.is_large, asked.alone) = (true, true);
        asked.told(&told(408, "Request Timeout", [Some(1), Some(0)]).unwrap());
        assert!(!asked.alone && !asked.is_large && asked.wants_more(), "{asked:?}");
    }

    #[test]
    fn what_a_status_means() {
        assert_eq!(told(100, "Idle Heartbeat", [None; 2]).unwrap(), Told::Alive);
        assert!(matches!(told(409, "Consumer Deleted", [None; 2]), Err(KeepError::ConsumerGone)));
        assert!(told(409, "Exceeded MaxRequestBatch of 100", [None; 2]).is_err());
        assert!(told(404, "No Messages", [None; 2]).is_err());
        // An older server does not say what is left.
        let all = Told::Ended { messages: MESSAGES, bytes: BYTES, for_size: false };
        assert_eq!(told(409, "Leadership Change", [None; 2]).unwrap(), all);
    }
}
