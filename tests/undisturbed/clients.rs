//! Clients whose standard streams are stuck or do not block, and the signals that end them.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::server::{program, terminal, until};

/// How long a client may take to end after a signal, on a busy machine.
const SECONDS: Duration = Duration::from_secs(15);

/// A program that runs; killed when dropped.
struct Running(Child);

impl Running {
    fn start(dir: &Path, command: &mut Command, args: &[&str]) -> Self {
        // Its notes are for the test alone.
        command.current_dir(dir).env("HOME", dir).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
        Self(command.args(args).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status().unwrap();
        assert!(sent.success(), "there is no process for {name}");
    }

    /// Waits until it handles a signal of that number.
    fn handles(&self, signal: u32) {
        until("it waits for signals", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
            u64::from_str_radix(caught.trim(), 16).unwrap() >> (signal - 1) & 1 == 1
        });
    }

    /// Waits for the end that a signal brings: it comes within seconds.
    fn signalled(&mut self, what: &str) -> Option<i32> {
        let began = Instant::now();
        let code = self.end(what).code();
        assert!(began.elapsed() < SECONDS, "{what}: it took {:?}", began.elapsed());
        code
    }

    fn end(&mut self, what: &str) -> ExitStatus {
        until(&format!("it ends: {what}"), || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and its URL over TLS.
fn serve(dir: &Path, sources: &[&str]) -> (Running, String) {
    let mut command = program(&[]);
    command.args(["serve", "--listen", "127.0.0.1:0", "--http", "off"]);
    let mut server = Running::start(dir, &mut command, sources);
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().trim_end_matches('/').rsplit(':').next().unwrap_or_default().to_owned();
    (server, format!("https://localhost:{port}"))
}

fn set_nonblocking(fd: impl AsFd, nonblocking: bool) {
    let flags = fcntl_getfl(&fd).unwrap();
    fcntl_setfl(&fd, if nonblocking { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK }).unwrap();
}

/// Leaves no room for a word in a pipe or terminal that nobody reads.
fn fill(mut file: File) -> File {
    set_nonblocking(&file, true);
    while file.write(&[b'x'; 512]).is_ok() {}
    while file.write(b"x").is_ok() {}
    set_nonblocking(&file, false);
    file
}

/// What takes nothing, with what it must keep open: a pipe, or a terminal.
fn stuck(is_terminal: bool) -> (OwnedFd, File) {
    if is_terminal {
        let (master, slave) = terminal();
        return (master, fill(slave));
    }
    let (reader, writer) = io::pipe().unwrap();
    (reader.into(), fill(OwnedFd::from(writer).into()))
}

const SIGNALS: [(&str, u32); 4] = [("INT", 2), ("TERM", 15), ("HUP", 1), ("QUIT", 3)];

/// What a client is busy with when the signal comes.
enum Busy {
    /// It has written something to its standard output.
    Writes,
    /// It has written something to that file.
    Saves(&'static str),
    /// Its first line has been published.
    Publishes,
    /// A command has begun for it, which creates that file.
    Views(&'static str),
}

#[test]
fn signals_end_clients_whose_standard_error_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let ticking = "ticking=exec:touch begun; while echo tick; do sleep 0.1; done";
    let (_server, url) = serve(dir.path(), &["demo", "--count=0", "chat=publish", "--per-viewer", ticking]);
    let [feed, chat, ticking] = ["", "/chat", "/ticking"].map(|name| format!("{url}/stream{name}"));
    let mut watching =
        Running::start(dir.path(), &mut program(&[]), &["get", &format!("{url}/stream/chat?from=start")]);
    let mut published = BufReader::new(watching.0.stdout.take().unwrap()).lines();
    let clients: [(&[&str], Busy); 5] = [
        (&["get", "-v", &feed], Busy::Writes),
        (&["get", &feed], Busy::Writes),
        (&["get", "--resume", "-o", "out", &feed], Busy::Saves("out.part")),
        (&["publish", "-v", &chat], Busy::Publishes),
        (&["bench", "-d", "1000", &ticking], Busy::Views("begun")),
    ];
    for (at, (args, busy)) in clients.iter().enumerate() {
        for is_terminal in [false, true] {
            let (signal, number) = SIGNALS[(at + usize::from(is_terminal)) % SIGNALS.len()];
            let what = format!("{args:?}, terminal: {is_terminal}, {signal}");
            if let Busy::Saves(name) | Busy::Views(name) = busy {
                let _ = std::fs::remove_file(dir.path().join(name));
            }
            let (_kept, stderr) = stuck(is_terminal);
            let mut command = program(&[]);
            command.stderr(stderr).stdin(Stdio::piped());
            let mut client = Running::start(dir.path(), &mut command, args);
            match busy {
                Busy::Writes => client.0.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap(),
                Busy::Saves(name) | Busy::Views(name) => until(&what, || {
                    let is_view = matches!(busy, Busy::Views(_));
                    std::fs::metadata(dir.path().join(name)).is_ok_and(|file| is_view || file.len() > 0)
                }),
                Busy::Publishes => {
                    writeln!(client.0.stdin.as_mut().unwrap(), "{what}").unwrap();
                    assert_eq!(published.next().unwrap().unwrap(), what);
                }
            }
            client.handles(number);
            client.signal(signal);
            assert_eq!(client.signalled(&what), Some(128 + number as i32), "{what}");
        }
    }
}

#[test]
fn what_a_client_reports_does_not_hold_up_its_data() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), vec![b'x'; 1 << 20]).unwrap();
    let (_server, url) = serve(dir.path(), &["data=file:data"]);
    for is_terminal in [false, true] {
        let (kept, stderr) = stuck(is_terminal);
        let mut command = program(&[]);
        command.stderr(stderr);
        let mut client = Running::start(dir.path(), &mut command, &["get", "-v", &format!("{url}/stream/data")]);
        let mut data = Vec::new();
        client.0.stdout.as_mut().unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), 1 << 20);
        assert_eq!(client.end("nobody reads what it reports").code(), Some(0));
        drop(kept);
    }
}

