//! HTTP/2 and HTTP/1.1 over TLS, and plain HTTP on loopback.

mod accept;
mod announced;
mod coding;
mod control_frames;
mod delivered;
mod ending;
mod flushed;
mod frames;
mod lingering;
mod linked;
mod opening;
mod pace;
mod pings;
mod plain;
mod refusal;
mod send_buffer;
mod settings;
mod stalled;
#[cfg(test)]
mod tests;
mod unread;
mod waiting;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum_core::body::Body;
use futures_util::FutureExt;
use h3cast_proto::code;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::io::{AsyncRead, AsyncWrite};
pub(crate) use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{Instrument, Span, debug, error_span, field};

pub(crate) use self::accept::{Listener, serve};
use self::{
    accept::How,
    control_frames::ControlFrames,
    delivered::{Leaving, deliver},
    ending::Ending,
    flushed::{Flushed, Flushes},
    linked::{Linked, Upgraded},
    opening::Openings,
    pace::{Paced, Room},
    pings::Pings,
    settings::Tasks,
    unread::Unread,
    waiting::Waiting,
};
use crate::{
    admission::{Client, Idler, Refusal},
    connection::{ConnectionEnd, Cut, Owner},
    counts::Protocol,
    exchange::RequestKind,
    interim::Interim,
    outstanding::Outstanding,
    reached,
    response::{self, Checked},
    service::{Context, overdue},
};

/// After a stop, how long an HTTP/2 connection without a response stays for a request that is on its way: a
/// client that is there acknowledges the end (GOAWAY, PING) before.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long it takes at most until what has arrived is read, when there is nothing else to do.
const TURN: Duration = Duration::from_millis(5);

/// Waits until every response has left, and for a while no other has begun.
async fn has_all(leaving: &Outstanding, written: &Flushes) {
    loop {
        leaving.none().await;
        written.all().await;
        tokio::time::sleep(LAST_CALL).await;
        if leaving.none().now_or_never().is_some() && written.all().now_or_never().is_some() {
            return;
        }
    }
}

/// Whether nothing but the end of the connection shows the end of a response's body.
fn ends_with_connection(version: Version, response: &Response<Checked>) -> bool {
    use http_body::Body as _;
    version < Version::HTTP_11
        && !response.headers().contains_key(header::CONTENT_LENGTH)
        && !response.body().is_end_stream()
        && response.body().size_hint().exact().is_none()
}

/// How a connection counts.
struct Counted {
    client: Client,
    /// Tells it to make room.
    idler: Option<Arc<Idler>>,
    /// Whether its place is one of those for the server's status.
    is_reserved: bool,
    /// That of the connection.
    span: Span,
}

