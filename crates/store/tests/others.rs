//! What is not a store's stays as it is, and nothing waits for it: files of others, links, FIFOs, devices.
#![cfg(unix)]

mod common;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    time::Duration,
};

use common::open;
use h3cast_feed::Keeper;
use h3cast_store::{Fsync, Store, StoreError, StoreOptions, StoredFeed};

/// Opens a store and its feed `a`, which must not take long.
fn opened(dir: &Path) -> Result<(), StoreError> {
    let (dir, (done, opened)) = (dir.to_owned(), mpsc::channel());
    std::thread::spawn(move || {
        let opened = Store::open(dir, StoreOptions::default()).and_then(|store| store.feed("a").map(drop));
        let _ = done.send(opened);
    });
    opened.recv_timeout(Duration::from_secs(20)).expect("it does not end")
}

/// A store with one feed of one chunk, that was closed.
async fn stored(dir: &Path) {
    let store = open(dir, Fsync::default());
    let feed = store.feed("a").unwrap();
    feed.publish("one".into(), None).await.unwrap();
    store.close().unwrap();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_lock_of_others_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, precious) = (folder.path().join("s"), folder.path().join("precious"));
    let lock = dir.join("lock");
    for is_store in [false, true] {
        match is_store {
            true => stored(&dir).await,
            false => fs::create_dir(&dir).unwrap(),
        }
        let before = || names(&dir).into_iter().filter(|name| name != "lock").collect::<Vec<_>>();
        let all = before();
        fs::write(&precious, "precious").unwrap();
        let links: [&dyn Fn(); 2] =
            [&|| symlink(&precious, &lock).unwrap(), &|| fs::hard_link(&precious, &lock).unwrap()];
        for link in links {
            let _ = fs::remove_file(&lock);
            link();
            let error = opened(&dir).unwrap_err();
            assert!(matches!(error, StoreError::NotRegular(_) | StoreError::Foreign { .. }), "{error}");
            assert!(error.to_string().contains("lock"), "{error}");
            assert_eq!(fs::read(&precious).unwrap(), b"precious");
        }
        fs::remove_file(&precious).unwrap();
        fs::remove_file(&lock).unwrap();
        symlink(&precious, &lock).unwrap();
        let error = opened(&dir).unwrap_err();
        assert!(matches!(&error, StoreError::NotRegular(path) if *path == lock), "{error}");
        assert!(!precious.exists(), "what a link led to was created");
        assert_eq!(before(), all);
        fs::remove_dir_all(&dir).unwrap();
    }
    // The number of another program.
    fs::create_dir(&dir).unwrap();
    fs::write(&lock, "4711\n").unwrap();
    assert!(matches!(opened(&dir), Err(StoreError::Foreign { .. })));
    assert_eq!((fs::read(&lock).unwrap(), names(&dir)), (b"4711\n".into(), vec!["lock".into()]));
    // What an interrupted attempt left is replaced; what others wrote under that name is refused.
    fs::write(&lock, "").unwrap();
    let begun = dir.join("h3cast-store.new");
    fs::write(&begun, "precious").unwrap();
    assert!(matches!(opened(&dir), Err(StoreError::Foreign { .. })));
    assert_eq!(fs::read(&begun).unwrap(), b"precious");
    fs::write(&begun, "{\"for").unwrap();
    opened(&dir).unwrap();
}

#[tokio::test]
async fn nothing_waits_for_a_fifo_or_a_device() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    stored(dir).await;
    // By no other program: what is started has, for a moment, the locks of stores that other tests have open.
    let fifo: &dyn Fn(&Path) =
        &|path| rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let device: &dyn Fn(&Path) = &|path| symlink("/dev/zero", path).unwrap();
    let is_folder: &dyn Fn(&Path) = &|path| fs::create_dir(path).unwrap();
    let records = format!("feeds/0/{:020}.records", 0);
    let names = ["h3cast-store.json", "state.json", "lock", "feeds/0/meta.json", "feeds/0/mark.json", &records];
    for path in names.map(|name| dir.join(name)) {
        for make in [fifo, device, is_folder] {
            let aside = path.with_extension("aside");
            fs::rename(&path, &aside).unwrap();
            make(&path);
            let error = opened(dir).unwrap_err();
            assert!(matches!(&error, StoreError::NotRegular(found) if *found == path), "{error}");
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).unwrap();
            fs::rename(&aside, &path).unwrap();
        }
    }
    opened(dir).unwrap();
}

#[tokio::test]
async fn a_huge_file_is_not_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    stored(dir).await;
    for name in ["h3cast-store.json", "state.json", "feeds/0/meta.json", "feeds/0/mark.json"] {
        let path = dir.join(name);
        let before = fs::read(&path).unwrap();
        // Of spaces, it would be read to its end.
        fs::write(&path, [&*before, &vec![b' '; 2 << 20]].concat()).unwrap();
        let error = opened(dir).unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { file, .. } if *file == path), "{error}");
        fs::write(&path, before).unwrap();
    }
    opened(dir).unwrap();
}

