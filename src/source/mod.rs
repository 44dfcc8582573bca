//! Where a feed's chunks come from: `[NAME=]SOURCE` on the command line.

pub mod chunker;
pub mod command;
pub mod demo;
pub(crate) mod file;
pub(crate) mod stdin;
mod text;

use std::{io, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::io::AsyncRead;

#[cfg(feature = "store")]
use crate::store::{OpenError, Origin};
use crate::{
    fault,
    feed::{
        DEFAULT_HISTORY, End, Family, Feed, FeedError, Lag, NewChunk, Pattern, PublishError, PublishedAll, Publisher,
        WrittenFeeds, WrittenLimits,
    },
};
use chunker::{Chunker, Chunking};
use command::{Commands, Exec, Stderr};
pub use text::BadSource;

/// A feed as it is asked for.
///
/// ```
/// use h3cast::source::{Kind, Source};
///
/// let source: Source = "log=exec:date".parse()?;
/// assert_eq!(source.name, "log");
/// assert!(matches!("demo".parse::<Source>()?.kind, Kind::Demo));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The feed's name.
    pub name: String,
    /// What it is fed by.
    pub kind: Kind,
}

/// What a feed is fed by.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Counted chunks at a steady pace, afresh for each viewer.
    Demo,
    /// Standard input.
    Stdin,
    /// What a command prints, as the shell runs it.
    Exec(String),
    /// A file, from its beginning for each viewer.
    File(PathBuf),
    /// What is appended to a file, through truncation and rotation.
    Tail(PathBuf),
    /// What clients publish.
    Publish,
    /// A subject of NATS, or all that a pattern matches.
    #[cfg(feature = "nats")]
    Nats(crate::nats::Address),
}

/// How many lines of a followed file belong to its feed from its start.
const TAIL_LINES: u64 = 10;

/// How feeds are made.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Where text and bytes are cut.
    pub chunking: Chunking,
    /// What a live feed keeps, in bytes.
    pub history: usize,
    /// What becomes of viewers that are behind that.
    pub lag: Lag,
    /// Where a command's standard error goes.
    pub stderr: Stderr,
    /// Who ends the commands.
    pub commands: Commands,
    /// How many lines of a followed file belong to its feed from its start; if it is not given, 10 of
    /// a file that is cut into lines.
    pub tail_lines: Option<u64>,
    /// How many feeds clients may create whose names a pattern matches, and how long they are kept.
    pub written: WrittenLimits,
    /// Run a command for each viewer, not once for all.
    pub per_viewer: bool,
    /// Let each viewer write to the standard input of its command. Only commands of their own
    /// ([`per_viewer`](Self::per_viewer)) have one.
    pub input: bool,
    /// Run a command again when it ends.
    pub restart: bool,
    /// How many chunks the demo has, 0 for no end.
    pub count: u64,
    /// The time between two chunks of the demo.
    pub interval: Duration,
    /// How NATS is reached.
    #[cfg(feature = "nats")]
    pub nats: crate::nats::Connections,
    /// Where what clients publish is kept, if not in this server alone.
    #[cfg(feature = "nats")]
    pub engine: Option<crate::nats::Address>,
    /// Where live feeds are kept on this machine, if they are: what clients publish unless that is kept by the `engine`,
    /// standard input, commands that run once for all viewers, and files that are followed.
    #[cfg(feature = "store")]
    pub store: Option<crate::store::Disk>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunking: Chunking::Lines,
            history: DEFAULT_HISTORY,
            lag: Lag::Skip,
            stderr: Stderr::Feed,
            commands: Commands::default(),
            tail_lines: None,
            written: WrittenLimits::default(),
            per_viewer: false,
            input: false,
            restart: false,
            count: 10,
            interval: Duration::from_millis(100),
            #[cfg(feature = "nats")]
            nats: crate::nats::Connections::default(),
            #[cfg(feature = "nats")]
            engine: None,
            #[cfg(feature = "store")]
            store: None,
        }
    }
}

impl Options {
    /// How long to wait until a file's lines are published: not if they cannot be yet.
    fn patience(&self) -> Duration {
        #[cfg(feature = "store")]
        if self.store.as_ref().is_some_and(crate::store::Disk::is_held) {
            return Duration::ZERO;
        }
        file::PATIENCE
    }
}

