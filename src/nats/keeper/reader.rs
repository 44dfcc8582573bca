//! Reads on for viewers that keep reading what is older than the ring.
//!
//! A message that a consumer brings costs NATS two thirds of what it costs by a Direct Get, and the same is true of
//! the edge, since there is no header to parse. But a stream takes only so many consumers. So few viewers have one at a time:
//! those who have read some pieces by then, and only until they pause.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_nats::jetstream::consumer::pull;
use futures_util::{FutureExt, StreamExt};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    task::unconstrained,
    time::{Instant, sleep, timeout},
};

use super::{
    AGAIN, JetStream, chunk,
    consumer::{INACTIVE, Own},
    past::{READ_BYTES, READ_CHUNKS},
    seq,
};
use crate::{
    chunk::{Chunk, Epoch},
    feed::{Keeper, Past},
    nats::{connection::Link, error::KeepError, leader::First},
};

/// After how many pieces a viewer has a consumer, if there is a place; and after how many, if one was of no use.
const SOON: u32 = 4;
const LATE: u32 = 64;
const NEVER: u32 = u32::MAX;
/// What a consumer brings before it is asked for. While half of it is on its way, as much again is requested.
const AHEAD_CHUNKS: usize = 4096;
const AHEAD_BYTES: usize = 512 << 10;
/// How many pieces wait to be checked, and to be asked for.
const PIECES: usize = 2;
/// How far at most it has read beyond what its viewer has, in chunks: what is on its way, and the pieces that are
/// gathered, are being checked, or wait.
pub(super) const REACH: usize = AHEAD_CHUNKS / 2 * 3 + (3 * PIECES + 2) * READ_CHUNKS;
/// The largest chunk that a consumer is of use for. One that is larger than what is requested is refused, and the client
/// requests it again at once.
const LARGEST: usize = AHEAD_BYTES / 4;
/// How long a piece is waited for. What has not come by then is read otherwise.
const PIECE: Duration = Duration::from_millis(250);
/// How long the first piece is, which the consumer is created for.
const FIRST: Duration = Duration::from_secs(1);
/// How long a viewer may pause.
const PAUSE: Duration = Duration::from_secs(2);
/// How many viewers' places are known.
const RUNS: usize = 1024;
/// How many consumers a stream takes where it does not say so.
const CONSUMERS: i64 = 1000;

/// Who reads on where, by the number of what is read next.
#[derive(Debug, Default)]
pub(super) struct Runs(Mutex<HashMap<(Epoch, u64), Run>>);

/// Readings of one viewer, each of which follows the one before.
#[derive(Debug)]
pub(super) struct Run {
    pieces: u32,
    /// After so many there is a consumer: never once a chunk was too large for one.
    due: u32,
    reader: Option<mpsc::Sender<Asked>>,
    at: Instant,
}

/// Where the next piece goes.
type Asked = oneshot::Sender<Vec<Chunk>>;

impl Runs {
    fn lock(&self) -> MutexGuard<'_, HashMap<(Epoch, u64), Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that has come to there, or a new one.
    pub(super) fn take(&self, epoch: Epoch, next: u64) -> Run {
        let known = self.lock().remove(&(epoch, next)).filter(|run| run.at.elapsed() < PAUSE);
        known.unwrap_or_else(|| Run { pieces: 0, due: SOON, reader: None, at: Instant::now() })
    }

    /// It has come to the end of that.
    pub(super) fn put(&self, epoch: Epoch, past: &Past, mut run: Run) {
        (run.pieces, run.at) = (run.pieces.saturating_add(1), Instant::now());
        if past.chunks.iter().any(|chunk| chunk.bytes.len() > LARGEST) {
            (run.pieces, run.due, run.reader) = (0, NEVER, None);
        }
        let mut runs = self.lock();
        if runs.len() >= RUNS {
            runs.retain(|_, run| run.at.elapsed() < PAUSE);
        }
        if runs.len() < RUNS {
            runs.insert((epoch, past.next), run);
        }
    }
}

impl Run {
    /// Its viewer is served otherwise: a consumer would stay where that began.
    pub(super) fn stop(&mut self) {
        self.reader = None;
    }
}

