//! Percent-encoding in paths (RFC 3986 §6.2.2).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use h3cast::{
    App,
    client::ClientError,
    feed::{Feed, Lag},
    source::demo,
    webtransport::SessionRequest,
};
use http::{HeaderMap, Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    clients::{ALL, Answer, At, Over, ask, raw},
    common::{TestServer, soon},
};

#[tokio::test]
async fn letters_may_be_encoded() {
    let feeds = [demo::feed("l-o.g", 1, Duration::ZERO), Feed::writable("chat", 1 << 20, Lag::Skip)];
    let server = TestServer::start(|builder, identity| App::new(feeds, identity).install(builder)).await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        for path in ["/stream/l-o.g", "/%73tream/l-o.g", "/stream/l%2do%2E%67", "/%73%74%72%65%61%6D/%6C-o.g?limit=%31"]
        {
            let got = ask(&at, over, Method::GET, path, &[]).await;
            assert_eq!((got.status, got.text().as_str()), (StatusCode::OK, "data chunk #0\n"), "{over:?} {path}");
        }
        assert_eq!(ask(&at, over, Method::POST, "/stream/ch%61t", &[]).await.status, StatusCode::OK);
        assert_eq!(ask(&at, over, Method::GET, "/inf%6F", &[]).await.status, StatusCode::OK);
        assert_eq!(ask(&at, over, Method::GET, "/%69ndex.html", &[]).await.status, StatusCode::OK);
        for path in ["/stream%2Fl-o.g", "/stream/l%2Fo", "/stream/%FF", "/stream/%00", "/stream/l%252do.g", "/stream/%"]
        {
            let got = ask(&at, over, Method::GET, path, &[]).await;
            assert_eq!(got.status, StatusCode::NOT_FOUND, "{over:?} {path}: {}", got.text());
        }
    }
    let connection = server.connect().await;
    let open =
        async |path: &str| soon("the answer", connection.webtransport(&server.uri(path), HeaderMap::new(), &[])).await;
    open("/%73tream/l%2Do.g").await.unwrap();
    let Err(ClientError::Refused { status, .. }) = open("/stream/l%2Fo").await else { panic!("it was accepted") };
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_session_finds_its_handler() {
    let server = TestServer::start(|builder, _| {
        builder.webtransport("/chat", async |request: SessionRequest| {
            if let Ok(session) = request.accept().await {
                session.closed().await;
            }
        })
    })
    .await;
    let connection = server.connect().await;
    soon("a session", connection.webtransport(&server.uri("/ch%61t"), HeaderMap::new(), &[])).await.unwrap();
}

#[tokio::test]
async fn files_of_a_folder_may_have_any_name_and_nothing_outside_of_it_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page");
    std::fs::create_dir_all(page.join("a b")).unwrap();
    for (name, text) in
        [("index.html", "index"), ("ü ber.html", "umlaut"), ("a b/c.txt", "space"), ("100%.txt", "percent")]
    {
        std::fs::write(page.join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("secret.txt"), "secret").unwrap();
    let feeds = [demo::feed("default", 1, Duration::ZERO)];
    let server =
        TestServer::start(|builder, identity| App::new(feeds, identity).static_dir(page.clone()).install(builder))
            .await;
    let certificate = server.certificate();
    let at = At::of(&server, &certificate);
    for over in ALL {
        for (path, text) in [
            ("/", "index"),
            ("/%C3%BC%20ber.html", "umlaut"),
            ("/a%20b/c.txt", "space"),
            ("/a%20b/%63.txt", "space"),
            ("/100%25.txt", "percent"),
        ] {
            let got = ask(&at, over, Method::GET, path, &[]).await;
            assert_eq!((got.status, got.text().as_str()), (StatusCode::OK, text), "{over:?} {path}");
        }
    }
    for path in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/a%20b/../../secret.txt",
        "/a%20b/%2e%2e/%2e%2e/secret.txt",
        "/a%20b/..%2f..%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "//etc/passwd",
        "/%2Fetc%2Fpasswd",
        "/index.html%00",
        "/index.html%00.txt",
        "/%C0%AE%C0%AE/secret.txt",
        "/index.html/..",
        "/.",
    ] {
        for over in [Over::Http2, Over::Http3] {
            let got = ask(&at, over, Method::GET, path, &[]).await;
            assert_eq!(got.status, StatusCode::NOT_FOUND, "{over:?} {path}: {}", got.text());
        }
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = raw(server.http_port(), request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("root:"), "{path}: {answer}");
    }
}

