//! What `serve` prints once it is ready.

use crate::program::Program;

/// The text up to the Chrome command, which ends it.
async fn announced(args: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Program::start(dir.path(), &[&["serve"], args].concat());
    let mut lines = Vec::new();
    while !lines.last().is_some_and(|line: &String| line.contains("--user-data-dir")) {
        let line = program.line().await;
        assert!(!line.is_empty(), "it ended: {lines:?}");
        lines.push(line.trim().to_owned());
    }
    program.kill().await;
    lines
}

/// The values behind a label.
fn labelled<'a>(lines: &'a [String], label: &str) -> Vec<&'a str> {
    lines
        .iter()
        .filter_map(|line| line.strip_prefix(label))
        .filter(|rest| rest.starts_with("  "))
        .map(str::trim)
        .collect()
}

#[tokio::test]
async fn the_address_for_any_browser_comes_first_and_each_feed_has_its_url() {
    let lines = announced(&["build=demo", "log=publish", "--listen", "localhost:0", "--http", "localhost:0"]).await;
    assert!(lines[0].starts_with("ready http://localhost:"), "{lines:?}");
    let [page] = labelled(&lines, "over HTTP/3")[..] else { panic!("{lines:?}") };
    let page = page.split_once(' ').unwrap().0;
    assert_eq!(labelled(&lines, "feed"), [format!("{page}stream/build"), format!("{page}stream/log")]);
    let all = lines.join("\n");
    assert!(!all.contains(&format!("{page}stream\n")), "there is no such feed: {all}");
    // On loopback there is nothing for other machines.
    assert!(labelled(&lines, "network").is_empty(), "{all}");
    let chrome = lines.iter().position(|line| line.contains("--user-data-dir")).unwrap();
    assert_eq!(chrome, lines.len() - 1);
}

#[tokio::test]
async fn without_plain_http_the_page_over_tls_comes_first() {
    let lines = announced(&["demo", "--listen", "localhost:0", "--http", "off"]).await;
    let page = lines[0].strip_prefix("ready ").unwrap();
    assert!(page.starts_with("https://localhost:"), "{lines:?}");
    assert_eq!(labelled(&lines, "feed"), [format!("{page}stream")]);
}

#[tokio::test]
async fn other_machines_find_their_addresses() {
    let lines = announced(&["demo", "--listen", "0.0.0.0:0", "--http", "off"]).await;
    let interfaces = if_addrs::get_if_addrs().unwrap();
    let reached = interfaces.iter().filter(|interface| interface.ip().is_ipv4() && !interface.is_loopback());
    let port = lines[0].trim_end_matches('/').rsplit_once(':').unwrap().1;
    let expected: Vec<_> = reached
        .filter(|interface| !interface.is_link_local())
        // The certificate for localhost is not for them.
        .map(|interface| {
            let warned = "(browsers warn about its certificate, unless you use --acme NAME or --cert)";
            format!("https://{}:{port}/  {warned}", interface.ip())
        })
        .collect();
    assert_eq!(labelled(&lines, "network"), expected);
}

#[tokio::test]
async fn what_clients_are_told_is_shown() {
    for (at, expected) in [("cast.example:8443", "https://cast.example:8443/"), (":8443", "https://localhost:8443/")] {
        let lines = announced(&["demo", "--listen", "localhost:0", "--http", "off", "--advertise", at]).await;
        assert_eq!(labelled(&lines, "advertised"), [expected]);
    }
}
