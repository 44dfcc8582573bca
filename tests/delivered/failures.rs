//! A command that fails: each viewer gets every line that it printed, and then learns that it broke off.

use std::{fs::File, process::Command};

use futures_util::future::join_all;
use h3cast::{
    feed::{End, FeedError},
    format::frames::{Frame, FrameDecoder},
};

use crate::{
    busy::Busy,
    common::soon,
    serving::Serving,
    viewers::{ALL, Audience, Got, Host},
};

const RUNS: usize = 50;
const PRINTS: &str = "seq 200; echo 'error: the last line'; exit 1";

fn printed() -> Vec<u8> {
    let numbers: String = (1..=200).map(|number| format!("{number}\n")).collect();
    format!("{numbers}error: the last line\n").into_bytes()
}

/// Feeds `f0`, `f1`, … of the same command.
fn feeds(count: usize, command: &str) -> Vec<String> {
    (0..count).map(|number| format!("f{number}=exec:{command}")).collect()
}

fn paths(count: usize, query: &str) -> Vec<String> {
    (0..count).map(|number| format!("/stream/f{number}{query}")).collect()
}

/// Waits until every feed has failed.
async fn all_failed(server: &Serving) {
    let connection = server.connect().await;
    soon("the commands end", async {
        while !server.feeds(&connection).await.iter().all(|feed| feed["state"] == "failed") {
            // /feeds does not say when it changes.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// `raw` has no words for the failure: all bytes, and then the stream breaks off.
fn raw(got: &Got) -> Option<String> {
    let wanted = printed();
    if got.bytes != wanted {
        let lines = got.bytes.iter().filter(|byte| **byte == b'\n').count();
        return Some(format!("{lines} of 201 lines, {} of {} bytes: {:?}", got.bytes.len(), wanted.len(), got.cut));
    }
    got.cut.is_none().then(|| "it looks whole".to_owned())
}

async fn none_lost(server: &Serving, count: usize, query: &str, wrong: impl Fn(&Got) -> Option<String> + Copy) {
    let audiences = join_all(ALL.map(|over| {
        let (host, paths) = (Host::from(server), paths(count, query));
        async move { Audience::gather(&host, over, &paths).await }
    }))
    .await;
    let lost = join_all(audiences.into_iter().map(|audience| audience.judge(wrong))).await.concat();
    assert!(lost.is_empty(), "{} of {}:\n{}", lost.len(), count * ALL.len(), lost.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn late_viewers_get_all_of_it() {
    let server = Serving::start(|_| feeds(RUNS, &format!("sleep 1; {PRINTS}")));
    let _busy = Busy::cores();
    all_failed(&server).await;
    none_lost(&server, RUNS, "?from=start", raw).await;
    server.stop();
}

/// The commands print when all viewers are there.
#[tokio::test(flavor = "multi_thread")]
async fn live_viewers_get_all_of_it() {
    let server = Serving::start(|dir| {
        assert!(Command::new("mkfifo").arg(dir.join("gate")).status().unwrap().success());
        feeds(RUNS, &format!(": < gate; {PRINTS}"))
    });
    let _busy = Busy::cores();
    let gathered = ALL.map(|over| {
        let (host, paths) = (Host::from(&server), paths(RUNS, ""));
        async move { Audience::gather(&host, over, &paths).await }
    });
    let audiences = join_all(gathered).await;
    let gate = server.dir().join("gate");
    let open = soon("the commands read", tokio::task::spawn_blocking(|| File::options().write(true).open(gate))).await;
    let lost = join_all(audiences.into_iter().map(|audience| audience.judge(raw))).await.concat();
    assert!(lost.is_empty(), "{} of {}:\n{}", lost.len(), RUNS * ALL.len(), lost.join("\n"));
    drop(open.unwrap().unwrap());
    server.stop();
}

/// The other formats say why, and end cleanly then.
#[tokio::test(flavor = "multi_thread")]
async fn sse_and_frames_say_why() {
    const FEW: usize = 5;
    let server = Serving::start(|_| feeds(FEW, PRINTS));
    let _busy = Busy::cores();
    all_failed(&server).await;
    none_lost(&server, FEW, "?from=start&format=frames", |got| {
        let mut decoder = FrameDecoder::new(1 << 20);
        decoder.push(&got.bytes);
        let (mut bytes, mut end) = (Vec::new(), None);
        while let Some(frame) = decoder.pop().unwrap() {
            match frame {
                Frame::Chunk { bytes: chunk, .. } => bytes.extend_from_slice(&chunk),
                Frame::End(End::Failed(FeedError(why))) => end = Some(why),
                _ => {}
            }
        }
        let whole = bytes == printed() && end.as_deref().is_some_and(|why| why.contains('1')) && got.cut.is_none();
        (!whole).then(|| format!("{} bytes, {end:?}, {:?}", bytes.len(), got.cut))
    })
    .await;
    none_lost(&server, FEW, "?from=start&format=sse", |got| {
        let text = String::from_utf8_lossy(&got.bytes);
        let events = text.matches("\ndata: ").count();
        let whole = events == 202
            && text.contains("\ndata: error: the last line\n")
            && text.contains("event: end\n")
            && got.cut.is_none();
        (!whole).then(|| format!("{events} events, {:?}: …{}", got.cut, &text[text.len().saturating_sub(200)..]))
    })
    .await;
    server.stop();
}
