//! The client as a tower service.

use std::{
    collections::HashMap,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, WeakShared},
};
use http::{Request, Response, Uri};
use tokio::{sync::watch, task::JoinSet};
use tracing::debug;

use super::{Body, ClientError, Connection, Connector, ProtocolError, Trust, send, url::target};

/// How long a connection without requests is kept.
const IDLE: Duration = Duration::from_secs(90);

/// A client as a tower [`Service`](tower::Service): requests with any [`http_body::Body`] in,
/// `http::Response<`[`Body`]`>` out. Clones share connections.
///
/// It keeps one HTTP/3 connection for each authority (host and port). The first request opens it, the
/// others share it as streams; while it is being opened they wait for the same attempt. After the connection is
/// lost, or the server has announced that it shuts down (GOAWAY), the next request opens another; what still
/// runs on the old one is completed there. A connection without requests is closed after 90 s
/// ([`idle_timeout`](Self::idle_timeout)), and all are when the last clone and the last response are dropped.
///
/// ```no_run
/// # async fn doc() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use std::time::Duration;
///
/// use h3cast_transport::client::{Client, Trust};
/// use http_body_util::{BodyExt, Empty};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// let client = Client::new(&Trust::System)?;
/// let client = ServiceBuilder::new().concurrency_limit(100).timeout(Duration::from_secs(10)).service(client);
/// let request = http::Request::get("https://localhost:4433/").body(Empty::<bytes::Bytes>::new())?;
/// let response = client.oneshot(request).await?;
/// println!("{}: {:?}", response.status(), response.into_body().collect().await?.to_bytes());
/// # Ok(()) }
/// ```
///
/// # Backpressure
///
/// It is always ready: how much can be done at once is known only when a request names its server. A request
/// waits, in its future, while the server allows no more streams on the connection. Layers such as
/// `ConcurrencyLimit` and `LoadShed` bound how many wait.
///
/// Every response has the [`ConnectionHandle`](crate::ConnectionHandle) of its connection in its extensions.
///
/// # Errors
///
/// [`ClientError`]. A request that could not be sent because its connection was lost or is shutting down is
/// sent once more, on a new one; nothing else is tried again. [`ClientError::is_unprocessed`] and
/// [`ClientError::is_final`] tell a retry layer what it may do.
///
/// # Cancel safety
///
/// Dropping the future cancels the request, and dropping the response's [`Body`] before its end does
/// (H3_REQUEST_CANCELLED, [RFC 9114 §4.1.1](https://www.rfc-editor.org/rfc/rfc9114#section-4.1.1)). An attempt to
/// connect ends with the last request that waits for it.
///
/// # Limits
///
/// No redirects, cookies, proxies or other versions of HTTP, and no early data. A timeout layer bounds the time
/// until the head of the response, not its body.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Arc<Pool>,
}

/// What clones share.
struct Pool {
    connector: Connector,
    idle_timeout: Duration,
    /// By host and port, in lower case.
    places: Mutex<HashMap<String, PoolSlot>>,
    /// One for each connection, which closes it when it is idle or lost.
    keepers: Mutex<JoinSet<()>>,
}

type Opened = Result<Arc<Pooled>, Arc<ClientError>>;
type Attempt = BoxFuture<'static, Opened>;

enum PoolSlot {
    /// Ends with the last request that waits for it.
    Opening(WeakShared<Attempt>),
    Open(Arc<Pooled>),
}

/// A connection of the pool, and how many requests it has.
#[derive(Debug)]
pub(super) struct Pooled {
    /// Its place.
    key: String,
    connection: Connection,
    requests: watch::Sender<usize>,
}

/// A request on a connection, from before it is sent until its response is over.
pub(super) struct Lease(Arc<Pooled>);

impl Lease {
    fn new(pooled: Arc<Pooled>) -> Self {
        pooled.requests.send_modify(|requests| *requests += 1);
        Self(pooled)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.requests.send_modify(|requests| *requests -= 1);
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("places", &lock(&self.places).keys()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client that trusts these servers.
    ///
    /// # Errors
    ///
    /// If a file of certificates cannot be used.
    pub fn new(trust: &Trust) -> Result<Self, ClientError> {
        Ok(Self::with(Connector::new(trust)?))
    }

    /// A client whose connections are those of `connector`, with its settings.
    #[must_use]
    pub fn with(connector: Connector) -> Self {
        let (places, keepers) = (Mutex::default(), Mutex::default());
        Self { pool: Arc::new(Pool { connector, idle_timeout: IDLE, places, keepers }) }
    }

    /// How long a connection without requests is kept (default: 90 s). A client that was cloned keeps its
    /// connections, and the one returned has none yet.
    #[must_use]
    pub fn idle_timeout(self, idle: Duration) -> Self {
        let mut client = Self::with(self.pool.connector.clone());
        if let Some(pool) = Arc::get_mut(&mut client.pool) {
            pool.idle_timeout = idle;
        }
        client
    }

    /// Sends a request, as [`tower::Service::call`] does, and gives the response as soon as its head is received.
    ///
    /// # Errors
    ///
    /// When no connection can be opened, or the request fails.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the request is cancelled.
    pub async fn send<B>(&self, request: Request<B>) -> Result<Response<Body>, ClientError>
    where
        B: http_body::Body<Data: Send, Error: Into<send::BoxError>> + Send + 'static,
    {
        let (mut head, body) = request.into_parts();
        let length = send::length(&mut head, &body)?;
        let mut again = Some(head.clone());
        let mut lease = self.pool.lease(&head.uri).await?;
        let opened = loop {
            let error = match lease.0.connection.send_request(Request::from_parts(head, ())).await {
                Ok(opened) => break opened,
                Err(error) => error,
            };
            // Nothing of it has been processed: its head was not sent whole.
            let lost = matches!(error, ClientError::Connection(_) | ClientError::Protocol(ProtocolError::GoAway));
            let Some(same) = again.take().filter(|_| lost) else { return Err(error) };
            debug!(%error, "the connection takes no more requests; opening another");
            self.pool.forget(&lease.0);
            head = same;
            lease = self.pool.lease(&head.uri).await?;
        };
        let mut response = send::exchange(opened, body, length, lease.0.connection.uploads()).await?;
        let handle = lease.0.connection.handle().clone();
        response.body.keep(lease);
        let mut response = Response::from(response);
        response.extensions_mut().insert(handle);
        Ok(response)
    }
}

impl<B> tower_service::Service<Request<B>> for Client
where
    B: http_body::Body<Data: Send, Error: Into<send::BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = ClientError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ClientError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let client = self.clone();
        Box::pin(async move { client.send(request).await })
    }
}

