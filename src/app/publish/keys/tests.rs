//! Quotas and order of keys.

use super::*;

fn account(number: usize) -> Account {
    Account::new(format!("192.0.2.{number}"))
}

fn key(number: usize) -> KeyId {
    KeyId::of("feed", None, &number.to_string())
}

/// One request of a key from its beginning to its end.
fn publish(keys: &mut Keys, account: &Account, feed: &str, number: usize) -> Result<(), NoRoom> {
    let id = KeyId::of(feed, None, &number.to_string());
    keys.run(id, account, feed, Extent::default(), Run::default())?;
    keys.finish(id, Extent { bytes: number as u64 + 1, ..Extent::default() });
    Ok(())
}

/// Whether what is known of them agrees.
fn check(keys: &Keys) {
    let finished: usize = keys.held.values().map(|held| held.finished.len()).sum();
    let running: usize = keys.held.values().flat_map(|held| held.feeds.values()).map(|of| of.running).sum();
    assert_eq!(finished + running, keys.records.len());
    assert_eq!(finished, keys.finished.len());
    assert!(keys.records.len() <= keys.limits.all);
    let sizes: BTreeSet<_> =
        keys.held.iter().map(|(account, held)| (held.finished.len(), account.clone())).filter(|of| of.0 > 0).collect();
    assert_eq!(sizes, keys.sizes);
}

#[tokio::test]
async fn a_client_forgets_its_own_oldest_key_of_that_feed() {
    let mut keys = Keys::new(KeyLimits { all: 100, each: 10 });
    publish(&mut keys, &account(2), "feed", 1000).unwrap();
    publish(&mut keys, &account(1), "other", 0).unwrap();
    for number in 0..50 {
        publish(&mut keys, &account(1), "feed", number).unwrap();
        check(&keys);
    }
    let known: Vec<_> = (0..50).filter(|number| keys.progress(key(*number)).is_some()).collect();
    assert_eq!(known, (40..50).collect::<Vec<_>>());
    assert!(keys.progress(key(1000)).is_some(), "another's");
    assert!(keys.progress(KeyId::of("other", None, "0")).is_some(), "of another feed");
    // One that is used again is the newest.
    publish(&mut keys, &account(1), "feed", 40).unwrap();
    publish(&mut keys, &account(1), "feed", 50).unwrap();
    assert!(keys.progress(key(40)).is_some() && keys.progress(key(41)).is_none());
}

#[tokio::test]
async fn when_there_are_too_many_the_client_with_most_gives_way() {
    let mut keys = Keys::new(KeyLimits { all: 100, each: 80 });
    for number in 0..5 {
        publish(&mut keys, &account(1), "feed", number).unwrap();
    }
    // Many feeds make no difference.
    for number in 0..500 {
        publish(&mut keys, &account(2), &format!("feed{}", number % 50), number).unwrap();
        check(&keys);
    }
    assert_eq!(keys.len(), 100);
    assert!((0..5).all(|number| keys.progress(key(number)).is_some()));
    for number in 10..20 {
        publish(&mut keys, &account(3), "feed", number).unwrap();
    }
    assert!((0..5).chain(10..20).all(|number| keys.progress(key(number)).is_some()));
    check(&keys);
}

#[tokio::test]
async fn what_runs_is_never_forgotten() {
    let mut keys = Keys::new(KeyLimits { all: 4, each: 3 });
    for number in 0..3 {
        keys.run(key(number), &account(1), "feed", Extent::default(), Run::default()).unwrap();
    }
    assert_eq!(publish(&mut keys, &account(1), "feed", 3), Err(NoRoom));
    publish(&mut keys, &account(2), "feed", 4).unwrap();
    publish(&mut keys, &account(2), "feed", 5).unwrap();
    assert!(keys.running(key(0)).is_some() && keys.progress(key(4)).is_none());
    keys.run(key(5), &account(2), "feed", Extent::default(), Run::default()).unwrap();
    assert_eq!(publish(&mut keys, &account(2), "feed", 6), Err(NoRoom));
    check(&keys);
    keys.finish(key(5), Extent { bytes: 6, ..Extent::default() });
    // Nor what is refused.
    assert_eq!(publish(&mut keys, &account(1), "feed", 5), Err(NoRoom));
    assert_eq!(keys.progress(key(5)).unwrap().bytes, 6);
    publish(&mut keys, &account(3), "feed", 6).unwrap();
    check(&keys);
}

