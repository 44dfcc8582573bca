//! Accepts QUIC connections.

use std::sync::Arc;

use tokio::task::JoinSet;
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

/// QUIC connections at once; the next is refused.
const MAX_CONNECTIONS: usize = 65_536;

/// Serves one UDP socket until `stop`, and then what it carries to its end.
pub(super) async fn serve(
    endpoint: quic::server::Endpoint,
    context: Arc<Context>,
    via: Via,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let _close = CloseOnDrop(endpoint.clone());
    let task = match endpoint.local_addr() {
        Ok(address) => format!("the QUIC listener at {address}"),
        Err(_) => "a QUIC listener".to_owned(),
    };
    // Those that are there stay when the loop is restarted.
    let mut connections = JoinSet::new();
    let mut restarts = Restarts::new(task.as_str());
    loop {
        let accepting = accept(&endpoint, &mut connections, &context, via, &stop);
        if !restarts.after(panics::caught_async(accepting).await, &stop).await {
            break;
        }
    }
    if !stop.is_cancelled() {
        // The engine's task that reads the socket; its reason is in the log.
        return Err(RunError { task, reason: "its socket cannot be read any more".into() });
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
        let Some(incoming) = incoming else { return };
        fault::point("quic-accept");
        if endpoint.open_connections() >= MAX_CONNECTIONS {
            warn!("refusing a connection: there are {MAX_CONNECTIONS} already");
            incoming.refuse();
            continue;
        }
        let (context, stop) = (context.clone(), stop.clone());
        let span = debug_span!("connection", remote = %incoming.remote_address());
        connections.spawn(connect(incoming, context, via, stop).instrument(span));
    }
}

/// Serves a connection, not only when its handshake is complete: what the client sends with its first
/// packets is answered at once, and our SETTINGS leave with our own first packets.
async fn connect(incoming: quic::server::Incoming, context: Arc<Context>, via: Via, stop: CancellationToken) {
    let Some(incoming) = admitted(incoming, &context) else { return };
    let begun = tokio::select! {
        biased;
        begun = incoming.begin() => begun,
        () = service::overdue(&stop) => return debug!("a client's first words took too long"),
    };
    match begun {
        Ok((conn, handshake)) => http3::server::serve(conn, handshake, context, via, stop).await,
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
