//! The examples as a reader runs them. `cargo test` builds them; `cargo test --test examples` alone
//! needs `cargo build --examples` first.
#![cfg(feature = "cli")]

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn example(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_h3cast")).with_file_name("examples").join(name);
    assert!(program.is_file(), "{} is not built: cargo build --examples", program.display());
    program
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn both_ways_of_streaming_read_by_the_client_example() {
    let dir = tempfile::tempdir().unwrap();
    let expected: String = (0..10).map(|number| format!("data chunk #{number}\n")).collect();
    for name in ["response_stream", "takeover"] {
        let mut command = Command::new(example(name));
        let child = command.current_dir(dir.path()).arg("localhost:0").stdout(Stdio::piped()).spawn().unwrap();
        let mut server = Running(child);
        let mut line = String::new();
        BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("ready ").unwrap();
        let got = Command::new(example("client")).current_dir(dir.path()).arg(url).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&got.stdout), expected, "{name}: {}", String::from_utf8_lossy(&got.stderr));
        assert!(got.status.success());
    }
}
