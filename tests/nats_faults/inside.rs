//! A test in namespaces of its own: networks, mounts and processes that nothing outside sees.

use std::{
    fs,
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set where a test is inside: its folder.
const INSIDE: &str = "H3CAST_FAULTS_INSIDE";

/// Runs `test`, which is this test's body, inside. `name` is the test's, with its modules.
///
/// Threads cannot leave their namespaces, so the test's own program is started again there for this one test. Its
/// processes end with it.
pub(crate) fn run<F: Future<Output = ()>>(name: &str, test: impl FnOnce(PathBuf) -> F) {
    let Some(dir) = std::env::var_os(INSIDE).map(PathBuf::from) else { return start(name) };
    prepare();
    fs::write(dir.join("ran"), "").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test(dir));
}

fn start(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--include-ignored", "--nocapture"]);
    let status = command.env(INSIDE, dir.path()).stdin(Stdio::null()).status().expect("unshare, of util-linux");
    let ran = dir.path().join("ran").exists();
    assert!(status.success() && ran, "{name} inside: {status}, ran: {ran}");
}

/// A folder for the names of networks, and a network that reaches itself.
fn prepare() {
    tool("mount", &["-t", "tmpfs", "tmpfs", "/run"]);
    fs::create_dir("/run/netns").unwrap();
    tool("ip", &["link", "set", "lo", "up"]);
}

/// Runs a tool of the system.
pub(crate) fn tool(name: &str, args: &[&str]) {
    let done = Command::new(name).args(args).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(done.status.success(), "{name} {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr));
}

/// Runs lines of `ip`, of this network or of another.
fn ip(of: Option<&str>, lines: &str) {
    let mut command = Command::new("ip");
    if let Some(of) = of {
        command.args(["-n", of]);
    }
    let mut child = command.args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip, of iproute2");
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{lines}");
}

/// A command that runs in the network of that name.
pub(crate) fn command(network: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("ip");
    // It becomes the program: the process id is the program's.
    command.args(["netns", "exec", network]).arg(program.as_ref());
    command.stdin(Stdio::null());
    command
}

/// Where a network is connected to a bridge.
#[derive(Debug, Clone)]
pub(crate) struct Port {
    name: String,
    bridge: &'static str,
}

pub(crate) const PEERS: &str = "peers";
pub(crate) const NATS: &str = "nats";
pub(crate) const WEB: &str = "web";

/// A network with an address on each of these bridges.
pub(crate) fn network<const N: usize>(name: &str, on: [(&'static str, String); N]) -> [Port; N] {
    ip(None, &format!("netns add {name}\n"));
    ip(Some(name), "link set lo up\n");
    on.map(|(bridge, address)| {
        let port = format!("{name}-{bridge}");
        ip(None, &format!("link add {port} type veth peer name {bridge} netns {name}\n"));
        ip(None, &format!("link set {port} master {bridge} up\n"));
        ip(Some(name), &format!("addr add {address}/24 dev {bridge}\nlink set {bridge} up\n"));
        Port { name: port, bridge }
    })
}

/// The bridges, of which the test itself is on two.
pub(crate) fn bridges() {
    for (number, bridge) in [(1, PEERS), (2, NATS), (3, WEB)] {
        ip(None, &format!("link add {bridge} type bridge\nlink set {bridge} up\n"));
        if bridge != PEERS {
            ip(None, &format!("addr add 10.77.{number}.254/24 dev {bridge}\n"));
        }
    }
}

impl Port {
    /// Nothing gets through any more, and nobody is told.
    pub(crate) fn cut(&self) {
        ip(None, &format!("link set {} nomaster\n", self.name));
    }

    pub(crate) fn mend(&self) {
        ip(None, &format!("link set {} master {}\n", self.name, self.bridge));
    }

    /// Two that are apart don't reach each other, but all others.
    pub(crate) fn apart(&self, apart: bool) {
        tool("bridge", &["link", "set", "dev", &self.name, "isolated", if apart { "on" } else { "off" }]);
    }

    /// What goes into the network waits for its turn, for seconds when there is much of it.
    pub(crate) fn narrow(&self) {
        let rate = ["root", "tbf", "rate", "1mbit", "burst", "16kb", "latency", "4s"];
        tool("tc", &[&["qdisc", "replace", "dev", self.name.as_str()], rate.as_slice()].concat());
    }

    pub(crate) fn widen(&self) {
        tool("tc", &["qdisc", "del", "dev", &self.name, "root"]);
    }
}
