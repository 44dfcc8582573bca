//! A request's body as it is written, and its response as it is read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use h3::{
    client::RequestStream,
    error::{Code, StreamError},
};
use http::{HeaderMap, Response, StatusCode, header};
use tracing::debug;

use super::{ClientError, stream_error};
use crate::guard::{RecvStream, SendStream, Shared};

/// The body of a request, written piece by piece. Dropped before it is [finished](Self::finish), it
/// is reset, so that what was cut short never looks whole.
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
    /// Not cancel-safe: when dropped, part of the piece may have been sent. The body cannot go on
    /// then, and its next use fails.
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

    fn whole(&self) -> Result<(), ClientError> {
        match self.torn {
            true => Err(ClientError::Protocol("a piece of the request's body was given up halfway".into())),
            false => Ok(()),
        }
    }

    fn error(&self, error: StreamError) -> ClientError {
        match error {
            StreamError::RemoteTerminate { code, .. } if self.shared.conn.close_reason().is_none() => {
                ClientError::Stopped(code.value())
            }
            error => stream_error(&self.shared, error),
        }
    }
}

/// Waits for the head of a response; interim responses (103 and others) are skipped. Dropping it cancels the response; the body, if it is still
/// written, goes on.
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
            let body = Body { stream, shared, length, received: 0, malformed: false };
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

/// How long a body is, if its head says so.
///
/// # Errors
///
/// [`ClientError::Malformed`] when that is no number, or there are two different ones.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ClientError> {
    let mut length = None;
    for field in headers.get_all(header::CONTENT_LENGTH) {
        // Repeated, it may be joined to a list (RFC 9110 §8.6).
        for number in field.to_str().unwrap_or("?").split(',').map(str::trim) {
            let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            match number.parse::<u64>().ok().filter(|_| digits) {
                Some(number) if length.is_none_or(|known| known == number) => length = Some(number),
                _ => {
                    let fields = headers.get_all(header::CONTENT_LENGTH).iter();
                    let fields: Vec<_> = fields.map(|field| String::from_utf8_lossy(field.as_bytes())).collect();
                    return Err(ClientError::Malformed(format!("content-length: {}", fields.join(", "))));
                }
            }
        }
    }
    Ok(length)
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
        let response = stream.recv_response().await.map_err(|error| stream_error(shared, error))?;
        match response.status() {
            // RFC 9114 §4.5.
            StatusCode::SWITCHING_PROTOCOLS => {
                return Err(ClientError::Protocol("the server answered 101, which HTTP/3 does not have".into()));
            }
            status if status.is_informational() => debug!(%status, "an interim response"),
            _ => return Ok(response),
        }
    }
    Err(ClientError::Protocol(format!("more than {MAX_INTERIM} interim responses came")))
}

/// A response whose head has come.
#[derive(Debug)]
#[non_exhaustive]
pub struct ClientResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as it arrives.
    pub body: Body,
}

/// The longest answer that is read whole, in bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

impl ClientResponse {
    /// What the server says of an error, if it says it as [RFC 9457] does.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, a part of the body is gone.
    ///
    /// [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
    pub async fn problem(&mut self) -> Option<String> {
        if self.headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/problem+json") {
            return None;
        }
        let problem: serde_json::Value = serde_json::from_slice(&self.body.short().await.ok()?).ok()?;
        problem["detail"].as_str().map(String::from)
    }
}

/// The body of a response. Dropping it before its end tells the server to stop.
pub struct Body {
    stream: RequestStream<RecvStream, Bytes>,
    shared: Arc<Shared>,
    /// How long it is, if the head says so.
    length: Option<u64>,
    received: u64,
    /// It is not that long.
    malformed: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

impl Body {
    /// Waits for the next bytes; `None` at the clean end.
    ///
    /// # Errors
    ///
    /// When the response was broken off, or is not as long as its `content-length`
    /// ([`ClientError::Length`]).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.malformed {
            return Err(self.wrong_length());
        }
        let data = self.stream.recv_data().await.map_err(|error| stream_error(&self.shared, error))?;
        let data = data.map(|mut data| data.copy_to_bytes(data.remaining()));
        self.received += data.as_ref().map_or(0, |data| data.len() as u64);
        // RFC 9114 §4.1.2.
        let wrong = self.length.is_some_and(|length| match &data {
            Some(_) => self.received > length,
            None => self.received < length,
        });
        if wrong {
            self.malformed = true;
            self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
            return Err(self.wrong_length());
        }
        Ok(data)
    }

    fn wrong_length(&self) -> ClientError {
        ClientError::Length { length: self.length.unwrap_or_default(), received: self.received }
    }

    /// The whole body, which must be short.
    pub async fn short(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        while let Some(bytes) = self.next().await? {
            text.extend_from_slice(&bytes);
            if text.len() > LONGEST_ANSWER {
                return Err(ClientError::Protocol(format!("the answer is longer than {LONGEST_ANSWER} bytes")));
            }
        }
        Ok(text)
    }
}
