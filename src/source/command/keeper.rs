//! Who ends a command, and sees to it that it has ended.

use std::{io, pin::pin, process::ExitStatus, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{
    process::{ChildStderr, ChildStdin},
    sync::oneshot::{self, error::TryRecvError},
    task::{JoinHandle, unconstrained},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::{
    Commands, Exec,
    commands::Counted,
    group::Group,
    launch::{self, Launched, Output, Process},
    silence::{Heard, Silence},
};
use crate::{
    fault,
    feed::Share,
    source::{
        TOGETHER,
        chunker::{Chunker, Chunking},
    },
};

/// How long a command has to end after it was asked to (SIGTERM), before it is killed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take to be gone when it was killed.
const KILLED: Duration = Duration::from_secs(1);
/// How long to wait for what a command has written before it ended, when something that has left its group
/// holds its pipe open.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How much is read of that at most: more than a pipe holds (1 MiB, unless root has asked for more).
const LAST_BYTES: usize = 2 << 20;
/// How often to look whether a group is empty, at most. Nobody tells.
const LOOK: Duration = Duration::from_millis(20);

/// A command cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot run `{shell}`: {source}")]
pub(super) struct CannotRun {
    shell: String,
    source: io::Error,
}

/// How a command has ended.
#[derive(Debug)]
pub(super) enum Ended {
    ByItself(io::Result<ExitStatus>, Rest),
    /// It was asked to, because the server stops.
    Stopped,
    /// Nobody knows.
    Lost,
}

/// What kept the output of a command open when it had exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing: all that was printed has been read.
    Nothing,
    /// Processes of its group, which were ended since they were silent: what they had still to print is lost.
    Ended,
    /// The same, since the server stops or no one reads any more.
    Stopped,
    /// Processes that aren't in its group, and can't be ended.
    Escaped,
}

/// A running command and what it prints. When this is dropped, its keeper ends it.
pub(super) struct Running {
    /// `None` at its end.
    chunks: Option<Chunker<Heard<Output>>>,
    silence: Silence,
    /// All that can be printed has been read.
    complete: bool,
    ended: Option<Ended>,
    ended_rx: oneshot::Receiver<Ended>,
    /// How much is still read after the end, and until when more is waited for.
    last: (usize, Option<Instant>),
    drained: CancellationToken,
    keeper: JoinHandle<()>,
    /// Takes what is not read here any more.
    rest_tx: Option<oneshot::Sender<Chunker<Heard<Output>>>>,
    /// Until it is taken.
    stdin: Option<ChildStdin>,
    _unwanted: DropGuard,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The keeper holds the pipe open: what a command prints while it cleans up is not to kill it (SIGPIPE).
        if let (Some(chunks), Some(rest_tx)) = (self.chunks.take(), self.rest_tx.take()) {
            let _ = rest_tx.send(chunks);
        }
    }
}

impl Running {
    /// Starts it; `place` is given back when it has ended.
    pub(super) fn start(exec: &Exec, place: Option<Share>) -> Result<Self, CannotRun> {
        let Exec { name, shell, chunking, commands, .. } = exec;
        let shared = &commands.0;
        let start = || match shared.stopping.is_cancelled() {
            true => Err(io::Error::other("the server is shutting down")),
            false => fault::fallible("command").and_then(|()| launch::launch(exec, shared.files)),
        };
        let (launched, group) = Group::start(start, |launched: &Launched| &launched.process)
            .map_err(|source| CannotRun { shell: shell.clone(), source })?;
        let Launched { process, output, stderr, stdin } = launched;
        let (drained, unwanted) = (CancellationToken::new(), CancellationToken::new());
        let (ended_tx, ended_rx) = oneshot::channel();
        let silence = Silence::default();
        let (rest_tx, rest_rx) = oneshot::channel();
        let keeper = CommandKeeper {
            name: name.clone(),
            process,
            group,
            silence: silence.clone(),
            log: stderr.map(|stderr| shared.running.spawn(log(name.clone(), stderr))),
            drained: drained.clone(),
            unwanted: unwanted.clone(),
            commands: commands.clone(),
            _counted: Counted::one(&shared.processes),
            _place: place,
        };
        Ok(Self {
            chunks: Some(Chunker::new(Heard::new(output, silence.clone()), *chunking)),
            silence,
            complete: false,
            ended: None,
            ended_rx,
            last: (LAST_BYTES, None),
            drained,
            keeper: shared.running.spawn(draining(keeper.keep(ended_tx), rest_rx)),
            rest_tx: Some(rest_tx),
            stdin,
            _unwanted: unwanted.drop_guard(),
        })
    }

