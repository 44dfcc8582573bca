//! Which pages a browser may publish for with a cookie: those of the site itself, also behind a proxy.

use h3cast::{
    App,
    auth::Tokens,
    feed::{Feed, Lag},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{TestServer, soon};

/// As nginx forwards by `docs/load-balancing`, as Caddy does, and as a proxy that does not tell the scheme.
const NGINX: &str =
    "host: localhost\r\nx-forwarded-host: cast.example\r\nx-forwarded-proto: https\r\nx-forwarded-for: 192.0.2.7\r\n";
const CADDY: &str = "host: cast.example\r\nvia: 1.1 Caddy\r\nx-forwarded-host: cast.example\r\nx-forwarded-proto: https\r\nx-forwarded-for: 192.0.2.7\r\n";
const TERSE: &str = "host: localhost\r\nx-forwarded-host: cast.example\r\nx-forwarded-for: 192.0.2.7\r\n";
const DIRECT: &str = "host: localhost\r\n";

const TOKEN: &str = "a-token-that-writes-log";

#[tokio::test]
async fn a_cookie_counts_for_the_page_of_the_site_that_the_proxy_serves() {
    let server = TestServer::start(|builder, identity| {
        let tokens = Tokens::new().lines(&format!("read=* publish=log {TOKEN}\n")).unwrap();
        let app = App::new([Feed::writable("log", 1 << 20, Lag::Skip)], identity).authorize(tokens);
        app.install(builder).trust_proxy("loopback".parse().unwrap())
    })
    .await;
    for (way, origin, site, may) in [
        (NGINX, Some("https://cast.example"), None, true),
        (NGINX, Some("https://cast.example:443"), None, true),
        (NGINX, Some("https://cast.example"), Some("same-origin"), true),
        (NGINX, None, Some("same-origin"), true),
        (NGINX, None, Some("same-site"), false),
        (NGINX, None, Some("none"), false),
        (NGINX, None, None, false),
        // Of a program on the user's machine, which has the name that the proxy gives us.
        (NGINX, Some("https://localhost"), Some("cross-site"), false),
        (NGINX, Some("http://localhost"), Some("cross-site"), false),
        (NGINX, Some("https://localhost"), None, false),
        (NGINX, Some("http://localhost"), None, false),
        (NGINX, Some("https://cast.example:8443"), None, false),
        (NGINX, Some("https://cast.example"), Some("cross-site"), false),
        (CADDY, Some("https://cast.example"), None, true),
        (CADDY, Some("https://cast.example"), Some("same-origin"), true),
        // Of whoever is in the network between: it is the same host without TLS.
        (CADDY, Some("http://cast.example"), None, false),
        (CADDY, Some("http://cast.example"), Some("cross-site"), false),
        (TERSE, Some("https://localhost"), None, false),
        (DIRECT, Some("http://localhost"), None, true),
        (DIRECT, Some("https://localhost"), None, false),
        (DIRECT, Some("http://localhost"), Some("same-site"), false),
    ] {
        let field =
            |name: &str, value: Option<&str>| value.map(|value| format!("{name}: {value}\r\n")).unwrap_or_default();
        let browser = field("origin", origin) + &field("sec-fetch-site", site);
        let head = format!(
            "POST /stream/log HTTP/1.1\r\n{way}{browser}cookie: h3cast_token={TOKEN}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
        );
        let mut stream = TcpStream::connect(("127.0.0.1", server.http_port())).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        assert_eq!(status, if may { "200" } else { "403" }, "{way}{browser}{answer}");
    }
}
