//! What is read again when it changes: files, and what others serve.

use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
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

/// What a file is like: when it changes, so does this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Stamp(Option<(u64, std::time::SystemTime, u64)>);

impl Stamp {
    async fn of(path: &PathBuf) -> Self {
        Self(tokio::fs::metadata(path).await.ok().map(|metadata| {
            #[cfg(unix)]
            let inode = {
                use std::os::unix::fs::MetadataExt;
                metadata.ino() ^ (metadata.ctime_nsec() as u64).rotate_left(32)
            };
            #[cfg(not(unix))]
            let inode = 0;
            (metadata.len(), metadata.modified().unwrap_or(std::time::SystemTime::UNIX_EPOCH), inode)
        }))
    }
}

impl Place {
    pub(super) fn served(name: String, fetch: Arc<Fetch>) -> Self {
        let asked =
            Asked { wanted: Notify::new(), answers: watch::Sender::new(0), turn: watch::Sender::new(Turn::Unkept) };
        Self::Served { name, fetch, asked: Arc::new(asked) }
    }

    /// Reads it as it is now.
    pub(super) async fn read(&self) -> io::Result<Vec<u8>> {
        let bytes = match self {
            Self::File(path) => tokio::fs::read(path).await?,
            Self::Served { fetch, .. } => fetch().await?,
        };
        match bytes.len() <= LONGEST {
            true => Ok(bytes),
            false => Err(io::Error::other(format!("it is longer than {LONGEST} bytes"))),
        }
    }

    /// What it is like now, for [`changed`](Self::changed).
    pub(super) async fn stamp(&self) -> Stamp {
        match self {
            Self::File(path) => Stamp::of(path).await,
            Self::Served { .. } => Stamp(None),
        }
    }

    /// Completes when it is to be read again: a file that differs from `known` and does not change just now, or what
    /// is served and is due or wanted. Cancel-safe.
    pub(super) async fn changed(&self, known: &mut Stamp, works: bool) {
        match self {
            Self::File(path) => {
                let mut last = known.clone();
                loop {
                    sleep(LOOK).await;
                    let now = Stamp::of(path).await;
                    // One that is being written is left alone: half of it may look like all of it.
                    if now != *known && now == last && now.0.is_some() {
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
