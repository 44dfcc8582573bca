//! The files of a feed's records. Each begins with a record that has no chunks and all notes of that time, so that
//! nothing before it is needed to continue it.

mod mend;

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use tracing::warn;

pub(crate) use self::mend::{Mend, Mends, mend};
use crate::{
    StoreError,
    error::At,
    files::{self, NUMBERS},
    notes::Notes,
    record::{HEADER, Header, MAGIC, Record},
    regular,
};

/// Every so many bytes of a file, where its records are is noted.
const STEP: u64 = 64 << 10;

/// One file.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    /// The number of its first chunk.
    pub(crate) first: u64,
    /// The number after its last chunk.
    pub(crate) next: u64,
    /// Its length, in bytes.
    pub(crate) len: u64,
    /// So much of that is its first record, with the notes of the time when it was begun.
    pub(crate) head: u64,
    /// When its first chunk was published, in microseconds since 1970, if that is known.
    pub(crate) oldest: Option<u64>,
    /// When its last chunk was published, in microseconds since 1970.
    pub(crate) newest: u64,
    /// Some of its records: their first numbers, and where they are.
    pub(crate) index: Vec<(u64, u64)>,
}

impl Segment {
    /// What it has that no other file has, in bytes: what was stored while it was the last one.
    pub(crate) fn body(&self) -> u64 {
        self.len.saturating_sub(self.head)
    }

    /// Notes that a record with chunks is at `at`.
    pub(crate) fn note(&mut self, first: u64, at: u64) {
        if self.index.last().is_none_or(|(_, last)| at >= last + STEP) {
            self.index.push((first, at));
        }
    }

    /// Where a record is from which on the chunk `seq` is found.
    pub(crate) fn near(&self, seq: u64) -> u64 {
        let after = self.index.partition_point(|(first, _)| *first <= seq);
        after.checked_sub(1).and_then(|at| self.index.get(at)).map_or(0, |(_, at)| *at)
    }
}

pub(crate) fn path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.records"))
}

/// What was found in a feed's folder.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) segments: Vec<Segment>,
    pub(crate) next: u64,
    /// The size of all chunks that there have been, in bytes.
    pub(crate) total: u64,
    pub(crate) notes: Notes,
    /// Something was cut off that may have been whole once.
    pub(crate) cut: bool,
    /// What has to be done to the files before anything is written to them.
    pub(crate) mends: Mends,
}

/// What is known of files before they are looked at.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known {
    /// All chunks before this number are on the disk: if they are damaged, that is an error, and nothing is changed.
    pub(crate) synced: u64,
    /// A power loss may have torn what was written later: what follows a damaged record is cut off.
    pub(crate) torn: bool,
    /// They are a copy, and may have been copied one after another while they were written. So one may end before what is
    /// known to be on the disk, within a record.
    pub(crate) copied: bool,
}

/// Looks at the files of a feed, and repairs the end of the last one if a write broke off there. If the disk is too full to
/// repair it, that is left in `mends`.
pub(crate) fn find(dir: &Path, salt: u32, known: Known) -> Result<Found, StoreError> {
    let mut found = look(dir, salt, known)?;
    match mend(dir, &mut found.mends) {
        // What is whole can be read.
        Err(StoreError::Full(_)) => warn!(
            dir = %dir.display(),
            "the end of a file is incomplete, as after a crash, and the disk is too full to move it aside: what is before it is served, and publishers of all feeds are refused until there is room",
        ),
        mended => mended?,
    }
    Ok(found)
}

/// Looks at the files of a feed, as they are once they are mended. Nothing is changed.
fn look(dir: &Path, salt: u32, known: Known) -> Result<Found, StoreError> {
    let Known { synced, torn, .. } = known;
    let mut found = Found::default();
    for first in numbers(dir)? {
        let path = path(dir, first);
        let len = fs::symlink_metadata(&path).at(&path)?.len();
        found.segments.push(Segment { first, next: first, len, ..Segment::default() });
    }
    // After a power loss, more than the last file may not be on the disk.
    let last = found.segments.len().saturating_sub(1);
    let doubtful = found.segments.partition_point(|segment| segment.first < synced).saturating_sub(1);
    let mut from = if torn { doubtful.min(last) } else { last };
    if from > 0 {
        let path = path(dir, found.segments[0].first);
        let began = began(&path, salt, found.segments[0].first).at(&path)?;
        found.segments[0].head = began.map_or(0, |began| began.head());
    }
    for at in 0..from {
        let path = path(dir, found.segments[at + 1].first);
        let began = began(&path, salt, found.segments[at + 1].first).at(&path)?;
        let began = began.ok_or(StoreError::Damaged { file: path, at: 0 });
        // What begins in doubt is looked at below.
        let began = if at + 1 < from { began? } else { began.unwrap_or_default() };
        found.segments[at].newest = began.micros;
        found.segments[at + 1].head = began.head();
        found.segments[at].next = found.segments[at + 1].first;
    }
    let (mut at, mut reached, mut removed) = (from, 0, Vec::new());
    while at < found.segments.len() {
        let whole = scan(dir, salt, at, known, &mut found)?;
        if found.segments[at].len == 0 {
            let segment = found.segments.remove(at);
            removed.push(Mend::Remove(path(dir, segment.first)));
            reached = reached.max(segment.first);
            if at == from && at > 0 && at == found.segments.len() {
                // The one before it is the last one now. How far it goes was taken from the name of the one that is gone.
                (at, from) = (at - 1, at - 1);
            }
        } else {
            at += 1;
        }
        if !whole && at < found.segments.len() {
            // They were written later, and what is before them is lost.
            // The last one goes first: whatever is done of that, the next look finds the rest.
            let later = found.segments.drain(at..).map(|segment| Mend::Aside(path(dir, segment.first)));
            later.for_each(|aside| found.mends.push_front(aside));
        }
    }
    // After what may have to wait for room: until it is done, the names say which numbers may have been given.
    found.mends.extend(removed);
    // Numbers up to there may have been given.
    found.next = found.next.max(reached);
    Ok(found)
}

