//! Accepts QUIC connections.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error_span, field};

use super::{RunError, Via};
use crate::{
    admission::{Handshake, Place, Refusal, Verdict},
    connection::{Admit, Incoming, Protocol, address::canonical},
    counts::{self, Carrier, HandshakeFailure},
    fault, http3,
    panics::{self, Restarts},
    quic::{self, server::BeginError},
    service::{self, Context},
};

/// Serves one UDP socket until `stop`, and then what it carries to its end.
pub(super) async fn serve(
    endpoint: quic::server::Endpoint,
    context: Arc<Context>,
    via: Via,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let _close = CloseOnDrop(endpoint.clone());
    let address = endpoint.local_addr();
    // Those that are there stay when the loop is restarted.
    let mut connections = JoinSet::new();
    let mut restarts = Restarts::new(format!("the QUIC listener at {address}"));
    loop {
        let accepting = accept(&endpoint, &mut connections, &context, via, &stop);
        if !restarts.after(panics::caught_async(accepting).await, &stop).await {
            break;
        }
    }
    if !stop.is_cancelled() {
        return Err(RunError::Socket { address, source: endpoint.failure() });
    }
    endpoint.refuse_new();
    let all = async {
        while let Some(ended) = connections.join_next().await {
            panics::report("the task of a QUIC connection", ended);
        }
    };
    tokio::select! {
        () = all => {}
        // Its connections are closed, so that clients reconnect, and the port is free for the next server.
        () = endpoint.lost() => {}
    }
    Ok(())
}

/// Accepts connections until `stop`, or until the endpoint has none to give any more.
async fn accept(
    endpoint: &quic::server::Endpoint,
    connections: &mut JoinSet<()>,
    context: &Arc<Context>,
    via: Via,
    stop: &CancellationToken,
) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(ended) = connections.join_next() => {
                panics::report("the task of a QUIC connection", ended);
                continue;
            }
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        fault::point("quic-accept");
        let remote = canonical(incoming.remote_address());
        let (place, handshake) = match context.admission.quic(remote.ip(), incoming.is_validated()) {
            Verdict::Accept(place, handshake) => (place, handshake),
            Verdict::Retry => {
                // A client whose address is not known has not been asked before.
                drop(incoming.retry());
                continue;
            }
            Verdict::Refuse => {
                incoming.refuse();
                continue;
            }
        };
        let deadline = service::after(Instant::now(), context.limits().handshake_timeout);
        let span = error_span!("connection", id = field::Empty, %remote);
        let connected = connect(incoming, place, handshake, deadline, context.clone(), via, stop.clone());
        connections.spawn(connected.instrument(span));
    }
}

/// Serves a connection, not only when its handshake is complete: what the client sends with its first
/// packets is answered at once, and our SETTINGS leave with our own first packets.
///
/// Not an `async fn`, which would keep what it is given twice. What only the beginning and the end need is in boxes of
/// its own, so that nothing of it stays in memory beside a connection.
fn connect(
    incoming: quic::server::Incoming,
    place: Place,
    handshaking: Handshake,
    deadline: Instant,
    context: Arc<Context>,
    via: Via,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let incoming = Box::new(incoming);
    async move {
        let begun = Box::pin(begin(*incoming, &place, &handshaking, deadline, &context, &stop)).await;
        let Some((conn, handshake, counted)) = begun else { return };
        let shaken = Box::pin(async {
            tokio::select! {
                biased;
                () = handshake => {}
                reason = handshaking.overdue(deadline) => {
                    counted.failed(reason.into());
                    debug!("a client's handshake took too long");
                    return conn.close(http3::code::H3_NO_ERROR, b"");
                }
            }
            if conn.close_reason().is_some() {
                return;
            }
            counted.completed();
            handshaking.complete();
            if place.claim().is_err() {
                // It came while others of the same address did.
                conn.close(http3::code::H3_EXCESSIVE_LOAD, b"too many connections");
            }
        });
        let client = place.client().clone();
        Box::pin(http3::server::serve(conn.clone(), shaken, context, client, via, stop.clone())).await;
        // Unless it was complete.
        counted.failed(HandshakeFailure::of_quic(conn.close_reason().as_ref().map(Into::into)));
        let linger = conn.linger();
        drop(conn);
        Box::pin(lingering(linger, &stop)).await;
    }
}

/// Begins a connection when the client's first words are complete. Gives what is left of its handshake, and what
/// that counts as.
async fn begin(
    incoming: quic::server::Incoming,
    place: &Place,
    handshaking: &Handshake,
    deadline: Instant,
    context: &Context,
    stop: &CancellationToken,
) -> Option<(quic::Connection, quic::server::Handshake, counts::Handshake)> {
    let incoming = admitted(incoming, context, place)?;
    #[cfg(feature = "qlog")]
    let incoming = match &context.qlog {
        Some(qlog) => incoming.traced(qlog, quic::server_transport(&context.limits())),
        None => incoming,
    };
    let counted = context.counts.handshake(Carrier::Quic);
    let begun = tokio::select! {
        biased;
        begun = incoming.begin() => begun,
        reason = handshaking.overdue(deadline) => {
            counted.failed(reason.into());
            debug!("a client's first packets took too long");
            lingering(quic::linger(quic::INITIAL_RTT), stop).await;
            return None;
        }
        () = service::overdue(stop, Duration::MAX) => {
            debug!("stopped before a client's first packets were complete");
            return None;
        }
    };
    match begun {
        Ok((conn, handshake)) => Some((conn, handshake, counted)),
        Err(error) => {
            counted.failed(HandshakeFailure::of_quic(Some(error.loss())));
            debug!(%error, "QUIC handshake failed");
            if !matches!(error, BeginError::NotBegun(_)) {
                lingering(quic::linger(quic::INITIAL_RTT), stop).await;
            }
            None
        }
    }
}

/// Waits while the engine keeps what has ended: as long as it does, it counts, so that clients that come and go, or
/// fail at once, cost no more than those that stay.
async fn lingering(linger: Duration, stop: &CancellationToken) {
    stop.run_until_cancelled(tokio::time::sleep(linger)).await;
}

/// A client, if the application accepts it.
fn admitted(incoming: quic::server::Incoming, context: &Context, place: &Place) -> Option<quic::server::Incoming> {
    let seen = Incoming {
        remote_address: canonical(incoming.remote_address()),
        peer_address: canonical(incoming.remote_address()),
        local_address: incoming.local_address(),
        protocol: Protocol::Quic,
        validated: incoming.is_validated(),
    };
    match context.hooks.admit(&seen) {
        Admit::Accept => return Some(incoming),
        // A client that has been asked before is accepted.
        Admit::Retry => return incoming.retry(),
        Admit::Refuse => incoming.refuse(),
        Admit::Ignore => incoming.ignore(),
    }
    place.client().refused(Refusal::Application);
    None
}

/// Tells the clients of an endpoint when its task is dropped before its time.
struct CloseOnDrop(quic::server::Endpoint);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(http3::code::H3_NO_ERROR, b"the server has stopped");
    }
}
