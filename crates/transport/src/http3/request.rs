//! A request's body, as the router reads it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use h3::error::Code;
use http::{HeaderMap, header};
use http_body::{Frame, SizeHint};

use crate::{
    guard::{Malformed, RecvStream},
    interim::{Expected, Outgoing},
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// RFC 9110 §10.1.1.
const CONTINUE: &[u8] = b"100-continue";

/// The body of an HTTP/3 request. Dropping it before its end asks the client to stop sending it
/// (H3_NO_ERROR).
pub(crate) struct RequestBody {
    stream: h3::server::RequestStream<RecvStream, Bytes>,
    state: BodyPart,
    /// What had arrived before anything asked for the body.
    arrived: Option<Result<Frame<Bytes>, BoxError>>,
    /// What must still come after that, if the head said how much.
    left: Option<u64>,
    malformed: Malformed,
    /// The client waits for 100 before it sends any.
    expected: Option<Expected>,
    /// Counts what is read of it.
    received: Option<Arc<AtomicU64>>,
}

#[derive(PartialEq)]
enum BodyPart {
    Data,
    Trailers,
    Ended,
}

impl RequestBody {
    pub(crate) fn new(
        stream: h3::server::RequestStream<RecvStream, Bytes>,
        headers: &HeaderMap,
        malformed: Malformed,
        outgoing: &Outgoing,
        received: Option<Arc<AtomicU64>>,
    ) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let expects =
            headers.get_all(header::EXPECT).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(CONTINUE));
        let expected = (expects && left != Some(0)).then(|| outgoing.expected());
        let mut body = Self { stream, state: BodyPart::Data, arrived: None, left, malformed, expected, received };
        // The end of a request without a body comes with its head. Layers and handlers that pass the body on ask
        // for that (`is_end_stream`, `size_hint`) before they read: a proxy would send it in chunks.
        if let Poll::Ready(arrived) = body.poll_read(&mut Context::from_waker(Waker::noop())) {
            body.arrived = arrived;
        }
        body
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.state == BodyPart::Data {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    if let Some(received) = &self.received {
                        received.fetch_add(data.len() as u64, Ordering::Relaxed);
                    }
                    match self.left.map(|left| left.checked_sub(data.len() as u64)) {
                        Some(None) => return self.wrong_length(),
                        Some(left) => self.left = left,
                        None => {}
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) if self.left.is_some_and(|left| left > 0) => return self.wrong_length(),
                Ok(None) => self.state = BodyPart::Trailers,
                Err(error) => {
                    self.state = BodyPart::Ended;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        if self.state == BodyPart::Trailers {
            let trailers = ready!(self.stream.poll_recv_trailers(cx));
            self.state = BodyPart::Ended;
            return Poll::Ready(
                trailers.transpose().map(|trailers| trailers.map(Frame::trailers).map_err(BoxError::from)),
            );
        }
        Poll::Ready(None)
    }

    /// RFC 9114 §4.1.2: the body is not as long as the head says.
    fn wrong_length(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.state = BodyPart::Ended;
        self.malformed.set();
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        Poll::Ready(Some(Err("the body is not as long as its content-length".into())))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let expected = self.expected.take();
        if let Some(arrived) = self.arrived.take() {
            return Poll::Ready(Some(arrived));
        }
        let polled = self.poll_read(cx);
        if let Some(expected) = expected
            && polled.is_pending()
        {
            expected.ask();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.arrived.is_none() && self.state == BodyPart::Ended
    }

    fn size_hint(&self) -> SizeHint {
        let arrived = match &self.arrived {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => 0,
        };
        match (&self.state, self.left) {
            (BodyPart::Data, None) => SizeHint::default(),
            (BodyPart::Data, Some(left)) => SizeHint::with_exact(arrived + left),
            (BodyPart::Trailers | BodyPart::Ended, _) => SizeHint::with_exact(arrived),
        }
    }
}