/// Why a source cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Standard input cannot be read, or another source reads it.
    #[error("cannot start the feed `{feed}`: cannot read standard input")]
    Stdin {
        /// The feed's name.
        feed: String,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot start the feed `{feed}`: cannot read {}", path.display())]
    File {
        /// The feed's name.
        feed: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be followed.
    #[error("cannot start the feed `{feed}`: cannot follow {}", path.display())]
    Tail {
        /// The feed's name.
        feed: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is stored of the feed cannot be read.
    #[cfg(feature = "store")]
    #[error("cannot start the feed `{feed}`")]
    Store {
        /// The feed's name.
        feed: String,
        /// Why not.
        source: crate::store::StoreError,
    },
    /// What is stored of the feed was written by clients, and the source is one of the server; or the other way around.
    #[cfg(feature = "store")]
    #[error("cannot start the feed `{feed}`: its stored chunks are from `{stored}`, and `{here}` would continue them")]
    OtherKind {
        /// The feed's name.
        feed: String,
        /// The kind of source that its stored chunks are from, as a source begins.
        stored: &'static str,
        /// That of this source.
        here: &'static str,
    },
    /// NATS cannot be reached, or does not store the feed as asked for.
    #[cfg(feature = "nats")]
    #[error("cannot start the feed `{feed}`")]
    Nats {
        /// The feed's name.
        feed: String,
        /// Why not.
        source: crate::nats::NatsError,
    },
}

impl SourceError {
    /// Whether the feed can be served as soon as something is there that is missing now: what [`Source::start_late`]
    /// waits for.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            #[cfg(feature = "nats")]
            Self::Nats { source, .. } => source.is_absence(),
            _ => false,
        }
    }
}

/// What a source has become.
pub struct Started {
    /// Its feed; a pattern of subjects or names has a family instead.
    pub feed: Option<Feed>,
    /// Its feeds, which are there when somebody asks.
    pub family: Option<Arc<dyn Family>>,
    /// What feeds them.
    pub feeding: Option<Feeding>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("feed", &self.feed).finish_non_exhaustive()
    }
}

impl Started {
    pub(crate) fn feed(feed: Feed, feeding: Option<Feeding>) -> Self {
        Self { feed: Some(feed), family: None, feeding }
    }
}

/// What feeds a live feed. It runs as long as it is polled. The feed fails if this is dropped before
/// the feed has ended or its server stops.
pub type Feeding = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Source {
    /// Whether the file is there that is served from its beginning: the only thing of [`start`](Self::start) that can be
    /// known without a change of anything.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    #[cfg(feature = "cli")]
    pub(crate) async fn check(&self) -> Result<(), SourceError> {
        match &self.kind {
            Kind::File(path) => file::check(&self.name, path).await,
            _ => Ok(()),
        }
    }

    /// Prepares the source: its feed, and for a live one what feeds it. A command is first run, and standard
    /// input or a pipe first read, when that is polled, so that a server can bind its sockets before; a command
    /// that cannot be run fails its feed.
    ///
    /// # Errors
    ///
    /// When its file cannot be read, standard input is read by another source, or NATS is not there as it is
    /// wanted.
    pub async fn start(self, options: &Options) -> Result<Started, SourceError> {
        let name = self.name.as_str();
        #[cfg(feature = "nats")]
        {
            let failed = |source| SourceError::Nats { feed: name.to_owned(), source };
            match (&self.kind, &options.engine) {
                (Kind::Nats(address), _) => {
                    return crate::nats::start(name, address, &options.nats, options).await.map_err(failed);
                }
                (Kind::Publish, Some(engine)) => {
                    return crate::nats::start_writable(name, engine, &options.nats, options).await.map_err(failed);
                }
                _ => {}
            }
        }
        #[cfg(feature = "store")]
        let (unstored, origin) = (|error: OpenError| error.of_source(name), Origin::of(&self.kind));
        #[cfg(feature = "store")]
        if let (Kind::Publish, Some(disk)) = (&self.kind, &options.store) {
            if name.parse::<Pattern>().is_err() {
                return Ok(Started::feed(disk.written(name, name, options.history).await.map_err(unstored)?, None));
            }
            let family = disk.family(name, options.history, options.written).await.map_err(unstored)?;
            let feeding: Feeding = Box::pin(family.sweep());
            return Ok(Started { feed: None, family: Some(family), feeding: Some(feeding) });
        }
        let live = async || {
            #[cfg(feature = "store")]
            if let (Some(disk), Some(origin)) = (&options.store, origin) {
                return disk.of_source(name, origin, options.history).await.map_err(unstored);
            }
            Ok::<_, SourceError>(Feed::live(name, options.history, options.lag))
        };
        let chunking = options.chunking;
        let (feed, feeding): (_, Option<Feeding>) = match self.kind {
            Kind::Demo => (demo::feed(name, options.count, options.interval), None),
            Kind::Stdin => {
                let failed = |source| SourceError::Stdin { feed: name.to_owned(), source };
                let stdin = stdin::reader().map_err(failed)?;
                let (feed, publisher) = live().await?;
                (feed, Some(Box::pin(pump(stdin, chunking, publisher))))
            }
            Kind::Exec(shell) => {
                let (stderr, commands) = (options.stderr, options.commands.clone());
                let input = options.input && options.per_viewer;
                let exec = Exec { name: name.to_owned(), shell, chunking, stderr, input, commands };
                if options.per_viewer {
                    (command::per_viewer(exec), None)
                } else {
                    let (feed, publisher) = live().await?;
                    (feed, Some(Box::pin(command::feed(exec, options.restart, publisher))))
                }
            }
            Kind::File(path) => (file::on_demand(name, path, chunking).await?, None),
            Kind::Tail(path) => {
                let (feed, publisher) = live().await?;
                // Their lines are what a stream of bytes has none of.
                let lines = options.tail_lines.unwrap_or(if chunking == Chunking::Lines { TAIL_LINES } else { 0 });
                // More would not be kept.
                let back = (lines, options.history as u64);
                let patience = options.patience();
                (feed, Some(Box::pin(file::follow(name, path, chunking, back, publisher, patience).await?)))
            }
            Kind::Publish if name.parse::<Pattern>().is_ok() => {
                let made = WrittenFeeds::within(name, options.history, options.lag, options.written);
                let feeds = made.expect("its name is a pattern");
                let feeding: Feeding = Box::pin(feeds.sweep());
                return Ok(Started { feed: None, family: Some(feeds), feeding: Some(feeding) });
            }
            Kind::Publish => (Feed::writable(name, options.history, options.lag), None),
            #[cfg(feature = "nats")]
            Kind::Nats(_) => unreachable!("started above"),
        };
        Ok(Started::feed(feed, feeding))
    }

    /// Starts the source without what it lacks: `error` is why [`start`](Self::start) has failed. Its clients get 503
    /// until what is missing is there, which is looked for while the feeding is polled. So a server with several feeds
    /// can serve the others meanwhile.
    ///
    /// # Errors
    ///
    /// `error`, unless it is such an [absence](SourceError::is_absence).
    pub fn start_late(self, error: SourceError, options: &Options) -> Result<Started, SourceError> {
        #[cfg(feature = "nats")]
        if let SourceError::Nats { source: why, .. } = &error
            && why.is_absence()
        {
            match (&self.kind, &options.engine) {
                (Kind::Nats(address), _) => return Ok(crate::nats::start_late(&self.name, address, why, options)),
                (Kind::Publish, Some(engine)) => {
                    return Ok(crate::nats::start_writable_late(&self.name, engine, why, options));
                }
                _ => {}
            }
        }
        let _ = options;
        Err(error)
    }
}

