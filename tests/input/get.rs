//! `h3cast get --input`: a terminal on a command of the server.

use tokio::io::AsyncWriteExt;

use crate::{
    common::soon,
    program::{Program, Serving, output, text},
};

const TOKEN: &str = "0123456789abcdef";

#[tokio::test]
async fn what_is_typed_is_the_commands_input_up_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let command = "exec:while read line; do echo \"got $line\"; done; echo bye";
    let serving = Serving::start(dir.path(), 0, &[command, "--per-viewer", "--input"]).await;
    let url = serving.url("/stream");
    for more in [&["-i"][..], &["--input", "--webtransport"], &["-i", "--format", "raw"]] {
        let mut get = Program::start(dir.path(), &[&["get", &url], more].concat());
        for word in ["one", "two"] {
            let mut stdin = get.stdin.take().unwrap();
            stdin.write_all(format!("{word}\n").as_bytes()).await.unwrap();
            get.stdin = Some(stdin);
            assert_eq!(get.line().await, format!("got {word}\n"), "{more:?}");
        }
        // Ends standard input, as Ctrl-D does.
        let (rest, told, code) = get.end().await;
        assert_eq!((text(&rest), told.as_str(), code), ("bye\n".into(), "", Some(0)), "{more:?}");
    }
    // Nothing typed at all.
    // The URL may say already what the second one's session asks for.
    for (url, more) in [(url, &[][..]), (serving.url("/stream?input&limit=9"), &["--webtransport"])] {
        let got = output(dir.path(), &[&["get", "-i", &url], more].concat()).await;
        assert_eq!((text(&got.stdout), got.status.code()), ("bye\n".into(), Some(0)), "{}", text(&got.stderr));
    }
}

#[tokio::test]
async fn a_command_that_ends_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["exec:read a; exit 3", "--per-viewer", "--input"]).await;
    for more in [&["-i"][..], &["-i", "--webtransport"]] {
        let mut get = Program::start(dir.path(), &[&["get", &serving.url("/stream")], more].concat());
        // Its standard input stays open.
        get.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
        let told = get.told("exit").await;
        assert!(told.contains("the command exited with status 3") || told.contains("exit status"), "{told}");
        let stdin = get.stdin.take();
        let (_, _, code) = get.end().await;
        assert_eq!(code, Some(1), "{more:?}");
        drop(stdin);
    }
}

/// What is typed for a command is nothing to publish.
#[tokio::test]
async fn a_feed_that_clients_write_takes_none() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["publish"]).await;
    for (url, way) in [("/stream", &[][..]), ("/stream", &["--webtransport"]), ("/stream?limit=1", &["--webtransport"])]
    {
        let url = serving.url(url);
        let mut get = Program::start(dir.path(), &[&["get", "-i", &url], way].concat());
        get.stdin.as_mut().unwrap().write_all(b"secret\n").await.unwrap();
        let told = get.told("this feed takes no input").await;
        assert_eq!(soon("its end", get.end()).await.2, Some(1), "{told}");
    }
    let url = serving.url("/stream?from=start&limit=1");
    let published = Program::start(dir.path(), &["get", &url]);
    let mut publish = Program::start(dir.path(), &["publish", &serving.url("/stream")]);
    publish.stdin.as_mut().unwrap().write_all(b"first\n").await.unwrap();
    assert_eq!(publish.end().await.2, Some(0));
    assert_eq!(text(&published.end().await.0), "first\n");
}

/// Whoever has the id may send to the command: it is not for logs, nor for what is pasted from a terminal.
#[tokio::test]
async fn the_session_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(dir.path(), 0, &["exec:cat", "--per-viewer", "--input"]).await;
    let got = output(dir.path(), &["get", "-i", "-v", &serving.url("/stream")]).await;
    let told = text(&got.stderr);
    assert!(told.contains("< h3cast-session: (hidden)\n"), "{told}");
    assert!(told.contains("< content-type: "), "{told}");
}

#[tokio::test]
async fn who_may_not_send_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["exec:cat", "--per-viewer", "--input", "--publish-token", TOKEN];
    let serving = Serving::start(dir.path(), 0, &args).await;
    let url = serving.url("/stream");
    for way in [&[][..], &["--webtransport"]] {
        let get = |more: &[&str]| Program::start(dir.path(), &[&["get", "-i", &url], way, more].concat());
        let mut refused = get(&[]);
        refused.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
        let told = refused.told("the input was refused").await;
        assert!(told.contains("a token is needed to publish to the feed"), "{told}");
        assert_eq!(soon("its end", refused.end()).await.2, Some(1));

        let mut let_in = get(&["--token", TOKEN]);
        let_in.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
        assert_eq!(let_in.line().await, "hello\n");
        assert_eq!(let_in.end().await.2, Some(0));
    }
    drop(serving);

    let serving = Serving::start(dir.path(), 0, &["exec:cat", "--per-viewer"]).await;
    let url = serving.url("/stream");
    for way in [&[][..], &["--webtransport"]] {
        let got = output(dir.path(), &[&["get", "-i", &url], way].concat()).await;
        let told = text(&got.stderr);
        assert!(got.status.code() == Some(1) && told.contains("this feed takes no input"), "{told}");
    }
    for more in [&["--resume"][..], &["--timestamps"], &[&url]] {
        let got = output(dir.path(), &[&["get", "-i", &url], more].concat()).await;
        assert_eq!(got.status.code(), Some(2), "{more:?}: {}", text(&got.stderr));
    }
}
