//! `--output`, cut off and resumed.

use std::sync::Arc;

use axum::{Router, body::Body, extract::Request, response::Response, routing::get};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{StatusCode, header};

use crate::{
    common::TestServer,
    leave, noise,
    program::{Program, Serving, output, text},
    until_len,
};

/// A server of one resource that records what it is asked for, and breaks off at the given places.
async fn resource(content: Arc<Vec<u8>>, cuts: Vec<usize>) -> (TestServer, Arc<std::sync::Mutex<Vec<String>>>) {
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = asked.clone();
    let cuts = Arc::new(std::sync::Mutex::new(cuts));
    let server = TestServer::start(|builder, _| {
        let answer = move |request: Request| {
            let (content, cuts, log) = (content.clone(), cuts.clone(), log.clone());
            async move {
                let of = |name| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
                let (range, if_range) = (of(header::RANGE), of(header::IF_RANGE));
                log.lock().unwrap().push(format!("{range} {if_range}"));
                let start = range.strip_prefix("bytes=").filter(|_| if_range == "\"v1\"");
                let start: usize = start.map_or(0, |range| range.trim_end_matches('-').parse().unwrap());
                let head = Response::builder().header(header::ACCEPT_RANGES, "bytes").header(header::ETAG, "\"v1\"");
                if start >= content.len() {
                    let range = format!("bytes */{}", content.len());
                    let head = head.status(StatusCode::RANGE_NOT_SATISFIABLE).header(header::CONTENT_RANGE, range);
                    return head.body(Body::empty()).unwrap();
                }
                let rest = content.len() - start;
                let head = head.header(header::CONTENT_LENGTH, rest).status(if start > 0 { 206 } else { 200 });
                let head = match start {
                    0 => head,
                    _ => {
                        let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                        head.header(header::CONTENT_RANGE, range)
                    }
                };
                let cut = cuts.lock().unwrap().pop();
                let until = cut.unwrap_or(content.len());
                let body = Bytes::copy_from_slice(&content[start..until]);
                match cut {
                    // It does not go on, and does not end either: the reader has all that was sent.
                    Some(_) => head
                        .body(Body::from_stream(
                            stream::once(async { Ok::<_, std::io::Error>(body) }).chain(stream::pending()),
                        ))
                        .unwrap(),
                    None => head.body(body.into()).unwrap(),
                }
            }
        };
        builder.http_service(Router::new().route("/file", get(answer)))
    })
    .await;
    (server, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_killed_goes_on_where_it_was() {
    let content = noise(300_000);
    // From the end: the second run is cut at 200,000.
    let (server, asked) = resource(content.clone(), vec![200_000, 100_000]).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/file", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "--resume", "-o", "out", &url];
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("out"), "as it was").unwrap();
    for len in [100_000, 200_000] {
        let get = Program::start(dir.path(), &args);
        until_len(&path("out.part"), len).await;
        get.kill().await;
        assert_eq!(std::fs::read(path("out")).unwrap(), b"as it was");
        let mut sidecar: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path("out.part.json")).unwrap()).unwrap();
        assert!(sidecar.as_object_mut().unwrap().remove("file").is_some());
        let expected =
            serde_json::json!({ "created_by": "h3cast get", "url": url, "etag": "\"v1\"", "length": 300_000 });
        assert_eq!(sidecar, expected);
    }
    let got = output(dir.path(), &args).await;
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    assert_eq!(std::fs::read(path("out")).unwrap(), *content);
    assert!(!path("out.part").exists() && !path("out.part.json").exists());
    let seen = std::mem::take(&mut *asked.lock().unwrap());
    assert_eq!(seen, ["- -", "bytes=100000- \"v1\"", "bytes=200000- \"v1\""]);
    // All of it is there, and only the name is missing.
    std::fs::rename(path("out"), path("out.part")).unwrap();
    let sidecar = serde_json::json!({ "url": url, "etag": "\"v1\"", "length": 300_000 });
    leave(&path("out.part"), None, sidecar.clone());
    assert_eq!(output(dir.path(), &args).await.status.code(), Some(0));
    assert_eq!(std::fs::read(path("out")).unwrap(), *content);
    // Of another version, and of nobody knows what.
    let other = serde_json::json!({ "url": url, "etag": "\"v0\"", "length": 300_000 });
    for (sidecar, told) in [
        (other, "it has changed"),
        (serde_json::json!({ "url": "x", "etag": "\"v1\"", "length": 9 }), "does not belong to"),
    ] {
        leave(&path("out.part"), Some(b"other"), sidecar);
        let got = output(dir.path(), &args).await;
        assert!(text(&got.stderr).contains(told), "{}", text(&got.stderr));
        assert_eq!(got.status.code(), Some(0));
        assert_eq!(std::fs::read(path("out")).unwrap(), *content);
    }
}

