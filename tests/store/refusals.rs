//! What a server with a store refuses, in words.

use std::{fs, time::Duration};

use crate::{STORE, first, process::Process};

async fn refused(place: &crate::Place, args: &[&str], why: &str) {
    let mut server = place.rival(args);
    server.ended(2).await;
    assert!(server.said().contains(why), "{}", server.said());
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
    fs::write(place.folder().join("file"), "").unwrap();
    refused(&place, &free(&with("file")), "--store").await;
    // Also for root, who may write everywhere: a file system that nobody can write.
    refused(&place, &free(&with("/proc/h3cast")), "--store").await;
    server.stop().await;
}

#[tokio::test]
async fn settings_that_do_not_fit() {
    let place = Process::place(None);
    for (args, why) in [
        (&["publish", "--lag", "block"][..], "a viewer that falls behind the history reads from the disk"),
        (&["publish", "--take-over"], "--take-over"),
        (&["publish", "--engine", "nats://127.0.0.1:1/x"], "--store and --engine both store publish feeds"),
        (&["publish", "--retain", "lots"], "neither a size nor a time"),
        (&["publish", "--retain", "other=1G"], "there is no feed `other` for --retain"),
        (&["publish", "--fsync", "5"], "has no unit"),
    ] {
        refused(&place, &[&STORE, args].concat(), why).await;
        assert!(!place.folder().join("store").exists(), "{args:?}");
    }
    refused(&place, &["publish", "--retain", "1G"], "--store").await;
}

/// One that has stored feeds cannot give them away while it runs.
#[tokio::test]
async fn another_server_does_not_take_over() {
    let (place, server) = Process::first(&["publish", "--store", "store"]).await;
    let mut second = place.next(&["publish"]);
    second.ended(1).await;
    assert!(second.said().contains("--store"), "{}", second.said());
    tokio::time::sleep(Duration::ZERO).await;
    server.stop().await;
}
