//! Writing chunks.

use std::{io::Write, sync::Arc, time::SystemTime};

use bytes::Bytes;
use h3cast_feed::{Chunk, Cursor, NewChunk, PublishError, PublishedAll, Receipt};
use tokio::sync::oneshot;

use crate::{
    Fsync, Note, StoreError, notes,
    record::{self, MAX_BODY},
    shared::{MOST_AHEAD, Shared, State, Waiting},
    store::Passage,
};

/// The largest chunk, in bytes.
pub(crate) const LARGEST_CHUNK: usize = 256 << 20;
/// So many chunks are one record at most, and so many bytes; one chunk may be larger. A record is read as a whole, and
/// stays in memory until the viewer that it was read for has taken it.
const RECORD_CHUNKS: usize = 1024;
const RECORD_BYTES: usize = 128 << 10;
/// Up to so many bytes are written at once where they are published: that takes microseconds. More are written by a
/// thread that may block.
const INLINE: usize = 64 << 10;

/// What is noted with chunks, once their numbers are known.
pub(crate) type Noting = Box<dyn FnOnce(&[Receipt]) -> Vec<Note> + Send>;

/// What has become of chunks.
pub(crate) enum Appended {
    Done(Vec<Receipt>),
    /// Written, and to be confirmed once it is on the disk.
    Wait(oneshot::Receiver<Result<Vec<Receipt>, StoreError>>),
    /// Nothing was done: it would block.
    Blocks,
    /// Nothing was done: the file is full, and the next begins once what waits for the disk is there.
    Later(oneshot::Receiver<Result<Vec<Receipt>, StoreError>>),
    /// Nothing was done: the store moves to another process, or this one does not have it yet.
    Held,
}

pub(crate) struct Batch {
    pub(crate) chunks: Vec<NewChunk>,
    pub(crate) noting: Option<Noting>,
}

impl Batch {
    /// Only as much as is written at once.
    fn bound(&mut self) -> Result<usize, PublishError> {
        let (mut size, mut count) = (0, 0);
        for chunk in &self.chunks {
            let len = chunk.bytes.len();
            if len > LARGEST_CHUNK {
                if count == 0 {
                    return Err(PublishError::TooLarge { size: len, max: LARGEST_CHUNK });
                }
                break;
            }
            if count > 0 && (count == RECORD_CHUNKS || size + len > RECORD_BYTES) {
                break;
            }
            (size, count) = (size + len, count + 1);
        }
        self.chunks.truncate(count);
        Ok(size)
    }
}

/// Does what may block where that may be. Fails if it panics, or the runtime ends.
async fn blocking<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(what).await.map_err(|_| StoreError::Closed)
}

impl Shared {
    pub(crate) async fn publish(self: Arc<Self>, mut batch: Batch) -> PublishedAll {
        let common = self.common.clone();
        let done = match batch.bound() {
            Ok(size) => match self.write(size, batch).await {
                Ok(receipts) => Ok(receipts),
                Err(error) => Err(blocking(move || common.why(error)).await.unwrap_or_else(|closed| closed).into()),
            },
            Err(error) => Err(error),
        };
        match done {
            Ok(receipts) => PublishedAll { receipts, error: None },
            Err(error) => PublishedAll { receipts: Vec::new(), error: Some(error) },
        }
    }

    async fn write(self: Arc<Self>, size: usize, mut batch: Batch) -> Result<Vec<Receipt>, StoreError> {
        loop {
            if !self.common.is_seen() {
                let common = self.common.clone();
                blocking(move || common.see()).await??;
            }
            let mut appended = match size <= INLINE {
                true => self.append(&mut batch, false)?,
                false => Appended::Blocks,
            };
            if matches!(appended, Appended::Blocks) {
                let shared = self.clone();
                let done = blocking(move || {
                    let appended = shared.append(&mut batch, true);
                    (batch, appended)
                });
                let done = done.await?;
                (batch, appended) = (done.0, done.1?);
            }
            match appended {
                Appended::Done(receipts) => return Ok(receipts),
                Appended::Wait(done) => return done.await.unwrap_or(Err(StoreError::Closed)),
                Appended::Later(room) => _ = room.await.unwrap_or(Err(StoreError::Closed))?,
                Appended::Held => self.common.gate.waited().await,
                Appended::Blocks => return Ok(Vec::new()),
            }
        }
    }

