//! systemd's protocols: what the program reports (`sd_notify(3)`), sockets that it is started with
//! (`sd_listen_fds(3)`), and the unit files.
#![cfg(all(feature = "cli", target_os = "linux"))]

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::soon;
use h3cast::client::{Connection, Trust};

/// How long the program may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program with a folder of its own; killed when dropped.
struct Program {
    child: Child,
    dir: tempfile::TempDir,
}

impl Program {
    fn new(dir: tempfile::TempDir, mut command: Command) -> Self {
        let stderr = std::fs::File::create(dir.path().join("stderr")).unwrap();
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
            command.env_remove(name);
        }
        command.current_dir(dir.path()).env("HOME", dir.path()).env_remove("XDG_RUNTIME_DIR");
        Self { child: command.stderr(stderr).spawn().unwrap(), dir }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("stderr")).unwrap()
    }

    /// Waits until it has said that.
    fn says(&self, what: &str) {
        let began = Instant::now();
        while !self.said().contains(what) {
            assert!(began.elapsed() < PATIENCE, "no `{what}` in {}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn terminate(&self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
    }

    fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    async fn connect(&self, port: u16) -> Connection {
        let trust = Trust::Files(vec![self.dir.path().join("certs/cert.pem")]);
        let uri = format!("https://127.0.0.1:{port}/").parse().unwrap();
        soon("a connection", Connection::open(&uri, &trust)).await.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a service manager reads, and the program that tells it.
fn managed(dir: &tempfile::TempDir) -> (UnixDatagram, Command) {
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.env("NOTIFY_SOCKET", path).args(["serve", "--listen", "localhost:0", "--http", "off"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    (manager, command)
}

/// The next message, without the pings of the watchdog.
fn told(manager: &UnixDatagram) -> String {
    loop {
        let mut bytes = [0; 4096];
        let length = manager.recv(&mut bytes).expect("a message");
        let text = String::from_utf8(bytes[..length].to_vec()).unwrap();
        if text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

#[test]
fn systemd_is_told_of_the_start_and_of_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, mut command) = managed(&dir);
    // Longer than systemd waits by itself.
    command.args(["--drain=0s", "--grace=2h"]).env("H3CAST_FAULT", "systemd=pause@3");
    let mut program = Program::new(dir, command);
    assert_eq!(told(&manager), "STATUS=starting\n");
    let ready = told(&manager);
    assert!(ready.starts_with("READY=1\nSTATUS=serving localhost:"), "{ready}");
    program.terminate();
    assert_eq!(told(&manager), "STOPPING=1\nSTATUS=shutting down\nEXTEND_TIMEOUT_USEC=7215000000\n");
    assert_eq!(program.code(), Some(0));
}

/// Otherwise it would end a start that takes as long as another server's `--grace`.
#[test]
fn systemd_waits_on_for_a_server_that_waits_for_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, mut command) = managed(&dir);
    let control = dir.path().join("old.sock");
    let old = std::os::unix::net::UnixListener::bind(&control).unwrap();
    command.arg("--take-over").arg("--control").arg(&control);
    let mut program = Program::new(dir, command);
    assert_eq!(told(&manager), "STATUS=starting\n");
    let (mut stream, _) = old.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_exact(&mut [0; "take-over\n".len()]).unwrap();
    for text in
        [r#"{"version":1,"pid":7,"listens":["127.0.0.1:1"],"stops":false}"#, r#"{"refused":null,"udp":[],"tcp":0}"#]
    {
        stream.write_all(&u32::try_from(text.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(told(&manager), "STATUS=taking over from process 7\nEXTEND_TIMEOUT_USEC=60000000\n");
    program.terminate();
    assert_eq!(program.code(), Some(0));
}

/// The time now, as systemd compares it: the monotonic clock's, in microseconds.
fn monotonic() -> i128 {
    match sd_notify::NotifyState::monotonic_usec_now().unwrap() {
        sd_notify::NotifyState::MonotonicUsec(now) => now,
        other => panic!("{other:?}"),
    }
}

/// A reload as the packaged unit has it, and one by a signal; also when nothing changes because of an error.
#[test]
fn systemd_is_told_of_a_reload_and_of_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("h3cast.toml");
    std::fs::write(&file, "sources = ['publish']\n").unwrap();
    let (manager, mut command) = managed(&dir);
    let runtime = dir.path().join("run");
    std::fs::create_dir(&runtime).unwrap();
    command.arg("--config").arg(&file).env("RUNTIME_DIRECTORY", &runtime);
    let program = Program::new(dir, command);
    assert_eq!(told(&manager), "STATUS=starting\n");
    let ready = told(&manager);
    assert!(ready.starts_with("READY=1\nSTATUS=serving localhost:"), "{ready}");

    let unit = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/h3cast.service")).unwrap();
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecReload=")).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let pid = program.child.id().to_string();
    let exec_reload = || {
        let of_unit = |word: &&str| match *word {
            "/usr/bin/h3cast" => env!("CARGO_BIN_EXE_h3cast").to_owned(),
            "$MAINPID" => pid.clone(),
            word => word.to_owned(),
        };
        let words: Vec<_> = words.iter().map(of_unit).collect();
        // In the environment of the service, whose user has no home.
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().env("RUNTIME_DIRECTORY", &runtime).output().unwrap()
    };
    let around = |before: i128| {
        let reloading = told(&manager);
        let usec = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split('\n').next());
        let usec: i128 = usec.unwrap_or_else(|| panic!("{reloading}")).parse().unwrap();
        assert!((before..=monotonic()).contains(&usec), "{before}: {usec}");
        assert_eq!(told(&manager), ready, "with its status as it was");
    };
    for (text, code) in [("sources = ['publish']\nmax-feeds = 7\n", 0), ("max-feeds = 'many'\n", 1)] {
        std::fs::write(&file, text).unwrap();
        let before = monotonic();
        let output = exec_reload();
        // `systemctl reload` fails with it.
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        around(before);
    }
    let before = monotonic();
    assert!(Command::new("kill").args(["-s", "USR1", &pid]).status().unwrap().success());
    around(before);
    program.terminate();
    assert!(told(&manager).starts_with("STOPPING=1\n"));
}

#[test]
fn a_server_that_cannot_start_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, mut command) = managed(&dir);
    // The thread that reports is late.
    command.args(["--static", "missing"]).env("H3CAST_FAULT", "systemd=pause");
    let mut program = Program::new(dir, command);
    assert_eq!(program.code(), Some(2));
    assert_eq!(told(&manager), "STATUS=starting\n");
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 99]).is_err());
}

