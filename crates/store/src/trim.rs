//! Removing the beginning of a file, where less is to be kept than before and the file alone is more than that: what stays
//! is copied to a new one.

use std::{
    fs,
    io::{BufWriter, IntoInnerError, Write},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    Fsync, StoreError,
    error::At,
    files,
    notes::{self, Notes},
    record::{self, Record},
    regular,
    segment::{Records, Segment},
    shared::{Shared, State},
    store::Passage,
};

/// What is to be copied.
struct Trim {
    first: u64,
    len: u64,
    /// So much of it may stay at most, and at least unless a chunk is larger, in bytes.
    most: u64,
    least: u64,
}

impl Shared {
    /// Does so once after less is to be kept. Blocks, but others use the feed meanwhile.
    pub(crate) fn trim(self: &Arc<Self>) {
        let trimmed = self.begin_trim().and_then(|trim| match trim {
            Some(trim) => self.copy_rest(&trim),
            None => Ok(()),
        });
        if let Err(error) = trimmed {
            tracing::info!(feed = self.name, %error, "cannot remove the oldest chunks yet, of which less is to be kept now: trying again");
            // Others may make room; else, it goes with its file once enough came after it.
            self.lock().trims &= matches!(error, StoreError::Full(_));
        }
    }

    fn begin_trim(self: &Arc<Self>) -> Result<Option<Trim>, StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !state.trims || !self.may_trim(state) {
            return Ok(None);
        }
        self.retain(state);
        let bytes = state.retain.bytes.unwrap_or(u64::MAX);
        if self.size(state) <= bytes || state.first() == state.next {
            state.trims = false;
            return Ok(None);
        }
        if state.segments.len() == 1 {
            if self.common.options.fsync == Fsync::Always && (state.dirty || state.visible < state.next) {
                return Ok(None);
            }
            self.roll(state, true)?;
        }
        let Some(oldest) = state.segments.front() else { return Ok(None) };
        // With the notes of each file it is to be no more, if they leave that much; without them, it is not to be less.
        let others = |len: fn(&Segment) -> u64| state.segments.iter().skip(1).map(len).sum::<u64>();
        let most = bytes.saturating_sub(others(|segment| segment.len));
        let least = (bytes - bytes / 8).saturating_sub(others(Segment::body));
        Ok(Some(Trim { first: oldest.first, len: oldest.len, most, least }))
    }

    fn may_trim(&self, state: &State) -> bool {
        let is_usable = state.created && !state.closed && state.failed.is_none() && state.owed.is_none();
        is_usable && self.common.gate.passage() == Passage::Open
    }

    fn size(&self, state: &State) -> u64 {
        state.segments.iter().map(Segment::body).sum()
    }

    fn copy_rest(self: &Arc<Self>, trim: &Trim) -> Result<(), StoreError> {
        let path = self.path(trim.first);
        // The copy is not on the disk before it.
        regular::append(&path).and_then(|file| file.sync_data()).at(&path)?;
        let temporary = files::temporary(&path.with_extension("rest"));
        let copied = self.write_rest(&path, &temporary, trim);
        let done = copied.and_then(|copied| self.replace(trim, copied, &temporary));
        // Renamed, if all went well.
        let _ = fs::remove_file(&temporary);
        done
    }

    /// Writes what stays to another file. `None` if that is all of it.
    fn write_rest(&self, path: &Path, to: &Path, trim: &Trim) -> Result<Option<Segment>, StoreError> {
        let mut records = Records::open(path, self.salt).at(path)?;
        let (mut notes, mut left, mut newest) = (Notes::default(), trim.len, 0);
        let mut next = |left: u64| match records.next().at(path)? {
            Some(record) => Ok(record),
            None => Err(StoreError::Damaged { file: path.into(), at: trim.len - left }),
        };
        // Up to where that begins.
        let (record, first, all) = loop {
            let record = next(left)?;
            let after = left.saturating_sub(record.bytes().len() as u64);
            let begun = |notes: &mut Notes| {
                let mut all = notes.all();
                all.extend(notes::of_left_out(&notes.left_out));
                let mut bytes = Vec::new();
                record::write(&mut bytes, self.salt, (0, 0, newest), &[], &all);
                (all, trim.most.saturating_sub(bytes.len() as u64))
            };
            if record.header.count > 0 && (left <= trim.most || after < trim.least) {
                let (all, most) = begun(&mut notes);
                if left <= most {
                    break (record, 0, all);
                }
                if after < trim.least {
                    let first = begins(&record, most.saturating_sub(after), trim.least - after);
                    break (record, first, all);
                }
            }
            newest = if record.header.count > 0 { record.newest() } else { record.header.micros.max(newest) };
            record.notes().into_iter().for_each(|note| notes.apply(note));
            left = after;
        };
        if record.header.first + first as u64 == trim.first {
            return Ok(None);
        }
        let chunks: Vec<_> = record.chunks().collect();
        let (dropped, kept) = chunks.split_at(first);
        let before = record.header.before + dropped.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
        let begins = kept.first().map_or(record.header.first, |chunk| chunk.seq);
        let micros = kept.first().map_or(record.header.micros, h3cast_feed::Chunk::micros);
        let mut bytes = Vec::new();
        record::write(&mut bytes, self.salt, (begins, before, newest), &[], &all);
        let head = bytes.len() as u64;
        let mut segment = Segment { first: begins, next: begins, oldest: Some(micros), head, ..Segment::default() };
        segment.note(begins, bytes.len() as u64);
        let kept: Vec<(Bytes, u64)> = kept.iter().map(|chunk| (chunk.bytes.clone(), chunk.micros())).collect();
        record::write(&mut bytes, self.salt, (begins, before, micros), &kept, &record.notes());
        let mut file = BufWriter::new(regular::create(to).at(to)?);
        file.write_all(&bytes).at(to)?;
        (segment.len, segment.next) = (bytes.len() as u64, record.header.next());
        left = left.saturating_sub(record.bytes().len() as u64);
        while left > 0 {
            let record = next(left)?;
            if record.header.count > 0 {
                segment.note(record.header.first, segment.len);
            }
            file.write_all(record.bytes()).at(to)?;
            let len = record.bytes().len() as u64;
            (segment.len, segment.next, left) = (segment.len + len, record.header.next(), left.saturating_sub(len));
        }
        file.into_inner().map_err(IntoInnerError::into_error).and_then(|file| file.sync_all()).at(to)?;
        Ok(Some(segment))
    }

    /// Has the new file take the place of the old one, if that is still to be.
    fn replace(self: &Arc<Self>, trim: &Trim, copied: Option<Segment>, from: &Path) -> Result<(), StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if !self.may_trim(state) || state.segments.len() < 2 {
            return Ok(());
        }
        let Some(oldest) = state.segments.front_mut() else { return Ok(()) };
        if (oldest.first, oldest.len) != (trim.first, trim.len) {
            return Ok(());
        }
        if let Some(copied) = copied {
            let path = self.path(copied.first);
            fs::rename(from, &path).at(&path)?;
            files::sync_folder(&self.dir)?;
            *oldest = Segment { next: oldest.next, newest: oldest.newest, ..copied };
            state.doomed.push(self.path(trim.first));
        }
        state.trims = false;
        self.count(state);
        Ok(())
    }
}

/// With which of a record's chunks to begin so that at most so many bytes of it stay, but not less than `least`.
fn begins(record: &Record, most: u64, least: u64) -> usize {
    let sizes: Vec<_> = record.chunks().map(|chunk| chunk.bytes.len() as u64 + 8).collect();
    let all: u64 = sizes.iter().sum();
    // Its header and its notes stay.
    let (mut at, mut stays) = (sizes.len(), record.bytes().len() as u64 - all);
    while let Some(size) = at.checked_sub(1).and_then(|last| sizes.get(last))
        && (stays + size <= most || stays < least || at == sizes.len())
    {
        (at, stays) = (at - 1, stays + size);
    }
    at
}
