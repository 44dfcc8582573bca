//! What a server with a store refuses, in words.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use crate::{
    STORE, first, lines, next, post,
    process::{Process, soon},
};

async fn refused(place: &crate::Place, args: &[&str], why: &str) {
    let mut server = place.rival(args);
    server.ended(2).await;
    assert!(server.said().contains(why) && !server.said().contains("os error"), "{}", server.said());
}

#[tokio::test]
async fn folders_that_are_not_its_own() {
    let (place, server) = first(&["publish"]).await;
    let with = |store: &'static str| ["publish", "--store", store];
    let free = |args: &[&'static str]| [args, &["--certs", "other"]].concat();
    refused(&place, &free(&with("store")), "is in use").await;
    fs::create_dir(place.folder().join("mine")).unwrap();
    fs::write(place.folder().join("mine/letter.txt"), "dear").unwrap();
    refused(&place, &free(&with("mine")), "has files that are not a store's, such as `letter.txt`").await;
    assert_eq!(fs::read_dir(place.folder().join("mine")).unwrap().count(), 1, "something was written there");
    fs::create_dir(place.folder().join("linked")).unwrap();
    std::os::unix::fs::symlink("../mine/letter.txt", place.folder().join("linked/lock")).unwrap();
    refused(&place, &free(&with("linked")), "linked/lock is not a regular file").await;
    assert_eq!(fs::read(place.folder().join("mine/letter.txt")).unwrap(), b"dear");
    fs::write(place.folder().join("file"), "").unwrap();
    for store in ["file", "file/store"] {
        refused(&place, &free(&with(store)), "--store: file is not a folder: choose one").await;
    }
    std::os::unix::fs::symlink("nowhere", place.folder().join("dangling")).unwrap();
    refused(&place, &free(&with("dangling")), "--store: dangling is not a folder: choose one").await;
    // Also for root, who may write everywhere: a file system that nobody can write.
    #[cfg(target_os = "linux")]
    refused(&place, &free(&with("/proc/h3cast")), "--store: no folder can be created at /proc/h3cast, since /proc")
        .await;
    server.stop().await;
}

/// What helps with a damaged file of the store is not to remove its folder, which has all feeds.
#[tokio::test]
async fn damaged_files_of_the_store() {
    let (place, server) = first(&["publish"]).await;
    assert_eq!(post(&place, "/stream", None, "one\n").await.unwrap().0, 200);
    server.stop().await;
    for (file, content) in [("h3cast-store.json", r#"{"format":1}"#), ("state.json", r#"{"closed":false}"#)] {
        let path = place.folder().join("store").join(file);
        fs::write(&path, "{").unwrap();
        let why = format!(
            "--store: store/{file} is damaged at byte 0: restore it from a copy, or replace its content with {content}"
        );
        refused(&place, &["publish", "--store", "store"], &why).await;
        fs::write(&path, content).unwrap();
        let server = next(&place, &["publish"]).await;
        assert_eq!(lines(&place, "/stream?from=start", 1).await, ["one\n"], "{file}");
        server.stop().await;
    }
    // That of a feed.
    fs::write(place.folder().join("store/feeds/0/mark.json"), "{").unwrap();
    let why = "store/feeds/0/mark.json is damaged at byte 0: restore it from a copy, or remove its folder";
    refused(&place, &["publish", "--store", "store"], why).await;
}

/// As one that was in use by a process that has been killed and has not ended yet.
#[tokio::test]
async fn a_folder_that_is_free_in_a_moment() {
    let (place, server) = first(&["publish"]).await;
    server.stop().await;
    let store = h3cast::store::Store::open(place.folder().join("store"), Default::default()).unwrap();
    let mut server = place.rival(&["publish", "--store", "store"]);
    // Nothing says that it waits. If it gets to the folder later than that, it need not wait.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(store);
    server.ready().await;
    server.stop().await;
}

/// The folder was forgotten, and its flag takes what comes next.
#[tokio::test]
async fn sources_are_no_folders() {
    let place = Process::place(None);
    for source in ["c=publish", "chat.*=publish", "log=tail:app.log", "publish", "tail:app.log"] {
        let why =
            format!("`{source}` is a source, not a folder: write --store DIR {source} or H3CAST_STORE=DIR, or ./");
        refused(&place, &["--store", source], &why).await;
        refused(&place, &["--check", "--store", source, "publish"], &why).await;
    }
    assert!(!place.folder().join("c=publish").exists());
    // Once it is there, it is meant.
    for store in ["./c=publish", "c=publish"] {
        let mut server = place.rival(&["publish", "--store", store]);
        server.ready().await;
        server.stop().await;
    }
}

/// What is in a folder, with its contents and times.
fn all_of(dir: &Path) -> Vec<(PathBuf, Vec<u8>, Option<SystemTime>)> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = entries
        .flat_map(|path| match path.is_dir() {
            true => all_of(&path),
            false => {
                vec![(path.clone(), fs::read(&path).unwrap_or_default(), path.metadata().unwrap().modified().ok())]
            }
        })
        .collect();
    all.sort();
    all
}

/// `--check` tries the folder, and changes nothing there.
#[tokio::test]
async fn a_check_of_the_folder() {
    let (place, server) = first(&["publish", "--certs", "certs"]).await;
    assert_eq!(post(&place, "/stream", None, "one\n").await.unwrap().0, 200);
    let folder = place.folder();
    fs::create_dir(folder.join("mine")).unwrap();
    fs::write(folder.join("mine/letter.txt"), "dear").unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    fs::write(folder.join("file"), "").unwrap();
    let check = |store: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
        command.args(["serve", "publish", "--check", "--store", store, "--listen", "localhost:0"]).args(more);
        let done = command.current_dir(folder).output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap() + &String::from_utf8(done.stderr).unwrap();
        (done.status.code(), said)
    };
    let in_use = format!("--store: store is in use by process {}: stop that process", server.pid());
    let (code, said) = check("store", &[]);
    assert!(code == Some(2) && said.contains(&in_use) && said.contains("with --take-over"), "{said}");
    assert_eq!(check("store", &["--take-over"]), (Some(0), "ok\n".into()));
    server.stop().await;
    let closed = all_of(&folder.join("store"));
    for (store, why) in [
        ("mine", "has files that are not a store's, such as `letter.txt`"),
        ("file", "--store: file is not a folder"),
        ("file/store", "file is not a folder"),
        #[cfg(target_os = "linux")]
        ("/proc/h3cast/deep", "no folder can be created at /proc/h3cast/deep, since /proc is the system's: choose one"),
    ] {
        let (code, said) = check(store, &[]);
        assert!(code == Some(2) && said.contains(why) && said.lines().count() == 1, "{store}: {said}");
    }
    // Also for root, who may write everywhere: a file system that nobody can write.
    #[cfg(target_os = "linux")]
    for store in ["empty", "empty/new"] {
        let mut command = crate::room::unshared("ro none empty");
        command.args(["serve", "publish", "--check", "--store", store, "--listen", "localhost:0"]);
        let said = String::from_utf8(command.current_dir(folder).output().unwrap().stderr).unwrap();
        assert!(
            said.contains("/empty is on a read-only file system") || said.contains("--store: empty is on a read-only"),
            "{said}"
        );
    }
    for store in ["store", "empty", "new/deep"] {
        assert_eq!(check(store, &[]), (Some(0), "ok\n".into()), "{store}");
    }
    assert!(!folder.join("new").exists() && all_of(&folder.join("empty")).is_empty());
    assert_eq!(all_of(&folder.join("mine")).len(), 1);
    assert_eq!(all_of(&folder.join("store")), closed);
    // As the server would warn at its start.
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    let done = command.args(["serve", "demo", "--check", "--store", "store"]).current_dir(folder).output().unwrap();
    assert!(String::from_utf8(done.stderr).unwrap().contains("--store stores nothing: it is for publish, "));
}

