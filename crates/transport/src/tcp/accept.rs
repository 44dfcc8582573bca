//! Accepts connections over TCP.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Level, Span, debug, error_span, field, warn};

use super::{
    Counted, announced, connection,
    ending::{Ending, Socket},
    lingering::Lingering,
    plain, send_buffer,
    stalled::Sockets,
};
use crate::{
    admission::{Admission, Carrier, Handshake, ListenerPlaces, Place, Refusal},
    connection::{Admit, Incoming, Owner, Protocol, TlsInfo, address::canonical},
    counts::{self, HandshakeFailure},
    fault,
    identity::CHALLENGE,
    panics::{self, Restarts},
    reached::Via,
    service::{Context, after, overdue},
};

/// How long a connection may be silent before it is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(15);

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
pub(super) struct How {
    pub(super) via: Via,
    /// Whether clients are told that there is HTTP/3.
    pub(super) alt_svc: bool,
    /// Whether trusted proxies begin with the PROXY protocol.
    pub(super) announced: bool,
    /// Whether everyone is sent on to HTTPS.
    pub(super) redirects: bool,
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
        let how = How { via, alt_svc, announced, redirects: false };
        Ok(Self { address: listener.local_addr()?, listener, tls, how })
    }

    /// The same listener, for another process.
    #[cfg(unix)]
    pub(crate) fn duplicate(&self) -> std::io::Result<std::net::TcpListener> {
        Ok(socket2::SockRef::from(&self.listener).try_clone()?.into())
    }

    /// One of plain HTTP that sends everyone on to HTTPS.
    pub(crate) fn redirecting(listener: std::net::TcpListener, via: Via) -> std::io::Result<Self> {
        let mut listener = Self::new(listener, None, via, false, false)?;
        listener.how.redirects = true;
        Ok(listener)
    }
}

