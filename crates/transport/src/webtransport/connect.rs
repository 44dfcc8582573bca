//! A session's CONNECT stream: its capsules both ways, and the end of the session.

use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3cast_proto::code;
use tokio::sync::oneshot;
use tracing::debug;

use super::{
    capsule::{Capsule, CapsuleDecoder, CapsuleError, encode_close, encode_drain},
    registry::Seat,
    session::{Ask, Closed, Session, SessionInner},
};
use crate::{
    connection::ConnectionHandle,
    exchange::Exchange,
    guard::{RecvStream, SendStream},
    quic::Connection,
};

/// How long a close waits for the peer to take it and to end its side.
const CLOSE_WAIT: Duration = Duration::from_secs(3);

/// The receiving half of a CONNECT stream, a server's or a client's.
pub(crate) trait ConnectRecv: Send {
    /// The next piece of DATA, or `None` at the end. Cancel-safe.
    fn data(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + Send;
    /// Stops it with an HTTP/3 code.
    fn stop(&mut self, code: u64);
}

/// The sending half.
pub(crate) trait ConnectSend: Send {
    /// Sends one DATA frame.
    fn send(&mut self, data: Bytes) -> impl Future<Output = Result<(), StreamError>> + Send;
    /// Ends it.
    fn end(&mut self) -> impl Future<Output = Result<(), StreamError>> + Send;
    /// Resets it with an HTTP/3 code.
    fn reset(&mut self, code: u64);
}

macro_rules! connect_stream {
    ($side:ident) => {
        impl ConnectRecv for h3::$side::RequestStream<RecvStream, Bytes> {
            async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
                let data = self.recv_data().await?;
                Ok(data.map(|mut data| data.copy_to_bytes(data.remaining())))
            }

            fn stop(&mut self, code: u64) {
                self.stop_sending(code.into());
            }
        }

        impl ConnectSend for h3::$side::RequestStream<SendStream, Bytes> {
            async fn send(&mut self, data: Bytes) -> Result<(), StreamError> {
                self.send_data(data).await
            }

            async fn end(&mut self) -> Result<(), StreamError> {
                self.finish().await
            }

            fn reset(&mut self, code: u64) {
                self.stop_stream(code.into());
            }
        }
    };
}

connect_stream!(server);
connect_stream!(client);

/// Opens a session whose CONNECT was answered with 200, gives it to whoever waits for it, and
/// drives it to its end.
pub(crate) async fn open(
    (conn, handle, exchange): (Connection, ConnectionHandle, Exchange),
    seat: Seat,
    protocol: Option<String>,
    opened: oneshot::Sender<Session>,
    send: impl ConnectSend,
    recv: impl ConnectRecv,
) {
    let inner = Arc::new(SessionInner::new(&seat, conn, handle, protocol));
    let _end = EndOnDrop(inner.clone(), exchange);
    seat.open(&inner);
    // When nobody waits any more, the session comes back here and is closed by its drop.
    drop(opened.send(Session::new(inner.clone())));
    drive(inner, send, recv).await;
}

/// Ends a session whose driver is dropped, with its connection or by a panic of its handler, so
/// that nobody waits for ever.
struct EndOnDrop(Arc<SessionInner>, Exchange);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        // Completes a close by this side; else does nothing when the session has ended.
        self.0.end(match self.0.connection().close_reason() {
            Some(lost) => Closed::ConnectionLost(lost),
            None => Closed::Abrupt { code: code::H3_INTERNAL_ERROR },
        });
        self.0.report(&self.1);
    }
}

/// Drives a session until it has ended, by either side or with its connection.
async fn drive(session: Arc<SessionInner>, mut send: impl ConnectSend, mut recv: impl ConnectRecv) {
    let mut decoder = CapsuleDecoder::default();
    let closed = loop {
        tokio::select! {
            biased;
            asked = session.asked() => match asked {
                Ask::Drain => {
                    // An error shows on the receiving half as well. A peer that gives no credit for
                    // two bytes will not take a close either.
                    if tokio::time::timeout(CLOSE_WAIT, send.send(encode_drain())).await.is_err() {
                        break Closed::Abrupt { code: code::H3_REQUEST_CANCELLED };
                    }
                }
                Ask::Close { code, reason } => {
                    session.end(Closed::Clean { code, reason: reason.clone(), by_peer: false });
                    // A peer that takes nothing more must not hold the session for ever.
                    let taken = tokio::time::timeout(CLOSE_WAIT, close(&mut send, &mut recv, code, &reason)).await;
                    if taken.is_err() {
                        debug!("the peer did not take the close of the session in time");
                    }
                    return;
                }
            },
            data = recv.data() => match read(&session, &mut decoder, data) {
                Ok(None) => {}
                Ok(Some(closed)) => break closed,
                Err(error) => {
                    debug!(%error, "the peer's capsules are malformed");
                    recv.stop(code::H3_MESSAGE_ERROR);
                    send.reset(code::H3_MESSAGE_ERROR);
                    session.end(Closed::Abrupt { code: code::H3_MESSAGE_ERROR });
                    return;
                }
            },
        }
    };
    let clean = matches!(closed, Closed::Clean { .. });
    session.end(closed);
    if clean {
        // The peer ends its side itself after a close capsule; anything else there is an error.
        let _ = send.end().await;
        let rest = async {
            while let Ok(Some(data)) = recv.data().await {
                decoder.push(data);
                if decoder.pop().is_err() {
                    recv.stop(code::H3_MESSAGE_ERROR);
                    send.reset(code::H3_MESSAGE_ERROR);
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, rest).await;
    } else {
        send.reset(code::H3_REQUEST_CANCELLED);
    }
}

/// Sends the close and waits until the peer has ended its side.
async fn close(send: &mut impl ConnectSend, recv: &mut impl ConnectRecv, code: u32, reason: &str) {
    if send.send(encode_close(code, reason)).await.is_ok() && send.end().await.is_ok() {
        // Capsules that crossed ours no longer matter.
        while let Ok(Some(_)) = recv.data().await {}
    }
}

/// Takes what came on the stream: `Some` when it ends the session.
fn read(
    session: &SessionInner,
    decoder: &mut CapsuleDecoder,
    data: Result<Option<Bytes>, StreamError>,
) -> Result<Option<Closed>, CapsuleError> {
    match data {
        Ok(Some(data)) => {
            decoder.push(data);
            while let Some(capsule) = decoder.pop()? {
                match capsule {
                    Capsule::Drain => session.peer_drains(),
                    Capsule::Close { code, reason } => {
                        // Looks for data behind the close, which is an error.
                        decoder.pop()?;
                        return Ok(Some(Closed::Clean { code, reason, by_peer: true }));
                    }
                }
            }
            Ok(None)
        }
        Ok(None) => {
            decoder.finish()?;
            Ok(Some(Closed::Clean { code: 0, reason: String::new(), by_peer: true }))
        }
        Err(StreamError::RemoteTerminate { code, .. }) => Ok(Some(Closed::Abrupt { code: code.value() })),
        Err(_) => Ok(Some(match session.connection().close_reason() {
            Some(error) => Closed::ConnectionLost(error),
            None => Closed::Abrupt { code: code::H3_MESSAGE_ERROR },
        })),
    }
}
