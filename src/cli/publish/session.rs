//! Publishing over WebTransport: a stream of a session, each read as it is. A stream has no key by which a server knows
//! what it had of an earlier one. But a server that ends a stream states how much it has, so that the rest can follow on
//! another: to the server that replaces it, or to itself when it is there again.

use std::{collections::VecDeque, io, pin::Pin, pin::pin, time::Duration};

use bytes::{Buf, Bytes};
use futures_util::{Stream, StreamExt, stream::Peekable};
use http::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{Failure, failure, remote};
use crate::{
    client::{
        ClientError, Connection, PublishError, PublishEvent, Published, Token, Trust,
        retry::{self, Retry},
    },
    webtransport::{Closed, RecvStream, SendStream, SessionError, StreamError},
};

/// How much of what was sent last is kept, in bytes: more than a server takes before it publishes it.
const KEPT: usize = 8 << 20;
/// What a piece costs beside its bytes, so that many small ones are bounded too.
const OVERHEAD: usize = 64;

/// What was sent last, in case it must be sent again.
#[derive(Debug, Default)]
struct Sent {
    pieces: VecDeque<Bytes>,
    /// Where the first of them begins in what is published.
    start: u64,
    /// What they cost.
    size: usize,
    /// How many of them were sent on this stream.
    next: usize,
}

impl Sent {
    fn push(&mut self, piece: Bytes) {
        self.size += piece.len() + OVERHEAD;
        self.pieces.push_back(piece);
        while self.size > KEPT && self.next > 0 {
            self.shift();
        }
    }

    fn shift(&mut self) {
        let Some(gone) = self.pieces.pop_front() else { return };
        self.start += gone.len() as u64;
        self.size -= gone.len() + OVERHEAD;
        self.next = self.next.saturating_sub(1);
    }

    /// The next piece to send on this stream, if it was not sent on it.
    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.get(self.next)?.clone();
        self.next += 1;
        Some(piece)
    }

    /// Another stream begins behind so many bytes. Whether what follows them is still there.
    fn rewind(&mut self, to: u64) -> bool {
        self.next = 0;
        while let Some(first) = self.pieces.front_mut() {
            match to.checked_sub(self.start) {
                None => return false,
                Some(known) if known < first.len() as u64 => {
                    first.advance(known as usize);
                    self.size -= known as usize;
                    self.start = to;
                    return true;
                }
                Some(_) => self.shift(),
            }
        }
        self.start == to
    }
}

/// An answer on a stream.
#[derive(Debug, Deserialize)]
struct Refusal {
    detail: Option<String>,
    status: u16,
    /// What it has of the stream.
    published: Option<Published>,
    /// It may have more of it than it knows.
    #[serde(default)]
    in_doubt: bool,
}

