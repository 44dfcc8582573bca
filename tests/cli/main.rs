//! The program as its users run it.
#![cfg(feature = "cli")]

#[cfg(unix)]
mod codes;
mod documented;
#[cfg(unix)]
mod feeds;
mod mistyped;
mod settings;
#[cfg(unix)]
mod shells;
#[cfg(unix)]
mod shown;

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

fn h3cast(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(dir).args(args).stdin(Stdio::null());
    command.env("HOME", dir).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    command
}

fn output(dir: &Path, args: &[&str]) -> Output {
    h3cast(dir, args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A running server; killed when dropped.
struct Running {
    child: Child,
    announced: String,
    url: String,
}

impl Running {
    fn start(dir: &Path, args: &[&str]) -> Self {
        let child = h3cast(dir, args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self::ready(child)
    }

    fn ready(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a line before the end").unwrap();
        assert!(first.starts_with("ready http"), "{first}");
        let mut announced = first + "\n";
        // The block ends with the Chrome command.
        while !announced.contains("--user-data-dir") {
            announced += &(lines.next().expect("the whole block").unwrap() + "\n");
        }
        let url = announced.split_whitespace().find(|word| word.starts_with("https://")).unwrap().to_owned();
        Self { child, announced, url }
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const FREE: [&str; 4] = ["--listen", "localhost:0", "--http", "localhost:0"];

#[test]
fn without_a_command_it_serves_the_demo() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), &[&FREE[..], &["--interval", "1ms"]].concat());
    assert!(server.url.starts_with("https://localhost:") && !server.url.ends_with(":0/"), "{}", server.url);
    let cert: serde_json::Value = serde_json::from_slice(&output(dir.path(), &["cert", "--json"]).stdout).unwrap();
    for value in ["sha256", "spki_sha256_base64"] {
        assert!(server.announced.contains(cert[value].as_str().unwrap()), "{value} in {}", server.announced);
    }
    assert!(server.announced.contains("http://localhost:"), "{}", server.announced);
    let stream = format!("{}stream", server.url);
    let expected: String = (0..10).map(|number| format!("data chunk #{number}\n")).collect();
    for transport in [&[][..], &["--webtransport"]] {
        let got = output(dir.path(), &[&["get", &stream, "-v"], transport].concat());
        assert_eq!(text(&got.stdout), expected);
        assert!(got.status.success());
        assert!(text(&got.stderr).contains("clean end after 140 bytes"), "{}", text(&got.stderr));
    }
    let got = output(dir.path(), &["get", &format!("{stream}?delivery=datagrams"), "--webtransport"]);
    assert_eq!(text(&got.stdout), expected, "{}", text(&got.stderr));
    // Each way of trusting, and none.
    let empty = tempfile::tempdir().unwrap();
    let pem = dir.path().join("certs/cert.pem");
    let hash = cert["sha256"].as_str().unwrap();
    for trust in [&["--cacert", pem.to_str().unwrap()][..], &["--cert-hash", hash], &["--insecure"]] {
        let got = output(empty.path(), &[&["get", &stream], trust].concat());
        assert_eq!(text(&got.stdout), expected, "{}", text(&got.stderr));
        assert_eq!(text(&got.stderr).contains("--insecure"), trust == ["--insecure"]);
    }
    let got = output(empty.path(), &["get", &stream]);
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("not trusted"), "{}", text(&got.stderr));
    // What the server refuses.
    let got = output(dir.path(), &["get", &format!("{stream}/nothing")]);
    assert_eq!(got.status.code(), Some(1));
    assert!(
        text(&got.stderr).contains("404") && text(&got.stderr).contains("there is no feed"),
        "{}",
        text(&got.stderr)
    );
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), &[&["serve"], &FREE[..], &["--count", "0", "--interval", "1ms"]].concat());
    for transport in [&[][..], &["--webtransport"]] {
        let mut child = h3cast(dir.path(), &[&["get", &format!("{}stream", server.url)], transport].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "data chunk #0\n");
        // The reader is dropped: as `| head -1`.
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(stderr, "");
    }
}

