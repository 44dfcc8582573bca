//! What is mistyped: told in one sentence, with what was meant.

use std::process::Stdio;

use super::{Running, h3cast, output, text};

/// The line on standard error, of what cannot be run as it was given.
fn refused(args: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let got = output(dir.path(), args);
    assert_eq!((got.status.code(), text(&got.stdout).as_str()), (Some(2), ""), "{args:?}");
    let line = text(&got.stderr);
    assert!(line.starts_with("h3cast: ") && line.lines().count() == 1, "{args:?}: {line}");
    line
}

#[test]
fn commands_flags_and_sources() {
    for (args, expected) in [
        (&["log=tail:app.log"][..], "write `h3cast serve log=tail:app.log`"),
        (&["-"], "write `h3cast serve -`"),
        (&["--count", "5", "-"], "write `h3cast serve --count 5 -`"),
        (&["log=tial:app.log"], "did you mean log=tail:app.log?"),
        (&["sevre"], "there is no command `sevre`: did you mean `h3cast serve`?"),
        (&["--count", "5", "serve"], "flags come after the command"),
        (&["https://localhost:4433/stream"], "write `h3cast get https://localhost:4433/stream`"),
        (&["serve", "log=tial:app.log"], "did you mean log=tail:app.log?"),
        (&["serve", "stdin"], "did you mean -?"),
        (
            &["serve", "a/b=demo"],
            "invalid feed name `a/b`: a name has up to 100 ASCII letters, digits, `-`, `_` and `.`",
        ),
        (&["serve", "a=demo", "b=-", "a=publish"], "two sources have the same name, `a`"),
        (&["serve", "--lisen", ":0"], "there is no flag `--lisen`: did you mean `--listen`?"),
        (
            &["serve", "/var/log/nothing"],
            "write tail:/var/log/nothing (what is appended to it) or file:/var/log/nothing",
        ),
        (&["/var/log/nothing"], "write tail:/var/log/nothing"),
        (
            &["serve", "build=exec:cargo", "build", "--release"],
            "is one argument: write 'build=exec:cargo build --release'",
        ),
        (&["serve", "exec:make", "a b", "--http", "off"], r"is one argument: write 'exec:make '\''a b'\'"),
        (&["serve", "foo"], "for what a command prints, write exec:foo, or pipe it: foo | h3cast serve -"),
        (&["serve", "cargo", "build"], "write 'exec:cargo build', or pipe it: cargo build | h3cast serve -"),
        (
            &["serve", "--listen", ":0", "python3", "-i"],
            "write 'exec:python3 -i', or pipe it: python3 -i | h3cast serve -",
        ),
        (&["serve", "foo", "log=tail:x"], "for what a command prints, write exec:foo, or pipe it: foo |"),
        (&["serve", "exec: "], "`exec: ` lacks its command: write exec:COMMAND"),
        (&["serve", "exec:cat", "--input"], "--input needs --per-viewer as well, since each viewer talks to a command"),
        (&["help", "soruces"], "did you mean `h3cast help sources`?"),
        (&["trust"], "there is no command `trust`: write `h3cast help trust`"),
        (&["get", "-f"], "there is no flag `-f`: `get` follows a feed until it ends, so leave it out"),
        (&["get", "-n", "10"], "there is no flag `-n`: write `--last 10`"),
        (&["get", "-n10"], "there is no flag `-n`: write `--last 10`"),
        (&["get", "--tail=10"], "there is no flag `--tail`: write `--last 10`"),
        (&["get", "-10"], "there is no flag `-1`: write `--last N`"),
        (&["get", "-k"], "there is no flag `-k`: write `--insecure`"),
        (&["serve", "--port", "80"], "write `--listen localhost:80`, or `--listen :80` for every interface"),
        (&["-p80"], "write `--listen localhost:80`, or `--listen :80` for every interface"),
        (&["publish", "-f", "a.log"], "standard input is published: write `< a.log`"),
        (&["get", "--frob"], "there is no flag `--frob` (`h3cast get --help` lists them all)"),
        (
            &["publish", "https://localhost/", "more"],
            "unexpected argument `more` (`h3cast publish --help` lists what it takes)",
        ),
    ] {
        let told = refused(args);
        assert!(told.contains(expected), "{args:?}: {told}");
    }
}

