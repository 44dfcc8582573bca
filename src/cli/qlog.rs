//! Traces of QUIC connections in files, one for each connection, for qvis and the like.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    Failure,
    log::{Tell, telling},
};
use crate::{fault, quic::QlogConnection};

/// Records that wait to be written; of some 200 bytes each.
const QUEUE: usize = 16 << 10;
/// The most files in the folder that this program has created, and what they may have together, in bytes. The oldest
/// ones are removed.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 1 << 30;
/// The most that one connection may have, in bytes. Its file ends there.
const LARGEST: u64 = 64 << 20;
/// Connections that are traced at once: each has an open file.
const MOST_OPEN: u64 = 256;
/// How often is looked whether records are still written.
const POLL: Duration = Duration::from_millis(10);

/// What the thread that writes is asked.
enum Message {
    /// To write a record. The first one of a trace creates its file.
    Record { trace: Arc<Trace>, record: Box<[u8]>, is_first: bool },
    /// To answer when all that was sent before is written.
    Flush(SyncSender<()>),
}

/// The traces of this process, for its end.
static QUEUE_OF: OnceLock<SyncSender<Message>> = OnceLock::new();
/// Records that were written, or failed.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Waits until all records are written, no longer than `pause` without one, and `most` in all.
pub(super) fn flush_while_written(pause: Duration, most: Duration) {
    let Some(records) = QUEUE_OF.get() else { return };
    let began = Instant::now();
    let (done_tx, done) = sync_channel(1);
    let mut asked = false;
    let (mut taken, mut since) = (TAKEN.load(Ordering::Relaxed), began);
    loop {
        // The queue may be full for now.
        asked = asked || records.try_send(Message::Flush(done_tx.clone())).is_ok();
        match TAKEN.load(Ordering::Relaxed) {
            now if now != taken => (taken, since) = (now, Instant::now()),
            _ => {}
        }
        let left = pause.saturating_sub(since.elapsed()).min(most.saturating_sub(began.elapsed()));
        if left.is_zero() || done.recv_timeout(left.min(POLL)).is_ok() {
            return;
        }
    }
}

/// Starts to write to this folder.
pub(super) async fn start(folder: PathBuf) -> Result<Traces, Failure> {
    let started = tokio::task::spawn_blocking(move || Traces::start(&folder).map_err(|error| refused(&folder, &error)));
    let traces = started.await.map_err(Failure::running)??;
    let _ = QUEUE_OF.set(traces.records.clone());
    Ok(traces)
}

/// Whether one could write to this folder. Nothing is created. Blocks.
pub(super) fn check(folder: &Path) -> Result<(), Failure> {
    writable(folder).map_err(|error| refused(folder, &error))
}

fn refused(folder: &Path, error: &io::Error) -> Failure {
    Failure::usage(anyhow::anyhow!("--qlog: cannot use {}: {error}", folder.display()))
}