/// Why a stream did not come to its end.
enum Broken {
    /// The server has ended it, and states what it has of it, if it took anything.
    Refused(PublishError, Option<Published>),
    /// There was no session yet.
    Unopened(ClientError),
    /// The session was lost before anything was sent on a stream of it, so nothing is in doubt.
    Idle(PublishError),
    /// Nothing helps, or nothing is known.
    Failed(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Publishes pieces to their end.
pub(super) async fn publish(
    uri: &Uri,
    trust: &Trust,
    token: Option<Token>,
    retry_for: Option<Duration>,
    pieces: impl Stream<Item = io::Result<Bytes>>,
    mut tell: impl FnMut(PublishEvent),
) -> Result<Published, Failure> {
    let mut pieces = pin!(pieces.peekable());
    let (mut sent, mut total, mut retry) = (Sent::default(), Published::default(), Retry::new(retry_for));
    let mut comes_back = false;
    loop {
        let attempt = {
            let opened = || tell(PublishEvent::Opened { published: total.bytes });
            over_session(uri, (trust, token.as_ref()), &retry, pieces.as_mut(), &mut sent, opened)
        };
        let error = match attempt.await {
            Ok(published) => {
                add(&mut total, published, &mut tell);
                if retry.is_failing() {
                    tell(PublishEvent::Recovered { published: total.bytes });
                }
                return Ok(total);
            }
            Err(Broken::Failed(failure)) => return Err(failure),
            Err(Broken::Unopened(error)) if comes_back && !error.is_final() => error.into(),
            Err(Broken::Unopened(error)) => return Err(refused(error)),
            Err(Broken::Idle(error)) => error,
            Err(Broken::Refused(error, published)) => {
                let is_known = published.is_some();
                if let Some(published) = published {
                    if published.bytes > 0 {
                        retry.works();
                    }
                    add(&mut total, published, &mut tell);
                }
                let is_over = !matches!(error, PublishError::Answered { status: StatusCode::SERVICE_UNAVAILABLE, .. });
                if is_over || !(is_known || comes_back) {
                    return Err(failure(error));
                }
                if !sent.rewind(total.bytes) {
                    let text = format!("what follows byte {} is not kept any more", total.bytes);
                    return Err(Failure::running(anyhow::Error::new(error).context(text)));
                }
                error
            }
        };
        comes_back = true;
        sent.next = 0;
        let Some(pause) = error.pause(&mut retry) else {
            return Err(failure(PublishError::gave_up(&retry, error)));
        };
        tell(PublishEvent::Lost { error, pause });
        sleep(pause).await;
    }
}

/// Adds what a server has of a stream.
fn add(total: &mut Published, published: Published, tell: &mut impl FnMut(PublishEvent)) {
    let restarted = total.epoch.is_some() && published.epoch.is_some() && total.epoch != published.epoch;
    if restarted && total.bytes > 0 {
        tell(PublishEvent::Restarted { published: total.bytes });
    }
    let first = if restarted { None } else { total.first.take() };
    *total = Published {
        first: first.or(published.first),
        last: published.last.or(total.last.take().filter(|_| !restarted)),
        // Of a server, which may state anything.
        chunks: total.chunks.saturating_add(published.chunks),
        bytes: total.bytes.saturating_add(published.bytes),
        ..published
    };
    tell(PublishEvent::Acknowledged(total.bytes));
}

fn refused(error: ClientError) -> Failure {
    match error {
        ClientError::Refused { status, .. } => Failure::running(anyhow::anyhow!("the server answered {status}")),
        error => remote::failure(error),
    }
}

/// A session that ended, as what interrupts a publication.
fn lost(SessionError(closed): SessionError) -> PublishError {
    PublishError::Client(match closed {
        Closed::ConnectionLost(error) => error.into(),
        closed => ClientError::RequestBody(Box::new(SessionError(closed))),
    })
}

/// Publishes over one stream: what was sent before it and is not known to be published, and then what comes.
async fn over_session<S>(
    uri: &Uri,
    (trust, token): (&Trust, Option<&Token>),
    retry: &Retry,
    mut pieces: Pin<&mut Peekable<S>>,
    sent: &mut Sent,
    opened: impl FnOnce(),
) -> Result<Published, Broken>
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let headers = remote::shown_token(token).await?;
    let opening = async {
        let connection = match retry.is_eager(Instant::now()) {
            true => Connection::open_again(uri, trust).await?,
            false => Connection::open(uri, trust).await?,
        };
        let session = connection.webtransport(&without_chunks(uri), headers, &[]).await?;
        Ok::<_, ClientError>((connection, session))
    };
    let (connection, session) = retry::by(retry.deadline(), uri, opening).await.map_err(Broken::Unopened)?;
    opened();
    // The server ends a stream that brings nothing for a while: there is one once there is something to publish.
    if sent.pieces.is_empty() {
        pieces.as_mut().peek().await;
    }
    let (send, recv) = session.open_bi().await.map_err(|error| Broken::Idle(lost(error)))?;
    let published = stream_out(send, recv, pieces, sent).await?;
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

async fn stream_out<S>(
    mut send: SendStream,
    recv: RecvStream,
    mut pieces: Pin<&mut Peekable<S>>,
    sent: &mut Sent,
) -> Result<Published, Broken>
where
    S: Stream<Item = io::Result<Bytes>>,
{
    let mut answer = pin!(read_answer(recv));
    let answer = loop {
        let step = async {
            // Whatever is read is kept before anything else is waited for.
            if sent.next == sent.pieces.len() {
                match pieces.next().await {
                    Some(piece) => sent.push(piece.map_err(|error| failure(error.into()))?),
                    None => return Ok(false),
                }
            }
            match sent.next() {
                Some(piece) => Ok::<_, Failure>(send.write_bytes(piece).await.is_ok()),
                None => Ok(true),
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
    let answer = answer.map_err(|error| {
        let text = "the stream was lost, and it is not known whether more was published";
        Failure::running(anyhow::Error::new(error).context(text))
    })?;
    let senseless = |error| Failure::running(anyhow::anyhow!("the server sent an invalid answer: {error}"));
    if let Ok(published) = serde_json::from_slice(&answer) {
        return Ok(published);
    }
    let Refusal { detail, status, published, in_doubt } = serde_json::from_slice(&answer).map_err(senseless)?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let error = PublishError::Answered { status, detail, retry_after: None };
    if in_doubt {
        return Err(Broken::Failed(failure(error)));
    }
    Err(Broken::Refused(error, published))
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

    #[test]
    fn what_was_sent_is_sent_again_from_where_the_server_has_come() {
        let rest = |sent: &mut Sent| std::iter::from_fn(|| sent.next()).flatten().collect::<Vec<u8>>();
        let mut sent = Sent::default();
        for piece in ["one", "two", "three"] {
            sent.push(piece.into());
        }
        assert_eq!(rest(&mut sent), b"onetwothree");
        for (at, expected) in [(0, "onetwothree"), (3, "twothree"), (4, "wothree"), (10, "e")] {
            assert!(sent.rewind(at));
            assert_eq!(rest(&mut sent), expected.as_bytes());
        }
        assert!(!sent.rewind(9), "it is gone");
        assert!(sent.rewind(11));
        sent.push("four".into());
        assert_eq!(rest(&mut sent), b"four");
        assert!(!sent.rewind(16), "more than was sent");
        // What was not sent is never forgotten.
        let mut sent = Sent::default();
        let piece = Bytes::from(vec![0; 1 << 20]);
        for _ in 0..9 {
            sent.push(piece.clone());
        }
        assert_eq!(sent.pieces.len(), 9);
        rest(&mut sent);
        sent.push(piece);
        assert!(sent.size <= KEPT && !sent.rewind(0));
    }
}
