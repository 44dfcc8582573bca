//! A response, and its body as it is read.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use h3::{client::RequestStream, error::Code};
use http::{HeaderMap, Response, StatusCode, Version, header};
use http_body::{Frame, SizeHint};
use serde::de::DeserializeOwned;

use super::{ClientError, MalformedResponse, ProtocolError, send::Upload, service::Lease};
use crate::guard::{RecvStream, Shared};

/// The longest answer that is read whole, in bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

/// A response whose head has been received.
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

impl From<ClientResponse> for Response<Body> {
    fn from(response: ClientResponse) -> Self {
        let mut converted = Response::new(response.body);
        *converted.version_mut() = Version::HTTP_3;
        *converted.status_mut() = response.status;
        *converted.headers_mut() = response.headers;
        converted
    }
}

impl ClientResponse {
    /// What the server reports of an error, if it reports it as [RFC 9457] does.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, a part of the body is gone.
    ///
    /// [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
    pub async fn problem(&mut self) -> Option<String> {
        let problem: serde_json::Value = self.problem_as().await?;
        problem["detail"].as_str().map(String::from)
    }

    /// The whole of such a problem, with members of the server's own; `None` if the body is something else.
    ///
    /// # Cancel safety
    ///
    /// As [`problem`](Self::problem).
    pub async fn problem_as<T: DeserializeOwned>(&mut self) -> Option<T> {
        if self.headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/problem+json") {
            return None;
        }
        serde_json::from_slice(&self.body.short().await.ok()?).ok()
    }
}

/// The body of a response: read it with [`next`](Self::next), as a [`Stream`] of bytes, or as a
/// [`http_body::Body`], which also gives trailers.
///
/// It is checked against the `content-length` of its head
/// ([RFC 9114 §4.1.2](https://www.rfc-editor.org/rfc/rfc9114#section-4.1.2)), and its end is clean only if the
/// server ended it: a response that was cut short is an error. As a stream or [`http_body::Body`] it reports
/// its error once and then ends; [`next`](Self::next) and [`trailers`](Self::trailers) report it again.
///
/// Dropping it before its end cancels the request (H3_REQUEST_CANCELLED,
/// [RFC 9114 §4.1.1](https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1)), and the request's body if that is
/// still being sent.
///
/// ```no_run
/// # async fn doc(body: h3cast_transport::client::Body) -> Result<(), h3cast_transport::client::ClientError> {
/// use futures_util::TryStreamExt;
///
/// let length = body.try_fold(0, async |sum, bytes| Ok(sum + bytes.len())).await?;
/// # let _: usize = length;
/// # Ok(()) }
/// ```
pub struct Body {
    stream: RequestStream<RecvStream, Bytes>,
    shared: Arc<Shared>,
    /// How long it is, in bytes, if the head says so.
    length: Option<u64>,
    received: u64,
    state: BodyState,
    /// The request's body, if that is still being sent.
    upload: Option<Upload>,
    /// Keeps the connection open, if no one else does.
    lease: Option<Lease>,
}

#[derive(Debug)]
enum BodyState {
    Data,
    /// The data is complete.
    Trailers,
    Ended(Option<Box<HeaderMap>>),
    Failed {
        error: Box<ClientError>,
        /// As a stream it has ended.
        reported: bool,
    },
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("length", &self.length).field("received", &self.received).finish_non_exhaustive()
    }
}

impl Body {
    pub(super) fn new(stream: RequestStream<RecvStream, Bytes>, shared: Arc<Shared>, length: Option<u64>) -> Self {
        Self { stream, shared, length, received: 0, state: BodyState::Data, upload: None, lease: None }
    }

    /// The request's body is still being sent.
    pub(super) fn sending(&mut self, upload: Upload) {
        self.upload = Some(upload);
    }

    /// Keeps the connection until it is dropped.
    pub(super) fn keep(&mut self, lease: Lease) {
        self.lease = Some(lease);
    }

