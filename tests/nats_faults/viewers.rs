//! Those who read feeds: viewers from the beginning to the end, and readers of the past from anywhere.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    edges::Address,
    ledger::{Ledger, Truth},
    reading::{ALL, Client, Over},
    schedule::Random,
};

/// The last line of each feed.
pub(crate) const LAST: &[u8] = b"the last\n";

/// How long a reader of what is there already waits at one server.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all of them share.
#[derive(Default)]
pub(crate) struct Watch {
    /// Slow ones are slow until then.
    pub(crate) hurry: AtomicBool,
    /// Readers end then.
    pub(crate) enough: AtomicBool,
    /// How often one was lost, or refused.
    pub(crate) lost: AtomicUsize,
    /// How often the past was read.
    pub(crate) past: AtomicUsize,
    /// Viewers who have not seen the last line yet: which number comes next, and whether they were told to wait.
    behind: Mutex<BTreeMap<String, (u64, bool)>>,
}

impl Watch {
    pub(crate) fn past(&self) -> usize {
        self.past.load(Ordering::Relaxed)
    }

    pub(crate) fn behind(&self) -> BTreeMap<String, (u64, bool)> {
        self.behind.lock().unwrap().clone()
    }
}

/// Views a feed to its last line: at the next server when one is lost. Slow ones pause after each chunk.
pub(crate) async fn view(
    edges: Arc<Vec<Address>>,
    mut at: usize,
    over: Over,
    truth: Arc<Truth>,
    pause: Option<Duration>,
    watch: Arc<Watch>,
) -> Ledger {
    let begins = truth.max_messages.is_none().then_some(0);
    let who = format!("viewer {at} over {over:?}{}", if pause.is_some() { ", slow" } else { "" });
    let mut ledger = Ledger::new(&truth, who.clone(), begins);
    loop {
        let path = format!("/stream/{}?from={}", truth.feed, ledger.from());
        if let Ok(mut reading) = Client::default().open(&edges, at, over, &path).await {
            while let Ok(Some(frame)) = reading.next().await {
                let bytes = ledger.take(frame);
                watch.behind.lock().unwrap().insert(who.clone(), (ledger.next(), ledger.stalled));
                let Some(bytes) = bytes else { continue };
                if bytes == LAST {
                    watch.behind.lock().unwrap().remove(&who);
                    return ledger;
                }
                match pause {
                    Some(pause) if !watch.hurry.load(Ordering::Relaxed) => sleep(pause).await,
                    _ => {}
                }
            }
        }
        watch.lost.fetch_add(1, Ordering::Relaxed);
        at += 1;
        sleep(Duration::from_millis(200)).await;
    }
}

/// Reads some of the past, again and again, from anywhere in it. Half of that is just before the head, where a
/// server that lags has the least.
pub(crate) async fn read_past(edges: Arc<Vec<Address>>, mut random: Random, truth: Arc<Truth>, watch: Arc<Watch>) {
    let mut client = Client::default();
    while !watch.enough.load(Ordering::Relaxed) {
        let end = truth.end();
        // There is not enough yet.
        if end < 300 || truth.epoch().is_none() {
            sleep(Duration::from_millis(50)).await;
            continue;
        }
        let oldest = truth.max_messages.map_or(0, |max| end.saturating_sub(max + max / 4));
        let recent = end.saturating_sub(1500).max(oldest);
        let begins = [oldest, recent][random.below(2) as usize];
        let next = begins + random.below(end - 100 - begins);
        // About half of the numbers are other feeds' where there are any.
        let most = if truth.is_sparse() { (end - next) / 8 } else { end - next };
        let wanted = 1 + random.below(most.min(150));
        let over = ALL[random.below(3) as usize];
        let mut at = random.below(edges.len() as u64) as usize;
        let who = format!("reader of {wanted} from {next} of {end} over {over:?} at {at}");
        let mut ledger = Ledger::new(&truth, who, Some(next));
        while ledger.chunks < wanted && !watch.enough.load(Ordering::Relaxed) {
            let left = wanted - ledger.chunks;
            let path = format!("/stream/{}?from={}&limit={left}", truth.feed, ledger.from());
            if let Ok(mut reading) = client.open(&edges, at, over, &path).await {
                reading.patience = PATIENCE;
                while let Ok(Some(frame)) = reading.next().await {
                    ledger.take(frame);
                    // The end of the response may take its time where the server is stopped.
                    if ledger.chunks == wanted {
                        break;
                    }
                }
            }
            if ledger.chunks < wanted {
                watch.lost.fetch_add(1, Ordering::Relaxed);
                at += 1;
                sleep(Duration::from_millis(100)).await;
            }
        }
        if ledger.chunks == wanted {
            watch.past.fetch_add(1, Ordering::Relaxed);
        }
    }
}
