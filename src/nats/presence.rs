//! How many view and write a feed over all servers: each tells the others in a bucket of JetStream's key-value store.
//! There is a key for each connection of a server, sent again and again, which shows that it is there, and a few more
//! with what its feeds have, sent when that changes.

mod bucket;
mod listener;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_nats::jetstream;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use bucket::bucket;
use listener::Listener;

use super::{
    client::Current,
    connection::{Link, LinkState},
    error::BoxError,
};
use crate::feed::{Attendance, Elsewhere};

/// The bucket's stream, and what its subjects begin with: those of a bucket of that name.
pub(super) const STREAM: &str = "KV_h3cast_presence";
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
/// How long to wait where there never was a bucket, or where it may not be used.
const RETRY: Duration = Duration::from_secs(30);
/// The longest time between two tries where there was one.
const LONGEST_AGAIN: Duration = Duration::from_secs(5);
/// After so many tries in vain people are told. Servers that start need some.
const TRIES: u32 = 5;
/// How long what a server sends may take to come back before it opens the bucket anew.
const RETURNS: Duration = Duration::from_secs(10);
/// In how many keys the feeds of a server are: 10,000 feeds make messages of some 30 kB.
const PARTS: u64 = 16;
/// How many feeds are kept before those that are gone are looked for.
const FEW: usize = 64;

/// Who tells. A server that reaches one system by several addresses has several connections to it, each of which tells
/// of its own feeds.
#[derive(Debug, Clone)]
pub(super) struct Teller {
    server: String,
    connections: Arc<AtomicU64>,
}

/// The viewers and publications of feeds, by subject.
type Part = BTreeMap<String, (u64, u64)>;

/// What is known over one connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Presence(Arc<Known>);

