//! What a server answers with, whatever the version of HTTP.

use std::{
    sync::{Arc, PoisonError, RwLock, atomic::AtomicBool},
    time::Duration,
};

use axum_core::body::Body;
use http::{HeaderMap, Request, Response, request::Parts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::util::BoxCloneSyncService;
use tracing::{Span, field::display, warn};

use crate::{
    admission::{Admission, Client},
    connection::{ConnectionHandle, Hooks},
    counts::Counts,
    exchange::{Exchange, Exchanges, RequestId, RequestKind, TraceParent},
    limits::{EVER, Limits},
    origin::Origins,
    proxy::TrustedProxies,
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
    pub(crate) hooks: Hooks,
    /// Who watches requests.
    pub(crate) exchanges: Exchanges,
    /// Where connections are traced to.
    #[cfg(feature = "qlog")]
    pub(crate) qlog: Option<crate::quic::qlog::Qlog>,
    /// Another server accepts what comes to the same sockets.
    pub(crate) given: Arc<AtomicBool>,
    /// Send windows of QUIC grow: the application has set nothing of QUIC itself.
    pub(crate) grows: bool,
    /// Decides who gets in.
    pub(crate) admission: Arc<Admission>,
    /// What is counted of connections and requests.
    pub(crate) counts: Counts,
    /// Whose pages may open sessions.
    pub(crate) origins: Origins,
    /// Whose word on clients is believed.
    pub(crate) proxies: Arc<RwLock<TrustedProxies>>,
    /// What is answered on places that are kept for it.
    pub(crate) status_paths: Vec<String>,
    /// Where plain HTTP is served.
    pub(crate) plain_port: Option<u16>,
    /// What clients are told to call the server.
    pub(crate) advertise: Option<Arc<Advertise>>,
}

/// A trusted proxy says something of a request that cannot be understood, which is logged.
pub(crate) struct Misforwarded;

impl Context {
    /// The limits as they are now.
    pub(crate) fn limits(&self) -> Limits {
        self.admission.limits()
    }

    /// Whose word on clients is believed now.
    pub(crate) fn proxies(&self) -> TrustedProxies {
        self.proxies.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells a request how it reached the server. The handle of its connection is the one that it has now.
    pub(crate) fn describe(
        &self,
        head: &mut Parts,
        connection: &ConnectionHandle,
        via: Via,
    ) -> Result<ConnectionHandle, Misforwarded> {
        let forwarded = self.proxies().said(&head.headers, connection).map_err(|error| {
            warn!(peer = %connection.peer_address(), "refusing a request of a trusted proxy: {error}");
            Misforwarded
        })?;
        let client = forwarded.as_ref().and_then(|forwarded| forwarded.client());
        let id = self.id(&head.headers, connection);
        record_id(&Span::current(), &id);
        let connection = client.map_or_else(|| connection.clone(), |client| connection.of_client(client));
        let extensions = &mut head.extensions;
        #[cfg(feature = "axum")]
        extensions.insert(axum::extract::ConnectInfo(connection.remote_address()));
        extensions.insert(connection.clone());
        extensions.insert(via);
        extensions.insert(id);
        if let Some(parent) = TraceParent::of(&head.headers) {
            extensions.insert(parent);
        }
        if let Some(advertise) = &self.advertise {
            extensions.insert(advertise.clone());
        }
        if let Some(forwarded) = forwarded {
            extensions.insert(forwarded);
        }
        Ok(connection)
    }

    /// The id of a request on a connection. Others than trusted proxies could make theirs look like that of another.
    fn id(&self, headers: &HeaderMap, connection: &ConnectionHandle) -> RequestId {
        let given = RequestId::given(headers).filter(|_| self.proxies().opened(connection));
        given.unwrap_or_else(RequestId::new)
    }

    /// Begins to watch a request.
    pub(crate) fn begin(&self, head: &mut Parts, kind: RequestKind, connection: &ConnectionHandle) -> Exchange {
        if head.extensions.get::<RequestId>().is_none() {
            // It is refused before it is described.
            let id = self.id(&head.headers, connection);
            record_id(&Span::current(), &id);
            head.extensions.insert(id);
        }
        self.exchanges.begin(head, kind, connection)
    }

    /// Whom a request counts for that came on a connection of `client`, by the handle that it has: the client that a
    /// trusted proxy forwards, if one does. A proxy that names none is a client like any other: otherwise those that it
    /// hides would have no limit.
    pub(crate) fn counted(&self, request: &ConnectionHandle, client: Client) -> Client {
        match request.forwarded_client() {
            Some(forwarded) => self.admission.client(forwarded.ip()),
            None => client.itself(),
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

/// The time that is `limit` after `start`; a limit may be longer than anything lasts.
pub(crate) fn after(start: Instant, limit: Duration) -> Instant {
    start + limit.min(EVER)
}

/// Notes the id of a request on its span. Where the log leaves that one out, the current span is the connection's,
/// which lasts for all its requests, and has an id of its own.
fn record_id(current: &Span, id: &RequestId) {
    if current.metadata().is_some_and(|span| span.name() == "request") {
        current.record("id", display(id));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{
        Event, Metadata, Subscriber, field, info_span,
        span::{Attributes, Id, Record},
        subscriber::with_default,
    };

    use super::*;

    /// Remembers which spans were changed.
    #[derive(Clone, Default)]
    struct Spans {
        names: Arc<Mutex<Vec<&'static str>>>,
        changed: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Subscriber for Spans {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut names = self.names.lock().unwrap();
            names.push(span.metadata().name());
            Id::from_u64(names.len() as u64)
        }

        fn record(&self, span: &Id, _: &Record<'_>) {
            let name = self.names.lock().unwrap()[span.into_u64() as usize - 1];
            self.changed.lock().unwrap().push(name);
        }

        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// The current span is the connection's, where a filter leaves out those of requests.
    #[test]
    fn the_id_of_a_request_is_not_noted_on_its_connection() {
        let spans = Spans::default();
        with_default(spans.clone(), || {
            let id = RequestId::new();
            record_id(&info_span!("connection", id = field::Empty), &id);
            record_id(&Span::none(), &id);
            record_id(&info_span!("request", id = field::Empty), &id);
        });
        assert_eq!(*spans.changed.lock().unwrap(), ["request"]);
    }
}
