//! Commands that print without a pause.

use std::time::Duration;

use h3cast::{
    feed::Gap,
    format::frames::{Frame, FrameDecoder},
};

use crate::{
    ALONE, Frames, MIB,
    common::soon,
    serving::{Reading, Serving},
};

/// A command that prints as fast as it can, in each way of treating those who are too slow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_floods() {
    let _alone = ALONE.lock().await;
    for lag in ["skip", "disconnect", "block"] {
        let serving =
            Serving::start(|_| vec!["exec:yes 0123456789abcde", "--chunk=bytes", "--history=8M", "--lag", lag]);
        let (slow, fast) = (serving.connect().await, serving.connect().await);
        let before = serving.memory();
        let uri = serving.uri("/stream?format=frames");
        // It has joined, and reads nothing.
        let stopped = Reading::open(&slow, &uri, false).await;
        if lag == "block" {
            // The producer stands still when all that may be kept for the slow one is full.
            let bytes = standstill(&serving, &fast).await;
            let grown = serving.memory().saturating_sub(before) / MIB;
            println!("block: stands at {} MiB, grown by {grown} MiB", bytes / MIB);
            // The ring, the windows of both sides, and what the command made before anybody viewed it.
            assert!(grown < 40, "grew by {grown} MiB");
            // It goes on as soon as the slow one does.
            let mut reading = Frames { reading: stopped, decoder: FrameDecoder::new(MIB) };
            let mut read = 0;
            let mut next = None;
            while read < 32 * MIB {
                if let Some(Frame::Chunk { seq, bytes: chunk, .. }) = reading.next().await {
                    assert!(next.is_none_or(|next| next == seq), "{next:?} {seq}");
                    next = Some(seq + 1);
                    read += chunk.len() as u64;
                }
            }
            serving.until(&fast, "bytes", |now| now > bytes + 8 * MIB).await;
            assert_eq!(serving.feeds(&fast).await[0]["skipped"], 0);
            drop((reading, slow));
        } else {
            // One that reads gets what is made, in order, beside it.
            let mut frames = Frames::open(&fast, &uri, true).await;
            let (mut read, mut next, mut gaps) = (0, None, 0);
            while read < 32 * MIB {
                match frames.next().await {
                    Some(Frame::Chunk { seq, bytes, .. }) => {
                        assert!(next.is_none_or(|next| next == seq), "{next:?} {seq}");
                        next = Some(seq + 1);
                        read += bytes.len() as u64;
                    }
                    // The command may be faster than anybody; then it is told.
                    Some(Frame::Gap(Gap { from, missing, restarted: false })) => {
                        assert!(next.is_none_or(|next| next == from), "{next:?} {from}");
                        next = Some(from + missing);
                        gaps += 1;
                        if lag == "disconnect" {
                            assert_eq!(frames.next().await, None);
                            frames = Frames::open(&fast, &uri, true).await;
                            next = None;
                        }
                    }
                    Some(Frame::Begin { .. }) => {}
                    other => panic!("{other:?}"),
                }
            }
            let grown = serving.memory().saturating_sub(before) / MIB;
            println!("{lag}: {gaps} gaps in {} MiB, grown by {grown} MiB", read / MIB);
            assert!(grown < 64, "grew by {grown} MiB");
            // The slow one is told of what it missed when it reads on: a gap, and then the end or more.
            let mut slow = Frames { reading: stopped, decoder: FrameDecoder::new(MIB) };
            let gap = loop {
                match slow.next().await.expect("the gap is told first") {
                    Frame::Gap(gap) => break gap,
                    Frame::Begin { .. } | Frame::Chunk { .. } | Frame::Heartbeat => {}
                    other => panic!("{other:?}"),
                }
            };
            assert!(gap.missing > 0);
            match slow.next().await {
                None => assert_eq!(lag, "disconnect"),
                // It may have been overtaken once more on the way.
                Some(Frame::Chunk { seq: next, .. } | Frame::Gap(Gap { from: next, .. })) => {
                    assert_eq!((lag, next), ("skip", gap.from + gap.missing));
                }
                other => panic!("{other:?}"),
            }
        }
        drop(fast);
        println!("{lag}: stopped in {:?}", serving.stop());
    }
}

/// Waits until a feed's producer has published nothing for a while, and returns how many bytes there are then.
async fn standstill(serving: &Serving, connection: &h3cast::client::Connection) -> u64 {
    const STILL: u32 = 10;
    let (mut last, mut same) = (0, 0);
    soon("the producer stands still", async {
        while same < STILL {
            // That nothing happens can only be seen by looking for some time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = serving.feeds(connection).await[0]["bytes"].as_u64().unwrap();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    })
    .await
}

/// A command may write anything to standard error; it is logged line by line and not gathered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_floods_standard_error() {
    let _alone = ALONE.lock().await;
    for flood in ["yes on standard error", "cat /dev/zero"] {
        let command = format!("exec:{flood} >&2 & while :; do echo here; sleep 0.05; done");
        let serving = Serving::start(|_| vec![command.as_str(), "--stderr", "log", "--log", "warn"]);
        let connection = serving.connect().await;
        let mut reading = Reading::open(&connection, &serving.uri("/stream?from=start"), false).await;
        assert!(reading.line().await.contains("here\n"));
        let before = serving.memory();
        for _ in 0..40 {
            reading.line().await;
        }
        let grown = serving.memory().saturating_sub(before) / MIB;
        println!("`{flood}`: grown by {grown} MiB in two seconds");
        assert!(grown < 16, "`{flood}`: grew by {grown} MiB");
        drop((reading, connection));
        serving.stop();
    }
}
