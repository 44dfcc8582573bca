//! Driving one HTTP/3 connection of a server: one task for the connection, one for each request.

use std::{
    pin::pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum_core::body::Body;
use bytes::Bytes;
use futures_util::{
    FutureExt,
    future::{self, BoxFuture},
};
use h3::error::StreamError;
use h3cast_proto::{Role, code};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{Instrument, Level, Span, debug, error_span, field};

use super::{
    Takeover,
    idle::{Due, Idle},
    incoming::{Resolver, build, next},
    request::RequestBody,
    response as write,
    vitals::Vitals,
    watch::{Seen, Watch},
};
use crate::{
    admission::{Aside, Client, Open, Refusal},
    connection::{ConnectionHandle, Owner},
    counts::{self, Protocol},
    early::EarlyData,
    exchange::{Exchange, RequestKind},
    guard::{BidiStream, RequestParts, Shared, Stopped},
    interim::Interim,
    outstanding::LINGER,
    panics,
    quic::{Connection, FEW_BI_STREAMS, FEW_UNI_STREAMS},
    reached::Via,
    response,
    service::{self, Context},
    webtransport::Registry,
};

/// How long handlers may go on once their connection is gone.
const LOST_WAIT: Duration = Duration::from_secs(3);

/// Serves a connection until it ends, or until `stop` and then the end of what it carries.
///
/// Its handshake may still be going on: `handshake` completes with it.
pub(crate) async fn serve(
    conn: Connection,
    handshake: BoxFuture<'_, ()>,
    context: Arc<Context>,
    client: Client,
    via: Via,
    stop: CancellationToken,
) {
    let (remote, pauses) = (conn.remote_address(), context.limits().send_pauses());
    if context.grows {
        conn.grow();
    }
    let stalled = {
        let counters = context.admission.counters().clone();
        move || counters.refused(Refusal::SendTimeout, remote)
    };
    if let Some((timeout, _)) = pauses {
        conn.limit_sending(timeout, stalled.clone());
    }
    let mut owner = Owner::quic(&conn, None, context.hooks.clone());
    Span::current().record("id", owner.handle().id());
    let sessions = Arc::new(Registry::new(context.limits().sessions));
    let shared = Shared::new(conn.clone(), Role::Server, context.limits(), sessions.clone());
    let aside = Aside::new(context.admission.counters().clone(), (FEW_BI_STREAMS, FEW_UNI_STREAMS));
    let shared = Arc::new(shared.counting(context.counts.clone(), aside));
    let (building, accepted) = build(&shared);
    // It waits for the client to allow our control stream.
    let built = tokio::select! {
        biased;
        built = building => built,
        () = service::overdue(&stop, context.limits().handshake_timeout) => return debug!("a client takes no streams"),
    };
    let mut h3 = match built {
        Ok(h3) => h3,
        Err(error) => return debug!(%error, "HTTP/3 did not start"),
    };
    // Dropped, and so aborted, with this task.
    let mut requests = JoinSet::new();
    let mut watch = Watch::new(&context.limits());
    // When the last of them ended.
    let mut answered = None;
    // `leaving` while requests may come that were sent before the client had our GOAWAY.
    let (mut stopping, mut accepting, mut leaving) = (false, true, false);
    let mut idle = Idle::new(&context.limits());
    let mut handshake = pin!(handshake.fuse());
    let mut counted = None;
    let mut vitals = Vitals::new(&conn, &context.counts);
    if owner.is_awaited() {
        let admitted = async {
            handshake.as_mut().await;
            if conn.close_reason().is_some() {
                return false;
            }
            shared.handshaken();
            counted = Some(context.counts.connection(Some(Protocol::Http3)));
            owner.handshaken();
            owner.admitted().await
        };
        tokio::select! {
            biased;
            admitted = Box::pin(admitted) => if !admitted {
                return debug!("the application does not accept a connection");
            },
            () = service::overdue(&stop, context.limits().handshake_timeout) => return debug!("a handshake, or the application's answer to it, took too long"),
        }
    }
    loop {
        idle.note(!requests.is_empty());
        tokio::select! {
            biased;
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                if h3.shutdown(shared.refuse_new()).await.is_err() {
                    break;
                }
                sessions.drain();
            }
            accept = next(&mut h3), if accepting => match accept {
                Ok(Some(resolver)) => {
                    // Not only below: a flood of requests would never let it come to that.
                    while let Some(ended) = requests.try_join_next() {
                        panics::report("the task of a request", ended);
                    }
                    let parts = accepted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
                    let Some(parts) = parts else { continue };
                    let answer = Answering { shared: shared.clone(), sessions: sessions.clone(), context: context.clone(), connection: owner.handle().clone(), client: client.clone(), via, parts, counted: context.counts.request(Protocol::Http3), exchange: Exchange::default() };
                    requests.spawn(answer.answered(resolver));
                }
                // No more will come; h3 does not know of the bodies that we are still writing.
                Ok(None) => accepting = false,
                Err(error) => {
                    debug!(%error, "connection ended");
                    break;
                }
            },
            // It completes when the handshake fails as well.
            _ = &mut handshake => if conn.close_reason().is_none() {
                shared.handshaken();
                counted = Some(context.counts.connection(Some(Protocol::Http3)));
                owner.handshaken();
            },
            datagram = conn.read_datagram() => match datagram.map(|datagram| sessions.deliver_datagram(&datagram)) {
                Ok(Ok(())) => {}
                Ok(Err(violation)) => shared.violated(violation),
                Err(_) => break,
            },
            Some(ended) = requests.join_next() => {
                answered = Some(Instant::now());
                panics::report("the task of a request", ended);
            }
            () = idle.tick() => match idle.due() {
                Due::KeepAlive => {
                    conn.keep_alive();
                    leaving = false;
                }
                Due::Retire if !stopping => {
                    debug!("a connection has been without a request for long");
                    (stopping, leaving) = (true, true);
                    if h3.shutdown(shared.refuse_new()).await.is_err() {
                        break;
                    }
                }
                Due::End => leaving = false,
                Due::Retire | Due::Nothing => {}
            },
            () = vitals.tick() => vitals.look(),
            () = watch.tick() => match watch.look(&conn, !requests.is_empty()) {
                Seen::Stalled(timeout) => {
                    stalled();
                    let reason = format!("nothing was acknowledged for {timeout:?}");
                    shared.conn.close(code::H3_EXCESSIVE_LOAD, reason.as_bytes());
                    break;
                }
                Seen::Frames(count) => if let Err(flood) = shared.spend(count) {
                    shared.violated(flood);
                    break;
                },
            },
            // Reached only when nothing of the above can go on.
            () = std::future::ready(()), if (stopping && !leaving || !accepting) && requests.is_empty() => break,
        }
    }
    drop(vitals);
    drop(counted);
    if shared.is_flooded() {
        context.admission.counters().refused(Refusal::ControlFrames, remote);
    }
    owner.notice();
    // When the connection is gone, each request learns so by itself: the close of a session may have
    // come just before, and is still to be read.
    if conn.close_reason().is_some() {
        let rest = async { while requests.join_next().await.is_some() {} };
        if tokio::time::timeout(LOST_WAIT, rest).await.is_err() {
            debug!("dropping handlers that have outlived their connection");
        }
    } else {
        // What has arrived is to be read as well: a client may drop it when the connection ends.
        if let Some(answered) = answered {
            let _ = tokio::time::timeout_at(answered + LINGER, conn.closed()).await;
        }
        conn.close(code::H3_NO_ERROR, b"");
    }
}

