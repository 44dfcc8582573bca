//! What files are served as.

use std::path::Path;

use http::{HeaderMap, Method, Request, StatusCode, Uri};

use crate::program::{Serving, soon};

struct Client {
    connection: h3cast::client::Connection,
    base: String,
}

impl Client {
    async fn of(serving: &Serving, dir: &Path) -> Self {
        let base = serving.url("");
        let trust = h3cast::client::Trust::Files(vec![dir.join("certs/cert.pem")]);
        let uri: Uri = format!("{base}/").parse().unwrap();
        let connection = soon("a connection", h3cast::client::Connection::open(&uri, &trust)).await.unwrap();
        Self { connection, base }
    }

    async fn ask(&self, method: Method, path: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.base).parse().unwrap();
        let mut response = soon("the head", self.connection.request(request)).await.unwrap();
        let mut body = Vec::new();
        while let Some(bytes) = soon("more", response.body.next()).await.unwrap() {
            body.extend_from_slice(&bytes);
        }
        (response.status, response.headers, body)
    }

    async fn get(&self, path: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        self.ask(Method::GET, path).await
    }
}

#[tokio::test]
async fn a_file_has_its_own_type() {
    let dir = tempfile::tempdir().unwrap();
    let files: [(&str, &[u8], &str); 7] = [
        ("notes", "zażółć 🦀\n".as_bytes(), "text/plain; charset=utf-8"),
        ("latin.txt", b"caf\xe9\n", "text/plain"),
        ("table.csv", b"a,b\n", "text/csv; charset=utf-8"),
        ("blob", b"\0\x01\x02\xff\xfe", "application/octet-stream"),
        ("shot", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        ("report.html", b"<!DOCTYPE html><script>1</script>", "text/html; charset=utf-8"),
        ("lines", b"<!DOCTYPE html><script>1</script>", "text/plain; charset=utf-8"),
    ];
    let mut sources = Vec::new();
    for (number, (name, content, _)) in files.iter().enumerate() {
        std::fs::write(dir.path().join(name), content).unwrap();
        sources.push(format!("f{number}=file:{name}"));
    }
    std::fs::write(dir.path().join("log.html"), "<p>\n").unwrap();
    sources.push("live=tail:log.html".into());
    let sources: Vec<_> = sources.iter().map(String::as_str).collect();
    let serving = Serving::start(dir.path(), 0, &sources).await;
    let client = Client::of(&serving, dir.path()).await;
    for (number, (name, content, media_type)) in files.iter().enumerate() {
        // Whole, in a part, and read as a feed.
        for (method, query) in
            [(Method::GET, ""), (Method::HEAD, ""), (Method::GET, "?limit=9"), (Method::HEAD, "?limit=9")]
        {
            let what = format!("{method} {name}{query}");
            let path = format!("/stream/f{number}{query}");
            let (status, headers, body) = client.ask(method.clone(), &path).await;
            assert_eq!(status, StatusCode::OK, "{what}");
            assert_eq!(headers["content-type"], media_type, "{what}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{what}");
            // A document that runs scripts is none of our page's origin.
            let policy = headers.get("content-security-policy").map(|policy| policy.to_str().unwrap());
            assert_eq!(policy, name.ends_with(".html").then_some("sandbox allow-scripts"), "{what}");
            if method == Method::GET {
                assert_eq!(&body, content, "{what}");
            }
        }
        let (_, headers, _) = client.get(&format!("/stream/f{number}?format=sse&from=start")).await;
        assert_eq!(headers["content-type"], "text/event-stream; charset=utf-8");
    }
    // A feed is no file: its bytes are text, whatever it is called.
    let (_, headers, _) = client.ask(Method::HEAD, "/stream/live").await;
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
}

#[tokio::test]
async fn a_folder_of_the_user() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page");
    for (name, content) in [
        ("index.html", "<script src=\"https://elsewhere.example/x.js\"></script>"),
        (".env", "SECRET=1"),
        (".git/config", "secret"),
        ("sub/.htpasswd", "secret"),
        (".well-known/security.txt", "Contact: mailto:a@b.example\n"),
        ("a b.txt", "a space"),
    ] {
        let path = page.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    std::fs::write(page.join("latin.txt"), b"caf\xe9").unwrap();
    assert!(std::process::Command::new("mkfifo").arg(page.join("pipe")).status().unwrap().success());
    let serving = Serving::start(dir.path(), 0, &["--static", "page"]).await;
    let client = Client::of(&serving, dir.path()).await;
    let (status, headers, _) = client.get("/").await;
    assert_eq!((status, &headers["content-type"]), (StatusCode::OK, &"text/html; charset=utf-8".parse().unwrap()));
    // What we allow our page is not for that of others to keep to.
    for name in ["content-security-policy", "cross-origin-opener-policy", "referrer-policy"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(client.get("/a%20b.txt").await.0, StatusCode::OK);
    assert_eq!(client.get("/latin.txt").await.1["content-type"], "text/plain");
    assert_eq!(client.get("/.well-known/security.txt").await.0, StatusCode::OK);
    for path in [
        "/.env",
        "/%2eenv",
        "/%2Eenv",
        "/.git/config",
        "/%2egit/config",
        "/sub/.htpasswd",
        "/sub/%2ehtpasswd",
        "/sub%2f.htpasswd",
    ] {
        let (status, _, body) = client.get(path).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
        assert!(!String::from_utf8_lossy(&body).contains("secret"), "{path}");
    }
    // Nobody writes to it: it is not waited for.
    assert_eq!(client.get("/pipe").await.0, StatusCode::NOT_FOUND);
    // The page of ours has all of them.
    let serving = Serving::start(dir.path(), 0, &["demo"]).await;
    let client = Client::of(&serving, dir.path()).await;
    let (_, headers, _) = client.get("/").await;
    for name in ["content-security-policy", "cross-origin-opener-policy", "referrer-policy"] {
        assert!(headers.contains_key(name), "{name}");
    }
}
