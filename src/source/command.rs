//! What a command prints.

use std::{
    collections::BTreeSet,
    process::{ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::stream;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tracing::{info, warn};

use super::{
    SourceError,
    chunker::{Chunker, Chunking},
    publish,
};
use crate::feed::{End, Feed, FeedError, Publisher};

/// How long to wait before a command is run again, at first and at most. It doubles each time that
/// the command ends sooner than [`STEADY`].
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
const STEADY: Duration = Duration::from_secs(60);

/// The groups of the commands that run, for an exit that drops nothing.
#[cfg(unix)]
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

#[cfg(unix)]
fn groups() -> MutexGuard<'static, BTreeSet<i32>> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every command that runs, before the process exits without an orderly end.
#[cfg(feature = "cli")]
pub(crate) fn kill_all() {
    #[cfg(unix)]
    for group in groups().iter().filter_map(|group| rustix::process::Pid::from_raw(*group)) {
        // An error means that nobody is left there.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// A running command. Dropping it kills it and all that it has started.
struct Running {
    child: Child,
    stdout: Option<ChildStdout>,
    /// The group that it leads; others of it may be there when it has ended itself.
    #[cfg(unix)]
    group: Option<rustix::process::Pid>,
}

impl Running {
    fn start(name: &str, shell: &str) -> Result<Self, SourceError> {
        let mut command = match cfg!(windows) {
            true => Command::new("cmd"),
            false => Command::new("sh"),
        };
        command.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(shell);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A group of its own, to be killed as one.
        #[cfg(unix)]
        command.process_group(0);
        let mut child =
            command.spawn().map_err(|source| SourceError::new(name, "cannot run", format!("`{shell}`"), source))?;
        if let Some(stderr) = child.stderr.take() {
            // Ends with the command's own end of the pipe.
            tokio::spawn(log(name.to_owned(), stderr));
        }
        let stdout = child.stdout.take();
        #[cfg(unix)]
        let group = child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        #[cfg(unix)]
        groups().extend(group.map(|group| group.as_raw_nonzero().get()));
        Ok(Self {
            child,
            stdout,
            #[cfg(unix)]
            group,
        })
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(group) = self.group {
            // An error means that nobody is left there.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            groups().remove(&group.as_raw_nonzero().get());
        }
    }
}

/// Logs what a command says on standard error.
async fn log(name: String, stderr: ChildStderr) {
    // As bounded as what it prints.
    let mut lines = Chunker::new(stderr, Chunking::Lines);
    while let Ok(Some(line)) = lines.next().await {
        info!(feed = name, "{}", String::from_utf8_lossy(&line).trim_end());
    }
}

fn end_of(status: std::io::Result<ExitStatus>) -> End {
    match status {
        Ok(status) if status.success() => End::Clean,
        Ok(status) => End::Failed(FeedError(format!("the command ended with {status}"))),
        Err(error) => End::Failed(FeedError(format!("the command was lost: {error}"))),
    }
}

/// Runs a command for all viewers, again and again if it is to be.
pub(super) fn feed(
    name: &str,
    shell: String,
    chunking: Chunking,
    restart: bool,
    publisher: Publisher,
) -> Result<impl Future<Output = ()> + Send + use<>, SourceError> {
    let mut running = Running::start(name, &shell)?;
    let name = name.to_owned();
    Ok(async move {
        let mut pause = BACKOFF.0;
        loop {
            let begun = Instant::now();
            if let Some(stdout) = running.stdout.take() {
                // What it ends with is told below.
                let _ = publish(stdout, chunking, &publisher).await;
            }
            let end = end_of(running.wait().await);
            // With what it has left behind, before another one needs what that holds.
            drop(running);
            if !restart {
                return publisher.end(end);
            }
            pause = if begun.elapsed() >= STEADY { BACKOFF.0 } else { (pause * 2).min(BACKOFF.1) };
            warn!(feed = name, ?end, ?pause, "the command has ended and will be run again");
            tokio::time::sleep(pause).await;
            running = match Running::start(&name, &shell) {
                Ok(running) => running,
                Err(error) => return publisher.end(End::Failed(FeedError(error.to_string()))),
            };
        }
    })
}

/// Runs a command for each viewer, and kills it with its viewer.
pub(super) fn per_viewer(name: &str, shell: String, chunking: Chunking) -> Result<Feed, SourceError> {
    let for_errors = name.to_owned();
    Ok(Feed::on_demand(name, move || {
        let started = Running::start(&for_errors, &shell).map(|mut running| {
            let chunks = running.stdout.take().map(|stdout| Chunker::new(stdout, chunking));
            (running, chunks)
        });
        stream::unfold(Some(started), |state| async move {
            let (mut running, mut chunks) = match state? {
                Ok(state) => state,
                Err(error) => return Some((Err(FeedError(error.to_string())), None)),
            };
            let next = match &mut chunks {
                Some(chunks) => chunks.next().await.ok().flatten(),
                None => None,
            };
            match next {
                Some(chunk) => Some((Ok(chunk), Some(Ok((running, chunks))))),
                None => match end_of(running.wait().await) {
                    End::Clean => None,
                    End::Failed(error) => Some((Err(error), None)),
                    End::Stopped => None,
                },
            }
        })
    }))
}
