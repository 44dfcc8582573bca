//! HTTP/2 and HTTP/1.1 over TLS, and plain HTTP on loopback.

mod announced;
mod coding;
mod control_frames;
mod delivered;
mod ending;
mod flushed;
mod frames;
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
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum_core::body::Body;
use futures_util::FutureExt;
use h3cast_proto::code;
use http::{Method, Request, Response, StatusCode, Version, header};
use hyper::body::Incoming;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
pub(crate) use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use self::{
    control_frames::ControlFrames,
    delivered::{Leaving, deliver},
    ending::{Ending, Socket},
    flushed::{Flushed, Flushes},
    linked::{Linked, Upgraded},
    opening::Openings,
    pace::{Paced, without_credit},
    pings::Pings,
    settings::Tasks,
    stalled::Sockets,
    unread::Unread,
    waiting::Waiting,
};
use crate::{
    admission::{Carrier, Place, Refusal},
    connection::{Admit, ConnectionEnd, Incoming as Arriving, Owner, Protocol, TlsInfo},
    fault,
    interim::Interim,
    outstanding::Outstanding,
    panics::{self, Restarts},
    reached::{self, Via},
    response::{self, Checked},
    service::{Context, after, overdue},
};

/// After a stop, how long an HTTP/2 connection without a response stays for a request that is on its way: a
/// client that is there acknowledges the end (GOAWAY, PING) before.
const LAST_CALL: Duration = Duration::from_secs(1);

/// How long it takes at most until what has arrived is read, when there is nothing else to do.
const TURN: Duration = Duration::from_millis(5);

/// How long to wait when the system has no more files or memory for a connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A bound TCP listener, and how it is served.
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
    /// `None` for plain HTTP.
    tls: Option<TlsAcceptor>,
    /// How requests reach the server by it.
    how: How,
}

/// How requests reach the server.
#[derive(Debug, Clone, Copy)]
struct How {
    via: Via,
    /// Whether clients are told that there is HTTP/3.
    alt_svc: bool,
    /// Whether trusted proxies begin with the PROXY protocol.
    announced: bool,
}

impl Listener {
    pub(crate) fn new(
        listener: std::net::TcpListener,
        tls: Option<TlsAcceptor>,
        via: Via,
        alt_svc: bool,
        announced: bool,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        Ok(Self { address: listener.local_addr()?, listener, tls, how: How { via, alt_svc, announced } })
    }
}

/// Serves a listener until `stop`, and then what it carries to its end.
pub(crate) async fn serve(listener: Listener, context: Arc<Context>, stop: CancellationToken) {
    let Listener { listener, address, tls, how } = listener;
    let kind = if tls.is_some() { "TCP" } else { "plain HTTP" };
    let task = format!("the {kind} listener at {address}");
    let places = Arc::new(Semaphore::new(context.limits.tcp_connections.min(Semaphore::MAX_PERMITS)));
    // Those that are there stay when the loop is restarted.
    let mut connections = JoinSet::new();
    let mut restarts = Restarts::new(task);
    let sockets = Sockets::default();
    let serving = async {
        loop {
            let accepting = accept_all((&listener, &sockets), &places, &mut connections, &tls, &context, how, &stop);
            if !restarts.after(panics::caught_async(accepting).await, &stop).await {
                break;
            }
        }
        drop(listener);
        while let Some(ended) = connections.join_next().await {
            panics::report("the task of a TCP connection", ended);
        }
    };
    tokio::select! {
        () = serving => {}
        never = sockets.watch(&context.limits, |remote| context.admission.counters().refused(Refusal::SendTimeout, remote)) => match never {},
    }
}