impl Pool {
    /// A place for a request on the connection to the host of `uri`.
    async fn lease(self: &Arc<Self>, uri: &Uri) -> Result<Lease, ClientError> {
        let (host, port) = target(uri)?;
        let key = format!("{}:{port}", host.to_ascii_lowercase());
        let opening = {
            let mut places = lock(&self.places);
            let opening = match places.get(&key) {
                Some(PoolSlot::Open(pooled)) if !pooled.connection.is_closed() => {
                    return Ok(Lease::new(pooled.clone()));
                }
                Some(PoolSlot::Opening(opening)) => opening.upgrade(),
                _ => None,
            };
            opening.unwrap_or_else(|| {
                let opening = self.clone().open(key.clone(), uri.clone()).boxed().shared();
                // There is one: it has not been polled yet.
                if let Some(weak) = opening.downgrade() {
                    // Attempts that all who waited have given up leave nothing behind.
                    places.retain(|_, place| !matches!(place, PoolSlot::Opening(weak) if weak.upgrade().is_none()));
                    places.insert(key, PoolSlot::Opening(weak));
                }
                opening
            })
        };
        opening.await.map(Lease::new).map_err(|error| error.copied())
    }

    /// Opens the connection of a place that waits for it.
    async fn open(self: Arc<Self>, key: String, uri: Uri) -> Opened {
        let opened = self.connector.open(&uri).await;
        let mut places = lock(&self.places);
        match opened {
            Ok(connection) => {
                let pooled = Arc::new(Pooled { key, connection, requests: watch::Sender::new(0) });
                places.insert(pooled.key.clone(), PoolSlot::Open(pooled.clone()));
                let mut keepers = lock(&self.keepers);
                while keepers.try_join_next().is_some() {}
                keepers.spawn(keep(Arc::downgrade(&self), pooled.clone(), self.idle_timeout));
                Ok(pooled)
            }
            Err(error) => {
                // The next request tries again.
                places.remove(&key);
                Err(Arc::new(error))
            }
        }
    }

    /// Gives no more requests to a connection.
    fn forget(&self, pooled: &Arc<Pooled>) {
        forget(&mut lock(&self.places), pooled);
    }

    /// The same if it has none; whether that is so.
    fn forget_idle(&self, pooled: &Arc<Pooled>) -> bool {
        // Requests are added under the same lock.
        let mut places = lock(&self.places);
        let idle = *pooled.requests.borrow() == 0;
        if idle {
            forget(&mut places, pooled);
        }
        idle
    }
}

fn forget(places: &mut HashMap<String, PoolSlot>, pooled: &Arc<Pooled>) {
    if matches!(places.get(&pooled.key), Some(PoolSlot::Open(known)) if Arc::ptr_eq(known, pooled)) {
        places.remove(&pooled.key);
    }
}

/// Keeps a connection until it is lost or idle. It is closed when its last response is dropped.
async fn keep(pool: Weak<Pool>, pooled: Arc<Pooled>, idle: Duration) {
    let mut requests = pooled.requests.subscribe();
    let idle = async {
        loop {
            // `pooled` has the sender.
            let _ = requests.wait_for(|requests| *requests == 0).await;
            let used = tokio::time::timeout(idle, requests.wait_for(|requests| *requests > 0)).await.is_ok();
            if !used && pool.upgrade().is_none_or(|pool| pool.forget_idle(&pooled)) {
                return;
            }
        }
    };
    tokio::select! {
        lost = pooled.connection.closed() => {
            debug!(error = %lost, "a connection was lost");
            if let Some(pool) = pool.upgrade() {
                pool.forget(&pooled);
            }
        }
        () = idle => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attempts_that_were_given_up_leave_nothing_behind() {
        let client = Client::new(&Trust::Anyone).unwrap();
        for port in 1..20 {
            let request =
                Request::get(format!("https://127.0.0.1:{port}/")).body(http_body_util::Empty::<bytes::Bytes>::new());
            // Polled once.
            assert!(client.send(request.unwrap()).now_or_never().is_none());
            assert!(lock(&client.pool.places).len() <= 1, "{port}");
        }
    }
}
