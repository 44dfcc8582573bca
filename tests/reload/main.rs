//! The program as it is looked after while it serves: its settings are read again, and its health is asked.
#![cfg(all(feature = "cli", target_os = "linux"))]

#[path = "../common/mod.rs"]
mod common;
mod effects;
mod health;
mod load;
#[path = "../common/serving.rs"]
mod serving;
mod settings;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use serving::Serving;

/// A token that may read everything.
const TOKEN: &str = "a-token-that-reads-everything";

/// `h3cast reload`, with what else it is given, as the user of that server.
fn reload(server: &Serving, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h3cast"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("H3CAST_")) {
        command.env_remove(name);
    }
    command.env("HOME", server.dir()).env_remove("XDG_RUNTIME_DIR").env_remove("XDG_STATE_HOME");
    command.current_dir(server.dir()).arg("reload").args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What it prints, if it succeeds, without the server that it names.
fn reloaded(server: &Serving) -> String {
    let output = reload(server, &[]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let named = format!(" (server {} at ", server.id());
    let (what, rest) = text.split_once(&named).unwrap_or_else(|| panic!("it does not name the server: {text}"));
    let (path, rest) = rest.split_once(")\n").unwrap();
    assert!(path.ends_with(".sock"), "{text}");
    format!("{what}\n{rest}")
}

/// What it reports, if it fails.
fn refused(server: &Serving) -> String {
    let output = reload(server, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Writes a file whole, as an editor does, for its user alone.
fn write(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let partial = folder.join(format!("{name}.part"));
    std::fs::write(&partial, text).unwrap();
    std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(partial, folder.join(name)).unwrap();
}
