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

/// What is checked at the start and what relieves agree: with full histories, and no viewers or some.
#[tokio::test]
async fn it_ends_with_full_histories() {
    let own = 10 << 20;
    let budget = Budget::new(LIMIT);
    let (feed, publisher) = Feed::live("a", (Budget::for_histories(LIMIT) - own) as usize, Lag::Skip);
    let feed = feed.budget(&budget);
    let clients = Arc::new(AtomicU64::new(0));
    let counted = clients.clone();
    budget.count(move || own + counted.load(Ordering::Relaxed) * 50_000);
    assert_eq!(budget.observe_at(1000, 0), Pressure::Low);
    // All that follows is between two observations: the history fills, and clients come.
    for _ in 0..200 {
        publisher.publish(vec![b'x'; 500_000].into()).await.unwrap();
    }
    assert!(budget.charged() > percent(78), "{budget:?}");
    let mut most = 0;
    while budget.pressure() < Pressure::High {
        most = clients.fetch_add(1, Ordering::Relaxed) + 1;
    }
    assert!(budget.charged() < percent(90) + 50_000, "{most} clients: {budget:?}");
    while budget.pressure() < Pressure::Critical {
        clients.fetch_add(1, Ordering::Relaxed);
    }
    assert!(budget.charged() < percent(95) + 50_000, "{budget:?}");
    assert_eq!(budget.observe_at(2000, 0), Pressure::Critical);
    clients.store(most / 4, Ordering::Relaxed);
    assert_eq!(budget.observe_at(3000, 0), Pressure::Low, "{budget:?}");
    drop(feed);
}

/// A process that stays as large as its clients once made it.
#[tokio::test]
async fn it_ends_when_only_the_allocator_keeps_memory() {
    let budget = Budget::new(LIMIT);
    let clients = Arc::new(AtomicU64::new(0));
    let counted = clients.clone();
    budget.count(move || (20 << 20) + counted.load(Ordering::Relaxed) * 50_000);
    let at = |clients_now: u64, now, resident| {
        clients.store(clients_now, Ordering::Relaxed);
        budget.observe_at(now, percent(resident))
    };
    assert_eq!(at(0, 1000, 25), Pressure::Low);
    assert_eq!(at(500, 2000, 92), Pressure::High);
    // It is largest when they have begun to leave.
    assert_eq!(at(200, 2100, 120), Pressure::Critical);
    assert_eq!(at(400, 3000, 120), Pressure::Critical, "most of them are there");
    assert_eq!(at(0, 4000, 120), Pressure::Low);
    assert_eq!(at(0, 60_000, 121), Pressure::Low, "what else it needs now and then");
    // What comes next has room in it.
    assert_eq!(at(100, 61_000, 120), Pressure::Low);
    assert_eq!(at(480, 62_000, 120), Pressure::Low);
    assert_eq!(at(10, 63_000, 119), Pressure::Low);
    // It grows, with few of them: they are larger than those before.
    assert_eq!(at(40, 90_000, 126), Pressure::High);
    assert_eq!(at(40, 91_000, 130), Pressure::Critical);
    // What is too large without any: to refuse some does not help, and they may make it no larger.
    let budget = Budget::new(LIMIT);
    let observed =
        [(0, 50), (30_000, 91), (34_900, 91), (35_000, 91)].map(|(at, used)| budget.observe_at(at, percent(used)));
    assert_eq!(observed, [Pressure::Low, Pressure::High, Pressure::High, Pressure::Low]);
    let _clients = budget.charge(LIMIT / 20);
    let observed = [(36_000, 91), (37_000, 96), (38_000, 101)].map(|(at, used)| budget.observe_at(at, percent(used)));
    assert_eq!(observed, [Pressure::Low, Pressure::High, Pressure::Critical]);
}

/// A budget, and what it says when there are so many clients, at that time, in a process of that many percent.
fn process() -> (Budget, impl Fn(u64, u64, u64) -> Pressure) {
    let budget = Budget::new(LIMIT);
    let clients = Arc::new(AtomicU64::new(0));
    let counted = clients.clone();
    budget.count(move || counted.load(Ordering::Relaxed) * 50_000);
    let observed = budget.clone();
    let at = move |clients_now, now, resident| {
        clients.store(clients_now, Ordering::Relaxed);
        observed.observe_at(now, percent(resident))
    };
    (budget, at)
}