#[test]
fn what_is_meant_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let printed = |args: &[&str]| {
        let got = output(dir.path(), args);
        assert!(got.status.success(), "{args:?}: {}", text(&got.stderr));
        text(&got.stdout)
    };
    assert_eq!(printed(&["help", "source"]), printed(&["help", "sources"]));
    assert_eq!(printed(&["version"]), printed(&["--version"]));
}

/// However much is given, a line says what is wrong with it.
#[test]
fn long_values_are_shortened() {
    let long = "x".repeat(5000);
    let (source, size) = (format!("a={long}"), format!("--history={long}"));
    let exec = format!("log=exce:{long}");
    for args in [&["serve", &source][..], &[&size], &["serve", &exec], &[&long], &["get", "--frob", &long]] {
        let told = refused(args);
        assert!(told.len() < 500, "{told}");
    }
    let dir = tempfile::tempdir().unwrap();
    let got = h3cast(dir.path(), &["serve"]).env("H3CAST_INTERVAL", &long).output().unwrap();
    assert!(text(&got.stderr).len() < 500 && text(&got.stderr).contains("xxx…"), "{}", text(&got.stderr));
}

#[cfg(unix)]
#[test]
fn what_is_not_text_is_named() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let dir = tempfile::tempdir().unwrap();
    let bad = OsStr::from_bytes(b"geheim-\xff");
    let url = "https://localhost:9/stream";
    for (args, variable) in [
        (&["publish", url][..], "H3CAST_PUBLISH_TOKEN"),
        (&["publish", url], "H3CAST_TOKEN"),
        (&["serve", "--check"], "H3CAST_PUBLISH_TOKEN"),
        (&["--check"], "H3CAST_COUNT"),
        (&["feeds"], "H3CAST_TOKEN"),
    ] {
        let got = h3cast(dir.path(), args).env(variable, bad).output().unwrap();
        let expected = format!("h3cast: {variable}: the value is not valid UTF-8\n");
        assert_eq!((text(&got.stderr), got.status.code()), (expected, Some(2)), "{args:?}");
    }
    for (args, expected) in [
        (&["serve", "--publish-token"][..], "--publish-token: the value is not valid UTF-8"),
        (&["get"], "the argument `geheim-\u{fffd}` is not valid UTF-8"),
    ] {
        let got = h3cast(dir.path(), args).arg(bad).output().unwrap();
        assert_eq!((text(&got.stderr), got.status.code()), (format!("h3cast: {expected}\n"), Some(2)), "{args:?}");
    }
}

#[test]
fn secrets_are_not_repeated() {
    for (args, expected) in [
        (&["--publish-token", "geheim", "log=tail:a"][..], "`h3cast serve --publish-token … log=tail:a`"),
        (&["log=tail:a", "--publish-token", "geheim"], "`h3cast serve log=tail:a --publish-token …`"),
        (&["--publish-token=geheim", "log=tail:a"], "`h3cast serve --publish-token=… log=tail:a`"),
        (&["--static", "https://me:geheim@host", "log=tail:a"], "`h3cast serve --static 'https://…@host' log=tail:a`"),
        (&["log=exec:curl https://host/?token=geheim"], "write `h3cast serve 'log=exec:curl https://host/?token=…'`"),
        (&["https://host/stream?token=geheim"], "write `h3cast get 'https://host/stream?token=…'`"),
        (&["serve", "a=https://me:it's geheim@host/"], "run a client: 'a=exec:curl -sN https://…@host/'"),
        (&["serve", "https://host/?token=geheim"], "invalid source `https://host/?token=…`: write demo"),
        (&["serve", "a=exce:curl https://me:geheim@host/"], "did you mean 'a=exec:curl https://…@host/'?"),
        (&["serve", "a:exec:curl https://me:geheim@host/"], "write 'a=exec:curl https://…@host/'"),
        (&["serve", "https://me:geheim@host/?x=demo"], "invalid feed name `https://…@host/?x`"),
        (&["nats://geheim@host/x"], "`nats://…@host/x` is something to stream"),
        (&["serve", "https://host/?access_token=geheim"], "invalid source `https://host/?access_token=…`"),
        (&["publish", "https://localhost/", "https://me:geheim@host/"], "unexpected argument `https://…@host/`"),
        (&["open", "https://me:geheim@host/"], "`https://…@host/` is not one of"),
        (&["serve", "--allow-origin=https://me:geheim@host"], "--allow-origin: `https://…@host` is not a valid origin"),
    ] {
        let told = refused(args);
        assert!(told.contains(expected) && !told.contains("geheim"), "{args:?}: {told}");
    }
}