/// One request being answered.
pub(super) struct Answering {
    pub(super) shared: Arc<Shared>,
    pub(super) sessions: Arc<Registry>,
    pub(super) context: Arc<Context>,
    pub(super) connection: ConnectionHandle,
    /// Whom its requests and sessions count for.
    pub(super) client: Client,
    pub(super) via: Via,
    pub(super) parts: RequestParts,
    pub(super) counted: counts::Request,
    pub(super) exchange: Exchange,
}

/// The stream of a request.
pub(super) type ServerStream = h3::server::RequestStream<BidiStream, Bytes>;

impl Answering {
    /// Begins to watch it.
    pub(super) fn begin(&mut self, head: &mut http::request::Parts, kind: RequestKind) {
        self.exchange = self.context.begin(head, kind, &self.connection);
        if !self.exchange.is_watched() {
            return;
        }
        let exchange = self.exchange.clone();
        let stopped = std::mem::replace(&mut self.parts.stopped, Box::pin(future::pending()));
        self.parts.stopped = Box::pin(async move {
            let stopped = stopped.await;
            match &stopped {
                // It has all of it.
                Ok(None) => exchange.complete(),
                Ok(Some(_)) => exchange.gone(),
                // The connection knows more.
                Err(_) => {}
            }
            stopped
        });
    }

