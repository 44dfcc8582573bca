//! Commands that run for one viewer each: how many, and for whom.

use std::net::Ipv4Addr;

use futures_util::future::join_all;
use h3cast::{
    App,
    feed::Feed,
    source::{Options, Source, command::Commands},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};

use crate::common::{TestServer, soon};

/// Prints its process id, and stays after its viewer has left for as long as it likes, or until it is killed.
const STAYS: &str = "exec:trap '' TERM; echo pid $$; while :; do sleep 0.05; done";
const ENDS: &str = "exec:echo $$; exec sleep 1000";

async fn server(command: &str, all: usize, each: usize) -> (TestServer, Commands) {
    let commands = Commands::default().for_viewers(all, each);
    let mut options = Options::default();
    (options.per_viewer, options.commands) = (true, commands.clone());
    let source: Source = command.parse().unwrap();
    let feed: Feed = source.start(&options).await.unwrap().feed.unwrap();
    let origins = ["https://allowed.example".parse().unwrap()].into_iter().collect();
    let shown = commands.clone();
    let server = TestServer::start(|builder, identity| {
        App::new([feed], identity).commands(shown).allow_origins(origins).install(builder)
    })
    .await;
    (server, commands)
}

/// A viewer over plain HTTP/1.1, from 127.0.0.`from`. Gives the head of its answer, and the connection.
async fn view(server: &TestServer, from: u8, headers: &str) -> (String, TcpStream) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, from), 0).into()).unwrap();
    let mut stream =
        soon("a connection", socket.connect((Ipv4Addr::LOCALHOST, server.http_port()).into())).await.unwrap();
    let head = format!("GET /stream HTTP/1.1\r\nhost: localhost:{}\r\n{headers}\r\n", server.http_port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    // A refusal with its problem.
    let is_whole = |read: &[u8]| match read.starts_with(b"HTTP/1.1 200 ") {
        true => read.windows(4).any(|bytes| bytes == b"\r\n\r\n"),
        false => read.ends_with(b"}"),
    };
    while !is_whole(&read) {
        assert_ne!(soon("the answer", stream.read_buf(&mut read)).await.unwrap(), 0);
    }
    (String::from_utf8(read).unwrap(), stream)
}

#[track_caller]
fn refused(answer: &str, status: u16, why: &str) {
    let status = format!("HTTP/1.1 {status} ");
    assert!(answer.starts_with(&status), "{answer}");
    assert!(answer.to_lowercase().contains("\r\nretry-after: "), "{answer}");
    assert!(answer.contains(why), "{answer}");
}

