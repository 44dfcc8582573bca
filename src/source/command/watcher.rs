//! Ends commands for a server that cannot any more: one that was killed (SIGKILL, the kernel's out-of-memory
//! killer). A child process reads which groups run from a pipe, whose end means that the server is gone.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
};

/// Reads `+GROUP` and `-GROUP`. At the end it ends those that are left as a server that stops does; after an
/// orderly end there are none.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM PIPE
running=' '
while read -r change group; do
  case $change in
    +) running="$running$group " ;;
    -) running="${running%% $group *} ${running#* $group }" ;;
  esac
done
ask() {
  for group in $running; do kill -s "$1" -- "-$group"; done 2>/dev/null
}
case $running in *[0-9]*) ask TERM; ask CONT; sleep 2; ask KILL ;; esac
"#;

/// The process that watches. It ends when this is dropped, or this process is gone.
#[derive(Debug)]
pub(super) struct Watcher(Child);

impl Watcher {
    pub(super) fn start() -> io::Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "h3cast-watcher"]).env_clear().env("PATH", path).current_dir("/");
        // A group of its own: what is sent to ours, as by Ctrl-C, is not for it.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        if let Some(pipe) = &child.stdin {
            // If it does not read, it is to be given up, not waited for.
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        Ok(Self(child))
    }

    #[cfg(all(test, feature = "cli"))]
    pub(super) fn of(child: Child) -> Self {
        Self(child)
    }

    /// Lets it come to its end.
    #[cfg(all(test, feature = "cli"))]
    pub(super) fn close(&mut self) {
        self.0.stdin = None;
    }

    /// A group has begun.
    pub(super) fn add(&mut self, group: i32) -> io::Result<()> {
        self.write('+', group)
    }

    /// A group has ended.
    pub(super) fn remove(&mut self, group: i32) -> io::Result<()> {
        self.write('-', group)
    }

    fn write(&mut self, change: char, group: i32) -> io::Result<()> {
        // One write, less than what a pipe takes as a whole or not at all.
        let line = format!("{change} {group}\n");
        self.0.stdin.as_mut().map_or(Ok(()), |pipe| pipe.write_all(line.as_bytes()))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // What does not read its pipe does not see the end of it either.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