/// Serves a listener until `stop`, and then what it carries to its end.
pub(crate) async fn serve(listener: Listener, context: Arc<Context>, stop: CancellationToken) {
    let Listener { listener, address, tls, how } = listener;
    let kind = match (&tls, how.redirects) {
        (Some(_), _) => "TCP",
        (None, false) => "plain HTTP",
        (None, true) => "redirecting",
    };
    let task = format!("the {kind} listener at {address}");
    let places = context.admission.listener();
    // Where no one else can listen: who looks after the server can see what is wrong.
    let is_kept = tls.is_none() && address.ip().is_loopback() && !context.status_paths.is_empty();
    let reserve = is_kept.then(Admission::reserve);
    // Those that are there stay when the loop is restarted.
    let mut connections = JoinSet::new();
    let mut restarts = Restarts::new(task);
    let (sockets, lingering) = (Sockets::default(), Lingering::default());
    let serving = async {
        loop {
            let accepting = accept_all(
                (&listener, &sockets, &lingering),
                (&places, reserve.as_ref()),
                &mut connections,
                &tls,
                &context,
                how,
                &stop,
            );
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
        never = sockets.watch(|| context.limits(), |remote| context.admission.counters().refused(Refusal::SendTimeout, remote)) => match never {},
        never = lingering.watch(&context.admission) => match never {},
    }
}

/// Accepts connections until `stop`, and then those that wait.
async fn accept_all(
    (listener, sockets, lingering): (&TcpListener, &Sockets, &Lingering),
    places: Places<'_>,
    connections: &mut JoinSet<()>,
    tls: &Option<TlsAcceptor>,
    context: &Arc<Context>,
    how: How,
    stop: &CancellationToken,
) {
    // Plain HTTP is this machine's own, except where it is only sent on.
    let carrier = if tls.is_some() || how.redirects { Carrier::Tls } else { Carrier::Plain };
    // The one that waits for a place.
    let mut arrived = None;
    loop {
        let stops = stop.is_cancelled();
        if stops && context.given.load(Ordering::Acquire) {
            return;
        }
        let accepted = tokio::select! {
            biased;
            // Not while one waits for a place: it has asked one to make room, and would ask the next.
            Some(ended) = connections.join_next(), if arrived.is_none() => {
                panics::report("the task of a TCP connection", ended);
                continue;
            }
            accepted = accept((listener, stops), (tls.is_some(), carrier), (places, &mut arrived), context) => accepted,
            () = stop.cancelled() => match stops {
                true => return,
                // Those that came just before it may not have been told of yet; closing the listener would reset them.
                false => continue,
            },
        };
        fault::point(if tls.is_some() { "tcp-accept" } else { "http-accept" });
        let Arrived { mut stream, remote, mut place, handshake, .. } = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => continue,
            // The client of one that was waiting has gone (accept(2)); the next is there perhaps.
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && stops => return,
            Err(error) => {
                // Out of files or memory. Connections that wait are accepted after a stop only if they can be.
                if stop.is_cancelled() {
                    return debug!(%error, "cannot accept waiting connections");
                }
                warn!(%error, "cannot accept a connection: trying again");
                // What is there must keep running, and a busy loop would not help it.
                stop.run_until_cancelled(tokio::time::sleep(EXHAUSTED_PAUSE)).await;
                continue;
            }
        };
        let mut tls = tls.clone().zip(handshake);
        // Chunks leave at once.
        let _ = stream.set_nodelay(true);
        notice_loss(&stream);
        send_buffer::bound(&stream);
        let ending = Ending::new(stream.local_addr().ok(), remote).lingering(lingering);
        sockets.add(ending.progress());
        let deadline = after(tokio::time::Instant::now(), context.limits().handshake_timeout);
        let (context, stop) = (context.clone(), stop.clone());
        let span = error_span!("connection", id = field::Empty, remote = %canonical(remote));
        // Not entered for each chunk, unless all that it does is wanted.
        let whole = if tracing::enabled!(Level::DEBUG) { span.clone() } else { Span::none() };
        let served = async move {
            let Some(idler) = place.idler().cloned() else { return };
            let local = stream.local_addr().ok();
            let opening = async {
                // Another listener may have been faster.
                tokio::select! {
                    biased;
                    // Most have one: they are answered, though the server stops.
                    () = place.wait() => {}
                    () = stop.cancelled() => return Err(()),
                }
                if !how.announced {
                    return Ok(None);
                }
                let counted = (&mut place, tls.as_mut().map(|(_, handshake)| handshake));
                announced::client(&mut stream, remote, counted, &context, &stop).await
            };
            let opened = tokio::select! {
                biased;
                opened = opening.instrument(span.clone()) => opened,
                () = idler.ousted() => Err(()),
            };
            let Ok(client) = opened else { return reset(stream) };
            let own = |tls| Owner::tcp(local, remote, client, tls, context.hooks.clone());
            let client = own(None).handle().remote_address();
            if !is_admitted(local, (client, canonical(remote)), how.via, &context) {
                place.client().refused(Refusal::Application);
                return reset(stream);
            }
            let counted = Counted {
                client: place.client().clone(),
                idler: Some(idler.clone()),
                is_reserved: place.is_reserved(),
                span,
            };
            // Also a handshake that fails leaves something that its client may not take.
            ending.keep(place);
            let Some((tls, handshake)) = tls else {
                let (owner, socket) = (own(None), Socket::new(stream, ending.clone()));
                return connection(socket, ending, owner, counted, context, how, stop).await;
            };
            let shaking = context.counts.handshake(counts::Carrier::Tls);
            let secured = tokio::select! {
                biased;
                secured = secured(tls, stream, &ending) => secured,
                reason = handshake.overdue(deadline) => {
                    shaking.failed(reason.into());
                    return debug!(remote = %client, "TLS handshake took too long");
                }
                () = idler.ousted() => {
                    shaking.failed(HandshakeFailure::Ousted);
                    return debug!(remote = %client, "a TLS handshake makes room for another connection");
                }
                () = overdue(&stop, Duration::MAX) => return debug!(remote = %client, "stopped before a TLS handshake was complete"),
            };
            drop(handshake);
            match &secured {
                Ok(Secured::Tls(_) | Secured::Validated) => shaking.completed(),
                Ok(Secured::Plain(_)) => shaking.forget(),
                Err(error) => shaking.failed(HandshakeFailure::of_tls(error)),
            }
            // The connection may last.
            drop(shaking);
            match secured {
                Ok(Secured::Tls(stream)) => {
                    let owner = own(Some(TlsInfo::of_tcp(stream.get_ref().1)));
                    connection(*stream, ending, owner, counted, context, how, stop).await;
                }
                Ok(Secured::Validated) => debug!(remote = %client, "an ACME server has validated a name"),
                Ok(Secured::Plain(stream)) => tokio::select! {
                    biased;
                    () = plain::answer(stream, how.via, &context, &stop) => {}
                    () = idler.ousted() => {}
                },
                Err(error) => debug!(%error, remote = %client, "TLS handshake failed"),
            }
        };
        connections.spawn(served.instrument(whole));
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
    let incoming = Incoming { remote_address, peer_address, local_address, protocol, validated: true };
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
    /// The client has seen the certificate for which it came, and wants nothing else.
    Validated,
}

async fn secured(tls: TlsAcceptor, stream: TcpStream, ending: &Ending) -> std::io::Result<Secured> {
    if plain::is_spoken(&stream).await? {
        return Ok(Secured::Plain(stream));
    }
    let mut stream = tls.accept(Socket::new(stream, ending.clone())).await?;
    if stream.get_ref().1.alpn_protocol() == Some(CHALLENGE) {
        // RFC 8737 §3: the connection is closed when the handshake is complete.
        stream.shutdown().await?;
        return Ok(Secured::Validated);
    }
    Ok(Secured::Tls(Box::new(stream)))
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

/// A connection that was accepted, by the system and by its address.
struct Arrived {
    stream: TcpStream,
    remote: SocketAddr,
    place: Place,
    /// That of TLS.
    handshake: Option<Handshake>,
    /// Whether it has been counted as one that waits.
    is_counted: bool,
}

/// Those of a listener, and those that it keeps for the server's status.
type Places<'a> = (&'a ListenerPlaces, Option<&'a ListenerPlaces>);

/// Accepts a connection that waits, whether or not the runtime has been told that there is one.
fn accept_now(listener: &TcpListener) -> std::io::Result<(TcpStream, SocketAddr)> {
    let (stream, remote) = socket2::SockRef::from(listener).accept()?;
    stream.set_nonblocking(true)?;
    let remote = remote.as_socket().ok_or(std::io::ErrorKind::ConnectionAborted)?;
    Ok((TcpStream::from_std(stream.into())?, remote))
}

/// Accepts a connection, and waits until there is a place for it: only then is it known whether others have to make
/// room. `None` for one that is refused. With `stops`, it does not wait for one to come. Cancel-safe, as one that waits
/// for a place stays in `arrived`.
async fn accept(
    (listener, stops): (&TcpListener, bool),
    (has_tls, carrier): (bool, Carrier),
    (places, arrived): (Places<'_>, &mut Option<Arrived>),
    context: &Context,
) -> std::io::Result<Option<Arrived>> {
    if arrived.is_none() {
        let (stream, remote) = if stops { accept_now(listener)? } else { listener.accept().await? };
        // Before any other makes room for it.
        let admitted =
            context.admission.tcp(remote.ip(), carrier, places.1.is_some()).and_then(|place| match has_tls {
                false => Some((place, None)),
                true => context.admission.tls(place.client()).map(|handshake| (place, Some(handshake))),
            });
        let Some((place, handshake)) = admitted else {
            reset(stream);
            return Ok(None);
        };
        *arrived = Some(Arrived { stream, remote, place, handshake, is_counted: false });
    }
    if let Some(arrived) = arrived {
        context.admission.seat(&mut arrived.place, places, &mut arrived.is_counted).await;
    }
    Ok(arrived.take())
}
