//! Three servers of ours, each in a network of its own.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ChildStdout, Stdio},
    sync::mpsc,
    time::Duration,
};

use h3cast::client::Trust;
use http::Uri;
use tokio::process::Command;

use crate::{
    inside::{NATS, Port, WEB, command, network},
    nodes,
    running::Running,
};

pub(crate) const EDGES: usize = 3;
pub(crate) const TOKEN: &str = "no-one-outside-reaches-these-servers";

/// How a server is reached.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) base: String,
    pub(crate) certificate: PathBuf,
}

impl Address {
    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.base).parse().unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Files(vec![self.certificate.clone()])
    }

    /// curl, which trusts it, with these arguments and the URL of that path.
    pub(crate) fn curl(&self, args: &[&str], path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["-s", "--cacert"]).arg(&self.certificate).args(args).arg(format!("{}{path}", self.base));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        command
    }

    /// What `/readyz` says, and its status.
    pub(crate) async fn readyz(&self) -> String {
        self.ready("/readyz").await
    }

    /// The same of one feed.
    pub(crate) async fn readyz_of(&self, feed: &str) -> String {
        self.ready(&format!("/readyz/{feed}")).await
    }

    async fn ready(&self, path: &str) -> String {
        let out = self.curl(&["--max-time", "2", "-w", "%{http_code}"], path).output().await.unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

/// One server.
pub(crate) struct Edge {
    pub(crate) address: Address,
    pub(crate) nats: Port,
    /// Its address as clients of NATS have one.
    pub(crate) nats_address: String,
    name: String,
    dir: PathBuf,
    args: Vec<String>,
    /// Unless it is killed.
    running: Option<Running>,
}

impl Edge {
    pub(crate) fn new(number: usize, dir: &Path, args: &[&str]) -> Self {
        let name = format!("e{number}");
        let nats_address = format!("10.77.2.{}", 101 + number);
        let web = format!("10.77.3.{}", 101 + number);
        let [nats, _web] = network(&name, [(NATS, nats_address.clone()), (WEB, web.clone())]);
        let dir = dir.join(&name);
        fs::create_dir(&dir).unwrap();
        let certificate = dir.join("own.pem");
        let own = rcgen::generate_simple_self_signed([web.clone()]).unwrap();
        fs::write(&certificate, own.cert.pem()).unwrap();
        fs::write(dir.join("own.key"), own.signing_key.serialize_pem()).unwrap();
        let engine = format!("--engine=nats://{}", nodes::servers());
        let listen = format!("{web}:4433");
        let own = ["serve", "--listen", &listen, "--http", "off", "--cert", "own.pem", "--key", "own.key", &engine];
        let all = own.iter().chain(args);
        Self {
            address: Address { base: format!("https://{listen}"), certificate },
            nats,
            nats_address,
            name,
            args: all.map(ToString::to_string).collect(),
            dir,
            running: None,
        }
    }

    /// Starts it. Gives the line that it prints once it is ready.
    pub(crate) fn begin(&mut self) -> BufReader<ChildStdout> {
        let mut server = command(&self.name, env!("CARGO_BIN_EXE_h3cast"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
            server.env_remove(name);
        }
        let log = File::options().create(true).append(true).open(self.dir.with_extension("log")).unwrap();
        server
            .env("H3CAST_PUBLISH_TOKEN", TOKEN)
            .current_dir(&self.dir)
            .env("HOME", &self.dir)
            .env_remove("XDG_RUNTIME_DIR")
            .env_remove("XDG_STATE_HOME");
        let mut running = Running::start(server.args(&self.args).stdout(Stdio::piped()).stderr(log));
        let ready = BufReader::new(running.child().stdout.take().unwrap());
        self.running = Some(running);
        ready
    }

    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        let ready = self.begin();
        assert!(is_ready(ready).await, "{}: {}", self.name, self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    pub(crate) fn kill(&mut self) {
        self.running = None;
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it was started")
    }
}

/// Whether a server gets ready, and doesn't end or wait for longer than its own patience before.
pub(crate) async fn is_ready(mut lines: BufReader<ChildStdout>) -> bool {
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // Nobody waits any more, if there is an error.
        let _ = told.send(lines.read_line(&mut line).is_ok_and(|length| length > 0));
    });
    tokio::task::spawn_blocking(move || heard.recv_timeout(Duration::from_secs(90)).unwrap_or(false)).await.unwrap()
}
