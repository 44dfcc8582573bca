use axum::{Router, body::Body, routing::get};
use futures_util::stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{guard::Limits, webtransport::Handlers};

/// Serves one connection with a response whose second half comes a second after the first.
fn one_connection(stop: CancellationToken) -> tokio::io::DuplexStream {
    let slow = || async {
        let halves = stream::unfold(0, |half| async move {
            tokio::time::sleep(Duration::from_secs(half)).await;
            (half < 2).then(|| (Ok::<_, std::convert::Infallible>("half "), half + 1))
        });
        Body::from_stream(halves)
    };
    let router = Router::new().route("/", get(slow));
    let context = Context {
        service: tower::util::BoxCloneSyncService::new(router),
        handlers: Handlers::default(),
        limits: Limits { max_field_section_size: 16 * 1024, head_timeout: HEAD_TIMEOUT },
        max_sessions: 0,
        hooks: Default::default(),
        origins: Default::default(),
        plain_port: None,
        advertise: None,
    };
    let (client, server) = tokio::io::duplex(64 * 1024);
    let remote = SocketAddr::from(([127, 0, 0, 1], 1));
    let via = Via { tls: false, tls_port: 0 };
    let owner = Owner::tcp(None, remote, None, Default::default());
    tokio::spawn(connection(server, Ending::new(None, remote), owner, Arc::new(context), via, stop));
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
