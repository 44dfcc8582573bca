//! Backups of a store that are made at random moments, while a server writes it.

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{STORE, first, kills::Random, lines, post, process::soon};

/// The lines of a publication, which are numbered.
fn numbered(from: u64, many: u64) -> Vec<String> {
    (from..from + many).map(|number| format!("{number:0200}\n")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_has_all_that_was_confirmed_before_it() {
    copies(4).await;
}

/// For tests/soak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn fifty_have_all_that_was_confirmed_before_them() {
    for _ in 0..10 {
        copies(5).await;
    }
}

/// Makes so many copies of the store of one server, and has servers open them.
async fn copies(rounds: u64) {
    let mut random = Random::new();
    // A file is begun every MiB.
    let args = ["publish", "--retain", "16M", "--history", "64k"];
    let (place, server) = first(&args).await;
    let (confirmed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let publishing = {
        let (place, confirmed, stop) = (place.clone(), confirmed.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let next = confirmed.load(Ordering::Relaxed);
                let body = numbered(next, 50).concat();
                let (status, _) = post(&place, "/stream?chunk=lines", None, &body).await.expect("it is published");
                assert_eq!(status, 200);
                confirmed.store(next + 50, Ordering::Relaxed);
            }
        })
    };
    let mut copies = Vec::new();
    for number in 0..rounds {
        tokio::time::sleep(Duration::from_millis(20 + random.below(400))).await;
        let before = confirmed.load(Ordering::Relaxed);
        let copy = format!("copy{number}");
        let mut cp = Command::new("cp");
        // It complains of files that were renamed meanwhile.
        cp.args(["-r", STORE[1], &copy]).current_dir(place.folder()).stderr(Stdio::null());
        tokio::task::spawn_blocking(move || cp.status().unwrap()).await.unwrap();
        copies.push((copy, before));
    }
    stop.store(true, Ordering::Relaxed);
    soon("the last publication", publishing).await.unwrap();
    server.stop().await;
    for (copy, many) in copies {
        let mut server = place.rival(&[&["--store", &copy], &args[..]].concat());
        server.ready().await;
        if many > 0 {
            let got = lines(&place, "/stream?from=start", many as usize).await;
            assert!(got == numbered(0, many), "{copy} lacks some of {many} chunks");
        }
        assert_eq!(post(&place, "/stream", None, "more\n").await.unwrap().0, 200);
        server.stop().await;
    }
}
