//! A file that is followed while servers come and go.

use std::{
    fs,
    io::Write,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    STORE, first, lines, next,
    places::command,
    process::{Place, Process},
};

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

/// The first server of a feed of `app.log`, whose folder has these files before.
async fn begin(files: &[(&str, &str)]) -> (Arc<Place>, Process) {
    let place = Process::place(None);
    files.iter().for_each(|(name, text)| append(&place.folder().join(name), text));
    Process::begin(place, command(), &[&STORE[..], &["tail:app.log"]].concat()).await
}

/// Each file of several rotations that nobody saw is read, in order.
#[tokio::test]
async fn rotated_more_than_once_meanwhile() {
    let args = ["tail:app.log"];
    // Of earlier times: they are no part of the feed.
    let (place, mut server) = begin(&[("app.log.7", "old\n")]).await;
    let name = |name: &str| place.folder().join(name);
    let log = name("app.log");
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
    fs::copy(&log, name("app.log.1.tmp")).unwrap();
    fs::write(&log, "eight\n").unwrap();
    for number in (1..4).rev() {
        fs::rename(name(&format!("app.log.{number}")), name(&format!("app.log.{}", number + 2))).unwrap();
    }
    fs::rename(name("app.log.1.tmp"), name("app.log.2")).unwrap();
    fs::write(name("app.log.1.gz"), "packed").unwrap();
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 8).await[6..], ["seven\n", "eight\n"]);
    server.says("is compressed: its lines are missing");
    server.stop().await;
}

/// A copy that was made before the file was emptied has been read already, whether that was noticed or not.
#[tokio::test]
async fn a_copy_of_what_was_read_is_not_read_again() {
    let args = ["tail:app.log"];
    let (place, mut server) = first(&args).await;
    let name = |name: &str| place.folder().join(name);
    let (log, mut all) = (name("app.log"), Vec::new());
    for round in 0..3 {
        let line = |what: &str| format!("{what} {round}\n");
        append(&log, &line("before"));
        all.push(line("before"));
        assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
        fs::rename(name("app.log.1"), name("app.log.2")).ok();
        fs::copy(&log, name("app.log.1")).unwrap();
        fs::File::create(&log).unwrap();
        if round < 2 {
            append(&log, &line("after"));
            all.push(line("after"));
            assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
        }
        match round {
            0 => server.kill(),
            _ => server.stop().await,
        }
        server = next(&place, &args).await;
        append(&log, &line("last"));
        all.push(line("last"));
        assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all, "round {round}");
    }
    server.stop().await;
}

/// Which files are new is not told by their times: the clock may be set back while nothing follows them.
#[tokio::test]
async fn rotated_while_the_clock_was_set_back() {
    let args = ["tail:app.log"];
    let (place, mut server) = begin(&[("app.log.1", "of earlier times\n"), ("app.log", "one\n")]).await;
    let name = |name: &str| place.folder().join(name);
    let log = name("app.log");
    assert_eq!(lines(&place, "/stream?from=start", 1).await, ["one\n"]);
    server.kill();
    // What was there when the feed began is no part of it.
    fs::rename(name("app.log.1"), name("app.log.4")).unwrap();
    let mut all = vec!["one\n".to_owned()];
    for (number, text) in [(3, "two\n"), (2, "three\n"), (1, "four\n")] {
        append(&log, text);
        all.push(text.to_owned());
        // The later they were written, the older they seem.
        let then = SystemTime::now() - (5 - number) * Duration::from_secs(3600);
        fs::File::options().append(true).open(&log).unwrap().set_modified(then).unwrap();
        fs::rename(&log, name(&format!("app.log.{number}"))).unwrap();
    }
    append(&log, "five\n");
    all.push("five\n".to_owned());
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 5).await, all);
    server.stop().await;
}

/// A copy, which continues the file, and the file itself, which was renamed when it had other lines.
#[tokio::test]
async fn copied_and_emptied_and_renamed_meanwhile() {
    let args = ["tail:app.log"];
    let (place, mut server) = begin(&[("app.log", "one\n")]).await;
    let name = |name: &str| place.folder().join(name);
    let log = name("app.log");
    assert_eq!(lines(&place, "/stream?from=start", 1).await, ["one\n"]);
    server.kill();
    append(&log, "two\n");
    fs::copy(&log, name("app.log.1")).unwrap();
    fs::File::create(&log).unwrap();
    append(&log, "three\nfour\n");
    fs::rename(name("app.log.1"), name("app.log.2")).unwrap();
    fs::rename(&log, name("app.log.1")).unwrap();
    append(&log, "five\n");
    let all = ["one\n", "two\n", "three\n", "four\n", "five\n"];
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", 5).await, all);
    server.stop().await;
}

/// More than are read at once.
#[tokio::test]
async fn rotated_many_times_meanwhile() {
    let args = ["tail:app.log"];
    let (place, mut server) = first(&args).await;
    let log = place.folder().join("app.log");
    let mut all = Vec::new();
    for number in 20261101..20261125 {
        append(&log, &format!("{number}\n"));
        all.push(format!("{number}\n"));
        if number == 20261101 {
            assert_eq!(lines(&place, "/stream?from=start", 1).await, all);
            server.kill();
        }
        fs::rename(&log, place.folder().join(format!("app.log-{number}"))).unwrap();
    }
    server = next(&place, &args).await;
    assert_eq!(lines(&place, "/stream?from=start", all.len()).await, all);
    server.stop().await;
}

/// Compressed files are not read, and the log names all that may have what is missing.
#[tokio::test]
async fn compressed_meanwhile() {
    for (files, why) in [
        (&["app.log.gz"][..], "app.log.gz is compressed: what came after the first 4 bytes was not read"),
        (&["app.log.1.gz"], "app.log.1.gz is compressed: what came after the first 4 bytes was not read"),
        (
            &["app.log-20261127.gz", "app.log-20261128.gz"],
            "app.log-20261128.gz are compressed: they were not read, nor what came after its first 4 bytes",
        ),
    ] {
        let (place, mut server) = begin(&[("app.log", "one\n")]).await;
        assert_eq!(lines(&place, "/stream?from=start", 1).await, ["one\n"]);
        server.kill();
        let name = |name: &str| place.folder().join(name);
        files.iter().for_each(|file| fs::write(name(file), "packed").unwrap());
        fs::remove_file(name("app.log")).unwrap();
        append(&name("app.log"), "new\n");
        let server = next(&place, &["tail:app.log"]).await;
        assert_eq!(lines(&place, "/stream?from=start", 2).await, ["one\n", "new\n"]);
        for part in files.iter().chain([&"the file that was followed before is gone"]).chain([&why]) {
            server.says(part);
        }
        server.stop().await;
    }
}

/// One that was there when the feed began has nothing of what is missing.
#[tokio::test]
async fn what_was_compressed_before_is_not_named() {
    let (place, mut server) = begin(&[("app.log", "one\n"), ("app.log.gz", "of last year")]).await;
    assert_eq!(lines(&place, "/stream?from=start", 1).await, ["one\n"]);
    server.kill();
    fs::remove_file(place.folder().join("app.log")).unwrap();
    append(&place.folder().join("app.log"), "new\n");
    let server = next(&place, &["tail:app.log"]).await;
    assert_eq!(lines(&place, "/stream?from=start", 2).await, ["one\n", "new\n"]);
    server.says("the file that was followed before is gone: what was appended to it since then is not known");
    assert!(!server.said().contains("app.log.gz"), "{}", server.said());
    server.stop().await;
}
