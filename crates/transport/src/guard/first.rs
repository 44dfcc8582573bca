//! Reading the beginning of every stream that the peer opens, before h3 sees it.
//!
//! Each stream is read by a future of its own, with a deadline, so that a silent one delays
//! nobody. WebTransport streams go to their session, QPACK's streams are checked here, and of the
//! rest h3 gets only requests whose HEADERS frame is already complete, and the control stream.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;
use h3cast_proto::{
    Role, Violation, code,
    filter::FrameFilter,
    frame,
    message::{self, Wrong},
    qpack, stream_type,
};
use tracing::{debug, trace};

use super::{
    Shared,
    head::{Cut, Head},
    recv::RecvStream,
    request::BidiStream,
    send::SendStream,
};
use crate::quic;

/// What to do with the two halves of a bidirectional stream.
enum BiVerdict {
    Request(message::Head),
    Session(u64),
    /// Refuse this stream with a code.
    Refuse(u64),
    /// Answer with this frame, and refuse the rest with a code.
    Answer(&'static [u8], u64),
    Gone,
    Violation(Violation),
}

/// Reads the beginning of a bidirectional stream; gives it back when it is a request for h3.
pub(crate) async fn bidirectional(
    shared: Arc<Shared>,
    mut send: quic::SendStream,
    recv: quic::RecvStream,
) -> Option<BidiStream> {
    let mut head = Head::new(recv);
    let verdict = tokio::time::timeout(shared.limits.head_timeout, judge_bi(&shared, &mut head))
        .await
        .unwrap_or(BiVerdict::Refuse(code::H3_REQUEST_CANCELLED));
    match verdict {
        BiVerdict::Request(kind) => {
            let filter = FrameFilter::request(shared.limits.max_field_section_size, kind);
            let recv = RecvStream::new(head.stream, VecDeque::new(), filter, shared.clone());
            return Some(BidiStream::new(SendStream::new(send, shared.role), recv.with_prefix(head.buf)));
        }
        BiVerdict::Session(id) => shared.sessions.deliver_bi(id, send, head.stream, head.buf).await,
        BiVerdict::Answer(response, error) => {
            head.stop(error);
            if send.write_all(response).await.is_ok() {
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

async fn judge_bi(shared: &Shared, head: &mut Head<quic::RecvStream>) -> BiVerdict {
    let mut first = true;
    loop {
        let (ty, len, size) = match head.peek_frame().await {
            Ok(found) => found,
            Err(Cut::Lost) => return BiVerdict::Gone,
            // RFC 9114 §7.1: a frame cut short by the end of its stream.
            Err(Cut::End) if !head.buf.is_empty() => return truncated(),
            // RFC 9114 §4.1: not enough of a request to answer.
            Err(Cut::End) => return BiVerdict::Refuse(code::H3_REQUEST_INCOMPLETE),
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
            frame::HEADERS if len > shared.limits.max_field_section_size => return TOO_LARGE,
            frame::HEADERS => {
                let whole = size + usize::try_from(len).unwrap_or(usize::MAX);
                return match head.fill(whole).await {
                    Ok(()) => judge_fields(&head.buf[size..whole], shared.limits.max_field_section_size),
                    Err(Cut::Lost) => BiVerdict::Gone,
                    Err(Cut::End) => truncated(),
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
                Err(Cut::Lost) => return BiVerdict::Gone,
                Err(Cut::End) => return truncated(),
            },
        }
        first = false;
    }
}

const TOO_LARGE: BiVerdict = BiVerdict::Answer(qpack::FIELDS_TOO_LARGE, code::H3_EXCESSIVE_LOAD);

fn judge_fields(section: &[u8], limit: u64) -> BiVerdict {
    let fields = match qpack::decode(section, limit) {
        Ok(fields) => fields,
        Err(qpack::FieldsError::TooLarge) => return TOO_LARGE,
        Err(qpack::FieldsError::Undecodable) => return BiVerdict::Violation(qpack::UNDECODABLE),
    };
    match message::check_head(&fields) {
        Ok(head) => BiVerdict::Request(head),
        Err(Wrong::Protocol) => BiVerdict::Answer(qpack::NOT_IMPLEMENTED, code::H3_NO_ERROR),
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
    let mut head = Head::new(recv);
    let Ok(ty) = tokio::time::timeout(shared.limits.head_timeout, head.peek()).await else {
        head.stop(code::H3_STREAM_CREATION_ERROR);
        return None;
    };
    // RFC 9114 §6.2: a stream may end before its type.
    let (ty, size) = ty.ok()?;
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
                        shared.sessions.deliver_uni(id, head.stream, head.buf).await;
                    }
                    Err(violation) => shared.violated(violation),
                },
                Ok(Err(_)) => {}
                Err(_) => head.stop(code::WT_BUFFERED_STREAM_REJECTED),
            }
        }
        _ => {
            trace!(ty, "refusing a stream of unknown type");
            head.stop(code::H3_STREAM_CREATION_ERROR);
        }
    }
    None
}

/// Reads one of QPACK's streams for as long as the connection lasts.
async fn qpack_stream(shared: &Shared, ty: u64, mut head: Head<quic::RecvStream>) -> Result<(), Violation> {
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
