//! `h3cast publish`.

mod session;

use std::{cell::Cell, pin::pin, time::Duration};

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use http::StatusCode;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Failure, complain,
    outage::{Outage, trying_again},
    print,
    remote::{self, Log, TokenArgs, TrustArgs},
    values,
};
use crate::{
    client::{Publication, PublishError, PublishEvent, Published},
    server::DEFAULT_PORT,
    shown::json,
    source::{chunker::Chunking, stdin},
    units::many,
};

#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// The feed to publish to.
    #[arg(default_value_t = format!("https://localhost:{DEFAULT_PORT}/stream"))]
    url: String,
    /// How standard input is split into chunks. [default: lines; over WebTransport bytes]
    #[arg(long, value_name = "WHERE", value_enum)]
    chunk: Option<ChunkAt>,
    /// H3CAST_PUBLISH_TOKEN may hold the token as well.
    #[command(flatten)]
    token: TokenArgs,
    /// Publish over a stream of a WebTransport session. When the server states how much it has, as one that is
    /// replaced or stops does, the rest goes to the next one; what is lost with a connection is not resent.
    #[arg(long)]
    webtransport: bool,
    /// How long to try to reach the server when it is lost or does not answer. [default: forever]
    #[arg(long, value_name = "TIME", value_parser = values::time)]
    retry_for: Option<Duration>,
    /// Print the server's final answer.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    trust: TrustArgs,
    /// Show what is published, and times, on stderr.
    #[arg(short, long)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChunkAt {
    /// After each newline.
    Lines,
    /// At each read.
    Bytes,
}

/// How long Ctrl-C waits for the server to say what it has.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