impl JetStream {
    /// Some chunks from `next` on, by the consumer of a viewer that has read on to there: none is left out between
    /// them, nor before them. `None` if it has none, or what it brings does not follow.
    pub(super) async fn read_on(self: &Arc<Self>, run: &mut Run, wanted: Epoch, next: u64) -> Option<Vec<Chunk>> {
        let mut patience = PIECE * 2;
        if run.reader.is_none() && run.pieces >= run.due {
            let place = self.connection.readers.clone().try_acquire_owned().ok()?;
            let (asked_tx, asked_rx) = mpsc::channel(1);
            // It ends with its viewer, or when that pauses.
            tokio::spawn(self.clone().bring(wanted, next, asked_rx, place));
            (run.reader, patience) = (Some(asked_tx), FIRST);
        }
        let reader = run.reader.take()?;
        let asked = async {
            let (answer_tx, answer_rx) = oneshot::channel();
            reader.send(answer_tx).await.ok()?;
            answer_rx.await.ok()
        };
        let chunks = timeout(patience, asked).await.ok().flatten().unwrap_or_default();
        let follows = |first: &Chunk| first.seq == next || (self.is_sparse() && first.seq > next);
        // What was purged since it was brought is not given out.
        if chunks.first().is_some_and(|first| follows(first) && first.seq >= self.first_of(wanted)) {
            run.reader = Some(reader);
            return Some(chunks);
        }
        (run.pieces, run.due) = (0, run.due.max(LATE));
        None
    }

    /// The first number that the stream of that epoch has, as its leader has said last.
    fn first_of(&self, wanted: Epoch) -> u64 {
        let First { epoch, number } = *self.leader.first().borrow();
        if epoch == wanted.0 { seq(number) } else { 0 }
    }

    /// Brings the pieces that are asked for, by a consumer that is deleted at the end: its place is taken until then.
    async fn bring(
        self: Arc<Self>,
        wanted: Epoch,
        next: u64,
        asked: mpsc::Receiver<Asked>,
        place: OwnedSemaphorePermit,
    ) {
        let mut own = self.own();
        if let Err(error) = self.bring_by(&mut own, wanted, next, asked).await {
            tracing::debug!(%error, stream = self.stream.name, "a consumer for what is old is of no use");
        }
        let begun = Instant::now();
        let deleted = own.delete().await;
        // It goes by itself, if it is there. If not, its place stays taken for a while too: clients that read some
        // pieces and hang up would have the servers make and delete consumers all the time.
        sleep(if deleted { PAUSE } else { INACTIVE.saturating_sub(begun.elapsed()).max(PAUSE) }).await;
        drop(place);
    }

    async fn bring_by(
        &self,
        own: &mut Own,
        wanted: Epoch,
        next: u64,
        mut asked: mpsc::Receiver<Asked>,
    ) -> Result<(), KeepError> {
        // One after another: each would see that there is room for one more.
        let creating = self.connection.creating.acquire().await.map_err(KeepError::nats)?;
        if asked.is_closed() {
            return Ok(());
        }
        let info = self.info_of(wanted).await?;
        let most = Some(i64::from(info.config.max_consumers)).filter(|most| *most > 0).unwrap_or(CONSUMERS);
        // The others are for what fills rings.
        if i64::try_from(info.state.consumer_count).unwrap_or(i64::MAX) >= most / 2 {
            return Err(KeepError::Busy);
        }
        let losses = self.connection.losses();
        let consumer = self.create(own, next).await?;
        drop(creating);
        // It is of the stream that is there now: it would have gone with another.
        self.info_of(wanted).await?;
        let stream = consumer.stream().max_messages_per_batch(AHEAD_CHUNKS).max_bytes_per_batch(AHEAD_BYTES);
        let mut messages = stream.messages().await.map_err(KeepError::nats)?;
        let (is_sparse, connection) = (self.is_sparse(), &self.connection);
        let mut brought = Brought { next, sequence: 0, is_sparse, connection, losses, is_all: false, is_last: false };
        let (gathered_tx, mut gathered) = mpsc::channel::<Piece>(PIECES);
        let (whole_tx, mut whole) = mpsc::channel::<Piece>(PIECES);
        let gathering = {
            let brought = &mut brought;
            async move {
                let mut gathered = Ok(());
                while !brought.is_last {
                    match brought.piece(&mut messages).await {
                        // Nothing comes any more.
                        Ok(piece) if piece.chunks.is_empty() => {}
                        Ok(piece) => {
                            if gathered_tx.send(piece).await.is_err() {
                                return Ok(());
                            }
                        }
                        Err(error) => gathered = Err(error),
                    }
                }
                // What fetches messages goes on until they are dropped, also for a client that is gone.
                drop((gathered_tx, messages));
                self.suspect_next(brought).await;
                gathered
            }
        };
        let checking = async move {
            let mut some = Vec::new();
            while gathered.recv_many(&mut some, PIECES).await > 0 {
                if !self.are_whole(wanted, &some).await? {
                    return Ok(());
                }
                for piece in some.drain(..) {
                    if whole_tx.send(piece).await.is_err() {
                        return Ok(());
                    }
                }
            }
            Ok(())
        };
        // Its viewer has no answer, and does not read otherwise, before it is known what not to read so.
        let mut unanswered = None;
        // It ends with its viewer, or when that pauses, and the others end with it.
        let answering = async {
            while let Ok(Some(answer)) = timeout(PAUSE, asked.recv()).await {
                unanswered = Some(answer);
                let Some(piece) = whole.recv().await else { break };
                if unanswered.take().is_none_or(|answer| answer.send(piece.chunks).is_err()) {
                    break;
                }
            }
            drop(whole);
            Ok(())
        };
        let ended = tokio::try_join!(gathering, checking, answering).map(|_| ());
        if ended.is_err() {
            // Any of them may be the first to fail when the client is gone.
            self.suspect_next(&mut brought).await;
        }
        drop((asked, unanswered));
        ended
    }

