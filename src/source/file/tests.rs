//! Which files are found, in which order, and from where they are read.

use std::{
    fs::{self, File},
    io::{Read, Write},
    path::PathBuf,
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    checkpoint::Checkpoint,
    claim::Claim,
    find::{Back, Finder, Found, Now},
    gather::{self, Gathered},
    known::Known,
    open::{What, open},
    places::Places,
};

/// A log in a folder of its own.
struct Log(tempfile::TempDir);

impl Log {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Its file of this name: `.1`.
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("app.log{name}"))
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = File::options().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// As `logrotate` does with `copytruncate`.
    fn copy(&self, to: &str) {
        fs::copy(self.path(""), self.path(to)).unwrap();
        File::create(self.path("")).unwrap();
    }

    fn open(&self, name: &str) -> Found {
        let opened = open(&self.path(name), &[What::File]).unwrap();
        let held = Arc::new(Claim::of(&opened.metadata).unwrap());
        Found::new(opened, Checkpoint::default(), held)
    }

    fn gather(&self, places: &Places) -> Gathered {
        let mut here = self.open("");
        here.place = places.find(here.identity).unwrap_or_default();
        gather::gather(&self.path(""), Some(here), places)
    }

    /// What is stored once these files have been read.
    fn places(&self, names: &[&str], past: &[Checkpoint], known: Known) -> Places {
        let places = names.iter().map(|name| {
            let found = self.open(name);
            let (mut place, mut text) = (Checkpoint::default(), Vec::new());
            (&found.opened.file).read_to_end(&mut text).unwrap();
            place.advance(&text);
            (What::File, found.identity, place)
        });
        let places: Vec<_> = places.collect();
        Places::of(places.iter().map(|(what, identity, place)| (*what, *identity, place)), past.iter(), known)
    }
}

/// What is read of files, or where one was read that holds something else now.
fn texts(files: &[Found]) -> Vec<String> {
    let text = |found: &Found| {
        let mut buf = [0; 4096];
        match found.place.read(&found.opened.file, &mut buf).unwrap() {
            Ok(read) => String::from_utf8_lossy(&buf[read]).into_owned(),
            Err(_) => {
                fs::read_to_string(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&found.opened.file))).unwrap()
            }
        }
    };
    files.iter().map(text).filter(|text| !text.is_empty()).collect()
}

fn check(gathered: &Gathered, expected: &[&str]) {
    assert_eq!(texts(&gathered.files), expected);
    assert!(gathered.lost.is_none() && !gathered.is_unsure);
}

/// There is no moment in which a file that is renamed is neither at its path nor in its folder.
#[test]
fn renamed_while_the_server_starts() {
    for is_open in [false, true] {
        for rotations in 1..4 {
            let log = Log::new();
            log.append("", "one\n");
            let places = log.places(&[""], &[], Known::default());
            log.append("", "two\n");
            let mut here = is_open.then(|| log.open(""));
            let mut expected = vec!["two\n".to_owned()];
            for number in 1..=rotations {
                log.rename("", &format!("-2026110{number}"));
                let text = format!("new {number}\n");
                log.append("", &text);
                if number < rotations || !is_open {
                    expected.push(text);
                }
            }
            let here = here.take().unwrap_or_else(|| log.open(""));
            let gathered = gather::gather(&log.path(""), Some(here), &places);
            // The one that is at the path by now is found there, next.
            assert_eq!(texts(&gathered.files), expected, "open before: {is_open}, {rotations} rotations");
            assert!(gathered.lost.is_none() && !gathered.is_unsure);
        }
    }
}

#[test]
fn copied_and_renamed_in_any_order() {
    let log = Log::new();
    log.append(".1", "of earlier times\n");
    let known = gather::known(&log.path(""), None);
    log.append("", "one\n");
    let places = log.places(&[""], &[], known);
    log.append("", "two\n");
    log.rename(".1", ".5");
    log.copy(".4");
    log.append("", "three\n");
    log.copy(".3");
    log.append("", "four\n");
    log.rename("", ".2");
    log.append("", "five\n");
    log.copy(".1");
    log.append("", "six\n");
    check(&log.gather(&places), &["two\n", "three\n", "four\n", "five\n", "six\n"]);
}

