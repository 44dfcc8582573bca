//! What a server does after it has read its settings again, and not only what it reports of that.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::net::{TcpSocket, TcpStream};

use crate::{
    common::soon,
    reloaded,
    serving::Serving,
    settings::{SETTINGS, serve, status},
    write,
};

/// Waits until the server's log has this, and gives the log.
async fn logged(server: &Serving, what: &str) -> String {
    soon(what, async {
        loop {
            let log = std::fs::read_to_string(server.dir().join("stderr")).unwrap();
            if log.contains(what) {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Sends a server the signal that has it read its settings again.
fn signal(server: &Serving) {
    let sent = Command::new("kill").args(["-s", "USR1", &server.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_has_settings_read_again() {
    let server = serve(SETTINGS);
    let connection = server.connect().await;
    let one = server.uri("/stream/one");
    assert_eq!(status(&connection, &one).await, 401);
    write(server.dir(), "h3cast.toml", &format!("{SETTINGS}public = 'one'\ngrace = '1s'\n"));
    signal(&server);
    logged(&server, "reloaded: changed: --public=one").await;
    assert_eq!(status(&connection, &one).await, 200);
    logged(&server, "needs a restart: --grace").await;
    // With an error, nothing changes, and the server runs on.
    write(server.dir(), "h3cast.toml", &format!("{SETTINGS}tokns = 'x'\n"));
    signal(&server);
    logged(&server, "cannot reload, nothing has changed: h3cast.toml:3: there is no setting `tokns`").await;
    assert_eq!(status(&connection, &one).await, 200);
    server.stop();
}

/// One that comes before the program has begun waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn sigusr1_during_the_start_is_heard_when_it_serves() {
    let early = ["env", "--block-signal=USR1", "sh", "-c", "kill -s USR1 $$; exec \"$@\"", "sh"];
    let server = Serving::start_by(&early, |dir| {
        write(dir, "h3cast.toml", "sources = ['exec:kill -s USR1 $$; sleep 60']\n");
        vec!["--config", "h3cast.toml"]
    });
    let log = logged(&server, "reloaded: read again: h3cast.toml").await;
    // Commands do not inherit that it is blocked: this one ends by it.
    let log = if log.contains("SIGUSR1") { log } else { logged(&server, "SIGUSR1").await };
    assert_eq!(log.matches("reloaded").count(), 1, "{log}");
    server.stop();
}

/// Clients that cost what there is under the new limit, though not under the old one.
#[tokio::test(flavor = "multi_thread")]
async fn less_memory_refuses_viewers_and_more_admits_them() {
    use std::io::Write;
    let with = |memory| format!("sources = ['-']\nchunk = 'bytes'\nhistory = '10M'\nmemory = '{memory}'\n");
    let mut server = Serving::start(|dir| {
        write(dir, "h3cast.toml", &with("1000M"));
        vec!["--config", "h3cast.toml"]
    });
    let connection = server.connect().await;
    let stdin = server.stdin.as_mut().unwrap();
    stdin.write_all(&vec![b'x'; 12 << 20]).unwrap();
    server.until(&connection, "bytes", |bytes| bytes == 12 << 20).await;
    let mut crowd: Vec<TcpStream> = Vec::new();
    for client in [2, 3].repeat(100) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, client), 0).into()).unwrap();
        crowd.push(socket.connect((Ipv4Addr::LOCALHOST, server.port).into()).await.unwrap());
    }
    let until = async |due: StatusCode| {
        for path in ["/readyz", "/stream?limit=0"] {
            soon(path, async {
                while status(&connection, &server.uri(path)).await != due {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    };
    until(StatusCode::OK).await;
    // 32 MiB for the program, 10 for the history and 9 for the clients.
    write(server.dir(), "h3cast.toml", &with("53M"));
    assert!(reloaded(&server).starts_with("changed: --memory=53M;"));
    until(StatusCode::SERVICE_UNAVAILABLE).await;
    write(server.dir(), "h3cast.toml", &with("1000M"));
    reloaded(&server);
    until(StatusCode::OK).await;
    drop(crowd);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_may_read_from_then_on() {
    let server = serve("sources = ['one=-']\n");
    let connection = server.connect().await;
    let origin = HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static("https://app.example"))]);
    let may = async || {
        let uri = server.uri("/stream/one");
        let session = connection.webtransport(&uri, origin.clone(), &[]);
        let session = soon("an answer", session).await.map(drop).map_err(|error| error.to_string());
        let mut request = http::Request::get(server.uri("/feeds")).body(()).unwrap();
        *request.headers_mut() = origin.clone();
        let mut response = soon("a head", connection.request(request)).await.unwrap();
        while soon("the feeds", response.body.next()).await.unwrap().is_some() {}
        let allowed = response.headers.get("access-control-allow-origin").map(|origin| origin.to_str().unwrap());
        let allowed = allowed == Some("https://app.example");
        assert_eq!(session.is_ok(), allowed, "{session:?}");
        assert!(allowed || session.unwrap_err().contains("403"));
        allowed
    };
    assert!(!may().await);
    write(server.dir(), "h3cast.toml", "sources = ['one=-']\nallow-origin = ['https://app.example']\n");
    reloaded(&server);
    assert!(may().await);
    write(server.dir(), "h3cast.toml", "sources = ['one=-']\n");
    reloaded(&server);
    assert!(!may().await);
    server.stop();
}

/// `h3cast token`, in a folder: what it prints.
#[cfg(feature = "jwt")]
fn token(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    let made = command.current_dir(folder).arg("token").args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(made.status.success(), "{}", crate::said(&made));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[cfg(feature = "jwt")]
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_the_new_keys_count_and_those_of_the_old_do_not() {
    let server = Serving::start(|dir| {
        ["first.pem", "second.pem"].iter().for_each(|name| _ = token(dir, &["--new-key", name]));
        write(dir, "h3cast.toml", "sources = ['one=-']\nauth = ['first.pub.pem']\n");
        vec!["--config", "h3cast.toml"]
    });
    let connection = server.connect().await;
    let token =
        |key: &str| server.uri(&format!("/stream/one?token={}", token(server.dir(), &["--key", key, "--read", "one"])));
    let (first, second) = (token("first.pem"), token("second.pem"));
    let both = async || (status(&connection, &first).await, status(&connection, &second).await);
    assert_eq!(both().await, (200, 401));
    write(server.dir(), "h3cast.toml", "sources = ['one=-']\nauth = ['first.pub.pem', 'second.pub.pem']\n");
    let text = reloaded(&server);
    assert!(text.contains("--auth=first.pub.pem,second.pub.pem") && text.contains("read again:"), "{text}");
    assert_eq!(both().await, (200, 200));
    // The file itself: what is in it counts when the command returns.
    let pem = std::fs::read_to_string(server.dir().join("second.pub.pem")).unwrap();
    write(server.dir(), "first.pub.pem", &pem);
    assert!(reloaded(&server).contains("first.pub.pem"));
    assert_eq!(both().await, (401, 200));
    server.stop();
}

/// As logrotate's `postrotate` has it: when the command returns, nothing more goes to the old file.
#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_is_opened_again_and_keeps_its_path_until_a_restart() {
    let settings = |log: &str| format!("sources = ['one=-']\naccess-log = '{log}'\n");
    let server = Serving::start(|dir| {
        write(dir, "h3cast.toml", &settings("access.log"));
        vec!["--config", "h3cast.toml"]
    });
    let connection = server.connect().await;
    let ask = async |path: &str| assert_eq!(status(&connection, &server.uri(path)).await, 200);
    let read = |name: &str| std::fs::read_to_string(server.dir().join(name)).unwrap_or_default();
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        soon(what, async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    };
    ask("/healthz").await;
    until("its line", &|| read("access.log").contains("/healthz")).await;
    std::fs::rename(server.dir().join("access.log"), server.dir().join("access.log.1")).unwrap();
    reloaded(&server);
    // It is there without a line for it.
    until("the new file", &|| server.dir().join("access.log").exists()).await;
    ask("/feeds").await;
    until("the next line", &|| read("access.log").contains("/feeds")).await;
    assert!(!read("access.log.1").contains("/feeds"));
    // Another path takes a restart, which the server reports; until then its lines stay in one file.
    write(server.dir(), "h3cast.toml", &settings("other.log"));
    assert!(reloaded(&server).contains("needs a restart: --access-log\n"));
    ask("/readyz").await;
    until("the last line", &|| read("access.log").contains("/readyz")).await;
    assert!(!server.dir().join("other.log").exists());
    // Where it could not be opened, no server would start.
    write(server.dir(), "h3cast.toml", &settings("nowhere/access.log"));
    assert!(crate::refused(&server).contains("--access-log: cannot open nowhere/access.log"));
    server.stop();
}
