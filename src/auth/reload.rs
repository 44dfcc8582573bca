//! What is read again when it changes: files, and what others serve.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
#[cfg(unix)]
use std::{fs::File, io::Read};

use futures_util::future::BoxFuture;
use tokio::{
    io::AsyncReadExt,
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// How often a file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often what others serve is asked for.
const INTERVAL: Duration = Duration::from_secs(300);
/// How long it is left alone after that at least, also while it fails.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// How long a request waits for keys that are asked for because of it.
const WAIT: Duration = Duration::from_secs(5);
/// The longest file of tokens or keys, in bytes.
pub(super) const LONGEST: usize = 1 << 20;

type Fetch = dyn Fn() -> BoxFuture<'static, io::Result<Vec<u8>>> + Send + Sync;

/// Where tokens or keys come from.
#[derive(Clone)]
pub(super) enum Place {
    File(PathBuf),
    /// Asked for by a function, at most every 10 s.
    Served {
        name: String,
        fetch: Arc<Fetch>,
        asked: Arc<Asked>,
    },
}

/// Requests that wait for newer keys.
pub(super) struct Asked {
    wanted: Notify,
    /// How often an answer has come, of whatever kind.
    answers: watch::Sender<u64>,
    turn: watch::Sender<Turn>,
}

/// Whether it can be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Nothing asks.
    Unkept,
    /// Not before then.
    Resting(Instant),
    /// It is asked for.
    Asking,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Served { name, .. } => f.write_str(name),
        }
    }
}

/// The size and time that stand for a pipe.
const PIPE: (u64, std::time::SystemTime) = (0, std::time::SystemTime::UNIX_EPOCH);

/// What a file is like: when it changes, so does this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, std::time::SystemTime, u64)>);

impl Stamp {
    /// Whether it is that of something that can be read once, as a pipe.
    pub(super) fn is_of_pipe(&self) -> bool {
        self.0.is_some_and(|(size, changed, _)| (size, changed) == PIPE)
    }

    async fn of(path: &PathBuf) -> Self {
        Self(tokio::fs::metadata(path).await.ok().map(|metadata| {
            #[cfg(unix)]
            let inode = {
                use std::os::unix::fs::MetadataExt;
                // A pipe has been read: its times change, and there is nothing more in it.
                if !metadata.is_file() {
                    return (PIPE.0, PIPE.1, metadata.ino());
                }
                metadata.ino() ^ (metadata.ctime_nsec() as u64).rotate_left(32)
            };
            #[cfg(not(unix))]
            let inode = 0;
            (metadata.len(), metadata.modified().unwrap_or(std::time::SystemTime::UNIX_EPOCH), inode)
        }))
    }
}

/// Reads a file again that may have been replaced by anything: where that is a pipe, nobody may ever write to it.
#[cfg(unix)]
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::OpenOptionsExt;
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(not(unix))]
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

fn checked(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    match bytes.len() <= LONGEST {
        true => Ok(bytes),
        false => Err(io::Error::other(format!("it is longer than {LONGEST} bytes"))),
    }
}

impl Place {
    pub(super) fn served(name: String, fetch: Arc<Fetch>) -> Self {
        let asked =
            Asked { wanted: Notify::new(), answers: watch::Sender::new(0), turn: watch::Sender::new(Turn::Unkept) };
        Self::Served { name, fetch, asked: Arc::new(asked) }
    }

    /// Reads it for the first time. It may be a pipe.
    pub(super) async fn read(&self) -> io::Result<Vec<u8>> {
        checked(match self {
            Self::File(path) => {
                // No more of it than shows that it is too long: it may be anything.
                let mut bytes = Vec::new();
                tokio::fs::File::open(path).await?.take(LONGEST as u64 + 1).read_to_end(&mut bytes).await?;
                bytes
            }
            Self::Served { fetch, .. } => fetch().await?,
        })
    }

    /// Reads it as it is now.
    pub(super) async fn reread(&self) -> io::Result<Vec<u8>> {
        let Self::File(path) = self else { return self.read().await };
        let path = path.clone();
        checked(tokio::task::spawn_blocking(move || read_file(&path)).await.map_err(io::Error::other)??)
    }

    /// What it is like now, for [`changed`](Self::changed).
    pub(super) async fn stamp(&self) -> Stamp {
        match self {
            Self::File(path) => Stamp::of(path).await,
            Self::Served { .. } => Stamp(None),
        }
    }

    /// Completes when it is to be read again: a file that differs from `known`, as one that is gone does, and does not
    /// change just now, or what is served and is due or wanted. Cancel-safe.
    pub(super) async fn changed(&self, known: &mut Stamp, works: bool) {
        match self {
            Self::File(path) => {
                let mut last = known.clone();
                loop {
                    sleep(LOOK).await;
                    let now = Stamp::of(path).await;
                    // One that is being written is left alone: half of it may look like all of it.
                    if now != *known && now == last {
                        *known = now;
                        return;
                    }
                    last = now;
                }
            }
            Self::Served { asked, .. } => {
                let earliest = Instant::now() + AT_MOST_EVERY;
                asked.turn.send_replace(Turn::Resting(earliest));
                let due = Instant::now() + if works { INTERVAL } else { AT_MOST_EVERY };
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = async {
                        sleep_until(earliest).await;
                        asked.wanted.notified().await;
                    } => {}
                }
                asked.turn.send_replace(Turn::Asking);
            }
        }
    }

    /// It has been asked for: lets those go on who wait for that.
    pub(super) fn answered(&self) {
        if let Self::Served { asked, .. } = self {
            asked.answers.send_modify(|answers| *answers += 1);
        }
    }

    /// Has it read again, unless that was a moment ago, and waits for that a little. Whether it has been.
    pub(super) async fn refreshed(&self) -> bool {
        let Self::Served { asked, .. } = self else { return false };
        let mut answers = asked.answers.subscribe();
        let turn = *asked.turn.borrow();
        match turn {
            Turn::Unkept => return false,
            Turn::Resting(earliest) if Instant::now() < earliest => return false,
            Turn::Resting(_) | Turn::Asking => {}
        }
        asked.wanted.notify_one();
        timeout(WAIT, answers.changed()).await.is_ok_and(|changed| changed.is_ok())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Someone makes the file a pipe, to which nobody writes, and puts it back.
    #[tokio::test(start_paused = true)]
    async fn a_file_that_was_gone_or_a_pipe_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        std::fs::write(&path, "one").unwrap();
        let place = Place::File(path.clone());
        let mut stamp = place.stamp().await;
        std::fs::remove_file(&path).unwrap();
        place.changed(&mut stamp, true).await;
        assert_eq!(place.reread().await.unwrap_err().kind(), io::ErrorKind::NotFound);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        place.changed(&mut stamp, true).await;
        assert_eq!(place.reread().await.unwrap_err().to_string(), "it is not a regular file");
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "two").unwrap();
        place.changed(&mut stamp, true).await;
        assert_eq!(place.reread().await.unwrap(), b"two");
        std::fs::write(&path, vec![b'x'; LONGEST + 1]).unwrap();
        assert!(place.reread().await.unwrap_err().to_string().contains("longer than"));
    }
}
