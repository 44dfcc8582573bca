//! Commands: how they end, what they are started with, and whom they cannot ask.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use h3cast::client::Connection;

use crate::{
    common::soon,
    program,
    serving::{Reading, Serving, gone, kill},
};

/// Waits until a file has a whole line, and gives it.
async fn line_of(file: &Path) -> String {
    soon(&format!("a line in {}", file.display()), async {
        loop {
            match std::fs::read_to_string(file) {
                Ok(text) if text.ends_with('\n') => return text.trim_end().to_owned(),
                // Nobody tells when it is there.
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// All that a viewer gets of a feed that is kept, from its start to its end.
async fn all_of(serving: &Serving, connection: &Connection, name: &str) -> String {
    let uri = serving.uri(&format!("/stream/{name}?from=start&format=frames"));
    // Also where something comes again and again, but no end.
    let all = soon("the end of the feed", Reading::open(connection, &uri, false).await.all()).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Says who it is, and when it is asked to end, does so in its own time. It does not start a program again
/// and again: a signal that comes just then is lost to some shells.
const POLITE: &str = "trap 'echo asked >>asked; echo last words; exit 0' TERM; sleep 1000 & echo $$; wait";
/// Ends for nobody.
const STUBBORN: &str = "trap '' TERM HUP INT; echo $$; while :; do sleep 0.02; done";

#[tokio::test]
async fn a_viewer_that_leaves_asks_its_command_to_end() {
    let serving = Serving::start(|_| vec![format!("exec:{POLITE}"), "--per-viewer".into()]);
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
    let pid = reading.line().await.trim().to_owned();
    drop((reading, connection));
    assert_eq!(line_of(&serving.dir().join("asked")).await, "asked");
    assert_eq!(gone(&[pid]), [""; 0]);
    serving.stop();
}

/// What it prints while it cleans up has no reader any more, and does not keep it from that.
#[tokio::test]
async fn a_command_may_print_after_its_viewer_has_left() {
    // More than a pipe holds.
    let clean = "echo cleaning up && seq 20000 && echo complete >cleaned; exit 0";
    let command = format!("exec:trap '{clean}' TERM; sleep 1000 & echo $$; wait");
    let serving = Serving::start(|_| vec![command, "--per-viewer".into()]);
    let connection = serving.connect().await;
    for webtransport in [false, true] {
        let mut reading = Reading::open(&connection, &serving.uri("/stream"), webtransport).await;
        let pid = reading.line().await.trim().to_owned();
        drop(reading);
        soon("the command ends", async {
            while is_alive(&pid) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let cleaned = std::fs::read_to_string(serving.dir().join("cleaned")).unwrap_or_default();
        assert_eq!(cleaned, "complete\n", "webtransport: {webtransport}");
        std::fs::remove_file(serving.dir().join("cleaned")).unwrap();
    }
    drop(connection);
    serving.stop();
}

#[tokio::test]
async fn a_command_that_ignores_the_question_is_killed_two_seconds_later() {
    let serving = Serving::start(|_| vec![format!("exec:{STUBBORN}"), "--per-viewer".into()]);
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream"), true).await;
    let pid = reading.line().await.trim().to_owned();
    let left = Instant::now();
    drop((reading, connection));
    soon("it is killed", async {
        while is_alive(&pid) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(left.elapsed() >= Duration::from_secs(2), "after {:?}", left.elapsed());
    serving.stop();
}

/// On the way out, a command may finish what it was at, and its viewers see it.
#[tokio::test]
async fn what_commands_print_when_the_server_stops_reaches_viewers() {
    for per_viewer in [false, true] {
        let more = if per_viewer { "--per-viewer" } else { "--restart" };
        let serving = Serving::start(|_| vec![format!("exec:{POLITE}"), more.into()]);
        let connection = serving.connect().await;
        let uri = serving.uri("/stream?from=start&format=frames");
        let mut readings =
            [Reading::open(&connection, &uri, false).await, Reading::open(&connection, &uri, true).await];
        for reading in &mut readings {
            // Its number, in a frame.
            while reading.next().await.unwrap().expect("more").last() != Some(&b'\n') {}
        }
        let stopping = tokio::task::spawn_blocking(|| serving.stop());
        for (number, reading) in readings.iter_mut().enumerate() {
            let rest = String::from_utf8_lossy(&reading.all().await).into_owned();
            assert!(rest.contains("last words\n"), "{more}, reading {number}: {rest:?}");
            // Neither a success nor a failure of the command: it may be there again with the server.
            assert!(!rest.contains("command"), "{more}, reading {number}: {rest:?}");
        }
        drop(readings);
        soon("the end", stopping).await.unwrap();
    }
}

#[tokio::test]
async fn commands_run_on_while_the_server_drains() {
    // It waits for a file, and the question to end ends it before that.
    let command = "exec:trap 'exit 0' TERM; echo begun; while ! test -e poke; do sleep 0.02; done; echo still here; exec sleep 1000";
    let serving = Serving::start(|_| vec![command, "--drain=300s"]);
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    assert_eq!(reading.line().await, "begun\n");
    serving.terminate();
    soon("it drains", async {
        while connection.get(&serving.uri("/readyz")).await.unwrap().status == 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    std::fs::write(serving.dir().join("poke"), "").unwrap();
    assert_eq!(reading.line().await, "still here\n");
    let stopping = tokio::task::spawn_blocking(|| serving.stop_at_once());
    soon("the end", stopping).await.unwrap();
}

#[tokio::test]
async fn a_second_signal_kills_at_once() {
    let serving = Serving::start(|_| vec![format!("exec:{STUBBORN}"), "--grace=15s".into()]);
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    let pid = reading.line().await.trim().to_owned();
    let stopping = tokio::task::spawn_blocking(|| serving.stop_at_once());
    soon("the end", stopping).await.unwrap();
    // The system may take a moment; what watches over commands would kill it no earlier than 2 s later.
    let ended = Instant::now();
    while is_alive(&pid) {
        assert!(ended.elapsed() < Duration::from_millis(1500), "it runs on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What keeps a command from being run may be over soon: too many processes, too many open files.
#[cfg(debug_assertions)]
#[tokio::test]
async fn a_command_that_cannot_be_run_again_is_tried_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "--restart", "exec:echo run"];
    let mut serving = program::command(dir.path(), &args);
    serving.env("H3CAST_FAULT", "command=error@2");
    let mut serving = program::Serving::of(program::Program::of(serving)).await;
    let line = serving.program.told("cannot run `echo run`").await;
    assert!(line.contains("WARN") && line.contains("default") && line.contains("a test asks for an error"), "{line}");
    let url = serving.url("/stream?from=start&limit=2");
    let got = program::output(dir.path(), &["get", &url]).await;
    assert_eq!(program::text(&got.stdout), "run\nrun\n", "{}", program::text(&got.stderr));
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
}

/// Viewers that come and go while the server stops: whatever was begun for them ends before it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_command_outlives_the_server() {
    for round in 0..3 {
        // What it has started is not the server's child, and ends only with the group.
        let command = "exec:sleep 1000 & echo $! >>pids; echo $$ >>pids; echo here; wait";
        let serving = Serving::start(|_| vec![command, "--per-viewer", "--grace=1s"]);
        let pids = serving.dir().join("pids");
        let connection = std::sync::Arc::new(serving.connect().await);
        let uri = serving.uri("/stream");
        let mut readings = Vec::new();
        for number in 0..6 {
            let mut reading = Reading::open(&connection, &uri, number % 2 == 1).await;
            reading.line().await;
            readings.push(reading);
        }
        // One half leaves as the server stops, others come.
        readings.truncate(3);
        let coming: Vec<_> = (0..6)
            .map(|_| {
                let (connection, uri) = (connection.clone(), uri.clone());
                tokio::spawn(async move { connection.get(&uri).await.is_ok() })
            })
            .collect();
        // Read where it is before the folder goes with the server.
        let copy = tempfile::NamedTempFile::new().unwrap();
        std::fs::hard_link(&pids, copy.path().with_extension("pids")).unwrap();
        let copy = copy.path().with_extension("pids");
        let stopping = tokio::task::spawn_blocking(|| serving.stop());
        soon("the end", stopping).await.unwrap();
        let started = std::fs::read_to_string(&copy).unwrap();
        std::fs::remove_file(copy).unwrap();
        let left: Vec<_> = started.lines().filter(|pid| is_alive(pid)).map(String::from).collect();
        kill(&left);
        assert!(started.lines().count() >= 12);
        assert!(left.is_empty(), "round {round}: {} of {} are left", left.len(), started.lines().count());
        drop((readings, coming));
    }
}

/// A server that is killed can do nothing; its commands end all the same, silent ones and stubborn ones too.
#[tokio::test]
async fn commands_end_after_a_server_that_was_killed() {
    for more in [&[][..], &["--per-viewer"]] {
        let commands = [format!("polite=exec:{POLITE}"), format!("stubborn=exec:{STUBBORN}")];
        let gone_by_then = "gone=exec:echo $$; exit 1".to_owned();
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let serving = Serving::start(|_| commands.into_iter().chain([gone_by_then]).chain(more).collect());
        let connection = serving.connect().await;
        let (mut readings, mut pids) = (Vec::new(), Vec::new());
        for name in ["gone", "polite", "stubborn"] {
            let uri = serving.uri(&format!("/stream/{name}?from=start"));
            let mut reading = Reading::open(&connection, &uri, false).await;
            pids.push(reading.line().await.trim().to_owned());
            readings.push(reading);
        }
        serving.kill();
        soon("its commands end", async {
            while pids.iter().any(|pid| is_alive(pid)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

/// What watches over commands goes with the server.
#[tokio::test]
async fn a_server_that_stops_leaves_no_process() {
    let serving = Serving::start(|_| vec!["exec:echo $PPID; exec sleep 1000"]);
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    let server = reading.line().await.trim().to_owned();
    let children: Vec<String> = std::fs::read_dir(format!("/proc/{server}/task"))
        .unwrap()
        .map(|thread| std::fs::read_to_string(thread.unwrap().path().join("children")).unwrap())
        .flat_map(|children| children.split_whitespace().map(String::from).collect::<Vec<_>>())
        .collect();
    // Its command, and who watches.
    assert_eq!(children.len(), 2);
    drop((reading, connection));
    serving.stop();
    assert_eq!(gone(&children), [""; 0]);
}

/// It is told to end as its command would be.
#[tokio::test]
async fn what_a_command_leaves_behind_is_asked_to_end() {
    let left = "(trap 'echo asked >asked; exit' TERM; sleep 1000 & echo ready >ready; wait)";
    let command = format!("exec:{left} >/dev/null 2>&1 & while ! test -s ready; do sleep 0.02; done; echo done");
    let serving = Serving::start(|_| vec![command]);
    let connection = serving.connect().await;
    assert!(all_of(&serving, &connection, "default").await.contains("done\n"));
    assert_eq!(line_of(&serving.dir().join("asked")).await, "asked");
    serving.stop();
}

/// Nor does it hide how its command ended, by holding the pipe. Nothing that was in the pipe is lost.
#[tokio::test]
async fn a_process_left_behind_keeps_no_feed_open() {
    for more in [&[][..], &["--per-viewer"]] {
        let held = "held=exec:seq 20000; sleep 1000 & exit 3";
        // It is not in the command's group any more, and keeps writing.
        let escaped = "escaped=exec:seq 20000; setsid sh -c 'echo $$ >pid; while sleep 0.02; do echo y; done' & exit 3";
        // Feeds of a command for each viewer have no history.
        let history = if more.is_empty() { &["--history=64M"][..] } else { &[] };
        let serving = Serving::start(|_| [&[held, escaped], history, more].concat());
        let connection = serving.connect().await;
        for name in ["held", "escaped"] {
            let all = all_of(&serving, &connection, name).await;
            assert!(all.contains("20000\n") && all.contains("the command exited with status 3"), "{name} {more:?}");
        }
        kill(&[line_of(&serving.dir().join("pid")).await]);
        serving.stop();
    }
}

#[tokio::test]
async fn a_process_left_behind_delays_no_restart() {
    let serving = Serving::start(|_| ["exec:echo begun; sleep 1000 & exit 3", "--restart"].to_vec());
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    assert_eq!(reading.line().await, "begun\n");
    assert_eq!(reading.line().await, "begun\n");
    let log = std::fs::read_to_string(serving.dir().join("stderr")).unwrap();
    assert!(log.contains("the command exited with status 3") && !log.contains("FeedError"), "{log}");
    drop((reading, connection));
    serving.stop();
}

/// A parent that waits for no child of its own passes that on.
#[tokio::test]
async fn a_command_has_a_status_where_children_are_not_waited_for() {
    let args = ["good=exec:seq 3", "bad=exec:exit 3"].to_vec();
    let serving = Serving::start_by(&["env", "--ignore-signal=CHLD"], |_| args);
    let connection = serving.connect().await;
    let all = all_of(&serving, &connection, "good").await;
    assert!(all.contains("3\n") && !all.contains("the command"), "{all}");
    let all = all_of(&serving, &connection, "bad").await;
    assert!(all.contains("the command exited with status 3"), "{all}");
    serving.stop();
}

/// A start that fails has run nothing and read nothing: standard input is left to who is next, and who writes
/// to a named pipe is not killed. The failure is all that is reported: no feed has failed.
#[tokio::test]
async fn a_start_that_fails_runs_and_reads_nothing() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let sources = ["log=exec:touch marker", "in=-", "pipe=tail:pipe", "file=tail:file", "chat=publish"];
    for (case, more, why) in [
        ("taken", &["--listen", &taken][..], "in use"),
        ("host", &["--listen", "nosuchhost.invalid:0"], "nosuchhost.invalid"),
        ("foreign", &["--listen", "127.0.0.1:0"], "certs/cert.pem"),
        ("own", &["--listen", "127.0.0.1:0", "--cert", "own.pem", "--key", "own.pem"], "own.pem"),
        ("later", &["--listen", "127.0.0.1:0", "socket=tail:socket"], "it is a socket"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "a line\n").unwrap();
        std::fs::write(at("own.pem"), "nothing of the kind").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        if case == "foreign" {
            std::fs::create_dir(at("certs")).unwrap();
            std::fs::write(at("certs/cert.pem"), "nothing of ours").unwrap();
            std::fs::write(at("certs/key.pem"), "nothing of ours").unwrap();
        }
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        // It waits for a reader, and dies if that goes away.
        let mut writer = tokio::process::Command::new("sh");
        writer.args(["-c", "echo line >pipe"]).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut writer = writer.kill_on_drop(true).spawn().unwrap();
        let (stdin, mut given) = std::io::pipe().unwrap();
        given.write_all(b"for who comes next\n").unwrap();
        drop(given);
        let rest = stdin.try_clone().unwrap();
        let mut serving = program::command(dir.path(), &["serve", "--http", "off"]);
        serving.args(sources).args(more).stdin(stdin);
        let output = soon("it ends", serving.output()).await.unwrap();
        let told = program::text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{case}: {told}");
        assert!(told.contains(why) && !told.contains("WARN") && !told.contains("feed failed"), "{case}: {told}");
        assert!(!at("marker").exists(), "{case}");
        assert_eq!(std::io::read_to_string(rest).unwrap(), "for who comes next\n", "{case}");
        // Whoever comes next reads it all.
        assert!(writer.try_wait().unwrap().is_none(), "{case}: the writer of the pipe has ended");
        let read = Command::new("timeout").args(["20", "cat", "pipe"]).current_dir(dir.path()).output().unwrap();
        assert_eq!(read.stdout, b"line\n", "{case}");
        assert!(soon("the writer ends", writer.wait()).await.unwrap().success(), "{case}");
    }
}

/// Its feed has failed, and the others are served.
#[cfg(debug_assertions)]
#[tokio::test]
async fn a_command_that_cannot_be_run_fails_its_feed() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["serve", "--listen", "localhost:0", "--http", "off", "bad=exec:echo run", "demo"];
    let mut serving = program::command(dir.path(), &args);
    serving.env("H3CAST_FAULT", "command=error");
    let mut serving = program::Serving::of(program::Program::of(serving)).await;
    let line = serving.program.told("the feed failed").await;
    assert!(line.contains("cannot run `echo run`: a test asks for an error"), "{line}");
    let got = program::output(dir.path(), &["get", &serving.url("/stream/bad?from=start")]).await;
    assert_eq!(got.status.code(), Some(1));
    let told = program::text(&got.stderr);
    assert!(told.contains("cannot run `echo run`: a test asks for an error"), "{told}");
    serving.program.signal("TERM");
    assert_eq!(serving.program.end().await.2, Some(0));
}

#[tokio::test]
async fn how_a_command_failed_is_said_in_words() {
    let serving = Serving::start(|_| vec!["status=exec:echo one; exit 101", "signal=exec:echo two; kill -9 $$"]);
    let connection = serving.connect().await;
    for (name, reason) in
        [("status", "the command exited with status 101"), ("signal", "the command was killed by signal 9 (SIGKILL)")]
    {
        let got = all_of(&serving, &connection, name).await;
        assert!(got.contains(reason), "{got:?}");
        let feeds = serving.feeds(&connection).await;
        let feed = feeds.iter().find(|feed| feed["name"] == name).unwrap();
        assert_eq!(feed["error"], reason);
    }
    serving.stop();
}

/// The server raises its own limit of open files, and not that of its commands.
#[tokio::test]
async fn commands_have_the_limits_that_the_server_was_started_with() {
    let command = r#"exec:ulimit -S -n; echo "$0 $#"; printf '%s\n' 'quoted "$1"'; test "$$" = "$(ps -o pgid= -p $$ | tr -d ' ')"; echo $?"#;
    for more in ["--restart", "--per-viewer"] {
        let serving = Serving::start_limited(300, |_| vec![command, more]);
        let connection = serving.connect().await;
        let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
        let mut said = String::new();
        while said.lines().count() < 4 {
            said += &reading.line().await;
        }
        assert_eq!(said, "300\nsh 0\nquoted \"$1\"\n0\n", "{more}");
        drop((reading, connection));
        serving.stop();
    }
}

#[tokio::test]
async fn commands_get_none_of_our_settings_and_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .current_dir(dir.path())
        .args(["serve", "--listen", "localhost:0", "--http", "off"])
        .arg("exec:env >environment.part; echo >>environment.part; mv environment.part environment; exec sleep 1000")
        .envs([("H3CAST_PUBLISH_TOKEN", "s3cret"), ("H3CAST_ENGINE", "nats://user:s3cret@127.0.0.1:4222")])
        .envs([("H3CAST_NATS_CREDS", "/s3cret.creds"), ("H3CAST_GRACE", "1s"), ("KEPT", "as it is")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let environment = line_of(&dir.path().join("environment")).await;
    kill_with("TERM", child.id());
    assert!(child.wait().unwrap().success());
    assert!(environment.contains("KEPT=as it is"), "{environment}");
    assert!(!environment.contains("s3cret") && !environment.contains("H3CAST_"), "{environment}");
}

fn kill_with(signal: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", signal, &pid.to_string()]).status().unwrap().success());
}

/// Started in a terminal, as most are: what a command asks there nobody could answer, as it is not in the
/// foreground. It gets an error, and is not stopped.
#[tokio::test]
async fn a_command_that_asks_the_terminal_gets_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (pty, pts) = pty_process::blocking::open().unwrap();
    let pty = std::sync::Arc::new(pty);
    let command = "exec:if read answer </dev/tty; then echo yes >asked; else echo no >asked; fi; exec sleep 1000";
    let mut child = pty_process::blocking::Command::new(env!("CARGO_BIN_EXE_h3cast"))
        .current_dir(dir.path())
        .args(["serve", "--listen", "localhost:0", "--http", "off", command])
        .spawn(pts)
        .unwrap();
    // Nobody waits for what it prints.
    let reader = pty.clone();
    std::thread::spawn(move || std::io::copy(&mut &*reader, &mut std::io::sink()));
    assert_eq!(line_of(&dir.path().join("asked")).await, "no");
    // Ctrl-C reaches the server, which ends it.
    (&*pty).write_all(b"\x03").unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert!(soon("the end", status).await.unwrap().success());
}

/// Whose lines are all there at once must not take a worker for itself.
#[tokio::test]
async fn a_flood_of_lines_holds_up_no_other_request() {
    let big = "seq 3000000 >big; exec tail -f big";
    for args in [&["exec:yes"][..], &["exec:yes >&2", "--stderr", "log"], &[&format!("exec:{big}"), "log=tail:big"]] {
        let serving = Serving::start_by(&["env", "H3CAST_WORKERS=1"], |_| args.to_vec());
        let connection = serving.connect().await;
        for _ in 0..5 {
            let answer = soon("an answer while lines come", connection.get(&serving.uri("/healthz"))).await;
            assert_eq!(answer.unwrap().status, 200, "{args:?}");
        }
        assert!(serving.stop() < Duration::from_secs(10), "{args:?}");
    }
}