/// Of the same length and time too, as `rsync -t` and package managers leave it.
#[tokio::test(flavor = "multi_thread")]
async fn a_download_is_never_continued_in_another_version() {
    let dir = tempfile::tempdir().unwrap();
    let write = |content: &[u8]| {
        let path = dir.path().join("big");
        std::fs::write(&path, content).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let old = noise(300_000);
    let new: Vec<u8> = old.iter().map(|byte| byte ^ 0xff).collect();
    write(&old);
    let server = Serving::start(dir.path(), 0, &["big=file:big"]).await;
    let url = server.url("/stream/big");
    let got = output(dir.path(), &["get", "-v", "--resume", "-o", "out", &url]).await;
    let told = text(&got.stderr);
    let of = |name: &str| {
        told.lines().find_map(|line| line.split_once(&format!("< {name}: "))).map(|(_, value)| value.to_owned())
    };
    let sidecar = serde_json::json!({
        "url": url, "etag": of("etag"), "last_modified": of("last-modified"), "length": old.len()
    });
    write(&new);
    leave(&dir.path().join("new.part"), Some(&old[..100_000]), sidecar);
    let got = output(dir.path(), &["get", "--resume", "-o", "new", &url]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(std::fs::read(dir.path().join("new")).unwrap() == new, "{}", text(&got.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_breaks_off_goes_on_in_the_same_run() {
    let dir = tempfile::tempdir().unwrap();
    let content = noise(3_000_000);
    std::fs::write(dir.path().join("big"), &*content).unwrap();
    let first = Serving::start(dir.path(), 0, &["big=file:big", "--grace", "0s"]).await;
    // A sidecar as an earlier run has left it.
    let (port, url) = (first.port, first.url("/stream/big"));
    let got = output(dir.path(), &["get", "-v", "--resume", "-o", "out", &url]).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), *content);
    first.program.kill().await;
    // The server comes later, and is the same for the client.
    let told = text(&got.stderr);
    let of = |name: &str| {
        told.lines().find_map(|line| line.split_once(&format!("< {name}: "))).map(|(_, value)| value.to_owned())
    };
    let sidecar = serde_json::json!({
        "url": url, "etag": of("etag"), "last_modified": of("last-modified"), "length": content.len()
    });
    leave(&dir.path().join("new.part"), Some(&content[..1_000_000]), sidecar.clone());
    let mut get = Program::start(dir.path(), &["get", "-v", "--resume", "-o", "new", &url]);
    get.told("no answer from").await;
    let second = Serving::start(dir.path(), port, &["big=file:big"]).await;
    get.told("HTTP/3 206").await;
    get.told("resuming after 1000000 bytes").await;
    assert_eq!(get.end().await.2, Some(0));
    assert_eq!(std::fs::read(dir.path().join("new")).unwrap(), *content);
    // A file that was written anew in between comes from its beginning.
    std::fs::rename(dir.path().join("new"), dir.path().join("new.part")).unwrap();
    let changed = serde_json::from_str(&sidecar.to_string().replace("GMT", "GMT+1")).unwrap();
    leave(&dir.path().join("new.part"), None, changed);
    let got = output(dir.path(), &["get", "--resume", "-o", "new", &url]).await;
    assert!(text(&got.stderr).contains("it has changed: starting again"), "{}", text(&got.stderr));
    assert_eq!(std::fs::read(dir.path().join("new")).unwrap(), *content);
    drop(second);
}

/// Whether `--resume` was given in the first run does not matter to the second one.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_without_resume_is_resumed() {
    let content = noise(300_000);
    let (server, asked) = resource(content.clone(), vec![100_000]).await;
    let dir = tempfile::tempdir().unwrap();
    let (cert, url) = (server.certificate(), format!("{}/file", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    let get = Program::start(dir.path(), &args);
    until_len(&dir.path().join("out.part"), 100_000).await;
    get.signal("INT");
    let (_, told, code) = get.end().await;
    assert_eq!((told.as_str(), code), ("h3cast: what has come is in out.part\nh3cast: interrupted\n", Some(130)));
    let got = output(dir.path(), &[&args[..], &["--resume"]].concat()).await;
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), *content);
    assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), ["- -", "bytes=100000- \"v1\""]);
    // Replaced by another run, the part of which can be resumed as well.
    let (server, _) = resource(content.clone(), vec![200_000, 100_000]).await;
    let (cert, url) = (server.certificate(), format!("{}/file", server.base));
    let args = ["get", "--cacert", cert.to_str().unwrap(), "-o", "out", &url];
    for (len, expected) in
        [(100_000, ""), (200_000, "out.part of an earlier run is replaced; --resume would continue it")]
    {
        let mut get = Program::start(dir.path(), &args);
        if !expected.is_empty() {
            get.told(expected).await;
        }
        until_len(&dir.path().join("out.part"), len).await;
        get.signal("INT");
        assert_eq!(get.end().await.2, Some(130));
    }
    let got = output(dir.path(), &[&args[..], &["--resume"]].concat()).await;
    assert_eq!((text(&got.stderr).as_str(), got.status.code()), ("", Some(0)));
    assert_eq!(std::fs::read(dir.path().join("out")).unwrap(), *content);
}