#[test]
fn colours_are_as_the_environment_wants() {
    let dir = tempfile::tempdir().unwrap();
    let coloured = |variables: &[(&str, &str)]| {
        let mut command = h3cast(dir.path(), &["serve", "-", "--count", "5", "--check"]);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        let stderr = text(&command.output().unwrap().stderr);
        assert!(stderr.contains("has no effect"), "{stderr}");
        stderr.contains('\u{1b}')
    };
    assert!(!coloured(&[]), "standard error is no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
}

#[test]
fn bad_input_is_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("localhost:{}", taken.local_addr().unwrap().port());
    for certs in ["made", "other"] {
        h3cast::Identity::self_signed(&dir.path().join(certs), &[], Default::default()).unwrap();
    }
    std::fs::write(dir.path().join("file"), "").unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--listen", &taken, "--http", "off"], "is in use by another program"),
        (&["--listen", "localhost:0", "--http", &taken], "is in use by another program"),
        (&["--listen", "nonsense"], "HOST:PORT"),
        (&["--listen", "localhost:99999"], "HOST:PORT"),
        (&["--listen", "203.0.113.1:0", "--http", "off"], "cannot listen on 203.0.113.1"),
        (&["--listen", "localhost:0", "--http", "0.0.0.0:0"], "not a loopback address"),
        (&["--cert", "made/cert.pem", "--key", "other/key.pem"], "do not fit together"),
        (&["--cert", "made/cert.pem", "--key", "nothing.pem"], "cannot read nothing.pem"),
        (&["--cert", "file", "--key", "made/key.pem"], "file holds no certificate"),
        (&["--cert", "made/cert.pem"], "--key"),
        (&["--certs", "file"], "file"),
        (&["--interval", "fast"], "--interval"),
        (&["--static", "nowhere"], "nowhere is not a folder"),
        (&["--lag", "sometimes"], "skip, disconnect or block"),
        (&["--history", "default=lots"], "number of bytes"),
        (&["--chunk", "video=bytes"], "there is no feed `video`"),
        (&["serve", "log=publish", "--listen", "0.0.0.0:0"], "--publish-token"),
        (&["serve", "log=publish", "--publish-token", "a b"], "without spaces"),
        #[cfg(feature = "jwt")]
        (&["serve", "--tokens", "file", "--auth-ca", "made/cert.pem"], "--auth-ca is for the https URL of --auth"),
        #[cfg(feature = "jwt")]
        (&["serve", "--auth", "made/cert.pem", "--auth-ca", "made/cert.pem"], "--auth-ca is for"),
        #[cfg(feature = "jwt")]
        (&["serve", "--auth-ca", "made/cert.pem"], "--auth-ca is for"),
        (&["--allow-origin", "example.org"], "is not a valid origin"),
        (&["--open", "lynx"], "chrome"),
        (&["--log", "a=b=c"], "log level"),
        (&["get", "http://localhost/"], "write the https URL that the server printed"),
        (&["get", "nonsense"], "https://HOST"),
        (&["get", "--cert-hash", "12"], "64 hexadecimal digits"),
        (&["get", "--cacert", "file"], "cannot use the certificates in file"),
        (&["get", "--insecure", "--cacert", "file"], "cannot be used with"),
        (&["nonsense"], "nonsense"),
    ];
    for (args, expected) in cases {
        let got = output(dir.path(), args);
        let (stdout, stderr) = (text(&got.stdout), text(&got.stderr));
        assert_eq!(got.status.code(), Some(2), "{args:?}: {stdout}{stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
        assert!(!stderr.contains("os error"), "{stderr}");
        assert_eq!(stdout, "", "{args:?}");
    }
}

#[test]
fn the_plain_port_moves_only_when_nobody_asked_for_it() {
    let dir = tempfile::tempdir().unwrap();
    // In use by us, or by another program already.
    let _taken = TcpListener::bind("127.0.0.1:8080");
    let server = Running::start(dir.path(), &["--listen", "localhost:0"]);
    assert!(server.announced.contains("http://localhost:"), "{}", server.announced);
    assert!(!server.announced.contains("http://localhost:8080/"), "{}", server.announced);
    let got = output(dir.path(), &["--listen", "localhost:0", "--http", "localhost:8080"]);
    assert_eq!(got.status.code(), Some(2));
    assert!(text(&got.stderr).contains("8080 is in use"), "{}", text(&got.stderr));
}