#[tokio::test]
async fn the_watchdog_is_fed_by_a_runtime_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, mut command) = managed(&dir);
    command.arg("--workers=1").env("WATCHDOG_USEC", "200000").env("H3CAST_FAULT", "quic-accept=block");
    let mut program = Program::new(dir, command);
    let port = loop {
        if let Some((_, status)) = told(&manager).split_once("localhost:") {
            break status.trim().parse::<u16>().unwrap();
        }
    };
    let next = || {
        let mut bytes = [0; 99];
        manager.recv(&mut bytes).map(|length| String::from_utf8_lossy(&bytes[..length]).into_owned())
    };
    for _ in 0..5 {
        assert_eq!(next().unwrap(), "WATCHDOG=1\n");
    }
    // Its only thread stands still with the first connection.
    let trust = Trust::Files(vec![program.dir.path().join("certs/cert.pem")]);
    let uri = format!("https://localhost:{port}/").parse().unwrap();
    let opening = tokio::spawn(async move { Connection::open(&uri, &trust).await.map(drop) });
    soon("the fault", async {
        while !program.said().contains("a test blocks") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    opening.abort();
    // What was sent before that.
    manager.set_nonblocking(true).unwrap();
    while next().is_ok() {}
    manager.set_nonblocking(false).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(600))).unwrap();
    let silence = next().expect_err("a runtime that stands still was said to be alive");
    assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock);
    // A program that has ended says nothing either.
    assert_eq!(program.child.try_wait().unwrap(), None, "{}", program.said());
}