    /// Suspects what would have come next if the connection has been lost, which is noticed in a moment.
    async fn suspect_next(&self, brought: &mut Brought<'_>) {
        let lost = self.connection.lost_since(brought.losses);
        if !brought.is_all && timeout(AGAIN, lost).await.is_ok() {
            self.spoiled.suspect(&self.subject, brought.next + 1);
        }
        brought.is_all = true;
    }

    /// Whether nothing was dropped at the start of pieces that would have been told. Numbers show that in a feed of
    /// its own stream; in another one the stream does, after they have come, and then what is true of the first is
    /// true of those that follow it.
    async fn are_whole(&self, wanted: Epoch, pieces: &[Piece]) -> Result<bool, KeepError> {
        let Some(first) = pieces.first().filter(|_| self.is_sparse()) else { return Ok(true) };
        Ok(seq(self.info_of(wanted).await?.state.first_sequence) <= first.from)
    }
}

/// What a consumer brings at once.
struct Piece {
    /// All from that number on.
    from: u64,
    chunks: Vec<Chunk>,
}

/// How far a consumer has come.
struct Brought<'a> {
    /// The feed's number of what comes next.
    next: u64,
    /// The consumer's number of what came last.
    sequence: u64,
    is_sparse: bool,
    connection: &'a Link,
    /// How often the connection had been lost when it is certain that nothing was for it: before the newest message
    /// that was waited for.
    losses: u64,
    /// It has nothing more to bring, or what is next was suspected.
    is_all: bool,
    /// It brings no more, for whatever reason.
    is_last: bool,
}

impl Brought<'_> {
    /// What comes next.
    async fn piece(&mut self, messages: &mut pull::Stream) -> Result<Piece, KeepError> {
        let mut piece = Piece { from: self.next, chunks: Vec::new() };
        let added = timeout(PIECE, self.add(messages, &mut piece.chunks)).await;
        // An error is the end as well.
        self.is_last = true;
        self.is_last = added.unwrap_or(Ok(piece.chunks.is_empty()))?;
        Ok(piece)
    }

    /// Adds what comes next to `chunks`, up to a whole piece. Returns whether that is all that this consumer brings.
    async fn add(&mut self, messages: &mut pull::Stream, chunks: &mut Vec<Chunk>) -> Result<bool, KeepError> {
        let mut size = 0;
        while size < READ_BYTES && chunks.len() < READ_CHUNKS {
            // What waits here already may have come before the connection was lost.
            let (losses, message) = match unconstrained(messages.next()).now_or_never() {
                Some(message) => (self.losses, message),
                None => (self.connection.losses(), messages.next().await),
            };
            let Some(message) = message else { return Ok(true) };
            let message = message.map_err(KeepError::nats)?;
            let about = message.info().map_err(KeepError::nats)?;
            let (sequence, pending) = (about.consumer_sequence, about.pending);
            let chunk = chunk(&message, &about);
            // It was lost on the way, or dropped by then, or the consumer has begun again.
            let follows = if self.is_sparse { chunk.seq >= self.next } else { chunk.seq == self.next };
            if sequence != self.sequence + 1 || !follows {
                return Ok(true);
            }
            (self.next, self.sequence, self.losses) = (chunk.seq + 1, sequence, losses);
            size += message.payload.len();
            chunks.push(chunk);
            // There may be more than that server has.
            if pending == 0 {
                self.is_all = true;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
