//! What a command prints.

mod commands;
mod group;
mod keeper;
mod launch;
mod reason;
mod silence;
#[cfg(unix)]
mod watcher;

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tracing::warn;

use super::{FeedEnded, chunker::Chunking, publish_stored};
use crate::{
    fault,
    feed::{Account, BoxInput, End, Exhausted, Feed, FeedError, Publisher},
};
pub use commands::Commands;
#[cfg(feature = "cli")]
pub(crate) use group::kill_all;
#[cfg(feature = "cli")]
pub(crate) use keeper::PATIENCE;
use keeper::{Ended, Rest, Running};
pub use launch::Stderr;

/// How long to wait before a command is run again, at first and at most. It doubles each time that
/// the command ends sooner than [`STEADY`], or cannot be run.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
const STEADY: Duration = Duration::from_secs(60);

/// A command, and how it is run.
#[derive(Debug, Clone)]
pub(super) struct Exec {
    /// The feed's name.
    pub(super) name: String,
    pub(super) shell: String,
    pub(super) chunking: Chunking,
    pub(super) stderr: Stderr,
    /// It has what its viewer sends as its standard input.
    pub(super) input: bool,
    pub(super) commands: Commands,
}

fn end_of(ended: Ended) -> End {
    let (status, rest) = match ended {
        Ended::ByItself(Ok(status), rest) => (status, rest),
        Ended::ByItself(Err(error), _) => return End::Failed(FeedError(format!("the command was lost: {error}"))),
        Ended::Stopped => return End::Stopped,
        Ended::Lost => return End::Failed(FeedError("the command was lost".into())),
    };
    let rest = match rest {
        Rest::Nothing => None,
        Rest::Stopped if status.success() => return End::Stopped,
        Rest::Stopped => None,
        Rest::Ended => Some("processes that it left behind held its output open and were ended"),
        Rest::Escaped => {
            Some("processes that it left behind still print in a process group of their own, which is no longer read")
        }
    };
    match (status.success(), rest) {
        (true, None) => End::Clean,
        (false, None) => End::Failed(FeedError(reason::of(status))),
        (true, Some(rest)) => End::Failed(FeedError(format!("the command ended, but {rest}"))),
        (false, Some(rest)) => End::Failed(FeedError(format!("{}, and {rest}", reason::of(status)))),
    }
}

/// Runs a command for all viewers, again and again if it is to be. It is first started when this is polled:
/// a server that cannot start runs nothing.
pub(super) async fn feed(exec: Exec, restart: bool, publisher: Publisher) {
    let mut pause = BACKOFF.0;
    loop {
        let begun = Instant::now();
        let ended = match Running::start(&exec, None) {
            Ok(mut running) => {
                while let Some(chunk) = running.next().await {
                    let published = match publisher.is_stored() {
                        true => publish_stored(&publisher, running.with_next(chunk), Bytes::new).await,
                        false => publisher.publish(chunk).await.map(drop).map_err(|_| FeedEnded),
                    };
                    if published.is_err() {
                        // The feed has ended; so does the command.
                        return;
                    }
                    fault::point("source");
                }
                let end = end_of(running.end().await);
                if !restart || end == End::Stopped {
                    return publisher.end(end);
                }
                if begun.elapsed() >= STEADY {
                    pause = BACKOFF.0;
                }
                let why = match end {
                    End::Failed(FeedError(why)) => why,
                    _ => "the command has ended".into(),
                };
                warn!(feed = exec.name, "{why}; restarting it in {pause:?}");
                Some(running)
            }
            Err(_) if exec.commands.is_stopping() => return publisher.end(End::Stopped),
            Err(error) if !restart => return publisher.end(End::Failed(FeedError(error.to_string()))),
            // It may be over soon: too many processes, too many open files.
            Err(error) => {
                warn!(feed = exec.name, %error, "the command cannot be run now; trying again in {pause:?}");
                None
            }
        };
        let again = async {
            // With what it has left behind, before another one needs what that holds.
            if let Some(running) = ended {
                running.gone().await;
            }
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            biased;
            () = exec.commands.stopping() => return publisher.end(End::Stopped),
            () = again => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// Runs a command for each viewer, and ends it with its viewer.
pub(super) fn per_viewer(exec: Exec) -> Feed {
    let name = exec.name.clone();
    if exec.input {
        return Feed::interactive_for(&name, move |account| {
            let mut started = start(&exec, account)?;
            let stdin = started.as_mut().ok().and_then(Running::take_stdin);
            Ok((printed(started), stdin.map(|stdin| Box::pin(stdin) as BoxInput)))
        });
    }
    Feed::on_demand_for(&name, move |account| Ok(printed(start(&exec, account)?)))
}

/// Starts a command for a viewer.
fn start(exec: &Exec, account: &Account) -> Result<Result<Running, End>, Exhausted> {
    let place = exec.commands.place(account)?;
    Ok(Running::start(exec, Some(place)).map_err(|error| match exec.commands.is_stopping() {
        true => End::Stopped,
        false => End::Failed(FeedError(error.to_string())),
    }))
}

/// What a command prints, and how it ends.
fn printed(started: Result<Running, End>) -> impl Stream<Item = Result<Bytes, End>> + Send {
    stream::unfold(Some(started), |state| async move {
        let mut running = match state? {
            Ok(running) => running,
            Err(end) => return Some((Err(end), None)),
        };
        match running.next().await {
            Some(chunk) => Some((Ok(chunk), Some(Ok(running)))),
            None => match end_of(running.end().await) {
                End::Clean => None,
                end => Some((Err(end), None)),
            },
        }
    })
}
