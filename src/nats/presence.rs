//! How many view and write a feed over all servers: each tells the others in a bucket of JetStream's key-value store.
//! There is a key for each server, sent again and again, which shows that it is there, and a few more with what its
//! feeds have, sent when that changes.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
    stream::{Config, DiscardPolicy, StorageType, Stream},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::StreamExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::error::BoxError;
use crate::feed::{Attendance, Elsewhere};

/// The bucket's stream, and what its subjects begin with: those of a bucket of that name.
const STREAM: &str = "KV_h3cast_presence";
const SUBJECTS: &str = "$KV.h3cast_presence";
/// How often changes are told.
const TELL: Duration = Duration::from_secs(2);
/// How often a server shows that it is there.
const ALIVE: Duration = Duration::from_secs(5);
/// After that time without it, it is gone.
const GONE: Duration = Duration::from_secs(15);
/// How long the bucket keeps what is not sent again, and how often all of it is.
const KEPT: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(50);
/// How long to wait where there is no bucket, or where it may not be used.
const RETRY: Duration = Duration::from_secs(30);
/// In how many keys the feeds of a server are: 10,000 feeds make messages of some 30 kB.
const PARTS: u64 = 16;

/// The viewers and publications of feeds, by subject.
type Part = BTreeMap<String, (u64, u64)>;

/// What is known over one connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Presence(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// With how many copies the bucket may be made, if it may.
    replicas: Option<usize>,
    /// The others are heard.
    hears: AtomicBool,
    here: Mutex<Vec<(String, Attendance)>>,
    others: Mutex<HashMap<String, Other>>,
    telling: Mutex<Option<AbortOnDropHandle<()>>>,
}

#[derive(Debug)]
struct Other {
    alive: Instant,
    parts: HashMap<u64, Part>,
}

/// Whether a subject is one of the bucket's, or of requests about it: without permission there is no presence, and
/// that is no fault.
pub(super) fn is_about(subject: &str) -> bool {
    subject.contains("h3cast_presence")
}

