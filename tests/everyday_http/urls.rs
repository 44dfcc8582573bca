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
        ("https://::1:4433/", "an IPv6 address stands in brackets; write https://[::1]:4433/"),
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
