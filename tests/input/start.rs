//! What the program says of `--input` before it starts.

use crate::program::{output, text};

const BEYOND: [&str; 5] = ["serve", "--listen", "0.0.0.0:0", "--http", "off"];

#[tokio::test]
async fn input_is_for_a_command_of_each_viewer() {
    let dir = tempfile::tempdir().unwrap();
    for (args, why) in [
        (&["exec:cat", "--input"][..], "--input needs --per-viewer as well"),
        (&["demo", "--input"], "--input has no effect: it is for exec:COMMAND with --per-viewer"),
        (&["demo", "--per-viewer", "--input"], "--per-viewer has no effect"),
    ] {
        let got = output(dir.path(), &[&["serve", "--listen", "localhost:0"], args].concat()).await;
        let told = text(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(why) && told.lines().count() == 1, "{args:?}: {told}");
    }
}

#[tokio::test]
async fn beyond_this_machine_it_needs_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let args = [&BEYOND[..], &["sh=exec:cat", "--per-viewer", "--input", "--check"]].concat();
    let got = output(dir.path(), &args).await;
    let told = text(&got.stderr);
    assert_eq!(got.status.code(), Some(2), "{told}");
    let why = "everyone who reaches 0.0.0.0:0 could send input to the command of `sh`: give --tokens FILE";
    assert!(told.contains(why) && told.contains("--publish-token") && told.lines().count() == 1, "{told}");

    for token in [&["--publish-token", "0123456789abcdef"][..], &["--listen", "localhost:0"]] {
        let args: Vec<_> = match token[0] {
            "--listen" => [&["serve"], token, &["exec:cat", "--per-viewer", "--input", "--check"]].concat(),
            _ => [&args[..], token].concat(),
        };
        let got = output(dir.path(), &args).await;
        assert_eq!(got.status.code(), Some(0), "{args:?}: {}", text(&got.stderr));
    }
    // Without --input, there is nothing to protect.
    let got = output(dir.path(), &[&BEYOND[..], &["exec:cat", "--per-viewer", "--check"]].concat()).await;
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
}
