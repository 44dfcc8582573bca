//! Three nats-servers, each in a network of its own and with a small disk.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use async_nats::{ConnectOptions, jetstream};
use serde_json::Value;
use tokio::{process::Command, time::sleep};

use crate::{
    cluster,
    inside::{self, NATS, PEERS, Port, command, network, tool},
    running::Running,
    within,
};

pub(crate) const NODES: usize = 3;

/// A server's address for its clients.
fn address(node: usize) -> String {
    format!("10.77.2.{}", node + 1)
}

/// One server.
pub(crate) struct Node {
    pub(crate) name: String,
    number: usize,
    pub(crate) peers: Port,
    pub(crate) clients: Port,
    dir: PathBuf,
    /// Unless it is killed.
    running: Option<Running>,
}

impl Node {
    fn new(number: usize, dir: &Path, disk: &str) -> Self {
        let name = format!("n{number}");
        let [peers, clients] = network(&name, [(PEERS, format!("10.77.1.{}", number + 1)), (NATS, address(number))]);
        let dir = dir.join(&name);
        fs::create_dir(&dir).unwrap();
        tool("mount", &["-t", "tmpfs", "-o", &format!("size={disk}"), "tmpfs", dir.to_str().unwrap()]);
        Self { name, number, peers, clients, dir, running: None }
    }

    pub(crate) fn start(&mut self) {
        let routes: Vec<_> = (1..=NODES).map(|node| format!("nats://10.77.1.{node}:6222")).collect();
        let mut server = command(&self.name, cluster::program());
        server.args(["-js", "-a", &address(self.number), "-p", "4222", "-m", "8222", "-n", &self.name, "-sd"]);
        server.arg(&self.dir).args(["--cluster_name", "test", "--cluster", &routes[self.number]]);
        // Clients are to know only the ways that the test has given them.
        server.args(["--routes", &routes.join(","), "--no_advertise"]);
        let log = self.dir.with_extension("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        self.running = Some(Running::start(server.stdout(Stdio::null()).stderr(log)));
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it was started")
    }

    /// Leaves no room on its disk.
    pub(crate) fn fill_disk(&self) {
        let mut ballast = File::create(self.dir.join("ballast")).unwrap();
        let zeros = vec![0; 1 << 20];
        let full = loop {
            if let Err(error) = ballast.write_all(&zeros) {
                break error;
            }
        };
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    pub(crate) fn clear_disk(&self) {
        fs::remove_file(self.dir.join("ballast")).unwrap();
    }

    /// Whether this client (its address) is connected to it.
    pub(crate) async fn has_client(&self, client: &str) -> bool {
        let url = format!("http://{}:8222/connz", address(self.number));
        let asked =
            Command::new("curl").args(["-s", "--max-time", "2", &url]).kill_on_drop(true).output().await.unwrap();
        let answer: Value = serde_json::from_slice(&asked.stdout).unwrap_or_default();
        answer["connections"].as_array().is_some_and(|all| all.iter().any(|one| one["ip"] == client))
    }
}

/// All three.
pub(crate) struct Nodes {
    pub(crate) all: Vec<Node>,
}

impl Nodes {
    /// With disks of that size, as `mount` reads it. They are not started.
    pub(crate) fn new(dir: &Path, disk: &str) -> Self {
        inside::bridges();
        Self { all: (0..NODES).map(|number| Node::new(number, dir, disk)).collect() }
    }

    /// Starts them, until they know each other.
    pub(crate) async fn start(&mut self) {
        let monitor = |node: usize| format!("{}:8222", address(node)).parse().unwrap();
        let asked: Vec<_> = self.all.iter().map(|node| (node.name.clone(), monitor(node.number))).collect();
        self.all.iter_mut().for_each(Node::start);
        while !within("the servers know each other", cluster::is_whole(&asked)).await {
            for node in &mut self.all {
                node.kill();
                fs::remove_dir_all(node.dir.join("jetstream")).unwrap();
            }
            self.all.iter_mut().for_each(Node::start);
        }
    }

    pub(crate) fn named(&mut self, name: &str) -> &mut Node {
        self.all.iter_mut().find(|node| node.name == name).unwrap()
    }
}

/// Their addresses for clients.
pub(crate) fn servers() -> String {
    (0..NODES).map(|node| format!("{}:4222", address(node))).collect::<Vec<_>>().join(",")
}

/// A client of the test's own, on a new connection to one of them that has JetStream now.
pub(crate) async fn jetstream() -> jetstream::Context {
    let servers: Vec<async_nats::ServerAddr> =
        (0..NODES).map(|node| format!("nats://{}:4222", address(node)).parse().unwrap()).collect();
    within("JetStream answers", async {
        loop {
            let options = ConnectOptions::new().connection_timeout(Duration::from_secs(1));
            let options = options.ping_interval(Duration::from_secs(1)).request_timeout(Some(Duration::from_secs(2)));
            if let Ok(client) = options.connect(servers.as_slice()).await {
                let mut context = jetstream::new(client);
                context.set_timeout(Duration::from_secs(2));
                if context.query_account().await.is_ok() {
                    return context;
                }
            }
            // Nobody tells when a cluster has chosen who leads it.
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}

/// Waits until the stream has a leader and every copy of it is up to date; gives the leader.
pub(crate) async fn healthy(stream: &str) -> String {
    let context = jetstream().await;
    cluster::healthy(&context, stream).await
}

/// The stream's leader, if there is one now.
pub(crate) async fn leader(context: &jetstream::Context, stream: &str) -> Option<String> {
    context.get_stream(stream).await.ok()?.cached_info().cluster.as_ref()?.leader.clone()
}
