//! Sending a request with its body, while its response is read.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Buf;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use tokio::task::{AbortHandle, JoinSet};
use tracing::debug;

use super::{ClientError, ClientResponse, MalformedResponse, RequestBody, ResponseFuture, content_length};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request that is still being sent after the head of its response was received.
#[derive(Debug)]
pub(super) struct Upload {
    task: AbortHandle,
    failure: Arc<Mutex<Option<ClientError>>>,
}

impl Upload {
    /// Why it has cancelled its request, if it has.
    pub(super) fn failure(&self) -> Option<ClientError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Cancels it: what was not finished is reset.
    pub(super) fn cancel(self) {
        self.task.abort();
    }
}

/// The `content-length` of a request, which it is given if its body knows its size
/// ([RFC 9110 §8.6](https://www.rfc-editor.org/rfc/rfc9110#section-8.6)).
pub(super) fn length(head: &mut Parts, body: &impl http_body::Body) -> Result<Option<u64>, ClientError> {
    match content_length(&head.headers) {
        Ok(None) => {}
        Ok(Some(length)) => return Ok(Some(length)),
        // It is the caller's.
        Err(ClientError::Malformed(MalformedResponse::ContentLength(fields))) => {
            return Err(ClientError::InvalidRequestLength(fields));
        }
        Err(error) => return Err(error),
    }
    let length = body.size_hint().exact();
    let has_body = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if let Some(length) = length.filter(|length| *length > 0 || has_body) {
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(length)
}

/// Sends a body to its end. Dropped before that, or when the body fails, the request is reset.
async fn upload<B>(mut writer: RequestBody, body: B, length: Option<u64>) -> Result<(), ClientError>
where
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let mut body = pin!(body);
    let (mut sent, mut trailers): (u64, Option<HeaderMap>) = (0, None);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx))
        .await
        .transpose()
        .map_err(|error| ClientError::RequestBody(error.into()))?
    {
        match frame.into_data() {
            Ok(mut data) => {
                sent += data.remaining() as u64;
                if let Some(length) = length.filter(|length| sent > *length) {
                    return Err(ClientError::RequestLength { length, sent: None });
                }
                writer.send(data.copy_to_bytes(data.remaining())).await?;
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    if let Some(length) = length.filter(|length| sent < *length) {
        return Err(ClientError::RequestLength { length, sent: Some(sent) });
    }
    match trailers.filter(|trailers| !trailers.is_empty()) {
        Some(trailers) => writer.finish_with(trailers).await,
        None => writer.finish().await,
    }
}

/// Sends a body, and gives the response as soon as there is one. What is left of the body then becomes a task
/// among `uploads`.
///
/// # Cancel safety
///
/// Cancel-safe: when dropped, the request is cancelled.
pub(super) async fn exchange<B>(
    (writer, mut response): (RequestBody, ResponseFuture),
    body: B,
    length: Option<u64>,
    uploads: &Mutex<JoinSet<()>>,
) -> Result<ClientResponse, ClientError>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let mut upload = Box::pin(upload(writer, body, length));
    tokio::select! {
        biased;
        sent = &mut upload => match sent {
            Err(error @ (ClientError::RequestBody(_) | ClientError::RequestLength { .. })) => Err(error),
            // Whatever else is wrong, the response reports it: a server that reads no more may still answer.
            _ => response.await,
        },
        answered = &mut response => {
            let mut answered = answered?;
            let failure = Arc::new(Mutex::new(None));
            let reported = failure.clone();
            let mut uploads = uploads.lock().unwrap_or_else(PoisonError::into_inner);
            while uploads.try_join_next().is_some() {}
            let task = uploads.spawn(async move {
                if let Err(error) = upload.await {
                    debug!(%error, "the body of a request was not sent completely");
                    if matches!(error, ClientError::RequestBody(_) | ClientError::RequestLength { .. }) {
                        *reported.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                }
            });
            answered.body.sending(Upload { task, failure });
            Ok(answered)
        }
    }
}