/// A link that was put in the way of a file is not followed.
#[tokio::test]
async fn temporary_files_do_not_follow_links() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, precious) = (folder.path().join("s"), folder.path().join("precious"));
    fs::write(&precious, "precious").unwrap();
    stored(&dir).await;
    let link = |name: &str| {
        let path: PathBuf = dir.join(name);
        let _ = fs::remove_file(&path);
        symlink(&precious, path).unwrap();
    };
    ["state.new", "feeds/0/mark.new", "feeds/0/00000000000000000001.new", "feeds/0/00000000000000000000.torn"]
        .iter()
        .for_each(|name| link(name));
    let records = dir.join(format!("feeds/0/{:020}.records", 0));
    let whole = fs::read(&records).unwrap();
    fs::write(&records, [&*whole, b"H3R"].concat()).unwrap();
    let store = open(&dir, Fsync::default());
    let feed = store.feed("a").unwrap();
    feed.publish("two".into(), None).await.unwrap();
    store.close().unwrap();
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    assert_eq!(fs::read(dir.join("feeds/0/00000000000000000000.torn")).unwrap(), b"H3R");
}

/// Publishes until that is refused, which is soon. Why.
async fn refused(feed: &StoredFeed) -> String {
    for _ in 0..1000 {
        if let Err(error) = feed.publish("late".into(), None).await {
            return std::error::Error::source(&error).unwrap().to_string();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is not refused");
}

#[tokio::test]
async fn a_folder_that_was_removed_is_not_created_again() {
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(10)), Fsync::Never] {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("s");
        let store = open(&dir, fsync);
        let [feed, other] = ["a", "b"].map(|name| store.feed(name).unwrap());
        feed.publish("one".into(), None).await.unwrap();
        fs::remove_dir_all(&dir).unwrap();
        let why = refused(&feed).await;
        assert!(why.contains("was removed or moved"), "{why}");
        assert_eq!((refused(&other).await, store.is_failing()), (why, true));
        assert!(!dir.exists());
        // Not even where another one is now.
        fs::create_dir(&dir).unwrap();
        assert!(refused(&other).await.contains("was removed or moved"));
        assert!(matches!(store.remove("a"), Err(StoreError::Gone(_))));
        assert!(matches!(store.release(), Err(StoreError::Gone(_))));
        assert!(matches!(store.close(), Err(StoreError::Gone(_))));
        assert_eq!(names(&dir), [""; 0]);
        opened(&dir).unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_returns_is_written_again() {
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(10)), Fsync::Never] {
        let folder = tempfile::tempdir().unwrap();
        let (dir, away) = (folder.path().join("s"), folder.path().join("away"));
        let store = open(&dir, fsync);
        let feed = store.feed("a").unwrap();
        feed.publish("one".into(), None).await.unwrap();
        fs::rename(&dir, &away).unwrap();
        refused(&feed).await;
        fs::rename(&away, &dir).unwrap();
        let again = async {
            while feed.publish("two".into(), None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
        let next = feed.next();
        store.close().unwrap();
        drop((store, feed));
        let store = open(&dir, fsync);
        let feed = store.feed("a").unwrap();
        assert_eq!(feed.next(), next);
        let past = Arc::new(feed.clone()).read(feed.epoch(), 0).await.unwrap();
        let chunks: Vec<_> = past.chunks.iter().map(|chunk| &chunk.bytes[..]).collect();
        assert_eq!((chunks.len() as u64, chunks[0], chunks[chunks.len() - 1]), (next, &b"one"[..], &b"two"[..]));
    }
}

/// A number for a name does not make a folder one of the store's.
#[tokio::test]
async fn folders_of_others_among_the_feeds_stay() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, elsewhere) = (folder.path().join("s"), folder.path().join("elsewhere"));
    stored(&dir).await;
    let feeds = dir.join("feeds");
    let theirs = feeds.join("5/sub/thesis.txt");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "mine").unwrap();
    fs::write(feeds.join("5/meta.new"), "{").unwrap();
    fs::write(feeds.join("5/00000000000000000000.new"), "").unwrap();
    let refused = opened(&dir).unwrap_err();
    assert!(matches!(&refused, StoreError::Foreign { found, .. } if found == "sub"), "{refused}");
    assert_eq!(names(&feeds.join("5")), ["00000000000000000000.new", "meta.new", "sub"]);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "mine");
    // What a creation that broke off has left goes.
    fs::remove_dir_all(theirs.parent().unwrap()).unwrap();
    opened(&dir).unwrap();
    assert_eq!(names(&feeds), ["0"]);
    // What a link leads to is written by nobody.
    fs::rename(feeds.join("0"), &elsewhere).unwrap();
    symlink(&elsewhere, feeds.join("0")).unwrap();
    let before = names(&elsewhere);
    assert!(matches!(opened(&dir), Err(StoreError::NotAFolder(_))));
    assert_eq!(names(&elsewhere), before);
}

#[tokio::test]
async fn two_folders_of_one_feed_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    stored(folder.path()).await;
    let feeds = folder.path().join("feeds");
    fs::create_dir(feeds.join("77")).unwrap();
    for name in names(&feeds.join("0")) {
        fs::copy(feeds.join("0").join(&name), feeds.join("77").join(&name)).unwrap();
    }
    let refused = opened(folder.path()).unwrap_err();
    assert!(matches!(&refused, StoreError::Twice { feed, .. } if feed == "a"), "{refused}");
    fs::remove_dir_all(feeds.join("77")).unwrap();
    opened(folder.path()).unwrap();
}
