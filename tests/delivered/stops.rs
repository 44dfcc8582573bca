//! A server that stops: each viewer gets what was published before, and sees that there would be more.

use std::io::Write;

use futures_util::future::join_all;

use crate::{
    busy::Busy,
    serving::Serving,
    viewers::{ALL, Audience, Host},
};

const VIEWERS: usize = 10;
const LINES: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn each_viewer_gets_what_was_published_before() {
    let mut server = Serving::start(|_| vec!["-"]);
    let _busy = Busy::cores();
    let raw = vec!["/stream".to_owned(); VIEWERS];
    let frames = vec!["/stream?format=frames".to_owned(); 2];
    let audiences = ALL.map(|over| {
        let (host, raw, frames) = (Host::from(&server), &raw, &frames);
        async move { (Audience::gather(&host, over, raw).await, Audience::gather(&host, over, frames).await) }
    });
    let audiences = join_all(audiences).await;
    let connection = server.connect().await;
    let lines: String = (0..LINES).map(|number| format!("line {number}\n")).collect();
    server.stdin.as_mut().unwrap().write_all(lines.as_bytes()).unwrap();
    server.until(&connection, "chunks", |chunks| chunks == LINES as u64).await;
    // Standard input stays open: what ends the feed is the server's end.
    let _stdin = server.stdin.take();
    let stopped = tokio::task::spawn_blocking(|| server.stop());
    let mut lost = Vec::new();
    for (raw, frames) in audiences {
        lost.extend(
            raw.judge(|got| {
                let whole = got.bytes == lines.as_bytes() && got.cut.is_some();
                (!whole).then(|| format!("{} of {} bytes, {:?}", got.bytes.len(), lines.len(), got.cut))
            })
            .await,
        );
        lost.extend(
            frames
                .judge(|got| {
                    // The last line's bytes come last, as there is no end to tell of.
                    (!got.bytes.ends_with(b"line 499\n")).then(|| format!("{} bytes, {:?}", got.bytes.len(), got.cut))
                })
                .await,
        );
    }
    assert!(lost.is_empty(), "{} lost:\n{}", lost.len(), lost.join("\n"));
    stopped.await.unwrap();
}