/// A process that has become small again, and grows with fewer clients and with histories.
#[tokio::test]
async fn what_the_system_has_back_is_not_room() {
    use Pressure::{Critical, Low};
    let (budget, at) = process();
    let (feed, publisher) = Feed::live("a", 60 << 20, Lag::Skip);
    let feed = feed.budget(&budget);
    assert_eq!(at(0, 1000, 5), Low);
    assert_eq!(at(400, 2000, 84), Low);
    // They have gone, and what they needed.
    assert_eq!(at(0, 3000, 84), Low);
    assert_eq!(budget.used(), 0);
    assert_eq!(at(0, 5000, 10), Low);
    // What comes fits into nothing that is there.
    for (now, resident) in (6000..).step_by(100).zip(15..=84) {
        assert_eq!(at(80, now, resident), Low);
        assert!(budget.used() + percent(6) > percent(resident), "{resident}: {budget:?}");
    }
    while budget.charged() < percent(54) {
        publisher.publish(vec![b'x'; 500_000].into()).await.unwrap();
    }
    assert_eq!(at(80, 20_000, 96), Critical);
    assert_eq!(at(160, 30_000, 130), Critical);
    // It stays so large when these have gone, too.
    assert_eq!(at(0, 40_000, 130), Low, "{budget:?}");
    assert!(budget.used() < percent(60), "{budget:?}");
    // Histories that make room have not made it grow.
    drop((feed, publisher));
    assert_eq!(at(0, 50_000, 130), Low, "{budget:?}");
}

/// What one has that is given back to the allocator, another takes.
#[tokio::test]
async fn histories_fill_what_clients_have_left() {
    let (budget, at) = process();
    let (feed, publisher) = Feed::live("a", 60 << 20, Lag::Skip);
    let feed = feed.budget(&budget);
    assert_eq!(at(0, 1000, 5), Pressure::Low);
    assert_eq!(at(400, 2000, 92), Pressure::High);
    assert_eq!(at(0, 3000, 92), Pressure::Low);
    while budget.charged() < percent(50) {
        publisher.publish(vec![b'x'; 500_000].into()).await.unwrap();
    }
    assert_eq!(at(0, 4000, 92), Pressure::Low);
    // Half of them need about 46 %, and find no more than 42.
    assert_ne!(at(200, 30_000, 96), Pressure::Low, "{budget:?}");
    assert_eq!(at(0, 31_000, 96), Pressure::Low, "{budget:?}");
    drop((feed, publisher));
}

/// Many readers of a file, say, each of which has the server read it.
#[tokio::test]
async fn what_no_other_viewer_gets_is_charged_and_bounded() {
    const PIECE: usize = 50_000;
    let budget = Budget::new(LIMIT);
    let endless = || futures_util::stream::repeat_with(|| Ok(vec![b'x'; PIECE].into()));
    let feed = Feed::on_demand("a", endless).budget(&budget);
    let next = |writer: &mut Writer, out: &mut Vec<bytes::Bytes>| {
        let mut batch = Vec::new();
        let given = writer.next(&mut batch).now_or_never();
        out.append(&mut batch);
        given
    };
    let mut writer = Writer::new(feed.view(Start::Start, None), Format::Frames, Framing::Plain);
    let reserved = budget.charged();
    assert!(reserved >= 256 << 10, "before anything was sent: {reserved}");
    // With room, it is what the transport takes.
    let mut held = Vec::new();
    while held.len() < 40 {
        assert_eq!(next(&mut writer, &mut held), Some(Ok(true)));
    }
    let holds = held.iter().map(bytes::Bytes::len).sum::<usize>() as u64;
    assert!((holds..holds + holds / 4 + reserved).contains(&budget.charged()), "{holds}: {budget:?}");
    assert_eq!(Pressure::Low, budget.pressure());
    // Others come, and nothing is observed: it gets no more, until it has taken what is beyond its share.
    let others = budget.charge(percent(90));
    assert_eq!(next(&mut writer, &mut held), None);
    let woken = Arc::<AtomicUsize>::default();
    let waker = futures_util::task::waker(Arc::new(Woken(woken.clone())));
    let mut cx = std::task::Context::from_waker(&waker);
    {
        let mut out = Vec::new();
        let mut waiting = std::pin::pin!(writer.next(&mut out));
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        held.truncate(4);
        assert!(woken.load(Ordering::Relaxed) > 0);
        assert!(waiting.as_mut().poll(&mut cx).is_ready());
    }
    // What is on its way is charged when its viewer has gone, and not after that.
    drop((writer, others));
    assert!(budget.charged() >= reserved);
    drop(held);
    assert_eq!(budget.charged(), 0);
}

