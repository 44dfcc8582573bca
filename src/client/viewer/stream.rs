//! A feed as one connection carries it.

use bytes::Bytes;
use http::{HeaderMap, Uri};
use tokio::time::{Instant, timeout, timeout_at};

use super::{LONGEST_FRAME, SILENCE, Transport, ViewError};
use crate::{
    client::{Body, ClientError, Connection, Trust, answer},
    format::frames::FrameDecoder,
    webtransport::{RecvStream, Session},
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
    Session {
        stream: RecvStream,
        /// Keeps it open.
        _session: Session,
    },
}

impl FeedStream {
    /// The next bytes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ViewError> {
        let carrier = &mut self.carrier;
        let piece = async {
            Ok(match carrier {
                Carrier::Response(body) => body.next().await?,
                Carrier::Session { stream, .. } => stream.read_bytes(usize::MAX).await?,
            })
        };
        let piece = timeout_at(self.heard + SILENCE, piece).await.unwrap_or(Err(ViewError::Silent));
        self.heard = Instant::now();
        piece
    }
}

/// Opens a feed, on a new connection unless one is given.
pub(super) async fn open(
    connection: Option<Box<Connection>>,
    uri: Uri,
    trust: Trust,
    transport: Transport,
) -> Result<FeedStream, ViewError> {
    let opened = async {
        let connection = match connection {
            Some(connection) => *connection,
            None => Connection::open(&uri, &trust).await?,
        };
        let carrier = match transport {
            Transport::Get => {
                let mut response = connection.get(&uri).await?;
                if !response.status.is_success() {
                    let detail = response.problem().await;
                    return Err(ViewError::answered(response.status, &response.headers, detail));
                }
                if let Some(error) = answer::no_feed(&connection, &uri, &response.headers).await {
                    return Err(error);
                }
                Carrier::Response(Box::new(response.body))
            }
            Transport::WebTransport => match connection.webtransport(&uri, HeaderMap::new(), &[]).await {
                Ok(session) => {
                    let stream = session.accept_uni().await?;
                    Carrier::Session { stream, _session: session }
                }
                Err(ClientError::Refused { status, headers }) => {
                    return Err(answer::refused(&connection, &uri, status, &headers).await);
                }
                Err(error) => return Err(error.into()),
            },
        };
        Ok(FeedStream { carrier, connection, decoder: FrameDecoder::new(LONGEST_FRAME), heard: Instant::now() })
    };
    timeout(SILENCE, opened).await.unwrap_or(Err(ViewError::Silent))
}
