//! What a crash leaves: of the process, of the system, of the disk.

mod common;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use common::{after, copy, feed, new, open, seqs, view};
use h3cast_feed::{Keeper, Start};
use h3cast_store::{Fsync, Note, Store, StoreError, StoreOptions};

/// Numbers that can be had again: the seed is printed when a test fails.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| h3cast_feed::Epoch::now().0);
        println!("SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// A chunk that says which it is, of a size that does not.
fn line(seq: u64) -> Vec<u8> {
    let mut bytes = seq.to_be_bytes().to_vec();
    bytes.resize(8 + (seq * 37 % 300) as usize, seq as u8);
    bytes
}

/// Reads everything; gives the number after the last chunk. Nothing may be missing or other than it was.
async fn read_all(dir: &Path, fsync: Fsync) -> u64 {
    let store = open(dir, fsync);
    let (stored, feed, _publisher) = feed(&store, "a", 1000);
    let next = stored.next();
    let got = view(&feed, Start::Start, next).await;
    for (seq, got) in got.iter().enumerate() {
        let (number, bytes) = got.as_ref().expect("no gap");
        assert_eq!((*number, &bytes[..]), (seq as u64, &line(seq as u64)[..]));
    }
    assert_eq!(got.len() as u64, next);
    // A note says which chunk was the last of those that were published together; one alone may have followed.
    if let Some(note) = stored.notes(b"last").first() {
        let noted = u64::from_be_bytes(note.value.as_ref().unwrap()[..].try_into().unwrap());
        assert!(noted < next && next - 1 - noted == u64::from((next - 1) % 7 == 0), "{noted} of {next}");
    }
    next
}

/// Publishes for ever, and prints each number once it is acknowledged. Run by other tests, in a process of its own.
#[tokio::test]
#[ignore = "run by other tests"]
async fn child() {
    let fsync = match std::env::var("FSYNC").as_deref() {
        Ok("always") => Fsync::Always,
        _ => Fsync::default(),
    };
    let store = open(&PathBuf::from(std::env::var_os("DIR").expect("run by other tests")), fsync);
    let (stored, _feed, publisher) = feed(&store, "a", 100_000);
    let mut out = std::io::stdout();
    let mut next = stored.next();
    println!("\nready");
    loop {
        let many = next % 7 + 1;
        let published = match many {
            1 => publisher.publish_all(vec![new(line(next))]).await,
            _ => {
                let chunks = (next..next + many).map(|seq| new(line(seq))).collect();
                stored
                    .publish_noted(chunks, |receipts| {
                        let last = receipts.last().map(|receipt| receipt.cursor.seq.to_be_bytes().to_vec());
                        vec![Note { key: "last".into(), value: last.map(Into::into), expires: None }]
                    })
                    .await
            }
        };
        if let Some(error) = published.error {
            writeln!(out, "error {error}").unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        next += many;
        writeln!(out, "{}", next - 1).unwrap();
    }
}

struct Writing {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Writing {
    fn start(dir: &Path, fsync: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env("DIR", dir)
            .env("FSYNC", fsync)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while lines.next().expect("it starts").unwrap() != "ready" {}
        Self { child, lines }
    }

    /// The next number that it acknowledges, `many` lines from here.
    fn acknowledged(&mut self, many: u64) -> u64 {
        let mut last = 0;
        for _ in 0..=many {
            last = self.lines.next().expect("it goes on").unwrap().parse().expect("a number");
        }
        last
    }

    /// Kills it; gives the last number that it acknowledged.
    fn kill(mut self, last: u64) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.map_while(Result::ok).filter_map(|line| line.parse().ok()).max().unwrap_or(0).max(last)
    }
}

#[tokio::test]
async fn a_killed_process_loses_nothing() {
    let mut random = Random::new();
    let rounds = std::env::var("H3CAST_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    let folder = tempfile::tempdir().unwrap();
    for round in 0..rounds {
        let fsync = if round % 3 == 0 { "always" } else { "100ms" };
        let mut writing = Writing::start(folder.path(), fsync);
        let last = writing.acknowledged(random.below(300));
        let last = writing.kill(last);
        let next = read_all(folder.path(), Fsync::default()).await;
        assert!(next > last, "{last} was acknowledged, and the last one is {}", next - 1);
    }
}

#[tokio::test]
async fn a_copy_holds_what_was_acknowledged_before_it() {
    let mut random = Random::new();
    for fsync in ["always", "100ms"] {
        let folder = tempfile::tempdir().unwrap();
        let mut writing = Writing::start(folder.path(), fsync);
        for _ in 0..5 {
            let last = writing.acknowledged(random.below(500));
            let to = tempfile::tempdir().unwrap();
            copy(folder.path(), to.path());
            let next = read_all(to.path(), Fsync::default()).await;
            assert!(next > last, "{last} was acknowledged, and the last one is {}", next - 1);
        }
        writing.kill(0);
    }
}

#[test]
fn a_second_process_is_told_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let writing = Writing::start(folder.path(), "100ms");
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is open") };
    assert!(matches!(error, StoreError::Locked { pid: Some(pid), .. } if pid == writing.child.id()), "{error}");
    writing.kill(0);
    Store::open(folder.path(), StoreOptions::default()).unwrap();
}

/// A store with so many chunks, each in its own record, and its only file of records.
async fn written(many: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    let (stored, ..) = feed(&store, "a", 1000);
    for seq in 0..many {
        stored.publish(line(seq).into(), None).await.unwrap();
    }
    // As a crash leaves it.
    let crashed = tempfile::tempdir().unwrap();
    copy(folder.path(), crashed.path());
    let file = crashed.path().join("feeds/0").join(format!("{:020}.records", 0));
    (crashed, file)
}

/// What is on the disk is `len` bytes of the file, after the system has stopped.
fn tear(dir: &Path, file: &Path, len: u64) {
    File::options().write(true).open(file).unwrap().set_len(len).unwrap();
    fs::write(dir.join("state.json"), r#"{"closed":false,"boot":"another"}"#).unwrap();
}

#[tokio::test]
async fn a_torn_end_is_repaired() {
    let (folder, file) = written(30).await;
    let len = fs::metadata(&file).unwrap().len();
    let mut random = Random::new();
    for cut in (1..60).step_by(6).chain((0..8).map(|_| random.below(len))) {
        let to = tempfile::tempdir().unwrap();
        copy(folder.path(), to.path());
        let file = to.path().join(file.strip_prefix(folder.path()).unwrap());
        File::options().write(true).open(&file).unwrap().set_len(len - cut).unwrap();
        let next = read_all(to.path(), Fsync::default()).await;
        assert!(next < 30);
        // It continues after what is there.
        let store = open(to.path(), Fsync::default());
        let (stored, ..) = feed(&store, "a", 1000);
        assert_eq!(seqs(&stored.publish_all(vec![new(line(next))]).await), [next]);
        drop((store, stored));
        assert_eq!(read_all(to.path(), Fsync::default()).await, next + 1);
    }
}

#[tokio::test]
async fn numbers_that_a_power_loss_took_are_not_given_again() {
    let (folder, file) = written(30).await;
    let len = fs::metadata(&file).unwrap().len();
    tear(folder.path(), &file, len * 2 / 3);
    let continues = {
        let store = open(folder.path(), Fsync::default());
        let (stored, feed, publisher) = feed(&store, "a", 1000);
        let next = stored.next();
        assert_eq!(next, 65_536);
        // Viewers who had what is lost are told, and go on.
        let got = view(&feed, after(&stored, 29), next).await;
        assert_eq!(got, [Err(next - 30)]);
        assert_eq!(publisher.publish("on".into()).await.unwrap().seq, next);
        next
    };
    // In the next process too.
    let store = open(folder.path(), Fsync::default());
    let (stored, feed, _publisher) = feed(&store, "a", 1000);
    assert_eq!(stored.next(), continues + 1);
    let got = view(&feed, Start::Start, continues + 1).await;
    assert_eq!(got.last(), Some(&Ok((continues, "on".into()))));
    let there = got.iter().take_while(|got| matches!(got, Ok((seq, _)) if *seq < 30)).count() as u64;
    assert!(there > 10 && there < 30, "{there}");
    assert_eq!(got[there as usize], Err(continues - there));
    // What was cut off is still there.
    assert!(
        fs::read_dir(folder.path().join("feeds/0")).unwrap().any(|file| file
            .unwrap()
            .path()
            .extension()
            .is_some_and(|it| it == "torn"))
    );
}

#[tokio::test]
async fn what_is_synced_is_not_in_doubt() {
    let (folder, file) = written(30).await;
    let len = fs::metadata(&file).unwrap().len();
    let mark = folder.path().join("feeds/0/mark.json");
    fs::write(&mark, r#"{"reserved":65536,"synced":25}"#).unwrap();
    let before = fs::read(&file).unwrap();
    tear(folder.path(), &file, len / 2);
    let torn = fs::read(&file).unwrap();
    let Err(error) = Store::open(folder.path(), StoreOptions::default()) else { panic!("it is damaged") };
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&file).unwrap(), torn);
    fs::write(&file, before).unwrap();
    open(folder.path(), Fsync::default());
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_and_nothing_is_changed() {
    let (folder, file) = written(30).await;
    let whole = fs::read(&file).unwrap();
    let mut random = Random::new();
    for _ in 0..25 {
        // Not in the last record.
        let at = random.below(whole.len() as u64 - 400) as usize;
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << random.below(8);
        fs::write(&file, &damaged).unwrap();
        let store = open(folder.path(), Fsync::default());
        let Err(error) = store.feed("a") else { panic!("byte {at} is damaged") };
        assert!(
            matches!(&error, StoreError::Damaged { file: found, at: from } if *found == file && *from <= at as u64),
            "{error}"
        );
        drop(store);
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    fs::write(&file, whole).unwrap();
    assert_eq!(read_all(folder.path(), Fsync::default()).await, 30);
}

#[tokio::test]
async fn a_feed_that_was_created_when_the_power_went_hides_no_other() {
    let (folder, _) = written(3).await;
    {
        let store = open(folder.path(), Fsync::default());
        store.feed("new").unwrap().publish("x".into(), None).await.unwrap();
    }
    // What was in the file is not on the disk.
    fs::write(folder.path().join("feeds/1/meta.json"), "").unwrap();
    let refused = Store::open(folder.path(), StoreOptions::default());
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    fs::write(folder.path().join("state.json"), r#"{"closed":false,"boot":"another"}"#).unwrap();
    let store = open(folder.path(), Fsync::default());
    assert_eq!(store.feeds().len(), 1);
    assert_eq!(store.feed("new").unwrap().next(), 0);
    assert!(folder.path().join("feeds/1.lost").is_dir());
    // Its number is not given again: the folder of the next one may have to be moved aside too.
    drop(store);
    let store = open(folder.path(), Fsync::default());
    store.feed("newer").unwrap().publish("x".into(), None).await.unwrap();
    assert!(folder.path().join("feeds/2").is_dir());
}

#[tokio::test]
async fn chunks_without_what_is_known_of_their_feed_stay() {
    let (folder, file) = written(3).await;
    fs::remove_file(folder.path().join("feeds/0/meta.json")).unwrap();
    let refused = Store::open(folder.path(), StoreOptions::default());
    assert!(matches!(refused, Err(StoreError::Damaged { .. })));
    assert!(file.exists());
}

/// What a later process gives to viewers is on the disk, though the one that wrote it was killed before it was synced.
/// Here it shows that it was synced, not that it is there: only the loss of power would.
#[tokio::test]
async fn what_a_killed_process_wrote_is_synced_before_it_is_shown() {
    let (folder, _) = written(3).await;
    for (fsync, synced) in [(Fsync::Every(Duration::from_secs(60)), 1), (Fsync::Never, 0)] {
        let store = open(folder.path(), fsync);
        assert_eq!(store.syncs().0, synced);
        store.feed("a").unwrap().publish("x".into(), None).await.unwrap();
        store.close().unwrap();
        assert_eq!(store.syncs().0, synced + 1, "a store was closed that is not on the disk");
    }
}

#[tokio::test]
async fn hundreds_of_feeds_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Fsync::default());
    for number in 0..300 {
        let stored = store.feed(&format!("feed {number}")).unwrap();
        stored.publish_all(vec![new(line(0)), new(line(1))]).await;
    }
    store.close().unwrap();
    let store = open(folder.path(), Fsync::default());
    assert_eq!(store.feeds().len(), 300);
    for number in 0..300 {
        assert_eq!(store.feed(&format!("feed {number}")).unwrap().next(), 2);
    }
}