    /// Waits for the next bytes; `None` at the clean end, after the trailers.
    ///
    /// # Errors
    ///
    /// If the response was cut short, or is not as long as its `content-length` ([`ClientError::Length`]).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        poll_fn(|cx| self.poll_bytes(cx)).await
    }

    /// Reads to the end of the body and gives its trailers, if it has any and they were not given before. Data
    /// that has not been read is discarded.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe, except that data may have been discarded.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, ClientError> {
        while self.next().await?.is_some() {}
        Ok(self.take_trailers())
    }

    /// The whole body, which must not be longer than 16 KiB.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next), and if it is longer.
    ///
    /// # Cancel safety
    ///
    /// Not cancel-safe: when dropped, a part of the body is gone.
    pub async fn short(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        while let Some(bytes) = self.next().await? {
            text.extend_from_slice(&bytes);
            if text.len() > LONGEST_ANSWER {
                return Err(ProtocolError::TooLong(LONGEST_ANSWER).into());
            }
        }
        Ok(text)
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        match &mut self.state {
            BodyState::Ended(trailers) => trailers.take().map(|trailers| *trailers),
            _ => None,
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        loop {
            match &self.state {
                BodyState::Data => match ready!(self.poll_data(cx)) {
                    Ok(Some(bytes)) => return Poll::Ready(Ok(Some(bytes))),
                    Ok(None) => self.state = BodyState::Trailers,
                    Err(error) => self.failed(error),
                },
                BodyState::Trailers => match ready!(self.stream.poll_recv_trailers(cx)) {
                    Ok(trailers) => self.state = BodyState::Ended(trailers.map(Box::new)),
                    Err(error) => self.failed(ClientError::of_stream(&self.shared, error)),
                },
                BodyState::Ended(_) => return Poll::Ready(Ok(None)),
                BodyState::Failed { error, .. } => return Poll::Ready(Err(error.copied())),
            }
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ClientError>> {
        let data = match ready!(self.stream.poll_recv_data(cx)) {
            Ok(data) => data.map(|mut data| data.copy_to_bytes(data.remaining())),
            Err(error) => return Poll::Ready(Err(ClientError::of_stream(&self.shared, error))),
        };
        self.received += data.as_ref().map_or(0, |data| data.len() as u64);
        // RFC 9114 §4.1.2.
        let wrong = self.length.filter(|length| match &data {
            Some(_) => self.received > *length,
            None => self.received < *length,
        });
        Poll::Ready(match wrong {
            Some(length) => {
                self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
                Err(ClientError::Length { length, received: self.received })
            }
            None => Ok(data),
        })
    }

    fn failed(&mut self, error: ClientError) {
        // A request that was cancelled for its body has no other cause.
        let cause = self.upload.as_ref().and_then(Upload::failure);
        self.state = BodyState::Failed { error: Box::new(cause.unwrap_or(error)), reported: false };
    }

    /// As [`poll_bytes`](Self::poll_bytes), with one error.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ClientError>>> {
        if matches!(self.state, BodyState::Failed { reported: true, .. }) {
            return Poll::Ready(None);
        }
        let piece = ready!(self.poll_bytes(cx));
        if let BodyState::Failed { reported, .. } = &mut self.state {
            *reported = true;
        }
        Poll::Ready(piece.transpose())
    }
}

impl Stream for Body {
    type Item = Result<Bytes, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_piece(cx)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        Poll::Ready(match ready!(self.poll_piece(cx)) {
            Some(piece) => Some(piece.map(Frame::data)),
            None => self.take_trailers().map(|trailers| Ok(Frame::trailers(trailers))),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, BodyState::Ended(None))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |length| SizeHint::with_exact(length.saturating_sub(self.received)))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(upload) = self.upload.take().filter(|_| !matches!(self.state, BodyState::Ended(_))) {
            upload.cancel();
        }
    }
}

/// How long a body is, if its head says so.
///
/// # Errors
///
/// [`ClientError::Malformed`] if that is not a number, or there are two different ones.
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
                    return Err(MalformedResponse::ContentLength(fields.join(", ")).into());
                }
            }
        }
    }
    Ok(length)
}