    /// Answers it to its end. What it needs for that is in a box that goes with the answer, and not in the task.
    fn answered(self, resolver: Box<Resolver>) -> impl Future<Output = ()> + Send {
        // It counts until the client has the response.
        let open = Arc::new(OnceLock::new());
        let early = self.is_early().then(|| self.shared.clone());
        let span = error_span!("request", id = field::Empty);
        let run = Box::pin(self.run(resolver, open.clone()).instrument(span.clone()));
        async move {
            let whole = async {
                let rest = run.await;
                let Some(rest) = rest else { return };
                // What may take long is not entered for each chunk, unless all that it does is wanted.
                match tracing::enabled!(Level::DEBUG) {
                    true => rest.instrument(span).await,
                    false => {
                        drop(span);
                        rest.await;
                    }
                }
            };
            match early {
                None => whole.await,
                Some(shared) => Box::pin(while_allowed(whole, &shared, &open)).await,
            }
        }
    }

    /// Whether it may be a copy, or come from elsewhere than it says.
    fn is_early(&self) -> bool {
        self.parts.early && !self.shared.handshake_seen().initialized()
    }

    /// Answers it; `open` is what it counts as. What may take long is given back, so that nothing of the answer stays
    /// in memory beside it: a feed, a session.
    async fn run(mut self, resolver: Box<Resolver>, open: Arc<OnceLock<Open>>) -> Option<BoxFuture<'static, ()>> {
        let (request, stream) = match Box::pin(resolver.resolve_request()).await {
            Ok(resolved) => resolved,
            Err(error) => {
                debug!(%error, "cannot read a request");
                return None;
            }
        };
        let (mut head, ()) = request.into_parts();
        let protocol = head.extensions.remove::<h3::ext::Protocol>();
        // RFC 8470 §3: done again by a copy, it would be done twice. What a proxy says would be believed of anyone who
        // forges its address.
        if self.parts.early && (!head.method.is_safe() || self.context.proxies().opened(&self.connection)) {
            tokio::select! {
                () = self.shared.handshake() => {}
                _ = self.shared.conn.closed() => return None,
            }
        }
        match (&head.method, protocol) {
            (&Method::CONNECT, Some(h3::ext::Protocol::WEB_TRANSPORT)) => {
                self.counted.is_session();
                return Box::pin(self.session(head, stream, &open)).await;
            }
            (&Method::CONNECT, _) => {
                self.begin(&mut head, RequestKind::Response);
                let status = StatusCode::NOT_IMPLEMENTED;
                self.counted.answered(status);
                refuse_with(stream, status, http::HeaderMap::new(), NO_TUNNEL, self.parts.stopped, &self.exchange)
                    .await;
            }
            // RFC 9220 §3: `:protocol` has a meaning with CONNECT only.
            (_, Some(_)) => {
                self.begin(&mut head, RequestKind::Response);
                self.counted.answered(StatusCode::BAD_REQUEST);
                refuse(stream, StatusCode::BAD_REQUEST, self.parts.stopped, &self.exchange).await;
            }
            (_, None) => {
                let Ok(connection) = self.context.describe(&mut head, &self.connection, self.via) else {
                    self.begin(&mut head, RequestKind::Response);
                    let by = (&mut self.counted, &self.exchange);
                    refuse_problem(stream, response::misforwarded(), self.parts.stopped, by).await;
                    return None;
                };
                self.connection = connection;
                self.begin(&mut head, RequestKind::Response);
                let client = self.context.counted(&self.connection, self.client.clone());
                match if self.is_early() { client.early_request() } else { client.request() } {
                    Ok(request) => {
                        let _ = open.set(request);
                        return self.request(head, stream).await;
                    }
                    Err(reason) => {
                        let problem = response::too_many(reason);
                        refuse_problem(stream, problem, self.parts.stopped, (&mut self.counted, &self.exchange)).await;
                    }
                }
            }
        }
        None
    }

    async fn request(mut self, mut head: http::request::Parts, stream: ServerStream) -> Option<BoxFuture<'static, ()>> {
        let method = head.method.clone();
        let (takeover, offers) = Takeover::new();
        head.extensions.insert(takeover);
        let (send, recv) = stream.split();
        let handshaken = self.shared.handshake_seen();
        if self.parts.early && !handshaken.initialized() {
            head.extensions.insert(EarlyData::new(handshaken.clone(), self.connection.clone()));
        }
        let (interim, outgoing) = Interim::queue();
        head.extensions.insert(interim);
        let body =
            RequestBody::new(recv, &head.headers, self.parts.malformed.clone(), &outgoing, self.exchange.received());
        let request = Request::from_parts(head, Body::new(body));
        let handled = async {
            let answered = self.context.service.clone().oneshot(request).await;
            outgoing.close();
            answered
        };
        // Side by side: a client that takes no interim response does not hold up the handler.
        let (answered, mut send) = tokio::select! {
            biased;
            both = future::join(handled, write::write_interim(&outgoing, send)) => both,
            // The client went away: whatever the handler was doing is dropped here.
            _ = &mut self.parts.stopped => {
                self.shared.given_up();
                return None;
            }
        };
        // A handler that answers at once comes first above, also where the client gives a request up as it sends it.
        if (&mut self.parts.stopped).now_or_never().is_some() {
            self.shared.given_up();
            return None;
        }
        self.shared.earn();
        if self.parts.malformed.get() {
            // Whatever the application made of it.
            send.stop_stream(h3::error::Code::H3_MESSAGE_ERROR);
            return None;
        }
        let response = answered.unwrap_or_else(|never| match never {});
        self.counted.answered(response.status());
        write::write((self.shared.conn.clone(), self.exchange), send, self.parts, &method, offers, response).await
    }
}

