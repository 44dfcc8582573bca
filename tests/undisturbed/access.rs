//! The access log: where it is written, and what happens when it cannot be.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use super::server::{Client, Server, program, until};

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(String::from).collect()
}

/// Waits until a file has so many lines.
fn until_lines(path: &Path, count: usize) -> Vec<String> {
    until("the lines are there", || lines(path).len() >= count);
    lines(path)
}

/// Sends bytes to plain HTTP, and waits for the end of what comes.
fn send(server: &Server, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Starts it with the log on standard error in a file of its folder.
fn serve(dir: &Path, args: &[&str]) -> Server {
    let mut command = program(&[]);
    command.stderr(fs::File::create(dir.join("stderr")).unwrap());
    Server::start(command, &[&["chat=publish"][..], args].concat())
}

#[test]
fn a_line_stays_one_line_and_is_for_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    for (format, is_json) in [("combined", false), ("json", true)] {
        let path = dir.path().join(format);
        let server = serve(dir.path(), &["--access-log", path.to_str().unwrap(), "--access-log-format", format]);
        let forged = "GET /stream/none%0a127.0.0.1\"?a=1&token=geheim HTTP/1.1\r\nhost: localhost\r\n\
                      user-agent: x\" 200 0 \"-\" \\\u{9b}2J \u{2028}\t\u{202e}\r\nreferer: \"\\\"\r\nconnection: close\r\n\r\n";
        let answer = send(&server, forged.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
        let lines = until_lines(&path, 1);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = &lines[0];
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) || is_json, "{line}");
        assert!(!line.contains("geheim") && !line.contains('\u{9b}') && !line.contains('\u{202e}'), "{line}");
        if is_json {
            let entry: Value = serde_json::from_str(line).unwrap();
            assert_eq!(entry["target"], "/stream/none%0a127.0.0.1\"?a=1&token=***");
            assert_eq!(entry["user_agent"], "x\" 200 0 \"-\" \\\u{9b}2J \u{2028}\t\u{202e}");
            assert_eq!(
                (&entry["status"], &entry["end"], &entry["kind"]),
                (&404.into(), &"complete".into(), &"request".into())
            );
            assert_eq!((&entry["client"], &entry["protocol"]), (&"127.0.0.1".into(), &"HTTP/1.1".into()));
            assert!(entry["duration"].as_f64().unwrap() < 60.0 && entry["sent"].as_u64().unwrap() > 50, "{entry}");
        } else {
            // What parses the format of nginx finds its fields.
            let fields: Vec<&str> = line.split('"').collect();
            assert_eq!(fields.len(), 9, "{line}");
            assert!(fields[0].starts_with("127.0.0.1 - - [") && fields[2].starts_with(" 404 "), "{line}");
            assert_eq!(fields[1], "GET /stream/none%0a127.0.0.1\\x22?a=1&token=*** HTTP/1.1");
            assert!(fields[5].starts_with("x\\x22 200 0 \\x22-\\x22 \\x5C\\xC2\\x9B2J"), "{line}");
        }
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
    }
}

#[test]
fn it_goes_on_in_a_new_file_and_keeps_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    fs::write(&path, "from before\n").unwrap();
    let server = serve(dir.path(), &["--access-log", path.to_str().unwrap()]);
    assert_eq!(server.status("/healthz"), 200);
    assert_eq!(until_lines(&path, 2)[0], "from before");
    // As logrotate does, without a signal.
    let old = dir.path().join("access.log.1");
    fs::rename(&path, &old).unwrap();
    assert_eq!(server.status("/feeds"), 200);
    let new = until_lines(&path, 1);
    assert!(new.len() == 1 && new[0].contains("\"GET /feeds HTTP/1.1\""), "{new:?}");
    assert_eq!(lines(&old).len(), 2);
    // Where nothing can be created it is tried again.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(server.status("/healthz"), 200);
    let told = || fs::read_to_string(dir.path().join("stderr")).unwrap();
    until("it is told", || told().contains("cannot write the access log"));
    fs::remove_dir(&path).unwrap();
    assert_eq!(server.status("/readyz"), 200);
    assert!(until_lines(&path, 1)[0].contains("/readyz"), "{:?}", lines(&path));
}

#[test]
fn a_full_disk_and_a_reader_that_is_stuck_cost_lines_only() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for (path, told) in
        [(Path::new("/dev/full"), "cannot write the access log /dev/full"), (&fifo, "takes no more lines")]
    {
        // Both directions, so that it has a reader; nobody reads.
        let _reader = (path == fifo).then(|| OpenOptions::new().read(true).write(true).open(path).unwrap());
        let mut server = serve(dir.path(), &["--access-log", path.to_str().unwrap(), "--workers", "1"]);
        let mut client = server.client();
        // Of some 1,600 bytes each, into a queue of 1 MiB.
        let path = format!("/healthz?{}", "x".repeat(1500));
        for _ in 0..900 {
            let (status, length) = client.ask("GET", &path);
            assert_eq!(status, 200);
            client.skip(length);
        }
        let log = || fs::read_to_string(dir.path().join("stderr")).unwrap();
        until("it is told", || log().contains(told));
        server.signal("TERM");
        assert_eq!(server.end(), Some(0));
        // A few words for all of them.
        assert!(log().lines().filter(|line| line.contains("access log")).count() < 20, "{}", log());
    }
}

