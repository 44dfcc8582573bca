//! What connections set aside in memory. The memory is that of the process.
#![cfg(all(target_os = "linux", target_pointer_width = "64"))]

mod common;

use std::time::Duration;

use common::{
    TestServer,
    raw::{Raw, request, varint},
    soon,
};
use h3cast_transport::{Limits, admission::Counters};
use quinn::SendStream;

const CONNECTIONS: u64 = 8;
/// A type of streams that is reserved to be unknown (RFC 9114 §6.2.3).
const UNKNOWN: u64 = 0x21;

/// The resident memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of memory");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Opens enough streams each way to be allowed as many as any.
async fn greedy(server: &TestServer) -> (Raw, Vec<SendStream>) {
    let (raw, control) = Raw::greeted(server).await;
    let mut open = vec![control];
    for _ in 0..4 {
        open.push(raw.uni(&varint(UNKNOWN)).await);
    }
    for _ in 0..4 {
        let (mut send, mut recv) = soon("a stream", raw.conn.open_bi()).await.unwrap();
        send.write_all(&request("GET", "/")).await.unwrap();
        send.finish().unwrap();
        soon("an answer", recv.read_to_end(10_000)).await.unwrap();
    }
    (raw, open)
}

async fn is_set_aside(counters: &Counters, is: impl Fn(u64) -> bool) {
    let come = async {
        while !is(counters.snapshot().set_aside) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("what is set aside", come).await;
}

/// A connection has tables of all streams that it may have, whether or not its client opens them.
#[tokio::test]
async fn what_is_set_aside_for_streams_is_counted() {
    let mut counters = Counters::default();
    let server = TestServer::start(|builder, _| {
        counters = builder.admission().clone();
        builder.limits(Limits::default().streams(65_536))
    })
    .await;
    // What the process needs once.
    let first = greedy(&server).await;
    is_set_aside(&counters, |bytes| bytes > 8 << 20).await;
    let (before, one) = (memory(), counters.snapshot().set_aside);
    let mut all = vec![first];
    for _ in 0..CONNECTIONS {
        all.push(greedy(&server).await);
    }
    is_set_aside(&counters, |bytes| bytes == (CONNECTIONS + 1) * one).await;
    let (grown, counted) = (memory().saturating_sub(before), CONNECTIONS * one);
    // Allocators keep some of the smaller tables that these began as.
    assert!((counted / 10 * 9..counted / 2 * 3).contains(&grown), "{grown} for {counted}");
    all.iter().for_each(|(raw, _)| raw.conn.close(0_u8.into(), b""));
    is_set_aside(&counters, |bytes| bytes == 0).await;
}
