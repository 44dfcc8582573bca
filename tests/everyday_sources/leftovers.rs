//! What a command leaves behind when it exits: filters that still print, and processes that only hold its output.

use h3cast::client::Connection;

use crate::{
    common::soon,
    serving::{Reading, Serving, gone},
};

/// All that a viewer gets, to the end; an error at the end in words.
async fn all_of(serving: &Serving, connection: &Connection, name: &str) -> String {
    let uri = serving.uri(&format!("/stream/{name}?from=start&format=frames"));
    let all = Reading::open(connection, &uri, false).await.all().await;
    String::from_utf8_lossy(&all).into_owned()
}

fn log_of(serving: &Serving) -> String {
    std::fs::read_to_string(serving.dir().join("stderr")).unwrap()
}

/// The log, once that stands in it: a viewer may see the end of a feed before the line about it is written.
async fn logged(serving: &Serving, text: &str) -> String {
    soon(text, async {
        loop {
            let log = log_of(serving);
            if log.contains(text) {
                return log;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await
}

/// A shell doesn't wait for `>(…)`.
#[tokio::test]
async fn a_filter_that_a_command_leaves_behind_finishes() {
    for more in [&[][..], &["--per-viewer"]] {
        let slow = "while read l; do echo \"$l.\"; sleep 0.3; done";
        let failed = format!("failed=exec:bash -c 'exec > >({slow}); seq 12; echo error: the last line; exit 1'");
        let clean = format!("clean=exec:bash -c 'seq 13 > >({slow})'");
        // Its last line is of many pieces, with pauses that aren't at the end of a line.
        let dots =
            "dots=exec:bash -c 'true > >(for i in 1 2 3 4 5 6; do printf %s $i; sleep 0.7; done; echo \" end\")'";
        let serving = Serving::start(|_| [&[&failed, &clean, dots], more].concat());
        let connection = serving.connect().await;
        let (failed, clean, dots) = tokio::join!(
            all_of(&serving, &connection, "failed"),
            all_of(&serving, &connection, "clean"),
            all_of(&serving, &connection, "dots"),
        );
        assert!(failed.contains("12.\n") && failed.contains("error: the last line.\n"), "{more:?}: {failed}");
        assert!(failed.contains("the command exited with status 1"), "{more:?}: {failed}");
        assert!(clean.contains("13.\n") && !clean.contains("behind"), "{more:?}: {clean}");
        assert!(dots.contains("123456 end\n") && !dots.contains("behind"), "{more:?}: {dots}");
        serving.stop();
    }
}

/// It would be a loss that no one notices.
#[tokio::test]
async fn a_feed_whose_processes_had_to_be_ended_is_not_clean() {
    for (more, status) in [(&[][..], ""), (&["--per-viewer"], ""), (&[], "; exit 3")] {
        let command = format!("exec:echo begun; sleep 1000 & echo $! >pid{status}");
        let serving = Serving::start(|_| [&[command.as_str()], more].concat());
        let connection = serving.connect().await;
        let all = all_of(&serving, &connection, "default").await;
        assert!(all.contains("begun\n") && all.contains("held its output open and were ended"), "{more:?}: {all}");
        assert_eq!(all.contains("the command exited with status 3"), !status.is_empty(), "{all}");
        let log = logged(&serving, "held its output open and were ended").await;
        assert!(log.contains("WARN"), "{log}");
        assert!(log.contains("feed=\"default\""), "{log}");
        let pid = std::fs::read_to_string(serving.dir().join("pid")).unwrap().trim().to_owned();
        assert_eq!(gone(&[pid]), [""; 0]);
        serving.stop();
    }
}

/// It can't be ended with the command's group, and isn't waited for.
#[tokio::test]
async fn a_feed_that_is_still_written_by_another_group_is_not_clean() {
    let serving = Serving::start(|_| vec!["exec:setsid sh -c 'echo $$ >pid; while sleep 0.02; do echo y; done' &"]);
    let connection = serving.connect().await;
    let all = all_of(&serving, &connection, "default").await;
    assert!(all.contains("still print in a process group of their own"), "{all}");
    crate::serving::kill(&[std::fs::read_to_string(serving.dir().join("pid")).unwrap().trim().to_owned()]);
    serving.stop();
}

/// A restarted command says why a round took its time.
#[tokio::test]
async fn what_each_round_leaves_behind_is_logged() {
    let serving = Serving::start(|_| ["exec:echo begun; sleep 1000 &", "--restart"].to_vec());
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
    assert_eq!(reading.line().await, "begun\n");
    assert_eq!(reading.line().await, "begun\n");
    logged(&serving, "held its output open and were ended; restarting it in").await;
    drop((reading, connection));
    serving.stop();
}

/// Whoever reads slowly decides how fast a filter may print.
#[tokio::test]
async fn a_slow_viewer_ends_no_filter_early() {
    // More than what is on its way holds, in few chunks.
    let filter = "exec:bash -c 'true > >(yes \"$(printf %04000d 0)\" | head -n 4000; echo the last line)'";
    let serving = Serving::start(|_| [filter, "--per-viewer"].to_vec());
    let connection = serving.connect().await;
    let mut reading = Reading::open(&connection, &serving.uri("/stream"), false).await;
    let mut all = reading.line().await.into_bytes();
    // Longer than a silence may be. That nothing happens has no event.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    all.extend(reading.all().await);
    let all = String::from_utf8(all).unwrap();
    assert_eq!((all.len(), all.lines().last()), (4000 * 4001 + 14, Some("the last line")));
    serving.stop();
}

#[tokio::test]
async fn a_keeper_that_panics_fails_its_feed() {
    for more in [&[][..], &["--per-viewer"]] {
        let args = [&["exec:seq 3; sleep 1000"], more].concat();
        let serving = Serving::start_by(&["env", "H3CAST_FAULT=keeper=panic"], |_| args);
        let connection = serving.connect().await;
        let all = all_of(&serving, &connection, "default").await;
        assert!(all.contains("the command was lost"), "{more:?}: {all}\n{}", log_of(&serving));
        let log = logged(&serving, "a test asks for a panic at `keeper`").await;
        assert_eq!(log.matches("panicked").count(), 1, "{log}");
    }
}