#[test]
fn on_standard_output_it_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.args(["--listen", "localhost:0", "--http", "localhost:0", "--access-log", "-", "--access-log-format=json"]);
    let mut child = Killed(command.spawn().unwrap());
    // What it prints at its start.
    let mut said = BufReader::new(child.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    let port = said.find_map(|line| line.split_once("http://localhost:")?.1.split('/').next()?.trim().parse().ok());
    let mut client = Client::connect(port.expect("a URL of plain HTTP"));
    assert_eq!(client.ask("GET", "/healthz").0, 200);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let entry: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["target"], "/healthz");
}

#[test]
fn one_that_cannot_be_opened_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none/access.log");
    for check in [&[][..], &["--check"]] {
        let mut command = program(&[]);
        command.current_dir(dir.path()).args(["--listen", "localhost:0", "--http", "off", "--access-log"]).arg(&path);
        let output = command.args(check).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("--access-log: cannot open") && text.contains("none/access.log"), "{text}");
    }
}

#[test]
fn each_line_of_the_log_names_its_connection_and_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let more = ["--access-log", path.to_str().unwrap(), "--access-log-format=json", "--trust-proxy=loopback"];
    let secret = ["--publish-token", "a-token-of-16-characters"];
    // What it says of itself before its log begins, and what commands say, is JSON as well.
    let source = ["noise=exec:echo \"{\\\"a\\\": 1}\" >&2; exec sleep 1000", "--stderr=noise=log"];
    for format in ["text", "json"] {
        let server = serve(dir.path(), &[&more[..], &secret, &source, &["--log-format", format]].concat());
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = format!(
            "POST /stream/chat HTTP/1.1\r\nhost: localhost\r\nvia: 1.1 proxy\r\nx-forwarded-for: 192.0.2.9\r\n\
             x-request-id: of-the-proxy.1\r\ntraceparent: {trace}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        let answer = send(&server, request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("x-request-id: of-the-proxy.1\r\n"), "{answer}");
        let entry: Value = serde_json::from_str(&until_lines(&path, 1)[0]).unwrap();
        assert_eq!((&entry["request"], &entry["client"]), (&"of-the-proxy.1".into(), &"192.0.2.9".into()));
        assert_eq!(entry["trace"], trace);
        let told = || fs::read_to_string(dir.path().join("stderr")).unwrap();
        // The command's line has quotes, which JSON escapes.
        let has_command = || ["{\"a\": 1}", "{\\\"a\\\": 1}"].iter().any(|line| told().contains(line));
        until("the log has both", || told().contains("publish rejected") && has_command());
        let (log, connection) = (told(), &entry["connection"]);
        let line = log.lines().find(|line| line.contains("publish rejected")).unwrap();
        if format == "text" {
            let expected = "connection{remote=127.0.0.1:";
            assert!(
                line.contains(expected) && line.contains(&format!("id={connection}}}:request{{id=of-the-proxy.1}}")),
                "{line}"
            );
        } else {
            let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let line =
                lines.iter().find(|line| line["message"].as_str().unwrap().contains("publish rejected")).unwrap();
            assert_eq!((&line["request"], &line["connection"]), (&"of-the-proxy.1".into(), connection), "{line}");
            assert_eq!((&line["level"], &line["feed"]), (&"INFO".into(), &"chat".into()), "{line}");
            // A secret on the command line is warned of before there is a log.
            assert!(lines.iter().any(|line| line["message"].as_str().unwrap().contains("--publish-token")), "{log}");
        }
        drop(server);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn warnings_name_their_connection_and_request_where_the_log_has_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for level in ["warn", "error"] {
        let mut command = program(&[]);
        command.stderr(fs::File::create(dir.path().join("stderr")).unwrap()).env("H3CAST_FAULT", "request=panic");
        let server = Server::start(command, &["--log", level, "chat=publish"]);
        send(&server, b"GET /feeds HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let told = || fs::read_to_string(dir.path().join("stderr")).unwrap();
        until("the panic is told", || told().contains("a test asks for a panic"));
        let log = told();
        let line = log.lines().find(|line| line.contains("a test asks for a panic")).unwrap();
        assert!(line.contains("ERROR connection{remote=127.0.0.1:") && line.contains("}:request{id="), "{line}");
    }
}
