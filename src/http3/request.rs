//! A request's body, as the router reads it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::Frame;

use super::BackendRecvStream;

/// The body of an HTTP/3 request. Dropping it before its end asks the client to stop sending it
/// (H3_NO_ERROR).
pub(crate) struct RequestBody {
    stream: h3::server::RequestStream<BackendRecvStream, Bytes>,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Data,
    Trailers,
    Ended,
}

impl RequestBody {
    pub(crate) fn new(stream: h3::server::RequestStream<BackendRecvStream, Bytes>) -> Self {
        Self { stream, state: State::Data }
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = h3::error::StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.state == State::Data {
            match ready!(self.stream.poll_recv_data(cx)) {
                Ok(Some(mut data)) => {
                    let data = data.copy_to_bytes(data.remaining());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(None) => self.state = State::Trailers,
                Err(error) => {
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
        if self.state == State::Trailers {
            let trailers = ready!(self.stream.poll_recv_trailers(cx));
            self.state = State::Ended;
            return Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)));
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended
    }
}
