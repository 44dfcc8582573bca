//! Writing a response: the head by h3, the body by ourselves on the raw stream, each piece as one
//! DATA frame that leaves at once.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use axum_core::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use h3cast_proto::{code, frame, qpack, varint};
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use tracing::{debug, warn};

use super::{
    placeholder::Settled,
    taken::{self, TakenStream},
    takeover::Offers,
};
use crate::{
    connection::{self, Cut},
    exchange::Exchange,
    guard::{Malformed, RequestParts, SendStream as GuardedSendStream, Stopped},
    interim::Outgoing,
    outstanding::LONGEST,
    quic::{Connection, SendStream, WriteError},
    rarely::rarely,
    response::{Checked, checked, checked_interim, has_no_content},
};

/// The header of a DATA frame with a payload of `len` bytes.
pub(super) fn data_header(len: usize) -> Bytes {
    frame_header(frame::DATA, len)
}

fn frame_header(ty: u64, len: usize) -> Bytes {
    let mut header = BytesMut::with_capacity(1 + varint::MAX_LEN);
    frame::put_header(ty, len, &mut header);
    header.freeze()
}

/// How long to wait for the acknowledgement of a stream that is not ours any more.
pub(super) const ACKNOWLEDGED: Duration = Duration::from_secs(3);

type Stream = h3::server::RequestStream<GuardedSendStream, Bytes>;

/// Sends interim responses until there are no more; gives the stream back for the final one.
pub(super) async fn write_interim(outgoing: &Outgoing, mut stream: Stream) -> Stream {
    while let Some(responses) = outgoing.next().await {
        for response in responses {
            let status = response.status();
            if let Err(error) = stream.send_response(checked_interim(response)).await {
                debug!(%error, %status, "cannot send an interim response");
            }
        }
    }
    stream
}

/// Sends `response` and waits until the client has it, or no longer wants it. A stream that is taken
/// over is still to be waited for: what it gives does that.
pub(super) async fn write(
    (conn, exchange): (Connection, Exchange),
    mut stream: Stream,
    mut parts: RequestParts,
    method: &Method,
    offers: Offers,
    mut response: Response<Body>,
) -> Option<BoxFuture<'static, ()>> {
    let bodiless = *method == Method::HEAD || has_no_content(response.status());
    let mut work = None;
    if let Some(offer) = offers.take().filter(|_| !bodiless && !response.status().is_informational()) {
        let body = std::mem::take(response.body_mut());
        let settled = tokio::select! {
            biased;
            settled = offer.settle(body) => settled,
            _ = &mut parts.stopped => return None,
        };
        match settled {
            Settled::Taken(taken, body) => (work, *response.body_mut()) = (Some(taken), body),
            Settled::Body(body) => *response.body_mut() = body,
            Settled::Refused(reason) => {
                warn!("{reason} of a response that its handler writes by takeover: answering 500");
                response = refused(reason);
            }
        }
    }
    let cut = response.extensions_mut().remove::<Cut>();
    let (mut head, body) = checked(Version::HTTP_3, method, response).into_parts();
    if !head.headers.contains_key(header::DATE) {
        head.headers.insert(header::DATE, date());
    }
    exchange.answered(head.status);
    parts.handback.ask();
    if let Err(error) = stream.send_response(Response::from_parts(head, ())).await {
        // Dropping what comes back resets it.
        debug!(%error, "cannot send the response's head");
        return None;
    }
    drop(stream);
    // From here on, whatever is given up or panics resets it.
    let mut unfinished = parts.handback.take()?;
    if let Some(work) = work {
        let stream = TakenStream::new(conn, unfinished.take()?, body.length(), exchange);
        let broken_off = stream.broken_off();
        return Some(Box::pin(taken_over(work(stream), body, parts.stopped, broken_off)));
    }
    let stream = unfinished.get_mut()?;
    let mut stopped = rarely(parts.stopped);
    let written = match bodiless {
        true => Ok(()),
        false => {
            tokio::select! {
                biased;
                written = write_body(stream, body, &parts.malformed, &exchange) => written,
                // The body is dropped here, and with it whatever produces it.
                () = &mut stopped => Err(code::H3_REQUEST_CANCELLED),
                () = rarely(Box::pin(connection::cut(cut))) => {
                    exchange.cut();
                    Err(code::H3_EXCESSIVE_LOAD)
                }
            }
        }
    };
    match written {
        Ok(()) => {
            // Errors here mean that the client has gone.
            if unfinished.finish() {
                exchange.ended();
                has_all(conn.send_timeout(), stopped).await;
            }
        }
        Err(error) => {
            // What the application gave before it failed is to arrive; nobody waits for the others.
            if error == code::H3_INTERNAL_ERROR {
                exchange.cut();
                tokio::select! {
                    biased;
                    () = taken::delivered(&conn, stream) => {}
                    () = &mut stopped => {}
                }
            }
            unfinished.reset(error);
        }
    }
    None
}