    /// Writes chunks, and gives them to viewers or has them wait for the disk. Unless it `may_block`, it only does what
    /// takes microseconds.
    pub(crate) fn append(self: &Arc<Self>, batch: &mut Batch, may_block: bool) -> Result<Appended, StoreError> {
        let mut guard = match may_block {
            true => self.lock(),
            false => match self.try_lock() {
                Some(state) => state,
                None => return Ok(Appended::Blocks),
            },
        };
        if may_block && guard.marking && !guard.has_room(batch.chunks.len() as u64) {
            guard = self.until_marked(guard);
        }
        let state = &mut *guard;
        match self.common.gate.passage() {
            Passage::Open => {}
            Passage::Held | Passage::Released => return Ok(Appended::Held),
            Passage::Moved => return Err(StoreError::Moved),
        }
        if state.closed || self.common.work.is_lost() {
            return Err(StoreError::Closed);
        }
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        self.common.has_room()?;
        state.has_numbers(batch.chunks.len() as u64)?;
        let always = self.common.options.fsync == Fsync::Always;
        let many = batch.chunks.len() as u64;
        let ready = state.file.is_some() && (always || state.has_room(many)) && !state.torn;
        let full = state.segments.back().is_none_or(|last| state.is_full(last));
        if always && full && state.file.is_some() && (state.dirty || state.visible < state.next) {
            // What may have to be taken back is in one file. It waits for the disk: so does this.
            return Ok(Appended::Later(self.wait(state, Vec::new(), Vec::new())));
        }
        if !ready || full {
            if !may_block {
                return Ok(Appended::Blocks);
            }
            self.create(state)?;
            if !always && !state.has_room(many) {
                // The store's thread did not in time.
                state.ahead = (2 * state.ahead).min(MOST_AHEAD);
                self.reserve(state, many)?;
            }
            match always && state.dirty {
                // The file is open.
                true if state.file.is_some() && !state.torn => {}
                _ => self.roll(state, false)?,
            }
        }
        let now = SystemTime::now();
        let (receipts, new) = self.number(state, &batch.chunks, now);
        let mut notes: Vec<record::Note> = Vec::new();
        for (chunk, receipt) in batch.chunks.iter().zip(&receipts) {
            if let Some(id) = &chunk.id
                && receipt.cursor.seq >= state.next
            {
                notes.push(notes::of_id(id.as_bytes(), receipt.cursor.seq, receipt.size as u64));
            }
        }
        if let Some(noting) = batch.noting.take() {
            notes.extend(noting(&receipts).into_iter().map(record::Note::from));
        }
        if new.is_empty() && notes.is_empty() {
            return Ok(Appended::Done(receipts));
        }
        self.put(state, &new, notes)?;
        self.dirty(state);
        let first = state.next - new.len() as u64;
        let chunks = new.into_iter().zip(first..).map(|((bytes, _), seq)| Chunk::published_at(seq, now, bytes));
        if always {
            return Ok(Appended::Wait(self.wait(state, chunks.collect(), receipts)));
        }
        state.visible = state.next;
        if let Some(filler) = &state.filler {
            filler.add_all(chunks);
        }
        Ok(Appended::Done(receipts))
    }

