use super::*;
use crate::{Cursor, Start};

fn family(all: usize, each: usize) -> Arc<WrittenFeeds> {
    let limits = WrittenLimits { all, each, idle: Duration::from_secs(100) };
    WrittenFeeds::within("chat.*", 1 << 16, Lag::Skip, limits).unwrap()
}

fn account(number: usize) -> Account {
    Account::new(format!("192.0.2.{number}"))
}

async fn write(family: &WrittenFeeds, account: &Account, name: &str) -> Result<Cursor, Exhausted> {
    let feed = family.open_now(name, account)?;
    Ok(feed.publisher().unwrap().publish("hello".into()).await.unwrap())
}

fn names(family: &WrittenFeeds) -> Vec<String> {
    family.lock().by_name.keys().cloned().collect()
}

#[tokio::test]
async fn an_account_creates_so_many_and_stops_no_other() {
    let family = family(100, 3);
    for name in ["chat.a", "chat.b", "chat.c"] {
        write(&family, &account(1), name).await.unwrap();
    }
    assert_eq!(write(&family, &account(1), "chat.d").await, Err(Exhausted::Account(3)));
    // Those that exist are everyone's.
    write(&family, &account(2), "chat.a").await.unwrap();
    write(&family, &account(1), "chat.c").await.unwrap();
    write(&family, &account(2), "chat.d").await.unwrap();
}

#[tokio::test]
async fn a_view_of_what_is_not_written_waits_and_leaves_nothing() {
    let family = family(2, 1);
    let mut viewer = family.view_now("chat.a").view(Start::Now, None);
    assert!(family.feeds().is_empty(), "it is not listed");
    write(&family, &account(2), "chat.a").await.unwrap();
    let event = futures_util::StreamExt::next(&mut viewer).await;
    assert!(matches!(event, Some(crate::Event::Chunk(chunk)) if chunk.bytes == "hello"));
    assert_eq!(family.feeds().len(), 1);
    drop(viewer);
    for number in 0..1000 {
        drop(family.view_now(&format!("chat.{number}")).view(Start::Now, None));
    }
    assert_eq!(names(&family), ["chat.a"]);
    assert!(family.lock().waiting.len() <= 64);
}

/// As when their server does not come to serve: no source has failed.
#[tokio::test]
async fn feeds_stop_with_their_family() {
    let family = family(2, 2);
    write(&family, &account(1), "chat.a").await.unwrap();
    let mut viewers = ["chat.a", "chat.b"].map(|name| family.view_now(name).view(Start::Now, None));
    drop(family);
    for viewer in &mut viewers {
        let event = futures_util::StreamExt::next(viewer).await;
        assert!(matches!(event, Some(crate::Event::End(crate::End::Stopped))), "{event:?}");
    }
}

