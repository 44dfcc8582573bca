//! The ways to keep chunks.

use std::{
    fs::{self, File},
    io::{BufReader, Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use fjall::{KeyspaceCreateOptions, PersistMode};
use redb::{Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::Result;

/// The size of each chunk.
pub(crate) const CHUNK: usize = 200;

/// When what is written is to be on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Never,
    Interval,
    Each,
}

pub(crate) trait Engine: Send + std::marker::Sync {
    fn next(&self) -> Result<u64>;
    fn append(&self, first: u64, count: u64) -> Result<()>;
    fn sync(&self) -> Result<()>;
    /// How many there are in order, and the last one.
    fn read(&self) -> Result<(u64, u64)>;
    fn retain(&self, keep: u64) -> Result<()>;
}

pub(crate) fn open(name: &str, dir: &Path, sync: Sync) -> Result<Arc<dyn Engine>> {
    fs::create_dir_all(dir)?;
    Ok(match name {
        "fjall" => Arc::new(Fjall::open(dir, sync)?),
        "redb" => Arc::new(Redb::open(dir, sync)?),
        "log" => Arc::new(Log::open(dir, sync)?),
        other => return Err(format!("unknown engine {other}").into()),
    })
}

fn value(first: u64, count: u64) -> Vec<u8> {
    let mut value = Vec::with_capacity(count as usize * CHUNK + 4);
    value.extend((count as u32).to_be_bytes());
    for seq in first..first + count {
        // Does not compress: engines are not to gain by that.
        let mut state = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for _ in 0..CHUNK / 8 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            value.extend(state.to_be_bytes());
        }
    }
    value
}

fn count(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |count| u64::from(u32::from_be_bytes(*count)))
}

fn number(key: &[u8]) -> u64 {
    key.first_chunk().map_or(0, |key| u64::from_be_bytes(*key))
}

/// Counts what is there in order.
#[derive(Default)]
struct Tally {
    chunks: u64,
    next: Option<u64>,
}

impl Tally {
    fn add(&mut self, first: u64, value: &[u8]) -> Result<()> {
        if self.next.is_some_and(|next| next != first) {
            return Err(format!("{first} follows {:?}", self.next).into());
        }
        // As it is for a viewer: each chunk has its own buffer.
        for chunk in value[4..].chunks(CHUNK) {
            std::hint::black_box(chunk.to_vec());
        }
        self.chunks += count(value);
        self.next = Some(first + count(value));
        Ok(())
    }

    fn done(&self) -> (u64, u64) {
        (self.chunks, self.next.unwrap_or(0).saturating_sub(1))
    }
}

struct Fjall {
    db: fjall::Database,
    chunks: fjall::Keyspace,
    sync: Sync,
}

impl Fjall {
    fn open(dir: &Path, sync: Sync) -> Result<Self> {
        let db = fjall::Database::builder(dir).cache_size(8 << 20).worker_threads(1).open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(16 << 20);
        let chunks = db.keyspace("chunks", options)?;
        Ok(Self { db, chunks, sync })
    }
}

impl Engine for Fjall {
    fn next(&self) -> Result<u64> {
        let Some(last) = self.chunks.last_key_value() else { return Ok(0) };
        let (key, value) = last.into_inner()?;
        Ok(number(&key) + count(&value))
    }

