//! Feeds, their publishers and their viewers.

mod model;

use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use h3cast_feed::{
    Cursor, End, Epoch, Event, Feed, FeedError, Gap, Lag, PublishError, Start, TryPublishError, Viewer,
    format::{self, Format},
};
use model::{Model, Past, Step};
use proptest::prelude::*;

fn three() -> Feed {
    Feed::on_demand("three", || stream::iter(["a", "b", "c"].map(|text| Ok(Bytes::from(text)))))
}

/// What has come so far and is not yet taken.
fn drain(viewer: &mut Viewer) -> Vec<Event> {
    std::iter::from_fn(|| viewer.next().now_or_never().flatten()).collect()
}

fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| if let Event::Chunk(chunk) = event { Some(chunk.seq) } else { None }).collect()
}

#[tokio::test]
async fn each_viewer_starts_afresh_and_is_counted() {
    let feed = three();
    let (mut first, mut second) = (feed.view(Start::Now, None), feed.view(Start::Now, None));
    assert_eq!(feed.status().viewers, 2);
    for viewer in [&mut first, &mut second] {
        let events = drain(viewer);
        assert_eq!(seqs(&events), [0, 1, 2]);
        assert!(matches!(events.last(), Some(Event::End(End::Clean))));
    }
    drop((first, second));
    let status = feed.status();
    assert_eq!((status.viewers, status.chunks, status.bytes), (0, 6, 6));
}

#[tokio::test]
async fn a_limit_ends_cleanly() {
    for (limit, seen) in [(2, vec![0, 1]), (0, vec![])] {
        let events = drain(&mut three().view(Start::Now, Some(limit)));
        assert_eq!(seqs(&events), seen);
        assert!(matches!(events.last(), Some(Event::End(End::Clean))));
    }
}

