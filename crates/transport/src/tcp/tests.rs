mod refusals;

use std::net::SocketAddr;

use axum::{Router, body::Body, routing::get};
use futures_util::{StreamExt, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    admission::{Admission, AskRoom, Carrier, Counters},
    limits::Limits,
    reached::Via,
    webtransport::Handlers,
};

/// Serves one connection with a response whose second half comes a second after the first.
fn one_connection(stop: CancellationToken) -> tokio::io::DuplexStream {
    let slow = || async {
        let halves = stream::unfold(0, |half| async move {
            tokio::time::sleep(Duration::from_secs(half)).await;
            (half < 2).then(|| (Ok::<_, std::convert::Infallible>("half "), half + 1))
        });
        Body::from_stream(halves)
    };
    let long = || async {
        let pieces = stream::iter(["begin", "middle", "end"]).then(|piece| async move {
            tokio::time::sleep(Duration::from_secs(100)).await;
            Ok::<_, std::convert::Infallible>(piece)
        });
        Body::from_stream(pieces)
    };
    // What comes of a body that is read by another task.
    let (read_tx, read_rx) = tokio::sync::watch::channel(Vec::new());
    let reads = move |body: Body| async move {
        tokio::spawn(async move {
            let read = axum::body::to_bytes(body, 100).await.unwrap();
            read_tx.send_replace(read.to_vec());
        });
    };
    let read = || async move {
        let mut read = read_rx;
        let read = read.wait_for(|read| !read.is_empty()).await.unwrap().clone();
        Body::from_stream(stream::iter([Ok::<_, std::convert::Infallible>(read)]))
    };
    let router = Router::new().route("/", get(slow)).route("/long", get(long));
    let router = router.route("/panic", get(async || -> &'static str { panic!("as it is meant to") }));
    let router = router.route("/reads", axum::routing::post(reads)).route("/read", get(read));
    serving(router, stop)
}

fn context(router: Router) -> Context {
    Context {
        given: Arc::default(),
        grows: true,
        service: tower::util::BoxCloneSyncService::new(router),
        handlers: Handlers::default(),
        admission: Arc::new(Admission::new(
            &Limits::default(),
            Counters::default(),
            Box::new(|_| false),
            AskRoom::default(),
        )),
        hooks: Default::default(),
        counts: Default::default(),
        exchanges: Default::default(),
        #[cfg(feature = "qlog")]
        qlog: None,
        origins: Default::default(),
        proxies: Default::default(),
        status_paths: Vec::new(),
        plain_port: None,
        advertise: None,
    }
}

/// Serves one connection.
fn serving(router: Router, stop: CancellationToken) -> tokio::io::DuplexStream {
    let context = context(router);
    let (client, server) = tokio::io::duplex(64 * 1024);
    let remote = SocketAddr::from(([127, 0, 0, 1], 1));
    let how = How {
        via: Via { tls: false, tls_port: 0, plain_port: None },
        alt_svc: false,
        announced: false,
        redirects: false,
    };
    let owner = Owner::tcp(None, remote, None, None, Default::default());
    let place = context.admission.tcp(remote.ip(), Carrier::Plain, false).unwrap();
    let ending = Ending::new(None, remote);
    let counted =
        Counted { client: place.client().clone(), idler: None, is_reserved: false, span: tracing::Span::none() };
    ending.keep(place);
    tokio::spawn(connection(server, ending, owner, counted, Arc::new(context), how, stop));
    client
}

const WHOLE: &str = "5\r\nhalf \r\n5\r\nhalf \r\n0\r\n\r\n";

/// Sends a request of which some comes `early`, and the rest so long after the connection was opened.
async fn answer(early: &str, after: Duration, stop: &CancellationToken) -> String {
    let opened = tokio::time::Instant::now();
    let mut client = one_connection(stop.clone());
    client.write_all(early.as_bytes()).await.unwrap();
    tokio::time::sleep_until(opened + after).await;
    let rest = &"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[early.len()..];
    // An error means that the connection is closed.
    let _ = client.write_all(rest.as_bytes()).await;
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer).await;
    answer
}

/// None, or all of it: never a part.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_as_its_time_is_over_is_answered_or_not_begun() {
    let mut whole = 0;
    for early in ["", "GET / HT"] {
        for micros in (9_990_000..10_020_000).step_by(250) {
            let answer = answer(early, Duration::from_micros(micros), &CancellationToken::new()).await;
            let is_whole = answer.ends_with(WHOLE);
            whole += usize::from(is_whole);
            assert!(
                is_whole || answer.is_empty() || answer.starts_with("HTTP/1.1 408"),
                "{early:?}, {micros}: {answer:?}"
            );
        }
    }
    assert!(whole > 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_late_after_a_stop_is_answered_or_not_begun() {
    for early in ["", "GET / HT"] {
        for micros in (190_000..220_000).step_by(250) {
            let stop = CancellationToken::new();
            stop.cancel();
            let answer = answer(early, Duration::from_micros(micros), &stop).await;
            assert!(answer.ends_with(WHOLE) || answer.is_empty(), "{early:?}, {micros}: {answer:?}");
        }
    }
}

/// Asks, and reads the whole answer.
async fn asked(client: &mut tokio::io::DuplexStream, path: &str) -> String {
    client.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("0\r\n\r\n") {
        let mut buf = [0; 1024];
        let read = client.read(&mut buf).await.unwrap();
        assert!(read > 0, "cut: {answer}");
        answer += std::str::from_utf8(&buf[..read]).unwrap();
    }
    answer
}

/// The first request of a connection is answered; a second one comes so long after that, or the beginning of it.
async fn next(client: &mut tokio::io::DuplexStream, pause: Duration, text: &str) -> String {
    let whole = asked(client, "/").await;
    assert!(whole.ends_with(WHOLE), "{whole}");
    tokio::time::sleep(pause).await;
    let _ = client.write_all(text.as_bytes()).await;
    let mut answer = String::new();
    let _ = client.read_to_string(&mut answer).await;
    answer
}

const CLOSING: &str = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_its_next_request() {
    let mut client = one_connection(CancellationToken::new());
    assert!(next(&mut client, Duration::from_secs(74), CLOSING).await.ends_with(WHOLE));
    let mut client = one_connection(CancellationToken::new());
    assert_eq!(next(&mut client, Duration::from_secs(76), CLOSING).await, "");
    // A head that has begun has less time.
    let mut client = one_connection(CancellationToken::new());
    let begun = tokio::time::Instant::now();
    assert_eq!(next(&mut client, Duration::from_secs(20), "GET / HT").await, "");
    // The first answer takes three.
    assert_eq!(begun.elapsed().as_secs(), 33);
}

#[tokio::test(start_paused = true)]
async fn a_next_request_that_comes_as_its_time_is_over_is_answered_or_not_begun() {
    for micros in (74_990_000..75_020_000).step_by(250) {
        let mut client = one_connection(CancellationToken::new());
        let answer = next(&mut client, Duration::from_micros(micros), CLOSING).await;
        assert!(answer.ends_with(WHOLE) || answer.is_empty(), "{micros}: {answer:?}");
    }
}

/// However long they take, they are no pause.
#[tokio::test(start_paused = true)]
async fn bodies_are_no_pause() {
    let mut client = one_connection(CancellationToken::new());
    for _ in 0..2 {
        let answer = asked(&mut client, "/long").await;
        assert!(answer.contains("end"), "{answer}");
    }
    // A request that is still being read when it was answered.
    let head = "POST /reads HTTP/1.1\r\nhost: localhost\r\ncontent-length: 3\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(200)).await;
        client.write_all(b"x").await.unwrap();
    }
    client.write_all(b"x").await.unwrap();
    assert!(asked(&mut client, "/read").await.contains("\r\nxxx\r\n"));
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_connections_that_wait_and_ends_heads_that_have_begun() {
    for (early, longest) in [("", 1), ("GET / HT", 11)] {
        let stop = CancellationToken::new();
        let mut client = one_connection(stop.clone());
        assert!(asked(&mut client, "/").await.ends_with(WHOLE));
        client.write_all(early.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        stop.cancel();
        let stopped = tokio::time::Instant::now();
        let mut rest = String::new();
        let _ = client.read_to_string(&mut rest).await;
        assert!(rest.is_empty() && stopped.elapsed() < Duration::from_secs(longest), "{:?}: {rest}", stopped.elapsed());
    }
}

/// Collects what is logged as an error.
struct Errors(tokio::sync::mpsc::UnboundedSender<String>);

impl tracing::Subscriber for Errors {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut |_: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            let _ = self.0.send(format!("{value:?}"));
        });
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_panic_of_a_handler_over_http2_is_logged() {
    let (tx, mut errors) = tokio::sync::mpsc::unbounded_channel();
    // With one alone, what another test's thread logs first would count as wanted by nobody, on all threads.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    let _default = tracing::subscriber::set_default(Errors(tx));
    let stop = CancellationToken::new();
    let stream = TokioIo::new(one_connection(stop.clone()));
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, driver) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(driver);
    let request = Request::get("http://localhost/panic").body(Body::empty()).unwrap();
    sender.send_request(request).await.unwrap_err();
    let logged = tokio::time::timeout(Duration::from_secs(30), errors.recv()).await.unwrap();
    assert_eq!(logged.as_deref(), Some("the task of a request panicked: as it is meant to"));
}

/// The runtime has not been told of them when the server stops.
#[tokio::test]
async fn connections_that_came_just_before_a_stop_are_answered() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut clients = [(); 3].map(|()| {
        use std::io::Write;
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        client
    });
    let listener =
        Listener::new(listener, None, Via { tls: false, tls_port: 0, plain_port: None }, false, false).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    serve(listener, Arc::new(context(Router::new().route("/", get("it is answered")))), stop).await;
    for client in &mut clients {
        let mut answer = String::new();
        std::io::Read::read_to_string(client, &mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("it is answered"), "{answer:?}");
    }
}
