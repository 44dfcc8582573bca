//! Faults, one after another, as a seed has it.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::{Instant, sleep};

use crate::{edges::EDGES, is_long, nodes::NODES, scene::Scene};

/// Numbers that a seed determines (SplitMix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// Of the seed in `H3CAST_FAULTS_SEED`, or one that is printed.
    pub(crate) fn given() -> Self {
        let given = env::var("H3CAST_FAULTS_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seed = given.unwrap_or(if is_long() { now } else { 17 });
        eprintln!("H3CAST_FAULTS_SEED={seed}");
        Self(seed)
    }

    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// Others, for somebody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.number())
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at as u64 + 1) as usize);
        }
    }
}

/// What goes wrong, with which node or edge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A node is killed, and started again.
    Killed(usize),
    /// A node stands still.
    Still(usize),
    /// A node stands still most of the time, so that its copies of the streams lag.
    Lags(usize),
    /// A node doesn't reach the others.
    NoPeers(usize),
    /// A node doesn't reach its clients.
    NoClients(usize),
    /// A node and the one after it don't reach each other.
    Apart(usize),
    /// What goes to a node from the others is delayed.
    Narrow(usize),
    /// There is no room on a node's disk.
    DiskFull(usize),
    /// All nodes are started again, one after another.
    Rolling,
    /// An edge doesn't reach NATS.
    NoNats(usize),
    /// An edge is killed, and started again.
    EdgeKilled(usize),
    /// An edge stands still.
    EdgeStill(usize),
}

/// Each kind of fault once, in some order.
fn round(random: &mut Random) -> Vec<Fault> {
    let (node, edge) = (random.below(NODES as u64) as usize, random.below(EDGES as u64) as usize);
    // Not the same one for all.
    let of = |base: usize, more: usize| (base + more) % 3;
    let mut faults = vec![
        Fault::Killed(node),
        Fault::Still(of(node, 1)),
        Fault::Lags(of(node, 2)),
        Fault::NoPeers(node),
        Fault::NoClients(of(node, 1)),
        Fault::Apart(of(node, 2)),
        Fault::Narrow(node),
        Fault::DiskFull(of(node, 1)),
        Fault::Rolling,
        Fault::NoNats(edge),
        Fault::EdgeKilled(of(edge, 1)),
        Fault::EdgeStill(of(edge, 2)),
    ];
    random.shuffle(&mut faults);
    faults
}

/// Lets one fault after another strike until `enough` holds, and says which.
pub(crate) async fn run(scene: &mut Scene, random: &mut Random, longest: Duration, enough: impl Fn(Duration) -> bool) {
    let began = Instant::now();
    loop {
        for fault in round(random) {
            if enough(began.elapsed()) {
                return;
            }
            let time = longest.mul_f64(0.3 + random.below(70) as f64 / 100.0);
            let (since, past) = (began.elapsed().as_secs_f64(), scene.watch.past());
            eprintln!("{since:>6.1} s, {past:>5} past reads: {fault:?} for {time:.1?}");
            strike(scene, fault, time).await;
            scene.healthy().await;
        }
    }
}

/// Lets a fault strike for a time, and takes it back.
pub(crate) async fn strike(scene: &mut Scene, fault: Fault, time: Duration) {
    match fault {
        Fault::Killed(node) => {
            scene.nodes.all[node].kill();
            sleep(time).await;
            scene.nodes.all[node].start();
        }
        Fault::Still(node) => {
            scene.nodes.all[node].running().stop();
            sleep(time).await;
            scene.nodes.all[node].running().cont();
        }
        Fault::Lags(node) => {
            let until = Instant::now() + time;
            while Instant::now() < until {
                scene.nodes.all[node].running().stop();
                sleep(Duration::from_millis(300)).await;
                scene.nodes.all[node].running().cont();
                sleep(Duration::from_millis(40)).await;
            }
        }
        Fault::NoPeers(node) => {
            scene.nodes.all[node].peers.cut();
            sleep(time).await;
            scene.nodes.all[node].peers.mend();
        }
        Fault::NoClients(node) => {
            scene.nodes.all[node].clients.cut();
            sleep(time).await;
            scene.nodes.all[node].clients.mend();
        }
        Fault::Apart(node) => {
            let two = [node, (node + 1) % NODES];
            two.iter().for_each(|node| scene.nodes.all[*node].peers.apart(true));
            sleep(time).await;
            two.iter().for_each(|node| scene.nodes.all[*node].peers.apart(false));
        }
        Fault::Narrow(node) => {
            scene.nodes.all[node].peers.narrow();
            sleep(time).await;
            scene.nodes.all[node].peers.widen();
        }
        Fault::DiskFull(node) => {
            scene.nodes.all[node].fill_disk();
            sleep(time).await;
            // It turns JetStream off, and has it again when it is started.
            scene.nodes.all[node].clear_disk();
            scene.nodes.all[node].kill();
            scene.nodes.all[node].start();
        }
        Fault::Rolling => {
            for node in 0..NODES {
                scene.nodes.all[node].kill();
                scene.nodes.all[node].start();
                scene.healthy().await;
            }
        }
        Fault::NoNats(edge) => {
            scene.edges[edge].nats.cut();
            sleep(time).await;
            scene.edges[edge].nats.mend();
        }
        Fault::EdgeKilled(edge) => {
            scene.edges[edge].kill();
            sleep(time).await;
            scene.edges[edge].start().await;
        }
        Fault::EdgeStill(edge) => {
            scene.edges[edge].running().stop();
            sleep(time).await;
            scene.edges[edge].running().cont();
        }
    }
}
