//! A request's body, as the router reads it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
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
    state: State,
    /// What must still come, if the head said how much.
    left: Option<u64>,
    malformed: Malformed,
    /// The client waits for 100 before it sends any.
    expected: Option<Expected>,
}

#[derive(PartialEq)]
enum State {
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
    ) -> Self {
        let length = headers.get(header::CONTENT_LENGTH);
        let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let expects =
            headers.get_all(header::EXPECT).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(CONTINUE));
        let expected = (expects && left != Some(0)).then(|| outgoing.expected());
        Self { stream, state: State::Data, left, malformed, expected }
    }

    /// RFC 9114 §4.1.2: the body is not as long as the head says.
    fn wrong_length(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.state = State::Ended;
        self.malformed.set();
        self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        Poll::Ready(Some(Err("the body is not as long as its content-length".into())))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.state == State::Data {
            let polled = self.stream.poll_recv_data(cx);
            if let Some(expected) = self.expected.take()
                && polled.is_pending()
            {
                expected.ask();
            }
            match ready!(polled) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    match self.left.map(|left| left.checked_sub(data.len() as u64)) {
                        Some(None) => return self.wrong_length(),
                        Some(left) => self.left = left,
                        None => {}
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) if self.left.is_some_and(|left| left > 0) => return self.wrong_length(),
                Ok(None) => self.state = State::Trailers,
                Err(error) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        if self.state == State::Trailers {
            let trailers = ready!(self.stream.poll_recv_trailers(cx));
            self.state = State::Ended;
            return Poll::Ready(
                trailers.transpose().map(|trailers| trailers.map(Frame::trailers).map_err(BoxError::from)),
            );
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