#[test]
fn nobody_there() {
    let dir = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let got = output(dir.path(), &["get", &format!("https://localhost:{port}/stream")]);
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("is the server running"), "{}", text(&got.stderr));
}

#[test]
fn a_token_of_the_command_line_counts_before_a_file_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path(), &["--listen", "localhost:0", "--http", "off", "--count", "1"]);
    let url = format!("{}stream", server.url);
    for (args, status, said) in [
        (&["get", &url, "--token", "given"][..], 0, ""),
        // The same as that of the environment, and all the same given.
        (&["get", &url, "--token", "of-the-environment"], 0, ""),
        (&["get", &url], 2, "nowhere"),
        (&["get", &url, "--token-file", "elsewhere"], 2, "elsewhere"),
    ] {
        let mut command = h3cast(dir.path(), args);
        command.env("H3CAST_TOKEN", "of-the-environment").env("H3CAST_TOKEN_FILE", "nowhere");
        let got = command.output().unwrap();
        assert!(text(&got.stderr).contains(said), "{args:?}: {}", text(&got.stderr));
        assert_eq!(got.status.code(), Some(status), "{args:?}");
    }
}

/// Without JSON web tokens nothing makes tokens, and there is no `--auth`.
#[test]
#[cfg(not(feature = "jwt"))]
fn what_is_not_built_in_is_not_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "short\n").unwrap();
    let of = |args: &[&str]| {
        let got = output(dir.path(), args);
        text(&got.stdout) + &text(&got.stderr)
    };
    for (args, there) in [
        (&["help", "serve-all"][..], "--tokens"),
        (&["serve", "--public", "log"], "without --tokens"),
        (&["serve", "log=publish", "--listen", "0.0.0.0:0"], "--tokens FILE"),
        (&["serve", "--tokens", "file"], "--tokens"),
    ] {
        let said = of(args);
        assert!(said.contains(there), "{args:?}: {said}");
        let named = said.split(|c: char| c != '-' && !c.is_alphanumeric()).any(|word| word == "--auth");
        assert!(!named && !said.contains("h3cast token"), "{args:?}: {said}");
    }
}

#[cfg(unix)]
#[test]
fn a_browser_is_started_with_the_flags_or_the_command_is_printed() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    h3cast::Identity::self_signed(&dir.path().join("certs"), &[], Default::default()).unwrap();
    let spki = || {
        let cert: serde_json::Value = serde_json::from_slice(&output(dir.path(), &["cert", "--json"]).stdout).unwrap();
        cert["spki_sha256_base64"].as_str().unwrap().to_owned()
    };
    // Any server will do: its certificate is in the folder.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let url = format!("https://localhost:{port}/");
    let got = h3cast(dir.path(), &["open", "chrome", &url]).env("PATH", "").output().unwrap();
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("was found on this machine"), "{}", text(&got.stderr));
    assert!(text(&got.stdout).contains(&format!("--ignore-certificate-errors-spki-list={}", spki())));
    // A browser that writes down how it was called.
    let fake = dir.path().join("chromium");
    std::fs::write(&fake, format!("#!/bin/sh\necho \"$@\" > {}/called\n", dir.path().display())).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let open = || h3cast(dir.path(), &["open", "chrome", &url]).env("PATH", dir.path()).output().unwrap();
    let got = open();
    assert!(got.status.success(), "{}", text(&got.stderr));
    let called = std::fs::read_to_string(dir.path().join("called")).unwrap();
    assert!(called.contains(&format!("--origin-to-force-quic-on=localhost:{port} ")), "{called}");
    assert!(called.contains(&format!("--ignore-certificate-errors-spki-list={} ", spki())), "{called}");
    let profile = called.split("--user-data-dir=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(!Path::new(profile).exists(), "the profile goes with the browser");
    // Without a server there is nothing to open.
    std::fs::remove_file(dir.path().join("called")).unwrap();
    drop(server);
    let got = open();
    let told = format!("nothing is listening on localhost:{port}: start a server with `h3cast serve`");
    assert_eq!((got.status.code(), text(&got.stdout).as_str()), (Some(1), ""));
    assert!(text(&got.stderr).contains(&told), "{}", text(&got.stderr));
    assert!(!dir.path().join("called").exists());
}
