//! Servers that follow one another at one place.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use h3cast::{
    chunk::Cursor,
    client::{Connection, Trust},
};
use http::{Method, StatusCode, Uri};

use crate::overdue::{self, Watch};

/// How long something may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    overdue::waits(what);
    tokio::time::timeout(PATIENCE, event).await.unwrap_or_else(|_| panic!("did not happen in {PATIENCE:?}: {what}"))
}

/// Publishes a line, and gives the cursor of its chunk.
pub(crate) async fn publish(place: &Place, line: &str) -> Cursor {
    publish_to(place, "/stream", line).await.expect("it is published")
}

/// The same to any feed; the status if it is refused.
pub(crate) async fn publish_to(place: &Place, path: &str, line: &str) -> Result<Cursor, StatusCode> {
    let connection =
        soon(&format!("a connection to publish {line}"), Connection::open(&place.uri("/"), &place.trust()))
            .await
            .unwrap();
    let request = http::Request::builder().method(Method::POST).uri(place.uri(path)).body(()).unwrap();
    let (mut body, response) =
        soon(&format!("the request that publishes {line}"), connection.send_request(request)).await.unwrap();
    soon(&format!("{line} is sent"), body.send(format!("{line}\n").into())).await.ok();
    soon(&format!("the end after {line} is sent"), body.finish()).await.ok();
    let mut response = soon(&format!("the answer to {line}"), response).await.unwrap();
    if response.status != StatusCode::OK {
        return Err(response.status);
    }
    let mut text = Vec::new();
    while let Some(bytes) = soon(&format!("the body of the answer to {line}"), response.body.next()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    let answer: serde_json::Value = serde_json::from_slice(&text).unwrap();
    Ok(answer["last"].as_str().unwrap().parse().unwrap())
}

/// What plain HTTP answers.
pub(crate) async fn get(place: &Place, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let connected = tokio::net::TcpStream::connect(("127.0.0.1", place.http_port));
    let mut stream = soon("a connection", connected).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost:{}\r\n\r\n", place.http_port);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(path, stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

/// Publishes over HTTP/1.1: the status, and what was answered. `None` if there was no answer.
#[cfg(feature = "store")]
pub(crate) async fn post(place: &Place, path: &str, key: Option<&str>, body: &str) -> Option<(u16, serde_json::Value)> {
    use http_body_util::{BodyExt, Full};
    use hyper_util::rt::TokioIo;
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", place.http_port)).await.ok()?;
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let mut request = http::Request::post(path.parse::<Uri>().unwrap()).header("host", "localhost");
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(Full::new(bytes::Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let response = send.send_request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// What `/feeds` has of a feed.
#[cfg(feature = "store")]
pub(crate) async fn about(place: &Place, feed: &str) -> serde_json::Value {
    let answer = get(place, "/feeds").await;
    let all: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    all["feeds"].as_array().unwrap().iter().find(|about| about["name"] == feed).cloned().unwrap_or_default()
}

/// What all servers of a place have said.
pub(crate) fn logs(folder: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("stderr-") {
            let said = std::fs::read_to_string(entry.path()).unwrap_or_default();
            text += &format!("{name}:\n{said}\n");
        }
    }
    text
}

/// Ports, a folder and a control socket.
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) http_port: u16,
    dir: tempfile::TempDir,
    /// `--control`, if it is given.
    control: Option<String>,
    count: AtomicUsize,
    _watch: Watch,
}

impl Place {
    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("https://localhost:{}{path}", self.port).parse().unwrap()
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Files(vec![self.dir.path().join("certs/cert.pem")])
    }

    pub(crate) fn folder(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    fn start(&self, args: &[&str], fault: &str) -> Process {
        self.start_by(Command::new(env!("CARGO_BIN_EXE_h3cast")), args, fault)
    }

    /// The same by another command.
    pub(crate) fn start_by(&self, mut command: Command, args: &[&str], fault: &str) -> Process {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let path = |name: &str| self.dir.path().join(format!("{name}-{number}"));
        let (stdout, stderr) = (path("stdout"), path("stderr"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
            command.env_remove(name);
        }
        command.current_dir(self.dir.path()).env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.dir.path());
        command.env("H3CAST_FAULT", fault).arg("serve").args(args);
        if let Some(control) = self.control.as_ref().filter(|_| !args.contains(&"--control=off")) {
            command.arg(format!("--control={control}"));
        }
        command.args([format!("--listen=localhost:{}", self.port), format!("--http=localhost:{}", self.http_port)]);
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&stdout).unwrap());
        let child = command.stderr(std::fs::File::create(&stderr).unwrap()).spawn().unwrap();
        overdue::started(child.id());
        Process { child: Mutex::new(child), number, stdout, stderr }
    }

    /// One that takes over.
    pub(crate) fn next(&self, args: &[&str]) -> Process {
        self.next_with("", args)
    }

    pub(crate) fn next_with(&self, fault: &str, args: &[&str]) -> Process {
        self.start(&[args, &["--take-over"]].concat(), fault)
    }

    /// One that does not.
    pub(crate) fn rival(&self, args: &[&str]) -> Process {
        self.start(args, "")
    }

    /// One that takes over, and stands still there.
    pub(crate) async fn stopped_at(&self, point: &str, args: &[&str]) -> Process {
        let process = self.next_with(&format!("{point}=stop"), args);
        process.until("it stands still", |process| process.is_stopped()).await;
        process
    }
}

