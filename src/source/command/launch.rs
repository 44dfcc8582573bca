//! How a command is started: its shell, environment, limits, session and pipes.

use std::{
    io::{self, PipeWriter},
    process::Stdio,
};

use tokio::process::{ChildStderr, ChildStdin, Command};

use super::Exec;
use crate::{child, source::chunker::Chunking};

/// What a command prints, with both its descriptors on one pipe if they are to be interleaved.
#[cfg(unix)]
pub(super) type Output = tokio::net::unix::pipe::Receiver;
/// Windows has no pipe of this kind that can be polled: each read is a blocking one on a thread for that.
#[cfg(not(unix))]
pub(super) type Output = tokio::fs::File;

#[cfg(unix)]
pub(super) type Process = Box<dyn process_wrap::tokio::ChildWrapper>;
#[cfg(not(unix))]
pub(super) type Process = tokio::process::Child;

/// Where a command's standard error goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stderr {
    /// Into its feed, interleaved with standard output as in a terminal.
    #[default]
    Feed,
    /// Into the log.
    Log,
}

impl Stderr {
    /// Where it goes if nothing else was said: text belongs together, bytes may be a format of their own.
    #[must_use]
    pub fn of(chunking: Chunking) -> Self {
        match chunking {
            Chunking::Lines => Self::Feed,
            Chunking::Bytes => Self::Log,
        }
    }
}

/// A command that has been started.
pub(super) struct Launched {
    pub(super) process: Process,
    pub(super) output: Output,
    /// Standard error, when it is not part of the output.
    pub(super) stderr: Option<ChildStderr>,
    /// Standard input, if there is any.
    pub(super) stdin: Option<ChildStdin>,
}

/// Sets the soft limit of open files back to `$1` and becomes the shell of the command, so that its
/// process id, its `$0` and its arguments are those that it has without this.
#[cfg(unix)]
const WITH_LIMIT: &str = r#"ulimit -S -n "$1"; exec sh -c "$2""#;

/// Sees to it that ended commands are there to be waited for: who started this process may have it ignore
/// SIGCHLD, and the system then forgets how they ended.
#[cfg(unix)]
fn wait_for_children() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        use tokio::signal::unix::{SignalKind, signal};
        // What handles it stays when this is dropped.
        if let Err(error) = signal(SignalKind::child()) {
            tracing::warn!(%error, "cannot handle SIGCHLD: the exit status of commands may stay unknown");
        }
    });
}

/// Starts a command, with this soft limit of open files if it is another than ours.
pub(super) fn launch(exec: &Exec, files: Option<u64>) -> io::Result<Launched> {
    #[cfg(unix)]
    wait_for_children();
    let mut command = command(&exec.shell, files);
    child::clear(command.as_std_mut());
    let (output, writer) = io::pipe()?;
    match exec.stderr {
        // One pipe for both: their order is the one in which they were written.
        Stderr::Feed => command.stderr(Stdio::from(writer.try_clone()?)),
        Stderr::Log => command.stderr(Stdio::piped()),
    };
    command.stdin(if exec.input { Stdio::piped() } else { Stdio::null() }).kill_on_drop(true);
    #[cfg(unix)]
    let output = Output::from_owned_fd(output.into())?;
    #[cfg(not(unix))]
    let output = Output::from_std(std::os::windows::io::OwnedHandle::from(output).into());
    let mut process = spawn(command, writer)?;
    #[cfg(unix)]
    let (stderr, stdin) = (process.stderr().take(), process.stdin().take());
    #[cfg(not(unix))]
    let (stderr, stdin) = (process.stderr.take(), process.stdin.take());
    Ok(Launched { process, output, stderr, stdin })
}

#[cfg(unix)]
fn command(shell: &str, files: Option<u64>) -> Command {
    let mut command = Command::new("sh");
    match files {
        None => command.args(["-c", shell]),
        Some(files) => command.args(["-c", WITH_LIMIT, "sh", &files.to_string(), shell]),
    };
    command
}

#[cfg(not(unix))]
fn command(shell: &str, _files: Option<u64>) -> Command {
    let mut command = Command::new("cmd");
    command.arg("/C").arg(shell);
    command
}

/// Starts it in a session of its own: it has no terminal to ask, and leads a group that is ended as one.
/// All our ends of its pipes are closed afterwards, so that the output ends when the command's do.
#[cfg(unix)]
fn spawn(mut command: Command, output: PipeWriter) -> io::Result<Process> {
    use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessSession};
    command.stdout(Stdio::from(output));
    let process = CommandWrap::from(command).wrap(ProcessSession).spawn()?;
    // The group is our keeper's business: this wrapper's `wait` would take a thread for what is left of it.
    Ok(ChildWrapper::into_inner(process))
}

#[cfg(not(unix))]
fn spawn(mut command: Command, output: PipeWriter) -> io::Result<Process> {
    command.stdout(Stdio::from(output)).spawn()
}
