//! What changes, what does not, and what is reported of both.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use h3cast::client::Connection;
use http::Uri;

use crate::{
    TOKEN,
    common::soon,
    refused, reload, reloaded,
    serving::{Reading, Serving},
    write,
};

/// The status of a request.
pub(crate) async fn status(connection: &Connection, uri: &Uri) -> u16 {
    soon("a response", connection.get(uri)).await.unwrap().status.as_u16()
}

/// The socket of a server.
fn socket(server: &Serving) -> PathBuf {
    server.dir().join(format!(".local/state/h3cast/control-{}.sock", server.id()))
}

pub(crate) fn serve(settings: &str) -> Serving {
    Serving::start(|dir| {
        write(dir, "tokens", &format!("read=* {TOKEN}\n"));
        write(dir, "h3cast.toml", settings);
        vec!["--config", "h3cast.toml"]
    })
}

pub(crate) const SETTINGS: &str = "sources = ['one=-', 'two=publish']\ntokens = 'tokens'\n";

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_right_changes_and_the_rest_is_named() {
    let server = serve(SETTINGS);
    let connection = server.connect().await;
    let one = |token: &str| server.uri(&format!("/stream/one?{token}"));
    assert_eq!(status(&connection, &one("")).await, 401);
    // What the command line states, and what is the same, has not changed.
    let with = |more: &str| write(server.dir(), "h3cast.toml", &format!("{SETTINGS}{more}"));
    with("listen = 'localhost:1'\n");
    assert_eq!(reloaded(&server), "read again: h3cast.toml, tokens\n");
    with("public = 'one'\nrequests-per-address = 3\ngrace = '1s'\nhistory = '1M'\n");
    let text = reloaded(&server);
    let expected = "changed: --public=one, --requests-per-address=3; read again: h3cast.toml, tokens\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains("needs a restart: --grace, --history\n"), "{text}");
    // On a connection that is open, and for readers without a token.
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(soon("a response", connection.get(&one(""))).await.unwrap());
    }
    assert_eq!(held[0].status, 200);
    assert_eq!(status(&connection, &one("")).await, 429);
    // It is named as long as there was no restart.
    assert!(reloaded(&server).contains("needs a restart: --grace, --history\n"));
    with("public = 'one'\n");
    assert!(reloaded(&server).starts_with("changed: --requests-per-address (its default); "));
    assert_eq!(status(&connection, &one("")).await, 200);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_changes_when_anything_is_wrong() {
    let server = serve(SETTINGS);
    let connection = server.connect().await;
    let (one, two) = (server.uri("/stream/one"), server.uri(&format!("/stream/two?token={TOKEN}")));
    let mut reading = Reading::open(&connection, &two, false).await;
    let wrong = [
        ("max-handshakes = 0", "h3cast.toml:4: --max-handshakes: `0` is not a whole number from 1 on"),
        ("tokns = 'x'", "h3cast.toml:4: there is no setting `tokns`: `tokens` is one"),
        ("grace =", "h3cast.toml:4: not valid TOML"),
        // What takes a restart is looked at as well.
        ("static = 'nowhere'", "h3cast.toml:4: nowhere is not a folder"),
        ("proxy-protocol = 'tls'", "h3cast.toml:4: `proxy-protocol` needs --trust-proxy"),
        ("memory = '40M'\nhistory = '64M'", "h3cast.toml:4: the histories of 2 feeds"),
    ];
    for (more, expected) in wrong {
        write(server.dir(), "h3cast.toml", &format!("{SETTINGS}public = 'one'\n{more}\n"));
        let text = refused(&server);
        assert!(text.contains("changed nothing: ") && text.contains(expected), "{more}: {text}");
        assert!(!text.contains("For more information"), "{text}");
        assert_eq!(status(&connection, &one).await, 401, "{more}");
    }
    // So are the files that are named. That of tokens is read, but none counts before all is right.
    write(server.dir(), "h3cast.toml", &format!("{SETTINGS}public = 'one'\n"));
    write(server.dir(), "tokens", "read=* short\n");
    assert!(refused(&server).contains("tokens: line 1: the token has fewer than 16 characters"));
    // An editor that truncates it and writes it anew would have lifted all limits.
    write(server.dir(), "h3cast.toml", "\n");
    assert!(refused(&server).contains("--config: cannot read h3cast.toml: it is empty"));
    std::fs::remove_file(server.dir().join("h3cast.toml")).unwrap();
    assert!(refused(&server).contains("--config: cannot read h3cast.toml: "));
    rustix::fs::mknodat(rustix::fs::CWD, server.dir().join("h3cast.toml"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    assert!(refused(&server).contains("not a regular file"));
    assert_eq!(status(&connection, &one).await, 401);
    // It may not be told to open a feed to everyone that it serves to other machines, in two steps.
    std::fs::remove_file(server.dir().join("h3cast.toml")).unwrap();
    write(server.dir(), "h3cast.toml", SETTINGS);
    write(server.dir(), "tokens", &format!("read=* {TOKEN}\n"));
    reloaded(&server);
    let posted = server.uri(&format!("/stream/two?token={TOKEN}"));
    assert_eq!(status(&connection, &posted).await, 200);
    write(server.dir(), "tokens", "read=one another-token-of-someone\n");
    reloaded(&server);
    let ended = async { while reading.next().await.is_ok_and(|bytes| bytes.is_some()) {} };
    soon("the end of what a token read that is gone", ended).await;
    assert_eq!(status(&connection, &posted).await, 401);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_a_restart_must_be_able_to_start() {
    let server = Serving::start(|dir| {
        write(dir, "h3cast.toml", "sources = ['one=-']\n");
        vec!["--config", "h3cast.toml"]
    });
    for (more, expected) in [
        ("tokens = 'nowhere'", "h3cast.toml:2: --tokens: cannot read nowhere"),
        ("cert = 'no.pem'\nkey = 'no.key'", "h3cast.toml:2: "),
        ("acme = 'cast.example'\nacme-ca = 'nowhere'", "h3cast.toml:3: --acme-ca"),
    ] {
        write(server.dir(), "h3cast.toml", &format!("sources = ['one=-']\n{more}\n"));
        let text = refused(&server);
        assert!(text.contains("changed nothing: ") && text.contains(expected), "{more}: {text}");
    }
    write(server.dir(), "tokens", &format!("read=* {TOKEN}\n"));
    write(server.dir(), "h3cast.toml", "sources = ['one=-']\ntokens = 'tokens'\n");
    assert!(reloaded(&server).contains("needs a restart: --tokens\n"));
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_that_is_meant_is_found() {
    let server = serve(SETTINGS);
    let path = socket(&server);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // Another one of the same user, and one that was killed.
    let folder = path.parent().unwrap();
    let killed = folder.join("control-1.sock");
    drop(std::os::unix::net::UnixListener::bind(&killed).unwrap());
    assert!(reload(&server, &[]).status.success());
    let other = std::os::unix::net::UnixListener::bind(folder.join("control-2.sock")).unwrap();
    let text = refused(&server);
    let expected = format!("there are several servers (2, {id})", id = server.id());
    let swapped = format!("there are several servers ({id}, 2)", id = server.id());
    assert!(text.contains(&expected) || text.contains(&swapped), "{text}");
    let id = server.id().to_string();
    assert!(reload(&server, &[&id]).status.success());
    assert!(reload(&server, &["--control", path.to_str().unwrap()]).status.success());
    let unknown = reload(&server, &["3"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("found no server of yours with the process id 3"));
    drop(other);
    server.stop();
    assert!(!path.exists(), "it goes with its server");
}

/// A socket of the user's choice, which a server that was killed has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_was_left_is_replaced_and_one_that_is_not_stays() {
    let server = Serving::start(|dir| {
        drop(std::os::unix::net::UnixListener::bind(dir.join("at")).unwrap());
        vec!["demo", "--control", "at"]
    });
    assert!(reload(&server, &["--control", "at"]).status.success());
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .current_dir(server.dir())
        .args(["serve", "--listen", "localhost:0", "--http", "off", "--control", "at"])
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(2));
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(text.contains("--control: cannot listen at at: another server listens there"), "{text}");
    assert!(reload(&server, &["--control", "at"]).status.success());
    server.stop();
}