/// Answers a request that came in early data, and gives up when the handshake is complete and shows that its address
/// has too many without it: the stream is reset.
async fn while_allowed(answered: impl Future<Output = ()>, shared: &Shared, open: &OnceLock<Open>) {
    let refused = async {
        shared.handshake().await;
        // One that does not count yet will do so at once, now that the handshake is complete.
        match open.get().map(|open| (open, open.claim())) {
            Some((open, Err(reason))) => open.client().refused(reason),
            Some((_, Ok(()))) | None => future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = answered => {}
        reason = refused => debug!(?reason, "breaking off a request that came in early data"),
    }
}

/// Answers with a status alone.
pub(super) async fn refuse(stream: ServerStream, status: StatusCode, stopped: Stopped, exchange: &Exchange) {
    refuse_with(stream, status, http::HeaderMap::new(), "", stopped, exchange).await;
}

/// Answers with a problem.
pub(super) async fn refuse_problem(
    stream: ServerStream,
    problem: Response<String>,
    stopped: Stopped,
    (counted, exchange): (&mut counts::Request, &Exchange),
) {
    let (head, text) = problem.into_parts();
    counted.answered(head.status);
    refuse_with(stream, head.status, head.headers, text, stopped, exchange).await;
}

const NO_TUNNEL: &str = "CONNECT opens no tunnel here: this server is not a proxy.\n";

/// Answers with a status and a text, and wants no more of the request.
pub(super) async fn refuse_with(
    mut stream: ServerStream,
    status: StatusCode,
    mut headers: http::HeaderMap,
    text: impl Into<Bytes>,
    stopped: Stopped,
    exchange: &Exchange,
) {
    let text = text.into();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
    if !text.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    exchange.name(response.headers_mut());
    exchange.answered(status);
    let sent: Result<(), StreamError> = async {
        stream.send_response(response).await?;
        if !text.is_empty() {
            let size = text.len() as u64;
            stream.send_data(text).await?;
            exchange.sent(size);
        }
        stream.finish().await?;
        exchange.ended();
        Ok(())
    }
    .await;
    match sent {
        // It is to arrive before the connection may be closed.
        Ok(()) => drop(tokio::time::timeout(write::ACKNOWLEDGED, stopped).await),
        Err(error) => debug!(%error, "cannot refuse a request"),
    }
}
