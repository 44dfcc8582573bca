//! Pipes, devices and what else is no file.

use std::{
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::program::{Program, Serving, command, soon};

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// A shell that writes to the pipe `p`.
fn writer(dir: &Path, script: &str) -> Child {
    Command::new("sh").args(["-c", script]).current_dir(dir).stdin(Stdio::null()).spawn().unwrap()
}

async fn ended(mut child: Child) -> std::process::ExitStatus {
    soon("the writer ends", tokio::task::spawn_blocking(move || child.wait().unwrap())).await.unwrap()
}

/// A pipe is read once, for all viewers, and for one writer after the other.
#[tokio::test]
async fn a_pipe_is_read_once_for_all() {
    let dir = tempfile::tempdir().unwrap();
    mkfifo(&dir.path().join("p"));
    // One that was there first, and waits for a reader.
    let first = writer(dir.path(), "exec > p; echo one; echo two");
    let mut serving = Serving::start(dir.path(), 0, &["tail:p", "other=demo"]).await;
    let url = serving.url("/stream?from=start");
    let mut viewers =
        [Program::start(dir.path(), &["get", &url]), Program::start(dir.path(), &["get", "--webtransport", &url])];
    for viewer in &mut viewers {
        assert_eq!((viewer.line().await, viewer.line().await), ("one\n".into(), "two\n".into()));
    }
    // It has not been killed.
    assert!(ended(first).await.success());
    for number in 0..5 {
        // A line that one has begun is not the next one's.
        let next = writer(dir.path(), &format!("printf 'begun {number}' > p"));
        assert!(ended(next).await.success());
    }
    assert!(ended(writer(dir.path(), "echo last > p")).await.success());
    for viewer in &mut viewers {
        assert_eq!(viewer.line().await, "begun 0begun 1begun 2begun 3begun 4last\n");
    }
    let mut other = Program::start(dir.path(), &["get", &serving.url("/stream/other")]);
    assert_eq!(other.line().await, "data chunk #0\n");
    serving.program.signal("TERM");
    serving.program.told("shutting down").await;
    assert_eq!(serving.program.end().await.2, Some(0));
}

/// What looks like the beginning of a character, and is none, waits for 5 s in a pipe too: its writer may wait
/// for an answer.
#[tokio::test]
async fn a_begun_character_in_a_pipe_arrives_while_its_writer_stays() {
    let dir = tempfile::tempdir().unwrap();
    mkfifo(&dir.path().join("p"));
    let mut writing = writer(dir.path(), "exec > p; printf 'caf\\351'; exec sleep 1000");
    let serving = Serving::start(dir.path(), 0, &["--chunk", "bytes", "tail:p"]).await;
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start")]);
    let mut got = [0; 4];
    soon("all four bytes", tokio::io::AsyncReadExt::read_exact(&mut viewer.stdout, &mut got)).await.unwrap();
    assert_eq!(&got, b"caf\xe9");
    writing.kill().unwrap();
    writing.wait().unwrap();
}

/// Two sources that would take each other's lines, by whatever names they have the pipe.
#[tokio::test]
async fn two_sources_on_one_pipe_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    mkfifo(&dir.path().join("p"));
    std::os::unix::fs::symlink("p", dir.path().join("link")).unwrap();
    for (one, other) in [("p", "./p"), ("p", "link"), ("/dev/tty", "/dev/../dev/tty")] {
        let (a, b) = (format!("a=tail:{one}"), format!("b=tail:{other}"));
        let args = ["serve", "--listen", "localhost:0", "--http", "off", &a, &b];
        let got = soon("its end", command(dir.path(), &args).output()).await.unwrap();
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{one} {other}: {stderr}");
        assert!(stderr.contains("`a` and `b` both read the ") && stderr.contains(other), "{one} {other}: {stderr}");
    }
}

/// Nothing that one of them reads is missing in the other.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn two_sources_on_a_device_that_gives_each_everything_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["a=tail:/dev/null", "b=tail:/dev/../dev/null"];
    let serving = Serving::start(dir.path(), 0, &args).await;
    serving.program.signal("TERM");
    let (_, told, code) = serving.program.end().await;
    assert_eq!((told.matches("another feed").count(), code), (0, Some(0)), "{told}");
}

/// The same with a pipe that comes later: the second source waits, and says so once.
#[tokio::test]
async fn a_pipe_that_two_sources_come_to_is_read_by_one() {
    let dir = tempfile::tempdir().unwrap();
    mkfifo(&dir.path().join("p"));
    let mut serving = Serving::start(dir.path(), 0, &["a=tail:p", "b=tail:later"]).await;
    serving.program.told("later").await;
    // The first one reads it once a line has gone through.
    assert!(ended(writer(dir.path(), "echo 0 > p")).await.success());
    let mut a = Program::start(dir.path(), &["get", &serving.url("/stream/a?from=start")]);
    assert_eq!(a.line().await, "0\n");
    std::os::unix::fs::symlink("p", dir.path().join("later")).unwrap();
    serving.program.told("another feed reads this pipe").await;
    let script = "for n in $(seq 50); do echo $n; done > p";
    assert!(ended(writer(dir.path(), script)).await.success());
    for number in 1..=50 {
        assert_eq!(a.line().await, format!("{number}\n"));
    }
    serving.program.signal("TERM");
    let (_, told, code) = serving.program.end().await;
    assert_eq!((told.matches("another feed").count(), code), (0, Some(0)), "{told}");
}

