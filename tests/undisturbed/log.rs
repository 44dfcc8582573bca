//! Standard error and standard output that take nothing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::TcpStream,
    process::Stdio,
    thread,
};

use super::server::{Server, program, terminal, until};

/// Two commands that write much to standard error and then print a line, a file that is followed, and a
/// feed that strangers try to write.
const SOURCES: [&str; 9] = [
    "noise=exec:yes \"$(seq -s ' ' 60)\" | head -n 20000 >&2; echo done; exec sleep 1000",
    "more=exec:yes \"$(seq -s ' ' 60)\" | head -n 20000 >&2; echo done; exec sleep 1000",
    // What these write to standard error goes to the log.
    "--chunk",
    "noise=bytes,more=bytes",
    "log=tail:log.txt",
    "chat=publish",
    "--publish-token",
    "secret",
    "--grace=2s",
];

/// Sources run, viewers read, strangers are refused, and the server ends when it is asked to.
fn is_undisturbed(server: &mut Server) {
    for feed in ["noise", "more"] {
        server.view(&format!("/stream/{feed}?from=start")).until("done\n");
    }
    let mut viewer = server.view("/stream/log");
    let path = server.dir.path().join("log.txt");
    let append = |text: &str| {
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("the first line\n");
    viewer.until("the first line\n");
    // The log has a line about it.
    File::create(&path).unwrap();
    append("2\n");
    viewer.until("2\n");
    let mut stranger = server.client();
    for _ in 0..800 {
        let (status, length) = stranger.ask("POST", "/stream/chat");
        assert_eq!(status, 401);
        stranger.skip(length);
    }
    append("3\n");
    viewer.until("3\n");
    assert_eq!(server.status("/healthz"), 200);
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
}

fn disturbed(workers: &[&str], stderr: impl Into<Stdio>) {
    let mut command = program(&[]);
    command.stderr(stderr);
    let mut server = Server::start(command, &[&SOURCES[..], workers].concat());
    is_undisturbed(&mut server);
}

#[test]
fn standard_error_on_a_full_disk() {
    disturbed(&[], OpenOptions::new().write(true).open("/dev/full").unwrap());
}

#[test]
fn standard_error_is_a_closed_pipe() {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    disturbed(&[], writer);
}

#[test]
fn standard_error_is_a_pipe_that_nobody_reads() {
    for workers in [&[][..], &["--workers", "1"]] {
        let (_reader, writer) = io::pipe().unwrap();
        disturbed(workers, writer);
    }
}

#[test]
fn standard_error_is_a_terminal_that_is_stopped() {
    for workers in [&[][..], &["--workers", "1"]] {
        let (_master, slave) = terminal();
        disturbed(workers, slave);
    }
}

#[test]
fn standard_error_is_closed() {
    let command = program(&["sh", "-c", "exec \"$0\" \"$@\" 2>&-"]);
    let mut server = Server::start(command, &SOURCES);
    is_undisturbed(&mut server);
}

#[test]
fn standard_output_is_closed_full_or_stuck() {
    let (unread, writer) = io::pipe().unwrap();
    // No room for the first word. A pipe has 64 KiB; the thread waits for more room until the test ends.
    let mut fill = writer.try_clone().unwrap();
    thread::spawn(move || while fill.write(&[b'x'; 4096]).is_ok() {});
    let (closed, writer_of_closed) = io::pipe().unwrap();
    drop(closed);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let closing = program(&["sh", "-c", "exec \"$0\" \"$@\" >&-"]);
    for (stdout, mut command) in [
        (Some(Stdio::from(writer)), program(&[])),
        (Some(writer_of_closed.into()), program(&[])),
        (Some(full.into()), program(&[])),
        (None, closing),
    ] {
        if let Some(stdout) = stdout {
            command.stdout(stdout);
        }
        let mut server = Server::launch(&mut command, &SOURCES);
        server.http = plain_http_of(server.id());
        is_undisturbed(&mut server);
    }
    drop(unread);
}

/// The port of plain HTTP of a process that cannot say which it is: the one of its listeners that answers.
fn plain_http_of(pid: u32) -> u16 {
    let mut found = None;
    until("a listener of plain HTTP", || {
        let inodes: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(String::from))
            .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
            .collect();
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        found = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // In the state LISTEN.
            if fields.get(3) != Some(&"0A") || !inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str())) {
                return None;
            }
            let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
            speaks_plain_http(port).then_some(port)
        });
        found.is_some()
    });
    found.unwrap()
}

fn speaks_plain_http(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1 200")
}

