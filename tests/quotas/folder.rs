//! A user's page of large files: sent in pieces, as it is asked for.

use std::{fs::File, path::Path};

use axum::{Router, body::Body, response::Response};
use futures_util::StreamExt;
use h3cast::{App, app::Page, source::demo};
use http::{Method, Request, header};
use tower::ServiceExt;

use crate::{common::soon, serving::Serving};

const LENGTH: u64 = 1 << 30;

/// A large file that takes no room.
fn sparse(path: &Path) {
    File::create(path).unwrap().set_len(LENGTH).unwrap();
}

/// How many bytes the process has read by now, of files and sockets.
#[cfg(target_os = "linux")]
fn read_by(serving: &Serving) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{}/io", serving.id())).unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

/// One file of 1 GiB, 50 clients that do not read it, and others that have it or ask about it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn large_files_are_neither_read_nor_held_whole() {
    let serving = Serving::start(|dir| {
        sparse(&dir.join("large.bin"));
        sparse(&dir.join("large.txt"));
        vec!["demo".to_owned(), "--static".into(), dir.display().to_string()]
    });
    let connection = serving.connect().await;
    let ask = async |method: Method, path: &str, tag: Option<&http::HeaderValue>| {
        let mut request = Request::builder().method(method).uri(serving.uri(path)).body(()).unwrap();
        request.headers_mut().extend(tag.map(|tag| (header::IF_NONE_MATCH, tag.clone())));
        soon("the head", connection.request(request)).await.unwrap()
    };
    for path in ["/large.bin", "/large.txt"] {
        // A text's first bytes tell its encoding.
        let (heads, least) = if path == "/large.bin" { (100, 100 << 10) } else { (10, 10 * (17 << 10) + (100 << 10)) };
        let before = read_by(&serving);
        let mut tag = None;
        for _ in 0..heads {
            let head = ask(Method::HEAD, path, None).await;
            assert_eq!(
                (head.status.as_u16(), &head.headers["content-length"]),
                (200, &LENGTH.to_string().parse().unwrap())
            );
            assert!(head.headers.contains_key("last-modified") && head.headers.contains_key("content-type"));
            tag = Some(head.headers["etag"].clone());
        }
        for _ in 0..100 {
            assert_eq!(ask(Method::GET, path, tag.as_ref()).await.status, 304);
        }
        let read = read_by(&serving) - before;
        assert!(read < least, "{path}: {read} bytes were read");
    }
    let before = serving.memory();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let connection = serving.connect().await;
        let mut response = soon("the head", connection.get(&serving.uri("/large.bin"))).await.unwrap();
        assert!(soon("its beginning", response.body.next()).await.unwrap().is_some());
        slow.push((connection, response));
    }
    let grown = serving.memory().saturating_sub(before);
    println!("50 clients that do not read: {} KiB", grown >> 10);
    // 60 KiB a connection, and 64 KiB that were read of the file, twice.
    assert!(grown < 50 << 20, "grown by {grown} bytes");
    drop(slow);
    serving.stop();
}

async fn ask(router: &Router, headers: &[(header::HeaderName, &str)]) -> Response {
    let mut request = Request::get("/a.txt").header(header::HOST, "localhost");
    for (name, value) in headers {
        request = request.header(name, *value);
    }
    router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

fn router(dir: &Path) -> Router {
    App::without_identity([demo::feed("default", 1, Default::default())]).page(Page::folder(dir)).router()
}

#[tokio::test]
async fn parts_of_a_file_and_conditions() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.txt"), "0123456789").unwrap();
    let router = router(dir.path());
    let whole = ask(&router, &[]).await;
    let header = |name| whole.headers()[name].to_str().unwrap().to_owned();
    let (tag, modified) = (header(header::ETAG), header(header::LAST_MODIFIED));
    assert_eq!(
        (header(header::CONTENT_TYPE).as_str(), header(header::CONTENT_LENGTH).as_str()),
        ("text/plain; charset=utf-8", "10")
    );
    assert_eq!(text(whole).await, "0123456789");
    use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
    for (headers, status, body) in [
        (&[(RANGE, "bytes=2-4")][..], 206, "234"),
        (&[(RANGE, "bytes=-3")], 206, "789"),
        (&[(RANGE, "bytes=2-4"), (IF_RANGE, &tag)], 206, "234"),
        (&[(RANGE, "bytes=2-4"), (IF_RANGE, "\"other\"")], 200, "0123456789"),
        (&[(RANGE, "lines=2-4")], 200, "0123456789"),
        (&[(IF_NONE_MATCH, &tag)], 304, ""),
        (&[(IF_NONE_MATCH, "\"other\"")], 200, "0123456789"),
        (&[(IF_MODIFIED_SINCE, &modified)], 304, ""),
    ] {
        let response = ask(&router, headers).await;
        assert_eq!(response.status(), status, "{headers:?}");
        assert_eq!(response.headers().get(header::ACCEPT_RANGES).map(|value| value.as_bytes()), Some(&b"bytes"[..]));
        assert_eq!(text(response).await, body, "{headers:?}");
    }
    assert_eq!(ask(&router, &[(RANGE, "bytes=10-")]).await.status(), 416);
    assert_eq!(ask(&router, &[(IF_MATCH, "\"other\"")]).await.status(), 412);
}

/// It is not taken for a whole one.
#[tokio::test]
async fn a_file_that_becomes_shorter_while_it_is_sent_breaks_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    for left in [0, 1 << 19] {
        std::fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        let mut body = ask(&router(dir.path()), &[]).await.into_body().into_data_stream();
        let mut received = body.next().await.unwrap().unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
        let error = loop {
            match body.next().await {
                Some(Ok(more)) => received += more.len(),
                other => break other,
            }
        };
        assert!(matches!(error, Some(Err(_))), "{received} of {} bytes, and a clean end", 1 << 20);
    }
    // One that grows is sent as long as it was.
    std::fs::write(&path, "as it was").unwrap();
    let response = ask(&router(dir.path()), &[]).await;
    std::io::Write::write_all(&mut File::options().append(true).open(&path).unwrap(), b", and more").unwrap();
    assert_eq!(text(response).await, "as it was");
}