    /// Waits for the next sync.
    fn wait(
        self: &Arc<Self>,
        state: &mut State,
        chunks: Vec<Chunk>,
        receipts: Vec<Receipt>,
    ) -> oneshot::Receiver<Result<Vec<Receipt>, StoreError>> {
        self.dirty(state);
        let (done, wait) = oneshot::channel();
        state.waiting.push(Waiting { chunks, receipts, done });
        self.common.work.urge();
        if self.common.work.is_lost() {
            state.waiting.clear();
        }
        wait
    }

    /// Numbers chunks; those with an id that is known are those that were stored before. After one that is of another
    /// size than that, the caller has to look.
    fn number(&self, state: &State, chunks: &[NewChunk], now: SystemTime) -> (Vec<Receipt>, Vec<(Bytes, u64)>) {
        let (mut receipts, mut new) = (Vec::with_capacity(chunks.len()), Vec::with_capacity(chunks.len()));
        let micros = record::micros(now);
        for (at, chunk) in chunks.iter().enumerate() {
            let size = chunk.bytes.len();
            let earlier = chunk.id.as_deref().and_then(|id| {
                let known = state.notes.known(id).map(|(seq, size)| (seq, usize::try_from(size).unwrap_or(usize::MAX)));
                known.or_else(|| {
                    let at = chunks[..at].iter().position(|other| other.id.as_deref() == Some(id))?;
                    receipts.get(at).map(|receipt: &Receipt| (receipt.cursor.seq, receipt.size))
                })
            });
            let (seq, stored) = earlier.unwrap_or_else(|| {
                new.push((chunk.bytes.clone(), micros));
                (state.next + new.len() as u64 - 1, size)
            });
            receipts.push(Receipt { cursor: Cursor { epoch: self.epoch, seq }, size: stored });
            if stored != size {
                break;
            }
        }
        (receipts, new)
    }

    /// Writes a record to the last file.
    fn put(&self, state: &mut State, new: &[(Bytes, u64)], notes: Vec<record::Note>) -> Result<(), StoreError> {
        let (Some(file), Some(last)) = (state.file.clone(), state.segments.back_mut()) else {
            return Err(StoreError::Closed);
        };
        let mut buffer = std::mem::take(&mut state.buffer);
        buffer.clear();
        let micros = new.first().map_or(state.newest, |(_, micros)| *micros);
        record::write(&mut buffer, self.salt, (state.next, state.total, micros), new, &notes);
        let too_long = notes.iter().any(|note| note.key.len() > usize::from(u16::MAX));
        let written = match too_long || buffer.len() > MAX_BODY {
            true => Err(std::io::ErrorKind::InvalidInput.into()),
            false => (&*file).write_all(&buffer),
        };
        let len = buffer.len() as u64;
        if buffer.capacity() <= 2 * INLINE {
            state.buffer = buffer;
        }
        if let Err(error) = written {
            // If that fails too, it is tried again before the next write.
            let _ = self.take_back(state);
            return Err(StoreError::io(&self.dir, error));
        }
        if !new.is_empty() {
            last.note(state.next, last.len);
            last.oldest.get_or_insert(micros);
            last.newest = micros;
            state.newest = micros;
        }
        last.len += len;
        state.next += new.len() as u64;
        last.next = state.next;
        state.total += new.iter().map(|(bytes, _)| bytes.len() as u64).sum::<u64>();
        notes.into_iter().for_each(|note| state.notes.apply(note));
        state.used = std::time::Instant::now();
        self.bytes.fetch_add(len, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }
    /// Writes without anything being told of it.
    #[cfg(test)]
    pub(crate) fn put_for_test(&self, state: &mut State, batch: &mut Batch) {
        let (_, new) = self.number(state, &batch.chunks, SystemTime::now());
        let ids = batch.chunks.iter().filter_map(|chunk| Some((chunk.id.clone()?, chunk.bytes.len())));
        let notes = ids.map(|(id, size)| notes::of_id(id.as_bytes(), state.next, size as u64)).collect();
        self.put(state, &new, notes).expect("it is written");
    }
}
