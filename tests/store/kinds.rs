//! A stored feed, and another kind of source than the one that it is of.

use std::{fs, process::Command};

use h3cast::{
    feed::Keeper,
    store::{Store, StoreOptions},
};

use crate::{
    Place, STORE, first, lines, next, post,
    process::{Process, get, soon},
};

/// The server does not start, and says why.
async fn refused(place: &Place, sources: &[&str], feed: &str, kinds: (&str, &str)) {
    let mut server = place.rival(&[&STORE, sources].concat());
    server.ended(2).await;
    let why = format!(
        "cannot start the feed `{feed}`: its stored chunks are from `{}`, and `{}` would continue them: give it the same \
         kind of source as before, another name, or another folder with --store or H3CAST_STORE",
        kinds.0, kinds.1
    );
    server.says(&why);
}

async fn has(place: &Place, feed: &str, line: &str) {
    soon("the line is there", async {
        while !get(place, &format!("/stream/{feed}?from=-1&limit=1")).await.contains(line) {}
    })
    .await;
}

#[tokio::test]
async fn what_clients_write_and_what_the_server_reads_are_not_mixed() {
    let (place, server) = first(&["log=tail:app.log", "news=publish", "chat.*=publish", "quiet=publish"]).await;
    fs::write(place.folder().join("app.log"), "a line\n").unwrap();
    for feed in ["news", "chat.a"] {
        assert_eq!(post(&place, &format!("/stream/{feed}"), None, "hello\n").await.unwrap().0, 200);
    }
    has(&place, "log", "a line").await;
    server.stop().await;

    refused(&place, &["log=publish"], "log", ("tail:", "publish")).await;
    refused(&place, &["news=tail:app.log"], "news", ("publish", "tail:")).await;
    refused(&place, &["chat.a=exec:echo a"], "chat.a", ("publish", "exec:")).await;
    // Also by a pattern: of a feed that this creates, and of one that is not served yet.
    let server = next(&place, &["x.a=exec:echo a; exec sleep 100", "quiet=tail:app.log", "chat.a=publish"]).await;
    has(&place, "x.a", "a").await;
    has(&place, "quiet", "a line").await;
    assert_eq!(post(&place, "/stream/chat.a", None, "more\n").await.unwrap().0, 200);
    server.stop().await;
    refused(&place, &["x.*=publish"], "x.a", ("exec:", "publish")).await;

    // Nothing was changed by that, and what does not mix continues.
    fs::write(place.folder().join("more.log"), "another\n").unwrap();
    let server = next(&place, &["log=exec:echo another; exec sleep 100", "news=publish", "chat.*=publish"]).await;
    has(&place, "log", "another").await;
    assert_eq!(lines(&place, "/stream/log?from=start", 2).await, ["a line\n", "another\n"]);
    assert_eq!(lines(&place, "/stream/chat.a?from=start", 2).await, ["hello\n", "more\n"]);
    assert_eq!(lines(&place, "/stream/news?from=start", 1).await, ["hello\n"]);
    server.stop().await;
}

/// Earlier versions did not note the kind of source.
#[tokio::test]
async fn a_store_without_kinds_continues() {
    let place = Process::place(None);
    let store = Store::open(place.folder().join("store"), StoreOptions::default()).unwrap();
    for name in ["log", "news"] {
        store.feed(name).unwrap().publish("old\n".into(), None).await.unwrap();
    }
    store.close().unwrap();
    fs::write(place.folder().join("app.log"), "").unwrap();
    let (place, server) = Process::begin(
        place,
        Command::new(env!("CARGO_BIN_EXE_h3cast")),
        &[STORE[0], STORE[1], "log=tail:app.log", "news=publish"],
    )
    .await;
    fs::write(place.folder().join("app.log"), "a line\n").unwrap();
    has(&place, "log", "a line").await;
    assert_eq!(post(&place, "/stream/news", None, "new\n").await.unwrap().0, 200);
    assert_eq!(lines(&place, "/stream/news?from=start", 2).await, ["old\n", "new\n"]);
    server.stop().await;
    // From now on it is known.
    refused(&place, &["log=publish"], "log", ("tail:", "publish")).await;
}