#[derive(Debug)]
struct Known {
    own: String,
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
    /// By subject, so that none is looked for among all of them: a list of feeds asks for each. A subject has several
    /// where a feed was started again.
    feeds: HashMap<String, Vec<Attendance>>,
    count: usize,
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

/// The server that tells under this id: all of it, if it is that of an older version.
fn server_of(id: &str) -> &str {
    id.split_once('=').map_or(id, |(server, _)| server)
}

fn part_of(subject: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    subject.hash(&mut hasher);
    hasher.finish() % PARTS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Teller {
    /// A server that is no other.
    fn default() -> Self {
        let mut id = [0; 9];
        let _ = crate::identity::provider().secure_random.fill(&mut id);
        Self { server: URL_SAFE_NO_PAD.encode(id), connections: Arc::default() }
    }
}

impl Teller {
    /// The id of another of its connections: `SERVER=CONNECTION`.
    pub(super) fn connection(&self) -> String {
        format!("{}={}", self.server, self.connections.fetch_add(1, Ordering::Relaxed))
    }
}

impl Presence {
    pub(super) fn new(own: String, replicas: Option<usize>) -> Self {
        let known = Known {
            own,
            replicas,
            clock: Mutex::default(),
            here: Mutex::default(),
            others: Mutex::default(),
            telling: Mutex::default(),
        };
        Self(Arc::new(known))
    }

    /// Tells of a feed from now on, until it is gone.
    pub(super) fn add(&self, link: &Link, subject: &str, attendance: Attendance) {
        lock(&self.0.here).add(subject, attendance);
        lock(&self.0.telling).get_or_insert_with(|| {
            let telling = tell(Arc::downgrade(&self.0), link.clients(), link.state.clone());
            AbortOnDropHandle::new(tokio::spawn(telling))
        });
    }

    /// What the others have of a subject, if they are heard.
    pub(super) fn elsewhere(&self, subject: &str) -> Option<Elsewhere> {
        // What may be heard but not told would be half of the truth.
        lock(&self.0.clock).filter(|clock| clock.heard.elapsed() < GONE)?;
        let part = part_of(subject);
        let mut servers = HashMap::<_, (u64, u64)>::new();
        let others = lock(&self.0.others);
        for (id, other) in others.iter().filter(|(_, other)| other.is_there()) {
            if let Some((viewers, publishers)) = other.parts.get(&part).and_then(|part| part.get(subject)) {
                let of = servers.entry(server_of(id)).or_default();
                *of = (of.0.saturating_add(*viewers), of.1.saturating_add(*publishers));
            }
        }
        let mut all = Elsewhere::default();
        for (server, (viewers, publishers)) in servers {
            let before = all.servers;
            all.add(viewers, publishers);
            // This one is counted with the viewers of this connection.
            if server == server_of(&self.0.own) && lock(&self.0.here).viewers(subject) > 0 {
                all.servers = before;
            }
        }
        Some(all)
    }
}

impl Here {
    fn add(&mut self, subject: &str, attendance: Attendance) {
        // Where nothing is told, nothing else drops those that are gone.
        if self.count >= FEW.max(self.before * 2) {
            self.each(|_, _, _| {});
            self.before = self.count;
        }
        self.feeds.entry(subject.to_owned()).or_insert_with(|| Vec::with_capacity(1)).push(attendance);
        self.count += 1;
    }

    /// Looks at all feeds with their viewers and publications, and drops those that are gone.
    fn each(&mut self, mut look: impl FnMut(&str, u64, u64)) {
        self.feeds.retain(|subject, of| {
            of.retain(|attendance| attendance.now().inspect(|now| look(subject, now.0, now.1)).is_some());
            !of.is_empty()
        });
        self.count = self.feeds.values().map(Vec::len).sum();
    }

    /// How many view a subject.
    fn viewers(&self, subject: &str) -> u64 {
        let of = self.feeds.get(subject).into_iter().flatten();
        of.filter_map(Attendance::now).map(|(viewers, _)| viewers).sum()
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
        lock(&self.here).each(|subject, viewers, publishers| {
            if viewers + publishers > 0 {
                let of = parts.entry(part_of(subject)).or_default().entry(subject.to_owned()).or_default();
                (of.0, of.1) = (of.0 + viewers, of.1 + publishers);
            }
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
    fn hear(&self, subject: &str, payload: &[u8], told: SystemTime) {
        let Some(key) = subject.strip_prefix(SUBJECTS).and_then(|key| key.strip_prefix('.')) else { return };
        let (id, part) = key.split_once('.').map_or((key, None), |(id, part)| (id, part.parse().ok()));
        if id == self.own {
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

/// Tells and hears, as long as the feeds are there.
async fn tell(known: Weak<Known>, clients: watch::Receiver<Arc<Current>>, state: watch::Receiver<LinkState>) {
    let (mut number, mut losses) = (0_u64, state.borrow().losses);
    // How often it failed since it was heard last, once it was heard at all.
    let mut failures = None::<u32>;
    while let Some((id, replicas)) = known.upgrade().map(|known| (known.own.clone(), known.replicas)) {
        number += 1;
        // An error would mean that the connection is gone, as it is when its feeds are.
        let _ = state.clone().wait_for(|state| state.connected).await;
        let now = clients.borrow().clone();
        let jetstream = &now.jetstream;
        let ended = match bucket(jetstream, replicas).await {
            Ok(bucket) => {
                let before = std::mem::replace(&mut losses, state.borrow().losses);
                let listener = Listener::new(jetstream, &bucket, (state.clone(), losses), before != losses).await;
                match listener {
                    Ok(listener) => session(&known, jetstream, listener, &id, number).await,
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        let heard = known.upgrade().is_some_and(|known| lock(&known.clock).take().is_some());
        failures = if heard { Some(0) } else { failures.map(|failures| failures.saturating_add(1)) };
        if let Err(error) = ended {
            let text = "the servers of feeds on NATS don't hear of each other's viewers";
            match failures {
                Some(TRIES) => warn!("{text}: trying again: {error}"),
                _ => debug!("{text}: {error}"),
            }
        }
        // What is in the bucket may have cost the connection.
        let again = if losses == state.borrow().losses { RETRY } else { TELL };
        sleep(failures.map_or(again, |failures| (TELL / 2 * (failures + 1).min(TRIES)).min(LONGEST_AGAIN))).await;
    }
}

async fn session(
    known: &Weak<Known>,
    jetstream: &jetstream::Context,
    mut listener: Listener<'_>,
    id: &str,
    number: u64,
) -> Result<(), BoxError> {
    let own = format!("{SUBJECTS}.{id}");
    // What was sent before this session is in the bucket, too.
    let here = format!("{{\"session\":{number}}}");
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut alive, mut all) = (HashMap::new(), None::<Instant>, Instant::now());
    let mut returned = Instant::now();
    loop {
        tokio::select! {
            message = listener.next() => {
                let Some((subject, payload, told)) = message? else { continue };
                let Some(known) = known.upgrade() else { return Ok(()) };
                match subject == own && payload == here.as_bytes() {
                    true => {
                        returned = Instant::now();
                        known.came_back(told);
                    }
                    false => known.hear(&subject, &payload, told),
                }
            }
            _ = ticks.tick() => {
                let Some(feeds) = known.upgrade().map(|known| known.here()) else { return Ok(()) };
                // Its consumer may wait for a bucket that is gone, and what is sent there is lost.
                if returned.elapsed() >= RETURNS {
                    return Err("what is sent to the bucket does not come back".into());
                }
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
        let presence = Presence::new("own".into(), None);
        let hear = |key: &str, text: &str, at: u64| {
            presence.0.hear(&format!("{SUBJECTS}.{key}"), text.as_bytes(), told(at));
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

    /// One that reaches a system by several addresses.
    #[tokio::test]
    async fn a_server_is_counted_once() {
        let presence = Presence::new("own=0".into(), None);
        let part = part_of("h3cast.log");
        for (id, viewers) in [("one=0", 2), ("one=1", 3), ("two", 4), ("own=0", 50), ("own=1", 5)] {
            for (key, text) in
                [(format!("{id}.{part}"), format!("{{\"h3cast.log\":[{viewers},1]}}")), (id.into(), "{}".into())]
            {
                presence.0.hear(&format!("{SUBJECTS}.{key}"), text.as_bytes(), told(1000));
            }
        }
        presence.0.came_back(told(1001));
        assert_eq!(viewers(&presence), (14, 4, 3), "its other connection has viewers, and this one none");
        let (feed, _publisher) = Feed::live("log", 1000, Lag::Skip);
        lock(&presence.0.here).add("h3cast.log", feed.attendance());
        let _viewer = feed.view(crate::feed::Start::Now, None);
        assert_eq!(viewers(&presence), (14, 4, 2), "it is counted with the viewers here");
    }

    /// Clients that ask for feeds of made-up names must not fill the memory where there is no bucket.
    #[tokio::test]
    async fn feeds_that_are_gone_are_dropped() {
        let presence = Presence::new(Teller::default().connection(), None);
        let lasting: Vec<_> = (0..100).map(|_| Feed::live("lasting", 0, Lag::Skip).0).collect();
        for feed in &lasting {
            lock(&presence.0.here).add("h3cast.lasting", feed.attendance());
        }
        for _ in 0..5000 {
            let (feed, _publisher) = Feed::live("gone", 0, Lag::Skip);
            lock(&presence.0.here).add("h3cast.gone", feed.attendance());
        }
        let here = lock(&presence.0.here);
        assert!(here.count <= 201, "{}", here.count);
        assert_eq!(here.feeds.values().map(Vec::len).sum::<usize>(), here.count);
        assert_eq!(here.feeds["h3cast.lasting"].len(), 100);
    }
}
