//! Commands that do not end, or leave processes behind.

use crate::{
    ALONE,
    common::soon,
    serving::{Reading, Serving, gone, kill},
};

/// Stops the program while each of these commands has a viewer, and returns those of the processes that they
/// have printed that are left.
async fn left_of(commands: &[(&str, &str)], more: &[&str]) -> Vec<String> {
    let serving = Serving::start(|_| {
        let sources = commands.iter().map(|(name, command)| format!("{name}=exec:{command}"));
        sources.chain(more.iter().map(ToString::to_string)).collect()
    });
    let connection = serving.connect().await;
    let (mut readings, mut pids) = (Vec::new(), Vec::new());
    for (number, (name, _)) in commands.iter().enumerate() {
        let uri = serving.uri(&format!("/stream/{name}?from=start"));
        let mut reading = Reading::open(&connection, &uri, number % 2 == 1).await;
        pids.extend(reading.line().await.split_whitespace().map(String::from));
        readings.push(reading);
    }
    let stopping = tokio::task::spawn_blocking(|| serving.stop());
    let took = soon("the end", stopping).await.unwrap();
    let left = gone(&pids);
    kill(&left);
    println!("{more:?}: {} processes, {} left, stopped in {took:?}", pids.len(), left.len());
    left
}

/// Processes that ignore signals, and their children, end with the program.
#[tokio::test]
async fn commands_that_do_not_want_to_end() {
    let _alone = ALONE.lock().await;
    let commands = [
        ("ignores", "trap '' TERM INT HUP; echo $$; while :; do sleep 1; done"),
        ("children", "trap '' TERM; (trap '' TERM; sleep 1000 & echo $$ $!; wait) & wait"),
        ("deaf", "echo $$; exec >/dev/null 2>&1; sleep 1000"),
    ];
    let none: [String; 0] = [];
    assert_eq!(left_of(&commands, &["--grace=1s"]).await, none);
    assert_eq!(left_of(&commands, &["--per-viewer", "--grace=1s"]).await, none);
    // The program does not wait for streams here.
    assert_eq!(left_of(&commands, &["--per-viewer", "--grace=0s"]).await, none);
}

/// What a command has started belongs to it, even when its shell has ended by itself before.
#[tokio::test]
async fn processes_that_outlive_their_command() {
    let _alone = ALONE.lock().await;
    let commands = [("quiet", "sleep 1000 >/dev/null 2>&1 & echo $!"), ("heard", "sleep 1000 & echo $!")];
    let none: [String; 0] = [];
    for command in commands {
        assert_eq!(left_of(&[command], &["--grace=1s"]).await, none);
        assert_eq!(left_of(&[command], &["--grace=1s", "--per-viewer"]).await, none);
    }
}

/// A second signal skips the waiting, and leaves nothing behind all the same.
#[tokio::test]
async fn the_second_signal_leaves_no_command() {
    let _alone = ALONE.lock().await;
    const VIEWERS: usize = 20;
    let serving = Serving::start(|_| {
        vec!["exec:echo $$; exec sleep 1000", "--per-viewer", "--grace=15s", "--processes-per-client=0"]
    });
    let connection = serving.connect().await;
    let (mut readings, mut pids) = (Vec::new(), Vec::new());
    for _ in 0..VIEWERS {
        let mut reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
        pids.push(reading.line().await.trim().to_owned());
        readings.push(reading);
    }
    let stopping = tokio::task::spawn_blocking(|| serving.stop_at_once());
    soon("the end", stopping).await.unwrap();
    let left = gone(&pids);
    kill(&left);
    assert!(left.is_empty(), "{} processes are left of {VIEWERS}", left.len());
}
