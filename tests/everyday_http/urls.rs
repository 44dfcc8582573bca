//! URLs that cannot be opened: a sentence each, with what to write instead.

use crate::program::{output, text};

#[tokio::test(flavor = "multi_thread")]
async fn every_command_says_what_to_write_instead() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("https://localhost:99999/", "99999 is not a port (1 to 65535); write https://localhost:4433/"),
        ("https://user:secret@host.example/x", "user names and passwords are not sent"),
        ("http://localhost:8080/stream", "always https; write https://localhost:4433/stream"),
        ("localhost:4433/stream", "a URL begins with https://; write https://localhost:4433/stream"),
        ("https://::1:4433/", "an IPv6 address must be in brackets; write https://[::1]:4433/"),
        ("nonsense", "as in https://localhost:4433/stream/nonsense"),
    ];
    for command in [&["get"][..], &["get", "--resume"], &["publish"], &["bench"], &["open", "chrome"]] {
        for (url, expected) in cases {
            let got = output(dir.path(), &[command, &[url]].concat()).await;
            let told = text(&got.stderr);
            assert_eq!(got.status.code(), Some(2), "{command:?} {url}: {told}");
            assert!(told.contains(expected), "{command:?} {url}: {told}");
            assert_eq!((told.lines().count(), text(&got.stdout).as_str()), (1, ""), "{command:?} {url}: {told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}

/// What is advised for the URL of a server's plain page works: that server's other port is known.
#[tokio::test]
async fn the_https_url_of_a_plain_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["serve", "--listen", "localhost:0", "--http", "localhost:0", "demo", "--count=1"];
    let mut serving = crate::program::Program::start(dir.path(), &args);
    let mut announced = String::new();
    let url = loop {
        announced += &serving.line().await;
        let words = announced.split_whitespace();
        if let Some(url) = words.clone().find(|word| word.starts_with("https://") && word.ends_with("/stream")) {
            break url.to_owned();
        }
    };
    let plain = announced.split_whitespace().find(|word| word.starts_with("http://")).unwrap();
    let port = plain.trim_end_matches('/').rsplit(':').next().unwrap();
    let tls = url.trim_start_matches("https://localhost:").trim_end_matches("/stream");
    for given in [format!("http://localhost:{port}/stream"), format!("http://127.0.0.1:{port}/stream")] {
        let told = text(&output(dir.path(), &["get", &given]).await.stderr);
        assert!(told.contains(&format!("write {url}\n")), "{url}: {told}");
    }
    assert!(output(dir.path(), &["get", &url]).await.status.success());
    // The scheme alone was wrong.
    let told = text(&output(dir.path(), &["get", &format!("http://localhost:{tls}/stream")]).await.stderr);
    assert!(told.contains(&format!("write {url}\n")), "{told}");
    // No server has left a note for this one.
    let told = text(&output(dir.path(), &["get", "http://localhost:1/x"]).await.stderr);
    assert!(
        told.contains("the https URL that the server printed at its start, as in https://localhost:4433/x"),
        "{told}"
    );
    serving.signal("TERM");
    assert_eq!(serving.end().await.2, Some(0));
}