pub(super) async fn run(args: PublishArgs) -> Result<(), Failure> {
    let uri = remote::url(&args.url)?;
    if args.webtransport && args.chunk == Some(ChunkAt::Lines) {
        let text = "--webtransport publishes what it reads as it is: give --chunk bytes, or publish without it";
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    let token = args.token.token(Some("H3CAST_PUBLISH_TOKEN"))?;
    let (trust, log) = (args.trust.trust()?, Log::new(args.verbose));
    let mut interrupted = pin!(remote::interrupted(2 * ANSWER_WAIT, || {})?);
    let stop = CancellationToken::new();
    let pieces = stdin::pieces().map_err(Failure::running)?.take_until(stop.clone().cancelled_owned());
    let (so_far, mut trouble) = (Cell::new(0), Trouble::default());
    let done = {
        let mut publish = pin!(async {
            let tell = |event| {
                if let PublishEvent::Acknowledged(bytes) = event {
                    so_far.set(bytes);
                }
                tell(&event, &log, &mut trouble);
            };
            if args.webtransport {
                return session::publish(&uri, &trust, token, args.retry_for, pieces, tell).await;
            }
            let chunking = match args.chunk {
                Some(ChunkAt::Bytes) => Chunking::Bytes,
                Some(ChunkAt::Lines) | None => Chunking::Lines,
            };
            let mut publication =
                Publication::new(uri, trust).chunking(chunking).token_from(token).retry_for(args.retry_for);
            publication.run(pieces, tell).await.map_err(failure)
        });
        tokio::select! {
            done = &mut publish => done,
            interrupted = &mut interrupted => {
                stop.cancel();
                // What it comes to is told by then, or not at all.
                if let Ok(Ok(published)) = timeout(ANSWER_WAIT, publish).await {
                    so_far.set(published.bytes);
                }
                Err(interrupted)
            }
        }
    };
    match done {
        Ok(published) => {
            let range = match (&published.first, &published.last) {
                (Some(first), Some(last)) => format!(", {first} to {last}"),
                _ => String::new(),
            };
            let Published { feed, chunks, bytes, .. } = &published;
            let (bytes, chunks) = (many(*bytes, "byte"), many(*chunks, "chunk"));
            log.say(format_args!("* published {bytes} as {chunks} of `{feed}`{range}"));
            match args.json {
                true => print(&format!("{}\n", json(&serde_json::to_string(&published).map_err(Failure::running)?))),
                false => Ok(()),
            }
        }
        // Of arguments that are wrong, nothing was sent.
        Err(failure) if failure.code == Failure::USAGE && so_far.get() == 0 => Err(failure),
        Err(failure) => {
            let error = anyhow::anyhow!("{} ({} confirmed)", failure.in_words(), many(so_far.get(), "byte"));
            Err(Failure { error, ..failure })
        }
    }
}

/// What goes wrong until it works again, so that each cause is printed once and then ever more seldom.
#[derive(Debug, Default)]
struct Trouble {
    outage: Outage,
    /// The server answers but accepts nothing, perhaps for a long time: reaching it again is not worth a line.
    refuses: bool,
    /// It was last printed that something is wrong, not that it is over.
    open: bool,
}

impl Trouble {
    /// Why nothing was published, and when the next attempt follows: the text to print, if it is news.
    fn begins(&mut self, error: &PublishError, pause: Duration) -> Result<String, String> {
        let status = match error {
            PublishError::Answered { status, .. } => Some(*status),
            _ => None,
        };
        self.refuses = status.is_some();
        let mut words = trying_again(error, "", pause);
        words += match status {
            Some(StatusCode::INSUFFICIENT_STORAGE) => {
                ", until there is room (input waits; Ctrl-C or --retry-for ends that)"
            }
            Some(StatusCode::SERVICE_UNAVAILABLE) => " (input waits; Ctrl-C or --retry-for ends that)",
            _ => "",
        };
        // That more was published meanwhile makes it no other cause.
        let cause: String = error.to_string().chars().filter(|c| !c.is_ascii_digit()).collect();
        match self.outage.prints(&cause, Instant::now()) {
            true => {
                self.open = true;
                Ok(words)
            }
            false => Err(words),
        }
    }

    /// The server is reached: whether that is to be printed.
    fn is_reached(&mut self) -> bool {
        !self.refuses && std::mem::take(&mut self.open)
    }

    /// The server takes what is sent: whether that is to be printed.
    fn ends(&mut self) -> bool {
        std::mem::take(self).open
    }
}

fn tell(event: &PublishEvent, log: &Log, trouble: &mut Trouble) {
    match event {
        PublishEvent::Opened { published } if trouble.is_reached() => {
            complain(&format!("reconnected: continuing after {}", many(*published, "byte")));
        }
        PublishEvent::Opened { published } => {
            log.say(format_args!("* connected; the server has {}", many(*published, "byte")));
        }
        PublishEvent::Acknowledged(bytes) => log.say(format_args!("* {} confirmed", many(*bytes, "byte"))),
        PublishEvent::Restarted { published } => {
            complain(&format!("the feed was restarted: what follows byte {published} goes to a new run of it"));
        }
        PublishEvent::Recovered { published } if trouble.ends() => {
            complain(&format!("the server accepts it again: {} confirmed", many(*published, "byte")));
        }
        PublishEvent::Recovered { .. } => {}
        PublishEvent::Lost { error, pause } => match trouble.begins(error, *pause) {
            Ok(words) => complain(&words),
            Err(words) => log.say(format_args!("* {words}")),
        },
    }
}

fn failure(error: PublishError) -> Failure {
    match error {
        PublishError::Client(error) => remote::failure(error),
        PublishError::Token(error) => Failure::usage(error),
        error => Failure::running(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: StatusCode, bytes: u64) -> PublishError {
        let detail = Some(format!("no room: {bytes} bytes were published"));
        PublishError::Answered { status, detail, retry_after: None }
    }

    #[test]
    fn a_cause_is_printed_once_until_it_works_again() {
        let mut trouble = Trouble::default();
        let full = |trouble: &mut Trouble, bytes| {
            trouble.begins(&answered(StatusCode::INSUFFICIENT_STORAGE, bytes), Duration::ZERO)
        };
        let told = full(&mut trouble, 7).unwrap();
        assert!(told.contains("507") && told.contains("7 bytes") && told.contains("until there is room"), "{told}");
        for bytes in [7, 8, 20] {
            // It can be reached, and takes nothing, or a little.
            assert!(!trouble.is_reached());
            assert!(full(&mut trouble, bytes).is_err(), "{bytes}");
        }
        // Another cause is news.
        let lost = || PublishError::Answer(crate::client::AnswerError::Nothing { after: 3 });
        assert!(trouble.begins(&lost(), Duration::ZERO).is_ok());
        assert!(trouble.is_reached() && !trouble.is_reached());
        assert!(full(&mut trouble, 20).is_err());
        // What was printed last is that it is reached.
        assert!(!trouble.ends());
        assert!(full(&mut trouble, 20).is_ok());
        assert!(trouble.ends() && !trouble.ends());
    }

    /// One that is replaced answers so as well: that the next one accepts it is news enough.
    #[test]
    fn a_server_that_answers_was_not_lost() {
        let mut trouble = Trouble::default();
        let unavailable =
            |trouble: &mut Trouble| trouble.begins(&answered(StatusCode::SERVICE_UNAVAILABLE, 7), Duration::ZERO);
        let told = unavailable(&mut trouble).unwrap();
        assert!(told.ends_with("(input waits; Ctrl-C or --retry-for ends that)"), "{told}");
        for _ in 0..3 {
            assert!(!trouble.is_reached());
            assert!(unavailable(&mut trouble).is_err());
        }
        assert!(trouble.ends() && !trouble.ends());
    }
}
