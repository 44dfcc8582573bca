//! Every command that the documents show: run, or checked, or listed with the reason why not.
//!
//! A block of `sh` is run line by line in a folder with what the lines name, on free ports. A server is started for
//! real, or checked with `--check` if it listens where a test may not; it stays for the clients after it, up to the
//! next one. A client ends well, or prints something and is then ended.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::h3cast;

/// How a line begins that no test runs from here, and why.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo run --release", "builds the program that these tests run"),
    ("cargo run -- get --cert-hash HEX", "HEX is whatever `plain` prints: tests/browser/plain.test.mjs"),
    ("cargo install --locked --path .", "installs into the home folder"),
    ("cargo install --locked", "installs into the home folder"),
    ("cargo build --locked --profile dist", "takes minutes: tests/packages/static"),
    ("target/x86_64-unknown-linux-musl", "comes of the line above: tests/packages/static"),
    ("packaging/deb", "needs cargo-deb, and takes minutes"),
    ("sudo ", "needs root"),
    ("sudoedit ", "needs root, and an editor"),
    ("man ", "needs a terminal"),
    ("cargo bench", "takes minutes; compiled by clippy"),
    ("cargo tree", "tests/run features"),
    ("CC_", "needs the standard library of another system"),
    ("rustup target add", "needs the network"),
    ("tests/", "runs this test"),
    ("benches/", "takes minutes; benches/instructions is a step of tests/run"),
    ("docker ", "needs a daemon: tests/image checks the image without one"),
    ("install ", "needs root: tests/systemd.rs and tests/packages/deb.py check these files"),
    ("usermod ", "needs root"),
    ("mkdir -p /etc/h3cast", "needs root, and an editor"),
    ("chown root:h3cast", "needs root"),
    ("systemd-run ", "needs systemd: tests/systemd.rs"),
    ("systemctl ", "needs systemd: tests/systemd.rs"),
    ("kill -USR1 PID", "tests/reload"),
    ("tcpdump ", "needs root; the key log is in tests/undisturbed"),
    ("wireshark ", "needs a screen"),
    ("SSLKEYLOGFILE=", "tests/undisturbed"),
    ("h3cast open ", "opens a browser: tests/browser/open.test.mjs"),
    ("h3cast health --config /etc/", "settings of another machine: tests/foreign and tests/image"),
    ("h3cast health https://cast.example", "another machine"),
    ("h3cast health --live", "asks the default port, which may be in use: tests/image"),
    ("h3cast reload", "tests/reload; that of docs/storage.md: tests/store"),
    ("h3cast bench ", "needs ten seconds: tests/bench.rs"),
    ("h3cast get https://cast.example", "another machine"),
    ("h3cast get https://localhost:4433/stream --qlog", "needs the feature qlog"),
    ("make 2>&1 | h3cast publish https://cast.example", "another machine"),
    ("make 2>&1 | curl ", "another machine; tests/foreign/test_publish.py publishes with curl"),
    ("curl --cacert certs/cert.pem -T - -H 'h3cast-session: ID'", "ID is what the line before it shows: tests/input"),
    ("python3 -m http.server", "listens at a fixed port: tests/browser/module.test.mjs serves the page"),
];

/// What ends stands for what never does, and what is here for what may be missing.
const INSTEAD: &[(&str, &str)] = &[("tail -f x", "cat x"), ("/var/log/syslog", "app.log")];

/// Words of a server that a test must not start: it listens beyond this machine, or needs others.
const ONLY_CHECKED: &[&str] = &["--listen", "--acme", "nats://", "--config", "--take-over", "--check"];

