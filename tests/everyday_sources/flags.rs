//! Flags that would have no effect.

use std::time::Duration;

use crate::program::{self, Program, Serving, output, text};

#[tokio::test]
async fn a_flag_without_effect_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log"), "").unwrap();
    for (args, why) in [
        (&["demo", "--per-viewer"][..], "--per-viewer has no effect: it is for exec:COMMAND"),
        (&["exec:true", "--input"], "--input needs --per-viewer as well"),
        (&["demo", "--per-viewer", "--input"], "has no effect: it is for exec:COMMAND"),
        (&["--restart"], "--restart has no effect: it is for exec:COMMAND"),
        (&["log=tail:log", "--stderr=log"], "--stderr has no effect: it is for exec:COMMAND"),
        (&["a=exec:true", "--tail-lines=3"], "--tail-lines has no effect: it is for tail:PATH"),
        (&["a=exec:true", "--tail-lines=a=3"], "--tail-lines has no effect on the feed `a`: it is for tail:PATH"),
        (&["chat=publish", "demo", "--chunk=bytes"], "--chunk has no effect: it is for -, exec:COMMAND"),
        (&["chat=publish", "--chunk=chat=bytes"], "--chunk has no effect on the feed `chat`"),
        (&["file:log", "demo=demo", "--history=1M"], "--history has no effect: it is for live feeds"),
        (&["exec:true", "--per-viewer", "--lag=block"], "exec:COMMAND without --per-viewer"),
        (&["demo", "--access-log-format=json"], "--access-log-format has no effect without --access-log"),
        (&["a=-", "--lag=skip", "--lag=a=skip", "--lag=block"], "--lag is given twice: leave one out, or write NAME="),
        (&["a=-", "--history=1M,2M"], "--history is given twice: leave one out"),
        (&["a=-", "--chunk=a=lines,a=bytes"], "--chunk is given twice for the feed `a`: leave one out"),
        (&["a=exec:true", "--stderr=log", "--stderr=feed"], "--stderr is given twice: leave one out"),
        (&["log=tail:log", "--tail-lines=1,2"], "--tail-lines is given twice: leave one out"),
        (&["a=demo", "b=demo", "--lag=c=block"], "there is no feed `c` for --lag: there are a, b"),
    ] {
        let listen = &["serve", "--listen", "localhost:0", "--http", "off"][..];
        let got = output(dir.path(), &[listen, args].concat()).await;
        let told = text(&got.stderr);
        assert_eq!(got.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(why) && told.lines().count() == 1, "{args:?}: {told}");
        assert!(!dir.path().join("certs").exists(), "{args:?}");
    }
}

/// It may be there for other servers of the same user.
#[tokio::test]
async fn a_setting_of_the_environment_without_effect_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = program::command(dir.path(), &["serve", "--listen", "localhost:0", "--http", "off", "demo"]);
    command.env("H3CAST_RESTART", "true").env("H3CAST_TAIL_LINES", "20");
    let mut serving = Serving::of(Program::of(command)).await;
    let line = serving.program.told("--tail-lines has no effect").await;
    assert!(line.contains("WARN") && line.contains("H3CAST_TAIL_LINES"), "{line}");
    serving.program.told("--restart has no effect").await;
    serving.program.signal("TERM");
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), serving.program.end()).await.unwrap().2, Some(0));
}