#[test]
fn a_key_is_its_owners() {
    let owners = [None, Some(Owner::new("static token", "a")), Some(Owner::new("JSON web token", "a"))];
    let ids = owners.map(|owner| KeyId::of("feed", owner.as_ref(), "1"));
    assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    assert_eq!(ids[1], KeyId::of("feed", Some(&Owner::new("static token", "a")), "1"));
    let prefix = Owner::new("static token", "a").prefix();
    assert!(prefix.starts_with('/') && prefix.len() == 34, "{prefix}");
}

/// A client that comes back from another address keeps its publication, and pays for it there.
#[tokio::test]
async fn a_key_moves_with_its_client() {
    let mut keys = Keys::new(KeyLimits { all: 100, each: 10 });
    publish(&mut keys, &account(1), "feed", 7).unwrap();
    let progress = keys.progress(key(7)).unwrap();
    assert_eq!(progress.bytes, 8);
    keys.run(key(7), &account(2), "feed", progress, Run::default()).unwrap();
    keys.finish(key(7), progress);
    check(&keys);
    assert!(!keys.held.contains_key(&account(1)));
}

#[tokio::test]
async fn another_process_continues_what_is_known() {
    let limits = KeyLimits { all: 100, each: 10 };
    let mut old = Keys::new(limits);
    publish(&mut old, &account(1), "feed", 1).unwrap();
    publish(&mut old, &Account::unknown(), "feed", 2).unwrap();
    let run = Run::at(Extent { bytes: 5, ..Extent::default() });
    old.run(key(3), &account(1), "feed", Extent::default(), run.clone()).unwrap();
    // How far it has come by now.
    run.progress().bytes = 9;
    run.progress().last = Some(Cursor { epoch: Epoch(7), seq: 4 });
    let told = serde_json::to_string(&old.known()).unwrap();
    let mut new = Keys::new(limits);
    new.restore(serde_json::from_str(&told).unwrap());
    check(&new);
    assert_eq!(new.progress(key(1)).unwrap().bytes, 2);
    assert_eq!(new.progress(key(2)).unwrap().bytes, 3);
    let Extent { last, bytes, .. } = new.progress(key(3)).unwrap();
    assert_eq!((last, bytes), (Some(Cursor { epoch: Epoch(7), seq: 4 }), 9));
    assert!(new.running(key(3)).is_none());
    // They count for the same clients and feeds.
    for number in 10..20 {
        publish(&mut new, &account(1), "feed", number).unwrap();
    }
    assert!(new.progress(key(1)).is_none() && new.progress(key(2)).is_some());
    // Fewer, where there is less room: the latest.
    let mut small = Keys::new(KeyLimits { all: 1, each: 1 });
    small.restore(serde_json::from_str(&told).unwrap());
    check(&small);
    assert!(small.progress(key(3)).is_some());
}

#[tokio::test(start_paused = true)]
async fn keys_expire() {
    let mut keys = Keys::new(KeyLimits { all: 100, each: 100 });
    for number in 0..20 {
        publish(&mut keys, &account(number), "feed", number).unwrap();
    }
    keys.run(key(50), &account(1), "feed", Extent::default(), Run::default()).unwrap();
    tokio::time::advance(KEEP + Duration::from_secs(1)).await;
    assert!(keys.progress(key(0)).is_none() && keys.progress(key(19)).is_some());
    for number in 60..64 {
        publish(&mut keys, &account(number), "feed", number).unwrap();
    }
    check(&keys);
    assert_eq!(keys.len(), 5, "the one that runs, and the new ones");
}