/// The server starts and stops, whether there is a writer or not.
#[tokio::test]
async fn a_pipe_without_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    mkfifo(&dir.path().join("p"));
    let serving = Serving::start(dir.path(), 0, &["tail:p", "other=demo"]).await;
    let mut other = Program::start(dir.path(), &["get", &serving.url("/stream/other")]);
    assert_eq!(other.line().await, "data chunk #0\n");
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
}

/// What can be read only once cannot be read from its beginning for each viewer.
#[tokio::test]
async fn a_pipe_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    mkfifo(&dir.path().join("p"));
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let mut first = writer(dir.path(), "exec > p; echo one; exec sleep 1000");
    for (source, why) in [
        ("file:p", "tail: reads it for all viewers"),
        ("file:/dev/zero", "tail: reads it for all viewers"),
        ("file:socket", "it is a socket"),
        ("file:.", "it is a folder"),
    ] {
        let got = soon("its end", command(dir.path(), &["serve", "--listen", "localhost:0", source]).output());
        let got = got.await.unwrap();
        let stderr = String::from_utf8_lossy(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{source}: {stderr}");
        assert!(stderr.contains("cannot start the feed `default`: cannot read") && stderr.contains(why), "{stderr}");
    }
    // It has not been opened: its writer waits as before.
    assert!(first.try_wait().unwrap().is_none());
    first.kill().unwrap();
    first.wait().unwrap();
}

/// A file that becomes a pipe: asking for it costs no thread, however often.
#[tokio::test]
async fn a_file_that_becomes_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p"), "a file\n").unwrap();
    std::fs::write(dir.path().join("other"), "another\n").unwrap();
    let serving = Serving::start(dir.path(), 0, &["file:p", "other=file:other"]).await;
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream")]);
    assert_eq!(viewer.line().await, "a file\n");
    std::fs::remove_file(dir.path().join("p")).unwrap();
    mkfifo(&dir.path().join("p"));
    let trust = h3cast::client::Trust::Files(vec![dir.path().join("certs/cert.pem")]);
    let uri = |path: &str| serving.url(path).parse::<http::Uri>().unwrap();
    let connection = soon("a connection", h3cast::client::Connection::open(&uri("/"), &trust)).await.unwrap();
    // More than there are threads that may wait.
    for number in 0..560 {
        let query = ["/stream", "/stream?format=frames", "/stream?limit=3"][number % 3];
        let mut response = soon("an answer", connection.get(&uri(query))).await.unwrap();
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = soon("its end", response.body.next()).await {
            body.extend_from_slice(&bytes);
        }
        assert_eq!(response.status == http::StatusCode::NOT_FOUND, number % 3 != 1, "{query}");
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains("it is a pipe"), "{query}: {body}");
    }
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream/other")]);
    assert_eq!(viewer.line().await, "another\n");
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
}

/// `<(command)` and `/dev/stdin`: pipes without a name, which end with their writer.
#[tokio::test]
async fn pipes_without_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut shell = Command::new("bash");
    let script = "exec \"$0\" serve --listen localhost:0 --http off a=tail:<(echo one; echo two) b=tail:/dev/stdin";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_h3cast")]).current_dir(dir.path());
    let mut shell = tokio::process::Command::from(shell);
    shell.kill_on_drop(true);
    let mut serving = Serving::of(Program::of(shell)).await;
    let a = Program::start(dir.path(), &["get", &serving.url("/stream/a?from=start")]);
    let (out, err, code) = a.end().await;
    assert_eq!((String::from_utf8_lossy(&out).as_ref(), code), ("one\ntwo\n", Some(0)), "{err}");
    let mut b = Program::start(dir.path(), &["get", &serving.url("/stream/b?from=start")]);
    let mut stdin = serving.program.stdin.take().unwrap();
    for text in ["x\n", "y\n"] {
        soon("a line", tokio::io::AsyncWriteExt::write_all(&mut stdin, text.as_bytes())).await.unwrap();
        assert_eq!(b.line().await, text);
    }
    drop(stdin);
    assert_eq!(b.end().await.2, Some(0));
}

/// A path may be a file today and a pipe tomorrow.
#[tokio::test]
async fn a_file_then_a_pipe_then_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::write(&log, "file\n").unwrap();
    let serving = Serving::start(dir.path(), 0, &["tail:log"]).await;
    let mut viewer = Program::start(dir.path(), &["get", &serving.url("/stream?from=start")]);
    assert_eq!(viewer.line().await, "file\n");
    std::fs::remove_file(&log).unwrap();
    mkfifo(&log);
    let piped = writer(dir.path(), "exec > log; echo piped; exec sleep 1000");
    assert_eq!(viewer.line().await, "piped\n");
    std::fs::remove_file(&log).unwrap();
    let mut file = std::fs::File::create(&log).unwrap();
    writeln!(file, "file again").unwrap();
    assert_eq!(viewer.line().await, "file again\n");
    let mut piped = piped;
    assert!(piped.try_wait().unwrap().is_none(), "its writer was killed");
    piped.kill().unwrap();
    piped.wait().unwrap();
}
