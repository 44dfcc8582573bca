//! The program, run beside a test.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
};

/// How long a test waits for an event before it calls it missing: QUIC takes 30 s to call a
/// connection lost.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// Waits for an event, or fails the test.
pub async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, event).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen within {DEADLINE:?}: {what}"),
    }
}

pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    command.current_dir(dir).args(args).stdin(Stdio::null()).kill_on_drop(true);
    // Its notes are for the test alone.
    command.env("HOME", dir).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a command of the program to its end.
pub async fn output(dir: &Path, args: &[&str]) -> Output {
    soon("the program ends", command(dir, args).output()).await.unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A command that runs; killed when dropped.
pub struct Program {
    child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: BufReader<ChildStdout>,
    pub stderr: Lines<BufReader<ChildStderr>>,
}

impl Program {
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::of(command(dir, args))
    }

    /// Runs a command that has been prepared.
    pub fn of(mut command: Command) -> Self {
        let pipe = Stdio::piped;
        let mut child = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { stdin: child.stdin.take(), child, stdout, stderr }
    }

    /// A line of standard output.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        soon("a line", self.stdout.read_line(&mut line)).await.unwrap();
        line
    }

    /// Waits for a line on standard error that has this in it.
    pub async fn told(&mut self, what: &str) -> String {
        self.told_after(what, |_| true).await.pop().unwrap_or_default()
    }

    /// Waits for a line on standard error that has this in it and is the one that is meant. Gives all lines that have
    /// it, that one last.
    pub async fn told_after(&mut self, what: &str, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let (mut all, mut having) = (String::new(), Vec::new());
        loop {
            match soon(&format!("`{what}` is told after:\n{all}"), self.stderr.next_line()).await.unwrap() {
                Some(line) if line.contains(what) => {
                    let ends = is_meant(&line);
                    all += &format!("{line}\n");
                    having.push(line);
                    if ends {
                        return having;
                    }
                }
                Some(line) => all += &(line + "\n"),
                None => panic!("`{what}` was not told:\n{all}"),
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("it has not ended")
    }

    pub fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        assert!(std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Ends it without a word, as by `kill -9`.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Closes its output. What it then says on standard error, and its exit code.
    pub async fn unread(self) -> (String, Option<i32>) {
        let Self { mut child, stdin: _stdin, stdout, mut stderr } = self;
        drop(stdout);
        let mut told = String::new();
        while let Some(line) = soon("its end", stderr.next_line()).await.unwrap() {
            told += &(line + "\n");
        }
        (told, soon("its exit", child.wait()).await.unwrap().code())
    }

    /// What is left of its output, and its exit code.
    pub async fn end(mut self) -> (Vec<u8>, String, Option<i32>) {
        drop(self.stdin.take());
        let (mut out, mut err) = (Vec::new(), String::new());
        let stdout = self.stdout.read_to_end(&mut out);
        let stderr = async {
            while let Some(line) = self.stderr.next_line().await.unwrap() {
                err += &(line + "\n");
            }
        };
        soon("its end", async { tokio::join!(stdout, stderr).0 }).await.unwrap();
        let status = soon("its exit", self.child.wait()).await.unwrap();
        (out, err, status.code())
    }
}

/// A server, as a program.
pub struct Serving {
    pub program: Program,
    pub port: u16,
}

impl Serving {
    /// Serves on that port, or on a free one (0).
    pub async fn start(dir: &Path, port: u16, args: &[&str]) -> Self {
        let listen = format!("localhost:{port}");
        let args = [&["serve", "--listen", &listen, "--http", "off"], args].concat();
        Self::of(Program::start(dir, &args)).await
    }

    /// Waits until it is ready.
    pub async fn of(mut program: Program) -> Self {
        let line = program.line().await;
        let port = line.trim().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        match port {
            Some(port) => Self { program, port },
            None => {
                let (_, told, code) = program.end().await;
                panic!("it did not start: {line}exit code {code:?}, after:\n{told}");
            }
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }
}
