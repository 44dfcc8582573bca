//! When the old server does not say that the new one is to serve: it has ended, stops, or keeps serving.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    super::{
        dropped::Lacking,
        wire::{self, ToNew},
    },
    GLANCE, Outcome, PAUSE, Predecessor, State, is_gone, within,
};
use crate::cli::Failure;

/// How long a process may take to end after it has closed its connection.
const ENDING: Duration = Duration::from_secs(5);

/// Why a message did not come.
pub(super) enum Trouble {
    /// The other end was closed without a word.
    Ended,
    /// The old server stops.
    Stops,
    /// Feeds would be lost.
    Lacking(Lacking),
    Other(io::Error),
}

/// Why a server is not taken over.
pub(super) enum Refused {
    Lacking(Lacking),
    /// It keeps serving.
    Other(io::Error),
    /// Whether it still serves cannot be seen.
    Unknown(io::Error),
}

impl Refused {
    /// Why a server does not start that was to take over from the process `pid`.
    pub(super) fn of(self, pid: u32) -> Failure {
        let why = match self {
            Self::Lacking(lacking) => {
                return Failure::usage(anyhow::anyhow!("--take-over: process {pid} keeps serving: {lacking}"));
            }
            Self::Other(error) => format!("and keeps serving: {error}"),
            Self::Unknown(error) => format!("and may have ended: {error}"),
        };
        Failure::running(anyhow::anyhow!("--take-over: process {pid} did not hand over, {why}"))
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if wire::has_ended(&error) { Self::Ended } else { Self::Other(error) }
    }
}

impl Predecessor {
    /// What is left to do if it has not said that this server is to serve.
    pub(super) async fn without_go(
        &self,
        trouble: Trouble,
        state: Option<State>,
        stop: &CancellationToken,
    ) -> Result<Option<Outcome>, Refused> {
        let ending = async {
            match trouble {
                // Only then it has not published on.
                Trouble::Ended => self.end().await.map(|()| Outcome::Ended(state)),
                Trouble::Stops => {
                    warn!("process {} was told to stop before it had handed over: waiting for its end", self.pid);
                    // Two servers must not read one socket.
                    self.process.ended().await.map(|()| Outcome::Ended(None)).map_err(Refused::Unknown)
                }
                Trouble::Lacking(lacking) => Err(Refused::Lacking(lacking)),
                Trouble::Other(error) => Err(Refused::Other(error)),
            }
        };
        stop.run_until_cancelled(ending).await.transpose()
    }

    /// Waits for the end of a server that has closed the connection without a word: it was killed, or stops and could not
    /// say so. An error if it keeps serving, or if that cannot be seen.
    async fn end(&self) -> Result<(), Refused> {
        let begun = Instant::now();
        while self.process.runs().map_err(Refused::Unknown)? {
            match within(GLANCE, Self::ask(&self.path)).await {
                Ok((_, about)) if about.pid == self.pid && !about.stops => {
                    return Err(Refused::Other(io::Error::other("it closed the connection")));
                }
                // It has closed its socket too, or another server has its place.
                Ok(_) => break,
                Err(error) if is_gone(&error) => break,
                Err(error) if begun.elapsed() > ENDING => return Err(Refused::Unknown(error)),
                Err(_) => sleep(PAUSE).await,
            }
        }
        if self.process.runs().map_err(Refused::Unknown)? {
            warn!("process {} closed the connection and is about to end: waiting for that", self.pid);
        }
        self.process.ended().await.map_err(Refused::Unknown)
    }
}

/// A message that is not the one that was to come.
pub(super) fn unexpected(message: ToNew) -> Trouble {
    match message {
        ToNew::Refused { why } => Trouble::Other(io::Error::other(why)),
        ToNew::Stops => Trouble::Stops,
        ToNew::Released | ToNew::State { .. } | ToNew::Chunks { .. } | ToNew::Go => {
            Trouble::Other(wire::invalid("another message than the one to come"))
        }
    }
}
