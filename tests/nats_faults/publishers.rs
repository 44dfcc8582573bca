//! Those who publish, and what was acknowledged to them.

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, StatusCode};
use tokio::{
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use crate::{
    edges::{Address, TOKEN},
    ledger::Truth,
    reading::Client,
    schedule::Random,
};

/// How long an answer is waited for.
const ANSWER: Duration = Duration::from_secs(20);

/// What became of the lines of a publisher: `NAME NUMBER ` and more.
#[derive(Debug)]
pub(crate) struct Published {
    name: String,
    /// For each number whether it was acknowledged.
    acknowledged: Vec<bool>,
}

fn line(name: &str, number: usize, length: usize) -> String {
    format!("{name} {number} {}\n", "x".repeat(length))
}

/// Publishes a few lines at a time under a key, at the next server when that fails, until they are acknowledged.
pub(crate) async fn with_keys(
    edges: Arc<Vec<Address>>,
    number: usize,
    mut random: Random,
    truth: Arc<Truth>,
    pause: Duration,
    enough: Arc<AtomicBool>,
) -> Published {
    let (name, mut client, mut at) = (format!("keys{number}"), Client::default(), number);
    let mut acknowledged = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let count = 1 + random.below(8) as usize;
        let first = acknowledged.len();
        let lines: String = (first..first + count).map(|at| line(&name, at, random.below(600) as usize)).collect();
        truth.begun.fetch_add(count as u64, Ordering::Relaxed);
        publish(&mut client, &edges, &mut at, truth.feed, &format!("{name}-{first}"), &lines).await;
        acknowledged.resize(first + count, true);
        sleep(pause).await;
    }
    Published { name, acknowledged }
}

/// Publishes lines under a key until they are acknowledged, each time at the next server.
pub(crate) async fn publish(
    client: &mut Client,
    edges: &[Address],
    at: &mut usize,
    feed: &str,
    key: &str,
    lines: &str,
) {
    loop {
        let tried = timeout(ANSWER, async {
            let connection = client.connection(edges, *at).await.ok()?;
            let request = Request::post(edges[*at % edges.len()].uri(&format!("/stream/{feed}?chunk=lines")))
                .header("authorization", format!("Bearer {TOKEN}"))
                .header("idempotency-key", key);
            let (mut body, answer) = connection.send_request(request.body(()).unwrap()).await.ok()?;
            body.send(lines.to_owned().into()).await.ok()?;
            body.finish().await.ok()?;
            Some(answer.await.ok()?.status)
        });
        match tried.await {
            Ok(Some(StatusCode::OK)) => return,
            // Another request with the key, which was lost, has not ended yet.
            Ok(Some(status)) => assert!([503, 409].contains(&status.as_u16()), "{status}"),
            Ok(None) | Err(_) => *client = Client::default(),
        }
        *at += 1;
        sleep(Duration::from_millis(50)).await;
    }
}

/// Publishes a line at a time without a key, with curl. What was not acknowledged is not sent again.
pub(crate) async fn without_keys(
    edges: Arc<Vec<Address>>,
    number: usize,
    truth: Arc<Truth>,
    pause: Duration,
    enough: Arc<AtomicBool>,
) -> Published {
    let (name, mut at) = (format!("plain{number}"), number);
    let mut acknowledged = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        let line = line(&name, acknowledged.len(), 200);
        truth.begun.fetch_add(1, Ordering::Relaxed);
        let token = format!("Authorization: Bearer {TOKEN}");
        let args = ["-f", "--max-time", "20", "-H", &token, "-T", "-"];
        let path = format!("/stream/{}?chunk=lines", truth.feed);
        let mut curl = edges[at % edges.len()].curl(&args, &path).stdin(Stdio::piped()).spawn().unwrap();
        // An error means that curl has ended, and shows in its exit code.
        let _ = curl.stdin.take().unwrap().write_all(line.as_bytes()).await;
        let done = curl.wait().await.unwrap().success();
        acknowledged.push(done);
        at += usize::from(!done);
        sleep(pause).await;
    }
    Published { name, acknowledged }
}

impl Published {
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.iter().filter(|acknowledged| **acknowledged).count()
    }

    /// What is wrong with what is kept of it: all that was acknowledged is there once and in order, and nothing
    /// else twice. Of a stream that drops its oldest, the end.
    pub(crate) fn wrong(&self, kept: &[(u64, Vec<u8>)], dropped: bool) -> Vec<String> {
        let mut places: HashMap<usize, Vec<u64>> = HashMap::new();
        let (mut wrong, mut before) = (Vec::new(), None);
        for (seq, bytes) in kept {
            let text = String::from_utf8_lossy(bytes);
            let mut words = text.split(' ');
            if words.next() != Some(&self.name) {
                continue;
            }
            let number = words.next().unwrap().parse().unwrap();
            if before.is_some_and(|before| number < before) {
                wrong.push(format!("{}: {number} after {before:?}, at {seq}", self.name));
            }
            before = Some(number);
            places.entry(number).or_default().push(*seq);
        }
        let first = if dropped { places.keys().min().copied().unwrap_or_default() } else { 0 };
        for (number, acknowledged) in self.acknowledged.iter().enumerate().skip(first) {
            let times = places.get(&number).map_or(0, Vec::len);
            if times > 1 || (times == 0 && *acknowledged) {
                wrong.push(format!("{} {number}, acknowledged: {acknowledged}, is there {times} times", self.name));
            }
        }
        wrong
    }
}
