//! How long `h3cast publish` tries.

use super::*;

/// For how many seconds a publication says to have tried, and what follows that.
pub(super) fn gave_up(told: &str) -> (f64, &str) {
    let (seconds, why) = told.split_once("gave up after ").unwrap().1.split_once(" s: ").unwrap();
    (seconds.parse().unwrap(), why)
}

/// A server that never says what it has of what it is sent: from the start, after it has refused a part of it, or
/// without reading it.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_to_try_passes_while_the_server_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let published =
        |bytes: u64| serde_json::json!({ "feed": "x", "first": null, "last": null, "chunks": 1, "bytes": bytes });
    let much = "line\n".repeat(1 << 20);
    for (path, input, confirmed) in [("/never", "one\ntwo\n", 0), ("/part", "one\ntwo\n", 4), ("/unread", &much, 0)] {
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        let silent = async move |request: Request| -> Response {
            if !request.headers().contains_key("upload-offset") {
                let bytes = if counted.load(Ordering::SeqCst) == 0 { 0 } else { confirmed };
                return axum::Json(published(bytes)).into_response();
            }
            let number = counted.fetch_add(1, Ordering::SeqCst);
            if path != "/unread" {
                let _ = axum::body::to_bytes(request.into_body(), 1 << 20).await;
                if path == "/part" && number == 0 {
                    let problem = serde_json::json!({ "detail": "no stream", "published": published(4) });
                    let kind = [(header::CONTENT_TYPE, "application/problem+json")];
                    return (StatusCode::SERVICE_UNAVAILABLE, kind, problem.to_string()).into_response();
                }
            }
            std::future::pending().await
        };
        let server = TestServer::start(|builder, _| builder.http_service(Router::new().fallback(silent))).await;
        let (cert, url) = (server.certificate(), format!("{}{path}", server.base));
        let begun = std::time::Instant::now();
        let args = ["publish", "--cacert", cert.to_str().unwrap(), "--retry-for", "6s", &url];
        let mut publish = Program::start(dir.path(), &args);
        let mut stdin = publish.stdin.take().unwrap();
        // It stops reading when it gives up.
        let (_, (_, told, code)) = tokio::join!(
            async move {
                let _ = stdin.write_all(input.as_bytes()).await;
            },
            publish.end()
        );
        let (seconds, why) = gave_up(&told);
        let took = begun.elapsed().as_secs_f64();
        assert!((6.0..took).contains(&seconds), "{path} {took}: {told}");
        // What it has answered before says more.
        let cause =
            if path == "/part" { "503 Service Unavailable: no stream" } else { "has not answered what it was sent" };
        assert!(why.starts_with("the server ") && why.contains(cause), "{path}: {told}");
        assert!(why.trim_end().ends_with(&format!("({confirmed} bytes confirmed)")), "{path}: {told}");
        assert_eq!(code, Some(1), "{path}: {told}");
        // Another is made while there is time, and none after that.
        assert_eq!(requests.load(Ordering::SeqCst), 2, "{path}: {told}");
    }
}

/// That a server works again is known once it has what is held, and not only after ten more seconds of input.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_works_again_ends_the_time_to_try() {
    let feed = Feed::writable("default", 64 << 20, Lag::Skip);
    let app = Arc::new(std::sync::OnceLock::<Router>::new());
    let refused = Arc::new(AtomicUsize::new(0));
    let (inner, of_app) = (app.clone(), feed.clone());
    let proxy = async move |request: Request| -> Response {
        let is_first = request.headers().contains_key("upload-offset") && refused.fetch_add(1, Ordering::SeqCst) == 0;
        match is_first {
            true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            false => tower::ServiceExt::oneshot(inner.get().unwrap().clone(), request).await.into_response(),
        }
    };
    let server = TestServer::start(|builder, identity| {
        let _ = app.set(Arc::new(App::new([of_app], identity)).router());
        builder.http_service(Router::new().fallback(proxy))
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/stream", server.base));
    let args = ["publish", "--cacert", cert.to_str().unwrap(), "--retry-for", "4s", &url];
    let mut publish = Program::start(dir.path(), &args);
    let mut stdin = publish.stdin.take().unwrap();
    stdin.write_all(b"one\n").await.unwrap();
    publish.told("the server accepts it again: 4 bytes confirmed").await;
    stdin.write_all(b"two\n").await.unwrap();
    drop(stdin);
    let (_, told, code) = publish.end().await;
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(published(&feed, 8).await, ["one\n", "two\n"]);
}
