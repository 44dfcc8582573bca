//! A backup of a store that is put back.

use std::process::Command;

use crate::{first, lines, next, post, process};

fn sh(place: &process::Place, script: &str) {
    assert!(Command::new("sh").args(["-ec", script]).current_dir(place.folder()).status().unwrap().success());
}

/// Its numbers since then would mean other chunks: `docs/storage.md` has what to do.
#[tokio::test]
async fn another_epoch_keeps_cursors_unambiguous() {
    let (place, server) = first(&["publish"]).await;
    assert_eq!(post(&place, "/stream", None, "one\n").await.unwrap().0, 200);
    sh(&place, "cp -r store backup");
    let (_, answer) = post(&place, "/stream", None, "two\n").await.unwrap();
    let cursor = answer["last"].as_str().unwrap().to_owned();
    server.stop().await;
    let guide = include_str!("../../docs/storage.md");
    let command = guide.lines().find(|line| line.starts_with("sed ")).expect("the command");
    sh(&place, command);
    sh(&place, "rm -r store && mv backup store");
    let server = next(&place, &["publish"]).await;
    assert_eq!(post(&place, "/stream", None, "another\n").await.unwrap().0, 200);
    let answer = process::get(&place, &format!("/stream?from={cursor}")).await;
    assert!(answer.contains(" 410 "), "{answer}");
    assert_eq!(lines(&place, "/stream?from=start", 2).await, ["one\n", "another\n"]);
    server.stop().await;
}
