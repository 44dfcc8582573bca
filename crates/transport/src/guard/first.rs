//! Reading the beginning of every stream that the peer opens, before h3 sees it.
//!
//! Each stream is read by a future of its own, with a deadline, so that a silent one delays
//! nobody. WebTransport streams go to their session, QPACK's streams are checked here, and of the
//! rest h3 gets only requests whose HEADERS frame is already complete, and the control stream.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use h3cast_proto::{
    Role, Violation, code,
    filter::FrameFilter,
    frame,
    message::{self, Wrong},
    qpack, stream_code, stream_type, varint,
};
use http::StatusCode;
use tracing::{debug, trace};

use super::{
    Begun, Shared,
    head::{HeadEnd, StreamHead},
    recv::RecvStream,
    request::BidiStream,
    send::SendStream,
};
use crate::quic;

/// What to do with the two halves of a bidirectional stream.
enum BiVerdict {
    Request(message::Head),
    Session(u64),
    /// The peer broke it off before it named its session, which is this one.
    Broken(u64, Begun),
    /// Refuse this stream with a code.
    Refuse(u64),
    /// Answer with this status, whose HEADERS frame this is, and this text, and refuse the rest with a code.
    Answer(StatusCode, &'static [u8], &'static str, u64),
    Gone,
    Violation(Violation),
}

/// Reads the beginning of a bidirectional stream; gives it back when it is a request for h3.
pub(crate) async fn bidirectional(
    shared: Arc<Shared>,
    mut send: quic::SendStream,
    recv: quic::RecvStream,
) -> Option<BidiStream> {
    let mut head = StreamHead::new(recv);
    let verdict = tokio::time::timeout(shared.limits.head_timeout, judge_bi(&shared, &mut head, &mut send))
        .await
        .unwrap_or(BiVerdict::Refuse(code::H3_REQUEST_CANCELLED));
    let nothing = matches!(verdict, BiVerdict::Refuse(_) | BiVerdict::Answer(..) | BiVerdict::Gone);
    let verdict = match shared.spend(nothing.into()) {
        Ok(()) => verdict,
        Err(flood) => BiVerdict::Violation(flood),
    };
    match verdict {
        BiVerdict::Request(kind) => {
            let filter = FrameFilter::request(shared.limits.head_size, kind);
            let recv = RecvStream::new(head.stream, VecDeque::new(), filter, shared.clone());
            return Some(BidiStream::new(SendStream::new(send, shared.role), recv.with_prefix(head.buf)));
        }
        BiVerdict::Session(id) => {
            shared.sessions.deliver_bi(id, send, head.stream, Begun::Named(head.buf)).await;
        }
        BiVerdict::Broken(id, begun) => shared.sessions.deliver_bi(id, send, head.stream, begun).await,
        BiVerdict::Answer(status, fields, text, error) => {
            shared.answered(status);
            head.stop(error);
            let mut response = BytesMut::from(fields);
            if !text.is_empty() {
                frame::put_header(frame::DATA, text.len(), &mut response);
                response.extend_from_slice(text.as_bytes());
            }
            if send.write_all(&response).await.is_ok() {
                let _ = send.finish();
            }
        }
        BiVerdict::Refuse(error) => {
            head.stop(error);
            send.reset(error);
        }
        BiVerdict::Gone => {
            send.reset(code::H3_REQUEST_CANCELLED);
        }
        BiVerdict::Violation(violation) => shared.violated(violation),
    }
    None
}

