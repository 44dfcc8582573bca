//! A check of a folder finds what would stop a start, in the same words; neither changes anything then.
#![cfg(unix)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use common::open;
use h3cast_feed::Keeper;
use h3cast_store::{Checked, Fsync, Store, StoreError, StoreOptions};

/// A store with the feed `a` of one chunk, that was closed.
async fn stored(dir: &Path) {
    let store = open(dir, Fsync::default());
    let feed = store.feed("a").unwrap();
    feed.publish("one".into(), None).await.unwrap();
    store.close().unwrap();
}

/// All that is in a folder, with what is in files, and where links lead.
fn all(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let content = match () {
            () if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            () if kind.is_file() => fs::read(&path).unwrap(),
            () => {
                found.extend(all(&path));
                Vec::new()
            }
        };
        found.insert(path, content);
    }
    found
}

/// What has to be wrong in a store in `s`, and with which path.
async fn refused(change: impl Fn(&Path), expected: impl Fn(&StoreError, &Path) -> bool) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("s");
    stored(&dir).await;
    change(folder.path());
    let before = all(folder.path());
    let checked = Store::check(&dir).map_err(|error| error.to_string());
    let error = Store::open(&dir, StoreOptions::default()).map(drop).unwrap_err();
    assert!(expected(&error, &dir), "{error}");
    assert_eq!(checked, Err(error.to_string()));
    assert_eq!(all(folder.path()), before, "{error}");
}

fn is_no_folder(name: &str) -> impl Fn(&StoreError, &Path) -> bool {
    move |error, dir| matches!(error, StoreError::NotAFolder(path) if *path == dir.join(name))
}

fn is_no_file(name: &str) -> impl Fn(&StoreError, &Path) -> bool {
    move |error, dir| matches!(error, StoreError::NotRegular(path) if *path == dir.join(name))
}

fn is_foreign(name: &str) -> impl Fn(&StoreError, &Path) -> bool {
    move |error, _| matches!(error, StoreError::Foreign { found, .. } if found == name)
}

/// Moves it out of the store, and puts a link in its place.
fn move_away(place: &Path, name: &str) {
    fs::rename(place.join("s").join(name), place.join("elsewhere")).unwrap();
    symlink(place.join("elsewhere"), place.join("s").join(name)).unwrap();
}

#[tokio::test]
async fn folders_that_are_links() {
    refused(|place| move_away(place, "feeds"), is_no_folder("feeds")).await;
    refused(|place| move_away(place, "feeds/0"), is_no_folder("feeds/0")).await;
    // What would be removed in a folder of the store stays in one of others.
    let others = |place: &Path| {
        fs::create_dir_all(place.join("s/feeds/5.removed/precious")).unwrap();
        fs::create_dir(place.join("s/feeds/9")).unwrap();
        move_away(place, "feeds");
    };
    refused(others, is_no_folder("feeds")).await;
    let nowhere = |place: &Path| {
        fs::remove_dir_all(place.join("s/feeds")).unwrap();
        symlink(place.join("elsewhere"), place.join("s/feeds")).unwrap();
    };
    refused(nowhere, is_no_folder("feeds")).await;
    let removed = |place: &Path| {
        fs::create_dir(place.join("s/feeds/5.removed")).unwrap();
        move_away(place, "feeds/5.removed");
    };
    refused(removed, is_no_folder("feeds/5.removed")).await;
}

#[tokio::test]
async fn a_store_that_a_link_leads_to() {
    let folder = tempfile::tempdir().unwrap();
    let [dir, link] = ["s", "link"].map(|name| folder.path().join(name));
    stored(&dir).await;
    symlink(&dir, &link).unwrap();
    assert_eq!(Store::check(&link).unwrap(), Checked::Stored);
    assert_eq!(open(&link, Fsync::default()).feed("a").unwrap().next(), 1);
}

#[tokio::test]
async fn files_in_the_place_of_folders() {
    let feeds = |place: &Path| {
        fs::remove_dir_all(place.join("s/feeds")).unwrap();
        fs::write(place.join("s/feeds"), "").unwrap();
    };
    refused(feeds, is_no_folder("feeds")).await;
    for name in ["feeds/99", "feeds/99.removed"] {
        refused(|place| fs::write(place.join("s").join(name), "").unwrap(), is_no_folder(name)).await;
    }
}

#[tokio::test]
async fn files_of_others() {
    // What else would be removed at a start stays.
    let sub = |place: &Path| {
        fs::create_dir(place.join("s/feeds/5")).unwrap();
        fs::create_dir_all(place.join("s/feeds/5.removed/gone")).unwrap();
        fs::create_dir_all(place.join("s/feeds/99/sub")).unwrap();
    };
    refused(sub, is_foreign("sub")).await;
    // Also where the lock is missing, as in a copy without it.
    let without_lock = |place: &Path| {
        sub(place);
        fs::remove_file(place.join("s/lock")).unwrap();
    };
    let folder = tempfile::tempdir().unwrap();
    stored(&folder.path().join("s")).await;
    without_lock(folder.path());
    assert!(matches!(Store::check(folder.path().join("s")), Err(StoreError::Foreign { .. })));
}

#[tokio::test]
async fn links_and_folders_in_the_place_of_files() {
    for name in ["state.json", "feeds/0/meta.json", "lock"] {
        refused(|place| move_away(place, name), is_no_file(name)).await;
    }
    let is_in_the_way = |error: &StoreError, dir: &Path| {
        let text = format!("{} is a folder, and a file of that name is to be written", dir.join("state.new").display());
        error.to_string().starts_with(&text)
    };
    refused(|place| fs::create_dir(place.join("s/state.new")).unwrap(), is_in_the_way).await;
}

#[tokio::test]
async fn two_folders_of_one_feed() {
    let twice = |place: &Path| {
        fs::create_dir(place.join("s/feeds/77")).unwrap();
        fs::copy(place.join("s/feeds/0/meta.json"), place.join("s/feeds/77/meta.json")).unwrap();
    };
    refused(twice, |error, _| matches!(error, StoreError::Twice { .. })).await;
}
