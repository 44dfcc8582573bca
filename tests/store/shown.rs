//! The guide, typed by a newcomer: every command of docs/storage.md, after those of README.md that have a store, one
//! after another in one folder. A server stays in its terminal until the text has it stopped with Ctrl-C; all else runs
//! in another terminal, and ends well.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long something may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the documents have the server. The one that was started first has this port.
const SHOWN: &str = "https://localhost:4433/";

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Type(String),
    /// Ctrl-C in the terminal of the server that was started last.
    Stop,
}

/// What a reader does, in the order of the text.
fn steps(text: &str) -> Vec<Step> {
    let (mut steps, mut is_code) = (Vec::new(), false);
    for line in text.lines() {
        match line {
            "```sh" => is_code = true,
            "```" => is_code = false,
            line if is_code => steps.push(Step::Type(line.to_owned())),
            line if line.contains("Ctrl-C") => steps.push(Step::Stop),
            _ => {}
        }
    }
    steps
}

#[test]
fn every_command_that_is_shown_works() {
    let of_readme = steps(include_str!("../../README.md"));
    let with_store = |step: &Step| matches!(step, Step::Type(line) if line.contains("--store"));
    let first: Vec<_> = of_readme.into_iter().filter(with_store).collect();
    assert_eq!(first.len(), 1, "{first:?}");
    let guide = include_str!("../../docs/storage.md");
    let of_guide = steps(guide);
    let servers = of_guide.iter().filter(|step| with_store(step)).count();
    assert!(servers >= 4 && of_guide.len() > 2 * servers, "{of_guide:?}");
    // What is shown within a sentence would not be run.
    for word in guide.split('`').skip(1).step_by(2) {
        let is_command = ["h3cast ", "sed ", "cp "].iter().any(|begin| word.starts_with(begin));
        assert!(!is_command || word.split(' ').count() == 2, "not in a block: {word}");
    }

    let mut desk = Desk { folder: tempfile::tempdir().unwrap(), servers: Vec::new(), urls: Vec::new() };
    let mut printed = String::new();
    for step in first.into_iter().chain(of_guide) {
        match step {
            Step::Stop => desk.stop(),
            Step::Type(line) if line.starts_with("h3cast serve") => desk.serve(&line),
            Step::Type(line) => printed += &desk.run(&line),
        }
    }
    desk.stop();
    assert!(desk.servers.is_empty(), "the guide leaves a server running");
    // The line that was published, after a restart, and of the backup.
    assert_eq!(printed.matches("hello\n").count(), 2, "{printed}");
}

/// A folder, and the terminals in which servers run.
struct Desk {
    folder: tempfile::TempDir,
    servers: Vec<(String, Child)>,
    /// Where each of them is.
    urls: Vec<String>,
}

impl Desk {
    fn command(&self, line: &str) -> Command {
        let folder = self.folder.path();
        let program = Path::new(env!("CARGO_BIN_EXE_h3cast"));
        let mut command = Command::new("sh");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
            command.env_remove(name);
        }
        let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("HOME", folder).env("XDG_RUNTIME_DIR", folder);
        // A port may be in use here that is free on a newcomer's machine.
        command.env("H3CAST_LISTEN", "localhost:0").env("H3CAST_HTTP", "localhost:0");
        command.current_dir(folder).args(["-c", line]).stdin(Stdio::null());
        command
    }

    /// Starts a server, and waits until it serves.
    fn serve(&mut self, line: &str) {
        let [out, err] = ["out", "err"].map(|name| self.folder.path().join(name));
        let mut command = self.command(&format!("exec {line}"));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        let mut server = command.spawn().unwrap();
        let since = Instant::now();
        let url = loop {
            let printed = fs::read_to_string(&out).unwrap();
            let mut words = printed.split_whitespace();
            if printed.contains("/stream/")
                && let Some(url) = words.find(|word| word.starts_with("https://") && word.ends_with('/'))
            {
                break url.to_owned();
            }
            let said = || fs::read_to_string(&err).unwrap();
            assert_eq!(server.try_wait().unwrap(), None, "{line}\n{}", said());
            if since.elapsed() > PATIENCE {
                let _ = server.kill();
                panic!("{line}\ndoes not serve: {}", said());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        self.servers.push((line.to_owned(), server));
        self.urls.push(url);
    }

    fn stop(&mut self) {
        let (line, mut server) = self.servers.pop().expect("a server is stopped, and none runs");
        self.urls.pop();
        let pid = server.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        let ended = server.wait().unwrap();
        assert_eq!(ended.code(), Some(0), "{line}\nended with {ended}");
    }

    /// Runs something else to its end: what it has printed.
    fn run(&self, line: &str) -> String {
        let here = match self.urls.first() {
            Some(url) => line.replace(SHOWN, url),
            None => line.to_owned(),
        };
        let limited = format!("timeout {} {here}", PATIENCE.as_secs());
        // Of a pipe, the last command is the one that may not end.
        let limited = match here.rsplit_once("| ") {
            Some((before, last)) => format!("{before}| timeout {} {last}", PATIENCE.as_secs()),
            None => limited,
        };
        let Output { status, stdout, stderr } = self.command(&limited).output().unwrap();
        assert!(status.success(), "{line}\n{status}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for (_, server) in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