async fn connection<S>(
    stream: S,
    ending: Ending,
    mut owner: Owner,
    Counted { client, idler, is_reserved, span }: Counted,
    context: Arc<Context>,
    how: How,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let How { via, alt_svc: has_http3, redirects, .. } = how;
    let remote = owner.handle().remote_address();
    span.record("id", owner.handle().id());
    owner.handshaken();
    if owner.is_awaited() {
        let admitted = tokio::select! {
            biased;
            admitted = owner.admitted() => admitted,
            () = overdue(&stop, context.limits().handshake_timeout) => false,
        };
        if !admitted {
            return debug!(%remote, "the application does not accept a connection");
        }
    }
    let alive = Arc::new(context.counts.connection(owner.handle().version().map(Protocol::from)));
    let (handle, owner, upgraded) = (owner.handle().clone(), Arc::new(owner), Upgraded::default());
    let shared = context.clone();
    let asked = CancellationToken::new();
    let asks = asked.clone();
    let unread = Unread::default();
    let (flushes, openings) = (Flushes::default(), Openings::default());
    let (leaving, is_http2) = (Outstanding::default(), Arc::new(AtomicBool::new(false)));
    let (begun, seen) = (leaving.clone(), is_http2.clone());
    let written = flushes.clone();
    let limits = context.limits();
    ending.progress().is_of(&handle);
    let waiting = Waiting::new(&limits, idler.clone());
    let waits = waiting.clone();
    let counters = context.admission.counters().clone();
    let stream =
        ControlFrames::new(stream, limits.control_frames, move || counters.refused(Refusal::ControlFrames, remote));
    let stream = Flushed::new(stream, flushes.clone(), openings.clone(), ending.clone(), waiting.clone());
    let stream = Linked::new(stream, upgraded.clone(), owner.clone());
    let (connection_of_request, leaves) = (handle.clone(), upgraded.clone());
    // Cheap to clone.
    let stopping = Arc::new(stop.clone());
    let service = tower::service_fn(move |request: Request<Incoming>| {
        asks.cancel();
        let (context, unread) = (shared.clone(), unread.clone());
        let (flushes, openings, ending) = (flushes.clone(), openings.clone(), ending.clone());
        let (version, method) = (request.version(), request.method().clone());
        connection_of_request.speaks(version);
        alive.speaks(version.into());
        let mut counted = context.counts.request(version.into());
        let (handle, leaves, client) = (connection_of_request.clone(), leaves.clone(), client.clone());
        let leaving = (version == Version::HTTP_2).then(|| {
            seen.store(true, Ordering::Relaxed);
            Leaving::begin(&begun)
        });
        let (reading, answering) = match leaving {
            None => (waits.request(), waits.response()),
            Some(_) => (waits.http2(), waits.http2()),
        };
        let (waits, stopping) = (waits.clone(), stopping.clone());
        let answered = async move {
            let undecoded = coding::not_understood(request.headers());
            let size = settings::head_size(&request);
            let (mut head, body) = request.into_parts();
            let early = if size > limits.head_size {
                let text =
                    format!("the head of the request has {size} bytes: at most {} are accepted", limits.head_size);
                Some(response::problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &text))
            } else if is_reserved && !context.status_paths.iter().any(|path| path == head.uri.path()) {
                Some(last(response::full(), version))
            } else {
                None
            };
            let described = match early {
                Some(refused) => Err(refused),
                None => context.describe(&mut head, &handle, via).map_err(|_| response::misforwarded()),
            };
            let exchange = context.begin(&mut head, RequestKind::Response, described.as_ref().unwrap_or(&handle));
            exchange.cut_with(|| CancellationToken::clone(&stopping));
            let (request, rest) =
                unread.lend_counted(Request::from_parts(head, body), Some(reading), exchange.received());
            let refused = |mut response: Response<String>| {
                exchange.name(response.headers_mut());
                exchange.answered(response.status());
                Ok(response.map(|text| {
                    let body = deliver(Body::from(text), &flushes, None, None, None, (None, exchange.clone()));
                    Paced::new(body).cut_by(None, &exchange)
                }))
            };
            let handle = match described {
                Ok(handle) => handle,
                Err(response) => return refused(response),
            };
            let (head, body) = request.into_parts();
            let open = match is_reserved
                .then_some(None)
                .map_or_else(|| context.counted(&handle, client).request().map(Some), Ok)
            {
                Ok(open) => open,
                Err(reason) => return refused(response::too_many(reason)),
            };
            if let Some(text) = undecoded {
                return refused(response::problem(StatusCode::NOT_IMPLEMENTED, &text));
            }
            if redirects && let Some(redirect) = plain::redirect(&head, context.advertise.as_deref()) {
                return refused(redirect);
            }
            let mut head = head;
            head.extensions.insert(Interim::nowhere(version));
            let alt_svc = reached::alternative(&head.uri, &head.headers, &head.extensions, has_http3);
            let request = Request::from_parts(head, body);
            let response = response::checked(version, &method, context.service.clone().oneshot(request).await?);
            let mut response = refusal::held(response, &rest).await;
            let cut = response.extensions_mut().remove::<Cut>();
            exchange.answered(response.status());
            if method == Method::HEAD || response::has_no_content(response.status()) {
                exchange.ended();
            }
            if is_upgrade(&method, response.status()) {
                exchange.complete();
                // Its end does not show here.
                waits.stay();
                // Over HTTP/2 it is a tunnel in a stream.
                if version != Version::HTTP_2 {
                    leaves.set();
                }
            }
            if let Some(alt_svc) = alt_svc {
                response.headers_mut().insert(header::ALT_SVC, alt_svc);
            }
            let ends = method != Method::HEAD && ends_with_connection(version, &response);
            if version == Version::HTTP_10 && !ends {
                // hyper sends it as HTTP/1.0, and closes the connection after a response that says so by itself.
                *response.version_mut() = Version::HTTP_11;
            }
            if is_reserved {
                response = last(response, version);
            }
            let ending = Some(ending).filter(|_| ends);
            Ok::<_, std::convert::Infallible>(response.map(|body| {
                let body = deliver(body, &flushes, ending, leaving, Some(answering), (open, exchange.clone()));
                Paced::new(body).cut_by(cut, &exchange)
            }))
        };
        let answered = answered.instrument(error_span!(parent: &span, "request", id = field::Empty));
        async move {
            let answered = answered.await;
            if let Ok(response) = &answered {
                counted.answered(response.status());
            }
            if version == Version::HTTP_2 {
                openings.open();
            }
            answered
        }
    });
    let counters = context.admission.counters().clone();
    let cut = Arc::new(move || counters.refused(Refusal::SendTimeout, remote));
    let pauses = limits.send_pauses();
    // The response is complete, and h2 has no credit for what is left of it.
    let (counted, closed) = (cut.clone(), handle.clone());
    let stuck = Arc::new(move || {
        if !closed.closing().is_cancelled() {
            counted();
            closed.close(code::H3_REQUEST_CANCELLED, "the client read nothing of a complete response");
        }
    });
    let tasks =
        Tasks { pauses, flushes: written.clone(), room: Room::default(), cut, stuck, connection: handle.clone() };
    let builder = settings::builder(&limits, tasks, Pings::new(&waiting));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let next_overdue = async {
        waiting.overdue().await;
        // The last response is still on its way.
        while written.is_blocked() {
            written.all().await;
            waiting.restart();
            waiting.overdue().await;
        }
    };
    let late = async {
        asked.run_until_cancelled(overdue(&stop, limits.head_timeout)).await;
        // A request may have come in the same moment.
        if asked.is_cancelled() {
            next_overdue.await;
        }
    };
    // Without a request for too long, or while others need its place.
    let silent = async {
        tokio::select! {
            () = late => {}
            () = ousted(idler.as_deref()) => {}
        }
    };
    let has_request = || waiting.is_busy() || !leaving.is_none();
    let stopping = async {
        stop.cancelled().await;
        // The next request may be there already; hyper does not wait for it.
        tokio::time::sleep(TURN).await;
        asked.cancelled().await;
    };
    let driven = async {
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = stopping => {
                connection.as_mut().graceful_shutdown();
                None
            }
            () = silent => {
                // Over HTTP/2 it is notified (GOAWAY).
                connection.as_mut().graceful_shutdown();
                // A request may be on its way that was sent before the client had that.
                let patience = if is_http2.load(Ordering::Relaxed) { LAST_CALL } else { TURN };
                let ended = tokio::time::timeout(patience, connection.as_mut()).await;
                // What has begun by then is answered.
                if ended.is_err() && !has_request() {
                    debug!(%remote, "closing a connection without a request");
                    return None;
                }
                ended.ok()
            }
        };
        if ended.is_some() {
            return ended;
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            // Of a request that had begun when the server was stopped.
            () = waiting.overdue(), if !is_http2.load(Ordering::Relaxed) => {
                debug!(%remote, "closing a connection whose request is not complete");
                None
            }
            // hyper waits until the client acknowledges.
            () = has_all(&leaving, &written), if is_http2.load(Ordering::Relaxed) => {
                debug!(%remote, "closing an idle connection whose client has received everything");
                None
            }
        }
    };
    let ended = tokio::select! {
        biased;
        ended = driven => ended,
        () = handle.closing().cancelled() => {
            debug!(%remote, "the application closed the connection");
            // Over HTTP/2 the client is notified (GOAWAY).
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(TURN, connection.as_mut()).await;
            None
        }
    };
    match ended {
        // The stream ends the handle, whoever has it now.
        Some(Ok(())) if upgraded.get() => {}
        Some(Err(error)) => {
            debug!(%error, %remote, "connection ended");
            if control_frames::is_flood(&*error) {
                context.admission.counters().refused(Refusal::ControlFrames, remote);
            }
            // hyper has answered it by itself.
            if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large) {
                let mut refused = context.counts.request(Version::HTTP_11.into());
                refused.answered(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            }
            owner.finish(ConnectionEnd::of_tcp(error));
        }
        _ => owner.finish(ConnectionEnd::Finished),
    }
}

/// A response after which its connection over HTTP/1.1 is closed. Over HTTP/2 it is one that can be ended.
fn last<B>(mut response: Response<B>, version: Version) -> Response<B> {
    if version < Version::HTTP_2 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Waits until a connection that has no request has to make room for another.
async fn ousted(idler: Option<&Idler>) {
    match idler {
        Some(idler) => idler.ousted().await,
        None => std::future::pending().await,
    }
}

/// Whether hyper hands a connection of HTTP/1.1 on after this response.
fn is_upgrade(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || *method == Method::CONNECT && status.is_success()
}
