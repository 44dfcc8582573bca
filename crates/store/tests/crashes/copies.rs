//! Copies of a store that are made while it is written: in any order of files, by any program.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use h3cast_feed::{Keeper, Start};
use h3cast_store::{Fsync, Store, StoreError, StoreOptions};

use crate::{
    common::{after, copy, feed, new, open, view},
    writing::{Random, Writing, line},
};

/// Opens a copy: it has all up to the number `last`, and what it has of later ones is what it was. Twice, since opening
/// it changes it.
async fn holds(dir: &Path, last: u64) {
    holds_with(dir, last, Some(last)).await;
}

/// The same of what it has up to the number `sure`; what is lost after that is reported, and its numbers are not given
/// again.
pub(crate) async fn holds_with(dir: &Path, last: u64, sure: Option<u64>) {
    let mut before = 0;
    for _ in 0..2 {
        let store = open(dir, Fsync::default());
        if sure.is_none() && store.feeds().is_empty() {
            // Another feed will have the name, with an epoch of its own.
            return;
        }
        let (stored, feed, publisher) = feed(&store, "a", 1000);
        let next = stored.next();
        assert!(next > last && next >= before, "{last} was acknowledged, and the next one is {next}");
        let first = stored.first();
        assert!(sure.is_none_or(|sure| first <= sure), "{sure:?} is to be there, and the first one is {first}");
        let got = view(&feed, Start::Start, next).await;
        let mut seq = first;
        for got in got.iter().skip_while(|got| matches!(got, Err(missing) if *missing == first)) {
            match got {
                Ok((number, bytes)) => {
                    assert_eq!(*number, seq);
                    assert!(bytes[..] == line(seq) || bytes == "more", "{seq} is another chunk");
                    seq += 1;
                }
                Err(missing) => {
                    assert!(
                        sure.is_none_or(|sure| seq > sure),
                        "{sure:?} is to be there, and {missing} are missing from {seq} on"
                    );
                    seq += missing;
                }
            }
        }
        assert_eq!(seq, next);
        assert_eq!(publisher.publish("more".into()).await.unwrap().seq, next);
        before = next + 1;
    }
}

/// Copies files one by one in a random order, with pauses, as a slow disk might have it.
fn copy_shuffled(from: &Path, to: &Path, random: &mut Random) {
    fs::create_dir_all(to).unwrap();
    let mut entries: Vec<_> = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    for at in (1..entries.len()).rev() {
        entries.swap(at, random.below(at as u64 + 1) as usize);
    }
    let pause = random.below(entries.len() as u64) as usize;
    for (at, entry) in entries.into_iter().enumerate() {
        let to = to.join(entry.file_name().unwrap());
        if at == pause {
            std::thread::sleep(Duration::from_millis(random.below(1500)));
        }
        // Some are removed or renamed meanwhile.
        match entry.is_dir() {
            true => copy_shuffled(&entry, &to, random),
            false => _ = fs::copy(&entry, to),
        }
    }
}

/// `H3CAST_COPIES` of each kind.
#[tokio::test]
async fn a_copy_holds_what_was_acknowledged_before_it() {
    let mut random = Random::new();
    let rounds = std::env::var("H3CAST_COPIES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    for round in 0..rounds {
        let fsync = if round % 2 == 0 { "always" } else { "100ms" };
        let folder = tempfile::tempdir().unwrap();
        let mut writing = Writing::keeping(folder.path(), fsync, "67108864");
        for kind in 0..2 {
            let last = writing.acknowledged(random.below(1000));
            let to = tempfile::tempdir().unwrap();
            match kind {
                0 => {
                    // It complains of files that were renamed or removed meanwhile.
                    let mut cp = Command::new("cp");
                    cp.arg("-r").arg(folder.path()).arg(to.path().join("copy")).stderr(Stdio::null());
                    cp.status().unwrap();
                }
                _ => copy_shuffled(folder.path(), &to.path().join("copy"), &mut random),
            }
            holds(&to.path().join("copy"), last).await;
        }
        writing.kill(0);
    }
}

/// A store with so many chunks, each in its own record; the file of its records; and the length of the file when there
/// were half as many.
async fn written(dir: &Path, many: u64) -> (std::path::PathBuf, u64) {
    let store = open(dir, Fsync::default());
    let stored = store.feed("a").unwrap();
    let file = dir.join("feeds/0").join(format!("{:020}.records", 0));
    let mut half = 0;
    for seq in 0..many {
        if seq == many / 2 {
            half = fs::metadata(&file).unwrap().len();
        }
        stored.publish(line(seq).into(), None).await.unwrap();
    }
    store.close().unwrap();
    (file, half)
}

/// The mark is of a later time than the end of the file.
#[tokio::test]
async fn a_copy_may_end_before_what_it_knows_to_be_on_the_disk() {
    for (closed, boot) in [(false, "same"), (false, "another"), (true, "same")] {
        let folder = tempfile::tempdir().unwrap();
        let (file, half) = written(folder.path(), 30).await;
        let state = folder.path().join("state.json");
        let text = fs::read_to_string(&state).unwrap();
        let mut text = text.replace(r#""closed":true"#, &format!(r#""closed":{closed}"#));
        if boot == "another" {
            let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
            value["boot"] = "another".into();
            text = value.to_string();
        }
        fs::write(&state, text).unwrap();
        // In the middle of the next record.
        let to = tempfile::tempdir().unwrap();
        copy(folder.path(), to.path());
        let torn = to.path().join(file.strip_prefix(folder.path()).unwrap());
        File::options().write(true).open(&torn).unwrap().set_len(half + 45).unwrap();
        holds(to.path(), 14).await;
        // Numbers that were given since are not given again.
        let store = open(to.path(), Fsync::default());
        assert!(store.feed("a").unwrap().next() >= 30);
    }
}

/// Where no copy can explain it, it is damage: in the store itself, and where more follows.
#[tokio::test]
async fn only_a_copy_may_end_like_that() {
    let folder = tempfile::tempdir().unwrap();
    let (file, half) = written(folder.path(), 30).await;
    let whole = fs::read(&file).unwrap();
    let refused = |dir: &Path| {
        let opened = Store::open(dir, StoreOptions::default()).and_then(|store| store.feed("a").map(drop));
        assert!(matches!(opened, Err(StoreError::Damaged { .. })), "{opened:?}");
    };
    File::options().write(true).open(&file).unwrap().set_len(half + 45).unwrap();
    refused(folder.path());
    // A length that is damaged looks like an end that is not whole.
    let mut damaged = whole.clone();
    damaged[half as usize + 9] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let to = tempfile::tempdir().unwrap();
    copy(folder.path(), to.path());
    refused(to.path());
    // A record that is there in full was not cut off by a copy.
    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&file, &damaged).unwrap();
    let to = tempfile::tempdir().unwrap();
    copy(folder.path(), to.path());
    refused(to.path());
    // Untouched, it is the same.
    fs::write(&file, whole).unwrap();
    let to = tempfile::tempdir().unwrap();
    copy(folder.path(), to.path());
    let store = open(to.path(), Fsync::default());
    let (stored, feed, _publisher) = feed(&store, "a", 1000);
    assert_eq!(stored.next(), 30);
    assert_eq!(view(&feed, after(&stored, 28), 30).await.len(), 1);
    let _ = stored.publish_all(vec![new("on")]).await;
}