    /// Its standard input, if it has any. Dropped, it ends.
    pub(super) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// A chunk that it has printed, and those after it that are there.
    pub(super) fn with_next(&mut self, chunk: Bytes) -> Vec<Bytes> {
        let mut bytes = chunk.len();
        let mut together = vec![chunk];
        while together.len() < TOGETHER.0
            && bytes < TOGETHER.1
            && let Some(Some(chunk)) = self.next().now_or_never()
        {
            bytes += chunk.len();
            together.push(chunk);
        }
        together
    }

    /// The next chunk of what it prints; `None` when there is no more.
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let chunks = self.chunks.as_mut()?;
        let next = loop {
            if self.ended.is_none() {
                // What never stops printing is never waited for below.
                self.ended = match self.ended_rx.try_recv() {
                    Ok(ended) => Some(ended),
                    Err(TryRecvError::Empty) => None,
                    Err(TryRecvError::Closed) => Some(Ended::Lost),
                };
            }
            if self.ended.is_some() {
                // Its last words are in the pipe, and given whenever they are asked for. Whoever still prints is no
                // part of it.
                let until = *self.last.1.get_or_insert_with(|| Instant::now() + LAST_WORDS);
                // On Windows each read takes a while.
                let until = if cfg!(unix) { until } else { Instant::now() + LAST_WORDS };
                let Ok(last) = unconstrained(timeout_at(until, chunks.next())).await else { break Ok(None) };
                let length = last.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
                let Some(left) = self.last.0.checked_sub(length) else { break Ok(None) };
                self.last.0 = left;
                self.complete = matches!(last, Ok(None));
                break last;
            }
            tokio::select! {
                biased;
                next = chunks.next() => {
                    self.complete = matches!(next, Ok(None));
                    break next;
                }
                ended = &mut self.ended_rx => self.ended = Some(ended.unwrap_or(Ended::Lost)),
            }
        };
        if let Ok(Some(chunk)) = next {
            return Some(chunk);
        }
        self.drained.cancel();
        self.chunks.take().map(Chunker::rest).filter(|rest| !rest.is_empty())
    }

    /// How it has ended, once there is nothing more of it.
    pub(super) async fn end(&mut self) -> Ended {
        let ended = match self.ended.take() {
            Some(ended) => ended,
            None => (&mut self.ended_rx).await.unwrap_or(Ended::Lost),
        };
        match ended {
            // Only the reader knows whether something came from there. A daemon that is silent says nothing.
            Ended::ByItself(status, Rest::Escaped) if self.complete || self.silence.lasts(PATIENCE / 2) => {
                Ended::ByItself(status, Rest::Nothing)
            }
            ended => ended,
        }
    }

    /// Waits until what it has left behind has ended too.
    pub(super) async fn gone(mut self) {
        // Its panic has been told as an end.
        let _ = (&mut self.keeper).await;
    }
}

/// Owns the processes of a command, from their start until none is left.
struct CommandKeeper {
    /// The feed's name.
    name: String,
    process: Process,
    group: Group,
    /// For how long nothing has come of what it prints.
    silence: Silence,
    log: Option<JoinHandle<()>>,
    /// What it printed has been read to its end.
    drained: CancellationToken,
    /// Nobody reads what it prints any more.
    unwanted: CancellationToken,
    commands: Commands,
    _counted: Counted,
    _place: Option<Share>,
}

