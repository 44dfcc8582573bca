//! The program: its flags, `h3cast token`, and clients whose token is replaced while they read.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Output, Stdio},
};

#[path = "../common/serving.rs"]
mod serving;

use serving::Serving;

fn h3cast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    h3cast(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(feature = "jwt")]
#[test]
fn a_key_is_made_signs_and_verifies() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("cast.pem");
    let key = key.to_str().unwrap();
    let made = run(&["token", "--new-key", key]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(!run(&["token", "--new-key", key]).status.success(), "a key that is there is left alone");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let public = folder.path().join("cast.pub.pem");
    let server = Serving::start(|_| {
        [
            "log=publish",
            "other=publish",
            "--auth",
            public.to_str().unwrap(),
            "--auth-audience",
            "casts",
            "--public",
            "other",
        ]
        .map(String::from)
        .to_vec()
    });
    let token = |arguments: &[&str]| {
        let made = run(&[&["token", "--key", key][..], arguments].concat());
        assert!(made.status.success(), "{}", text(&made.stderr));
        text(&made.stdout).trim().to_owned()
    };
    let certificate = server.certificate();
    let trust = ["--cacert", certificate.to_str().unwrap()];
    let uri = server.uri("/stream/log").to_string();
    let publish = |token: &str| {
        let arguments = [&["publish", uri.as_str()][..], &trust].concat();
        let mut child =
            h3cast(&arguments).env("H3CAST_TOKEN", token).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"a line\n").unwrap();
        child.wait_with_output().unwrap()
    };
    let writer = token(&["--publish", "log", "--aud", "casts", "--sub", "me"]);
    let published = publish(&writer);
    assert!(published.status.success(), "{}", text(&published.stderr));
    let get = |url: &str, token: &str| {
        let arguments = [&["get", url][..], &trust].concat();
        h3cast(&arguments).env("H3CAST_TOKEN", token).output().unwrap()
    };
    let reader = token(&["--read", "log", "--aud", "casts", "--for", "5m"]);
    let first = format!("{uri}?from=start&limit=1");
    let got = get(&first, &reader);
    assert_eq!(text(&got.stdout), "a line\n", "{}", text(&got.stderr));
    for (token, word) in [
        (writer.as_str(), "403"),
        (&token(&["--read", "log"]), "401"),
        (&token(&["--read", "log", "--aud", "else"]), "401"),
        (&token(&["--read", "log", "--aud", "casts", "--for", "0s"]), "401"),
    ] {
        let got = get(&first, token);
        // Within what clocks may differ, a token that ends now counts.
        if !got.status.success() {
            assert!(text(&got.stderr).contains(word), "{}", text(&got.stderr));
        }
    }
    assert!(text(&publish(&reader).stderr).contains("403"));
}