/// A server. Killed when dropped.
pub(crate) struct Process {
    child: Mutex<Child>,
    /// Which one at its place.
    number: usize,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// The first one at a place of its own.
    pub(crate) async fn first(args: &[&str]) -> (Arc<Place>, Self) {
        Self::first_with("", args).await
    }

    pub(crate) async fn first_with(fault: &str, args: &[&str]) -> (Arc<Place>, Self) {
        Self::first_at(Some("control.sock".into()), fault, args).await
    }

    /// The same with another socket, which is in the folder of the place if it is relative; or without one.
    pub(crate) async fn first_at(control: Option<String>, fault: &str, args: &[&str]) -> (Arc<Place>, Self) {
        let place = Self::place(control);
        let process = place.start(args, fault);
        Self::started(place, process).await
    }

    /// A place without a server.
    pub(crate) fn place(control: Option<String>) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let _watch = Watch::begin(move || logs(&folder));
        Place { port: 0, http_port: 0, dir, control, count: AtomicUsize::new(0), _watch }
    }

    /// The first one at a place, by another command.
    pub(crate) async fn begin(place: Place, command: Command, args: &[&str]) -> (Arc<Place>, Self) {
        let process = place.start_by(command, args, "");
        Self::started(place, process).await
    }

    async fn started(mut place: Place, mut process: Self) -> (Arc<Place>, Self) {
        process.ready().await;
        let printed = process.printed();
        let port = |scheme: &str| {
            let (_, rest) = printed.split_once(&format!("{scheme}://localhost:")).expect("an address");
            rest.split('/').next().unwrap().parse().unwrap()
        };
        (place.port, place.http_port) = (port("https"), port("http"));
        (Arc::new(place), process)
    }

    fn printed(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// Waits for a line of its log, which a thread of its own writes.
    pub(crate) fn says(&self, what: &str) {
        overdue::waits(what);
        let begun = std::time::Instant::now();
        while !self.said().contains(what) && begun.elapsed() < PATIENCE / 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.said().contains(what), "no `{what}` in {}", self.said());
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        self.soon(what, || holds(self).then_some(())).await;
    }

    /// Waits until there is something. Files and processes do not tell.
    async fn soon<T>(&self, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        overdue::waits(what);
        let begun = std::time::Instant::now();
        loop {
            if let Some(found) = found() {
                return found;
            }
            if begun.elapsed() > PATIENCE {
                let state = self.state().unwrap_or('-');
                panic!("not within {PATIENCE:?}: {what}; server {} ({state}) said: {}", self.number, self.said());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&mut self) {
        assert!(self.serves().await, "it has ended: {}", self.said());
    }

    /// Waits until it serves, or has failed.
    pub(crate) async fn serves(&mut self) -> bool {
        self.soon("it serves, or has failed", || match self.printed().contains("/stream") {
            true => Some(true),
            false => self.status().map(|_| false),
        })
        .await
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self, code: i32) {
        let status = self.soon("it ends", || self.status()).await;
        assert_eq!(status.code(), Some(code), "{}", self.said());
    }

    /// Once it has ended.
    fn status(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.status().is_none()
    }

    fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    /// What the system says that it does.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        stat.rsplit(')').next()?.trim().chars().next()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.state() == Some('T')
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args(["-s", signal, &self.id().to_string()]).status().unwrap().success());
    }

    /// How many files it has open.
    #[cfg(target_os = "linux")]
    pub(crate) fn sockets(&self) -> usize {
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap();
        let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
        targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    pub(crate) async fn stop(mut self) {
        self.terminate();
        self.ended(0).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        overdue::waits(&format!("the end of server {}", self.number));
        let _ = child.kill();
        let _ = child.wait();
        overdue::ended(child.id());
    }
}