#[test]
fn numbers_times_sizes_and_addresses() {
    for (args, expected) in [
        (&["--interval", "fast"][..], "--interval: `fast` is not a time: write a number with a unit"),
        (&["--grace", "10"], "--grace: `10` has no unit: write 10s"),
        (&["--coalesce", "1h"], "--coalesce: `1h` is too long: write a time of up to 10s"),
        (&["--idle-timeout", "0s"], "--idle-timeout: `0s` is too short: it must be longer than zero"),
        (&["--history", "default=lots"], "--history: `lots` is not a number of bytes"),
        (&["--memory", "8X"], "--memory: `8X` is not an amount of memory"),
        (&["--workers", "0"], "--workers: `0` is not a whole number from 1 to 512: write one such as 4"),
        (&["--max-connections", "x"], "--max-connections: `x` is not a whole number from 1 on: write one such as 64"),
        (&["get", "--last", "abc"], "--last: `abc` is not a whole number from 1 on: write one such as 100"),
        (
            &["get", "--last", "99999999999999999999"],
            "`99999999999999999999` is too large: write a whole number of up to",
        ),
        (&["--count", "99999999999999999999"], "--count: `99999999999999999999` is too large"),
        (&["bench", "--pid", "5000000000"], "--pid: `5000000000` is too large"),
        (&["--retry-initials", "1.5"], "--retry-initials: `1.5` is not a whole number from 0 on"),
        (&["--tail-lines", "log=few"], "--tail-lines: `few` is not a whole number from 0 on: write one such as 10"),
        (&["--lag", "sometimes"], "--lag: `sometimes` cannot be used: write skip, disconnect or block"),
        (&["--open", "lynx"], "--open: `lynx` is not one of chrome, firefox"),
        (&["--http", ":8080"], "plain HTTP is for this machine only: write localhost:8080"),
        (&["--redirect", ":99999"], "--redirect: `:99999` is not an address to listen on"),
        (&["--cert", "a.pem"], "--cert needs --key PEM as well"),
        (&["get", "--retry-for", "1s"], "--retry-for needs --resume as well"),
        (&["man"], "DIR is missing"),
        (&["serve", "--listen"], "--listen: a value is missing: write ADDR:PORT"),
        (&["get", "-o"], "--output: a value is missing: write FILE"),
        (&["get", "--format"], "--format: a value is missing: write one of raw, sse, frames"),
        (&["serve", "--check=5"], "--check takes no value, and `5` is one"),
        (&["serve", "--count", "1", "--count", "2"], "--count is given twice: leave one out"),
        (&["get", "--insecure", "--cacert", "x"], "--insecure cannot be used with --cacert: leave one out"),
        (&["serve", "--restart", "--per-viewer"], "--restart cannot be used with --per-viewer: leave one out"),
        (&["bench", "--webtransport", "--http", "h1"], "--webtransport cannot be used with --http: leave one out"),
        (&["bench", "--viewers", "0"], "--viewers: `0` is not a whole number from 1 to 100000"),
        (&["bench", "--duration", "long"], "--duration: `long` is not a time of up to a day"),
        (&["get", "--resume", "--retry-for", "1"], "--retry-for: `1` has no unit"),
    ] {
        let told = refused(args);
        assert!(told.contains(expected), "{args:?}: {told}");
    }
    // A secret is not repeated, and a variable is named.
    assert!(!refused(&["--publish-token", "a secret"]).contains("a secret"));
    let dir = tempfile::tempdir().unwrap();
    #[cfg(feature = "jwt")]
    {
        let mut command = h3cast(dir.path(), &["token", "--read", "a", "--secret", "b"]);
        let told = text(&command.env("H3CAST_TOKEN_KEY", "a").output().unwrap().stderr);
        assert!(told.contains("--secret cannot be used with H3CAST_TOKEN_KEY"), "{told}");
    }
    let got = h3cast(dir.path(), &["serve"]).env("H3CAST_INTERVAL", "fast").output().unwrap();
    assert!(text(&got.stderr).starts_with("h3cast: H3CAST_INTERVAL: `fast` is not a time"), "{}", text(&got.stderr));
}