#[test]
fn what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bad = file("bad", "# fine\nread=log short\n");
    let html = file("html", "<html>a page that is longer than thirty-two bytes</html>");
    let good = file("good", "read=log a-token-of-some-length\n");
    let twice = file("twice", "read=log a-token-of-some-length\npublish=log a-token-of-some-length\n");
    let huge = file("huge", "");
    std::fs::File::options().write(true).open(&huge).unwrap().set_len(64 << 30).unwrap();
    // As PowerShell writes it.
    let wide = folder.path().join("wide");
    let utf16: Vec<u8> =
        "\u{feff}read=log a-token-of-some-length\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(&wide, utf16).unwrap();
    let wide = wide.to_str().unwrap().to_owned();
    let certs = folder.path().join("certs");
    let serve = ["serve", "--listen", "localhost:0", "--http", "off", "--certs", certs.to_str().unwrap()];
    for (arguments, words) in [
        (&["--tokens", &bad][..], &["line 2", "16", "h3cast token"][..]),
        (&["--tokens", "/none/such"], &["--tokens", "/none/such", "No such file"]),
        (&["--tokens", folder.path().to_str().unwrap()], &["--tokens", "Is a directory"]),
        // However large it is, it is not read to its end.
        (&["--tokens", &huge], &["--tokens", "longer than 1048576 bytes"]),
        (&["--tokens", &wide], &["line 1", "not text in UTF-8"]),
        (&["--tokens", &twice], &["line 2", "on an earlier line as well"]),
        (&["--auth", &html], &["no keys", "--auth-secret"]),
        (&["--auth-secret", &bad], &["21 bytes", "--new-key"]),
        (&["--auth", "http://idp.example/jwks.json"], &["https"]),
        (&["--public", "log"], &["--public", "no effect"]),
        (&["--auth-audience", "x", "--tokens", &good], &["--auth-audience", "--auth"]),
        (&["--tokens", &good, "--public", "a b"], &["a b", "chat.*"]),
        (&["--tokens", &good, "--auth-renewal", "https://else.example/"], &["path of the same origin"]),
    ] {
        let done = run(&[&serve[..], arguments].concat());
        let stderr = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{arguments:?}: {stderr}");
        assert!(stderr.matches("line 2").count() <= 1, "told twice: {stderr}");
    }
    // Beyond this machine nothing is written without a token.
    for arguments in [
        &["--listen", "0.0.0.0:0", "chat=publish"][..],
        &["--listen", "localhost:0", "--advertise", "cast.example:443", "chat=publish"],
    ] {
        let done = run(&[&["serve", "--http", "off"][..], arguments].concat());
        let stderr = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("could publish to `chat`") && stderr.contains("--tokens"), "{stderr}");
    }
    // Nor with one that can be guessed.
    for beyond in [&["--listen", "0.0.0.0:0"][..], &["--listen", "localhost:0", "--trust-proxy", "192.0.2.1"]] {
        let mut command = h3cast(&[&["serve", "--http", "off", "chat=publish"][..], beyond].concat());
        let done = command.env("H3CAST_PUBLISH_TOKEN", "fifteen-letters").stdin(Stdio::null()).output().unwrap();
        let stderr = text(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains("fewer than 16") && !stderr.contains("fifteen-letters"), "{stderr}");
    }
    #[cfg(feature = "jwt")]
    for (arguments, words) in [
        (&["token"][..], "--read"),
        (&["token", "--read", "log", "--for", "1h"], "--key"),
        (&["token", "--read", "log", "--key", &html], "--secret"),
        (&["token", "--read", "log", "--key", "/none/such"], "cannot read /none/such"),
    ] {
        let done = run(arguments);
        assert!(text(&done.stderr).contains(words) && !done.status.success(), "{arguments:?}: {}", text(&done.stderr));
    }
}

/// Starts a server, and gives the warnings that it has written by the time it is ready.
#[cfg(all(feature = "jwt", unix))]
fn warnings(arguments: &[&str]) -> Vec<String> {
    let server = Serving::start(|_| [&["log=publish"], arguments].concat());
    let written = std::fs::read_to_string(server.dir().join("stderr")).unwrap();
    let is_one = |line: &&str| line.contains("WARN") || line.contains("command line");
    written.lines().filter(is_one).map(String::from).collect()
}

#[cfg(all(feature = "jwt", unix))]
#[test]
fn secrets_that_others_can_see_are_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tokens = file("tokens", "\u{feff}read=log a-token-of-some-length\r\n");
    let secret = file("secret", &"s".repeat(32));
    let vectors: serde_json::Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let keys = file("keys", &format!("\u{feff}{}", vectors["pem"]["ES256"].as_str().unwrap()));
    let empty = file("empty", "# none yet\n");
    std::fs::set_permissions(&empty, PermissionsExt::from_mode(0o600)).unwrap();
    let flags = ["--tokens", &tokens, "--auth-secret", &secret, "--auth", &keys];
    let warned = warnings(&flags);
    assert_eq!(warned.len(), 2, "{warned:?}");
    for (warning, file) in warned.iter().zip([&tokens, &secret]) {
        assert!(warning.contains("every user of this machine can read") && warning.contains(file), "{warning}");
        assert!(warning.contains("chmod 600"), "{warning}");
    }
    for file in [&tokens, &secret] {
        std::fs::set_permissions(file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    assert_eq!(warnings(&flags), [""; 0]);
    let warned = warnings(&["--tokens", &empty, "--publish-token", "geheim-on-the-command-line"]);
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned.iter().any(|line| line.contains("holds no tokens") && line.contains(&empty)), "{warned:?}");
    assert!(warned.iter().any(|line| line.contains("H3CAST_PUBLISH_TOKEN")), "{warned:?}");
    assert!(!warned.concat().contains("geheim"), "{warned:?}");
    for command in [&["get"][..], &["get", "--resume"], &["publish"], &["bench", "--viewers", "1"]] {
        for url in ["http://localhost/stream?token=geheim", "https://:x/stream?token=geheim", "stream?token=geheim"] {
            let client = run(&[command, &[url]].concat());
            let stderr = text(&client.stderr);
            assert!(!client.status.success() && !stderr.contains("geheim"), "{command:?} {url}: {stderr}");
            if url.contains("://") {
                assert!(stderr.contains("H3CAST_TOKEN"), "{command:?} {url}: {stderr}");
            }
        }
    }
}