    fn append(&self, first: u64, count: u64) -> Result<()> {
        let mode = if self.sync == Sync::Each { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut batch = self.db.batch().durability(Some(mode));
        batch.insert(&self.chunks, first.to_be_bytes(), value(first, count));
        Ok(batch.commit()?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn read(&self) -> Result<(u64, u64)> {
        let mut tally = Tally::default();
        for entry in self.chunks.iter() {
            let (key, value) = entry.into_inner()?;
            tally.add(number(&key), &value)?;
        }
        Ok(tally.done())
    }

    fn retain(&self, keep: u64) -> Result<()> {
        let below = self.next()?.saturating_sub(keep).to_be_bytes();
        let keys: Vec<_> = self.chunks.range(..below).map(|entry| entry.key()).collect::<fjall::Result<_>>()?;
        for keys in keys.chunks(1000) {
            let mut batch = self.db.batch();
            keys.iter().for_each(|key| batch.remove(&self.chunks, key.clone()));
            batch.commit()?;
        }
        Ok(())
    }
}

const CHUNKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("chunks");

struct Redb {
    db: redb::Database,
    sync: Sync,
}

impl Redb {
    fn open(dir: &Path, sync: Sync) -> Result<Self> {
        let db = redb::Database::builder().set_cache_size(16 << 20).create(dir.join("store.redb"))?;
        let write = db.begin_write()?;
        write.open_table(CHUNKS)?;
        write.commit()?;
        Ok(Self { db, sync })
    }
}

impl Engine for Redb {
    fn next(&self) -> Result<u64> {
        let table = self.db.begin_read()?.open_table(CHUNKS)?;
        Ok(table.last()?.map_or(0, |(key, value)| key.value() + count(value.value())))
    }

    fn append(&self, first: u64, count: u64) -> Result<()> {
        let mut write = self.db.begin_write()?;
        // Without a sync a commit is not even given to the system: it is lost with the process.
        write.set_durability(if self.sync == Sync::Each { Durability::Immediate } else { Durability::None })?;
        write.open_table(CHUNKS)?.insert(first, &value(first, count)[..])?;
        Ok(write.commit()?)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.db.begin_write()?.commit()?)
    }

    fn read(&self) -> Result<(u64, u64)> {
        let mut tally = Tally::default();
        for entry in self.db.begin_read()?.open_table(CHUNKS)?.iter()? {
            let (key, value) = entry?;
            tally.add(key.value(), value.value())?;
        }
        Ok(tally.done())
    }

    fn retain(&self, keep: u64) -> Result<()> {
        let below = self.next()?.saturating_sub(keep);
        let write = self.db.begin_write()?;
        write.open_table(CHUNKS)?.retain_in(..below, |_, _| false)?;
        Ok(write.commit()?)
    }
}

/// Files of records, one after another: length, number of the first chunk, value.
struct Log {
    dir: PathBuf,
    sync: Sync,
    open: Mutex<Open>,
}

struct Open {
    file: File,
    len: u64,
    next: u64,
}

const SEGMENT: u64 = 16 << 20;

impl Log {
    fn open(dir: &Path, sync: Sync) -> Result<Self> {
        let mut tally = Tally::default();
        let mut last = None;
        for path in segments(dir)? {
            let len = scan(&path, |first, value| tally.add(first, value))?;
            last = Some((path, len));
        }
        let (path, len) = last.unwrap_or_else(|| (dir.join(format!("{:020}.log", 0)), 0));
        let file = File::options().append(true).create(true).open(path)?;
        file.set_len(len)?;
        let open = Mutex::new(Open { file, len, next: tally.next.unwrap_or(0) });
        Ok(Self { dir: dir.into(), sync, open })
    }
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = fs::read_dir(dir)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Goes through a file; gives where its last whole record ends.
fn scan(path: &Path, mut each: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<u64> {
    let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
    let (mut end, mut head, mut value) = (0, [0; 12], Vec::new());
    while reader.read_exact(&mut head).is_ok() {
        let len = u32::from_be_bytes(*head.first_chunk().unwrap_or(&[0; 4]));
        value.resize(len as usize, 0);
        if reader.read_exact(&mut value).is_err() {
            break;
        }
        each(number(&head[4..]), &value)?;
        end += 12 + u64::from(len);
    }
    Ok(end)
}

impl Engine for Log {
    fn next(&self) -> Result<u64> {
        Ok(self.open.lock().expect("no panic").next)
    }

    fn append(&self, first: u64, count: u64) -> Result<()> {
        let value = value(first, count);
        let mut record = Vec::with_capacity(value.len() + 12);
        record.extend((value.len() as u32).to_be_bytes());
        record.extend(first.to_be_bytes());
        record.extend(value);
        let mut open = self.open.lock().expect("no panic");
        if open.len > SEGMENT {
            if self.sync != Sync::Never {
                open.file.sync_data()?;
            }
            open.file = File::options().append(true).create(true).open(self.dir.join(format!("{first:020}.log")))?;
            open.len = 0;
        }
        if let Err(error) = open.file.write_all(&record) {
            open.file.set_len(open.len)?;
            return Err(error.into());
        }
        (open.len, open.next) = (open.len + record.len() as u64, first + count);
        if self.sync == Sync::Each {
            open.file.sync_data()?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let file = self.open.lock().expect("no panic").file.try_clone()?;
        Ok(file.sync_data()?)
    }

    fn read(&self) -> Result<(u64, u64)> {
        let mut tally = Tally::default();
        for path in segments(&self.dir)? {
            scan(&path, |first, value| tally.add(first, value))?;
        }
        Ok(tally.done())
    }

    fn retain(&self, keep: u64) -> Result<()> {
        let below = self.next()?.saturating_sub(keep);
        let mut paths = segments(&self.dir)?.into_iter().peekable();
        while let (Some(path), Some(after)) = (paths.next(), paths.peek()) {
            let first = after.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if first.is_some_and(|first: u64| first <= below) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}
