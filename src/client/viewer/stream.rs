//! A feed as one connection carries it.

use std::time::Duration;

use bytes::Bytes;
use h3cast_proto::feed::session_code;
use http::{HeaderMap, HeaderValue, Request, Uri, header};
use tokio::time::{Instant, timeout, timeout_at};

use super::{LONGEST_FRAME, SILENCE, Transport, ViewError};
use crate::{
    client::{Body, ClientError, Connection, Token, Trust, answer},
    format::frames::FrameDecoder,
    webtransport::{Closed, RecvStream, Session, StreamError},
};

/// A feed that is being read.
pub(super) struct FeedStream {
    pub(super) carrier: Carrier,
    pub(super) connection: Connection,
    pub(super) decoder: FrameDecoder,
    /// When something was last received.
    heard: Instant,
}

pub(super) enum Carrier {
    Response(Box<Body>),
    Session { stream: RecvStream, session: Session },
}

impl FeedStream {
    /// The next bytes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ViewError> {
        let carrier = &mut self.carrier;
        let piece = async {
            Ok(match carrier {
                Carrier::Response(body) => body.next().await?,
                Carrier::Session { stream, session } => match stream.read_bytes(usize::MAX).await {
                    Ok(piece) => piece,
                    Err(error) => return Err(why(session, error).await),
                },
            })
        };
        let attended = async {
            tokio::select! {
                biased;
                piece = piece => piece,
                never = self.connection.attend() => match never {},
            }
        };
        let piece = timeout_at(self.heard + SILENCE, attended).await.unwrap_or(Err(ViewError::Silent));
        self.heard = Instant::now();
        piece
    }
}

/// Why a session's stream broke off: the session's own code may say more, and may overtake what the stream said.
async fn why(session: &Session, error: StreamError) -> ViewError {
    match timeout(CODE, session.closed()).await {
        Ok(Closed::Clean { code: session_code::EXPIRED, .. }) => ViewError::Expired,
        _ => error.into(),
    }
}

/// How long the code of a session is waited for when its stream has broken off.
const CODE: Duration = Duration::from_secs(1);

fn headers(authorization: &Option<HeaderValue>) -> HeaderMap {
    authorization.iter().map(|value| (header::AUTHORIZATION, value.clone())).collect()
}

/// Opens a feed, on a new connection unless one is given. `again`: after a failure.
pub(super) async fn open(
    connection: Option<Box<Connection>>,
    uri: Uri,
    trust: Trust,
    token: Option<Token>,
    transport: Transport,
    again: bool,
) -> Result<FeedStream, ViewError> {
    let opened = async {
        let authorization = match token {
            Some(token) => Some(token.header().await?),
            None => None,
        };
        let connection = match connection {
            Some(connection) => *connection,
            None if again => Connection::open_again(&uri, &trust).await?,
            None => Connection::open(&uri, &trust).await?,
        };
        let carrier = match transport {
            Transport::Get => {
                let mut response = match &authorization {
                    Some(authorization) => {
                        let mut request = Request::new(());
                        *request.uri_mut() = uri.clone();
                        request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
                        connection.request(request).await?
                    }
                    None => connection.get(&uri).await?,
                };
                if !response.status.is_success() {
                    let detail = response.problem().await;
                    return Err(ViewError::answered(response.status, &response.headers, detail));
                }
                if let Some(error) = answer::no_feed(&connection, &uri, &response.headers).await {
                    return Err(error);
                }
                Carrier::Response(Box::new(response.body))
            }
            Transport::WebTransport => match connection.webtransport(&uri, headers(&authorization), &[]).await {
                Ok(session) => {
                    let stream = session.accept_uni().await?;
                    Carrier::Session { stream, session }
                }
                Err(ClientError::Refused { status, headers }) => {
                    return Err(answer::refused(&connection, &uri, authorization.as_ref(), status, &headers).await);
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(FeedStream { carrier, connection, decoder: FrameDecoder::new(LONGEST_FRAME), heard: Instant::now() })
    };
    timeout(SILENCE, opened).await.unwrap_or(Err(ViewError::Silent))
}