#[test]
fn a_flag_without_effect_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let warned = |args: &[&str]| {
        let got = output(dir.path(), &[&["serve", "--check"], args].concat());
        assert_eq!(got.status.code(), Some(0), "{args:?}: {}", text(&got.stderr));
        text(&got.stderr)
    };
    for (args, flag, of) in [
        (&["-", "--count", "5"][..], "--count", "demo"),
        (&["-", "--interval", "1s"], "--interval", "demo"),
        (&["--publish-limit", "8MB"], "--publish-limit", "publish and exec:COMMAND with --input"),
        (&["a=publish", "--max-feeds", "3"], "--max-feeds", "NAME.*=publish"),
        (&["exec:date", "--max-processes", "3"], "--max-processes", "exec:COMMAND with --per-viewer"),
        #[cfg(feature = "nats")]
        (&["a=publish", "--nats-ca", "ca.pem"], "--nats-ca", "nats:// and publish with --engine"),
    ] {
        let expected = format!("{flag} has no effect: it is for {of}, and there is no such source");
        assert!(warned(args).contains(&expected), "{args:?}: {}", warned(args));
    }
    let tokens = dir.path().join("tokens.txt");
    std::fs::write(&tokens, "read=* a-token-of-16-characters\n").unwrap();
    let public = |pattern| ["log=-", "chat.*=publish", "--tokens", tokens.to_str().unwrap(), "--public", pattern];
    for pattern in ["news", "chats.*", "log.*"] {
        let expected = format!("--public {pattern} has no effect: no feed has such a name");
        assert!(warned(&public(pattern)).contains(&expected), "{pattern}: {}", warned(&public(pattern)));
    }
    for pattern in ["log", "*", "lo*", "chat.lobby", "chat.*"] {
        assert!(!warned(&public(pattern)).contains("no effect"), "{pattern}: {}", warned(&public(pattern)));
    }
    for args in [&["--count", "5"][..], &["a=publish", "--publish-limit", "8MiB"], &["-", "--history", "8k"]] {
        assert_eq!(warned(args), "", "{args:?}");
    }
}

#[test]
fn a_port_alone_is_every_interface() {
    let dir = tempfile::tempdir().unwrap();
    let child = h3cast(dir.path(), &["--listen", ":0", "--http", "off", "--redirect", ":0", "--count", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let server = Running::ready(child);
    assert!(server.url.starts_with("https://localhost:"), "{}", server.announced);
    assert!(!server.announced.contains("0.0.0.0:") && !server.announced.contains("[::]:"), "{}", server.announced);
    let port = server.url.trim_end_matches('/').rsplit(':').next().unwrap();
    let access = server.announced.lines().find(|line| line.contains("anyone who reaches")).unwrap();
    assert!(access.contains(&format!(":{port} can read")), "{access}");
    for host in ["127.0.0.1", "[::1]"] {
        if host == "[::1]" && std::net::TcpListener::bind("[::1]:0").is_err() {
            continue;
        }
        let got = output(dir.path(), &["get", "--insecure", &format!("https://{host}:{port}/stream")]);
        assert_eq!(text(&got.stdout), "data chunk #0\n", "{host}: {}", text(&got.stderr));
    }
}
