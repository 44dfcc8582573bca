//! What a server answers with, whatever the version of HTTP.

use std::{sync::Arc, time::Duration};

use axum_core::body::Body;
use http::{Extensions, Request, Response};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;

use crate::{
    admission::Admission,
    connection::{ConnectionHandle, Hooks},
    limits::Limits,
    origin::Origins,
    reached::{Advertise, Via},
    webtransport::Handlers,
};

/// What answers requests, whatever the version of HTTP.
pub(crate) type HttpService = BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>;

/// What every connection of a server shares.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) service: HttpService,
    pub(crate) handlers: Handlers,
    pub(crate) limits: Limits,
    pub(crate) hooks: Hooks,
    /// Decides who gets in.
    pub(crate) admission: Arc<Admission>,
    /// Whose pages may open sessions.
    pub(crate) origins: Origins,
    /// Where plain HTTP is served.
    pub(crate) plain_port: Option<u16>,
    /// What clients are told to call the server.
    pub(crate) advertise: Option<Arc<Advertise>>,
}

impl Context {
    /// Tells a request how it reached the server.
    pub(crate) fn describe(&self, extensions: &mut Extensions, connection: &ConnectionHandle, via: Via) {
        #[cfg(feature = "axum")]
        extensions.insert(axum::extract::ConnectInfo(connection.remote_address()));
        extensions.insert(connection.clone());
        extensions.insert(via);
        if let Some(advertise) = &self.advertise {
            extensions.insert(advertise.clone());
        }
    }
}

/// After a stop, how long a connection that has had no request may take for its first one: it may have been
/// sent before. Browsers open connections in advance.
const LATE: Duration = Duration::from_millis(200);

/// Waits until a client that has asked for nothing so far should have: within `limit`.
pub(crate) async fn overdue(stop: &CancellationToken, limit: Duration) {
    let _ = tokio::time::timeout(limit, async {
        stop.cancelled().await;
        tokio::time::sleep(LATE).await;
    })
    .await;
}

/// The time after `limit`, which may be longer than any connection lasts.
pub(crate) fn after(limit: Duration) -> Instant {
    const EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + limit.min(EVER)
}