#[test]
fn commands_do_not_inherit_what_is_for_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let (_manager, mut command) = managed(&dir);
    command.args(["exec:env >printed; sleep 100"]).env("WATCHDOG_USEC", "60000000").env("LISTEN_FDNAMES", "http");
    command.env("SSLKEYLOGFILE", dir.path().join("keys"));
    let program = Program::new(dir, command);
    let printed = program.dir.path().join("printed");
    let began = Instant::now();
    let environment = loop {
        let printed = std::fs::read_to_string(&printed).unwrap_or_default();
        if printed.contains("PATH=") && printed.ends_with('\n') {
            break printed;
        }
        assert!(began.elapsed() < PATIENCE, "{}", program.said());
        std::thread::sleep(Duration::from_millis(10));
    };
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDNAMES", "SSLKEYLOGFILE"] {
        assert!(!environment.contains(name), "{environment}");
    }
    program.terminate();
}

/// The program with these sockets from 3 on, as systemd passes them.
fn activated(names: &str, sockets: [Option<OwnedFd>; 3], args: &[&str]) -> Program {
    let count = sockets.iter().flatten().count();
    // A shell gives them their numbers: what the standard streams were is not the program's.
    let moved = "exec 3<&0 4<&1 5<&2 </dev/null >ready 2>stderr";
    let script = format!("{moved}; LISTEN_PID=$$ LISTEN_FDS={count} LISTEN_FDNAMES={names} exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_h3cast"), "serve"]).args(args);
    let [first, second, third] = sockets;
    let stdio = |socket: Option<OwnedFd>| socket.map_or_else(Stdio::null, Stdio::from);
    let dir = tempfile::tempdir().unwrap();
    command.env("HOME", dir.path()).env_remove("XDG_RUNTIME_DIR").current_dir(dir.path());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    std::fs::write(dir.path().join("stderr"), "").unwrap();
    let child = command.stdin(stdio(first)).stdout(stdio(second)).stderr(stdio(third)).spawn().unwrap();
    Program { child, dir }
}

/// UDP and TCP at one port of loopback.
fn both() -> (UdpSocket, TcpListener, u16) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            return (udp, tcp, port);
        }
    }
}

/// What it answers over plain HTTP.
fn asked(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn sockets_of_systemd_take_the_place_of_those_that_were_not_asked_for() {
    let (udp, tcp, port) = both();
    let redirect = TcpListener::bind("127.0.0.1:0").unwrap();
    let redirected = redirect.local_addr().unwrap().to_string();
    let sockets = [udp.into(), tcp.into(), redirect.into()].map(Some);
    let mut program = activated("https:https:redirect", sockets, &["--http", "off"]);
    // They wait until it serves.
    let answer = tokio::task::spawn_blocking(move || asked(&redirected, "/a")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 308") && answer.contains("location: https://localhost"), "{answer}");
    let connection = program.connect(port).await;
    let uri = format!("https://127.0.0.1:{port}/healthz").parse().unwrap();
    assert_eq!(soon("the answer", connection.get(&uri)).await.unwrap().status, 200);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok());
    let printed = std::fs::read_to_string(program.dir.path().join("ready")).unwrap();
    assert!(printed.contains(&format!(":{port}/")) && !printed.contains(":4433"), "{printed}");
    program.terminate();
    assert_eq!(program.code(), Some(0));
}

#[test]
fn sockets_that_cannot_be_used_are_reported() {
    let udp = || Some(UdpSocket::bind("127.0.0.1:0").unwrap().into());
    let pair = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Some(listener.accept().unwrap().0.into())
    };
    let any = |address| Some(OwnedFd::from(TcpListener::bind((address, 0)).unwrap()));
    for (name, socket, args, said) in [
        ("http", udp(), &[][..], "the socket `http` that systemd passed is a UDP socket"),
        ("a", pair(), &[], "is a connection, not a listener: set Accept=no"),
        (
            "",
            Some(UnixDatagram::unbound().unwrap().into()),
            &[],
            "a socket that systemd passed is not a TCP or UDP socket",
        ),
        ("http", any("0.0.0.0"), &["--listen=localhost:0"], "is not a loopback address"),
        // What listens for other machines is to be as safe as with --listen.
        ("https", any("0.0.0.0"), &["publish"], "could publish to `default`"),
    ] {
        let mut program = activated(name, [socket, None, None], args);
        assert_eq!(program.code(), Some(2), "{name}: {}", program.said());
        assert!(program.said().contains(said), "{name}: {}", program.said());
    }
}

