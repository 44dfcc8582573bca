//! A request's body as it is written, and its response as it is read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use h3::{
    client::RequestStream,
    error::{Code, StreamError},
};
use http::{HeaderMap, Response, StatusCode};
use tracing::debug;

use super::{Body, ClientError, ClientResponse, ProtocolError, content_length};
use crate::guard::{RecvStream, SendStream, Shared};

/// The body of a request, written piece by piece. Dropped before it is [finished](Self::finish), it
/// is reset, so that what was cut short never looks whole.
///
/// ```no_run
/// # async fn doc(connection: h3cast_transport::client::Connection) -> Result<(), Box<dyn std::error::Error>> {
/// let request = http::Request::post("https://localhost:4433/echo").body(())?;
/// let (mut body, response) = connection.send_request(request).await?;
/// body.send("one piece".into()).await?;
/// body.send("and another".into()).await?;
/// body.finish().await?;
/// println!("{}", response.await?.status);
/// # Ok(()) }
/// ```
pub struct RequestBody {
    stream: RequestStream<SendStream, Bytes>,
    shared: Arc<Shared>,
    /// A piece was given up halfway.
    torn: bool,
}

impl std::fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RequestBody").field("torn", &self.torn).finish_non_exhaustive()
    }
}

impl RequestBody {
    pub(super) fn new(stream: RequestStream<SendStream, Bytes>, shared: Arc<Shared>) -> Self {
        Self { stream, shared, torn: false }
    }

    /// Sends a piece, as one DATA frame. Waits while the server takes no more.
    ///
    /// # Errors
    ///
    /// [`ClientError::Stopped`] when the server wants no more of the body: its response says why,
    /// and can still be read. Otherwise when the connection is lost.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, part of the piece may have been sent. The body cannot
    /// continue then, and its next use fails.
    pub async fn send(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.whole()?;
        if bytes.is_empty() {
            return Ok(());
        }
        self.torn = true;
        self.stream.send_data(bytes).await.map_err(|error| self.error(error))?;
        self.torn = false;
        Ok(())
    }

    /// Ends the body: the server reads to its end.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Cancel safety
    ///
    /// When dropped, the body is reset unless it was finished.
    pub async fn finish(mut self) -> Result<(), ClientError> {
        self.whole()?;
        self.stream.finish().await.map_err(|error| self.error(error))
    }

    /// Ends the body with trailers ([RFC 9114 §4.1](https://www.rfc-editor.org/rfc/rfc9114#section-4.1)).
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), and [`ProtocolError::FieldsTooLarge`] if the server does not accept trailers
    /// of that size.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the body is reset unless it was finished.
    pub async fn finish_with(mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        self.whole()?;
        self.stream.send_trailers(trailers).await.map_err(|error| self.error(error))?;
        self.stream.finish().await.map_err(|error| self.error(error))
    }

    fn whole(&self) -> Result<(), ClientError> {
        match self.torn {
            true => Err(ProtocolError::Torn.into()),
            false => Ok(()),
        }
    }

    fn error(&self, error: StreamError) -> ClientError {
        match error {
            StreamError::RemoteTerminate { code, .. } if self.shared.conn.close_reason().is_none() => {
                ClientError::Stopped(code.value())
            }
            error => ClientError::of_stream(&self.shared, error),
        }
    }
}

/// Waits for the head of a response; interim responses (103 and others) are skipped. Dropping it cancels the
/// response; the request's body, if it is still being written, continues.
///
/// # Errors
///
/// When the connection is lost or the server breaks the stream off.
#[must_use = "a future does nothing unless it is polled"]
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Result<ClientResponse, ClientError>> + Send>>);

impl ResponseFuture {
    /// `bodiless`: the response has no body, whatever its head says of one.
    pub(super) fn new(mut stream: RequestStream<RecvStream, Bytes>, shared: Arc<Shared>, bodiless: bool) -> Self {
        Self(Box::pin(async move {
            let (head, ()) = final_response(&mut stream, &shared).await?.into_parts();
            let length = match content_length(&head.headers) {
                // RFC 9114 §4.1.2.
                Ok(_) if bodiless || head.status == StatusCode::NOT_MODIFIED => None,
                Ok(length) => length,
                Err(error) => {
                    stream.stop_sending(Code::H3_MESSAGE_ERROR);
                    return Err(error);
                }
            };
            let body = Body::new(stream, shared, length);
            Ok(ClientResponse { status: head.status, headers: head.headers, body })
        }))
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl Future for ResponseFuture {
    type Output = Result<ClientResponse, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}

/// Interim responses (RFC 9110 §15.2) that may come before the final one: no server has reason to
/// send more.
const MAX_INTERIM: usize = 100;

/// Waits for the final response ([RFC 9114 §4.1](https://www.rfc-editor.org/rfc/rfc9114#section-4.1)).
pub(super) async fn final_response<S>(
    stream: &mut RequestStream<S, Bytes>,
    shared: &Shared,
) -> Result<Response<()>, ClientError>
where
    S: h3::quic::RecvStream,
{
    for _ in 0..=MAX_INTERIM {
        let response = stream.recv_response().await.map_err(|error| ClientError::of_stream(shared, error))?;
        match response.status() {
            // RFC 9114 §4.5.
            StatusCode::SWITCHING_PROTOCOLS => {
                return Err(ProtocolError::SwitchingProtocols.into());
            }
            status if status.is_informational() => debug!(%status, "an interim response"),
            _ => return Ok(response),
        }
    }
    Err(ProtocolError::TooManyInterim(MAX_INTERIM).into())
}