#[test]
fn copies_of_what_was_read() {
    let log = Log::new();
    log.append("", "one\n");
    let past = log.places(&[""], &[], Known::default()).at(0).unwrap();
    log.copy(".2");
    // More than was read of it.
    log.append(".2", "of the copy\n");
    log.append("", "two\n");
    let places = log.places(&[""], &[past], Known::default());
    // Another one, which was not emptied after it.
    log.append("", "three\n");
    fs::copy(log.path(""), log.path(".1")).unwrap();
    log.append("", "four\n");
    let gathered = log.gather(&places);
    check(&gathered, &["of the copy\n", "three\nfour\n"]);
    // It is not read later either.
    let places = log.places(&[".2", ""], &[], gathered.known);
    log.rename("", ".0");
    log.append("", "five\n");
    check(&log.gather(&places), &["five\n"]);
}

#[test]
fn what_cannot_be_told_is_said() {
    let log = Log::new();
    log.append("", "one\n");
    let places = log.places(&[""], &[], Known::default());
    // Not by a rotation: the file has not been renamed.
    log.append(".3", "another\n");
    let gathered = log.gather(&places);
    assert!(gathered.is_unsure);
    assert_eq!(texts(&gathered.files), ["another\n"]);
    log.rename("", ".2");
    log.append("", "two\n");
    log.append(".1.gz", "packed\n");
    let gathered = log.gather(&places);
    assert!(gathered.is_unsure && gathered.packed == [log.path(".1.gz")]);
    fs::remove_file(log.path(".2")).unwrap();
    assert!(log.gather(&places).lost.is_some());
}

/// The highest number is that of the newest file.
#[test]
fn numbers_that_rise() {
    let log = Log::new();
    (1..4).for_each(|number| log.append(&format!(".{number}"), "known\n"));
    let known = gather::known(&log.path(""), None);
    log.append("", "one\n");
    let places = log.places(&[""], &[], known);
    for number in 4..12 {
        log.append("", &format!("{number}\n"));
        log.rename("", &format!(".{number}"));
    }
    log.append("", "last\n");
    let numbers: Vec<_> = (4..12).map(|number| format!("{number}\n")).collect();
    check(&log.gather(&places), &[&numbers.iter().map(String::as_str).collect::<Vec<_>>()[..], &["last\n"]].concat());
}

/// Of many rotated files, the latest are remembered.
#[test]
fn many_rotated_files() {
    let log = Log::new();
    (100..200).for_each(|number| log.append(&format!("-20260{number}"), "known\n"));
    let known = gather::known(&log.path(""), None);
    log.append("", "one\n");
    let places = log.places(&[""], &[], known);
    log.append("", "two\n");
    log.rename("", "-20260200");
    log.append("", "three\n");
    log.rename("", "-20260201");
    log.append("", "four\n");
    check(&log.gather(&places), &["two\n", "three\n", "four\n"]);
}

/// No one says that a file was at the path between two looks.
#[tokio::test]
async fn rotated_twice_between_two_looks() {
    let log = Log::new();
    log.append(".1", "of earlier times\n");
    log.append("", "one\n");
    let mut finder = Finder::new("log", log.path(""), Back { lines: 10, bytes: 1 << 20 }, Places::none());
    let first = finder.first().await.unwrap();
    assert_eq!(texts(&first), ["one\n"]);
    log.rename(".1", ".3");
    log.rename("", ".2");
    log.append("", "two\n");
    log.rename("", ".1");
    log.append("", "three\n");
    let (found_tx, mut found_rx) = mpsc::channel(16);
    let found = async {
        let mut files = Vec::new();
        while files.len() < 2 {
            match found_rx.recv().await.unwrap() {
                Now::Found(found) => files.push(*found),
                Now::Again(_) => panic!("it is another one"),
            }
        }
        texts(&files)
    };
    let found = tokio::select! {
        found = found => found,
        () = finder.run(found_tx) => unreachable!("it does not end before"),
    };
    assert_eq!(found, ["two\n", "three\n"]);
}