/// Whether files can be created in a folder, or the folder itself where another one is.
fn writable(folder: &Path) -> io::Result<()> {
    let folder = std::path::absolute(folder)?;
    let there = folder.ancestors().find(|folder| std::fs::symlink_metadata(folder).is_ok());
    let there = there.unwrap_or(Path::new("/"));
    if !std::fs::metadata(there)?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    #[cfg(unix)]
    rustix::fs::access(there, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?;
    Ok(())
}

/// A folder of traces, and the thread that writes them.
pub(super) struct Traces {
    folder: PathBuf,
    records: SyncSender<Message>,
    open: Arc<AtomicU64>,
    /// Reports that records are lost.
    full: Arc<Mutex<Tell>>,
}

/// The trace of a connection. It lasts as long as the connection and its last record.
struct Trace {
    path: PathBuf,
    /// `None` before its first record, and when it could not be created, is as large as it may be, or was removed.
    file: Mutex<Option<File>>,
    open: Arc<AtomicU64>,
}

impl Trace {
    fn file(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Traces {
    /// Starts to write to this folder, which is created if it is not there.
    pub(super) fn start(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let what = format!("traces in {}", folder.display());
        let (mut files, mut failed) = (Files::find(folder)?, telling(what.clone()));
        let (records, taken): (SyncSender<Message>, Receiver<Message>) = sync_channel(QUEUE);
        thread::Builder::new().name("qlog".into()).spawn(move || {
            while let Ok(message) = taken.recv() {
                match message {
                    Message::Record { trace, record, is_first } => {
                        fault::point("qlog");
                        if let Err(error) = files.write(&trace, &record, is_first) {
                            failed(1, Some(&error));
                        }
                        TAKEN.fetch_add(1, Ordering::Relaxed);
                    }
                    Message::Flush(done) => {
                        // Those that were not told yet.
                        failed(0, None);
                        let _ = done.try_send(());
                    }
                }
            }
        })?;
        Ok(Self { folder: folder.to_owned(), records, open: Arc::default(), full: Arc::new(Mutex::new(telling(what))) })
    }

    /// Where a connection is traced to; `None` when too many are already.
    pub(super) fn of(&self, connection: &QlogConnection) -> Option<Box<dyn Write + Send + Sync>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if self.open.fetch_add(1, Ordering::Relaxed) >= MOST_OPEN {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let side = if connection.is_server { "server" } else { "client" };
        let id = connection.id.clone().filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| format!("{:08x}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let path = self.folder.join(format!("{millis:013}-{id}-{side}.sqlog"));
        let trace = Arc::new(Trace { path, file: Mutex::default(), open: self.open.clone() });
        let (records, full) = (self.records.clone(), self.full.clone());
        Some(Box::new(Lines { trace, records, full, header: None, has_begun: false }))
    }
}

/// Takes the records of one connection. It never blocks.
struct Lines {
    trace: Arc<Trace>,
    records: SyncSender<Message>,
    full: Arc<Mutex<Tell>>,
    /// The first record, for as long as there was no room for it: no tool reads a trace without.
    header: Option<Box<[u8]>>,
    /// The first record was taken.
    has_begun: bool,
}

impl Write for Lines {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let mut whole = self.header.as_deref().unwrap_or_default().to_vec();
        whole.extend_from_slice(record);
        let message = Message::Record { trace: self.trace.clone(), record: whole.into(), is_first: !self.has_begun };
        match self.records.try_send(message) {
            Ok(()) => (self.header, self.has_begun) = (None, true),
            Err(_) => {
                if !self.has_begun && self.header.is_none() {
                    self.header = Some(record.into());
                }
                self.full.lock().unwrap_or_else(PoisonError::into_inner)(1, None);
            }
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file in the folder that this program has created.
struct Found {
    path: PathBuf,
    size: u64,
    /// The trace that is written to it, while its connection lasts.
    trace: Weak<Trace>,
}

/// The files in the folder that this program has created, now or earlier, the oldest one first.
struct Files {
    all: VecDeque<Found>,
    /// The sum of their sizes.
    bytes: u64,
}

impl Files {
    fn find(folder: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_ours) && entry.file_type()?.is_file() {
                found.push(Found { path: entry.path(), size: entry.metadata()?.len(), trace: Weak::new() });
            }
        }
        // Their names begin with the time.
        found.sort_by(|one, other| one.path.cmp(&other.path));
        let bytes = found.iter().map(|found| found.size).sum();
        Ok(Self { all: found.into(), bytes })
    }

    fn write(&mut self, trace: &Arc<Trace>, record: &[u8], is_first: bool) -> io::Result<()> {
        if is_first {
            let mut options = OpenOptions::new();
            options.append(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
            *trace.file() = Some(options.open(&trace.path)?);
            self.all.push_back(Found { path: trace.path.clone(), size: 0, trace: Arc::downgrade(trace) });
        }
        let ours = self.all.iter_mut().rev().find(|found| found.trace.as_ptr() == Arc::as_ptr(trace));
        // A trace that was removed is not written on: what it takes would not be known.
        let Some(found) = ours else { return Ok(()) };
        let mut open = trace.file();
        let Some(file) = &mut *open else { return Ok(()) };
        let length = record.len() as u64;
        if found.size + length > LARGEST {
            *open = None;
            return Ok(());
        }
        if let Err(error) = file.write_all(record) {
            // Part of it may be there: the next record would continue a torn one.
            let size = file.metadata().map_or(found.size, |metadata| metadata.len());
            *open = None;
            self.bytes += size.saturating_sub(found.size);
            found.size = size;
            return Err(error);
        }
        drop(open);
        found.size += length;
        self.bytes += length;
        self.make_room();
        Ok(())
    }

    fn make_room(&mut self) {
        while self.all.len() > 1 && (self.all.len() > MOST_FILES || self.bytes > MOST_BYTES) {
            // Those of connections that have ended go first: one that lasts is often the one that is looked for.
            let ended = self.all.iter().position(|found| found.trace.strong_count() == 0);
            let Some(Found { path, size, trace }) = self.all.remove(ended.unwrap_or(0)) else { return };
            self.bytes = self.bytes.saturating_sub(size);
            if let Some(trace) = trace.upgrade() {
                // Otherwise the system keeps its bytes until the connection ends.
                *trace.file() = None;
            }
            // It may have been removed already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether a file has such a name as this program gives: `1764197660123-8394c8f03e515708-server.sqlog`.
fn is_ours(name: &str) -> bool {
    let Some(name) = name.strip_suffix(".sqlog") else { return false };
    let [millis, id, side] = name.split('-').collect::<Vec<_>>()[..] else { return false };
    millis.len() == 13
        && millis.bytes().all(|byte| byte.is_ascii_digit())
        && (1..=40).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && matches!(side, "server" | "client")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_ours_are_removed_and_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let name = |number: usize| format!("{number:013}-8394c8f03e515708-server.sqlog");
        let others = ["0000000000000-x-server.sqlog", "1764197660123-8394c8f03e515708-server.qlog", "notes.sqlog"];
        let ours: Vec<_> = (0..MOST_FILES + 5).map(name).collect();
        for name in ours.iter().map(String::as_str).chain(others) {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        let mut files = Files::find(dir.path()).unwrap();
        assert_eq!(files.bytes, ours.len() as u64);
        files.make_room();
        let left = |name: &str| dir.path().join(name).exists();
        assert!(others.iter().all(|name| left(name)));
        assert_eq!(ours.iter().filter(|name| left(name)).count(), MOST_FILES);
        assert!(!left(&ours[4]) && left(&ours[5]));
        files.bytes = MOST_BYTES + 1;
        files.make_room();
        assert!(!left(&ours[5]) && left(&ours[6]));
    }

    fn trace(folder: &Path, number: usize, open: &Arc<AtomicU64>) -> Arc<Trace> {
        let path = folder.join(format!("{number:013}-8394c8f03e515708-server.sqlog"));
        Arc::new(Trace { path, file: Mutex::default(), open: open.clone() })
    }

    /// What the files in a folder have together.
    fn on_disk(folder: &Path) -> u64 {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    /// One that failed may have written a part.
    #[test]
    fn after_a_record_that_was_not_written_comes_no_other() {
        let (dir, open) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(u64::MAX / 2)));
        let mut files = Files::find(dir.path()).unwrap();
        let one = trace(dir.path(), 0, &open);
        files.write(&one, b"first", true).unwrap();
        std::fs::write(&one.path, "first, to").unwrap();
        // Not for writing.
        *one.file() = Some(File::open(&one.path).unwrap());
        files.write(&one, b"torn", false).unwrap_err();
        assert!(one.file().is_none());
        assert_eq!((files.bytes, files.all[0].size), (9, 9));
        files.write(&one, b"next", false).unwrap();
        assert_eq!(std::fs::read(&one.path).unwrap(), b"first, to");
    }

    #[test]
    fn traces_of_connections_that_last_stay_and_count() {
        let (dir, open) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(u64::MAX / 2)));
        let mut files = Files::find(dir.path()).unwrap();
        let lasting = trace(dir.path(), 0, &open);
        files.write(&lasting, b"first\n", true).unwrap();
        for number in 1..=MOST_FILES + 5 {
            files.write(&trace(dir.path(), number, &open), b"short\n", true).unwrap();
        }
        files.write(&lasting, b"still there\n", false).unwrap();
        assert_eq!(std::fs::read_to_string(&lasting.path).unwrap(), "first\nstill there\n");
        assert_eq!((files.all.len(), files.bytes), (MOST_FILES, on_disk(dir.path())));
    }

    #[test]
    fn one_that_is_removed_is_not_written_on() {
        let (dir, open) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(u64::MAX / 2)));
        let mut files = Files::find(dir.path()).unwrap();
        let all: Vec<_> = (0..3).map(|number| trace(dir.path(), number, &open)).collect();
        for trace in &all {
            files.write(trace, b"first\n", true).unwrap();
        }
        // All of them last, and have too much.
        files.bytes += MOST_BYTES;
        files.make_room();
        files.bytes = files.all.iter().map(|found| found.size).sum();
        assert_eq!(files.all.len(), 1);
        for trace in &all {
            files.write(trace, b"more\n", false).unwrap();
        }
        let removed = &all[0];
        assert!(removed.file().is_none(), "its bytes are still on the disk");
        assert!(!removed.path.exists());
        assert_eq!((files.bytes, std::fs::read_to_string(&all[2].path).unwrap().as_str()), (11, "first\nmore\n"));
    }

    #[test]
    fn a_trace_begins_with_its_header_however_full_the_queue_was() {
        let (dir, open) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(u64::MAX / 2)));
        let (records, taken) = sync_channel(1);
        let full: Tell = Box::new(|_, _| {});
        let full = Arc::new(Mutex::new(full));
        let lines = |number| {
            let trace = trace(dir.path(), number, &open);
            Lines { trace, records: records.clone(), full: full.clone(), header: None, has_begun: false }
        };
        let (mut other, mut late) = (lines(0), lines(1));
        other.write_all(b"header\n").unwrap();
        late.write_all(b"header\n").unwrap();
        late.write_all(b"lost\n").unwrap();
        let mut files = Files::find(dir.path()).unwrap();
        let mut write = || {
            let Message::Record { trace, record, is_first } = taken.recv().unwrap() else { panic!("a record") };
            files.write(&trace, &record, is_first).unwrap();
        };
        write();
        late.write_all(b"one\n").unwrap();
        write();
        late.write_all(b"two\n").unwrap();
        write();
        assert_eq!(std::fs::read_to_string(&late.trace.path).unwrap(), "header\none\ntwo\n");
    }
}