#[tokio::test]
async fn readers_take_nothing_from_writers() {
    let family = family(3, 1);
    for (number, name) in ["chat.a", "chat.b", "chat.c"].into_iter().enumerate() {
        write(&family, &account(number), name).await.unwrap();
    }
    let views: Vec<_> =
        (0..100).map(|number| family.view_now(&format!("chat.{number}")).view(Start::Now, None)).collect();
    assert_eq!((names(&family), family.evicted()), (["chat.a", "chat.b", "chat.c"].map(String::from).into(), 0));
    // A writer that needs a place gets one.
    write(&family, &account(9), "chat.50").await.unwrap();
    assert_eq!((names(&family).len(), family.evicted()), (3, 1));
    drop(views);
    family.lock().sweep(Duration::MAX, None);
    assert!(family.lock().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_view_keeps_no_place_from_writers_for_long() {
    let family = family(2, 2);
    for name in ["chat.a", "chat.b"] {
        write(&family, &account(1), name).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let views = ["chat.a", "chat.b"].map(|name| family.view_now(name).view(Start::Now, None));
    assert_eq!(write(&family, &account(2), "chat.c").await, Err(Exhausted::All(2)));
    tokio::time::advance(Duration::from_secs(59)).await;
    write(&family, &account(2), "chat.c").await.unwrap();
    assert_eq!(names(&family), ["chat.b", "chat.c"]);
    // One that was opened to be written, and is only viewed.
    tokio::time::advance(Duration::from_secs(1)).await;
    let opened = family.open_now("chat.d", &account(3)).unwrap();
    assert_eq!(names(&family), ["chat.b", "chat.d"], "what is not viewed goes first");
    let view = opened.view(Start::Now, None);
    drop(opened);
    write(&family, &account(4), "chat.e").await.unwrap();
    assert_eq!(names(&family), ["chat.b", "chat.e"]);
    drop((views, view));
}

#[tokio::test(start_paused = true)]
async fn the_one_that_was_not_used_for_longest_gives_way() {
    let family = family(4, 3);
    for name in ["chat.a", "chat.b", "chat.c"] {
        write(&family, &account(1), name).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    write(&family, &account(2), "chat.z").await.unwrap();
    let viewer = family.open_now("chat.a", &account(1)).unwrap().view(Start::Now, None);
    let writing = family.open_now("chat.b", &account(1)).unwrap();
    // Not the only one of another client, however old.
    write(&family, &account(3), "chat.d").await.unwrap();
    assert_eq!(names(&family), ["chat.a", "chat.b", "chat.d", "chat.z"]);
    let all = [&family.open_now("chat.d", &account(3)).unwrap(), &family.open_now("chat.z", &account(2)).unwrap()];
    assert_eq!(write(&family, &account(4), "chat.e").await, Err(Exhausted::All(4)));
    drop((viewer, writing));
    let _ = all;
}

#[tokio::test(start_paused = true)]
async fn the_one_written_first_gives_way_whenever_it_is_looked_for() {
    let family = family(3, 3);
    for name in ["chat.b", "chat.a", "chat.c"] {
        tokio::time::advance(Duration::from_secs(1)).await;
        write(&family, &account(1), name).await.unwrap();
    }
    let feed = family.get("chat.b").await.unwrap().unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    feed.publisher().unwrap().publish("again".into()).await.unwrap();
    drop(feed);
    write(&family, &account(2), "chat.d").await.unwrap();
    assert_eq!(names(&family), ["chat.b", "chat.c", "chat.d"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_feeds_keeps_none() {
    let family = family(2, 2);
    let sweeping = tokio::spawn(family.sweep());
    write(&family, &account(1), "chat.a").await.unwrap();
    tokio::time::sleep(SWEEP + Duration::from_secs(1)).await;
    write(&family, &account(1), "chat.b").await.unwrap();
    let listed = family.feeds();
    assert!(listed.len() == 2 && listed[0].publisher().is_some());
    // A listing in progress does not keep new feeds out.
    write(&family, &account(2), "chat.c").await.unwrap();
    assert_eq!(names(&family), ["chat.b", "chat.c"]);
    // And whoever lists them all the time does not keep them.
    for _ in 0..12 {
        let listed = family.feeds();
        tokio::time::sleep(SWEEP).await;
        drop(listed);
    }
    assert!(names(&family).is_empty());
    drop(sweeping);
}

#[tokio::test(start_paused = true)]
async fn only_viewers_and_chunks_renew_a_feed() {
    let family = family(10, 10);
    let _sweeping = tokio::spawn(family.sweep());
    write(&family, &account(1), "chat.a").await.unwrap();
    // One that may write it, and does so every now and then.
    let writing = family.get("chat.a").await.unwrap().unwrap();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(50)).await;
        writing.publisher().unwrap().publish("hello".into()).await.unwrap();
    }
    tokio::time::sleep(SWEEP).await;
    drop(writing);
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(names(&family), ["chat.a"]);
    // And one that is silent: the feed is not taken from it, and goes after it.
    let silent = family.get("chat.a").await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(names(&family), ["chat.a"]);
    drop(silent);
    tokio::time::sleep(2 * SWEEP).await;
    assert!(names(&family).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_used_goes_and_is_another_run_when_it_is_written_again() {
    let family = family(10, 10);
    let sweeping = tokio::spawn(family.sweep());
    let first = write(&family, &account(1), "chat.a").await.unwrap();
    write(&family, &account(1), "chat.b").await.unwrap();
    let viewer = family.open_now("chat.b", &account(1)).unwrap().view(Start::Now, None);
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(names(&family), ["chat.a", "chat.b"]);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(names(&family), ["chat.b"]);
    drop(viewer);
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert!(names(&family).is_empty() && family.lock().by_account.is_empty());
    std::thread::sleep(Duration::from_millis(2));
    let second = write(&family, &account(1), "chat.a").await.unwrap();
    assert!(second.seq == 0 && second.epoch != first.epoch);
    let feed = family.open_now("chat.a", &account(1)).unwrap();
    sweeping.abort();
    let _ = sweeping.await;
    assert_eq!(feed.publisher().unwrap().publish("late".into()).await, Err(crate::PublishError::Ended));
}

/// A feed that another process has written, and that is only viewed since, is as silent as it was there.
#[tokio::test]
async fn a_restored_feed_that_is_only_viewed_gives_way() {
    let family = family(1, 1);
    let feed = family.open_now("chat.a", &account(1)).unwrap();
    let time = std::time::SystemTime::now() - Duration::from_secs(61);
    let chunk = Arc::new(crate::Chunk::published_at(0, time, "hello".into()));
    feed.restore(crate::History::new(crate::Epoch(7), 1, vec![chunk])).unwrap();
    let _viewer = feed.view(Start::Now, None);
    drop(feed);
    write(&family, &account(2), "chat.b").await.unwrap();
    assert_eq!(names(&family), ["chat.b"]);
}

#[tokio::test]
async fn a_name_is_of_the_pattern_whether_there_is_such_a_feed_or_not() {
    let family = family(3, 3);
    let mut feeds = crate::Feeds::default();
    feeds.add_family(family.clone());
    write(&family, &account(1), "chat.a").await.unwrap();
    for name in ["chat.a", "chat.none"] {
        assert_eq!((feeds.pattern_of(name), feeds.is_ready(name)), (Some("chat.*"), Some(true)), "{name}");
    }
    for name in ["chat", "chat.a.b", "other"] {
        assert_eq!((feeds.pattern_of(name), feeds.is_ready(name)), (None, None), "{name}");
    }
    // `is_ready` also takes a pattern, which is not the name of a feed.
    assert_eq!((feeds.pattern_of("chat.*"), feeds.is_ready("chat.*")), (None, Some(true)));
    assert_eq!(names(&family), ["chat.a"], "none was created");
    assert!(family.lock().waiting.is_empty());
    let alike = |name: &str| -> Vec<_> {
        let feeds = feeds.alike(name, 9, |_| true);
        feeds.iter().map(|feed| feed.name().to_owned()).collect()
    };
    for name in ["chat.none", "chat.*"] {
        assert_eq!(alike(name), ["chat.a"], "{name}");
    }
    assert!(alike("chat").is_empty() && feeds.alike("chat.a", 9, |name| name != "chat.a").is_empty());
    assert!(feeds.existing("chat.a").is_some() && feeds.existing("chat.none").is_none());
}
