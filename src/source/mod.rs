//! Where a feed's chunks come from: `[NAME=]SOURCE` on the command line.

pub mod chunker;
pub mod command;
pub mod demo;
pub(crate) mod file;
pub(crate) mod stdin;

use std::{io, path::PathBuf, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::{
    fault,
    feed::{
        self, DEFAULT_HISTORY, End, Family, Feed, FeedError, Lag, NewChunk, Pattern, PublishError, PublishedAll,
        Publisher, WrittenFeeds, WrittenLimits,
    },
};
use chunker::{Chunker, Chunking};
use command::{Commands, Exec, Stderr};

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

/// A text is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSource {
    /// It is like none.
    #[error(
        "invalid source `{0}`: write demo, -, exec:COMMAND, file:PATH, tail:PATH, publish or nats://HOST:PORT/SUBJECT, with NAME= before it for a feed of that name"
    )]
    Unknown(String),
    /// It lacks what it is to read.
    #[error("`{text}` lacks its {what}: write {example}")]
    Incomplete {
        /// As it was written.
        text: String,
        /// What it lacks.
        what: &'static str,
        /// What it could be.
        example: &'static str,
    },
    /// Its name cannot be that of a feed.
    #[error(
        "invalid feed name `{0}`: a name has up to 100 ASCII letters, digits, `-`, `_` and `.`, and not only dots; only \
         `publish` takes a pattern, whose last parts between dots are `*`, as in chat.*=publish"
    )]
    Name(String),
    /// It is like one of NATS, and is none.
    #[cfg(feature = "nats")]
    #[error(transparent)]
    Nats(#[from] crate::nats::BadAddress),
}

impl FromStr for Kind {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        #[cfg(feature = "nats")]
        if crate::nats::Address::is_meant(text) {
            return Ok(Self::Nats(text.parse()?));
        }
        let bad = || BadSource::Unknown(text.to_owned());
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("demo", "") if !text.ends_with(':') => Ok(Self::Demo),
            ("publish", "") if !text.ends_with(':') => Ok(Self::Publish),
            ("-", "") => Ok(Self::Stdin),
            ("exec", command) if command.trim().is_empty() => {
                Err(incomplete(text, "command", "exec:COMMAND, as in exec:'ping localhost'"))
            }
            ("file", "") => Err(incomplete(text, "path", "file:PATH, as in file:video.mp4")),
            ("tail", "") => Err(incomplete(text, "path", "tail:PATH, as in tail:/var/log/syslog")),
            ("exec", command) => Ok(Self::Exec(command.to_owned())),
            ("file", path) => Ok(Self::File(path.into())),
            ("tail", path) => Ok(Self::Tail(path.into())),
            _ => Err(bad()),
        }
    }
}

fn incomplete(text: &str, what: &'static str, example: &'static str) -> BadSource {
    BadSource::Incomplete { text: text.to_owned(), what, example }
}

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let whole = || Ok(Self { name: feed::DEFAULT.to_owned(), kind: text.parse()? });
        let Some((name, source)) = text.split_once('=') else { return whole() };
        match source.parse::<Kind>() {
            Ok(kind) if is_name(name) || (kind == Kind::Publish && name.parse::<Pattern>().is_ok()) => {
                Ok(Self { name: name.to_owned(), kind })
            }
            Err(BadSource::Unknown(_)) => whole(),
            Err(error) if is_name(name) => Err(error),
            // A command may have an equals sign of its own.
            Ok(_) | Err(_) => whole().map_err(|error| match error {
                BadSource::Unknown(_) => BadSource::Name(name.to_owned()),
                error => error,
            }),
        }
    }
}

/// A name that is a segment of a URL as it stands.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 100 && name.chars().all(plain) && name.contains(|c| c != '.')
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
        let unstored = |source| SourceError::Store { feed: name.to_owned(), source };
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
            if let Some(disk) = &options.store {
                return disk.of_source(name, options.history).await.map_err(unstored);
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
                (feed, Some(Box::pin(file::follow(name, path, chunking, back, publisher).await?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let source = |text: &str| text.parse::<Source>();
        let of = |name: &str, kind| Ok(Source { name: name.into(), kind });
        assert_eq!(source("-"), of("default", Kind::Stdin));
        assert_eq!(source("demo"), of("default", Kind::Demo));
        assert_eq!(source("chat=publish"), of("chat", Kind::Publish));
        assert_eq!(source("chat.*=publish"), of("chat.*", Kind::Publish));
        for text in ["chat.*=demo", "chat*=publish", "*.chat=publish", ".*=publish"] {
            assert!(matches!(source(text), Err(BadSource::Name(_))), "{text}");
        }
        assert_eq!(source("log=tail:/var/log/a=b"), of("log", Kind::Tail("/var/log/a=b".into())));
        assert_eq!(source("build=exec:A=1 cargo build"), of("build", Kind::Exec("A=1 cargo build".into())));
        assert_eq!(source("exec:A=1 make"), of("default", Kind::Exec("A=1 make".into())));
        assert_eq!(source("a.b-c_1=-"), of("a.b-c_1", Kind::Stdin));
        for text in [
            "",
            "=",
            "x",
            "exec:",
            "a b=-",
            "..=-",
            "a/b=-",
            "name=",
            "name=what",
            "demo:x",
            "demo:",
            "publish:",
            "http://x",
        ] {
            assert!(source(text).is_err(), "{text}");
        }
        for name in ["a/b", "ü", "a b", "", "..", &"x".repeat(101)] {
            for kind in ["demo", "exec:make", "tail:"] {
                assert_eq!(source(&format!("{name}={kind}")), Err(BadSource::Name(name.into())), "{name} {kind}");
            }
            assert_eq!(source(&format!("{name}=what")), Err(BadSource::Unknown(format!("{name}=what"))));
        }
        for text in ["exec:", "file:", "tail:", "exec"] {
            for (given, name) in [(text.to_owned(), ""), (format!("log={text}"), "log=")] {
                let Err(error @ BadSource::Incomplete { .. }) = source(&given) else { panic!("{name}{text}") };
                assert!(error.to_string().starts_with(&format!("`{text}` lacks its ")), "{error}");
            }
        }
        assert_eq!(source("exec:A=demo"), of("default", Kind::Exec("A=demo".into())));
        assert_eq!(source("exec:A=tail:"), of("default", Kind::Exec("A=tail:".into())));
    }
}