/// Publishes what `reader` gives, and ends the feed with it.
async fn pump(reader: impl AsyncRead + Unpin, chunking: Chunking, publisher: Publisher) {
    let end = match publish(reader, chunking, &publisher).await {
        Ok(()) => End::Clean,
        Err(error) => End::Failed(FeedError::of(&error)),
    };
    publisher.end(end);
}

/// Publishes what `reader` gives, to its end or that of the feed.
async fn publish(reader: impl AsyncRead + Unpin, chunking: Chunking, publisher: &Publisher) -> io::Result<()> {
    let mut chunks = Chunker::new(reader, chunking);
    if publisher.is_stored() {
        loop {
            let (together, failed) = match chunks.next_ones().await {
                Ok(together) if together.is_empty() => return Ok(()),
                Ok(together) => (together, None),
                Err(error) => (Vec::from_iter(Some(chunks.take_rest()).filter(|rest| !rest.is_empty())), Some(error)),
            };
            if publish_stored(publisher, together, Bytes::new).await.is_err() {
                return Ok(());
            }
            if let Some(error) = failed {
                return Err(error);
            }
            fault::point("source");
        }
    }
    loop {
        match chunks.next().await {
            Ok(Some(chunk)) => {
                if publisher.publish(chunk).await.is_err() {
                    return Ok(());
                }
                fault::point("source");
            }
            Ok(None) => return Ok(()),
            Err(error) => {
                let rest = chunks.rest();
                if !rest.is_empty() {
                    // It has ended, then.
                    let _ = publisher.publish(rest).await;
                }
                return Err(error);
            }
        }
    }
}

/// How many chunks a source has stored together at most, and how many bytes they have before another one is left for
/// later.
const TOGETHER: (usize, usize) = (1000, 512 << 10);

/// How long a source waits before it tries again to have chunks stored.
const AGAIN: Duration = Duration::from_secs(1);

/// Its feed has ended.
#[derive(Debug)]
struct FeedEnded;

/// Publishes all of these chunks to a feed that is stored, in their order and each once, with the source's `place` after
/// them. While they cannot be stored, as on a full disk, the source waits.
async fn publish_stored(publisher: &Publisher, chunks: Vec<Bytes>, place: impl Fn() -> Bytes) -> Result<(), FeedEnded> {
    let mut chunks: Vec<_> = chunks.into_iter().map(|bytes| NewChunk { bytes, id: None }).collect();
    while !chunks.is_empty() {
        let PublishedAll { receipts, error } = publisher.publish_from(chunks.clone(), &place).await;
        chunks.drain(..receipts.len().min(chunks.len()));
        match error {
            Some(PublishError::Ended) => return Err(FeedEnded),
            Some(_) => tokio::time::sleep(AGAIN).await,
            None => {}
        }
    }
    Ok(())
}