/// What a server prints at its start, up to the line about who can read.
fn access_line(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let certs = folder.path().join("certs");
    let mut child = h3cast(&["serve", "--http", "off", "--certs", certs.to_str().unwrap()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.trim_start().starts_with("access"));
    child.kill().unwrap();
    child.wait().unwrap();
    line.unwrap_or_default()
}

#[test]
fn one_line_says_who_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "read=log publish=log a-token-of-some-length\n").unwrap();
    let tokens = tokens.to_str().unwrap();
    for (arguments, words) in [
        (&["--listen", "localhost:0", "a=demo"][..], "anyone on this machine can read a"),
        (
            &["--listen", "0.0.0.0:0", "a=demo", "b=demo"],
            "anyone who reaches 0.0.0.0:PORT can read a, b (--tokens or --auth",
        ),
        (
            &["--listen", "0.0.0.0:0", "a=publish", "--tokens", tokens],
            "nothing can be read, or published to a, without",
        ),
        (
            &["--listen", "0.0.0.0:0", "a=publish", "b=demo", "--tokens", tokens, "--public", "b"],
            "anyone who reaches 0.0.0.0:PORT can read b; the rest needs a token",
        ),
    ] {
        let line = access_line(arguments);
        // The one that it was given.
        let port = line.split_once("0.0.0.0:").map(|(_, rest)| rest.split(' ').next().unwrap());
        assert_ne!(port, Some("0"), "{line}");
        assert!(line.contains(&words.replace("PORT", port.unwrap_or("PORT"))), "{arguments:?}: {line}");
    }
}

/// Replaces a file in one step.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[test]
fn a_reader_whose_token_is_replaced_misses_nothing() {
    for webtransport in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (tokens, shown) = (folder.path().join("tokens"), folder.path().join("shown"));
        let (first, second) = ("the-first-token-that-is-used", "the-second-token-that-is-used");
        replace(&tokens, &format!("read=default {first}\n"));
        replace(&shown, &format!("{first}\n"));
        let server = Serving::start(|_| {
            ["demo", "--count", "0", "--interval", "20ms", "--tokens", tokens.to_str().unwrap()]
                .map(String::from)
                .to_vec()
        });
        let certificate = server.certificate();
        let uri = server.uri("/stream").to_string();
        let mut command = h3cast(&["get", &uri, "--resume", "--token-file", shown.to_str().unwrap()]);
        command.args(["--cacert", certificate.to_str().unwrap()]).args(webtransport.then_some("--webtransport"));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut next = 0;
        let mut read = |many: u64| {
            for _ in 0..many {
                assert_eq!(lines.next().unwrap(), format!("data chunk #{next}"), "WebTransport: {webtransport}");
                next += 1;
            }
        };
        read(10);
        replace(&shown, second);
        replace(&tokens, &format!("read=default {second}\n"));
        // Far beyond what was on its way when the first token was withdrawn.
        read(200);
        child.kill().unwrap();
        let stderr = text(&child.wait_with_output().unwrap().stderr);
        let words = "the token is no longer valid: it has expired or was revoked";
        assert!(stderr.contains(words), "WebTransport: {webtransport}: {stderr}");
    }
}
