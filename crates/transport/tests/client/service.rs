//! The client as a tower service: one connection for each authority, through layers and losses.

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h3cast_transport::{
    ConnectionHandle,
    client::{Body, Client, ClientError, Connector, Trust},
};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use tokio::sync::watch;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, retry::Policy};

use crate::servers::{Plain, Stream, soon};

fn request(uri: Uri) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

/// What a service answers, as text.
async fn text<S, E>(service: &mut S, uri: Uri) -> Result<String, E>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<Body>, Error = E>,
    E: std::fmt::Debug,
{
    let port = uri.port_u16().unwrap();
    let response = soon("the head", async { service.ready().await?.call(request(uri)).await }).await?;
    assert_eq!((response.status(), response.version()), (http::StatusCode::OK, http::Version::HTTP_3));
    let handle = response.extensions().get::<ConnectionHandle>().unwrap();
    assert_eq!(handle.remote_address().port(), port);
    let body = soon("the body", response.into_body().collect()).await.expect("a whole body").to_bytes();
    Ok(String::from_utf8(body.into()).unwrap())
}

/// Answers at once.
async fn hello(_: Request<()>, mut stream: Stream) {
    stream.send_response(Response::new(())).await.unwrap();
    stream.send_data("hello".into()).await.unwrap();
    stream.finish().await.unwrap();
}

#[tokio::test]
async fn requests_share_a_connection() {
    let (one, other) = (Plain::start(hello), Plain::start(hello));
    let client = Client::new(&one.trust()).unwrap();
    // At once, while there is none. None of them may connect on its own, so that all wait for one attempt.
    let first = (0..20).map(|_| {
        let (mut client, uri) = (client.clone(), one.uri("/"));
        async move { text(&mut client, uri).await.unwrap() }
    });
    assert_eq!(futures_util::future::join_all(first).await, ["hello"; 20]);
    // Later as well.
    let mut client = client;
    assert_eq!(text(&mut client, one.uri("/")).await.unwrap(), "hello");
    // Another server has another one; it is not trusted, whatever the first one is.
    let error = text(&mut client, other.uri("/")).await.unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error}");
    assert_eq!(text(&mut client, one.uri("/")).await.unwrap(), "hello");
    assert_eq!(one.connections().len(), 1);
}

#[tokio::test]
async fn layers_of_tower_apply() {
    #[derive(Clone)]
    struct Unprocessed(Arc<AtomicUsize>);
    impl<B: Clone> Policy<Request<B>, Response<Body>, BoxError> for Unprocessed {
        type Future = Ready<()>;

        fn retry(&mut self, _: &mut Request<B>, result: &mut Result<Response<Body>, BoxError>) -> Option<Self::Future> {
            let error = result.as_ref().err()?.downcast_ref::<ClientError>()?;
            let again = error.is_unprocessed() && !error.is_final() && self.0.fetch_add(1, Ordering::Relaxed) < 3;
            again.then(|| ready(()))
        }

        fn clone_request(&mut self, request: &Request<B>) -> Option<Request<B>> {
            Some(request.clone())
        }
    }

    // Rejects two requests, as a server that shuts down does, and never answers one.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let server = Plain::start(move |request: Request<()>, mut stream: Stream| {
        let count = count.clone();
        async move {
            if request.uri().path() == "/never" {
                return std::future::pending().await;
            }
            if count.fetch_add(1, Ordering::Relaxed) < 2 {
                return stream.stop_stream(h3::error::Code::H3_REQUEST_REJECTED);
            }
            stream.send_response(Response::new(())).await.unwrap();
            stream.send_data("hello".into()).await.unwrap();
            stream.finish().await.unwrap();
        }
    });
    let retried = Arc::new(AtomicUsize::new(0));
    let mut client = ServiceBuilder::new()
        .boxed_clone()
        .concurrency_limit(1)
        .retry(Unprocessed(retried.clone()))
        .timeout(Duration::from_secs(20))
        .service(Client::new(&server.trust()).unwrap());
    assert_eq!(text(&mut client, server.uri("/")).await.unwrap(), "hello");
    assert_eq!((retried.load(Ordering::Relaxed), asked.load(Ordering::Relaxed)), (2, 3));

    let mut hasty = ServiceBuilder::new().timeout(Duration::from_millis(50)).service(client);
    let error = text(&mut hasty, server.uri("/never")).await.unwrap_err();
    assert!(error.is::<tower::timeout::error::Elapsed>(), "{error}");
    // The connection goes on.
    assert_eq!(text(&mut hasty.into_inner(), server.uri("/")).await.unwrap(), "hello");
}