async fn judge_bi(shared: &Shared, head: &mut StreamHead<quic::RecvStream>, send: &mut quic::SendStream) -> BiVerdict {
    let mut first = true;
    loop {
        let found = match first {
            true => match first_frame(shared, head, send).await {
                Ok(found) => found,
                Err(id) => return BiVerdict::Broken(id, Begun::Unnamed(std::mem::take(&mut head.buf))),
            },
            false => head.peek_frame().await,
        };
        let (ty, len, size) = match found {
            Ok(found) => found,
            Err(HeadEnd::Reset(code)) if first && may_be_session(&head.buf) => {
                return match reset(shared, send.id(), code) {
                    Some(id) => BiVerdict::Broken(id, Begun::Reset(code)),
                    None => BiVerdict::Gone,
                };
            }
            Err(HeadEnd::Reset(_) | HeadEnd::Lost) => return BiVerdict::Gone,
            // RFC 9114 §7.1: a frame cut short by the end of its stream.
            Err(HeadEnd::End) if !head.buf.is_empty() => return truncated(),
            // RFC 9114 §4.1: not enough of a request to answer.
            Err(HeadEnd::End) => return BiVerdict::Refuse(code::H3_REQUEST_INCOMPLETE),
        };
        match ty {
            frame::WEBTRANSPORT_STREAM if first => {
                drop(head.buf.split_to(size));
                return session_id(len).map_or_else(BiVerdict::Violation, BiVerdict::Session);
            }
            frame::WEBTRANSPORT_STREAM => {
                return BiVerdict::Violation(Violation {
                    code: code::H3_FRAME_ERROR,
                    reason: "the WebTransport stream signal is not at the beginning of its stream",
                });
            }
            _ if shared.role == Role::Client => {
                // RFC 9114 §6.1: a server opens no bidirectional stream of HTTP/3's own.
                return BiVerdict::Violation(Violation {
                    code: code::H3_STREAM_CREATION_ERROR,
                    reason: "the server opened a bidirectional stream that is not WebTransport",
                });
            }
            frame::HEADERS if len > shared.limits.head_size => return TOO_LARGE,
            frame::HEADERS => {
                let whole = size + usize::try_from(len).unwrap_or(usize::MAX);
                return match head.fill(whole).await {
                    Ok(()) => judge_fields(&head.buf[size..whole], shared.limits.head_size),
                    Err(HeadEnd::Reset(_) | HeadEnd::Lost) => BiVerdict::Gone,
                    Err(HeadEnd::End) => truncated(),
                };
            }
            _ if frame::is_known(ty) => {
                return BiVerdict::Violation(Violation {
                    code: code::H3_FRAME_UNEXPECTED,
                    reason: "a request does not begin with HEADERS",
                });
            }
            _ => match head.skip(size as u64 + len).await {
                Ok(()) => {}
                Err(HeadEnd::Reset(_) | HeadEnd::Lost) => return BiVerdict::Gone,
                Err(HeadEnd::End) => return truncated(),
            },
        }
        first = false;
    }
}

/// How long a bidirectional stream may be silent before we look whether the peer has stopped the other half of it.
/// Then it is four times as long.
const STOP_CHECK: Duration = Duration::from_millis(250);

/// Waits for the first frame; gives the stream's session when the peer has stopped the other half of it before.
///
/// We look now and then and do not wait for the stop: quinn would remember that until the end of the connection.
async fn first_frame(
    shared: &Shared,
    head: &mut StreamHead<quic::RecvStream>,
    send: &mut quic::SendStream,
) -> Result<Result<(u64, u64, usize), HeadEnd>, u64> {
    // Usually it is here. What waits longer has a box, so that requests do not carry it.
    if let Some(found) = head.peek_frame().now_or_never() {
        return Ok(found);
    }
    Box::pin(async {
        let mut wait = STOP_CHECK;
        loop {
            if let Ok(found) = tokio::time::timeout(wait, head.peek_frame()).await {
                return Ok(found);
            }
            wait *= 4;
            if may_be_session(&head.buf)
                && shared.sessions.only(send.id()).is_some()
                && let Some(code) = send.stop_code()
                && let Some(id) = attributed(shared, send.id(), code)
            {
                return Err(id);
            }
        }
    })
    .await
}

/// Whether a stream that begins so may still turn out to be a session's.
fn may_be_session(buf: &[u8]) -> bool {
    varint::decode(buf).is_none_or(|(signal, _)| signal == frame::WEBTRANSPORT_STREAM)
}

/// The session of a stream that the peer broke off with `code` before it named one.
///
/// QUIC gives up what was sent before a reset, the header included (RFC 9000 §3.2). A code of the range of
/// applications (draft-ietf-webtrans-http3 §4.4) shows that the stream is a session's, and with one session there is
/// no doubt whose.
fn attributed(shared: &Shared, stream: u64, code: u64) -> Option<u64> {
    stream_code::from_http3(code)?;
    shared.sessions.only(stream)
}

/// The same of a stream that was reset: the last that is heard of it.
fn reset(shared: &Shared, stream: u64, code: u64) -> Option<u64> {
    let session = attributed(shared, stream, code);
    if session.is_none() && stream_code::from_http3(code).is_some() {
        debug!(stream, "a stream was reset before it named its session, and cannot be reported");
        shared.sessions.unreported();
    }
    session
}

const TOO_LARGE: BiVerdict = BiVerdict::Answer(
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    qpack::FIELDS_TOO_LARGE,
    "",
    code::H3_EXCESSIVE_LOAD,
);

/// WebSocket handlers take their stream from hyper, which cannot be given one of HTTP/3.
const NO_SUCH_PROTOCOL: &str = "The only :protocol that this server has over HTTP/3 is webtransport. \
    WebSocket (RFC 9220) works over HTTP/2 and HTTP/1.1 only; over HTTP/3, use a WebTransport session.\n";

fn judge_fields(section: &[u8], limit: u64) -> BiVerdict {
    let fields = match qpack::decode(section, limit) {
        Ok(fields) => fields,
        Err(qpack::FieldsError::TooLarge) => return TOO_LARGE,
        Err(qpack::FieldsError::Undecodable) => return BiVerdict::Violation(qpack::UNDECODABLE),
    };
    match message::check_head(&fields) {
        Ok(head) => BiVerdict::Request(head),
        Err(Wrong::Protocol) => {
            BiVerdict::Answer(StatusCode::NOT_IMPLEMENTED, qpack::NOT_IMPLEMENTED, NO_SUCH_PROTOCOL, code::H3_NO_ERROR)
        }
        Err(Wrong::Malformed(reason)) => {
            debug!(reason, "refusing a malformed request");
            BiVerdict::Refuse(code::H3_MESSAGE_ERROR)
        }
    }
}