/// A change to a store's folder.
type Change = fn(&Path);

/// Moves something out of the store, and puts a link in its place.
fn link(store: &Path, name: &str) {
    let elsewhere = store.with_file_name("elsewhere");
    let _ = fs::remove_dir_all(&elsewhere).or_else(|_| fs::remove_file(&elsewhere));
    fs::rename(store.join(name), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, store.join(name)).unwrap();
}

/// `--check` finds what would stop a start, in the same words.
#[tokio::test]
async fn a_start_that_would_fail() {
    let (place, server) = first(&["publish"]).await;
    assert_eq!(post(&place, "/stream", None, "one\n").await.unwrap().0, 200);
    server.stop().await;
    let (store, kept) = (place.folder().join("store"), place.folder().join("kept"));
    fs::rename(&store, &kept).unwrap();
    let changes: [(Change, &str); 6] = [
        (|store| link(store, "feeds"), "store/feeds is not a folder"),
        (|store| link(store, "feeds/0"), "store/feeds/0 is not a folder"),
        (|store| link(store, "state.json"), "store/state.json is not a regular file"),
        (
            |store| fs::create_dir(store.join("state.new")).unwrap(),
            "store/state.new is a folder, and a file of that name",
        ),
        (|store| fs::write(store.join("feeds/99"), "").unwrap(), "store/feeds/99 is not a folder"),
        (
            |store| fs::create_dir_all(store.join("feeds/99/sub")).unwrap(),
            "99 has files that are not a store's, such as `sub`",
        ),
    ];
    for (change, why) in changes {
        copy(&kept, &store);
        change(&store);
        let before = all_of(&store);
        let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
        command.args(["serve", "publish", "--check", "--store", "store", "--listen", "localhost:0"]);
        let done = command.current_dir(place.folder()).output().unwrap();
        let checked = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.code() == Some(2) && checked.contains(why), "{why}: {checked}");
        refused(&place, &["publish", "--store", "store"], checked.trim_end()).await;
        assert!(all_of(&store) == before, "{why}: something was changed");
        fs::remove_dir_all(&store).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        match from.is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(&from, &to).unwrap()),
        }
    }
}

