//! h3's QUIC traits over the engine's.
//!
//! h3-quinn opens the streams that h3 itself needs (control and QPACK). Streams that the peer
//! opens are ours, because of what h3-quinn cannot do: look at a stream before h3 does, cap what
//! h3 buffers, end an unfinished response with a reset, stop a request with H3_NO_ERROR, write a
//! frame in one call, and hand the raw stream on.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming};

use h3cast_proto::{code, filter::FrameFilter, settings};

use super::{
    Shared, first,
    recv::RecvStream,
    request::{BidiStream, RequestParts},
    send::{SendStream, lock},
    settings::ControlStream,
};

use crate::quic::{self as engine, Connection, ConnectionError, connection_error, control, lost};

type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send + Sync>>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + Sync>>;
type Accepted<T> = Result<T, ConnectionError>;

/// One connection, as h3 sees it.
pub(crate) struct Backend {
    shared: Arc<Shared>,
    open: OpenStreams,
    incoming_bi: BoxStream<Accepted<(engine::SendStream, engine::RecvStream)>>,
    incoming_uni: BoxStream<Accepted<engine::RecvStream>>,
    /// Streams that have not yet said what they are. Bounded by the stream limits of the
    /// transport configuration.
    heads_bi: FuturesUnordered<BoxFuture<Option<BidiStream>>>,
    heads_uni: FuturesUnordered<BoxFuture<Option<RecvStream>>>,
    accepted: Arc<Mutex<Option<RequestParts>>>,
}

impl Backend {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let accept_bi = |conn: Connection| async { Some((conn.accept_bi().await, conn)) };
        let accept_uni = |conn: Connection| async { Some((conn.accept_uni().await, conn)) };
        Self {
            open: OpenStreams::new(&shared),
            incoming_bi: Box::pin(futures_util::stream::unfold(shared.conn.clone(), accept_bi)),
            incoming_uni: Box::pin(futures_util::stream::unfold(shared.conn.clone(), accept_uni)),
            heads_bi: FuturesUnordered::new(),
            heads_uni: FuturesUnordered::new(),
            accepted: Arc::default(),
            shared,
        }
    }

    /// Where to find the parts of the request that h3's `accept` has just given out.
    pub(crate) fn accepted(&self) -> Arc<Mutex<Option<RequestParts>>> {
        self.accepted.clone()
    }
}

impl quic::Connection<Bytes> for Backend {
    type RecvStream = RecvStream;
    type OpenStreams = OpenStreams;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        while let Poll::Ready(Some(accepted)) = self.incoming_uni.poll_next_unpin(cx) {
            let recv = accepted.map_err(connection_error)?;
            self.shared.uni_came(recv.id());
            self.heads_uni.push(Box::pin(first::unidirectional(self.shared.clone(), recv)));
        }
        while let Poll::Ready(Some(read)) = self.heads_uni.poll_next_unpin(cx) {
            if let Some(stream) = read {
                return Poll::Ready(Ok(stream));
            }
        }
        Poll::Pending
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        while let Poll::Ready(Some(accepted)) = self.incoming_bi.poll_next_unpin(cx) {
            let (send, recv) = accepted.map_err(connection_error)?;
            let (id, shared) = (send.id(), self.shared.clone());
            shared.bi_came(id);
            self.heads_bi.push(Box::pin(async move {
                let request = first::bidirectional(shared.clone(), send, recv).await;
                shared.sessions.bi_read(id);
                request
            }));
        }
        while let Poll::Ready(Some(read)) = self.heads_bi.poll_next_unpin(cx) {
            if let Some(mut stream) = read {
                let id = quic::SendStream::send_id(&stream).into_inner();
                if self.shared.is_refused(id) {
                    // RFC 9114 §5.2: not handled, as our GOAWAY has said. h3 would take the very id
                    // that it names.
                    quic::RecvStream::stop_sending(&mut stream, code::H3_REQUEST_REJECTED);
                    quic::SendStream::reset(&mut stream, code::H3_REQUEST_REJECTED);
                    continue;
                }
                self.shared.request_accepted(id);
                *lock(&self.accepted) = Some(stream.parts());
                return Poll::Ready(Ok(stream));
            }
        }
        Poll::Pending
    }

    fn opener(&self) -> OpenStreams {
        OpenStreams::new(&self.shared)
    }
}

impl quic::OpenStreams<Bytes> for Backend {
    type BidiStream = BidiStream;
    type SendStream = ControlStream<control::SendStream>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.open.poll_open_bidi(cx)
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ControlStream<control::SendStream>, StreamErrorIncoming>> {
        self.open.poll_open_send(cx)
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        self.open.control.close(code, reason);
    }
}

/// The beginning of our control stream.
fn our_settings(max_field_section_size: u64) -> Bytes {
    match cfg!(feature = "webtransport") {
        true => settings::control_stream(max_field_section_size),
        false => settings::control_stream_without_sessions(max_field_section_size),
    }
}

/// Opens streams for h3.
pub(crate) struct OpenStreams {
    shared: Arc<Shared>,
    control: control::Opener,
    control_opened: bool,
    opening_bi: Option<BoxFuture<Accepted<(engine::SendStream, engine::RecvStream)>>>,
}

impl OpenStreams {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            control: control::Opener::new(&shared.conn),
            shared: shared.clone(),
            control_opened: false,
            opening_bi: None,
        }
    }
}

impl Clone for OpenStreams {
    fn clone(&self) -> Self {
        Self::new(&self.shared)
    }
}

impl quic::OpenStreams<Bytes> for OpenStreams {
    type BidiStream = BidiStream;
    type SendStream = ControlStream<control::SendStream>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let opening = self.opening_bi.get_or_insert_with(|| {
            let conn = self.shared.conn.clone();
            Box::pin(async move { conn.open_bi().await })
        });
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening_bi = None;
        let (send, recv) = opened.map_err(lost)?;
        let filter = FrameFilter::new(self.shared.limits.head_size);
        let recv = RecvStream::new(recv, VecDeque::new(), filter, self.shared.clone());
        Poll::Ready(Ok(BidiStream::new(SendStream::new(send, self.shared.role), recv)))
    }

    fn poll_open_send(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ControlStream<control::SendStream>, StreamErrorIncoming>> {
        let stream = ready!(self.control.poll_open(cx))?;
        // h3 opens its control stream first of all streams (RFC 9114 §6.2.1 asks for no order).
        let settings =
            (!std::mem::replace(&mut self.control_opened, true)).then(|| our_settings(self.shared.limits.head_size));
        Poll::Ready(Ok(ControlStream::new(stream, settings)))
    }

    fn close(&mut self, code: h3::error::Code, reason: &[u8]) {
        self.control.close(code, reason);
    }
}
