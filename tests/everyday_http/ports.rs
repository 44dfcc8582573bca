//! A server whose ports are mapped tells clients the port that they use, or what it is told to tell them.

use std::time::Duration;

use h3cast::{App, server::Advertise, source::demo};
use http::{Method, StatusCode};
use serde_json::Value;

use crate::{
    clients::{Answer, At, Over, ask},
    common::TestServer,
    program::output,
};

async fn server(advertise: Option<&str>) -> TestServer {
    let advertise: Option<Advertise> = advertise.map(|text| text.parse().unwrap());
    TestServer::start(|builder, identity| {
        let feeds = ["default", "log"].map(|name| demo::feed(name, 1, Duration::ZERO));
        App::new(feeds, identity).install(builder.advertise(advertise))
    })
    .await
}

/// What `/info`, the page's policy and `Alt-Svc` name.
async fn told(at: &At<'_>, over: Over) -> (String, String, Option<String>) {
    let info = ask(at, over, Method::GET, "/info", &[]).await;
    assert_eq!(info.status, StatusCode::OK, "{}", info.text());
    let json: Value = serde_json::from_slice(&info.body).unwrap();
    let base = json["http3"]["url"].as_str().unwrap().strip_suffix('/').unwrap().to_owned();
    let urls = [&json["webtransport"]["url"], &json["feeds"][0]["url"], &json["feeds"][1]["url"]];
    assert_eq!(
        urls.map(|url| url.as_str().unwrap().to_owned()),
        ["", "", "/log"].map(|end| format!("{base}/stream{end}"))
    );
    assert!(json["chrome"].as_str().unwrap().contains(&format!("{base}/")), "{json}");
    let page = ask(at, over, Method::GET, "/", &[]).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    let connect = policy.split("connect-src 'self' ").nth(1).unwrap().split(';').next().unwrap().to_owned();
    let alternative = |answer: &Answer| answer.headers.get("alt-svc").map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(alternative(&info), alternative(&page));
    (base, connect, alternative(&info))
}

fn h3(authority: &str) -> Option<String> {
    Some(format!("h3=\"{authority}\"; ma=86400"))
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_the_port_that_they_use() {
    let server = server(None).await;
    let certificate = server.certificate();
    for (authority, base, port) in [
        ("cast.example:8443".to_owned(), "https://cast.example:8443".to_owned(), 8443),
        ("localhost:4431".into(), "https://localhost:4431".into(), 4431),
        ("cast.example".into(), "https://cast.example".into(), 443),
        ("[::1]:8443".into(), "https://[::1]:8443".into(), 8443),
        (format!("localhost:{}", server.port()), server.base.clone(), server.port()),
    ] {
        let at = At { authority, ..At::of(&server, &certificate) };
        for over in [Over::Http1, Over::Http2] {
            let expected = (base.clone(), base.clone(), h3(&format!(":{port}")));
            assert_eq!(told(&at, over).await, expected, "{over:?} {}", at.authority);
        }
        assert_eq!(told(&at, Over::Http3).await, (base.clone(), base.clone(), None), "{}", at.authority);
    }
    // Over plain HTTP nothing says by which port this machine reaches TLS: ours.
    let at = At::of(&server, &certificate);
    assert_eq!(told(&at, Over::PlainHttp1).await, (server.base.clone(), server.base.clone(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_advertised_counts() {
    let whole = server(Some("cast.example:8443")).await;
    let certificate = whole.certificate();
    let base = "https://cast.example:8443".to_owned();
    for (authority, alternative) in [("cast.example:1", ":8443"), ("localhost:4433", "cast.example:8443")] {
        let at = At { authority: authority.into(), ..At::of(&whole, &certificate) };
        assert_eq!(told(&at, Over::Http2).await, (base.clone(), base.clone(), h3(alternative)));
        assert_eq!(told(&at, Over::Http3).await, (base.clone(), base.clone(), None));
    }
    let at = At::of(&whole, &certificate);
    assert_eq!(told(&at, Over::PlainHttp1).await, (base.clone(), base.clone(), None));

    let port = server(Some(":443")).await;
    let certificate = port.certificate();
    let at = At { authority: "cast.example:1".into(), ..At::of(&port, &certificate) };
    let base = "https://cast.example".to_owned();
    assert_eq!(told(&at, Over::Http1).await, (base.clone(), base, h3(":443")));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_advertised_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in ["cast.example", "https://cast.example:443", "cast.example:0", "cast.example:99999", ":"] {
        let got = output(dir.path(), &["--listen", "localhost:0", "--http", "off", "--advertise", wrong]).await;
        let said = String::from_utf8_lossy(&got.stderr).into_owned();
        assert!(got.status.code() == Some(2) && said.contains("HOST:PORT"), "{wrong}: {said}");
    }
}

/// The released program takes it, and has a certificate for that name.
#[tokio::test(flavor = "multi_thread")]
async fn the_program_advertises() {
    let dir = tempfile::tempdir().unwrap();
    let serving = crate::program::Serving::start(dir.path(), 0, &["demo", "--advertise", "cast.example:8443"]).await;
    let certificate = dir.path().join("certs/cert.pem");
    let authority = "cast.example:8443".to_owned();
    let at = At { port: serving.port, http_port: 0, certificate: &certificate, authority };
    let info = ask(&at, Over::Http2, Method::GET, "/info", &[("origin", "https://cast.example:8443")]).await;
    let json: Value = serde_json::from_slice(&info.body).unwrap();
    assert_eq!(json["webtransport"]["url"], "https://cast.example:8443/stream");
    assert_eq!(info.headers["access-control-allow-origin"], "https://cast.example:8443");
}
