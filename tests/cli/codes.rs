//! Exit codes, as the table in docs/commands.md has them: each code of each command.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{FREE, Running, h3cast, output, text};

/// The arguments, with URL for the server's, the exit code, and what is printed.
type Case = (&'static str, i32, &'static str);

/// What the other tests show.
const ELSEWHERE: [(&str, i32); 1] = [("serve", 1)];

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap().success());
}

/// Reads standard error up to a line that has this in it.
fn wait_for(child: &mut Child, what: &str) {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains(what)) {
        seen.push(lines.next().unwrap_or_else(|| panic!("no `{what}` in {seen:?}")).unwrap());
    }
}

fn spawn(dir: &Path, args: &[&str]) -> Child {
    let mut command = h3cast(dir, args);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The commands that `h3cast help` lists.
fn commands() -> Vec<String> {
    let help = text(&output(Path::new("."), &["help"]).stdout);
    let (_, list) = help.split_once("\nCommands:\n").unwrap();
    list.lines().map_while(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_owned)).collect()
}

#[test]
fn each_command_and_code() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let server = Running::start(dir.path(), &[&["serve", "a=publish", "demo", "--count", "2"], &FREE[..]].concat());
    std::fs::write(at("file"), "").unwrap();
    // A browser that ends at once, and none.
    std::fs::create_dir(at("bin")).unwrap();
    std::fs::write(at("bin/chromium"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(at("bin/chromium"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut cases: Vec<Case> = vec![
        ("serve --check", 0, "ok"),
        ("serve tial:x", 2, "did you mean"),
        ("serve --certs file --listen localhost:0", 2, "file"),
        ("get URL/stream", 0, "data chunk #1"),
        ("get URL/stream/missing", 1, "404"),
        ("get --last x", 2, "--last"),
        ("get URL/stream --output file/below", 2, "file/below"),
        ("publish URL/stream/a", 0, ""),
        ("publish URL/stream/missing", 1, "404"),
        ("publish --chunk words", 2, "--chunk"),
        ("publish URL/stream/a --token-file nowhere", 2, "nowhere"),
        ("feeds URL", 0, "default"),
        ("feeds URL/deeper/feeds", 1, "404"),
        ("feeds http://localhost", 2, "https"),
        ("bench URL/stream -c 1 --warm-up 0", 0, "viewers"),
        ("bench URL/stream/missing -c 1 -d 1", 1, "404"),
        ("bench -c 0", 2, "--viewers"),
        ("reload", 0, "server"),
        ("reload --control nowhere", 1, "nowhere"),
        ("reload x", 2, "x"),
        ("health URL", 0, "ready"),
        ("health URL --timeout 1ns", 1, "no answer within"),
        // For a monitor, a wrong URL and a server that is down are the same.
        ("health ftp://localhost", 1, "ftp"),
        ("health --timeout soon", 2, "--timeout"),
        ("cert", 0, "certs/cert.pem"),
        ("cert --certs nowhere", 1, "nowhere"),
        ("cert --cert x.pem", 2, "--key"),
        ("open chrome URL", 0, ""),
        ("open chrome URL --certs nowhere", 1, "nowhere"),
        ("open lynx", 2, "lynx"),
        ("completions bash", 0, "h3cast"),
        ("completions tcsh", 2, "tcsh"),
        ("man pages", 0, ""),
        ("man file/below", 1, "file/below"),
        ("man", 2, "DIR"),
        ("help", 0, "Commands:"),
        ("help nothing", 2, "nothing"),
    ];
    // An output that cannot be written: for these, the only way to fail while they run.
    let mut full = vec!["completions bash", "cert", "get URL/stream"];
    if cfg!(feature = "jwt") {
        full.push("token --read a");
        cases.extend([
            ("token --read a", 0, "--tokens FILE"),
            ("token", 2, "--read FEEDS"),
            ("token --new-key file", 2, "file"),
        ]);
    }
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap());
    let url = server.url.trim_end_matches('/');
    let run = |line: &str, stdout: Stdio| {
        let args: Vec<_> = line.split(' ').map(|word| word.replace("URL", url)).collect();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        h3cast(dir.path(), &args).env("PATH", &path).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap()
    };
    for (line, code, expected) in &cases {
        let got = run(line, Stdio::piped()).wait_with_output().unwrap();
        let said = text(&got.stdout) + &text(&got.stderr);
        assert_eq!(got.status.code(), Some(*code), "{line}: {said}");
        assert!(said.contains(expected), "{line}: {said}");
    }
    for line in &full {
        let out = File::options().write(true).open("/dev/full").unwrap();
        let got = run(line, out.into()).wait_with_output().unwrap();
        assert_eq!(got.status.code(), Some(1), "{line}: {}", text(&got.stderr));
    }
    let first = |line: &'static str| line.split(' ').next().unwrap();
    let table = cases.iter().map(|(line, code, _)| (first(line), *code));
    let shown: BTreeSet<_> =
        table.chain(full.iter().map(|line| (first(line), 1))).chain(ELSEWHERE.iter().copied()).collect();
    for command in commands() {
        for code in [0, 1, 2] {
            let never = (&*command, code) == ("help", 1);
            assert!(never || shown.contains(&(&*command, code)), "no case for {command} with {code}");
        }
    }
}

#[test]
fn a_server_that_is_stopped() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["TERM", "INT", "HUP", "QUIT"] {
        let mut server = Running::start(dir.path(), &[&["serve"], &FREE[..]].concat());
        server.signal(name);
        assert_eq!(server.child.wait().unwrap().code(), Some(0), "{name}");
    }
    // The second signal does not wait for a stream without end.
    let args = [&["serve"], &FREE[..], &["--count", "0", "--grace", "1h"]].concat();
    let mut server = Running::start(dir.path(), &args);
    let mut get =
        h3cast(dir.path(), &["get", &format!("{}stream", server.url)]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(get.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    server.signal("TERM");
    wait_for(&mut server.child, "shutting down");
    server.signal("TERM");
    assert_eq!(server.child.wait().unwrap().code(), Some(130));
    let _ = get.kill();
    let _ = get.wait();
}

#[test]
#[cfg(debug_assertions)]
fn a_server_of_which_a_part_fails() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = h3cast(dir.path(), &[&["serve"], &FREE[..]].concat());
    assert_eq!(command.env("H3CAST_FAULT", "udp=error").output().unwrap().status.code(), Some(1));
}

#[test]
fn ctrl_c_of_clients() {
    let dir = tempfile::tempdir().unwrap();
    // Its log shows each viewer.
    let source = "viewed=exec:echo x; echo viewed >&2; exec sleep 300";
    let sources = ["serve", "a=publish", source, "--per-viewer", "--stderr", "viewed=log"];
    let mut server = Running::start(dir.path(), &[&sources[..], &FREE].concat());
    let (feed, published) = (format!("{}stream/viewed", server.url), format!("{}stream/a", server.url));
    let mut log = BufReader::new(server.child.stderr.take().unwrap()).lines();
    for args in [&["get", &feed][..], &["get", &feed, "--resume", "--webtransport"], &["bench", &feed, "-c", "1"]] {
        let mut client = spawn(dir.path(), args);
        assert!(log.by_ref().any(|line| line.unwrap().contains("viewed")), "{args:?}");
        interrupt(&client);
        assert_eq!(client.wait().unwrap().code(), Some(130), "{args:?}");
    }
    let mut reader = h3cast(dir.path(), &["get", "--last", "1", &published]).stdout(Stdio::piped()).spawn().unwrap();
    let mut published_lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    for more in [&[][..], &["--webtransport"]] {
        let mut client = spawn(dir.path(), &[&["publish", &published], more].concat());
        // Not closed before the client has ended: the end of its input could come before the signal.
        let mut stdin = client.stdin.take().unwrap();
        stdin.write_all(b"line\n").unwrap();
        assert_eq!(published_lines.next().unwrap().unwrap(), "line");
        interrupt(&client);
        let ended = client.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(130), "publish {more:?}: {}", text(&ended.stderr));
    }
    let _ = reader.kill();
    let _ = reader.wait();
}