/// Accepts connections until `stop`.
async fn accept_all(
    (listener, sockets): (&TcpListener, &Sockets),
    places: &Arc<Semaphore>,
    connections: &mut JoinSet<()>,
    tls: &Option<TlsAcceptor>,
    context: &Arc<Context>,
    how: How,
    stop: &CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                panics::report("the task of a TCP connection", ended);
                continue;
            }
            // Also those that came just before the stop.
            accepted = accept(listener, places, context) => accepted,
            () = stop.cancelled() => return,
        };
        fault::point(if tls.is_some() { "tcp-accept" } else { "http-accept" });
        let (mut stream, remote, place) = match accepted {
            Ok(accepted) => accepted,
            // The client of one that was waiting has gone (accept(2)); the next is there perhaps.
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Out of files or memory. Connections that wait are accepted after a stop only if they can be.
                if stop.is_cancelled() {
                    return debug!(%error, "cannot accept the connections that wait");
                }
                warn!(%error, "cannot accept a connection: trying again");
                // What is there must keep running, and a busy loop would not help it.
                stop.run_until_cancelled(tokio::time::sleep(EXHAUSTED_PAUSE)).await;
                continue;
            }
        };
        let carrier = if tls.is_some() { Carrier::Tls } else { Carrier::Plain };
        let Some(mut place) = context.admission.tcp(remote.ip(), carrier, place) else {
            reset(stream);
            continue;
        };
        let mut tls = match tls {
            None => None,
            Some(tls) => match context.admission.tls(place.client()) {
                Some(handshake) => Some((tls.clone(), handshake)),
                None => {
                    reset(stream);
                    continue;
                }
            },
        };
        // Chunks leave at once.
        let _ = stream.set_nodelay(true);
        notice_loss(&stream);
        send_buffer::bound(&stream);
        let ending = Ending::new(stream.local_addr().ok(), remote);
        sockets.add(ending.progress());
        let deadline = after(tokio::time::Instant::now(), context.limits.handshake_timeout);
        let (context, stop) = (context.clone(), stop.clone());
        connections.spawn(async move {
            // Another listener may have been faster.
            if stop.run_until_cancelled(place.wait()).await.is_none() {
                return;
            }
            let local = stream.local_addr().ok();
            let client = match how.announced {
                false => None,
                true => {
                    let counted = (&mut place, tls.as_mut().map(|(_, handshake)| handshake));
                    match announced::client(&mut stream, remote, counted, &context, &stop).await {
                        Ok(client) => client,
                        Err(()) => return reset(stream),
                    }
                }
            };
            let own = |tls| Owner::tcp(local, remote, client, tls, context.hooks.clone());
            let client = own(None).handle().remote_address();
            if !is_admitted(local, (client, remote), how.via, &context) {
                place.client().refused(Refusal::Application);
                return reset(stream);
            }
            let Some((tls, handshake)) = tls else {
                let (owner, socket) = (own(None), Socket::new(stream, ending.clone()));
                return connection(socket, ending, owner, place, context, how, stop).await;
            };
            let secured = tokio::select! {
                biased;
                secured = secured(tls, stream, &ending) => secured,
                () = handshake.overdue(deadline) => return debug!(remote = %client, "TLS handshake took too long"),
                () = overdue(&stop, Duration::MAX) => return debug!(remote = %client, "stopped before a TLS handshake was complete"),
            };
            drop(handshake);
            match secured {
                Ok(Secured::Tls(stream)) => {
                    let owner = own(Some(TlsInfo::of_tcp(stream.get_ref().1)));
                    connection(*stream, ending, owner, place, context, how, stop).await;
                }
                Ok(Secured::Plain(stream)) => plain::answer(stream, how.via, &context, &stop).await,
                Err(error) => debug!(%error, remote = %client, "TLS handshake failed"),
            }
        });
    }
}

/// Whether the application accepts a client. The system has answered it already.
fn is_admitted(
    local_address: Option<SocketAddr>,
    (remote_address, peer_address): (SocketAddr, SocketAddr),
    via: Via,
    context: &Context,
) -> bool {
    let protocol = if via.tls { Protocol::Tls } else { Protocol::Tcp };
    let incoming = Arriving { remote_address, peer_address, local_address, protocol, validated: true };
    matches!(context.hooks.admit(&incoming), Admit::Accept | Admit::Retry)
}

/// Ends a connection with a reset, so that the client learns at once and nothing of it stays. It is a close when
/// that cannot be set.
fn reset(stream: TcpStream) {
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// A connection to the port of TLS.
enum Secured {
    Tls(Box<tokio_rustls::server::TlsStream<Socket>>),
    /// The client speaks plain HTTP.
    Plain(TcpStream),
}

async fn secured(tls: TlsAcceptor, stream: TcpStream, ending: &Ending) -> std::io::Result<Secured> {
    Ok(match plain::is_spoken(&stream).await? {
        true => Secured::Plain(stream),
        false => Secured::Tls(Box::new(tls.accept(Socket::new(stream, ending.clone())).await?)),
    })
}

/// Whether an error of `accept` is about the connection that it would have given.
fn is_of_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Has the system find out when the client has gone without a word: HTTP/1.1 has nothing of its own
/// that would.
fn notice_loss(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let probes = socket2::TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3);
    // Without them it is as it was.
    let _ = socket.set_tcp_keepalive(&probes);
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    context: &Context,
) -> std::io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    // Reserved before a connection is taken.
    let place = places.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    // One that is waiting is not to keep others out: it gets its own when it has come.
    context.admission.has_room().await;
    let (stream, remote) = listener.accept().await?;
    Ok((stream, remote, place))
}

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

/// How long a connection may be silent before it is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(15);

