//! Edges behind load balancers, as docs/operations.md has them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use h3cast::client::{
    Trust, Viewer,
    viewer::{Event, Transport},
};
use tokio::{sync::Notify, task::JoinSet, time::sleep};

use crate::{
    cluster::{self, Cluster},
    common::{
        raw::{self, Raw},
        soon,
    },
    edge::{Edge, publish},
    serving::Serving,
    within,
};

/// nginx, with a configuration of the documentation.
struct Nginx(std::process::Child);

impl Nginx {
    fn start(dir: &Path, config: &str, port: u16, edges: [u16; 2]) -> Self {
        let documented = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/load-balancing");
        let [one, other] = edges;
        let mine = format!("pid {0}/pid;\ndaemon off;\nerror_log {0}/error.log;\nevents {{", dir.display());
        let config = std::fs::read_to_string(documented.join(config)).unwrap();
        let config = config
            .replace("10.0.0.11:4433", &format!("127.0.0.1:{one}"))
            .replace("10.0.0.12:4433", &format!("127.0.0.1:{other}"))
            .replace("listen 4433", &format!("listen 127.0.0.1:{port}"))
            .replace("events {", &mine);
        assert!(!config.contains("10.0.0.") && config.contains(&mine));
        std::fs::write(dir.join("nginx.conf"), config).unwrap();
        std::fs::copy(documented.join("quic.js"), dir.join("quic.js")).unwrap();
        let nginx = ["/usr/sbin/nginx", "nginx"].into_iter().find_map(|program| {
            Command::new(program).arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).spawn().ok()
        });
        Self(nginx.expect("nginx is installed by `tests/run debian`"))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// Two edges with one certificate, and nginx before them.
struct Balanced {
    edges: [Option<Serving>; 2],
    ports: [u16; 2],
    /// nginx's.
    port: u16,
    _nginx: Nginx,
    _cluster: Cluster,
    /// Goes last: the others have files in it.
    dir: tempfile::TempDir,
}

impl Balanced {
    async fn start(config: &str, more: [&[&str]; 2]) -> Self {
        let cluster = Cluster::start(1);
        cluster.jetstream().await;
        let engine = format!("--engine=nats://{}", cluster.addresses());
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("certs").display().to_string();
        let args = ["chat=publish", &engine, "--ensure-stream", "--certs", &certs];
        let edges = more.map(|more| {
            Some(tokio::task::block_in_place(|| Serving::start(|_| args.iter().chain(more).copied().collect())))
        });
        let ports = [edges[0].as_ref().unwrap().port, edges[1].as_ref().unwrap().port];
        let [port] = cluster::free_ports();
        let nginx = Nginx::start(dir.path(), config, port, ports);
        Self { edges, ports, port, _nginx: nginx, _cluster: cluster, dir }
    }

    fn certificate(&self) -> PathBuf {
        self.dir.path().join("certs/cert.pem")
    }

    /// What is at a port, as clients see it.
    fn at(&self, port: u16) -> Edge {
        Edge { base: format!("https://127.0.0.1:{port}"), trust: Trust::Files(vec![self.certificate()]) }
    }

    /// How many viewers there are at each edge.
    async fn viewers(&self) -> [u64; 2] {
        let [one, other] = self.ports;
        [self.at(one).viewers().await, self.at(other).viewers().await]
    }

    /// Publishes a line at the second edge, not by nginx.
    async fn publish(&self, line: &str) {
        publish(&[self.at(self.ports[1])], &mut 0, &mut None, line.trim(), line).await;
    }
}

/// A viewer that knows nothing of coming again: a QUIC connection through nginx.
struct Roaming {
    endpoint: quinn::Endpoint,
    raw: Raw,
    body: quinn::RecvStream,
    _control: quinn::SendStream,
    /// Where it goes on from. All are bound from the start: nginx remembers for 40 s which edge a port's packets are for,
    /// so a port that another viewer has had leads to that one's edge.
    addresses: Vec<std::net::UdpSocket>,
}

impl Roaming {
    async fn join(balanced: &Balanced, addresses: usize) -> Self {
        let endpoint = raw::endpoint(&balanced.certificate(), |transport| {
            transport.keep_alive_interval(Some(Duration::from_millis(300)));
        });
        let raw = Raw::open(endpoint.clone(), balanced.port).await;
        let control = raw.settings().await;
        let (mut send, mut body) = raw.bi(&raw::request("GET", "/stream/chat?format=raw")).await;
        send.finish().unwrap();
        assert_eq!(raw::status(&mut body).await, 200);
        let addresses = (0..addresses).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        Self { endpoint, raw, body, _control: control, addresses }
    }

