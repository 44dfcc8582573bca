use std::sync::atomic::AtomicUsize;

use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::{
    End, Event, Feed, Lag, Start,
    format::{Cut, Format, Framing, Writer},
};

const LIMIT: u64 = 100 << 20;

fn percent(percent: u64) -> u64 {
    LIMIT / 100 * percent + 100
}

#[test]
fn states_begin_and_end_at_different_levels() {
    use Pressure::{Critical, High, Low};
    let budget = Budget::new(LIMIT);
    let seen = [0, 89, 90, 94, 86, 84, 89, 95, 91, 89, 84, 96, 80].map(|used| (used, budget.observe(percent(used))));
    let expected = [
        (0, Low),
        (89, Low),
        (90, High),
        (94, High),
        (86, High),
        (84, Low),
        (89, Low),
        (95, Critical),
        (91, Critical),
        (89, Critical),
        (84, Low),
        (96, Critical),
        (80, Low),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn rings_and_charges_count() {
    let budget = Budget::new(LIMIT);
    let (feed, publisher) = Feed::live("a", 1 << 20, Lag::Skip);
    let feed = feed.budget(&budget);
    publisher.publish(vec![b'x'; 1000].into()).await.unwrap();
    assert_eq!(budget.charged(), feed.status().kept_bytes as u64);
    let mut charge = budget.charge(5000);
    assert_eq!(budget.charged(), feed.status().kept_bytes as u64 + 5000);
    charge.set(50);
    assert_eq!(budget.charged(), feed.status().kept_bytes as u64 + 50);
    drop((charge, feed, publisher));
    assert_eq!(budget.charged(), 0);
}

/// A viewer that was given a chunk at that time, and its writer, as a transport that cannot write holds it.
fn stalled(feed: &Feed, budget: &Budget, at: u64, cut: &Arc<AtomicUsize>) -> (Writer, Vec<bytes::Bytes>) {
    budget.observe_at(at, 0);
    let viewer = feed.view(Start::Start, None);
    let cut = cut.clone();
    viewer.on_cut(move || _ = cut.fetch_add(1, Ordering::Relaxed));
    let mut writer = Writer::new(viewer, Format::Frames, Framing::Plain);
    let mut out = Vec::new();
    assert_eq!(writer.next(&mut out).now_or_never(), Some(Ok(true)));
    (writer, out)
}

#[tokio::test]
async fn those_that_wait_longest_are_cut_first() {
    let budget = Budget::new(LIMIT);
    let (feed, publisher) = Feed::live("a", 1 << 20, Lag::Block);
    let feed = feed.budget(&budget);
    publisher.publish("one".into()).await.unwrap();
    let cut: Vec<_> = (0..3).map(|_| Arc::<AtomicUsize>::default()).collect();
    let (mut second, _) = stalled(&feed, &budget, 2000, &cut[1]);
    let (mut first, _) = stalled(&feed, &budget, 1000, &cut[0]);
    let (mut well, mut out) = stalled(&feed, &budget, 1000, &cut[2]);
    // It comes for more, and its buffers are gone.
    out.clear();
    assert_eq!(well.next(&mut out).now_or_never(), None);
    let seen = || cut.iter().map(|cut| cut.load(Ordering::Relaxed)).collect::<Vec<_>>();
    // There is room.
    budget.observe_at(9000, percent(94));
    assert_eq!(seen(), [0, 0, 0]);
    // Not for long.
    budget.observe_at(13_900, percent(91));
    assert_eq!(seen(), [0, 0, 0]);
    budget.observe_at(14_000, LIMIT / 100 * 85 + (200 << 10));
    assert_eq!(seen(), [1, 0, 0]);
    budget.observe_at(14_100, percent(86));
    assert_eq!(seen(), [1, 1, 0]);
    assert_eq!(budget.cut(), 2);
    budget.observe_at(20_000, LIMIT);
    assert_eq!(seen(), [1, 1, 0], "a viewer that has everything is never cut");
    // They find out at their next poll.
    out.clear();
    for writer in [&mut first, &mut second] {
        let ended = writer.next(&mut out).now_or_never();
        assert!(matches!(ended, Some(Err(Cut::Failed(_)))), "{ended:?}");
    }
    publisher.publish("two".into()).await.unwrap();
    assert_eq!(well.next(&mut out).now_or_never(), Some(Ok(true)));
    // Their places are free: publishers of `Lag::Block` do not wait for them.
    drop((first, second));
    assert_eq!(feed.status().viewers, 1);
}

#[tokio::test]
async fn only_as_many_as_it_takes() {
    let budget = Budget::new(LIMIT);
    let (feed, publisher) = Feed::live("a", 1 << 20, Lag::Skip);
    let feed = feed.budget(&budget);
    publisher.publish("one".into()).await.unwrap();
    let cut = Arc::<AtomicUsize>::default();
    let _held: Vec<_> = (0..100).map(|at| stalled(&feed, &budget, 1000 + at, &cut)).collect();
    budget.observe_at(1500, LIMIT);
    assert_eq!(cut.load(Ordering::Relaxed), 0, "none has waited for 2 s");
    budget.observe_at(9000, LIMIT / 100 * 95);
    // 10 % of 100 MiB, at 256 KiB each.
    assert_eq!(cut.load(Ordering::Relaxed), 40);
    // As long as there is too much, and no longer.
    budget.observe_at(9100, LIMIT / 100 * 86);
    assert_eq!(cut.load(Ordering::Relaxed), 44);
    budget.observe_at(9200, LIMIT / 100 * 84);
    budget.observe_at(9300, LIMIT / 100 * 94);
    assert_eq!(cut.load(Ordering::Relaxed), 44);
}

#[tokio::test]
async fn what_is_sent_and_not_taken_is_lag_too() {
    let budget = Budget::new(LIMIT);
    let (feed, publisher) = Feed::live("a", 1 << 20, Lag::Skip);
    let feed = feed.budget(&budget);
    publisher.publish("one".into()).await.unwrap();
    let cut = Arc::<AtomicUsize>::default();
    let (mut writer, held) = stalled(&feed, &budget, 1000, &cut);
    let mut out = Vec::new();
    // The transport has taken it, and the client has not.
    assert_eq!(writer.next(&mut out).now_or_never(), None);
    // A mark each second is enough.
    publisher.publish("two".into()).await.unwrap();
    budget.observe_at(4000, 0);
    assert_eq!(writer.next(&mut out).now_or_never(), Some(Ok(true)));
    out.clear();
    assert_eq!(writer.next(&mut out).now_or_never(), None);
    assert_eq!(lock(&budget.0.seats).taken.values().next().unwrap().waits_since(), Some(1000));
    // Now it has.
    drop(held);
    assert_eq!(lock(&budget.0.seats).taken.values().next().unwrap().waits_since(), None);
    publisher.publish("three".into()).await.unwrap();
    assert_eq!(writer.next(&mut out).now_or_never(), Some(Ok(true)));
    assert_eq!(writer.next(&mut Vec::new()).now_or_never(), None);
    budget.observe_at(7000, LIMIT);
    assert_eq!(cut.load(Ordering::Relaxed), 1);
    drop(writer);
    assert!(lock(&budget.0.seats).taken.is_empty());
}

#[tokio::test]
async fn a_viewer_without_a_writer_is_told_that_there_is_more() {
    let budget = Budget::new(LIMIT);
    let (feed, publisher) = Feed::live("a", 1 << 20, Lag::Skip);
    let feed = feed.budget(&budget);
    publisher.publish("one".into()).await.unwrap();
    publisher.publish("two".into()).await.unwrap();
    let mut viewer = feed.view(Start::Start, None);
    assert!(matches!(viewer.next().await, Some(Event::Chunk(_))));
    budget.observe_at(9000, LIMIT);
    assert!(matches!(viewer.next().await, Some(Event::End(End::Stopped))));
    assert!(viewer.next().await.is_none());
    // Whoever asks later is called at once.
    let (cut, called) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let _held = stalled(&feed, &budget, 10_000, &cut);
    budget.observe_at(20_000, LIMIT);
    let seen = called.clone();
    viewer.on_cut(move || _ = seen.fetch_add(1, Ordering::Relaxed));
    assert_eq!((cut.load(Ordering::Relaxed), called.load(Ordering::Relaxed)), (1, 1));
}
