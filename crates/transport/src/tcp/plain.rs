//! Plain HTTP where there is TLS: it comes to the port of TLS, from a client that was given `http://` or no scheme at
//! all, or to a listener that sends everyone on to HTTPS. One request is answered, and the connection closed.

use std::{convert::Infallible, time::Duration};

use axum_core::body::Body;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::debug;

use super::unread::Unread;
use crate::{
    reached::{Via, base},
    response,
    service::{Context, overdue},
};

/// What certificate authorities ask for.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// How long such a connection may take from its request to its end, with what is read of the request's body.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a client begins as in HTTP, whose methods are words (and the preface of HTTP/2 begins with one).
/// TLS begins with the type of a record, 22. Takes nothing of what was sent.
pub(super) async fn is_spoken(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    let read = stream.peek(&mut first).await?;
    Ok(read > 0 && (first[0].is_ascii_alphabetic() || matches!(first[0], b'\r' | b'\n')))
}

/// Answers one request with the URL that it meant.
pub(super) async fn answer(stream: TcpStream, via: Via, context: &Context, stop: &CancellationToken) {
    let advertise = context.advertise.clone();
    let answers = move |request: Request<Body>| {
        // A client that names no port means 80: that one is not of TLS.
        let used = request.uri().authority().map(http::uri::Authority::as_str).map(str::to_owned);
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let named =
            used.or(host).is_some_and(|host| host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()));
        let base = base(request.uri(), request.headers(), Via { tls: named, ..via }, advertise.as_deref());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let text = format!("this port speaks HTTPS: use {base}{path}");
        std::future::ready(response::problem(StatusCode::BAD_REQUEST, &text).map(Body::from))
    };
    one(stream, context, stop, answers).await;
}

/// Redirects one request to HTTPS, or asks the service if a certificate authority wants to know whether the name of it
/// leads here (RFC 8555 §8.3).
pub(super) async fn redirect(stream: TcpStream, via: Via, context: &Context, stop: &CancellationToken) {
    let (advertise, service) = (context.advertise.clone(), context.service.clone());
    let answers = move |mut request: Request<Body>| {
        let base = base(request.uri(), request.headers(), via, advertise.as_deref());
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let location = HeaderValue::try_from(format!("{base}{path}"));
        let asks = request.uri().path().starts_with(CHALLENGES);
        let service = service.clone();
        async move {
            if asks {
                request.extensions_mut().insert(via);
                let Ok(answered) = service.oneshot(request).await;
                return answered;
            }
            let Ok(location) = location else {
                let text = "the request names no host that could be redirected to";
                return response::problem(StatusCode::BAD_REQUEST, text).map(Body::from);
            };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
    };
    one(stream, context, stop, answers).await;
}

/// Answers one request, and closes the connection.
async fn one<F>(
    stream: TcpStream,
    context: &Context,
    stop: &CancellationToken,
    answers: impl Fn(Request<Body>) -> F + Clone + Send + 'static,
) where
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let answered = CancellationToken::new();
    let (done, unread) = (answered.clone(), Unread::default());
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (request, _) = unread.lend(request, None);
        let (answering, done) = (answers(request.map(Body::new)), done.clone());
        async move {
            let response = answering.await;
            done.cancel();
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(context.limits.head_timeout).keep_alive(false);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(1);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    let served = async {
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = answered.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    let limit = async {
        answered.run_until_cancelled(overdue(stop, context.limits.head_timeout)).await;
        // A request may have come in the same moment.
        if answered.is_cancelled() {
            tokio::time::sleep(PATIENCE).await;
        }
    };
    let served = tokio::select! {
        biased;
        served = served => Ok(served),
        () = limit => Err(()),
    };
    match served {
        Ok(Ok(())) => debug!("answered a request of plain HTTP"),
        Ok(Err(error)) => debug!(%error, "a connection of plain HTTP broke off"),
        Err(_) => debug!("a connection of plain HTTP took too long"),
    }
}
