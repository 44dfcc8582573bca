//! What is typed at the terminal, as the input of the command that runs for this viewer.

use std::{io, pin::pin};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture};
use http::{HeaderMap, Request, StatusCode, Uri};

use super::Log;
use crate::{
    cli::Failure,
    client::{Connection, RequestBody},
    source::stdin,
    webtransport::{RecvStream, SendStream, Session},
};

/// Where it goes.
pub(super) enum To {
    /// To a stream of the session that brings the feed.
    Session(Session),
    /// To the session of a response, by a request with these headers.
    Response(Uri, HeaderMap),
}

/// How the input was answered: its status, and why. `None` when the connection is lost, which reading the feed reports.
type Answer = Option<(u16, Option<String>)>;

enum Writer {
    Stream(SendStream),
    Body(Box<RequestBody>),
}

impl Writer {
    /// Sends a piece; whether the server still takes them.
    async fn send(&mut self, piece: Bytes) -> bool {
        match self {
            Self::Stream(stream) => stream.write_bytes(piece).await.is_ok(),
            Self::Body(body) => body.send(piece).await.is_ok(),
        }
    }

    async fn finish(self) {
        // What is wrong, the answer reports.
        match self {
            Self::Stream(mut stream) => drop(stream.finish()),
            Self::Body(body) => drop(body.finish().await),
        }
    }
}

/// Sends standard input to its end. Completes only if it is refused: what the command makes of it is in its feed.
pub(super) async fn refused(connection: &Connection, to: Option<To>, log: &Log) -> Failure {
    let refusal = match to {
        Some(to) => sent(connection, to, log).await,
        None => std::future::pending().await,
    };
    match refusal {
        Ok(Some((status, _))) if status == StatusCode::GONE.as_u16() => {
            log.say(format_args!("* the command takes no more input"));
            std::future::pending().await
        }
        Ok(Some((status, why))) if status >= 400 => {
            let why = why.unwrap_or_else(|| format!("the server answered {status}"));
            Failure::running(anyhow::anyhow!("the input was refused: {why}"))
        }
        Ok(_) => std::future::pending().await,
        Err(error) => Failure::running(anyhow::Error::new(error).context("cannot read standard input")),
    }
}

async fn sent(connection: &Connection, to: To, log: &Log) -> io::Result<Answer> {
    let mut pieces = pin!(stdin::pieces()?.peekable());
    // A server ends a request that brings nothing for a while: there is one once something was typed.
    pieces.as_mut().peek().await;
    let Some((mut writer, answer)) = open(connection, to).await else { return Ok(None) };
    let mut answer = pin!(answer);
    loop {
        tokio::select! {
            biased;
            // It comes before the end only if the server takes no more.
            early = &mut answer => return Ok(early),
            piece = pieces.next() => match piece.transpose()? {
                Some(piece) => {
                    if !writer.send(piece).await {
                        break;
                    }
                }
                None => {
                    log.say(format_args!("* the input has ended"));
                    writer.finish().await;
                    break;
                }
            },
        }
    }
    Ok(answer.await)
}

async fn open(connection: &Connection, to: To) -> Option<(Writer, BoxFuture<'static, Answer>)> {
    match to {
        To::Session(session) => {
            let (send, recv) = session.open_bi().await.ok()?;
            Some((Writer::Stream(send), Box::pin(of_stream(recv))))
        }
        To::Response(uri, headers) => {
            let mut request = Request::post(uri).body(()).ok()?;
            *request.headers_mut() = headers;
            let (body, response) = connection.send_request(request).await.ok()?;
            let answer = async {
                let mut response = response.await.ok()?;
                Some((response.status.as_u16(), response.problem().await))
            };
            Some((Writer::Body(Box::new(body)), Box::pin(answer)))
        }
    }
}

/// The answer on a stream: a problem, or what was sent.
async fn of_stream(mut recv: RecvStream) -> Answer {
    /// More than any answer has, in bytes.
    const LONGEST: usize = 64 << 10;
    let mut text = Vec::new();
    while let Some(piece) = recv.read_bytes(LONGEST).await.ok()? {
        text.extend_from_slice(&piece);
        if text.len() > LONGEST {
            return None;
        }
    }
    let answer: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let status = answer["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
    Some((status, answer["detail"].as_str().map(String::from)))
}

/// The URL that takes the input of a feed, to its end.
pub(super) fn uri(feed: &Uri) -> Uri {
    with_query(feed, "end")
}

/// The URL of a session of a feed that takes input: the server refuses any other feed.
pub(super) fn for_session(feed: &Uri) -> Uri {
    match feed.query() {
        // Twice, it would be refused.
        Some(query) if query.split('&').any(|pair| pair.split('=').next() == Some("input")) => feed.clone(),
        Some(query) if !query.is_empty() => with_query(feed, &format!("{query}&input")),
        _ => with_query(feed, "input"),
    }
}

fn with_query(feed: &Uri, query: &str) -> Uri {
    let mut parts = feed.clone().into_parts();
    parts.path_and_query = format!("{}?{query}", feed.path()).parse().ok();
    // Made of parts that stood in one before.
    Uri::from_parts(parts).unwrap_or_else(|_| feed.clone())
}