struct Woken(Arc<AtomicUsize>);

impl futures_util::task::ArcWake for Woken {
    fn wake_by_ref(this: &Arc<Self>) {
        this.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_viewer_that_waits_for_room_is_cut_only_if_it_takes_nothing() {
    let budget = Budget::new(LIMIT);
    let feed = Feed::on_demand("a", || futures_util::stream::repeat_with(|| Ok(vec![b'x'; 60_000].into())));
    let feed = feed.budget(&budget);
    let _others = budget.charge(percent(90));
    let fill = |at| {
        budget.observe_at(at, 0);
        let cut = Arc::<AtomicUsize>::default();
        let viewer = feed.view(Start::Start, None);
        let seen = cut.clone();
        viewer.on_cut(move || _ = seen.fetch_add(1, Ordering::Relaxed));
        let mut writer = Writer::new(viewer, Format::Frames, Framing::Plain);
        let mut batches = Vec::new();
        loop {
            let mut batch = Vec::new();
            match writer.next(&mut batch).now_or_never() {
                Some(given) => assert_eq!(given, Ok(true)),
                None => return (writer, std::collections::VecDeque::from(batches), cut),
            }
            batches.push(batch);
            assert!(batches.len() < 20, "it is given more and more");
        }
    };
    let (mut stalled, _kept, cut) = fill(1000);
    let (_slow, mut batches, not_cut) = fill(1000);
    budget.observe_at(4000, 0);
    drop(batches.pop_front());
    budget.observe_at(5900, LIMIT);
    assert_eq!((cut.load(Ordering::Relaxed), not_cut.load(Ordering::Relaxed)), (1, 0));
    assert!(matches!(stalled.next(&mut Vec::new()).now_or_never(), Some(Err(Cut::Failed(_)))));
}

#[tokio::test]
async fn readers_of_a_file_of_no_feed_are_charged_as_well() {
    let budget = Budget::new(LIMIT);
    let reader = budget.reader();
    let reserved = budget.charged();
    assert_eq!(reserved, budget.reserve().bytes);
    let _others = budget.charge(percent(90));
    let room = || reader.poll_room(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready();
    let mut held = Vec::new();
    while room() {
        held.push(reader.give(vec![b'x'; 64 << 10].into()));
    }
    // A window of a connection at its beginning, and a piece.
    assert_eq!(held.len(), 5);
    held.pop();
    assert!(room());
    held.push(reader.give(vec![b'x'; 64 << 10].into()));
    assert!(!room());
    budget.observe_at(9000, LIMIT);
    assert!(room() && reader.is_cut(), "so that it learns of it");
}

/// A transport that has no room for its first byte never comes for it.
#[tokio::test]
async fn what_is_held_for_a_client_lags_from_the_start() {
    let budget = Budget::new(LIMIT);
    let (answer, file) = (budget.answer(percent(60)), budget.reader());
    assert_eq!(budget.charged(), percent(60) + budget.reserve().bytes);
    budget.observe_at(1000, LIMIT);
    assert!(!answer.is_cut() && !file.is_cut());
    budget.observe_at(4000, LIMIT);
    assert!(answer.is_cut() || file.is_cut());
    drop((answer, file));
    assert_eq!(budget.charged(), 0);
}

/// A crowd that takes four times what it is charged, all of it between two observations.
#[tokio::test]
async fn a_crowd_between_two_observations_is_measured() {
    let (budget, clients, asked) = (Budget::new(LIMIT), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (counted, taken, asking) = (clients.clone(), clients.clone(), asked.clone());
    budget.count(move || counted.load(Ordering::Relaxed));
    budget.measure(move || {
        asking.fetch_add(1, Ordering::Relaxed);
        taken.load(Ordering::Relaxed) * 4
    });
    assert_eq!(budget.observe(0), Pressure::Low);
    // Each is let in by the pressure, a thousandth of the limit charged for it.
    let step = LIMIT / 1000;
    while budget.pressure() == Pressure::Low {
        clients.fetch_add(step, Ordering::Relaxed);
    }
    let used = clients.load(Ordering::Relaxed) * 4;
    assert!((percent(90)..percent(95)).contains(&used), "{} % are used", used * 100 / LIMIT);
    // Not for each of them.
    assert!(asked.load(Ordering::Relaxed) <= 25, "asked {} times", asked.load(Ordering::Relaxed));
    budget.risen().now_or_never().expect("it is time to observe");
    assert!(budget.risen().now_or_never().is_none());
    assert_eq!(budget.observe(used), Pressure::High);
}