fn numbers(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir).at(dir)? {
        let name = entry.at(dir)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".records")?.parse::<u64>().ok());
        // Another name is none that a file was given.
        let Some(first) = number.filter(|first| *first < files::MOST && path(dir, *first).ends_with(&name)) else {
            continue;
        };
        if first > NUMBERS {
            return Err(StoreError::Damaged { file: path(dir, first), at: 0 });
        }
        numbers.push(first);
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What the first record of a file states, if it is whole, and that of a file which begins with that number.
fn began(path: &Path, salt: u32, first: u64) -> io::Result<Option<Header>> {
    let record = Records::open(path, salt)?.next()?;
    Ok(record.map(|record| record.header).filter(|header| header.first == first))
}

/// Reads a file to its end. Whether nothing is to be cut off.
fn scan(dir: &Path, salt: u32, at: usize, known: Known, found: &mut Found) -> Result<bool, StoreError> {
    let file = path(dir, found.segments[at].first);
    let mut records = Records::open(&file, salt).at(&file)?;
    let segment = &mut found.segments[at];
    (segment.next, segment.newest, segment.index) = (segment.first, 0, Vec::new());
    let mut end = 0;
    let mut notes = Notes::default();
    while let Some(record) = records.next().at(&file)? {
        let header = record.header;
        if header.first != segment.next {
            break;
        }
        record.notes().into_iter().for_each(|note| notes.apply(note));
        if end == 0 {
            segment.head = header.head();
        }
        if header.count > 0 {
            segment.note(header.first, end);
            segment.oldest.get_or_insert(header.micros);
        }
        segment.next = header.next();
        segment.newest = segment.newest.max(if header.count > 0 { record.newest() } else { header.micros });
        found.total = header.before + record.size() as u64;
        end += header.len() as u64;
    }
    found.next = segment.next;
    if end > 0 {
        found.notes = notes;
    }
    let rest = records.rest(end).at(&file)?;
    if rest.is_empty() {
        return Ok(true);
    }
    let damaged = || StoreError::Damaged { file: file.clone(), at: end };
    let follows = follows(salt, &rest, found.next);
    // A record that is there in full was whole once, unless the power went.
    let cut = follows || !is_beginning(&rest);
    if (found.next < known.synced && (cut || !known.copied)) || (!known.torn && follows) {
        return Err(damaged());
    }
    found.cut |= cut;
    let kept = rest.iter().any(|byte| *byte != 0);
    found.mends.push_back(Mend::Cut { file, end, kept });
    found.segments[at].len = end;
    Ok(false)
}

/// Where the record of a file ends that has the chunk before the number `next`.
pub(crate) fn end(path: &Path, salt: u32, next: u64) -> io::Result<u64> {
    let mut records = Records::open(path, salt)?;
    let mut end = 0;
    while let Some(record) = records.next()?
        && record.header.next() <= next
    {
        end += record.header.len() as u64;
    }
    Ok(end)
}

/// The records of a file, one after another, so that no more of it is in memory than one of them.
pub(crate) struct Records {
    file: BufReader<File>,
    salt: u32,
    /// How much of it is left, in bytes.
    left: u64,
}

impl Records {
    pub(crate) fn open(path: &Path, salt: u32) -> io::Result<Self> {
        let file = regular::read(path)?;
        let left = file.metadata()?.len();
        Ok(Self { file: BufReader::new(file), salt, left })
    }

    /// `None` at the end, and where a record is damaged or not whole.
    pub(crate) fn next(&mut self) -> io::Result<Option<Record>> {
        let mut bytes = vec![0; HEADER];
        if self.left < HEADER as u64 {
            return Ok(None);
        }
        self.file.read_exact(&mut bytes)?;
        let Some(len) = Header::read(&bytes).map(|header| header.len()).filter(|len| *len as u64 <= self.left) else {
            return Ok(None);
        };
        bytes.resize(len, 0);
        self.file.read_exact(&mut bytes[HEADER..])?;
        self.left -= len as u64;
        Ok(Record::read(self.salt, &bytes.into()))
    }

    /// What is in the file from there on.
    fn rest(&mut self, from: u64) -> io::Result<Bytes> {
        let mut rest = Vec::new();
        self.file.seek(SeekFrom::Start(from))?;
        self.file.read_to_end(&mut rest)?;
        Ok(rest.into())
    }
}

/// Whether this may be the beginning of a record that is not there in full.
fn is_beginning(rest: &[u8]) -> bool {
    match rest.len() < HEADER {
        true => rest.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic),
        false => Header::read(rest).is_some_and(|header| header.len() > rest.len()),
    }
}

/// Whether a whole record follows later.
fn follows(salt: u32, rest: &Bytes, next: u64) -> bool {
    let mut from = 1;
    while let Some(at) = rest.get(from..).and_then(|rest| rest.windows(MAGIC.len()).position(|four| four == MAGIC)) {
        let at = from + at;
        if Record::read(salt, &rest.slice(at..)).is_some_and(|record| record.header.first >= next) {
            return true;
        }
        from = at + 1;
    }
    false
}