fn truncated() -> BiVerdict {
    BiVerdict::Violation(Violation {
        code: code::H3_FRAME_ERROR,
        reason: "a frame is cut short by the end of its stream",
    })
}

/// A session is named by its CONNECT stream: client-initiated and bidirectional
/// (draft-ietf-webtrans-http3 §4).
fn session_id(id: u64) -> Result<u64, Violation> {
    match id % 4 {
        0 => Ok(id),
        _ => Err(Violation { code: code::H3_ID_ERROR, reason: "a session id is not that of a request stream" }),
    }
}

/// Reads the beginning of a unidirectional stream; gives it back when it is the control stream.
pub(crate) async fn unidirectional(shared: Arc<Shared>, recv: quic::RecvStream) -> Option<RecvStream> {
    let mut head = StreamHead::new(recv);
    let Ok(ty) = tokio::time::timeout(shared.limits.head_timeout, head.peek()).await else {
        head.stop(code::H3_STREAM_CREATION_ERROR);
        return None;
    };
    let (ty, size) = match ty {
        Ok(found) => found,
        Err(HeadEnd::Reset(code)) => {
            reset_uni(&shared, head.stream, code).await;
            return None;
        }
        // RFC 9114 §6.2: a stream may end before its type.
        Err(HeadEnd::End | HeadEnd::Lost) => return None,
    };
    let announced = head.buf.split_to(size);
    match ty {
        stream_type::CONTROL => {
            let passed = VecDeque::from([announced]);
            let filter = FrameFilter::control(shared.role);
            let rest = head.buf;
            return Some(RecvStream::new(head.stream, passed, filter, shared).with_prefix(rest));
        }
        stream_type::QPACK_ENCODER | stream_type::QPACK_DECODER => {
            if let Err(violation) = qpack_stream(&shared, ty, head).await {
                shared.violated(violation);
            }
        }
        stream_type::PUSH => shared.violated(match shared.role {
            Role::Server => Violation { code: code::H3_STREAM_CREATION_ERROR, reason: "a client opened a push stream" },
            Role::Client => Violation { code: code::H3_ID_ERROR, reason: "the server pushed without permission" },
        }),
        stream_type::WEBTRANSPORT => {
            let id = tokio::time::timeout(shared.limits.head_timeout, head.peek()).await;
            match id {
                Ok(Ok((id, size))) => match session_id(id) {
                    Ok(id) => {
                        drop(head.buf.split_to(size));
                        shared.sessions.deliver_uni(id, head.stream, Begun::Named(head.buf)).await;
                    }
                    Err(violation) => shared.violated(violation),
                },
                Ok(Err(HeadEnd::Reset(code))) => reset_uni(&shared, head.stream, code).await,
                Ok(Err(HeadEnd::End | HeadEnd::Lost)) => {}
                Err(_) => head.stop(code::WT_BUFFERED_STREAM_REJECTED),
            }
        }
        _ => {
            trace!(ty, "refusing a stream of unknown type");
            head.stop(code::H3_STREAM_CREATION_ERROR);
            if let Err(flood) = shared.spend(1) {
                shared.violated(flood);
            }
        }
    }
    None
}

/// Reports a unidirectional stream that the peer reset before it named its session.
async fn reset_uni(shared: &Shared, recv: quic::RecvStream, code: u64) {
    if let Some(id) = reset(shared, recv.id(), code) {
        shared.sessions.deliver_uni(id, recv, Begun::Reset(code)).await;
    }
}

/// Reads one of QPACK's streams for as long as the connection lasts.
async fn qpack_stream(shared: &Shared, ty: u64, mut head: StreamHead<quic::RecvStream>) -> Result<(), Violation> {
    let seen = match ty {
        stream_type::QPACK_ENCODER => &shared.qpack_encoder_seen,
        _ => &shared.qpack_decoder_seen,
    };
    if seen.swap(true, Ordering::Relaxed) {
        return Err(Violation {
            code: code::H3_STREAM_CREATION_ERROR,
            reason: "a second QPACK stream of the same type",
        });
    }
    let mut decoder = qpack::DecoderStream::default();
    loop {
        match ty {
            stream_type::QPACK_ENCODER => qpack::check_encoder_stream(&head.buf)?,
            _ => decoder.check(&head.buf)?,
        }
        head.buf = Bytes::new();
        if head.more().await.is_err() {
            // RFC 9204 §4.2. When the connection itself is gone, closing it again does nothing.
            return Err(Violation { code: code::H3_CLOSED_CRITICAL_STREAM, reason: "a QPACK stream was closed" });
        }
    }
}