#[tokio::test]
async fn publishing_to_a_folder_that_was_removed() {
    let (place, server) = first(&["publish", "chat.*=publish"]).await;
    assert_eq!(post(&place, "/stream", None, "one\n").await.unwrap().0, 200);
    let store = place.folder().join("store");
    fs::remove_dir_all(&store).unwrap();
    for path in ["/stream", "/stream/chat.a"] {
        let refused = async {
            loop {
                let (status, problem) = post(&place, path, None, "late\n").await.unwrap();
                if status != 200 {
                    break (status, problem);
                }
            }
        };
        let (status, problem) = soon("a refusal", refused).await;
        assert_eq!(status, 503, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("store was removed or moved"), "{problem}");
    }
    server.says("was removed or moved, and nothing is stored any more: put it back (a restart begins an empty store)");
    server.says(&format!("store={}", store.display()));
    let unready = crate::process::get(&place, "/readyz").await;
    for feed in ["default", "chat.*"] {
        let line = format!("feed {feed}: the folder that stores it was removed or moved\n");
        assert!(unready.contains(&line), "{unready}");
    }
    assert!(!store.exists());
    server.stop().await;
    assert!(!store.exists());
    let server = next(&place, &["publish"]).await;
    assert_eq!(post(&place, "/stream", None, "two\n").await.unwrap().0, 200);
    server.stop().await;
}

#[tokio::test]
async fn settings_that_do_not_fit() {
    let place = Process::place(None);
    for (args, why) in [
        (&["publish", "--lag", "block"][..], "a viewer that falls behind the history reads from the disk"),
        (&["publish", "--engine", "nats://127.0.0.1:1/x"], "--store and --engine both store publish feeds"),
        (&["publish", "--retain", "10"], "`10` has no unit: write 10M or 10G"),
        (&["publish", "--retain", "lots"], "neither a size nor a time"),
        (&["publish", "--retain", "other=1G"], "there is no feed `other` for --retain"),
        (&["publish", "--retain", "1G", "--retain", "2G"], "--retain is given twice: leave one out"),
        (&["a=publish", "--retain", "1G;a=1G;a=7d"], "--retain is given twice for the feed `a`: leave one out"),
        (&["publish", "--fsync", "5"], "has no unit"),
    ] {
        refused(&place, &[&STORE, args].concat(), why).await;
        assert!(!place.folder().join("store").exists(), "{args:?}");
    }
    for (flag, value) in [("--retain", "1G"), ("--fsync", "always")] {
        refused(&place, &["publish", flag, value], &format!("{flag} needs --store DIR as well")).await;
    }
}

/// Whatever is to be written there: the store is not the only one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_read_only_file_system() {
    let place = Process::place(None);
    fs::create_dir(place.folder().join("empty")).unwrap();
    for (args, why) in [
        (&["publish", "--store", "empty"][..], "is on a read-only file system: mount that for writing"),
        (&["demo", "--certs", "empty/certs"], "mount its file system for writing, or choose another place"),
        (&["demo", "--access-log", "empty/log"], "mount its file system for writing, or choose another place"),
    ] {
        let mut command = crate::room::unshared("ro none empty");
        command.args(["serve", "--listen", "localhost:0", "--http", "off"]).args(args);
        let said = String::from_utf8(command.current_dir(place.folder()).output().unwrap().stderr).unwrap();
        assert!(said.contains(why) && !said.contains("os error"), "{said}");
    }
}