/// Waits until the client has all of a response. One that acknowledges everything but this, with a send timeout, keeps
/// its place for a minute at least: then it no longer counts, and its connection ends as one without a request does.
async fn has_all(send_timeout: Option<Duration>, stopped: impl Future<Output = ()>) {
    let Some(timeout) = send_timeout else { return stopped.await };
    if tokio::time::timeout(LONGEST.max(timeout), stopped).await.is_err() {
        debug!("a client did not acknowledge a response in time");
    }
}

/// The answer where a takeover and the layers around its handler do not go together.
fn refused(reason: &str) -> Response<Body> {
    let text = format!("{reason} of this response, which its handler writes to the HTTP/3 stream itself\n");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// Waits for a handler's own future, which is dropped as soon as the client goes away.
async fn taken_over(work: impl Future<Output = ()>, _body: Checked, stopped: Stopped, broken_off: Arc<AtomicBool>) {
    let mut stopped = rarely(stopped);
    tokio::select! {
        biased;
        // QUIC does not report when a reset is acknowledged.
        () = work => if !broken_off.load(Ordering::Relaxed) {
            // What was written is to arrive before the connection may be closed.
            let _ = tokio::time::timeout(ACKNOWLEDGED, stopped).await;
        },
        () = &mut stopped => {}
    }
}

/// Writes a body to its end; an error is the code to reset the stream with.
async fn write_body(
    stream: &mut SendStream,
    body: Checked,
    malformed: &Malformed,
    exchange: &Exchange,
) -> Result<(), u64> {
    let mut body = pin!(body);
    while let Some(piece) = body.frame().await {
        let piece = piece.map_err(|error| {
            debug!(%error, "the body of a response failed");
            match malformed.get() {
                true => code::H3_MESSAGE_ERROR,
                false => code::H3_INTERNAL_ERROR,
            }
        })?;
        let (ty, payload) = match piece.into_data() {
            Ok(data) if data.is_empty() => continue,
            Ok(data) => (frame::DATA, data),
            Err(piece) => match piece.into_trailers() {
                Ok(trailers) if trailers.is_empty() => continue,
                Ok(trailers) => (frame::HEADERS, qpack::encode(&trailers)),
                Err(_) => continue,
            },
        };
        let size = if ty == frame::DATA { payload.len() as u64 } else { 0 };
        let mut chunks = [frame_header(ty, payload.len()), payload];
        stream.write_all_chunks(&mut chunks).await.map_err(|error| {
            not_written(exchange, &error);
            code::H3_REQUEST_CANCELLED
        })?;
        exchange.sent(size);
    }
    Ok(())
}

/// Notes why nothing more of a response can be written.
pub(super) fn not_written(exchange: &Exchange, error: &WriteError) {
    match error {
        WriteError::Stopped(_) => exchange.gone(),
        WriteError::Stalled => exchange.cut(),
        // The connection knows more.
        WriteError::ConnectionLost(_) | WriteError::Ended => {}
    }
}

/// The current time for a `date` header (RFC 9110 §6.6.1).
fn date() -> HeaderValue {
    use time::macros::format_description;
    let format =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let now = time::OffsetDateTime::from(SystemTime::now());
    let text = now.format(&format).unwrap_or_default();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_response_that_is_never_acknowledged_does_not_count_for_ever() {
        for (timeout, expected) in [(1, Some(60)), (200, Some(200)), (0, None)] {
            let begun = Instant::now();
            let timeout = (timeout > 0).then_some(Duration::from_secs(timeout));
            let waiting = has_all(timeout, std::future::pending());
            let ended = tokio::time::timeout(Duration::from_secs(10_000), waiting).await;
            assert_eq!(ended.ok().map(|()| begun.elapsed().as_secs()), expected);
        }
    }
}