/// Answers with a piece, and with another one and the end when it is told so.
fn held() -> (Plain, watch::Sender<bool>) {
    let go = watch::Sender::new(false);
    let told = go.clone();
    let server = Plain::start(move |request: Request<()>, mut stream: Stream| {
        let mut go = told.subscribe();
        async move {
            stream.send_response(Response::new(())).await.unwrap();
            stream.send_data("one".into()).await.unwrap();
            if request.uri().path() == "/held" {
                let _ = go.wait_for(|go| *go).await;
            }
            // The client may have given up.
            let _ = stream.send_data("two".into()).await;
            let _ = stream.finish().await;
        }
    });
    (server, go)
}

#[tokio::test]
async fn a_lost_connection_is_replaced() {
    let (server, _go) = held();
    let mut client = Client::new(&server.trust()).unwrap();
    let mut held = soon("the head", client.call(request(server.uri("/held")))).await.unwrap().into_body();
    assert_eq!(soon("data", held.next()).await.unwrap().unwrap(), "one");
    server.connections()[0].close(0x102_u32.into(), b"restarting");
    assert!(matches!(soon("the loss", held.next()).await, Err(ClientError::Connection(_))));
    assert_eq!(text(&mut client, server.uri("/")).await.unwrap(), "onetwo");
    assert_eq!(server.connections().len(), 2);
}

#[tokio::test]
async fn a_connection_that_is_going_away_completes_what_it_has() {
    let (server, go) = held();
    let mut client = Client::new(&server.trust()).unwrap();
    let mut held = soon("the head", client.call(request(server.uri("/held")))).await.unwrap().into_body();
    assert_eq!(soon("data", held.next()).await.unwrap().unwrap(), "one");
    server.go_away();
    // The client has learnt it once it opens another connection for a new request; until then requests are rejected.
    let other = async {
        loop {
            match text(&mut client, server.uri("/")).await {
                Ok(text) => return text,
                // The request was sent before GOAWAY was received.
                Err(ClientError::Reset(code) | ClientError::Stopped(code)) => assert_eq!(code, 0x10b),
                Err(error) => panic!("a second attempt was due: {error}"),
            }
        }
    };
    assert_eq!(soon("another connection", other).await, "onetwo");
    assert_eq!(server.connections().len(), 2);
    go.send_replace(true);
    assert_eq!(soon("the rest", held.collect()).await.unwrap().to_bytes(), "two");
}

#[tokio::test]
async fn connections_do_not_outlive_their_use() {
    let (server, go) = held();
    // Idle, it is closed (H3_NO_ERROR), but not while a response is open.
    let mut client = Client::new(&server.trust()).unwrap().idle_timeout(Duration::from_millis(20));
    let held = soon("the head", client.call(request(server.uri("/held")))).await.unwrap();
    assert_eq!(text(&mut client, server.uri("/")).await.unwrap(), "onetwo");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.connections()[0].close_reason().is_none());
    go.send_replace(true);
    assert_eq!(soon("the body", held.into_body().collect()).await.unwrap().to_bytes(), "onetwo");
    let closed = "Remote error: ApplicationClose: H3_NO_ERROR";
    assert_eq!(server.ended(1).await, [closed]);
    go.send_replace(false);

    // Without its clients, it is closed with the last response.
    let mut client = Client::new(&server.trust()).unwrap();
    let held = soon("the head", client.call(request(server.uri("/held")))).await.unwrap();
    let other = soon("the head", client.clone().call(request(server.uri("/held")))).await.unwrap();
    drop((client, other));
    assert!(server.connections()[1].close_reason().is_none());
    drop(held);
    assert_eq!(server.ended(2).await, [closed, closed]);
}

#[tokio::test]
async fn an_attempt_that_fails_fails_all_who_wait_and_no_one_else() {
    // Takes what is sent to it, and does not answer.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let uri: Uri = format!("https://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let connector = Connector::builder().trust(Trust::Anyone).connect_timeout(Duration::from_millis(300));
    let client = Client::with(connector.build().unwrap());
    let errors = futures_util::future::join_all((0..8).map(|_| client.send(request(uri.clone())))).await;
    for error in errors {
        let error = error.unwrap_err();
        assert!(matches!(&error, ClientError::Unreachable { .. }) && error.is_unprocessed(), "{error}");
    }
    // Each attempt has a connection id of its own (RFC 9000 §17.2).
    let (mut attempts, mut datagram) = (std::collections::HashSet::new(), [0; 2048]);
    while let Ok(size) = silent.recv(&mut datagram) {
        // The client also asks whether anything listens there at all.
        if size == 1 {
            continue;
        }
        let length = usize::from(datagram[5]);
        attempts.insert(datagram[6..size][..length].to_vec());
    }
    assert_eq!(attempts.len(), 1, "each waited for its own attempt");

    // One that is given up leaves nothing behind: a server that is there now is found.
    let waiting = client.send(request(uri.clone()));
    assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    let (server, _go) = held();
    let mut client = client;
    assert_eq!(text(&mut client, server.uri("/")).await.unwrap(), "onetwo");
}
