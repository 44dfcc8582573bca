//! How many view and write a feed over all servers: each tells the others in a bucket of JetStream's key-value store.
//! There is a key for each server, sent again and again, which shows that it is there, and a few more with what its
//! feeds have, sent when that changes.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
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
/// What the bucket may take: some 30 servers of which all have 10,000 feeds viewed, or thousands with fewer. Its server
/// sets all of it aside.
const BYTES: i64 = 16 << 20;
/// How many feeds are kept before those that are gone are looked for.
const FEW: usize = 64;

/// The viewers and publications of feeds, by subject.
type Part = BTreeMap<String, (u64, u64)>;

/// What is known over one connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Presence(Arc<Known>);

#[derive(Debug)]
struct Known {
    /// With how many copies the bucket may be made, if it may.
    replicas: Option<usize>,
    /// When the others were certain to be heard last.
    clock: Mutex<Option<Clock>>,
    here: Mutex<Here>,
    others: Mutex<HashMap<String, Other>>,
    telling: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// The feeds of this server, some of them gone.
#[derive(Debug, Default)]
struct Here {
    feeds: Vec<(String, Attendance)>,
    /// How many there were when those that are gone were dropped last.
    before: usize,
}

/// What time it was by the bucket's server when what this one had sent came back from it.
#[derive(Debug, Clone, Copy)]
struct Clock {
    told: SystemTime,
    heard: Instant,
}

#[derive(Debug)]
struct Other {
    /// When it was there last, which is known once there is a [`Clock`].
    alive: Option<Instant>,
    /// The same by the bucket's server.
    told: Option<SystemTime>,
    /// When a message of it came last.
    heard: Instant,
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
            clock: Mutex::default(),
            here: Mutex::default(),
            others: Mutex::default(),
            telling: Mutex::default(),
        };
        Self(Arc::new(known))
    }

    /// Tells of a feed from now on, until it is gone.
    pub(super) fn add(&self, jetstream: &jetstream::Context, subject: &str, attendance: Attendance) {
        lock(&self.0.here).add(subject, attendance);
        lock(&self.0.telling).get_or_insert_with(|| {
            let telling = tell(Arc::downgrade(&self.0), jetstream.clone());
            AbortOnDropHandle::new(tokio::spawn(telling))
        });
    }

    /// What the others have of a subject, if they are heard.
    pub(super) fn elsewhere(&self, subject: &str) -> Option<Elsewhere> {
        // What may be heard but not told would be half of the truth.
        lock(&self.0.clock).filter(|clock| clock.heard.elapsed() < GONE)?;
        let mut all = Elsewhere::default();
        let part = part_of(subject);
        for other in lock(&self.0.others).values().filter(|other| other.is_there()) {
            if let Some((viewers, publishers)) = other.parts.get(&part).and_then(|part| part.get(subject)) {
                all.add(*viewers, *publishers);
            }
        }
        Some(all)
    }
}

impl Here {
    fn add(&mut self, subject: &str, attendance: Attendance) {
        // Where nothing is told, nothing else drops those that are gone.
        if self.feeds.len() >= FEW.max(self.before * 2) {
            self.feeds.retain(|(_, attendance)| attendance.now().is_some());
            self.before = self.feeds.len();
        }
        self.feeds.push((subject.to_owned(), attendance));
    }
}

impl Clock {
    /// When it was that time by the bucket's server.
    fn at(&self, told: SystemTime) -> Option<Instant> {
        let now = Instant::now();
        let ago = (self.told + self.heard.elapsed()).duration_since(told).unwrap_or_default();
        now.checked_sub(ago)
    }
}

impl Other {
    fn is_there(&self) -> bool {
        self.alive.is_some_and(|alive| alive.elapsed() < GONE)
    }

    /// Notes when it was there, by the clock that is known now.
    fn tell(&mut self, clock: Option<Clock>) {
        let shown = clock.zip(self.told).and_then(|(clock, told)| clock.at(told));
        self.alive = self.alive.max(shown);
    }
}

impl Known {
    /// The feeds that have viewers or publications, in their parts.
    fn here(&self) -> HashMap<u64, Part> {
        let mut parts: HashMap<u64, Part> = (0..PARTS).map(|part| (part, Part::default())).collect();
        lock(&self.here).feeds.retain(|(subject, attendance)| {
            let Some((viewers, publishers)) = attendance.now() else { return false };
            if viewers + publishers > 0 {
                let of = parts.entry(part_of(subject)).or_default().entry(subject.clone()).or_default();
                (of.0, of.1) = (of.0 + viewers, of.1 + publishers);
            }
            true
        });
        parts
    }

    /// Notes that what this server has sent came back, and when the bucket took it.
    fn came_back(&self, told: SystemTime) {
        let clock = Some(Clock { told, heard: Instant::now() });
        *lock(&self.clock) = clock;
        lock(&self.others).values_mut().for_each(|other| other.tell(clock));
    }

