//! A browser that this program opens is a program of the user's own, and not a part of this one.

use std::{path::Path, time::Duration};

use crate::{
    common::soon,
    program::{Program, command},
};

/// Puts a browser on the path that writes down what it was started with.
fn fake_browser(dir: &Path) -> String {
    let script = "#!/bin/sh\n{ ulimit -S -n; echo \"$$ $#\"; env; echo end; } >browser.part\nmv browser.part browser\n";
    for name in ["google-chrome", "firefox"] {
        let file = dir.join(name);
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

async fn written(dir: &Path) -> String {
    soon("the browser has started", async {
        loop {
            if let Ok(text) = std::fs::read_to_string(dir.join("browser")) {
                return text;
            }
            // No one tells when it is there.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_browser_that_ends_at_once_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let chrome = dir.path().join("google-chrome");
    std::fs::write(&chrome, "#!/bin/sh\necho first >&2\necho 'it cannot run as root' >&2\necho >&2\nexit 7\n").unwrap();
    std::fs::set_permissions(&chrome, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let mut serve = command(dir.path(), &["serve", "--listen", "localhost:0", "--http", "off", "--open", "chrome"]);
    serve.env("PATH", &path);
    let mut serving = Program::of(serve);
    let ready = serving.line().await;
    let url = ready.split_whitespace().last().unwrap();
    let line = serving.told("it cannot run as root").await;
    assert!(line.contains("WARN") && line.contains("google-chrome ended at once (exit status: 7)"), "{line}");
    let mut open = command(dir.path(), &["open", "chrome", url, "--certs", "certs"]);
    let opened = soon("open ends", open.env("PATH", &path).output()).await.unwrap();
    let told = String::from_utf8_lossy(&opened.stderr);
    assert!(told.ends_with("google-chrome ended at once (exit status: 7): it cannot run as root\n"), "{told}");
    assert_eq!((opened.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    serving.signal("TERM");
    assert_eq!(serving.end().await.2, Some(0));
}

#[tokio::test]
async fn a_browser_gets_none_of_our_settings_and_limits() {
    for browser in ["chrome", "firefox"] {
        let dir = tempfile::tempdir().unwrap();
        let path = fake_browser(dir.path());
        let mut sh = command(dir.path(), &[]);
        // A soft limit that the server raises.
        let run = format!("ulimit -S -n 300 && exec {} \"$@\"", env!("CARGO_BIN_EXE_h3cast"));
        let mut limited = tokio::process::Command::new("sh");
        limited.args(["-c", &run, "sh", "serve", "log=publish", "--listen", "localhost:0", "--http", "off"]);
        limited.args(["--open", browser]).current_dir(dir.path()).kill_on_drop(true);
        let settings = [("H3CAST_PUBLISH_TOKEN", "s3cret"), ("H3CAST_GRACE", "1s"), ("KEPT", "as it is")];
        limited.envs(settings).env("PATH", &path).env("HOME", dir.path());
        limited.env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
        let mut serving = Program::of(limited);
        let ready = serving.line().await;
        let url = ready.split_whitespace().last().unwrap();
        let text = written(dir.path()).await;
        assert!(text.starts_with("300\n"), "{text}");
        assert!(text.contains("KEPT=as it is\n") && !text.contains("H3CAST_"), "{text}");
        std::fs::remove_file(dir.path().join("browser")).unwrap();

        // The same by `open`.
        sh.args(["open", browser, url, "--certs", "certs"]).envs(settings).env("PATH", &path);
        let opened = soon("open ends", sh.output()).await.unwrap();
        assert!(opened.status.success(), "{browser}: {}", String::from_utf8_lossy(&opened.stderr));
        let text = written(dir.path()).await;
        assert!(text.contains("KEPT=as it is\n") && !text.contains("H3CAST_"), "{text}");
        serving.signal("TERM");
        let (_, told, code) = serving.end().await;
        assert_eq!(code, Some(0), "{told}");
    }
}
