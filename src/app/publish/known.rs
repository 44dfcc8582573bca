//! What has been published under which key, so that a publication that comes again goes on where
//! it was.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Problem;
use crate::chunk::Cursor;

/// How many keys are remembered.
const MAX_KEYS: usize = 64 * 1024;
/// How long a key is remembered at least after its last request.
const KEEP: Duration = Duration::from_secs(600);

/// The name of a feed, and a key.
type PublicationKey = (String, String);

/// Publications by their keys.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    records: Mutex<HashMap<PublicationKey, Record>>,
    /// Tells that a request has ended.
    ended: Notify,
}

#[derive(Debug)]
struct Record {
    progress: Extent,
    /// Ends its request, while one runs.
    running: Option<CancellationToken>,
    /// When its last request ended.
    touched: Instant,
}

/// What a publication has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Its first chunk.
    pub(super) first: Option<Cursor>,
    /// Its last one; those of other publishers may stand between.
    pub(super) last: Option<Cursor>,
    pub(super) chunks: u64,
    /// Bytes, from the beginning of the publication.
    pub(super) bytes: u64,
}

/// One request of a publication. Dropping it, as when the client goes away, notes how far it came.
#[derive(Debug)]
pub(super) struct PublicationRequest {
    known: Arc<Ledger>,
    key: Option<PublicationKey>,
    progress: Extent,
    skip: u64,
    replaced: CancellationToken,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<PublicationKey, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a request of the publication with that key, whose body begins at `offset`. One that
    /// runs already gives way: its client has most likely gone without a word. What is kept `elsewhere`
    /// may have been published to other servers too.
    pub(super) async fn begin(
        self: &Arc<Self>,
        feed: &str,
        key: Option<String>,
        offset: Option<u64>,
        elsewhere: bool,
    ) -> Result<PublicationRequest, Problem> {
        let key = key.map(|key| (feed.to_owned(), key));
        let offset = offset.unwrap_or_default();
        let replaced = CancellationToken::new();
        let progress = match &key {
            None => Extent::default(),
            Some(key) => loop {
                let ended = self.ended.notified();
                let known = self.try_begin(key, offset, elsewhere, &replaced)?;
                match known {
                    Some(progress) => break progress,
                    None => ended.await,
                }
            },
        };
        Ok(PublicationRequest { known: self.clone(), key, progress, skip: progress.bytes - offset, replaced })
    }

    /// `None` while another request runs, which has been told to end.
    fn try_begin(
        &self,
        key: &PublicationKey,
        offset: u64,
        elsewhere: bool,
        replaced: &CancellationToken,
    ) -> Result<Option<Extent>, Problem> {
        let mut known = self.lock();
        if let Some(record) = known.get_mut(key) {
            if let Some(running) = &record.running {
                running.cancel();
                return Ok(None);
            }
            // Of a key that has only been asked for, no more is known than of a new one.
            if offset > record.progress.bytes && (elsewhere || record.progress.bytes == 0) {
                record.progress.bytes = offset;
            }
            if offset > record.progress.bytes {
                let text = format!(
                    "the body begins at byte {offset}, and {} bytes have been published under this Idempotency-Key",
                    record.progress.bytes
                );
                return Err(Problem::new(StatusCode::CONFLICT, text));
            }
            record.running = Some(replaced.clone());
            return Ok(Some(record.progress));
        }
        if known.len() >= MAX_KEYS {
            known.retain(|_, record| record.running.is_some() || record.touched.elapsed() < KEEP);
        }
        if known.len() >= MAX_KEYS {
            let text = "too many Idempotency-Keys are in use: try again later, or publish without one";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, text.into()));
        }
        // What came before was published to a server that did not end as this one began.
        let progress = Extent { bytes: offset, ..Extent::default() };
        known.insert(key.clone(), Record { progress, running: Some(replaced.clone()), touched: Instant::now() });
        Ok(Some(progress))
    }
}

impl PublicationRequest {
    /// How many bytes of the body have been published before.
    pub(super) fn skip(&self) -> u64 {
        self.skip
    }

    /// Cancelled when another request goes on with the publication.
    pub(super) fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }

    /// Whether it may be gone on with, by its key.
    pub(super) fn is_known(&self) -> bool {
        self.key.is_some()
    }

    /// By what the chunk that comes next is known, when the publication comes again, here or to another
    /// server: where it begins. The body may be cut otherwise then.
    pub(super) fn id(&self) -> Option<String> {
        let (feed, key) = self.key.as_ref()?;
        Some(format!("{feed}/{key}/{}", self.progress.bytes))
    }

    pub(super) fn progress(&self) -> Extent {
        self.progress
    }

    pub(super) fn add(&mut self, cursor: Cursor, bytes: usize) {
        self.progress.first.get_or_insert(cursor);
        self.progress.last = Some(cursor);
        self.progress.chunks += 1;
        self.progress.bytes += bytes as u64;
    }
}

impl Drop for PublicationRequest {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else { return };
        let record = Record { progress: self.progress, running: None, touched: Instant::now() };
        self.known.lock().insert(key, record);
        self.known.ended.notify_waiters();
    }
}