#[tokio::test]
async fn there_are_so_many_commands_and_each_client_has_its_share() {
    let (server, commands) = server(ENDS, 3, 2).await;
    let mut viewers = Vec::new();
    for from in [1, 1, 2] {
        let (head, viewer) = view(&server, from, "").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        viewers.push(viewer);
    }
    assert_eq!(commands.running(), 3);
    server.gauge("h3cast_processes", 3).await;
    refused(&view(&server, 1, "").await.0, 429, "this client already has 2 commands running");
    refused(&view(&server, 2, "").await.0, 503, "3 commands are running for viewers");
    // An `EventSource` gives up at any status but 200.
    for (from, status) in [(1, 429), (2, 503)] {
        let (head, mut stream) = view(&server, from, "accept: text/event-stream\r\nconnection: close\r\n").await;
        let mut answer = head.into_bytes();
        soon("the end", stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\r\ncontent-type: text/event-stream\r\n"), "{answer}");
        assert!(answer.contains("retry: 1000\nevent: refused\ndata: {") && answer.contains("}\n\n"), "{answer}");
        assert!(answer.contains(&format!("\"status\":{status}")), "{answer}");
        assert!(!answer.contains("retry-after"), "{answer}");
    }
    // Over HTTP/3 and WebTransport alike, from [::1].
    let connection = server.connect().await;
    let response = soon("the head", connection.get(&server.uri("/stream"))).await.unwrap();
    assert_eq!(response.status, 503);
    assert!(response.headers.contains_key("retry-after"));
    let session = soon("the answer", connection.webtransport(&server.uri("/stream"), HeaderMap::new(), &[])).await;
    assert!(session.unwrap_err().to_string().contains("503"));
    assert_eq!(commands.running(), 3);
    server.gauge("h3cast_refused_total{reason=\"processes_per_client\"}", 2).await;
    server.gauge("h3cast_refused_total{reason=\"processes\"}", 4).await;
    // One that leaves makes room.
    drop(viewers.pop());
    soon("a viewer gets in", async {
        while !view(&server, 2, "").await.0.starts_with("HTTP/1.1 200 ") {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// What does not want to end keeps its place until it is killed.
#[tokio::test]
async fn a_command_counts_until_it_has_ended() {
    let (server, commands) = server(STAYS, 1, 1).await;
    let (head, mut viewer) = view(&server, 1, "").await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut line = Vec::new();
    while !String::from_utf8_lossy(&line).contains("pid ") || !line.ends_with(b"\n") {
        soon("its process id", viewer.read_buf(&mut line)).await.unwrap();
    }
    let text = String::from_utf8(line).unwrap();
    let pid = text.lines().find_map(|line| line.strip_prefix("pid ")).unwrap_or_else(|| panic!("{text}")).to_owned();
    drop(viewer);
    let is_there = || std::path::Path::new(&format!("/proc/{pid}")).exists();
    soon("it is gone", async {
        loop {
            let (before, running, after) = (is_there(), commands.running(), is_there());
            match running {
                0 => break assert!(!after, "it is there, and does not count"),
                _ if before && after => refused(&view(&server, 2, "").await.0, 503, "1 commands"),
                _ => {}
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Pages elsewhere start nothing, whatever they ask with; the others do.
#[tokio::test]
async fn requests_of_other_origins_start_no_command() {
    let (server, commands) = server("exec:echo hello", 64, 64).await;
    let own = format!("http://localhost:{}", server.http_port());
    let connection = server.connect().await;
    let requests: &[(u16, &[(&str, &str)])] = &[
        (200, &[]),
        (200, &[("origin", &own)]),
        (200, &[("origin", "https://allowed.example"), ("sec-fetch-site", "cross-site")]),
        (200, &[("sec-fetch-site", "same-origin")]),
        (200, &[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]),
        (200, &[("sec-fetch-site", "same-origin"), ("accept", "text/event-stream")]),
        (403, &[("origin", "https://evil.example")]),
        (403, &[("origin", "null")]),
        (403, &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")]),
        (403, &[("origin", "https://evil.example"), ("accept", "text/event-stream")]),
        // An image, a link, a script of a subdomain.
        (403, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")]),
        (403, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")]),
        (403, &[("sec-fetch-site", "same-site")]),
        (503, &[("sec-fetch-site", "none"), ("sec-purpose", "prefetch;prerender")]),
        (503, &[("sec-fetch-site", "same-origin"), ("sec-purpose", "prefetch")]),
        (503, &[("purpose", "prefetch")]),
    ];
    for (status, headers) in requests {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let (head, _) = view(&server, 1, &lines).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?}: {head}");
        let mut request = Request::get(server.uri("/stream"));
        for (name, value) in *headers {
            request = request.header(*name, *value);
        }
        let response = soon("the head", connection.request(request.body(()).unwrap())).await.unwrap();
        assert_eq!(response.status, *status, "{headers:?}");
        if headers.iter().any(|(name, _)| *name == "origin") {
            let headers = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
            let uri = server.uri("/stream");
            let opened = connection.webtransport(&uri, headers.collect(), &[]);
            assert_eq!(soon("an answer", opened).await.is_ok(), *status == 200, "{status}");
        }
    }
    // HEAD asks, and starts nothing. That they are over shows that none is about to start.
    soon("they end", async {
        while commands.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let heads = (0..20).map(|_| async {
        let request = Request::builder().method(Method::HEAD).uri(server.uri("/stream")).body(()).unwrap();
        let status = soon("the head", connection.request(request)).await.unwrap().status;
        assert_eq!((status.as_u16(), commands.running()), (200, 0));
    });
    join_all(heads).await;
}
