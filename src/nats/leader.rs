//! Whether the leader of a stream answers. A node that is cut off from its peers goes on talking to its clients, and
//! to their consumers, but has nothing new to say.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::stream::Info;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, warn};

use super::{answered::is_no_stream, connection::Link, error::KeepError, fullness::Fullness, keeper::epoch};
use crate::panics;

/// How often a leader is asked, which answers with some 2 kB, and how long one answer may take.
const ASK: Duration = Duration::from_secs(1);
/// For how long it may say nothing.
const SILENT: Duration = Duration::from_secs(3);
/// For how long it may say nothing while its node is not cut off: an election takes less.
const ELECTION: Duration = Duration::from_secs(12);
/// The longest time between two attempts to find a better server.
const LONGEST_AGAIN: Duration = Duration::from_secs(60);

/// The leaders that are asked over a connection: one for each stream, whatever number of its feeds there is.
#[derive(Debug, Clone, Default)]
pub(super) struct Leaders(Arc<Mutex<HashMap<String, Weak<Leader>>>>);

/// One of them, asked until the last clone is dropped.
#[derive(Debug)]
pub(super) struct Leader {
    stream: String,
    word: watch::Receiver<Word>,
    /// Whether its stream is full.
    pub(super) fullness: Fullness,
    /// The number of its stream's last message, as it has stated last.
    head: Arc<AtomicU64>,
    /// Since when its feeds cannot be filled, though it may answer.
    unfilled: Arc<Unfilled>,
    first: watch::Receiver<First>,
    _asking: AbortOnDropHandle<()>,
}

type Unfilled = Mutex<Option<Instant>>;

/// What is known of it.
#[derive(Debug, Clone, Copy, Default)]
struct Word {
    silence: Option<Silence>,
    /// The stream's run of numbers, once it has answered.
    epoch: u64,
    /// How often the connection had been lost when it answered last.
    losses: u64,
}

/// Why nothing is heard of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    Leaderless,
    /// There is no such stream, as was answered.
    Missing,
}

/// The number of the first message that a stream of that epoch has, where those before it were deleted or have become
/// too old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct First {
    pub(super) epoch: u64,
    pub(super) number: u64,
}

impl Leaders {
    /// The leader of a stream.
    pub(super) fn of(&self, link: &Link, stream: &str) -> Arc<Leader> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = known.get(stream).and_then(Weak::upgrade) {
            return leader;
        }
        known.retain(|_, leader| leader.strong_count() > 0);
        let (said, word) = watch::channel(Word { losses: link.losses(), ..Word::default() });
        let (head, unfilled) = (Arc::default(), Arc::<Unfilled>::default());
        let (first_tx, first) = watch::channel(First::default());
        let heard = Heard { said, head: Arc::clone(&head), first: first_tx };
        let asking = tokio::spawn(ask(link.clone(), stream.to_owned(), heard, unfilled.clone()));
        let (stream_of, fullness, asking) = (stream.to_owned(), Fullness::of(stream), AbortOnDropHandle::new(asking));
        let leader = Arc::new(Leader { stream: stream_of, word, fullness, head, unfilled, first, _asking: asking });
        known.insert(stream.to_owned(), Arc::downgrade(&leader));
        leader
    }
}

impl Leader {
    /// Notes that a feed is filled, or that this fails: a node may reach the leader, and not the one of all streams,
    /// which makes consumers.
    pub(super) fn fills(&self, fills: bool) {
        let mut since = self.unfilled.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if fills { None } else { Some(since.unwrap_or_else(Instant::now)) };
    }

    pub(super) fn head(&self) -> Arc<AtomicU64> {
        self.head.clone()
    }

    /// What is there now is news for who has not looked yet.
    pub(super) fn first(&self) -> watch::Receiver<First> {
        self.first.clone()
    }

    pub(super) fn is_silent(&self) -> bool {
        self.word.borrow().silence.is_some()
    }

    /// Why nothing is heard of its stream, if it is so.
    pub(super) fn silence(&self) -> Option<KeepError> {
        let silence = self.word.borrow().silence?;
        Some(self.error(silence))
    }

    /// Its stream no longer exists, as has been answered for a while.
    pub(super) fn missing(&self) -> Option<KeepError> {
        self.silence().filter(|silence| matches!(silence, KeepError::Missing(_)))
    }

    fn error(&self, silence: Silence) -> KeepError {
        match silence {
            Silence::Leaderless => KeepError::Leaderless,
            Silence::Missing => KeepError::Missing(self.stream.clone()),
        }
    }

    /// Whether it has answered over a connection since that was lost so often.
    pub(super) fn has_answered_since(&self, losses: u64) -> bool {
        self.word.borrow().losses == losses
    }

