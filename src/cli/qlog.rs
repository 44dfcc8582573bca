//! Traces of QUIC connections in files, one for each connection, for qvis and the like.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Failure,
    log::{Tell, telling},
};
use crate::quic::QlogConnection;

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

/// A record for a file.
type Message = (Arc<Trace>, Box<[u8]>);

/// Starts to write to this folder.
pub(super) async fn start(folder: PathBuf) -> Result<Traces, Failure> {
    let started = tokio::task::spawn_blocking(move || {
        Traces::start(&folder).map_err(|error| anyhow::anyhow!("--qlog: cannot use {}: {error}", folder.display()))
    });
    started.await.map_err(Failure::running)?.map_err(Failure::usage)
}

/// A folder of traces, and the thread that writes them.
pub(super) struct Traces {
    folder: PathBuf,
    records: SyncSender<Message>,
    open: Arc<AtomicU64>,
    /// Says that records are lost.
    full: Arc<Mutex<Tell>>,
}

/// The file of a connection.
struct Trace {
    path: PathBuf,
    /// `None` when it could not be created, or was removed.
    file: Mutex<Option<(File, u64)>>,
    open: Arc<AtomicU64>,
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
            while let Ok((trace, record)) = taken.recv() {
                if let Err(error) = files.write(&trace, &record) {
                    failed(1, Some(&error));
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
        Some(Box::new(Lines { trace, records: self.records.clone(), full: self.full.clone() }))
    }
}

/// Takes the records of one connection. It never blocks.
struct Lines {
    trace: Arc<Trace>,
    records: SyncSender<Message>,
    full: Arc<Mutex<Tell>>,
}

impl Write for Lines {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.records.try_send((self.trace.clone(), record.into())).is_err() {
            self.full.lock().unwrap_or_else(PoisonError::into_inner)(1, None);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The files in the folder that this program has created, now or earlier, the oldest one first, with their size.
struct Files {
    all: VecDeque<(PathBuf, u64)>,
    bytes: u64,
}

impl Files {
    fn find(folder: &Path) -> io::Result<Self> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_ours) && entry.file_type()?.is_file() {
                found.push((entry.path(), entry.metadata()?.len()));
            }
        }
        // Their names begin with the time.
        found.sort();
        let bytes = found.iter().map(|(_, size)| size).sum();
        Ok(Self { all: found.into(), bytes })
    }

    fn write(&mut self, trace: &Trace, record: &[u8]) -> io::Result<()> {
        let mut file = trace.file.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, size) = match &mut *file {
            Some(open) => (&mut open.0, &mut open.1),
            // Its first record; otherwise it was removed.
            none if record.windows(12).any(|part| part == b"qlog_version") => {
                let mut options = OpenOptions::new();
                options.append(true).create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
                let open = none.insert((options.open(&trace.path)?, 0));
                self.all.push_back((trace.path.clone(), 0));
                (&mut open.0, &mut open.1)
            }
            _ => return Ok(()),
        };
        let length = record.len() as u64;
        if *size + length > LARGEST {
            return Ok(());
        }
        file.write_all(record)?;
        *size += length;
        self.bytes += length;
        if let Some((_, counted)) = self.all.iter_mut().rev().find(|(path, _)| *path == trace.path) {
            *counted = *size;
        }
        self.make_room();
        Ok(())
    }

    fn make_room(&mut self) {
        while self.all.len() > 1 && (self.all.len() > MOST_FILES || self.bytes > MOST_BYTES) {
            let Some((path, size)) = self.all.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(size);
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
}
