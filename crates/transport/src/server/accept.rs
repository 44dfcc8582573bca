//! Accepts QUIC connections.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, debug_span, warn};

use super::{RunError, Via};
use crate::{
    connection::{Admit, Incoming, Protocol},
    fault, http3,
    panics::{self, Restarts},
    quic,
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
    while let Some(ended) = connections.join_next().await {
        panics::report("the task of a QUIC connection", ended);
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
        let Some(mut incoming) = incoming else { return };
        fault::point("quic-accept");
        // Packets with forged addresses must not take the last places, which TCP has as well (RFC 9000 §8.1.2).
        if context.places.available_permits() <= context.limits.connections.min(Semaphore::MAX_PERMITS) / 4
            && !incoming.is_validated()
        {
            let Some(validated) = incoming.retry() else { continue };
            incoming = validated;
        }
        let Ok(place) = context.places.clone().try_acquire_owned() else {
            warn!("refusing a connection: there are {} already", context.limits.connections);
            incoming.refuse();
            continue;
        };
        let (context, stop) = (context.clone(), stop.clone());
        let span = debug_span!("connection", remote = %incoming.remote_address());
        let connected = connect(incoming, context, via, stop).instrument(span);
        connections.spawn(async move {
            let _place = place;
            connected.await;
        });
    }
}

/// Serves a connection, not only when its handshake is complete: what the client sends with its first
/// packets is answered at once, and our SETTINGS leave with our own first packets.
async fn connect(incoming: quic::server::Incoming, context: Arc<Context>, via: Via, stop: CancellationToken) {
    let Some(incoming) = admitted(incoming, &context) else { return };
    let limit = context.limits.handshake_timeout;
    let begun = tokio::select! {
        biased;
        begun = incoming.begin() => begun,
        () = service::overdue(&stop, limit) => return debug!("a client's first words took too long"),
    };
    match begun {
        Ok((conn, handshake)) => {
            let unfinished = conn.clone();
            let handshake = async move {
                if tokio::time::timeout(limit, handshake).await.is_err() {
                    debug!("a client's handshake took too long");
                    unfinished.close(http3::code::H3_NO_ERROR, b"");
                }
            };
            http3::server::serve(conn, handshake, context, via, stop).await;
        }
        Err(error) => debug!(%error, "QUIC handshake failed"),
    }
}

/// A client, if the application accepts it.
fn admitted(incoming: quic::server::Incoming, context: &Context) -> Option<quic::server::Incoming> {
    let seen = Incoming {
        remote_address: incoming.remote_address(),
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
    debug!("the application does not accept a client");
    None
}

/// Tells the clients of an endpoint when its task is dropped before its time.
struct CloseOnDrop(quic::server::Endpoint);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(http3::code::H3_NO_ERROR, b"the server has stopped");
    }
}