/// A server whose page is that folder, and its certificate.
async fn folder(dir: &Path) -> (TestServer, PathBuf) {
    let (page, feeds) = (dir.to_owned(), [demo::feed("default", 1, Duration::ZERO)]);
    let server =
        TestServer::start(|builder, identity| App::new(feeds, identity).static_dir(page).install(builder)).await;
    let certificate = server.certificate();
    (server, certificate)
}

#[tokio::test]
async fn files_of_a_folder_may_change() {
    let dir = tempfile::tempdir().unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    std::fs::write(dir.path().join("large.bin"), &large).unwrap();
    std::fs::write(dir.path().join("empty.txt"), "").unwrap();
    let (server, certificate) = folder(dir.path()).await;
    let at = At::of(&server, &certificate);
    for over in ALL {
        for (path, bytes) in [("/large.bin", &large[..]), ("/empty.txt", b"")] {
            let got = ask(&at, over, Method::GET, path, &[]).await;
            assert_eq!((got.status, got.body[..] == *bytes), (StatusCode::OK, true), "{over:?} {path}");
            assert_eq!(got.headers["content-length"], bytes.len().to_string());
            let head = ask(&at, over, Method::HEAD, path, &[]).await;
            assert_eq!((head.body.len(), &head.headers["content-length"]), (0, &got.headers["content-length"]));
            // Where the system notes when a file was changed.
            #[cfg(unix)]
            {
                let tag = got.headers["etag"].to_str().unwrap();
                let again = ask(&at, over, Method::GET, path, &[("if-none-match", tag)]).await;
                assert_eq!((again.status, again.body.len()), (StatusCode::NOT_MODIFIED, 0));
            }
        }
    }
}

/// As `touch -d @1`, `rsync -t` and package managers leave files: the time of the last change says nothing.
#[tokio::test]
async fn a_changed_file_of_the_same_length_and_time_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("page.txt");
    let write = |path: &Path, text: &str| {
        std::fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    };
    write(&path, "old");
    let (server, certificate) = folder(dir.path()).await;
    let at = At::of(&server, &certificate);
    let tag = |answer: &Answer| answer.headers.get("etag").map(|tag| tag.to_str().unwrap().to_owned());
    let before = ask(&at, ALL[0], Method::GET, "/page.txt", &[]).await;
    let changes: [(&str, &dyn Fn()); 2] = [
        ("new", &|| write(&path, "new")),
        // Another file at its place.
        ("one", &|| {
            write(&dir.path().join("other"), "one");
            std::fs::rename(dir.path().join("other"), &path).unwrap();
        }),
    ];
    let mut known = tag(&before).unwrap_or("W/\"none\"".into());
    for (text, change) in changes {
        change();
        let after = ask(&at, ALL[0], Method::GET, "/page.txt", &[("if-none-match", &known)]).await;
        assert_eq!((after.status, after.text().as_str()), (StatusCode::OK, text));
        known = tag(&after).unwrap_or(known);
    }
}

/// They are read piece by piece as the client takes them: what a file has lost meanwhile is missing, and the
/// answer is cut. One that was read first would be whole.
#[tokio::test]
async fn files_of_a_folder_are_not_read_before_they_are_sent() {
    const LENGTH: u64 = 256 << 20;
    let dir = tempfile::tempdir().unwrap();
    // It has no content on the disk.
    let file = std::fs::File::create(dir.path().join("huge.bin")).unwrap();
    let (server, _certificate) = folder(dir.path()).await;
    file.set_len(LENGTH).unwrap();

    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri("/huge.bin"))).await.unwrap();
    assert_eq!(response.headers["content-length"], LENGTH.to_string());
    soon("a piece", response.body.next()).await.unwrap().unwrap();
    file.set_len(1).unwrap();
    let mut got = 0;
    let cut = loop {
        match soon("more", response.body.next()).await {
            Ok(Some(piece)) => got += piece.len() as u64,
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(cut && got < LENGTH / 2, "HTTP/3: {got} bytes, cut: {cut}");

    file.set_len(LENGTH).unwrap();
    let mut stream = soon("a connection", TcpStream::connect(("127.0.0.1", server.http_port()))).await.unwrap();
    stream.write_all(b"GET /huge.bin HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 4096];
    soon("the head", stream.read_exact(&mut answer)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains(&format!("content-length: {LENGTH}\r\n")));
    file.set_len(1).unwrap();
    let mut rest = Vec::new();
    let _ = soon("the end of the connection", stream.read_to_end(&mut rest)).await;
    assert!((rest.len() as u64) < LENGTH / 2, "HTTP/1.1: {} bytes", rest.len());
}
