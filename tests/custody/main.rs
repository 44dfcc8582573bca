//! Files of the user are theirs: certificates, keys, and whom a client trusts.
#![cfg(all(feature = "cli", unix))]

mod access;
mod files;
mod folder;
mod note;
mod own;
mod part;
#[path = "../common/program.rs"]
mod program;
mod trust;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use program::{Program, output, text};

/// What every server here is started with: no port that another test could want.
const FREE: [&str; 4] = ["--listen", "localhost:0", "--http", "off"];

/// Runs `openssl`, with `arguments` separated by spaces.
fn openssl(dir: &Path, arguments: &str) {
    let done = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output();
    let done = done.expect("openssl is installed by tests/run debian");
    assert!(done.status.success(), "openssl {arguments}: {}", text(&done.stderr));
}

/// A self-signed certificate for localhost and its key: `NAME.pem` and `NAME.key`.
fn own(dir: &Path, name: &str, key: &str, days: u32) {
    openssl(dir, &format!("genpkey {key} -out {name}.key"));
    let subject = "-subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1";
    openssl(dir, &format!("req -x509 -key {name}.key -out {name}.pem -days {days} {subject}"));
}

const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";

/// All that is in a folder: for each name its kind, mode, and content or target.
fn snapshot(dir: &Path) -> BTreeMap<String, (String, u32, Vec<u8>)> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(Result::unwrap);
    entries
        .map(|entry| {
            let (path, metadata) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let kind = format!("{:?}", metadata.file_type());
            let content = match metadata {
                ref link if link.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                ref file if file.is_file() => fs::read(&path).unwrap(),
                _ => Vec::new(),
            };
            let name = entry.file_name().into_string().unwrap();
            (name, (kind, metadata.permissions().mode(), content))
        })
        .collect()
}

/// A server that announced where it is.
struct Serving {
    program: Program,
    port: u16,
}

impl Serving {
    async fn start(dir: &Path, args: &[&str]) -> Self {
        Self::of(program::command(dir, &[&["serve"], args].concat()), dir).await
    }

    /// A server that a command runs.
    async fn of(mut command: tokio::process::Command, dir: &Path) -> Self {
        // No notes of the user who runs the tests.
        command.env("HOME", dir).env("XDG_RUNTIME_DIR", dir.join("run"));
        let mut program = Program::of(command);
        let line = program.line().await;
        let Some(port) = line.trim().trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok()) else {
            let (_, stderr, code) = program.end().await;
            panic!("no server: {line}{stderr} ({code:?})");
        };
        Self { program, port }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/stream", self.port)
    }
}

/// Starts a server that must refuse: what it says.
async fn refused(dir: &Path, args: &[&str]) -> String {
    let got = output(dir, &[&["serve"], args].concat()).await;
    assert_eq!(got.status.code(), Some(2), "{args:?}: {}{}", text(&got.stdout), text(&got.stderr));
    assert_eq!(text(&got.stdout), "", "{args:?}");
    text(&got.stderr)
}

/// The program, run by a user who owns nothing.
fn as_nobody(dir: &Path, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_h3cast")]);
    command.current_dir(dir).args(args).stdin(std::process::Stdio::null()).kill_on_drop(true);
    command
}

/// Waits until a program has stopped, as `H3CAST_FAULT=PLACE=stop` asks.
#[cfg(all(target_os = "linux", debug_assertions))]
async fn stopped(program: &Program) {
    let stat = format!("/proc/{}/stat", program.id());
    program::soon("it stops", async {
        while !fs::read_to_string(&stat).is_ok_and(|stat| stat.rsplit(')').next().unwrap().starts_with(" T")) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}
