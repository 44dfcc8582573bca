//! The program as a server whose standard streams and terminal are the test's, and a small client of it.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// How long a test waits for an event before it calls it missing.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Asks until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A terminal: the side that a person would look at, and the one for a program.
pub(crate) fn terminal() -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    // Not through a shell of ours: whoever opens it has no other terminal, or keeps the one it has.
    let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
    (master, slave)
}

/// The program, to be started by what `prefix` says.
pub(crate) fn program(prefix: &[&str]) -> Command {
    let binary = env!("CARGO_BIN_EXE_h3cast");
    let mut command = Command::new(prefix.first().copied().unwrap_or(binary));
    if let Some((_, rest)) = prefix.split_first() {
        command.args(rest).arg(binary);
    }
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// A server; killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// The port of plain HTTP.
    pub(crate) http: u16,
    /// Its standard output.
    pub(crate) stdout: Option<BufReader<ChildStdout>>,
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    /// Starts it in a folder of its own, and waits until it is ready.
    pub(crate) fn start(mut command: Command, args: &[&str]) -> Self {
        let mut server = Self::launch(&mut command, args);
        let mut line = String::new();
        server.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        let port = line.trim().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        server.http = port.unwrap_or_else(|| panic!("it is not ready: {line:?}"));
        server
    }

    /// Has the system allow it that many files from now on.
    pub(crate) fn allow_files(&self, count: u64) {
        use rustix::process::{Pid, Resource, Rlimit, prlimit};
        let pid = Pid::from_raw(self.child.id().cast_signed());
        prlimit(pid, Resource::Nofile, Rlimit { current: Some(count), maximum: Some(count) }).unwrap();
    }

    /// Starts it, and does not wait.
    pub(crate) fn launch(command: &mut Command, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        File::create(dir.path().join("log.txt")).unwrap();
        command.current_dir(dir.path()).args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        let mut child = command.args(args).spawn().unwrap();
        let stdout = child.stdout.take().map(BufReader::new);
        Self { child, http: 0, stdout, dir }
    }

    /// The port of TLS, as it prints.
    pub(crate) fn tls(&mut self) -> u16 {
        let lines = self.stdout.as_mut().unwrap().lines().map(Result::unwrap);
        let ports = lines.filter_map(|line| line.split_once("https://127.0.0.1:")?.1.split('/').next()?.parse().ok());
        { ports }.next().expect("a URL of TLS")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "there is no process for {name}");
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, and gives its exit code.
    pub(crate) fn end(&mut self) -> Option<i32> {
        until("it ends", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.http)
    }

    /// Views a feed.
    pub(crate) fn view(&self, path: &str) -> Client {
        let mut client = self.client();
        let (status, _) = client.ask("GET", path);
        assert_eq!(status, 200);
        client
    }

    /// Asks for something, over a connection of its own.
    pub(crate) fn status(&self, path: &str) -> u16 {
        let mut client = self.client();
        let (status, length) = client.ask("GET", path);
        client.skip(length);
        status
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection of HTTP/1.1.
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub(crate) fn into_inner(self) -> TcpStream {
        self.0.into_inner()
    }

    /// Sends a request without a body; gives the status and the length of the answer, if it has one.
    pub(crate) fn ask(&mut self, method: &str, path: &str) -> (u16, Option<usize>) {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{method} {path}: {line:?}"));
        let mut length = None;
        loop {
            line.clear();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end().to_ascii_lowercase() {
                header if header.is_empty() => return (status, length),
                header => length = header.strip_prefix("content-length: ").map(|text| text.parse().unwrap()).or(length),
            }
        }
    }

    pub(crate) fn skip(&mut self, length: Option<usize>) {
        self.0.read_exact(&mut vec![0; length.unwrap_or_default()]).unwrap();
    }

    /// The next chunk of an answer without a length; `None` at its end, an error when it is cut.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut size = String::new();
        self.0.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok((size > 0).then_some(chunk))
    }

    /// Reads until the feed has had these bytes at the end of a chunk.
    pub(crate) fn until(&mut self, end: &str) {
        loop {
            match self.chunk() {
                Ok(Some(chunk)) if chunk.ends_with(end.as_bytes()) => return,
                Ok(Some(_)) => {}
                ended => panic!("the feed has ended before {end:?}: {ended:?}"),
            }
        }
    }
}
