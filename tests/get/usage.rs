//! Wrong arguments, and the progress bar.

#[cfg(target_os = "linux")]
use crate::program::soon;
use crate::{
    demo, noise,
    program::{Serving, output, text},
};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--resume", "https://localhost/stream?format=sse"], "`format=sse` cannot be in the URL"),
        (&["--resume", "https://localhost/stream?format=frames"], "`format=frames` cannot be in the URL"),
        (&["--resume", "https://localhost/stream?delivery=datagrams"], "`delivery=datagrams` cannot be in the URL"),
        (&["--resume", "https://localhost/stream?from=x"], "`from=x` cannot be in the URL"),
        (&["--retry-for", "1s"], "--resume"),
        (&["--resume", "--retry-for", "soon"], "--retry-for"),
        (&["-o", "folder"], "cannot write folder"),
        (&["-o", "nowhere/file"], "cannot write nowhere/file: No such file or directory\n"),
        (&["--certs", "nowhere"], "--certs: nowhere is not a folder"),
        (&["--resume", "http://localhost/"], "write the https URL that the server printed"),
    ];
    for (args, expected) in cases {
        let got = output(dir.path(), &[&["get"], *args].concat()).await;
        assert_eq!(got.status.code(), Some(2), "{args:?}: {}", text(&got.stderr));
        assert!(text(&got.stderr).contains(expected), "{args:?}: {}", text(&got.stderr));
    }
    // What is permanent ends at once, and leaves nothing behind.
    let server = Serving::start(dir.path(), 0, &[]).await;
    let missing = server.url("/stream/nothing");
    for more in [&[][..], &["--webtransport"], &["-o", "out"]] {
        let got = output(dir.path(), &[&["get", "--resume", &missing], more].concat()).await;
        assert_eq!(got.status.code(), Some(1), "{more:?}");
        assert!(text(&got.stderr).contains("404"), "{more:?}: {}", text(&got.stderr));
    }
    assert!(!dir.path().join("out.part").exists());
    let got = output(dir.path(), &["get", "--resume", "--cert-hash", &"0".repeat(64), &missing]).await;
    assert_eq!(got.status.code(), Some(1));
    assert!(text(&got.stderr).contains("not trusted"), "{}", text(&got.stderr));
}

/// A terminal, made by script(1).
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_progress_bar_on_a_terminal() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("big"), &*noise(3 << 20)).unwrap();
    let server = Serving::start(dir.path(), 0, &["demo", "big=file:big"]).await;
    let program = env!("CARGO_BIN_EXE_h3cast");
    let on_terminal = async |args: &str| {
        let command = format!("{program} get {args}");
        let got = tokio::process::Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .current_dir(dir.path())
            .env("HOME", dir.path())
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(std::process::Stdio::null())
            .output();
        let got = soon("the program ends", got).await.unwrap();
        assert!(got.status.success(), "{}", text(&got.stdout));
        text(&got.stdout)
    };
    let (big, demo_url) = (server.url("/stream/big"), server.url("/stream"));
    for more in ["", "--resume"] {
        let shown = on_terminal(&format!("-o out {more} {big}")).await;
        assert!(shown.contains("of 3.00 MiB ["), "{shown}");
        // It is taken away at the end.
        assert!(shown.trim_end_matches(['\r', '\n']).ends_with("\x1b[2K"), "{shown:?}");
    }
    let shown = on_terminal(&format!("{demo_url} > out")).await;
    assert!(shown.contains("/s"), "{shown:?}");
    for args in [format!("--no-progress -o out {big}"), format!("-o out {big} 2>errors")] {
        assert_eq!(on_terminal(&args).await, "", "{args}");
    }
    assert_eq!(on_terminal(&demo_url).await.replace('\r', ""), demo(10));
}
