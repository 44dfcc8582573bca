//! A take-over after one that failed: the store may still be another process's.

use std::fs::File;

use crate::{
    process::Process,
    stored::{ARGS, Written},
};

/// The one before has gone, and what it had of the store is freed in a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_comes_right_after_waits_for_the_store() {
    let (place, mut first) = Process::first_with("store-released=stop", &ARGS).await;
    let mut written = Written::begin(&place).await;
    let mut second = place.next(&ARGS);
    first.until("it has released the store", Process::is_stopped).await;
    second.kill();
    let lock = File::options().read(true).write(true).open(place.folder().join("store/lock")).unwrap();
    lock.lock().unwrap();
    first.go_on();
    first.until("it waits for the store", |first| first.said().contains("to release the store")).await;
    let mut third = place.next(&ARGS);
    let waits = format!("process {} waits to take over until this server has its store again", third.pid());
    first.until("the next one waits", |first| first.said().contains(&waits) || !third.is_running()).await;
    lock.unlock().unwrap();
    third.ready().await;
    first.ended(0).await;
    written.continues(&third).await;
    third.stop().await;
}

/// A person has to end it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_hangs_with_the_store_is_named() {
    let (place, first) = Process::first(&ARGS).await;
    let mut written = Written::begin(&place).await;
    let mut second = place.stopped_at("take-over", &ARGS).await;
    let waits = "waiting for the new server to release the store";
    first.until("it gives the new one up", |first| first.said().contains(waits)).await;
    let mut third = place.next(&ARGS);
    let paused = "publishers and sources are paused until this server has it again";
    first.until("it warns", |first| first.said().contains(paused)).await;
    let said = first.said();
    let warning = said.lines().find(|line| line.contains(paused)).unwrap();
    let holder = format!("--store: store is in use by process {}", second.pid());
    assert!(warning.contains("WARN") && warning.contains(&holder), "{warning}");
    third.ended(1).await;
    third.says(&format!("process {} has failed to take over, and still uses the store: stop it first", second.pid()));
    second.kill();
    written.continues(&first).await;
    // Once, however often it has looked.
    assert_eq!(first.said().matches(paused).count(), 1, "{}", first.said());
    first.stop().await;
}

/// Nobody is told to stop what has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_has_ended_is_not_named_for_another_that_has_the_store() {
    let (place, first) = Process::first_with("store-released=stop", &ARGS).await;
    let mut written = Written::begin(&place).await;
    let mut second = place.next(&ARGS);
    first.until("it has released the store", Process::is_stopped).await;
    second.kill();
    let lock = File::options().read(true).write(true).open(place.folder().join("store/lock")).unwrap();
    lock.lock().unwrap();
    first.go_on();
    first.until("it waits for the store", |first| first.said().contains("to release the store")).await;
    let mut third = place.next(&ARGS);
    third.ended(1).await;
    third.says("it does not have its store back yet after a take-over that failed: its log says why");
    lock.unlock().unwrap();
    written.continues(&first).await;
    first.stop().await;
}
