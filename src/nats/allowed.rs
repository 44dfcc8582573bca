//! Whether the user may publish to the subject of a feed that clients write, asked of the server without publishing
//! anything.
//!
//! A server sees first whether a subject may be published to, and then whether the subject for answers is one of its
//! own, which no client may name. So a message with such a subject for answers goes nowhere in any case, and the error
//! says which of the two was the reason. There is no other way to ask: what a stream is to refuse, other subscribers of
//! the subject would get.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tracing::info;

use super::{
    cause::{Denied, PUBLISH, SUBSCRIBE},
    connection::{ANSWER, Link},
    error::KeepError,
};

/// What the subjects for answers begin with: `_R_.` are a server's own.
const ANSWERS: &str = "_R_.h3cast.";
/// The time between two questions as long as it is denied: at first, and at most. The server logs each of them.
const AGAIN: Duration = Duration::from_secs(1);
const LONGEST_AGAIN: Duration = Duration::from_secs(4);
/// How many ask at once over one connection, of which only so many of the latest denials are known.
const PLACES: usize = 4;

/// What those who ask over one connection share.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    places: Arc<Semaphore>,
    /// Tells answers from each other.
    asked: Arc<AtomicU64>,
}

impl Default for Questions {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(PLACES)), asked: Arc::default() }
    }
}

/// Whether something that is denied to a subject is no more than the answer to such a question.
pub(super) fn is_answer(subject: &str) -> bool {
    subject.starts_with(ANSWERS)
}

/// Notes whether publishing to a subject is denied, each time that this changes, for as long as it is polled: it asks
/// when there is a connection, when a publication was denied, and while that is so.
pub(super) async fn watch(link: &Link, subject: &str, note: impl Fn(Option<&KeepError>)) {
    let (mut pauses, mut was_denied) = (Pauses::default(), false);
    loop {
        link.connected().await;
        let (asked, lost) = (Instant::now(), link.lost());
        let denied = is_denied(link, subject).await;
        if was_denied != denied {
            note(denied.then(|| denial(PUBLISH, subject)).as_ref());
            if !denied {
                info!(subject, "the NATS user may publish to this subject now");
            }
        }
        was_denied = denied;
        if denied {
            sleep(pauses.next()).await;
            continue;
        }
        pauses = Pauses::default();
        tokio::select! { () = lost => {}, _ = denial_of(link, PUBLISH, subject, asked) => {} }
    }
}

/// Asks. What is not answered is taken for allowed: a publication will tell.
async fn is_denied(link: &Link, subject: &str) -> bool {
    let Questions { places, asked } = &link.questions;
    let Ok(_place) = places.acquire().await else { return false };
    let reply = format!("{ANSWERS}{}", asked.fetch_add(1, Ordering::Relaxed));
    let asked = Instant::now();
    let client = &link.now().client;
    let sent = client.publish_with_reply(subject.to_owned(), reply.clone(), Bytes::new()).await;
    if sent.is_err() || client.flush().await.is_err() {
        return false;
    }
    let answer = async {
        tokio::select! {
            biased;
            () = denial_of(link, PUBLISH, subject, asked) => true,
            () = denial_of(link, PUBLISH, &reply, asked) => false,
        }
    };
    timeout(ANSWER, answer).await.unwrap_or_default()
}

/// Waits until the server denies that since then. Cancel-safe.
async fn denial_of(link: &Link, what: &'static str, subject: &str, since: Instant) {
    let is_it = |(at, denied): &(Instant, Denied)| *at >= since && denied.what == what && denied.subject == subject;
    if link.denials().wait_for(|all| all.iter().any(is_it)).await.is_err() {
        // The connection is gone, which nobody who holds it sees.
        std::future::pending().await
    }
}

/// Waits until the server denies a subscription to a subject that was made then, and says why. Cancel-safe.
pub(super) async fn subscription_denied(link: &Link, subject: &str, since: Instant) -> KeepError {
    denial_of(link, SUBSCRIBE, subject, since).await;
    denial(SUBSCRIBE, subject)
}

fn denial(what: &'static str, subject: &str) -> KeepError {
    KeepError::Denied { what, subject: subject.to_owned() }
}

/// The times between tries of what is denied.
#[derive(Debug, Default)]
pub(super) struct Pauses(Option<Duration>);

impl Pauses {
    pub(super) fn next(&mut self) -> Duration {
        let now = self.0.map_or(AGAIN, |last| (last * 2).min(LONGEST_AGAIN));
        *self.0.insert(now)
    }
}
