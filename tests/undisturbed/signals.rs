//! Signals: the first asks a server to stop, the second ends it, whatever else stands still.

use std::{
    fs::OpenOptions,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use super::server::{DEADLINE, Server, program, terminal, until};

/// Longer than a test waits.
const GRACE: &str = "--grace=300s";

#[test]
fn each_of_them_stops_a_server_in_good_order() {
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let mut server = Server::start(program(&[]), &["exec:echo begun; exec sleep 1000", GRACE]);
        let mut viewer = server.view("/stream?from=start");
        viewer.until("begun\n");
        server.signal(signal);
        assert_eq!(server.end(), Some(0), "{signal}");
    }
}

#[test]
fn a_second_one_ends_it_at_once() {
    for (first, second) in [("INT", "INT"), ("TERM", "QUIT"), ("QUIT", "TERM"), ("HUP", "TERM"), ("TERM", "HUP")] {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = program(&[]);
        command.stderr(writer);
        // It would run on for as long as this.
        let mut server = Server::start(command, &["demo", "--count=0", "--drain=300s", "--grace=300s"]);
        drop(command_streams(&mut server));
        let mut told = BufReader::new(reader).lines();
        server.signal(first);
        assert!(told.any(|line| line.unwrap().contains("shutting down")), "{first}");
        server.signal(second);
        assert_eq!(server.end(), Some(130), "{first}, {second}");
    }
}

/// As by a parent that blocked them for itself before it started the program.
#[test]
fn they_are_handled_where_the_parent_blocked_them() {
    for signal in ["INT", "TERM", "HUP", "QUIT"] {
        let mut server = Server::start(program(&["env", "--block-signal=INT,TERM,HUP,QUIT"]), &["demo", "--count=0"]);
        server.signal(signal);
        assert_eq!(server.end(), Some(0), "{signal}");
    }
}

fn command_streams(server: &mut Server) -> impl Sized {
    server.stdout.take()
}

#[test]
fn a_terminal_that_hangs_up_twice_is_one_signal() {
    let mut server = Server::start(program(&[]), &["demo", "--count=0", "--drain=2s", "--grace=1s"]);
    // The kernel's and the shell's.
    server.signal("HUP");
    server.signal("HUP");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn after_nohup_it_keeps_running() {
    let mut command = program(&["nohup"]);
    command.stdin(Stdio::null());
    let mut server = Server::start(command, &["chat=publish"]);
    server.signal("HUP");
    // It is not ended by that, now or a little later: an answer takes longer than a signal.
    for _ in 0..20 {
        assert_eq!(server.status("/healthz"), 200);
        assert!(!server.has_ended());
    }
    server.signal("TERM");
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_terminal_that_closes_stops_it() {
    let (master, slave) = terminal();
    // `setsid --ctty` makes the terminal the program's own, as a shell's is.
    let mut command = program(&["setsid", "--ctty"]);
    command.stdin(slave.try_clone().unwrap()).stderr(slave.try_clone().unwrap());
    let mut server = Server::start(command, &["exec:echo begun; exec sleep 1000"]);
    drop(slave);
    server.view("/stream?from=start").until("begun\n");
    drop(master);
    assert_eq!(server.end(), Some(0));
}

#[test]
#[cfg(debug_assertions)]
fn they_are_handled_when_all_workers_are_blocked_and_nobody_reads_the_log() {
    for workers in ["1", "2"] {
        let (_reader, mut writer) = io::pipe().unwrap();
        let stderr = writer.try_clone().unwrap();
        // No room for a word.
        std::thread::spawn(move || while writer.write(&[b'x'; 4096]).is_ok() {});
        let mut command = program(&[]);
        command.stderr(stderr).env("H3CAST_FAULT", "request=block");
        let mut server = Server::start(command, &["exec:echo $$ > pid; exec sleep 1000", "--workers", workers]);
        let pid = server.dir.path().join("pid");
        until("the command runs", || std::fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n')));
        let pid = std::fs::read_to_string(&pid).unwrap().trim().to_owned();
        // A request blocks its worker. With two, the other one still runs, and is blocked by the server's end.
        let mut stuck = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        stuck.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").unwrap();
        stuck.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        assert!(stuck.read(&mut [0]).is_err(), "the worker is not blocked");
        server.signal("TERM");
        let began = Instant::now();
        while !server.has_ended() {
            assert!(began.elapsed() < DEADLINE);
            std::thread::sleep(Duration::from_millis(50));
            if !server.has_ended() {
                server.signal("TERM");
            }
        }
        assert_eq!(server.end(), Some(130));
        until("its command has ended", || {
            !std::path::Path::new(&format!("/proc/{pid}")).exists()
                || std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default().contains("State:\tZ")
        });
    }
}

#[test]
fn errors_at_start_are_printed_also_when_the_log_has_begun() {
    let mut command = program(&[]);
    let output = command.args(["serve", "--listen", "nosuchhost.invalid:0"]).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nosuchhost"), "{output:?}");
    // And with nobody to print to, it still ends.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = program(&[]).args(["serve", "--listen", "nosuchhost.invalid:0"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(2));
}