#[tokio::test]
async fn a_replayable_feed_goes_on_where_its_viewer_was() {
    let feed = Feed::replayable("numbers", |start| stream::iter((start..5).map(|n| Ok(Bytes::from(n.to_string())))));
    let after = |epoch, seq| Start::After(Cursor { epoch: Epoch(epoch), seq });
    assert_eq!(seqs(&drain(&mut feed.view(after(0, 2), None))), [3, 4]);
    let events = drain(&mut feed.view(after(9, 2), None));
    assert!(matches!(events[0], Event::Gap(Gap { restarted: true, .. })));
    assert_eq!(seqs(&events), [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn late_viewers_and_those_who_come_again() {
    let (feed, publisher) = Feed::live("live", 1 << 20, Lag::Skip);
    let mut early = feed.view(Start::Now, None);
    for n in 0..10_u8 {
        publisher.publish(Bytes::from(vec![n])).await.unwrap();
    }
    assert_eq!(seqs(&drain(&mut early)), (0..10).collect::<Vec<_>>());
    assert_eq!(seqs(&drain(&mut feed.view(Start::Start, None))), (0..10).collect::<Vec<_>>());
    let mut now = feed.view(Start::Now, None);
    assert!(drain(&mut now).is_empty());
    let epoch = early.epoch();
    let mut again = feed.view(Start::After(Cursor { epoch, seq: 6 }), None);
    assert_eq!(seqs(&drain(&mut again)), [7, 8, 9]);
    publisher.publish("last".into()).await.unwrap();
    publisher.end(End::Failed(FeedError("gone".into())));
    assert_eq!(publisher.publish("late".into()).await, Err(PublishError::Ended));
    for viewer in [&mut early, &mut now, &mut again] {
        let events = drain(viewer);
        assert_eq!(seqs(&events), [10]);
        assert!(matches!(events.last(), Some(Event::End(End::Failed(_)))));
        assert!(viewer.next().await.is_none());
    }
    // Another run of the feed: the cursor is recognised as stale.
    let stale = Cursor { epoch: Epoch(epoch.0 + 1), seq: 3 };
    let events = drain(&mut feed.view(Start::After(stale), None));
    assert!(matches!(events[0], Event::Gap(Gap { restarted: true, .. })));
    assert_eq!(seqs(&events), (0..11).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_last_chunks() {
    for lag in [Lag::Skip, Lag::Block] {
        let (feed, publisher) = Feed::live("live", 1 << 20, lag);
        assert!(drain(&mut feed.view(Start::Last(3), None)).is_empty());
        for n in 0..10_u8 {
            publisher.publish(Bytes::from(vec![n])).await.unwrap();
        }
        let last = |many| feed.view(Start::Last(many), None);
        assert_eq!((last(3).next_seq(), last(3).gap()), (Some(7), None));
        for many in [0, 1, 3, 9, 10, 11, u64::MAX] {
            let expected: Vec<_> = (10 - many.min(10)..10).collect();
            assert_eq!(seqs(&drain(&mut last(many))), expected, "{many}");
        }
        // And what comes then.
        let mut viewer = last(1);
        publisher.publish("more".into()).await.unwrap();
        assert_eq!(seqs(&drain(&mut viewer)), [9, 10]);
    }
    // More than is kept is what is kept, and no gap.
    let (feed, publisher) = Feed::live("live", 1000, Lag::Skip);
    for _ in 0..100 {
        publisher.publish(Bytes::from_static(&[0; 100])).await.unwrap();
    }
    let all = seqs(&drain(&mut feed.view(Start::Start, None)));
    let events = drain(&mut feed.view(Start::Last(50), None));
    assert!(seqs(&events) == all && all.len() < 50 && !events.iter().any(|event| matches!(event, Event::Gap(_))));
}

#[tokio::test]
async fn blocking_loses_nothing_and_a_viewer_that_goes_lets_go() {
    let (feed, publisher) = Feed::live("live", 1000, Lag::Block);
    let mut slow = feed.view(Start::Now, None);
    let gone = feed.view(Start::Now, None);
    let mut published = 0;
    while publisher.publish(Bytes::from_static(&[0; 100])).now_or_never().is_some() {
        published += 1;
        assert!(published < 100);
    }
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(Bytes::from_static(&[1; 100])).await }
    });
    assert!(slow.next().await.is_some());
    tokio::task::yield_now().await;
    assert!(!publishing.is_finished(), "the other one has read nothing");
    drop(gone);
    publishing.await.unwrap().unwrap();
    assert_eq!(seqs(&drain(&mut slow)), (1..=published).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_same_chunk_is_encoded_once() {
    let (feed, publisher) = Feed::live("default", 1 << 20, Lag::Skip);
    let viewers: Vec<_> = (0..3).map(|_| feed.view(Start::Now, None)).collect();
    publisher.publish("text".into()).await.unwrap();
    let mut encoded = Vec::new();
    for viewer in viewers {
        let stream = format::write(viewer, Format::Frames);
        let bytes: Vec<_> = stream.take(2).map(Result::unwrap).collect().await;
        encoded.push(bytes[1].clone());
    }
    let at: Vec<_> = encoded.iter().map(|bytes| bytes.as_ptr()).collect();
    assert!(at.iter().all(|pointer| *pointer == at[0]), "{at:?}");
}

#[tokio::test(start_paused = true)]
async fn publishing_without_waiting() {
    let (feed, publisher) = Feed::live("live", 1000, Lag::Block);
    let viewer = feed.view(Start::Now, None);
    let line = || Bytes::from_static(&[0; 100]);
    let mut seqs = 0..;
    let full = loop {
        match publisher.try_publish(line()) {
            Ok(cursor) => assert_eq!(Some(cursor.seq), seqs.next()),
            Err(full) => break full,
        }
    };
    assert_eq!(full, TryPublishError::Full);
    let status = feed.status();
    assert_eq!((status.chunks, status.bytes), (seqs.start, 100 * seqs.start), "refused chunks are not published");
    // A publisher that waits is next when there is room.
    let mut waiting = Box::pin(publisher.publish(line()));
    assert!((&mut waiting).now_or_never().is_none());
    drop(viewer);
    assert_eq!(publisher.try_publish(line()), Err(TryPublishError::Full));
    assert!(waiting.await.is_ok());
    publisher.try_publish(line()).unwrap();
    publisher.end(End::Clean);
    assert_eq!(publisher.try_publish(line()), Err(TryPublishError::Ended));
}

#[tokio::test]
async fn blocking_keeps_something_for_a_viewer_that_comes_again() {
    let (feed, publisher) = Feed::live("live", 20_000, Lag::Block);
    let mut viewer = feed.view(Start::Now, None);
    let fill = || while publisher.publish(Bytes::from_static(&[0; 100])).now_or_never().is_some() {};
    let mut given = 0;
    for _ in 0..5 {
        fill();
        // What it is given and does not receive, as its connection is lost. Its place is kept
        // until that is known.
        given += seqs(&drain(&mut viewer)).len() as u64;
    }
    fill();
    let status = feed.status();
    let (oldest, kept) = (status.oldest.unwrap().seq, status.chunks - status.oldest.unwrap().seq);
    assert!(kept > 20 && given - oldest >= kept / 2, "{kept} kept, {oldest} the oldest, {given} given");
    let again = feed.view(Start::After(Cursor { epoch: viewer.epoch(), seq: oldest }), None);
    assert_eq!(again.gap(), None);
}

#[tokio::test(start_paused = true)]
async fn who_holds_publishers_up_is_counted() {
    let (feed, publisher) = Feed::live("live", 1000, Lag::Block);
    let viewer = feed.view(Start::Now, None);
    while publisher.publish(Bytes::from_static(&[0; 100])).now_or_never().is_some() {}
    let waiting = tokio::time::timeout(Duration::from_secs(25), publisher.publish(Bytes::from_static(&[0; 100])));
    assert!(waiting.await.is_err());
    assert_eq!(feed.status().blocked, Duration::from_secs(20), "what has been told to the log");
    drop(viewer);
    publisher.publish(Bytes::new()).await.unwrap();
    assert_eq!(feed.status().blocked, Duration::from_secs(20));
}

#[tokio::test]
async fn disconnecting_tells_and_ends() {
    let (feed, publisher) = Feed::live("live", 1000, Lag::Disconnect);
    let mut slow = feed.view(Start::Now, None);
    for _ in 0..100 {
        publisher.publish(Bytes::from_static(&[0; 100])).await.unwrap();
    }
    let events = drain(&mut slow);
    assert!(matches!(events[..], [Event::Gap(Gap { from: 0, restarted: false, .. })]), "{events:?}");
    assert_eq!(feed.status().skipped, feed.status().oldest.unwrap().seq);
}

proptest! {
    #[test]
    fn no_chunk_is_lost_or_doubled_without_being_told(
        steps in prop::collection::vec(model::step(), 1..200),
        history in 0..4000_usize,
    ) {
        run(steps, history)?;
    }
}

/// The model test once failed on this.
#[test]
fn a_viewer_that_has_begun_before_the_first_chunk_is_told_of_its_loss() {
    let steps = vec![Step::Join(0), Step::Read(0, 1), Step::Publish(33), Step::Publish(250), Step::Read(0, 1)];
    run(steps, 0).unwrap();
}

fn run(steps: Vec<Step>, history: usize) -> Result<(), TestCaseError> {
    let (feed, publisher) = Feed::live("live", history, Lag::Skip);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(Model::new(&feed, &publisher, history, Past::Gone).run(steps))
}

#[tokio::test]
async fn it_is_known_how_far_viewers_are_behind() {
    let (feed, publisher) = Feed::live("log", 2_000, Lag::Skip);
    let mut viewers = [(); 3].map(|()| feed.view(Start::Now, None));
    assert_eq!(feed.status().lag, Default::default());
    for _ in 0..4 {
        publisher.publish("a line".into()).await.unwrap();
    }
    assert!(matches!(viewers[0].next().await, Some(Event::Chunk(_))));
    drain(&mut viewers[1]);
    let behind = feed.status().lag;
    assert_eq!((behind.chunks, behind.viewers), (4, 0), "the last viewer has taken nothing");
    // Past a second, whatever the machine does meanwhile.
    while feed.status().lag.time < Duration::from_millis(1100) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(feed.status().lag.viewers, 2);
    drain(&mut viewers[2]);
    assert_eq!((feed.status().lag.chunks, feed.status().lag.viewers), (3, 1));
    let [first, ..] = viewers;
    drop(first);
    assert_eq!(feed.status().lag, Default::default(), "those that have left do not count");
}

#[tokio::test]
async fn gaps_and_resumed_viewers_are_counted() {
    let (feed, publisher) = Feed::live("log", 2_000, Lag::Skip);
    let mut viewer = feed.view(Start::Now, None);
    for _ in 0..50 {
        publisher.publish("a line".into()).await.unwrap();
    }
    drain(&mut viewer);
    let cursor = Cursor { epoch: feed.status().epoch.unwrap(), seq: 49 };
    let mut stale = feed.view(Start::After(Cursor { epoch: Epoch(1), seq: 3 }), None);
    drain(&mut stale);
    let resumed = feed.view(Start::After(cursor), None);
    let status = feed.status();
    assert!(status.skipped > 0 && status.gaps == 2 && status.resumed == 2, "{status:?}");
    drop(resumed);

    let (whole, _publisher) = Feed::live("log", 2_000, Lag::Skip);
    let mut stale = whole.view(Start::After(Cursor { epoch: Epoch(1), seq: 3 }), None);
    assert!(matches!(stale.next().await, Some(Event::Gap(gap)) if gap.restarted && gap.missing == 0));
    assert_eq!(whole.status().gaps, 0, "nothing is missing");
}

#[tokio::test]
async fn what_a_source_has_lost_is_a_gap() {
    let (feed, publisher) = Feed::live("log", 1 << 20, Lag::Disconnect);
    let mut viewers: Vec<_> = (0..2).map(|_| feed.view(Start::Start, None)).collect();
    publisher.publish("first".into()).await.unwrap();
    publisher.leave_out(0);
    let is_chunk = |event: Option<Event>, seq| matches!(event, Some(Event::Chunk(chunk)) if chunk.seq == seq);
    let is_gap = |event: Option<Event>, from, missing| matches!(event, Some(Event::Gap(gap)) if (gap.from, gap.missing, gap.restarted) == (from, missing, false));
    assert!(is_chunk(viewers[0].next().await, 0));
    let waiting = tokio::spawn({
        let mut viewer = viewers.remove(0);
        async move { (viewer.next().await, viewer.next().await) }
    });
    tokio::task::yield_now().await;
    publisher.leave_out(3);
    // Whoever has come after it has nothing to be told.
    let mut late = feed.view(Start::Now, None);
    publisher.publish("fourth".into()).await.unwrap();
    let (gap, chunk) = waiting.await.unwrap();
    assert!(is_gap(gap, 1, 3) && is_chunk(chunk, 4), "it is woken");
    assert!(is_chunk(late.next().await, 4));
    let mut slow = viewers.remove(0);
    assert!(is_chunk(slow.next().await, 0) && is_gap(slow.next().await, 1, 3) && is_chunk(slow.next().await, 4));
    let mut resumed = feed.view(Start::After(Cursor { epoch: feed.status().epoch.unwrap(), seq: 2 }), None);
    let gap = resumed.gap().map(Event::Gap);
    assert!(is_gap(gap, 3, 1) && is_gap(resumed.next().await, 3, 1) && resumed.gap().is_none());
    assert!(is_chunk(resumed.next().await, 4));
    let status = feed.status();
    assert_eq!((status.chunks, status.skipped, status.gaps), (2, 7, 3));
}

#[tokio::test(start_paused = true)]
async fn what_viewers_are_given_is_counted_by_who_counts_it() {
    let (feed, publisher) = Feed::live("log", 1 << 20, Lag::Skip);
    publisher.publish("before".into()).await.unwrap();
    let deliveries = h3cast_feed::Deliveries::default();
    let writer = |feed: &Feed| {
        let writer = format::Writer::new(feed.view(Start::Start, None), Format::Raw, format::Framing::Plain);
        Box::pin(writer.count_in(&deliveries).into_stream())
    };
    let mut live = writer(&feed);
    assert_eq!(live.next().await.unwrap().unwrap(), "before");
    let times = |now: &h3cast_feed::Delivered| now.times.iter().map(|(_, count)| count).sum::<u64>();
    let now = deliveries.snapshot();
    assert_eq!((now.viewers, now.chunks, now.bytes, times(&now)), (1, 1, 6, 0), "as old as the viewer wants it");
    // The time of one was looked at just before.
    tokio::time::advance(Duration::from_millis(150)).await;
    publisher.publish("after".into()).await.unwrap();
    assert_eq!(live.next().await.unwrap().unwrap(), "after");
    let now = deliveries.snapshot();
    assert_eq!((now.chunks, now.bytes, times(&now)), (2, 11, 1));
    let mut own = writer(&three());
    while own.next().await.is_some() {}
    drop((live, own));
    let now = deliveries.snapshot();
    assert_eq!((now.viewers, now.joined, now.chunks, now.bytes, times(&now)), (0, 2, 5, 14, 1), "{now:?}");
}