    /// Calls `tell` with why nothing is heard of its stream, each time that this is another reason, until it answers.
    /// Cancel-safe.
    pub(super) async fn answers(&self, tell: impl Fn(KeepError)) {
        let (mut word, mut told) = (self.word.clone(), None);
        loop {
            let silence = word.borrow_and_update().silence;
            let Some(why) = silence else { return };
            if told.replace(why) != Some(why) {
                tell(self.error(why));
            }
            // An error would mean that it is asked no longer.
            if word.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until it does not answer, or since now of a newer stream than that of the epoch. Cancel-safe.
    pub(super) async fn failed(&self, epoch: impl Fn() -> u64) -> KeepError {
        let mut word = self.word.clone();
        // What it answered of before is seen by who begins now.
        let before = word.borrow().epoch;
        let is_newer = |now: u64| now != before && now > epoch();
        let failed = word.wait_for(|word| word.silence.is_some() || is_newer(word.epoch)).await;
        match failed.map(|word| word.silence) {
            Ok(None) => KeepError::Recreated,
            Ok(Some(silence)) => self.error(silence),
            Err(_) => KeepError::Leaderless,
        }
    }
}

/// Whether an answer is that of a leader which most of its peers follow: one that is cut off believes for 10 s yet
/// that it leads. Where there is none, another replica answers, which has heard its peers ask for votes.
fn is_followed(info: &Info) -> bool {
    let Some(cluster) = &info.cluster else { return true };
    if cluster.leader.as_ref().is_none_or(String::is_empty) {
        return false;
    }
    let following = cluster.replicas.iter().filter(|peer| !peer.offline && peer.active < SILENT).count();
    (following + 1) * 2 > cluster.replicas.len() + 1
}

/// What a leader answers.
enum Answer {
    Is(Box<Info>),
    /// There is no such stream: another server gives the same answer.
    Missing,
    None,
}

async fn info(link: &Link, stream: &str) -> Answer {
    let asked = async { Some(link.now().jetstream.get_stream_no_info(stream).await.ok()?.get_info().await) };
    match timeout(ASK, asked).await {
        Ok(Some(Ok(info))) if is_followed(&info) => Answer::Is(Box::new(info)),
        Ok(Some(Err(error))) if is_no_stream(&error) => Answer::Missing,
        _ => Answer::None,
    }
}

impl Answer {
    /// Whether a leader is silent of which nothing else was heard for so long, and whether another server might hear
    /// it.
    fn silence(&self, unheard: Duration) -> (bool, bool) {
        let is_silent = !matches!(self, Self::Is(_)) && unheard >= SILENT;
        (is_silent, is_silent && !matches!(self, Self::Missing))
    }
}

/// Why nothing is heard of a stream of which it was answered so long ago that it does not exist: one answer that does
/// not come in time changes nothing.
fn silence(missing: Option<Duration>) -> Silence {
    match missing {
        Some(ago) if ago < SILENT => Silence::Missing,
        _ => Silence::Leaderless,
    }
}

/// Whether the first messages of a stream may have gone to make room for others. What edges still have of them need not
/// go: they help viewers who are behind.
fn is_full(info: &Info) -> bool {
    let (config, state) = (&info.config, &info.state);
    let reaches = |is: u64, limit: i64| u64::try_from(limit).is_ok_and(|limit| limit > 0 && is >= limit);
    // A stream of a limited size is somewhat smaller than that, by the message that did not fit.
    reaches(state.messages, config.max_messages)
        || reaches(state.bytes.saturating_mul(2), config.max_bytes)
        || config.max_messages_per_subject > 0
}

/// Asks for as long as it is polled.
async fn ask(link: Link, stream: String, of: Heard, unfilled: Arc<Unfilled>) {
    let (heard, losses) = (Instant::now(), link.losses());
    let mut asking = Asking { link, stream, of, unfilled, heard, missing: None, losses, search: Search::default() };
    loop {
        if let Err(panic) = panics::caught_async(asking.once()).await {
            error!(stream = asking.stream, "the task that asks the leader of a stream panicked: {panic}");
            sleep(ASK).await;
        }
    }
}

/// What is heard of a leader.
struct Heard {
    said: watch::Sender<Word>,
    head: Arc<AtomicU64>,
    first: watch::Sender<First>,
}

impl Heard {
    fn hear(&self, info: &Info, losses: u64) {
        self.head.store(info.state.last_sequence, Ordering::Relaxed);
        let word = Word { silence: None, epoch: epoch(info).0, losses };
        self.said.send_if_modified(|now| {
            let is_news = now.silence.is_some() || now.epoch != word.epoch;
            *now = word;
            is_news
        });
        if !is_full(info) {
            let first = First { epoch: word.epoch, number: info.state.first_sequence };
            self.first.send_if_modified(|now| std::mem::replace(now, first) != first);
        }
    }
}

struct Asking {
    link: Link,
    stream: String,
    of: Heard,
    unfilled: Arc<Unfilled>,
    /// When it answered last.
    heard: Instant,
    /// When it was answered last that there is no such stream.
    missing: Option<Instant>,
    /// How often the connection had been lost by then.
    losses: u64,
    search: Search,
}

impl Asking {
    async fn once(&mut self) {
        self.link.connected().await;
        if self.losses != self.link.losses() {
            // It has had no time to answer on this connection.
            (self.losses, self.heard) = (self.link.losses(), Instant::now());
        }
        let asked = Instant::now();
        // What is asked over a connection that is lost is asked anew over the next one, at once: until it has answered
        // there, its feeds are not ready.
        let lost = self.link.lost_since(self.losses);
        let answer = tokio::select! {
            answer = info(&self.link, &self.stream) => answer,
            () = lost => return,
        };
        match answer {
            Answer::Is(info) => {
                self.heard = Instant::now();
                self.of.hear(&info, self.losses);
                let since = *self.unfilled.lock().unwrap_or_else(PoisonError::into_inner);
                match since {
                    None => self.search = Search::default(),
                    Some(since) if since.elapsed() < SILENT => {}
                    Some(since) => self.search.on(&self.link, &self.stream, since).await,
                }
            }
            answer if self.link.is_connected() => {
                if matches!(answer, Answer::Missing) {
                    self.missing = Some(Instant::now());
                }
                let (is_silent, searches) = answer.silence(self.heard.elapsed());
                if is_silent {
                    let silence = silence(self.missing.map(|missing| missing.elapsed()));
                    self.of.said.send_if_modified(|now| now.silence.replace(silence) != Some(silence));
                }
                if searches {
                    self.search.on(&self.link, &self.stream, self.heard).await;
                }
            }
            _ => {}
        }
        // Its search may have left that connection.
        let _ = timeout(ASK.saturating_sub(asked.elapsed()), self.link.lost_since(self.losses)).await;
    }
}

/// The search for a server that reaches the leader.
#[derive(Debug, Default)]
struct Search {
    left: u32,
    /// Not before that.
    next: Option<Instant>,
}

impl Search {
    /// Leaves the server for another, if that may help, and it is time.
    async fn on(&mut self, link: &Link, stream: &str, heard: Instant) {
        if self.next.is_some_and(|next| Instant::now() < next) {
            return;
        }
        let now = link.now();
        // This the leader of all streams answers: where it does, only that stream has none.
        let is_cut_off = !timeout(ASK, now.jetstream.query_account()).await.is_ok_and(|account| account.is_ok());
        // Other feeds are stalled by it for a moment: not for a stream whose servers are all down.
        let is_enough = !is_cut_off && (heard.elapsed() < ELECTION || self.left > 0);
        let is_only = now.client.server_pool().await.is_ok_and(|pool| pool.len() < 2);
        if is_enough || is_only || !link.servers.leave() {
            debug!(stream, is_cut_off, "the NATS server does not reach the leader");
            return;
        }
        let pause = SILENT * 2_u32.saturating_pow(self.left);
        self.next = Some(Instant::now() + pause.min(LONGEST_AGAIN));
        self.left += 1;
        warn!(stream, "the NATS server does not reach the leader: trying another server");
        let _ = now.client.force_reconnect().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_other_server_is_searched_for_a_stream_that_is_missing() {
        assert_eq!(Answer::Missing.silence(SILENT), (true, false));
        assert_eq!(Answer::None.silence(SILENT), (true, true));
        assert_eq!(Answer::None.silence(SILENT / 2), (false, false));
    }

    #[test]
    fn a_stream_is_missing_as_long_as_that_is_answered() {
        assert_eq!(silence(Some(Duration::ZERO)), Silence::Missing);
        // One answer is late.
        assert_eq!(silence(Some(2 * ASK)), Silence::Missing);
        assert_eq!(silence(Some(SILENT)), Silence::Leaderless);
        assert_eq!(silence(None), Silence::Leaderless);
    }

    #[test]
    fn what_makes_room_for_others_is_not_deleted() {
        let is = |config: serde_json::Value, messages: u64, bytes: u64| {
            let info = serde_json::json!({
                "config": config, "created": "2026-01-01T00:00:00Z", "state": {
                    "messages": messages, "bytes": bytes, "first_seq": 5, "first_ts": "2026-01-01T00:00:00Z",
                    "last_seq": 9, "last_ts": "2026-01-01T00:00:00Z", "consumer_count": 0,
                },
            });
            let mut info = info;
            for (name, value) in [("name", "s"), ("retention", "limits"), ("storage", "file"), ("discard", "old")] {
                info["config"][name] = value.into();
            }
            for name in ["max_consumers", "max_msgs", "max_bytes", "max_msgs_per_subject", "max_age", "num_replicas"] {
                if info["config"][name].is_null() {
                    info["config"][name] = if name.starts_with("max_age") { 0 } else { -1_i64 }.into();
                }
            }
            info["config"]["num_replicas"] = 1.into();
            is_full(&serde_json::from_value(info).unwrap())
        };
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert!(is(json(r#"{"max_msgs":5}"#), 5, 100) && is(json(r#"{"max_bytes":100}"#), 5, 60));
        assert!(is(json(r#"{"max_msgs_per_subject":1}"#), 5, 100));
        assert!(!is(json("{}"), 5, 100) && !is(json(r#"{"max_msgs":9,"max_bytes":900}"#), 5, 100));
        assert!(!is(json(r#"{"max_age":1000000000}"#), 5, 100));
    }
}
