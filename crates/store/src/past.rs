//! Reading chunks.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Seek, SeekFrom},
    sync::Arc,
};

use bytes::Bytes;
use h3cast_feed::{Chunk, Past};

use crate::{
    StoreError,
    error::At,
    record::{HEADER, Header, Record},
    regular,
    shared::Shared,
};

/// How many chunks are read at once, and how many bytes; one record is read even if it is larger.
const CHUNKS: usize = 512;
const BYTES: usize = 64 << 10;
/// How many readers' places are known.
const READERS: usize = 256;

/// Where to read.
enum Place {
    /// In that file, from there on, up to its end as it is now.
    In { first: u64, at: u64, end: u64, next: u64 },
    /// There is nothing, or nothing before that number.
    None { first: u64 },
}

impl Shared {
    /// Reads some chunks from `seq` on. Blocks.
    pub(crate) fn read(self: &Arc<Self>, seq: u64) -> Result<Past, StoreError> {
        loop {
            let place = self.place(seq);
            let Place::In { first, at, end, next } = place else {
                let Place::None { first } = place else { continue };
                return Ok(Past { first, chunks: Vec::new(), next: first.max(seq) });
            };
            match self.read_at(seq.max(first), first, (at, end), next) {
                // It was removed meanwhile.
                Err(StoreError::Io { error, .. }) if error.kind() == ErrorKind::NotFound && self.is_gone(first) => {}
                done => return done,
            }
        }
    }

    fn is_gone(&self, first: u64) -> bool {
        !self.lock().segments.iter().any(|segment| segment.first == first)
    }

    fn place(&self, seq: u64) -> Place {
        let mut state = self.lock();
        let first = state.first();
        let seq = seq.max(first);
        if seq >= state.visible {
            return Place::None { first };
        }
        let after = state.segments.partition_point(|segment| segment.first <= seq);
        let Some(segment) = after.checked_sub(1).and_then(|at| state.segments.get(at)) else {
            return Place::None { first };
        };
        if seq >= segment.next {
            // Numbers were left out: the next file begins after them.
            let first = state.segments.get(after).map_or(state.next, |segment| segment.first);
            return match state.segments.get(after) {
                Some(segment) if segment.next > first && first < state.visible => {
                    Place::In { first, at: 0, end: segment.len, next: segment.next.min(state.visible) }
                }
                _ => Place::None { first },
            };
        }
        let (name, near, end, next) = (segment.first, segment.near(seq), segment.len, segment.next.min(state.visible));
        let known = state.readers.iter().position(|(at, file, _)| (*at, *file) == (seq, name));
        let at = known.and_then(|at| state.readers.remove(at)).map_or(near, |(_, _, at)| at);
        Place::In { first: name, at, end, next }
    }

    /// Reads what is in one file.
    fn read_at(
        self: &Arc<Self>,
        seq: u64,
        name: u64,
        (mut at, end): (u64, u64),
        next: u64,
    ) -> Result<Past, StoreError> {
        let path = self.path(name);
        let mut file = regular::read(&path).at(&path)?;
        let (mut chunks, mut size, mut want, mut index) = (Vec::<Chunk>::new(), 0, BYTES, Vec::new());
        let mut expected = seq;
        'read: while at < end && expected < next && chunks.len() < CHUNKS && size < BYTES {
            let wanted = want.min((end - at) as usize);
            let bytes = Bytes::from(some(&mut file, at, wanted).at(&path)?);
            let (mut from, begun, before) = (0, at, chunks.len());
            want = BYTES;
            // What nobody may see yet may be taken back meanwhile.
            if bytes.len() < wanted && !is_whole(&bytes) {
                match chunks.is_empty() {
                    true => return self.damaged(seq, name, at, next),
                    false => break 'read,
                }
            }
            while from < bytes.len() && expected < next {
                let rest = bytes.slice(from..);
                let header = Header::read(&rest);
                if let Some(header) = header
                    && header.len() > rest.len()
                    && begun + ((from + header.len()) as u64) <= end
                {
                    want = header.len();
                    break;
                }
                if rest.len() < HEADER && begun + ((from + HEADER) as u64) <= end {
                    break;
                }
                let read = match header {
                    // Before what is asked for: its place is believed.
                    Some(header) if header.next() <= expected && header.count > 0 => Err(header),
                    Some(_) => Record::read(self.salt, &rest).ok_or(()).map_or(Err(Header::default()), Ok),
                    None => Err(Header::default()),
                };
                match read {
                    Err(header) if header.count > 0 => {
                        index.push((header.first, at));
                        from += header.len();
                    }
                    // Damaged: nothing after it in this file can be found.
                    Err(_) => {
                        if chunks.is_empty() {
                            return self.damaged(seq, name, at, next);
                        }
                        apart(&mut chunks[before..], bytes.len());
                        break 'read;
                    }
                    Ok(record) => {
                        if record.header.count > 0 {
                            index.push((record.header.first, at));
                        }
                        from += record.header.len();
                        let wanted = |chunk: &Chunk| (expected..next).contains(&chunk.seq);
                        let others = chunks.len();
                        chunks.extend(record.chunks().filter(wanted));
                        size += chunks[others..].iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
                        expected = record.header.next().max(expected);
                    }
                }
                at = begun + from as u64;
                if chunks.len() >= CHUNKS || size >= BYTES {
                    break;
                }
            }
            apart(&mut chunks[before..], bytes.len());
        }
        self.remember(name, expected, at, &index);
        // With none, numbers were left out before the next file.
        let first = chunks.first().map_or(next, |chunk| chunk.seq);
        let next = chunks.last().map_or(next, |chunk| chunk.seq + 1);
        Ok(Past { first, chunks, next })
    }

    /// Notes where records are, and where this reader is.
    fn remember(&self, name: u64, next: u64, at: u64, found: &[(u64, u64)]) {
        let mut state = self.lock();
        if state.readers.len() >= READERS {
            state.readers.pop_front();
        }
        state.readers.push_back((next, name, at));
        if let Some(segment) = state.segments.iter_mut().find(|segment| segment.first == name) {
            found.iter().for_each(|(first, at)| segment.note(*first, *at));
        }
    }

    /// Viewers are told that they miss the rest of the file.
    fn damaged(&self, seq: u64, name: u64, at: u64, next: u64) -> Result<Past, StoreError> {
        tracing::error!(
            file = %self.path(name).display(), at,
            "a file is damaged: viewers get a gap for the chunks {seq} to {}", next.saturating_sub(1),
        );
        Ok(Past { first: next, chunks: Vec::new(), next })
    }
}

/// Copies chunks that would keep much more in memory than themselves: what they were read into, of that length. Small ones
/// share that, if together they are most of it: viewers copy them.
fn apart(chunks: &mut [Chunk], buffer: usize) {
    let shares = |chunk: &Chunk| chunk.bytes.len() <= Past::SHARED || chunk.bytes.len() >= buffer / 2;
    let cost = |chunk: &Chunk| size_of::<Chunk>() + chunk.bytes.len();
    let all = chunks.iter().filter(|chunk| shares(chunk)).map(cost).sum::<usize>() < buffer / 2;
    for chunk in chunks.iter_mut().filter(|chunk| all || !shares(chunk)) {
        chunk.bytes = Bytes::copy_from_slice(&chunk.bytes);
    }
}

/// Reads that many bytes, or those that there are.
fn some(file: &mut File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::with_capacity(len);
    file.take(len as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a whole record is there.
fn is_whole(bytes: &[u8]) -> bool {
    Header::read(bytes).is_some_and(|header| header.len() <= bytes.len())
}
