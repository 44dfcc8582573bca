//! A cluster of three real nats-servers on loopback, and cuttable ways to them.

use std::{
    net::{SocketAddr, TcpListener as StdListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use async_nats::jetstream::{self, consumer::pull, stream::ConsumerErrorKind};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{common::soon, within};

/// The server's program: the one that `tests/run` has installed, or one on the PATH.
pub(crate) fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("H3CAST_NATS_SERVER") {
        return path.into();
    }
    let target = Path::new(env!("CARGO_BIN_EXE_h3cast")).parent().unwrap().parent().unwrap();
    let installed = target.join("foreign-venv/bin/nats-server");
    if installed.exists() { installed } else { "nats-server".into() }
}

/// Whether it is of such a version, as `2.10.`.
pub(crate) fn is_version(version: &str) -> bool {
    let told = Command::new(program()).arg("--version").output().unwrap();
    String::from_utf8(told.stdout).unwrap().starts_with(&format!("nats-server: v{version}"))
}

/// Ports that are free now, and are no other test's of this process. The system gives none of them to connections, so
/// that those of a server that is killed stay free until it is started again.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes begin at different ones, and each takes those that follow.
    let begin = std::process::id().wrapping_mul(997);
    std::array::from_fn(|_| {
        loop {
            let next = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into());
            let port = FIRST + (next % u32::from(COUNT)) as u16;
            if StdListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// One server.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) port: u16,
    /// Where one of a cluster tells how it is.
    monitor: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Node {
    pub(crate) fn start(&mut self) {
        let child = Command::new(program())
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed by `tests/run python`, or is on the PATH");
        self.child = Some(child);
    }

    /// Has it do nothing any more, until it is killed or resumes.
    pub(crate) fn pause(&self) {
        let id = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
    }

    /// Has it continue.
    pub(crate) fn resume(&self) {
        let id = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
    }

    /// Waits until it knows that there is no leader of all streams, as one of a cluster without quorum.
    pub(crate) async fn is_leaderless(&self) {
        within("it has no leader", async {
            let address = ([127, 0, 0, 1], self.monitor).into();
            while !jetstream_of(address).await.is_ok_and(|told| told["meta_cluster"]["leader"].is_null()) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }

    /// Has it read its configuration again, as `nats-server --signal reload` does.
    pub(crate) fn reload(&self) {
        let id = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Three servers that know each other.
    pub(crate) async fn start_whole() -> Self {
        let mut cluster = Self::start(3);
        cluster.whole().await;
        cluster
    }

    /// Three servers, or one alone.
    pub(crate) fn start(size: usize) -> Self {
        Self::start_with(size, &[])
    }

    /// The same with arguments of the test's.
    pub(crate) fn start_with(size: usize, more: &[String]) -> Self {
        let ports = free_ports();
        let routes = Self::routes(&ports, size);
        let ways: Vec<_> = (0..size).map(|_| routes.clone()).collect();
        Self::start_routed(ports, &ways, more)
    }

    fn routes(ports: &[u16; 9], size: usize) -> Vec<String> {
        ports[3..3 + size].iter().map(|port| format!("nats://127.0.0.1:{port}")).collect()
    }

    /// Three servers, and the ways between the first one and its peers, by which they know each other.
    pub(crate) async fn start_cuttable() -> (Self, Vec<Way>) {
        let ports: [u16; 9] = free_ports();
        let direct = Self::routes(&ports, 3);
        let mut ways = Vec::new();
        for port in &ports[3..6] {
            ways.push(Way::to(*port).await);
        }
        let by_way: Vec<_> = ways.iter().map(|way| format!("nats://127.0.0.1:{}", way.port)).collect();
        let of_peers = vec![by_way[0].clone(), direct[1].clone(), direct[2].clone()];
        let mut routes = vec![by_way, of_peers.clone(), of_peers];
        for (routes, way) in routes.iter_mut().zip(&ways) {
            // What others hear of it.
            routes.push(format!("127.0.0.1:{}", way.port));
        }
        let mut cluster = Self::start_routed(ports, &routes, &[]);
        cluster.whole().await;
        (cluster, ways)
    }

    /// With the routes that each of them has, and after those where others are told that it is, if that is special.
    fn start_routed(ports: [u16; 9], routes: &[Vec<String>], more: &[String]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let size = routes.len();
        let own = Self::routes(&ports, size);
        let mut nodes = Vec::new();
        for at in 0..size {
            let name = format!("n{at}");
            let mut args = vec!["-js".into(), "-a".into(), "127.0.0.1".into(), "-p".into(), ports[at].to_string()];
            args.extend(["-n".into(), name.clone(), "-sd".into(), dir.path().join(&name).display().to_string()]);
            args.extend_from_slice(more);
            if size > 1 {
                args.extend(["--cluster_name".into(), "test".into(), "--cluster".into(), own[at].clone()]);
                args.extend(["-m".into(), ports[6 + at].to_string()]);
                // Clients are to know only the ways that the test has given them.
                args.extend(["--routes".into(), routes[at][..size].join(","), "--no_advertise".into()]);
                if let Some(told) = routes[at].get(size) {
                    args.extend(["--cluster_advertise".into(), told.clone()]);
                }
            }
            let mut node = Node { name, port: ports[at], monitor: ports[6 + at], args, child: None };
            node.start();
            nodes.push(node);
        }
        Self { nodes, dir }
    }

    /// Waits until each of them takes connections.
    pub(crate) async fn listens(&self) {
        for node in &self.nodes {
            listens(node.port).await;
        }
    }

    /// Waits until all three are peers; starts over if one is left out.
    async fn whole(&mut self) {
        let asked: Vec<_> =
            self.nodes.iter().map(|node| (node.name.clone(), ([127, 0, 0, 1], node.monitor).into())).collect();
        while !within("the servers know each other", is_whole(&asked)).await {
            for at in 0..self.nodes.len() {
                self.nodes[at].kill();
                std::fs::remove_dir_all(self.folder(at)).unwrap();
            }
            self.nodes.iter_mut().for_each(Node::start);
        }
    }

    /// Where a server stores its streams.
    pub(crate) fn folder(&self, at: usize) -> PathBuf {
        self.dir.path().join(&self.nodes[at].name)
    }

    pub(crate) fn addresses(&self) -> String {
        let all: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        all.join(",")
    }

    /// A client of the test's own, once JetStream answers.
    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        let servers: Vec<async_nats::ServerAddr> =
            self.nodes.iter().map(|node| format!("nats://127.0.0.1:{}", node.port).parse().unwrap()).collect();
        soon("JetStream answers", async {
            loop {
                if let Ok(client) = async_nats::connect(servers.as_slice()).await {
                    let context = jetstream::new(client);
                    if context.query_account().await.is_ok() {
                        return context;
                    }
                }
                // Nobody tells when a cluster has chosen who leads it.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
    }
}

/// Waits until the one of these servers (their names, and where they tell how they are) that leads JetStream has the
/// others as peers. Not so if it has left out one: nats-server 2.10 does that at times, when the third one answers while
/// the second one is being added, and never adds it later. Then nothing can have three replicas.
pub(crate) async fn is_whole(servers: &[(String, SocketAddr)]) -> bool {
    // Adding them all takes less than a second, once there is a leader.
    const LEFT_OUT: Duration = Duration::from_secs(10);
    let mut short: Option<Instant> = None;
    loop {
        let mut peers = None;
        for (name, address) in servers {
            if let Ok(told) = jetstream_of(*address).await
                && told["meta_cluster"]["leader"] == name.as_str()
            {
                peers = Some(1 + told["meta_cluster"]["replicas"].as_array().map_or(0, Vec::len));
            }
        }
        match peers {
            Some(peers) if peers == servers.len() => return true,
            Some(peers) if short.get_or_insert_with(Instant::now).elapsed() > LEFT_OUT => {
                eprintln!("nats-server has formed a cluster of {peers} of {}: starting it over", servers.len());
                return false;
            }
            Some(_) => {}
            None => short = None,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until connections to this port are taken.
pub(crate) async fn listens(port: u16) {
    soon("the server listens", async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            // Nobody tells: what it writes goes nowhere.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// What a server tells of its JetStream.
async fn jetstream_of(address: SocketAddr) -> std::io::Result<Value> {
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(b"GET /jsz HTTP/1.0\r\n\r\n").await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::InvalidData)?;
    Ok(serde_json::from_str(body)?)
}

/// A way to a server that can be cut: TCP connections are passed on while it is open.
pub(crate) struct Way {
    pub(crate) port: u16,
    to: SocketAddr,
    /// Whether what the server says is held back.
    holds: watch::Sender<bool>,
    open: Option<(CancellationToken, JoinHandle<()>)>,
}

impl Way {
    pub(crate) async fn to(port: u16) -> Self {
        let [own] = free_ports();
        let listener = TcpListener::bind(("127.0.0.1", own)).await.unwrap();
        let mut way =
            Self { port: own, to: ([127, 0, 0, 1], port).into(), holds: watch::Sender::new(false), open: None };
        way.pass(listener);
        way
    }

    fn pass(&mut self, listener: TcpListener) {
        let (cut, to, holds) = (CancellationToken::new(), self.to, self.holds.subscribe());
        let token = cut.clone();
        let passing = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            token
                .run_until_cancelled(async {
                    while let Ok((from, _)) = listener.accept().await {
                        let holds = holds.clone();
                        connections.spawn(async move {
                            if let Ok(to) = TcpStream::connect(to).await {
                                let ((mut asked, mut asks), (mut says, mut to)) = (from.into_split(), to.into_split());
                                let _ = tokio::try_join!(
                                    tokio::io::copy(&mut asked, &mut to),
                                    answers(&mut says, &mut asks, holds)
                                );
                            }
                        });
                    }
                })
                .await;
        });
        self.open = Some((cut, passing));
    }

    /// Holds back what the server says, or no longer.
    pub(crate) fn hold(&self, holds: bool) {
        self.holds.send_replace(holds);
    }

    /// Cuts what goes over it, and lets nothing else over.
    pub(crate) async fn cut(&mut self) {
        let Some((cut, passing)) = self.open.take() else { return };
        cut.cancel();
        passing.await.unwrap();
    }

    pub(crate) async fn mend(&mut self) {
        let listener = soon("its port is free again", async {
            loop {
                match TcpListener::bind(("127.0.0.1", self.port)).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        self.pass(listener);
    }
}

async fn answers(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut holds: watch::Receiver<bool>,
) -> std::io::Result<u64> {
    let mut buffer = [0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 || holds.wait_for(|holds| !holds).await.is_err() {
            // As copy_bidirectional does, one that has ended closes the other way, too.
            to.shutdown().await?;
            return Ok(0);
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// All that is in a stream, as its servers have it.
pub(crate) async fn kept(context: &jetstream::Context, stream: &str) -> Vec<(u64, Vec<u8>)> {
    let with_subjects = kept_with_subjects(context, stream).await;
    with_subjects.into_iter().map(|(seq, _, bytes)| (seq, bytes)).collect()
}

/// The same, with the subject of each.
pub(crate) async fn kept_with_subjects(context: &jetstream::Context, stream: &str) -> Vec<(u64, String, Vec<u8>)> {
    let stream = context.get_stream(stream).await.unwrap();
    let count = stream.cached_info().state.messages as usize;
    let config = pull::OrderedConfig::default();
    // It may be placed on a server that was killed just now, and nobody answers then: clients ask again.
    let consumer = within("a consumer", async {
        loop {
            match stream.create_consumer(config.clone()).await {
                Ok(consumer) => break consumer,
                Err(error) => assert_eq!(error.kind(), ConsumerErrorKind::TimedOut, "{error}"),
            }
        }
    });
    let messages = consumer.await.messages().await.unwrap();
    let read = messages.take(count).map(|message| {
        let message = message.unwrap();
        (message.info().unwrap().stream_sequence - 1, message.subject.to_string(), message.payload.to_vec())
    });
    within("all that is kept", read.collect()).await
}

/// Waits until the stream has a leader and every copy of it is up to date; gives the leader.
pub(crate) async fn healthy(context: &jetstream::Context, stream: &str) -> String {
    within("the stream is healthy", async {
        loop {
            if let Ok(stream) = context.get_stream(stream).await
                && let Some(cluster) = &stream.cached_info().cluster
                && let Some(leader) = &cluster.leader
                && cluster.replicas.len() == 2
                && cluster.replicas.iter().all(|replica| replica.current && !replica.offline)
            {
                return leader.clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
}