#[test]
fn what_strangers_cause_is_limited_and_what_is_left_out_is_counted() {
    const REFUSED: usize = 500;
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = program(&[]);
    command.stderr(writer);
    let mut server = Server::start(command, &["chat=publish", "other=publish", "--publish-token", "secret"]);
    drop(server.stdout.take());
    let told = thread::spawn(move || {
        let mut told = String::new();
        reader.read_to_string(&mut told).unwrap();
        told
    });
    let mut stranger = server.client();
    for _ in 0..REFUSED {
        let (_, length) = stranger.ask("POST", "/stream/chat");
        stranger.skip(length);
    }
    // Those of another feed have lines of their own.
    let (_, length) = stranger.ask("POST", "/stream/other");
    stranger.skip(length);
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    drop(server);
    let told = told.join().unwrap();
    let of = |feed: &str| told.lines().filter(|line| line.contains(&format!("feed=\"{feed}\""))).collect::<Vec<_>>();
    let (left_out, lines): (Vec<_>, Vec<_>) = of("chat").into_iter().partition(|line| line.contains("left out"));
    assert!((1..=60).contains(&lines.len()), "{told}");
    let count = |line: &&str| {
        let words: Vec<&str> = line.split(" more like this were left out").next().unwrap().split(' ').collect();
        words.last().unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(lines.len() + left_out.iter().map(count).sum::<usize>(), REFUSED, "{told}");
    assert_eq!(of("other").len(), 1, "{told}");
}

#[test]
fn what_was_lost_is_counted_once_it_is_read_again() {
    let (mut reader, writer) = io::pipe().unwrap();
    let mut command = program(&[]);
    command.stderr(writer);
    let mut server = Server::start(command, &SOURCES);
    for feed in ["noise", "more"] {
        server.view(&format!("/stream/{feed}?from=start")).until("done\n");
    }
    let told = thread::spawn(move || {
        let mut told = String::new();
        reader.read_to_string(&mut told).unwrap();
        told
    });
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let told = told.join().unwrap();
    assert!(told.contains(" lines lost here"), "{}", told.len());
}

#[test]
fn no_files_left_for_connections() {
    // For the program's own, and some twenty connections.
    let mut command = program(&["sh", "-c", "ulimit -n 48; exec \"$0\" \"$@\""]);
    let stderr = tempfile::NamedTempFile::new().unwrap();
    command.stderr(stderr.reopen().unwrap());
    let mut server = Server::start(command, &["demo"]);
    let connections: Vec<_> = (0..80).map(|_| TcpStream::connect(("127.0.0.1", server.http)).unwrap()).collect();
    let told = || std::fs::read_to_string(stderr.path()).unwrap();
    until("the log has it", || told().contains("no file descriptors left for more connections"));
    drop(connections);
    // The server has them a moment longer.
    until("it answers again", || answers(server.http));
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    assert!(told().lines().count() < 50, "{}", told());
}

/// Whether a new connection is accepted, and a request on it answered.
fn answers(port: u16) -> bool {
    let asked = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        io::read_to_string(stream)
    };
    asked().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// A stop is noticed though there is always another connection that cannot be accepted.
#[test]
fn no_files_left_for_connections_when_it_stops() {
    let big = tempfile::NamedTempFile::new().unwrap();
    big.as_file().set_len(64 << 20).unwrap();
    let mut command = program(&[]);
    let stderr = tempfile::NamedTempFile::new().unwrap();
    command.stderr(stderr.reopen().unwrap());
    let mut server = Server::start(command, &[&format!("file:{}", big.path().display()), "--grace=3s"]);
    let told = || std::fs::read_to_string(stderr.path()).unwrap();
    let exhausted = || told().contains("cannot accept a connection");
    // They read no more than a byte, and so have their connections until the grace time is over.
    let mut viewers = Vec::new();
    for _ in 0..3 {
        let mut viewer = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        viewer.write_all(b"GET /stream HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        viewer.set_nonblocking(true).unwrap();
        until("it is answered", || viewer.peek(&mut [0]).is_ok());
        viewers.push(viewer);
    }
    // By itself the server keeps some for this; the system may have none for any program.
    server.allow_files(4);
    let waiting: Vec<_> = (0..80).map(|_| TcpStream::connect(("127.0.0.1", server.http)).unwrap()).collect();
    until("it cannot accept one", exhausted);
    let before = told().len();
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
    let after = told().split_off(before);
    assert!(after.matches("cannot accept a connection").count() <= 2, "{after}");
    drop((viewers, waiting));
}