impl CommandKeeper {
    async fn keep(mut self, ended_tx: oneshot::Sender<Ended>) {
        fault::point("keeper");
        let status = tokio::select! {
            biased;
            status = self.process.wait() => Some(status),
            () = self.unwanted.cancelled() => None,
            () = self.commands.stopping() => None,
        };
        match status {
            Some(status) => self.end_rest(status, ended_tx).await,
            None => {
                self.end_all(false).await;
                end_log(self.log.take()).await;
                let _ = ended_tx.send(Ended::Stopped);
            }
        }
    }

    /// The command has exited. What it printed is still read, as is what the processes print that it left
    /// behind; those that are silent are ended.
    async fn end_rest(mut self, status: io::Result<ExitStatus>, ended_tx: oneshot::Sender<Ended>) {
        let (drained, unwanted, commands) = (self.drained.clone(), self.unwanted.clone(), self.commands.clone());
        let log = self.log.take();
        let left = tokio::select! {
            biased;
            () = drained.cancelled() => Rest::Nothing,
            () = unwanted.cancelled() => Rest::Stopped,
            () = commands.stopping() => Rest::Stopped,
            left = self.silent() => left,
        };
        if left == Rest::Ended {
            warn!(
                feed = self.name,
                "the command has exited, and processes that it left behind keep its output open without printing; \
                 ending them"
            );
        }
        let rest = async {
            if !self.group.is_empty() {
                self.end_all(true).await;
            }
        };
        tokio::pin!(rest);
        // Its end is known when all has been read, or nothing more of it can come.
        let over = tokio::select! {
            biased;
            () = drained.cancelled() => false,
            () = &mut rest => true,
        };
        end_log(log).await;
        // Whoever has gone does not want to know.
        let _ = ended_tx.send(Ended::ByItself(status, left));
        if !over {
            rest.await;
        }
    }

    /// Waits until what the command left behind has been silent for as long as it may. Processes that have
    /// left its group are not waited for: nothing here could end them.
    async fn silent(&mut self) -> Rest {
        let exited = Instant::now();
        let (mut alone, mut told, mut pause) = (None, false, Duration::from_millis(1));
        loop {
            // Looks at the group all the time: once it is empty, its number may be that of others.
            if self.group.is_empty() {
                if alone.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return Rest::Escaped;
                }
            } else if exited.elapsed() >= PATIENCE {
                if self.silence.lasts(PATIENCE) {
                    return Rest::Ended;
                }
                if !std::mem::replace(&mut told, true) {
                    info!(
                        feed = self.name,
                        "the command has exited, and processes that it left running still print; waiting for them"
                    );
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    }

    /// Asks all that is left to end, and kills what does not.
    async fn end_all(&mut self, mut exited: bool) {
        self.group.terminate();
        #[cfg(not(unix))]
        let _ = self.process.start_kill();
        if !self.is_gone(PATIENCE, &mut exited).await {
            self.group.kill();
            self.is_gone(KILLED, &mut exited).await;
        }
    }

    /// Waits until all has ended, for so long.
    async fn is_gone(&mut self, patience: Duration, exited: &mut bool) -> bool {
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(1);
        loop {
            *exited = *exited || !matches!(self.process.try_wait(), Ok(None));
            if *exited && self.group.is_empty() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LOOK);
        }
    }
}

/// Reads what nobody wants any more, for as long as `keeping` takes.
async fn draining(keeping: impl Future<Output = ()>, rest_rx: oneshot::Receiver<Chunker<Heard<Output>>>) {
    let drained = async {
        if let Ok(mut rest) = rest_rx.await {
            while let Ok(Some(_)) = rest.next().await {}
        }
    };
    let mut keeping = pin!(keeping);
    tokio::select! {
        biased;
        () = &mut keeping => {}
        () = drained => keeping.await,
    }
}

/// Waits for the last lines of the log.
async fn end_log(log: Option<JoinHandle<()>>) {
    if let Some(mut log) = log
        && timeout(LAST_WORDS, &mut log).await.is_err()
    {
        log.abort();
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
