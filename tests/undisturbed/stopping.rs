//! A stop is prompt and orderly, whatever the server and its clients are at.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use super::server::{DEADLINE, Server, program, until};

/// Runs until it is asked to end, which it notes.
const POLITE: &str = "trap 'echo asked >>asked; exit 0' TERM; sleep 1000 & echo $$ >pid; wait";

/// The number of the command in that folder, once it runs.
fn pid_in(server: &Server) -> String {
    let path = server.dir.path().join("pid");
    until("the command runs", || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
    std::fs::read_to_string(&path).unwrap().trim().to_owned()
}

/// That command was asked to end, and has.
fn has_ended_as_asked(server: &Server, pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    server.dir.path().join("asked").exists() && (status.is_empty() || status.contains("State:\tZ"))
}

#[test]
#[cfg(feature = "nats")]
fn a_start_that_waits_for_another_server_is_stopped() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let feed = format!("x=nats://{}/x", silent.local_addr().unwrap());
    // The server would wait for an answer for seconds, and the thread of the signals for minutes.
    let args = [&format!("exec:{POLITE}"), &feed, "--drain=300s"];
    let mut server = Server::launch(program(&[]).stdout(Stdio::null()), &args);
    let (connection, _) = silent.accept().unwrap();
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    // Commands are run once the server listens.
    assert!(!server.dir.path().join("pid").exists());
    assert!(!server.dir.path().join("certs").exists());
    drop(connection);
}

#[test]
#[cfg(debug_assertions)]
fn a_start_that_waits_for_a_file_is_stopped() {
    for place in ["certificate-read", "certificate-store"] {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = program(&[]);
        command.stdout(Stdio::null()).stderr(writer).env("H3CAST_FAULT", format!("{place}=block"));
        let mut server = Server::launch(&mut command, &["demo", "--drain=300s", "--static=."]);
        drop(command);
        let mut told = BufReader::new(reader).lines();
        let blocked = format!("a test blocks `{place}`");
        assert!(told.any(|line| line.unwrap().contains(&blocked)), "{place}");
        server.signal("TERM");
        assert_eq!(server.end(), Some(0), "{place}");
        assert!(!server.dir.path().join("certs").exists(), "{place}");
    }
}

/// Longer than a test waits.
const GRACE: &str = "--grace=200s";
/// A stop that waits for a silent client takes 10 s, the longest that a request's head may take, which no flag changes:
/// only the time tells it from one that does not wait, and takes milliseconds.
const PROMPT: Duration = Duration::from_secs(8);

#[test]
fn silent_clients_do_not_hold_it_up() {
    for (tls, sent) in [
        (true, &b""[..]),
        // The begin of a TLS handshake, and of a request to the wrong port.
        (true, b"\x16\x03\x01\x02\x00\x01"),
        (true, b"GET / HT"),
        (false, b""),
        (false, b"GET / HT"),
        (false, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (false, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
        // A request, and the begin of another.
        (false, b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HT"),
    ] {
        let mut server = Server::start(program(&[]), &["demo", GRACE]);
        let port = if tls { server.tls() } else { server.http };
        let mut silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
        silent.write_all(sent).unwrap();
        if sent.starts_with(b"GET /healthz") {
            let mut answered = [0; 12];
            silent.read_exact(&mut answered).unwrap();
            assert_eq!(&answered, b"HTTP/1.1 200");
        }
        // It has been accepted by then: connections are accepted in turn.
        let mut later = TcpStream::connect(("127.0.0.1", port)).unwrap();
        later.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        later.read_to_end(&mut Vec::new()).unwrap();
        let began = Instant::now();
        server.signal("TERM");
        assert_eq!(server.end(), Some(0), "{sent:?}");
        assert!(began.elapsed() < PROMPT, "{tls}, {sent:?}: {:?}", began.elapsed());
    }
}

/// A request that was sent before the signal is answered, also when the server finds both at the same time.
#[test]
fn what_was_sent_just_before_it_is_answered() {
    const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for round in 0..5 {
        let mut server = Server::start(program(&[]), &["demo", GRACE]);
        let mut used = server.client();
        let (status, length) = used.ask("GET", "/healthz");
        assert_eq!(status, 200);
        used.skip(length);
        let connect = |port| {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
        };
        let opened = connect(server.http);
        // It has been accepted by then.
        assert_eq!(server.status("/healthz"), 200);
        server.signal("STOP");
        let stopped =
            || std::fs::read_to_string(format!("/proc/{}/status", server.id())).unwrap().contains("State:\tT");
        until("it stands still", stopped);
        let (unaccepted, wrong) = (connect(server.http), connect(server.tls()));
        let mut clients =
            [("unaccepted", unaccepted), ("wrong port", wrong), ("opened", opened), ("used", used.into_inner())];
        for (_, client) in &mut clients {
            client.write_all(REQUEST).unwrap();
        }
        server.signal("TERM");
        server.signal("CONT");
        for (name, client) in &mut clients {
            let mut answer = Vec::new();
            // An error is a connection that was reset.
            let _ = client.read_to_end(&mut answer);
            let expected = if *name == "wrong port" { "HTTP/1.1 400" } else { "HTTP/1.1 200" };
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with(expected), "round {round}, {name}: {answer:?}");
        }
        assert_eq!(server.end(), Some(0));
    }
}

/// Nobody is served by a part of a server: load balancers need no time to notice.
#[test]
#[cfg(debug_assertions)]
fn a_server_that_fails_does_not_drain() {
    let mut command = program(&[]);
    command.env("H3CAST_FAULT", "udp=error").stdout(Stdio::null());
    let mut server = Server::launch(&mut command, &["demo", "--drain=300s"]);
    assert_eq!(server.end(), Some(1));
}

#[test]
#[cfg(debug_assertions)]
fn a_server_that_panics_ends_its_commands_as_always() {
    for workers in ["1", "2"] {
        let mut command = program(&[]);
        command.env("H3CAST_FAULT", "drain=panic");
        let mut server = Server::start(command, &[&format!("exec:{POLITE}"), "--workers", workers]);
        let pid = pid_in(&server);
        server.signal("TERM");
        assert_eq!(server.end(), Some(1));
        assert!(has_ended_as_asked(&server, &pid), "--workers {workers}");
    }
}