    /// Notes a message, and when the bucket took it: `ID` or `ID.PART` after the subjects' beginning.
    fn hear(&self, own: &str, subject: &str, payload: &[u8], told: SystemTime) {
        let Some(key) = subject.strip_prefix(SUBJECTS).and_then(|key| key.strip_prefix('.')) else { return };
        let (id, part) = key.split_once('.').map_or((key, None), |(id, part)| (id, part.parse().ok()));
        if id == own {
            return;
        }
        let clock = *lock(&self.clock);
        let mut others = lock(&self.others);
        others.retain(|_, other| other.heard.elapsed() < KEPT);
        let heard = Instant::now();
        let other = others.entry(id.to_owned()).or_insert_with(|| Other {
            alive: None,
            told: None,
            heard,
            parts: HashMap::new(),
        });
        other.heard = heard;
        match part {
            // The bucket keeps it for a while after that server is gone: only its time shows that it is there.
            None => {
                other.told = Some(told);
                other.tell(clock);
            }
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
            max_bytes: BYTES,
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
    let mut number = 0_u64;
    while let Some(replicas) = known.upgrade().map(|known| known.replicas) {
        number += 1;
        let ended = match bucket(&jetstream, replicas).await {
            Ok(bucket) => session(&known, &jetstream, &bucket, &id, number).await,
            Err(error) => Err(error),
        };
        let heard = known.upgrade().is_some_and(|known| lock(&known.clock).take().is_some());
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
    number: u64,
) -> Result<(), BoxError> {
    let own = format!("{SUBJECTS}.{id}");
    // What was sent before this session is in the bucket, too.
    let here = format!("{{\"session\":{number}}}");
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
                let told = SystemTime::from(message.info()?.published);
                let Some(known) = known.upgrade() else { return Ok(()) };
                match *message.subject == own && message.payload == here.as_bytes() {
                    true => known.came_back(told),
                    false => known.hear(id, &message.subject, &message.payload, told),
                }
            }
            _ = ticks.tick() => {
                let Some(feeds) = known.upgrade().map(|known| known.here()) else { return Ok(()) };
                let client = jetstream.client();
                let is_again = all.elapsed() >= AGAIN;
                if is_again {
                    all = Instant::now();
                }
                for (number, part) in feeds {
                    let is_news = told.get(&number).map_or(!part.is_empty(), |before| *before != part);
                    if is_news || (is_again && !part.is_empty()) {
                        let text = serde_json::to_vec(&part)?;
                        client.publish(format!("{SUBJECTS}.{id}.{number}"), text.into()).await?;
                        told.insert(number, part);
                    }
                }
                if alive.is_none_or(|alive| alive.elapsed() >= ALIVE) {
                    alive = Some(Instant::now());
                    client.publish(own.clone(), here.clone().into()).await?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{Feed, Lag};

    fn viewers(presence: &Presence) -> (u64, u64, u64) {
        let all = presence.elsewhere("h3cast.log").unwrap_or_default();
        (all.viewers, all.publishers, all.servers)
    }

    /// Counted from the first one, by the bucket's server.
    fn told(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_gone() {
        let presence = Presence::new(None);
        let hear = |key: &str, text: &str, at: u64| {
            presence.0.hear("own", &format!("{SUBJECTS}.{key}"), text.as_bytes(), told(at));
        };
        let part = part_of("h3cast.log");
        for (id, viewers) in [("one", 2), ("two", 3), ("dead", 50), ("own", 100)] {
            hear(&format!("{id}.{part}"), &format!("{{\"h3cast.log\":[{viewers},1]}}"), 1000);
        }
        // What the bucket had: that server has said nothing for 20 s.
        hear("dead", "{}", 1000);
        hear("one", "{}", 1018);
        hear("two", "{}", 1019);
        assert_eq!(presence.elsewhere("h3cast.log"), None, "what this server tells has not come back");
        presence.0.came_back(told(1020));
        assert_eq!(viewers(&presence), (5, 2, 2));
        tokio::time::advance(Duration::from_secs(10)).await;
        presence.0.came_back(told(1030));
        hear("two", "{}", 1030);
        assert_eq!(viewers(&presence), (5, 2, 2));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(viewers(&presence), (3, 1, 1));
        // After the connection was lost for a while, what was missed comes late.
        hear("one", "{}", 1018);
        assert_eq!(viewers(&presence), (3, 1, 1));
        hear(&format!("two.{part}"), "not what it should be", 1036);
        hear("two.17", "{}", 1036);
        assert_eq!(viewers(&presence), (0, 0, 0));
        tokio::time::advance(Duration::from_secs(10)).await;
        hear("two", "{}", 1046);
        assert_eq!(presence.elsewhere("h3cast.log"), None, "what this server tells comes back no more");
    }

    /// Clients that ask for feeds of made-up names must not fill the memory where there is no bucket.
    #[tokio::test]
    async fn feeds_that_are_gone_are_dropped() {
        let presence = Presence::new(None);
        let lasting: Vec<_> = (0..100).map(|_| Feed::live("lasting", 0, Lag::Skip).0).collect();
        for feed in &lasting {
            lock(&presence.0.here).add("h3cast.lasting", feed.attendance());
        }
        for _ in 0..5000 {
            let (feed, _publisher) = Feed::live("gone", 0, Lag::Skip);
            lock(&presence.0.here).add("h3cast.gone", feed.attendance());
        }
        let here = lock(&presence.0.here);
        assert!(here.feeds.len() <= 201, "{}", here.feeds.len());
        assert_eq!(here.feeds.iter().filter(|(subject, _)| subject == "h3cast.lasting").count(), 100);
    }
}
