//! `h3cast publish`.

use std::{cell::Cell, io, pin::pin, time::Duration};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use futures_util::{Stream, StreamExt};
use http::Uri;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, complain, print,
    remote::{self, Log, TokenArgs, TrustArgs},
};
use crate::{
    client::{ClientError, Connection, Publication, PublishError, PublishEvent, Published, Token, Trust},
    server::DEFAULT_PORT,
    shown::json,
    source::{chunker::Chunking, stdin},
    webtransport::{RecvStream, SendStream, StreamError},
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
    /// Publish over a stream of a WebTransport session. What is lost with the session is not resent.
    #[arg(long, conflicts_with = "retry_for")]
    webtransport: bool,
    /// How long to try to reach the server when it is lost. [default: forever]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
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
    let so_far = Cell::new(0);
    let done = {
        let mut publish = pin!(async {
            if args.webtransport {
                return over_session(&uri, &trust, token, pieces).await;
            }
            let chunking = match args.chunk {
                Some(ChunkAt::Bytes) => Chunking::Bytes,
                Some(ChunkAt::Lines) | None => Chunking::Lines,
            };
            let mut publication =
                Publication::new(uri, trust).chunking(chunking).token_from(token).retry_for(args.retry_for);
            let tell = |event| {
                if let PublishEvent::Acknowledged(bytes) = event {
                    so_far.set(bytes);
                }
                tell(&event, &log);
            };
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
            log.say(format_args!("* published {bytes} bytes as {chunks} chunks of `{feed}`{range}"));
            match args.json {
                true => print(&format!("{}\n", json(&serde_json::to_string(&published).map_err(Failure::running)?))),
                false => Ok(()),
            }
        }
        Err(failure) => {
            let error = failure.error.context(match args.webtransport {
                true => "it is not known how much was published".into(),
                false => format!("{} bytes are known to be published", so_far.get()),
            });
            Err(Failure { error, ..failure })
        }
    }
}

fn tell(event: &PublishEvent, log: &Log) {
    match event {
        PublishEvent::Opened { published } => log.say(format_args!("* connected; the server has {published} bytes")),
        PublishEvent::Acknowledged(bytes) => log.say(format_args!("* {bytes} bytes are published")),
        PublishEvent::Restarted { published } => {
            complain(&format!(
                "the server was started again: what follows byte {published} goes to a new run of the feed"
            ));
        }
        PublishEvent::Lost { error, pause } => {
            complain(&format!("{error}; trying again in {:.1} s", pause.as_secs_f64()));
        }
    }
}

fn failure(error: PublishError) -> Failure {
    match error {
        PublishError::Client(error) => remote::failure(error),
        PublishError::Token(error) => Failure::usage(error),
        error => Failure::running(error),
    }
}

/// Publishes over a stream of a session, each read as it is.
async fn over_session(
    uri: &Uri,
    trust: &Trust,
    token: Option<Token>,
    pieces: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Published, Failure> {
    let connection = Connection::open(uri, trust).await.map_err(remote::failure)?;
    let headers = remote::shown_token(token.as_ref()).await?;
    let session = connection.webtransport(&without_chunks(uri), headers, &[]).await.map_err(|error| match error {
        ClientError::Refused { status, .. } => Failure::running(anyhow::anyhow!("the server answered {status}")),
        error => remote::failure(error),
    })?;
    // The server ends a stream that brings nothing for a while: there is one once there is something to publish.
    let mut pieces = pin!(pieces.peekable());
    pieces.as_mut().peek().await;
    let (send, recv) = session.open_bi().await.map_err(Failure::running)?;
    let published = stream_out(send, recv, pieces).await?;
    drop(session);
    connection.close().await;
    Ok(published)
}

/// The URL of a session that wants nothing from its feed.
fn without_chunks(uri: &Uri) -> Uri {
    let pairs = uri.query().unwrap_or_default().split('&');
    let kept = pairs.filter(|pair| !pair.is_empty() && !pair.starts_with("limit="));
    let query = kept.chain(["limit=0"]).collect::<Vec<_>>().join("&");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = format!("{}?{query}", uri.path()).parse().ok();
    // Made of parts that stood in one before.
    Uri::from_parts(parts).unwrap_or_else(|_| uri.clone())
}

async fn stream_out(
    mut send: SendStream,
    recv: RecvStream,
    pieces: impl Stream<Item = io::Result<Bytes>>,
) -> Result<Published, Failure> {
    let (mut pieces, mut answer) = (pin!(pieces), pin!(read_answer(recv)));
    let answer = loop {
        let step = async {
            match pieces.next().await {
                Some(Ok(piece)) => Ok(send.write_bytes(piece).await.is_ok()),
                Some(Err(error)) => Err(failure(error.into())),
                None => Ok(false),
            }
        };
        tokio::select! {
            biased;
            // It comes before the end only if the server takes no more.
            early = &mut answer => break early,
            more = step => if !more? {
                // What goes wrong with it, the answer says.
                let _ = send.finish();
                break answer.await;
            },
        }
    };
    let answer = answer.map_err(|error| Failure::running(anyhow::Error::new(error).context("the stream was lost")))?;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    match answer["detail"].as_str() {
        Some(detail) => Err(Failure::running(anyhow::anyhow!("the server answered {}: {detail}", answer["status"]))),
        None => serde_json::from_value(answer)
            .map_err(|error| Failure::running(anyhow::anyhow!("the server's answer makes no sense: {error}"))),
    }
}

async fn read_answer(mut recv: RecvStream) -> Result<Vec<u8>, StreamError> {
    const LONGEST: usize = 16 * 1024;
    let mut answer = Vec::new();
    while let Some(bytes) = recv.read_bytes(LONGEST).await? {
        answer.extend_from_slice(&bytes);
        if answer.len() > LONGEST {
            break;
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_wants_no_chunks() {
        let uri = "https://host/stream/x?a=b&limit=3".parse().unwrap();
        assert_eq!(without_chunks(&uri), "https://host/stream/x?a=b&limit=0");
    }
}
