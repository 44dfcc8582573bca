//! What the programs that this one starts do not inherit.

use std::{ffi::OsStr, process::Command, sync::OnceLock};

/// The soft limit of open files that this process was started with, once it has raised its own.
static OPEN_FILES: OnceLock<u64> = OnceLock::new();

/// Has programs start with this soft limit of open files (RLIMIT_NOFILE).
#[cfg(all(unix, feature = "cli"))]
pub(crate) fn keep_open_files(soft: u64) {
    let _ = OPEN_FILES.set(soft);
}

/// The command that runs a program without our settings, secrets and limits. Its process is the program's.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = match OPEN_FILES.get() {
        Some(files) if cfg!(unix) => {
            let mut command = Command::new("sh");
            // The files' limit is the shell's to set: between fork and exec nothing of ours may run.
            command.args(["-c", r#"ulimit -S -n "$0"; exec "$@""#]).arg(files.to_string()).arg(program);
            command
        }
        _ => Command::new(program),
    };
    clear(&mut command);
    command
}

/// What systemd tells this process alone: a command that answered it would answer for the server.
const OF_SYSTEMD: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];

/// Where the secrets of this process go: a command would write its own there, or read ours.
const KEY_LOG: &str = "SSLKEYLOGFILE";

/// Removes our settings from a command's environment: some are secrets.
pub(crate) fn clear(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("H3CAST_") {
            command.env_remove(name);
        }
    }
    OF_SYSTEMD.iter().chain([&KEY_LOG]).for_each(|name| _ = command.env_remove(name));
}