#[test]
fn systemds_own_tool_activates_it() {
    let dir = tempfile::tempdir().unwrap();
    // It takes no port 0. Of the addresses of loopback, this one is this process's.
    let [.., high, low] = std::process::id().to_be_bytes();
    let address = format!("127.64.{high}.{low}:8080");
    let listen = format!("--listen={address}");
    let mut command = Command::new("systemd-socket-activate");
    command.args([&listen, "--fdname=http", env!("CARGO_BIN_EXE_h3cast")]);
    command.args(["serve", "--listen=localhost:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut program = Program::new(dir, command);
    program.says("Listening on");
    // This starts it, and waits for it.
    let answer = asked(&address, "/healthz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut ready = String::new();
    BufReader::new(program.child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert!(ready.contains(&address), "{ready}");
    program.terminate();
    assert_eq!(program.code(), Some(0), "{}", program.said());
    program.says("shutting down");
}

#[test]
fn unit_files_are_valid_and_hardened() {
    let dir = tempfile::tempdir().unwrap();
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    let mut units = Vec::new();
    std::fs::create_dir(dir.path().join("h3cast@.service.d")).unwrap();
    for (file, unit) in [
        ("h3cast.service", Some("h3cast.service")),
        ("h3cast.socket", Some("h3cast.socket")),
        ("h3cast-quic.socket", Some("h3cast-quic.socket")),
        ("h3cast-redirect.socket", Some("h3cast-redirect.socket")),
        ("h3cast.service", Some("h3cast@a.service")),
        ("h3cast@.service.d/take-over.conf", None),
    ] {
        // The program is not installed where it would be.
        let text = std::fs::read_to_string(packaging.join(file)).unwrap();
        let path = dir.path().join(unit.unwrap_or(file).replace("@a", "@"));
        std::fs::write(path, text.replace("/usr/bin/h3cast", env!("CARGO_BIN_EXE_h3cast"))).unwrap();
        units.extend(unit.map(|unit| dir.path().join(unit)));
    }
    let verified = Command::new("systemd-analyze").arg("verify").args(&units).output().unwrap();
    let said = String::from_utf8_lossy(&verified.stderr);
    assert!(verified.status.success() && !said.contains("h3cast"), "{said}");
    // Buffers are of UDP alone: the system tunes those of TCP.
    let sockets = ["h3cast.socket", "h3cast-quic.socket"];
    let [tcp, udp] = sockets.map(|unit| std::fs::read_to_string(dir.path().join(unit)).unwrap());
    assert!(!tcp.contains("Buffer=") && !tcp.contains("ListenDatagram") && !udp.contains("ListenStream"));

    // 1.7 of 10, as docs/operations.md says, most of it for the network and for what commands need.
    let security = ["security", "--offline=true", "--no-pager", "--threshold=17"];
    let rated = Command::new("systemd-analyze").args(security).arg(&units[0]).output().unwrap();
    assert!(rated.status.success(), "{}", String::from_utf8_lossy(&rated.stdout));
}

/// A number that none was started with took gigabytes before the first socket was looked at; no number was ignored.
#[test]
fn a_number_of_sockets_that_cannot_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for number in ["2147483647", "-1", "abc"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
        command.current_dir(dir.path()).env("LISTEN_FDS", number).args(["serve", "--check"]).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{number}: {text}");
        assert!(text.contains(&format!("LISTEN_FDS={number} is not the number of sockets")), "{text}");
    }
}
