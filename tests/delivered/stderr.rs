//! What commands say on standard error: in their feed, where a terminal would show it, or in the log.

use std::process::{Command, Stdio};

use crate::serving::{Reading, Serving};

/// All of a feed that ends cleanly.
async fn all_of(serving: &Serving, name: &str, webtransport: bool) -> String {
    let connection = serving.connect().await;
    let uri = serving.uri(&format!("/stream/{name}?from=start"));
    let all = Reading::open(&connection, &uri, webtransport).await.all().await;
    String::from_utf8(all).unwrap()
}

/// Every line of both descriptors in the order in which they were written, on either transport, live and for
/// each viewer.
#[tokio::test]
async fn both_descriptors_interleave_as_in_a_terminal() {
    let command =
        "default=exec:i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done; echo end >&2";
    let expected: String = (0..300).map(|i| format!("out {i}\nerr {i}\n")).chain(["end\n".into()]).collect();
    for more in [&[][..], &["--per-viewer"], &["--chunk", "default=bytes", "--stderr", "default=feed"]] {
        let serving = Serving::start(|_| [&[command], more].concat());
        for webtransport in [false, true] {
            assert_eq!(all_of(&serving, "default", webtransport).await, expected, "{more:?}");
        }
        serving.stop();
    }
}

/// The README's own example: all that cargo says, it says on standard error.
#[tokio::test]
async fn a_build_shows() {
    let build = "build=exec:cargo build --offline --color never";
    for more in [&[][..], &["--per-viewer"]] {
        let serving = Serving::start(|dir| {
            let package = "[package]\nname = \"broken\"\nedition = \"2024\"\n[workspace]\n";
            std::fs::write(dir.join("Cargo.toml"), package).unwrap();
            std::fs::create_dir(dir.join("src")).unwrap();
            std::fs::write(dir.join("src/main.rs"), "fn main() { undefined(); }\n").unwrap();
            [&[build], more].concat()
        });
        let connection = serving.connect().await;
        let uri = serving.uri("/stream/build?from=start&format=frames");
        let got = Reading::open(&connection, &uri, false).await.all().await;
        let got = String::from_utf8_lossy(&got);
        for line in ["Compiling broken", "error[E0425]", "the command exited with status 101"] {
            assert!(got.contains(line), "{more:?}: {got}");
        }
        serving.stop();
    }
}

/// Bytes may be a format that a message would spoil.
#[tokio::test]
async fn standard_error_of_bytes_goes_to_the_log() {
    let command = "exec:echo to the log >&2; echo out";
    for (more, logged) in [
        (&["--chunk", "bytes"][..], true),
        (&["--stderr", "log"], true),
        (&["--stderr", "feed,default=log"], true),
        (&["--stderr", "log,default=feed"], false),
        (&["--chunk", "bytes", "--stderr", "feed"], false),
    ] {
        let serving = Serving::start(|_| [&[command], more].concat());
        let got = all_of(&serving, "default", false).await;
        assert_eq!(got, if logged { "out\n" } else { "to the log\nout\n" }, "{more:?}");
        let stderr = serving.dir().join("stderr");
        let log = || std::fs::read_to_string(&stderr).unwrap().contains("to the log");
        while logged && !log() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(log(), logged, "{more:?}");
        serving.stop();
    }
}

#[test]
fn settings_for_what_has_no_standard_error_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), "").unwrap();
    for (args, reason) in [
        (["log=tail:log", "--stderr", "log=feed"], "--stderr has no effect on the feed `log`: it is for exec:COMMAND"),
        (["log=exec:true", "--stderr", "other=feed"], "no feed `other`"),
        (["log=exec:true", "--stderr", "log=both"], "feed or log"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_h3cast"))
            .current_dir(dir.path())
            .args(["serve", "--listen", "localhost:0", "--http", "off"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(reason), "{args:?}: {said}");
    }
}