fn part_of(subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish() % PARTS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Presence {
    pub(super) fn new(replicas: Option<usize>) -> Self {
        let known = Known {
            replicas,
            hears: AtomicBool::default(),
            here: Mutex::default(),
            others: Mutex::default(),
            telling: Mutex::default(),
        };
        Self(Arc::new(known))
    }

    /// Tells of a feed from now on, until it is gone.
    pub(super) fn add(&self, jetstream: &jetstream::Context, subject: &str, attendance: Attendance) {
        lock(&self.0.here).push((subject.to_owned(), attendance));
        lock(&self.0.telling).get_or_insert_with(|| {
            let telling = tell(Arc::downgrade(&self.0), jetstream.clone());
            AbortOnDropHandle::new(tokio::spawn(telling))
        });
    }

    /// What the others have of a subject, if they are heard.
    pub(super) fn elsewhere(&self, subject: &str) -> Option<Elsewhere> {
        if !self.0.hears.load(Ordering::Relaxed) {
            return None;
        }
        let mut all = Elsewhere::default();
        let part = part_of(subject);
        for other in lock(&self.0.others).values().filter(|other| other.alive.elapsed() < GONE) {
            if let Some((viewers, publishers)) = other.parts.get(&part).and_then(|part| part.get(subject)) {
                all.add(*viewers, *publishers);
            }
        }
        Some(all)
    }
}

impl Known {
    /// The feeds that have viewers or publications, in their parts.
    fn here(&self) -> HashMap<u64, Part> {
        let mut parts: HashMap<u64, Part> = (0..PARTS).map(|part| (part, Part::default())).collect();
        lock(&self.here).retain(|(subject, attendance)| {
            let Some((viewers, publishers)) = attendance.now() else { return false };
            if viewers + publishers > 0 {
                let of = parts.entry(part_of(subject)).or_default().entry(subject.clone()).or_default();
                (of.0, of.1) = (of.0 + viewers, of.1 + publishers);
            }
            true
        });
        parts
    }

    /// Notes a message: `ID` or `ID.PART` after the subjects' beginning.
    fn hear(&self, own: &str, subject: &str, payload: &[u8]) {
        let Some(key) = subject.strip_prefix(SUBJECTS).and_then(|key| key.strip_prefix('.')) else { return };
        let (id, part) = key.split_once('.').map_or((key, None), |(id, part)| (id, part.parse().ok()));
        if id == own {
            return;
        }
        let mut others = lock(&self.others);
        others.retain(|_, other| other.alive.elapsed() < KEPT);
        let now = Instant::now();
        // One of which only the feeds are known yet is not there before it has shown that it is.
        let unseen = now.checked_sub(GONE).unwrap_or(now);
        let other = others.entry(id.to_owned()).or_insert_with(|| Other { alive: unseen, parts: HashMap::new() });
        match part {
            None => other.alive = now,
            Some(part) if part < PARTS => {
                other.parts.insert(part, serde_json::from_slice(payload).unwrap_or_default());
            }
            Some(_) => {}
        }
    }
}

/// The bucket, made if it may be.
async fn bucket(jetstream: &jetstream::Context, replicas: Option<usize>) -> Result<Stream<()>, BoxError> {
    let found = jetstream.get_stream(STREAM).await;
    if let (Err(_), Some(replicas)) = (&found, replicas) {
        let config = Config {
            name: STREAM.into(),
            subjects: vec![format!("{SUBJECTS}.>")],
            max_messages_per_subject: 1,
            max_age: KEPT,
            duplicate_window: KEPT,
            num_replicas: replicas,
            storage: StorageType::Memory,
            discard: DiscardPolicy::New,
            deny_delete: true,
            allow_rollup: true,
            allow_direct: true,
            max_messages: -1,
            max_bytes: 256 << 20,
            ..Config::default()
        };
        jetstream.create_stream(config).await?;
    } else {
        found?;
    }
    Ok(jetstream.get_stream_no_info(STREAM).await?)
}

/// Tells and hears, as long as the feeds are there.
async fn tell(known: Weak<Known>, jetstream: jetstream::Context) {
    let mut id = [0; 9];
    let _ = crate::identity::provider().secure_random.fill(&mut id);
    let id = URL_SAFE_NO_PAD.encode(id);
    while let Some(replicas) = known.upgrade().map(|known| known.replicas) {
        let ended = match bucket(&jetstream, replicas).await {
            Ok(bucket) => session(&known, &jetstream, &bucket, &id).await,
            Err(error) => Err(error),
        };
        let heard = known.upgrade().is_some_and(|known| known.hears.swap(false, Ordering::Relaxed));
        if let Err(error) = ended {
            debug!("the servers of feeds on NATS don't hear of each other's viewers: {error}");
        }
        sleep(if heard { TELL } else { RETRY }).await;
    }
}

async fn session(
    known: &Weak<Known>,
    jetstream: &jetstream::Context,
    bucket: &Stream<()>,
    id: &str,
) -> Result<(), BoxError> {
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::LastPerSubject,
        filter_subject: format!("{SUBJECTS}.>"),
        ..Default::default()
    };
    let mut messages = bucket.create_consumer(config).await?.messages().await?;
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut alive, mut all) = (HashMap::new(), None::<Instant>, Instant::now());
    loop {
        tokio::select! {
            message = messages.next() => {
                let message = message.ok_or("its consumer is gone")??;
                let Some(known) = known.upgrade() else { return Ok(()) };
                known.hear(id, &message.subject, &message.payload);
                known.hears.store(true, Ordering::Relaxed);
            }
            _ = ticks.tick() => {
                let Some(here) = known.upgrade().map(|known| known.here()) else { return Ok(()) };
                let client = jetstream.client();
                let is_again = all.elapsed() >= AGAIN;
                if is_again {
                    all = Instant::now();
                }
                for (number, part) in here {
                    let is_news = told.get(&number).map_or(!part.is_empty(), |before| *before != part);
                    if is_news || (is_again && !part.is_empty()) {
                        let text = serde_json::to_vec(&part)?;
                        client.publish(format!("{SUBJECTS}.{id}.{number}"), text.into()).await?;
                        told.insert(number, part);
                    }
                }
                if alive.is_none_or(|alive| alive.elapsed() >= ALIVE) {
                    alive = Some(Instant::now());
                    client.publish(format!("{SUBJECTS}.{id}"), "{}".into()).await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn viewers(presence: &Presence) -> (u64, u64, u64) {
        let all = presence.elsewhere("h3cast.log").unwrap_or_default();
        (all.viewers, all.publishers, all.servers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_gone() {
        let presence = Presence::new(None);
        assert_eq!(presence.elsewhere("h3cast.log"), None, "nothing is known");
        presence.0.hears.store(true, Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(100)).await;
        let hear = |key: &str, text: &str| presence.0.hear("own", &format!("{SUBJECTS}.{key}"), text.as_bytes());
        let part = part_of("h3cast.log");
        for (id, viewers) in [("one", 2), ("two", 3), ("own", 100)] {
            hear(&format!("{id}.{part}"), &format!("{{\"h3cast.log\":[{viewers},1]}}"));
        }
        assert_eq!(viewers(&presence), (0, 0, 0), "what is kept of a server that is gone");
        hear("one", "{}");
        hear("two", "{}");
        assert_eq!(viewers(&presence), (5, 2, 2));
        tokio::time::advance(Duration::from_secs(10)).await;
        hear("two", "{}");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(viewers(&presence), (3, 1, 1));
        hear(&format!("two.{part}"), "not what it should be");
        hear("two.17", "{}");
        assert_eq!(viewers(&presence), (0, 0, 0));
    }
}
