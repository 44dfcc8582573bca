//! What each viewer and reader has been given, compared with what there is.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use h3cast::chunk::{Cursor, Epoch};
use h3cast_proto::feed::{Gap, frames::Frame};

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// What is known of a feed, by all who have to do with it.
#[derive(Debug)]
pub(crate) struct Truth {
    pub(crate) feed: &'static str,
    pub(crate) stream: &'static str,
    epoch: OnceLock<Epoch>,
    /// The stream drops its oldest when it has more than that.
    pub(crate) max_messages: Option<u64>,
    /// What anybody has been given.
    given: Mutex<HashMap<u64, u64>>,
    /// The number after the newest that anybody has been given.
    end: AtomicU64,
    /// How many chunks there are at most: those that publishers have begun with.
    pub(crate) begun: AtomicU64,
    gaps: AtomicU64,
    /// The numbers from the first to before the second that somebody was given nothing of: those of other feeds.
    others: Mutex<Vec<(u64, u64, String)>>,
    wrong: Mutex<Vec<String>>,
}

impl Truth {
    /// Of a feed that is all of a stream of the same name.
    pub(crate) fn of(feed: &'static str, max_messages: Option<u64>) -> Arc<Self> {
        Self::within(feed, feed, max_messages)
    }

    /// Of one of the feeds of a stream.
    pub(crate) fn within(stream: &'static str, feed: &'static str, max_messages: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            feed,
            stream,
            epoch: OnceLock::new(),
            max_messages,
            given: Mutex::default(),
            end: AtomicU64::default(),
            begun: AtomicU64::default(),
            gaps: AtomicU64::default(),
            others: Mutex::default(),
            wrong: Mutex::default(),
        })
    }

    pub(crate) fn subject(&self) -> String {
        format!("h3cast.{}", self.feed)
    }

    /// Whether other feeds have numbers of its stream.
    pub(crate) fn is_sparse(&self) -> bool {
        self.stream != self.feed
    }

    pub(crate) fn end(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.epoch.get().copied()
    }

    fn wrong(&self, what: String) {
        eprintln!("WRONG: {what}");
        self.wrong.lock().unwrap().push(what);
    }

    /// The number before which the stream may have dropped chunks by now.
    fn dropped(&self) -> u64 {
        self.max_messages.map_or(0, |max| self.begun.load(Ordering::Relaxed).saturating_sub(max))
    }

    /// Fails unless all that was given is what the stream has in the end, and nothing else was wrong.
    pub(crate) fn compare(&self, kept: &[(u64, Vec<u8>)]) {
        let kept: HashMap<u64, u64> = kept.iter().map(|(seq, bytes)| (*seq, hash(bytes))).collect();
        let first = kept.keys().min().copied().unwrap_or_default();
        for (seq, given) in self.given.lock().unwrap().iter() {
            match kept.get(seq) {
                Some(kept) if kept == given => {}
                None if *seq < first && self.max_messages.is_some() => {}
                other => self.wrong(format!("{}: {seq} was given, and the stream has {other:?}", self.feed)),
            }
        }
        let mut numbers: Vec<_> = kept.keys().copied().collect();
        numbers.sort_unstable();
        for (from, to, who) in self.others.lock().unwrap().iter() {
            let lost = &numbers[numbers.partition_point(|seq| seq < from)..numbers.partition_point(|seq| seq < to)];
            if !lost.is_empty() {
                self.wrong(format!("{}: {who} got {to} after {from}, and was told of no gap: {lost:?}", self.feed));
            }
        }
        let wrong = self.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    }
}

/// Of one who reads a feed, over however many connections.
#[derive(Debug)]
pub(crate) struct Ledger {
    truth: Arc<Truth>,
    who: String,
    /// The number of the chunk that comes next, if it is known.
    next: Option<u64>,
    pub(crate) chunks: u64,
    pub(crate) missing: u64,
    pub(crate) stalled: bool,
    /// It has been told that numbers are left out.
    sparse: bool,
}

impl Ledger {
    /// Begins with the number `next`, or with the oldest there is.
    pub(crate) fn new(truth: &Arc<Truth>, who: String, next: Option<u64>) -> Self {
        Self { truth: truth.clone(), who, next, chunks: 0, missing: 0, stalled: false, sparse: false }
    }

    /// What to ask a server for.
    pub(crate) fn from(&self) -> String {
        match (self.truth.epoch(), self.next) {
            (Some(epoch), Some(next)) if next > 0 => Cursor { epoch, seq: next - 1 }.to_string(),
            _ => "start".into(),
        }
    }

    pub(crate) fn next(&self) -> u64 {
        self.next.unwrap_or_default()
    }

    fn wrong(&self, what: &str) {
        let (feed, next) = (self.truth.feed, self.next);
        self.truth.wrong(format!("{feed}: {}, who expects {next:?}: {what}", self.who));
    }

    /// Takes a frame; gives the chunk in it.
    pub(crate) fn take(&mut self, frame: Frame) -> Option<Bytes> {
        match frame {
            Frame::Begin { epoch, .. } => {
                let known = *self.truth.epoch.get_or_init(|| epoch);
                if epoch != known {
                    self.wrong(&format!("another epoch, {epoch} instead of {known}"));
                }
            }
            Frame::Chunk { seq, bytes, .. } => {
                match self.next {
                    Some(next) if seq > next && self.sparse => {
                        self.truth.others.lock().unwrap().push((next, seq, self.who.clone()));
                    }
                    Some(next) if seq > next => self.wrong(&format!("got {seq}, and was told of no gap")),
                    Some(next) if seq < next => self.wrong(&format!("got {seq} again, or too late")),
                    None if seq > 0 && self.truth.max_messages.is_none() => self.wrong(&format!("begins with {seq}")),
                    _ => {}
                }
                self.next = Some(seq + 1);
                self.chunks += 1;
                self.truth.end.fetch_max(seq + 1, Ordering::Relaxed);
                let hash = hash(&bytes);
                if *self.truth.given.lock().unwrap().entry(seq).or_insert(hash) != hash {
                    self.wrong(&format!("{seq} is not what another has got"));
                }
                return Some(bytes);
            }
            Frame::Gap(gap) => self.gap(gap),
            Frame::Stalled { stalled, .. } => self.stalled = stalled,
            Frame::Heartbeat => {}
            Frame::Sparse if self.truth.is_sparse() => self.sparse = true,
            other => self.wrong(&format!("{other:?}")),
        }
        None
    }

    fn gap(&mut self, gap: Gap) {
        let end = gap.from + gap.missing;
        if gap.restarted || self.next.is_some_and(|next| gap.from != next) {
            self.wrong(&format!("{gap:?}"));
        }
        // It covers what the stream has dropped, and no chunk more.
        let dropped = self.truth.dropped();
        if end > dropped {
            self.wrong(&format!("{gap:?}, while nothing from {dropped} on was dropped"));
        }
        self.next = Some(end);
        self.missing += gap.missing;
        self.truth.gaps.fetch_add(1, Ordering::Relaxed);
    }
}
