//! A file that is followed while servers come and go.

use std::{
    fs,
    io::Write,
    time::{Duration, SystemTime},
};

use crate::{first, lines, next};

fn append(path: &std::path::Path, text: &str) {
    fs::File::options().create(true).append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test]
async fn a_file_is_followed_from_where_the_killed_server_was() {
    let args = ["tail:app.log"];
    let (place, mut server) = first(&args).await;
    let log = place.folder().join("app.log");
    let mut all = Vec::new();
    for round in 0..6 {
        for number in 0..50 {
            let line = format!("round {round} line {number}\n");
            append(&log, &line);
            all.push(line);
        }
        // Of one that was begun, nothing is published before it is whole.
        append(&log, "beg");
        if round % 2 == 0 {
            assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all, "round {round}");
        }
        server.kill();
        append(&log, &format!("un {round}\n"));
        all.push(format!("begun {round}\n"));
        if round == 3 {
            // Rotated while nobody looked.
            fs::rename(&log, place.folder().join("app.log.1")).unwrap();
            append(&log, "new file\n");
            all.push("new file\n".into());
        }
        server = next(&place, &args).await;
        assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all, "round {round}");
    }
    server.kill();
    // What becomes of the rest of a file that is gone is not known, which is said.
    // The new one is there before, or it could have the same inode.
    let new = place.folder().join("new.log");
    append(&new, "after\n");
    fs::remove_file(&log).unwrap();
    fs::rename(&new, &log).unwrap();
    append(&place.folder().join("app.log.other"), "another\n");
    all.push("after\n".into());
    let server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    server.says("what was appended to it since then is not known");
    server.stop().await;
}

/// Each file of several rotations that nobody saw is read, in order.
#[tokio::test]
async fn rotated_more_than_once_meanwhile() {
    let args = ["tail:app.log"];
    let (place, mut server) = first(&args).await;
    let name = |name: &str| place.folder().join(name);
    let log = name("app.log");
    // Of earlier times: they are no part of the feed.
    append(&name("app.log.7"), "old\n");
    append(&log, "one\n");
    assert_eq!(lines(&place, "/stream?from=start", 1).await, ["one\n"]);
    server.kill();

    fs::rename(name("app.log.7"), name("app.log.10")).unwrap();
    let hour = Duration::from_secs(3600);
    fs::File::options().append(true).open(name("app.log.10")).unwrap().set_modified(SystemTime::now() - hour).unwrap();
    fs::write(name("app.log.bak"), "one\ntwo\n").unwrap();
    fs::write(name("app.log.9"), "one\ntwo\n").unwrap();
    append(&log, "two\n");
    for (number, text) in [(2, "three\n"), (1, "four\n"), (0, "five\n")] {
        fs::rename(&log, name(&format!("app.log.{}", number + 1))).unwrap();
        append(&log, text);
        // A rotation takes longer than the clock of a file system.
        let then = SystemTime::now() + (3 - number) * Duration::from_secs(1);
        fs::File::options().append(true).open(&log).unwrap().set_modified(then).unwrap();
    }
    let all = ["one\n", "two\n", "three\n", "four\n", "five\n"];
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 5).await, all);
    server.kill();
    // Once.
    append(&log, "six\n");
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 6).await, [&all[..], &["six\n"]].concat());
    server.kill();

    // Rotated again, copied and emptied, and an unknown one compressed.
    append(&log, "seven\n");
    fs::copy(&log, name("app.log.0")).unwrap();
    fs::write(&log, "eight\n").unwrap();
    fs::write(name("app.log.11.gz"), "packed").unwrap();
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 8).await[6..], ["seven\n", "eight\n"]);
    server.says("is compressed: its lines are missing");
    server.stop().await;
}