    /// Goes on from another address.
    fn roam(&mut self) {
        self.endpoint.rebind(self.addresses.pop().expect("an address is left")).unwrap();
    }

    /// Reads to the end of that line.
    async fn read(&mut self, line: &str) -> Result<(), quinn::ReadError> {
        let mut read = Vec::new();
        while !read.ends_with(line.as_bytes()) {
            let chunk = soon("a line", self.body.read_chunk(usize::MAX, true)).await?;
            read.extend_from_slice(&chunk.expect("the feed does not end").bytes);
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server and nginx: `tests/run debian python nats`"]
async fn by_connection_id_a_connection_outlives_its_address() {
    const ROUNDS: usize = 4;
    let mut balanced = Balanced::start("nginx-by-id.conf", [&["--server-id=0a"], &["--server-id=0b"]]).await;
    let mut viewers = Vec::new();
    // Which edge a new one comes to is nginx's hash of a port: until there are some at each.
    let at_edges = loop {
        assert!(viewers.len() < 40, "all viewers come to one edge");
        viewers.push(Roaming::join(&balanced, ROUNDS).await);
        let at_edges = balanced.viewers().await;
        if viewers.len() >= 6 && at_edges.iter().all(|viewers| *viewers > 0) {
            break at_edges;
        }
    };
    for round in 0..ROUNDS {
        let line = format!("round {round}\n");
        viewers.iter_mut().for_each(Roaming::roam);
        balanced.publish(&line).await;
        for viewer in &mut viewers {
            viewer.read(&line).await.unwrap();
        }
        assert_eq!(balanced.viewers().await, at_edges);
    }
    // Those of an edge that is gone are told by the other.
    balanced.edges[0].take().unwrap().kill();
    let mut reset = 0;
    for viewer in &mut viewers {
        let alive = tokio::select! {
            // Well before a time-out, which is 30 s.
            closed = soon("the end or a line", viewer.raw.conn.closed()) => {
                assert_eq!(closed, quinn::ConnectionError::Reset);
                false
            }
            () = balanced.publish("after\n") => viewer.read("after\n").await.is_ok(),
        };
        reset += u64::from(!alive);
    }
    assert_eq!(reset, at_edges[0]);
}

/// What docs/operations.md says of a balancer that goes by addresses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server and nginx: `tests/run debian python nats`"]
async fn by_address_a_connection_that_changes_it_is_reset_at_once() {
    let balanced = Balanced::start("nginx.conf", [&[], &[]]).await;
    let mut viewer = Roaming::join(&balanced, 40).await;
    for _ in 0..40 {
        viewer.roam();
        // Half of all addresses are the same edge's: there it goes on.
        tokio::select! {
            closed = viewer.raw.conn.closed() => {
                assert_eq!(closed, quinn::ConnectionError::Reset);
                return;
            }
            () = sleep(Duration::from_secs(1)) => {}
        }
    }
    panic!("no address is the other edge's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server and nginx: `tests/run debian python nats`"]
async fn behind_a_load_balancer_viewers_go_on_at_another_edge() {
    const LINES: usize = 40;
    let mut balancer = Balanced::start("nginx.conf", [&[], &[]]).await;
    let (balanced, direct) = (balancer.at(balancer.port), balancer.at(balancer.ports[1]));

    let (mut viewers, opened) = (JoinSet::new(), Arc::new((AtomicUsize::new(0), Notify::new())));
    let mut at_edges = [0, 0];
    // Which edge one comes to is nginx's hash of a port: until there are some at each.
    for number in 1.. {
        assert!(number < 40, "all viewers come to one edge: {at_edges:?}");
        if number > 4 && at_edges.iter().all(|viewers| *viewers > 0) {
            break;
        }
        let (balanced, told) = (balanced.clone(), opened.clone());
        viewers.spawn(async move {
            let opened = told;
            let transport = [Transport::Get, Transport::WebTransport][number % 2];
            let viewer = Viewer::new(&balanced.uri("/stream/chat?from=start"), balanced.trust.clone()).unwrap();
            let (mut viewer, mut lines, mut lost) = (viewer.transport(transport), Vec::new(), 0);
            while lines.len() < LINES {
                match viewer.next().await.unwrap().unwrap() {
                    Event::Chunk { bytes, .. } => lines.push(String::from_utf8(bytes.to_vec()).unwrap()),
                    Event::Opened { .. } => {
                        opened.0.fetch_add(1, Ordering::Relaxed);
                        opened.1.notify_one();
                    }
                    Event::Lost { .. } => lost += 1,
                    other => panic!("{other:?}"),
                }
            }
            (lines, lost)
        });
        within("it views", async {
            while opened.0.load(Ordering::Relaxed) < number {
                opened.1.notified().await;
            }
        })
        .await;
        at_edges = balancer.viewers().await;
    }
    let (mut at, mut connection) = (0, None);
    for number in 0..LINES {
        if number == LINES / 2 {
            balancer.edges[0].take().unwrap().kill();
        }
        let edge = std::slice::from_ref(&direct);
        publish(edge, &mut at, &mut connection, &number.to_string(), &format!("{number}\n")).await;
    }
    let expected: Vec<_> = (0..LINES).map(|number| format!("{number}\n")).collect();
    let mut moved = 0;
    within("all have all", async {
        while let Some(viewed) = viewers.join_next().await {
            let (lines, lost) = viewed.unwrap();
            assert_eq!(lines, expected);
            moved += u64::from(lost > 0);
        }
    })
    .await;
    assert_eq!(moved, at_edges[0], "those of the other edge lose nothing");
}

/// DNS with an address for each edge, as clients meet it: one name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nats-server: `tests/run python nats`"]
async fn by_name_viewers_go_on_at_the_next_address() {
    let cluster = Cluster::start(1);
    cluster.jetstream().await;
    let engine = format!("--engine=nats://{}", cluster.addresses());
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs").display().to_string();
    let args = ["chat=publish", &engine, "--ensure-stream", "--certs", &certs];
    let start = |listen: &str| tokio::task::block_in_place(|| Serving::start_at(listen, |_| args.to_vec()));
    let v6 = start("[::1]:0");
    let port = v6.port;
    let _v4 = start(&format!("127.0.0.1:{port}"));
    let trust = Trust::Files(vec![dir.path().join("certs/cert.pem")]);
    let at = |host: &str| Edge { base: format!("https://{host}:{port}"), trust: trust.clone() };
    let uri = at("localhost").uri("/stream/chat");
    let mut viewers = Vec::new();
    for transport in [Transport::Get, Transport::WebTransport] {
        let mut viewer = Viewer::new(&uri, trust.clone()).unwrap().transport(transport);
        assert!(matches!(soon("it opens", viewer.next()).await.unwrap(), Some(Event::Opened { .. })));
        viewers.push(viewer);
    }
    assert_eq!((at("[::1]").viewers().await, at("127.0.0.1").viewers().await), (2, 0));
    v6.kill();
    publish(&[at("127.0.0.1")], &mut 0, &mut None, "key", "after\n").await;
    for viewer in &mut viewers {
        let mut lost = false;
        within("it goes on at the other", async {
            loop {
                match viewer.next().await.unwrap().unwrap() {
                    Event::Chunk { bytes, .. } => break assert_eq!(bytes.as_ref(), b"after\n"),
                    Event::Lost { .. } => lost = true,
                    Event::Opened { .. } => {}
                    other => panic!("{other:?}"),
                }
            }
        })
        .await;
        assert!(lost);
    }
}