#[test]
fn every_command_that_is_shown_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents: Vec<PathBuf> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| root.join(name)).into();
    let guides = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    documents.extend(guides.filter(|path| path.extension().is_some_and(|end| end == "md")));
    documents.sort();
    let mut unused: BTreeSet<_> = NOT_RUN.iter().map(|(begin, _)| *begin).collect();
    let mut problems = Vec::new();
    for document in documents {
        let name = document.strip_prefix(root).unwrap().display().to_string();
        let mut desk = Desk::new();
        for block in blocks(&fs::read_to_string(&document).unwrap()) {
            for line in block {
                if let Some((begin, _)) = NOT_RUN.iter().find(|(begin, _)| line.starts_with(begin)) {
                    unused.remove(begin);
                } else if let Err(problem) = desk.run(root, &line) {
                    problems.push(format!("{name}: {line}\n    {problem}"));
                }
            }
            problems.extend(desk.clear().into_iter().map(|problem| format!("{name}: {problem}")));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(unused.is_empty(), "no document shows these any more: {unused:?}");
}

/// The commands of each block: without comments, and in one line where they were continued.
fn blocks(text: &str) -> Vec<Vec<String>> {
    let (mut blocks, mut open, mut begun) = (Vec::new(), None, String::new());
    for line in text.lines() {
        match (line.trim_start(), &mut open) {
            ("```sh" | "```console", None) => open = Some(Vec::new()),
            ("```", _) => blocks.extend(open.take()),
            (line, Some(commands)) => {
                let line = line.trim_start_matches("$ ");
                let line = line.split(" #").next().unwrap().trim();
                begun += line.trim_end_matches('\\');
                if !line.ends_with('\\') && !begun.is_empty() && !begun.starts_with('#') {
                    commands.push(begun.split_whitespace().collect::<Vec<_>>().join(" "));
                }
                if !line.ends_with('\\') {
                    begun.clear();
                }
            }
            _ => {}
        }
    }
    blocks
}

/// A process with its whole group, which ends with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", self.0.id())]).output();
        let _ = self.0.wait();
        // The shell is gone, and what it ran may still have its files open.
        while is_running(self.0.id()) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Whether a process of that group has not ended yet, with all of its threads.
fn is_running(group: u32) -> bool {
    let of_group = |path: &Path| {
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // After the name, which may have spaces: the state, the parent, the group.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let (state, group_id) = (fields.next()?, fields.nth(1)?);
        let threads = fs::read_dir(path.join("task")).ok()?.count();
        Some(group_id == group.to_string() && (state != "Z" || threads > 1))
    };
    fs::read_dir("/proc").unwrap().flatten().any(|entry| of_group(&entry.path()).unwrap_or_default())
}

struct Server {
    _group: Group,
    https: String,
    plain: String,
}

/// A folder in which the lines of one document run, the server that runs, and clients that follow its feeds.
struct Desk {
    folder: tempfile::TempDir,
    server: Option<Server>,
    following: Vec<(String, PathBuf, Group)>,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_h3cast"), at("bin/h3cast")).unwrap();
        fs::write(at("tokens.txt"), "read=* publish=* name=alice a-token-of-16-characters\n").unwrap();
        fs::write(at("app.log"), "a line\n".repeat(20)).unwrap();
        fs::write(at("x"), "a line\n").unwrap();
        fs::write(at("debian.iso"), vec![0; 100_000]).unwrap();
        fs::write(at("h3cast.toml"), "").unwrap();
        h3cast::Identity::self_signed(&at("certs"), &[], Default::default()).unwrap();
        Self { folder, server: None, following: Vec::new() }
    }

    fn run(&mut self, root: &Path, line: &str) -> Result<(), String> {
        if let Some(example) = line.strip_prefix("cargo run --example ").or(line.strip_prefix("cargo run -p ")) {
            let example = root.join("examples").join(example);
            let is_there = example.is_dir() || example.with_extension("rs").is_file();
            return is_there.then_some(()).ok_or("there is no such example".into());
        }
        let mut line = line.to_owned();
        for (shown, here) in INSTEAD {
            line = line.replace(shown, here);
        }
        if line.contains("h3cast serve") || line == "h3cast" {
            if ONLY_CHECKED.iter().any(|word| line.contains(word)) {
                let (code, said) = ended(self.start(&(line + " --check"), "checked").1)?;
                return code.success().then_some(()).ok_or(said);
            }
            self.server = None;
            self.server = Some(self.serve(&line)?);
            return Ok(());
        }
        // What needs no server.
        let alone =
            ["h3cast token", "h3cast man", "h3cast completions", "h3cast help", "mkdir -p ~", "cp -a ", "sed -i "];
        if alone.iter().any(|begin| line.starts_with(begin)) {
            let (code, said) = ended(self.start(&line, "token").1)?;
            return code.success().then_some(()).ok_or(said);
        }
        let ours = ["h3cast get", "h3cast publish", "h3cast feeds", "h3cast cert", "curl "];
        if !ours.iter().any(|begin| line.starts_with(begin) || line.contains(&format!("| {begin}"))) {
            return Err("is new: list it in NOT_RUN, or have this test run it".into());
        }
        if self.server.is_none() {
            self.server = Some(self.serve("h3cast serve --interval 1ms")?);
        }
        let server = self.server.as_ref().unwrap();
        let mut here = line.replace("https://localhost:4433/", &server.https);
        if line.starts_with("h3cast get") && !line.contains("://") {
            here += &format!(" {}stream", server.https);
        }
        let (printed, mut group) = self.start(&here, &format!("client{}", self.following.len()));
        let named = here.strip_prefix("h3cast get ").and_then(|rest| rest.split("/stream/").nth(1));
        let feed = named.map(|rest| rest.split(['?', '\'', ' ']).next().unwrap().to_owned());
        let since = Instant::now();
        loop {
            if let Some(code) = group.0.try_wait().unwrap() {
                return code.success().then_some(()).ok_or_else(|| read(&mut group));
            }
            let prints = fs::metadata(&printed).unwrap().len() > 0;
            if prints || feed.as_ref().is_some_and(|feed| is_viewed(&server.plain, feed)) {
                self.following.push((line, printed, group));
                return Ok(());
            }
            if since.elapsed() > Duration::from_secs(20) {
                return Err("neither ends nor prints anything".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends clients that follow, once each has printed something, as of clients that write after it, or has ended well.
    fn clear(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        for (line, printed, mut group) in self.following.drain(..) {
            let since = Instant::now();
            let mut has_ended = || group.0.try_wait().unwrap().is_some_and(|code| code.success());
            while fs::metadata(&printed).unwrap().len() == 0 && !has_ended() {
                if since.elapsed() > Duration::from_secs(20) {
                    problems.push(format!("{line}\n    prints nothing"));
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        problems
    }

    /// Starts a line; what it prints goes to the file.
    fn start(&self, line: &str, name: &str) -> (PathBuf, Group) {
        let printed = self.folder.path().join(name);
        (printed.clone(), Group(self.command(line).stdout(File::create(printed).unwrap()).spawn().unwrap()))
    }

    fn command(&self, line: &str) -> Command {
        let folder = self.folder.path();
        // As `h3cast` sets it, but through a shell.
        let ours = h3cast(folder, &[]);
        let mut command = Command::new("sh");
        command.current_dir(folder).args(["-c", line]).process_group(0);
        for (name, value) in ours.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", folder.join("bin").display()));
        // `publish` has something to publish.
        let typed = folder.join("typed");
        fs::write(&typed, "hello\n").unwrap();
        command.stdin(File::open(typed).unwrap()).stderr(Stdio::piped());
        command
    }

    fn serve(&self, line: &str) -> Result<Server, String> {
        let mut command = self.command(line);
        command.env("H3CAST_LISTEN", "localhost:0").env("H3CAST_HTTP", "localhost:0");
        let mut group = Group(command.stdout(Stdio::piped()).spawn().unwrap());
        let (mut plain, mut https) = (None, None);
        for announced in BufReader::new(group.0.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let mut words = announced.split_whitespace();
            if announced.starts_with("ready http://") {
                plain = words.nth(1).map(|url| url.trim_start_matches("http://").trim_end_matches('/').to_owned());
            } else if https.is_none() {
                https = words.find(|word| word.starts_with("https://") && word.ends_with('/')).map(str::to_owned);
            }
            if let (Some(plain), Some(https)) = (&plain, &https) {
                // What it still says is of no use, and must not stop it.
                let mut log = group.0.stderr.take().unwrap();
                std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
                return Ok(Server { plain: plain.clone(), https: https.clone(), _group: group });
            }
        }
        Err(read(&mut group))
    }
}

fn ended(mut group: Group) -> Result<(ExitStatus, String), String> {
    let said = read(&mut group);
    Ok((group.0.wait().map_err(|error| error.to_string())?, said))
}

fn read(group: &mut Group) -> String {
    let mut said = String::new();
    if let Some(stderr) = &mut group.0.stderr {
        let _ = stderr.read_to_string(&mut said);
    }
    said
}

fn is_viewed(plain: &str, feed: &str) -> bool {
    let mut stream = TcpStream::connect(plain).unwrap();
    stream.write_all(format!("GET /feeds HTTP/1.1\r\nhost: {plain}\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let feeds: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap_or("null")).unwrap();
    feeds["feeds"].as_array().is_some_and(|feeds| feeds.iter().any(|it| it["name"] == feed && it["viewers"] != 0))
}