#[test]
fn what_a_client_reports_is_complete_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = serve(dir.path(), &["demo", "--count=200", "--interval=1ms"]);
    let (reader, writer) = io::pipe().unwrap();
    let mut command = program(&[]);
    command.stderr(fill(OwnedFd::from(writer).into()));
    let mut client = Running::start(dir.path(), &mut command, &["get", "-v", &format!("{url}/stream")]);
    drop(command);
    let mut stdout = BufReader::new(client.0.stdout.take().unwrap()).lines();
    // All of its data is there before anyone reads the rest.
    assert_eq!(stdout.by_ref().take(200).filter_map(Result::ok).count(), 200);
    let mut told = String::new();
    File::from(OwnedFd::from(reader)).read_to_string(&mut told).unwrap();
    assert_eq!(client.end("all of it is read").code(), Some(0));
    let order = ["* connected to", "> GET", "< HTTP/3 200", "* chunk", "* clean end after"];
    let mut rest = told.as_str();
    for line in order {
        rest = rest.split_once(line).unwrap_or_else(|| panic!("{line} is missing in {told}")).1;
    }
    assert_eq!(told.matches("* chunk ").count(), 200, "{told}");
}

#[test]
fn signals_end_a_get_whose_standard_output_is_stuck() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = serve(dir.path(), &["demo", "--count=0"]);
    for (at, is_terminal) in [false, true, false].into_iter().enumerate() {
        let (signal, number) = SIGNALS[at];
        let (_kept, stdout) = stuck(is_terminal);
        let mut command = program(&[]);
        command.stdout(stdout);
        let mut client = Running::start(dir.path(), &mut command, &["get", &format!("{url}/stream")]);
        client.handles(number);
        client.signal(signal);
        let code = client.signalled(signal);
        assert_eq!(code, Some(128 + number as i32), "{signal}");
    }
}

#[test]
fn a_download_that_a_signal_ends_keeps_its_part() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = serve(dir.path(), &["demo", "--count=0"]);
    for (signal, number) in SIGNALS {
        let mut command = program(&[]);
        command.stderr(Stdio::piped());
        let mut client = Running::start(dir.path(), &mut command, &["get", "-o", signal, &format!("{url}/stream")]);
        let part = dir.path().join(format!("{signal}.part"));
        client.handles(number);
        until("something has come", || std::fs::metadata(&part).is_ok_and(|part| part.len() > 0));
        client.signal(signal);
        let mut told = String::new();
        client.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
        assert_eq!(client.end(signal).code(), Some(128 + number as i32), "{told}");
        assert!(told.contains(&format!("what has come is in {signal}.part")), "{told}");
        assert!(std::fs::metadata(&part).unwrap().len() > 0);
        assert!(!dir.path().join(signal).exists());
    }
}

#[test]
fn standard_input_that_does_not_block_is_published_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = serve(dir.path(), &["chat=publish"]);
    let (reader, mut writer) = io::pipe().unwrap();
    set_nonblocking(&reader, true);
    let mut command = program(&[]);
    command.stdin(reader).stderr(Stdio::piped());
    let mut client = Running::start(dir.path(), &mut command, &["publish", "--json", &format!("{url}/stream/chat")]);
    drop(command);
    // It has read all that there is when its first line has arrived, and finds nothing.
    let mut watching =
        Running::start(dir.path(), &mut program(&[]), &["get", &format!("{url}/stream/chat?from=start&limit=1")]);
    writeln!(writer, "line 0").unwrap();
    let mut published = String::new();
    watching.0.stdout.take().unwrap().read_to_string(&mut published).unwrap();
    assert_eq!(published, "line 0\n");
    for line in 1..100 {
        writeln!(writer, "line {line}").unwrap();
    }
    drop(writer);
    let (mut answer, mut told) = (String::new(), String::new());
    client.0.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    client.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(client.end("all is published").code(), Some(0), "{told}");
    assert!(answer.contains("\"chunks\":100"), "{answer}");
}

#[test]
fn standard_output_that_does_not_block_gets_all() {
    const LENGTH: usize = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("data"), vec![b'x'; LENGTH]).unwrap();
    let (_server, url) = serve(dir.path(), &["data=file:data"]);
    let (reader, writer) = io::pipe().unwrap();
    set_nonblocking(&writer, true);
    let full = OwnedFd::from(writer.try_clone().unwrap());
    let mut command = program(&[]);
    command.stdout(writer).stderr(Stdio::piped());
    let mut client = Running::start(dir.path(), &mut command, &["get", &format!("{url}/stream/data")]);
    drop(command);
    // It has no room for more, by then.
    until("the pipe is full or the client has given up", || {
        let mut poll = [rustix::event::PollFd::new(&full, rustix::event::PollFlags::OUT)];
        let writable = rustix::event::poll(&mut poll, Some(&Default::default())).unwrap() > 0;
        !writable || client.0.try_wait().unwrap().is_some()
    });
    drop(full);
    let mut data = Vec::new();
    File::from(OwnedFd::from(reader)).read_to_end(&mut data).unwrap();
    let mut told = String::new();
    client.0.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((data.len(), client.end("all has come").code()), (LENGTH, Some(0)), "{told}");
}
