//! Files and URLs of tokens and keys are read again, under traffic and through failures.

use h3cast::{
    App,
    auth::Tokens,
    feed::{Feed, Lag},
};
use http::{HeaderMap, Method, StatusCode};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    clients::{Way, ask, headers},
    common::{TestServer, soon},
};

const STAYS: &str = "the-token-that-stays-there";
const GOES: &str = "the-token-that-goes-away";
const COMES: &str = "the-token-that-comes-later";

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

#[tokio::test]
async fn a_file_of_tokens_is_read_again_under_traffic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens");
    std::fs::write(&path, format!("read=log {STAYS}\nread=log {GOES}\n")).unwrap();
    let tokens = Tokens::new().file(&path).await.unwrap();
    let _keeping = AbortOnDropHandle::new(tokio::spawn(tokens.clone().keep()));
    let feed = Feed::writable("log", 1 << 20, Lag::Skip);
    let publisher = feed.publisher().unwrap().clone();
    publisher.publish("chunk".into()).await.unwrap();
    let viewed = feed.clone();
    let server =
        TestServer::start(|builder, identity| App::new([feed], identity).authorize(tokens).install(builder)).await;
    let connection = server.connect().await;
    let open = async |token: &str| {
        let uri = server.uri("/stream/log?from=start&format=frames");
        let mut request = http::Request::get(uri).body(()).unwrap();
        request.headers_mut().extend(bearer(token));
        soon("a response", connection.request(request)).await.unwrap()
    };
    let (mut stays, mut goes) = (open(STAYS).await, open(GOES).await);
    crate::common::raw::until("both view", || viewed.status().viewers == 2).await;

    // Half of a line, as an editor may leave it: what was there before counts on.
    std::fs::write(&path, "read=log").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let status = async |token: &str| {
        let path = "/stream/log?from=start";
        ask(&server, Way::Http2, Method::GET, path, &bearer(token), "").await.status
    };
    assert_eq!(status(GOES).await, StatusCode::OK);

    // A new file in its place, as editors and Kubernetes write them.
    std::fs::write(folder.path().join("new"), format!("read=log {STAYS}\nread=log {COMES}\n")).unwrap();
    std::fs::rename(folder.path().join("new"), &path).unwrap();
    let mut read = Vec::new();
    while let Some(bytes) = soon("the end of what is revoked", goes.body.next()).await.unwrap() {
        read.extend_from_slice(&bytes);
    }
    assert!(read.ends_with(b"\x07\x00"), "{read:x?}");
    assert_eq!((status(STAYS).await, status(GOES).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    assert_eq!(status(COMES).await, StatusCode::OK);
    // The other one has not noticed.
    publisher.publish("another".into()).await.unwrap();
    let mut read = Vec::new();
    while !read.windows(7).any(|part| part == b"another") {
        let bytes = soon("its next chunk", stays.body.next()).await.unwrap().expect("it goes on");
        read.extend_from_slice(&bytes);
    }
}

#[cfg(all(feature = "cli", feature = "jwt"))]
mod served {
    use std::{
        io,
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Duration,
    };

    use h3cast::auth::{Access, Authorize, Denied};
    use http::Request;
    use serde_json::{Value, json};

    use super::*;

    /// What a URL would serve, and how often it was asked for.
    #[derive(Clone, Default)]
    struct Served {
        text: Arc<Mutex<Option<String>>>,
        asked: Arc<AtomicUsize>,
    }

    impl Served {
        fn set(&self, text: impl Into<Option<String>>) {
            *self.text.lock().unwrap() = text.into();
        }

        async fn tokens(&self) -> Tokens {
            let served = self.clone();
            let fetch = move || {
                served.asked.fetch_add(1, Ordering::Relaxed);
                let text = served.text.lock().unwrap().clone();
                let bytes = text.map(String::into_bytes).ok_or_else(|| io::Error::other("it does not answer"));
                let answer: futures_util::future::BoxFuture<'static, io::Result<Vec<u8>>> =
                    Box::pin(std::future::ready(bytes));
                answer
            };
            Tokens::new().keys_from("https://idp.example/jwks.json", fetch).await
        }
    }

    async fn access(tokens: &Tokens, token: &str) -> Result<Access, Denied> {
        let request = Request::get("/").header("authorization", format!("Bearer {token}")).body(()).unwrap();
        tokens.authorize(&request.into_parts().0).await
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_asked_for_again_when_one_is_not_known_at_a_bounded_rate() {
        let vectors: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
        let keys = vectors["jwks"]["keys"].as_array().unwrap();
        let of = |kid: &str| keys.iter().find(|key| key["kid"] == kid).unwrap().clone();
        let (first, both) = (json!({ "keys": [of("ES256")] }), json!({ "keys": [of("ES256"), of("EdDSA")] }));
        let (old, new) = (vectors["good"]["ES256"].as_str().unwrap(), vectors["good"]["EdDSA"].as_str().unwrap());
        let served = Served::default();
        // It does not answer at the start.
        let tokens = served.tokens().await;
        let _keeping = AbortOnDropHandle::new(tokio::spawn(tokens.clone().keep()));
        assert!(matches!(access(&tokens, old).await, Err(Denied::Unavailable(_))));
        assert!(tokens.unready().is_some());
        served.set(first.to_string());
        tokio::time::sleep(Duration::from_secs(11)).await;
        access(&tokens, old).await.unwrap();
        assert_eq!(tokens.unready(), None);
        let asked = || served.asked.load(Ordering::Relaxed);
        let before = asked();
        // A flood of tokens with keys that nobody has asks once in 10 s.
        for _ in 0..500 {
            assert!(matches!(access(&tokens, new).await, Err(Denied::Invalid(_))));
            tokio::time::sleep(Duration::from_millis(60)).await;
        }
        assert!((1..=4).contains(&(asked() - before)), "{}", asked() - before);
        // The keys are rotated: the first token of the new key is let in.
        tokio::time::sleep(Duration::from_secs(11)).await;
        served.set(both.to_string());
        access(&tokens, new).await.unwrap();
        // What is served is nonsense, or nothing: the keys stay.
        let page = "<html>This page is as long as a secret, and everyone can read it.</html>";
        let secret = "eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg";
        let secret = json!({ "keys": [{ "kty": "oct", "k": secret }] }).to_string();
        let empty = json!({ "keys": [] }).to_string();
        let (log, _logging) = crate::log::kept("info");
        for broken in [Some(page.to_owned()), Some("{}".to_owned()), Some(empty), Some(secret), None] {
            served.set(broken.clone());
            tokio::time::sleep(Duration::from_secs(700)).await;
            access(&tokens, old).await.unwrap();
            access(&tokens, new).await.unwrap();
            // Once, however often it is asked for.
            let log = log.take();
            let lines: Vec<_> =
                log.lines().filter(|line| line.contains("continuing with what was read before")).collect();
            let [line] = lines[..] else { panic!("{broken:?}: {log}") };
            assert!(line.contains("WARN") && line.contains("https://idp.example/jwks.json"), "{line}");
        }
        // And a key that is withdrawn does not count, once that is known.
        served.set(first.to_string());
        tokio::time::sleep(Duration::from_secs(700)).await;
        assert!(matches!(access(&tokens, new).await, Err(Denied::Invalid(_))));
        access(&tokens, old).await.unwrap();
    }
}
