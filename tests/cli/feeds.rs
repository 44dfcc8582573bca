//! `h3cast feeds`: the list, for people and for scripts, and who may read it.

use std::{io::Write, path::Path, process::Stdio};

use serde_json::Value;

use super::{FREE, Running, h3cast, output, text};

fn publish(dir: &Path, url: &str, bytes: &[u8]) {
    let mut client = h3cast(dir, &["publish", url]).stdin(Stdio::piped()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(client.wait().unwrap().success());
}

#[test]
fn the_table_and_the_json() {
    let dir = tempfile::tempdir().unwrap();
    let sources = ["serve", "demo", "chat=publish", "empty=publish", "bad=exec:echo x; exit 3", "--count", "2"];
    let server = Running::start(dir.path(), &[&sources[..], &FREE].concat());
    publish(dir.path(), &format!("{}stream/chat", server.url), b"one\ntwo\n");
    // To its end, after which it has failed.
    assert_eq!(output(dir.path(), &["get", &format!("{}stream/bad?from=start", server.url)]).status.code(), Some(1));
    // Any page or feed of the server will do.
    for url in [server.url.clone(), format!("{}stream/chat", server.url)] {
        let got = output(dir.path(), &["feeds", &url]);
        let told = text(&got.stdout);
        assert_eq!((got.status.code(), text(&got.stderr).as_str()), (Some(0), ""), "{told}");
        let (rows, failed) = told.split_once("\n\n").unwrap();
        assert!(failed.starts_with("bad: ") && failed.contains('3') && failed.lines().count() == 1, "{told}");
        let columns =
            |line: &str| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect();
        let rows: Vec<Vec<String>> = rows.lines().map(columns).collect();
        assert_eq!(rows[0].join(" "), "NAME KIND STATE VIEWERS CHUNKS IN MEMORY ON DISK NEWEST WRITABLE");
        let row = |name: &str| rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{told}"));
        assert_eq!(row("chat")[1..5].join(" "), "live open 0 2");
        assert!(row("chat")[6] == "-" && row("chat")[7].ends_with(" s ago") && row("chat")[8] == "yes", "{told}");
        assert_eq!(row("empty")[1..].join(" "), "live open 0 0 0 B - - yes");
        assert_eq!(row("bad")[1..5].join(" "), "live failed 0 1");
        assert_eq!((row("default")[1].as_str(), row("default")[8].as_str()), ("on-demand", "no"));
    }
    let got = output(dir.path(), &["feeds", "--json", &server.url]);
    let listed: Value = serde_json::from_slice(&got.stdout).unwrap();
    let chat = listed["feeds"].as_array().unwrap().iter().find(|feed| feed["name"] == "chat").unwrap();
    assert_eq!((&chat["chunks"], &chat["bytes"], &chat["writable"]), (&2.into(), &8.into(), &true.into()), "{chat}");
    assert!(chat["newest_seconds"].as_f64().unwrap() < 60.0, "{chat}");
    assert!(listed["feeds"].as_array().unwrap().iter().any(|feed| feed["newest_seconds"].is_null()), "{listed}");
}

#[test]
fn tokens_and_trust_are_those_of_get() {
    let dir = tempfile::tempdir().unwrap();
    let token = "a-token-of-16-characters";
    std::fs::write(dir.path().join("tokens.txt"), format!("read=one {token}\n")).unwrap();
    std::fs::write(dir.path().join("token"), token).unwrap();
    let sources = ["serve", "one=publish", "two=publish", "--tokens", "tokens.txt"];
    let server = Running::start(dir.path(), &[&sources[..], &FREE].concat());
    let names = |mut command: std::process::Command| {
        let got = command.output().unwrap();
        assert!(got.status.success(), "{}", text(&got.stderr));
        text(&got.stdout).lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for flags in [["--token", token], ["--token-file", "token"]] {
        assert_eq!(names(h3cast(dir.path(), &[&["feeds", &server.url], &flags[..]].concat())), ["one"]);
    }
    let mut command = h3cast(dir.path(), &["feeds", &server.url]);
    command.env("H3CAST_TOKEN", token);
    assert_eq!(names(command), ["one"]);
    // Whoever shows none may read none of them.
    let got = output(dir.path(), &["feeds", &server.url]);
    assert!(text(&got.stderr).contains("none that you may read"), "{}", text(&got.stderr));
    assert_eq!((got.status.code(), text(&got.stdout).as_str()), (Some(0), ""));
    let got = output(dir.path(), &["feeds", &server.url, "--token", "another-token-that-is-wrong"]);
    assert!(text(&got.stderr).contains("the server answered 401"), "{}", text(&got.stderr));
    assert_eq!(got.status.code(), Some(1));
    let empty = tempfile::tempdir().unwrap();
    let got = output(empty.path(), &["feeds", &server.url]);
    assert!(text(&got.stderr).contains("not trusted"), "{}", text(&got.stderr));
    assert_eq!(got.status.code(), Some(1));
}