async fn connection<S>(
    stream: S,
    ending: Ending,
    mut owner: Owner,
    place: Place,
    context: Arc<Context>,
    how: How,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let How { via, alt_svc: has_http3, .. } = how;
    let remote = owner.handle().remote_address();
    owner.handshaken();
    if owner.is_awaited() {
        let admitted = tokio::select! {
            biased;
            admitted = owner.admitted() => admitted,
            () = overdue(&stop, context.limits.handshake_timeout) => false,
        };
        if !admitted {
            return debug!(%remote, "the application does not accept a connection");
        }
    }
    let (handle, owner, upgraded) = (owner.handle().clone(), Arc::new(owner), Upgraded::default());
    let shared = context.clone();
    let asked = CancellationToken::new();
    let asks = asked.clone();
    let unread = Unread::default();
    let (flushes, openings) = (Flushes::default(), Openings::default());
    let (leaving, is_http2) = (Outstanding::default(), Arc::new(AtomicBool::new(false)));
    let (begun, seen) = (leaving.clone(), is_http2.clone());
    let written = flushes.clone();
    let limits = context.limits;
    ending.progress().is_of(&handle);
    let waiting = Waiting::new(&limits);
    let waits = waiting.clone();
    let counters = context.admission.counters().clone();
    let stream =
        ControlFrames::new(stream, limits.control_frames, move || counters.refused(Refusal::ControlFrames, remote));
    let stream = Flushed::new(stream, flushes.clone(), openings.clone(), ending.clone(), waiting.clone());
    let client = place.client().clone();
    let stream = Linked::new(stream, upgraded.clone(), owner.clone(), place);
    let (connection_of_request, leaves) = (handle.clone(), upgraded.clone());
    let service = tower::service_fn(move |request: Request<Incoming>| {
        asks.cancel();
        let (context, unread) = (shared.clone(), unread.clone());
        let (flushes, openings, ending) = (flushes.clone(), openings.clone(), ending.clone());
        let (version, method) = (request.version(), request.method().clone());
        connection_of_request.speaks(version);
        let (handle, leaves, client) = (connection_of_request.clone(), leaves.clone(), client.clone());
        let leaving = (version == Version::HTTP_2).then(|| {
            seen.store(true, Ordering::Relaxed);
            Leaving::begin(&begun)
        });
        let (reading, answering) = match leaving {
            None => (waits.request(), waits.response()),
            Some(_) => (waits.http2(), waits.http2()),
        };
        let waits = waits.clone();
        let answered = async move {
            let undecoded = coding::not_understood(request.headers());
            let size = settings::head_size(&request);
            let (request, rest) = unread.lend(request, Some(reading));
            if size > limits.head_size {
                let text =
                    format!("the head of the request has {size} bytes: at most {} are accepted", limits.head_size);
                return Ok(plain::problem(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &text).map(Paced::new));
            }
            let (mut head, body) = request.into_parts();
            let Ok(handle) = context.describe(&mut head, &handle, via) else {
                return Ok(response::misforwarded().map(Body::from).map(Paced::new));
            };
            let open = match context.counted(&handle, client).request() {
                Ok(open) => open,
                Err(reason) => return Ok(response::too_many(reason).map(Body::from).map(Paced::new)),
            };
            if let Some(text) = undecoded {
                return Ok(plain::problem(StatusCode::NOT_IMPLEMENTED, &text).map(Paced::new));
            }
            head.extensions.insert(Interim::nowhere(version));
            let alt_svc = reached::alternative(&head.uri, &head.headers, &head.extensions, has_http3);
            let request = Request::from_parts(head, body);
            let response = response::checked(version, &method, context.service.clone().oneshot(request).await?);
            let mut response = refusal::held(response, &rest).await;
            if is_upgrade(&method, response.status()) {
                match version {
                    // A tunnel in a stream, whose end does not show here.
                    Version::HTTP_2 => waits.stay(),
                    _ => leaves.set(),
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
            let ending = Some(ending).filter(|_| ends);
            Ok::<_, std::convert::Infallible>(
                response.map(|body| Paced::new(deliver(body, &flushes, ending, leaving, Some(answering), Some(open)))),
            )
        };
        async move {
            let answered = answered.await;
            if version == Version::HTTP_2 {
                openings.open();
            }
            answered
        }
    });
    let counters = context.admission.counters().clone();
    let cut = Arc::new(move || counters.refused(Refusal::SendTimeout, remote));
    let pauses = limits.send_pauses();
    let builder =
        settings::builder(&limits, Tasks { pauses, flushes: written.clone(), cut: cut.clone() }, Pings::new(&waiting));
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
    let silent = async {
        asked.run_until_cancelled(overdue(&stop, limits.head_timeout)).await;
        // A request may have come in the same moment.
        if asked.is_cancelled() {
            next_overdue.await;
        }
    };
    let has_request = || waiting.is_busy() || !leaving.is_none();
    // The responses are complete, and h2 has no credit for what is left of them.
    let stuck = async {
        let Some(pauses) = pauses else { return std::future::pending().await };
        without_credit(pauses, &written, || !waiting.is_busy() && !leaving.is_none()).await;
        pauses.0
    };
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
                debug!(%remote, "closing a connection whose client has everything and says nothing");
                None
            }
            timeout = stuck, if is_http2.load(Ordering::Relaxed) => {
                cut();
                handle.close(code::H3_REQUEST_CANCELLED, &format!("the client took nothing for {timeout:?}"));
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
            owner.finish(ConnectionEnd::of_tcp(error));
        }
        _ => owner.finish(ConnectionEnd::Finished),
    }
}

/// Whether hyper hands a connection of HTTP/1.1 on after this response.
fn is_upgrade(method: &Method, status: StatusCode) -> bool {
    status == StatusCode::SWITCHING_PROTOCOLS || *method == Method::CONNECT && status.is_success()
}
