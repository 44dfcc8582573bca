//! Panics: what happens to a task that panics, and to those that depend on it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// How long to wait before a task that panicked is restarted, at first and at most. It doubles with each
/// panic, until the task has run for [`STEADY`].
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
const STEADY: Duration = Duration::from_secs(60);

/// A panic's message, as far as it has one.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no message)")
}

/// Runs something that is not ours, whose panic is to fail it alone: the panic's message instead.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    // What it leaves behind is not used again.
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| message(&*panic).to_owned())
}

/// The same for a future, which is dropped then.
pub async fn caught_async<F: Future>(run: F) -> Result<F::Output, String> {
    AssertUnwindSafe(run).catch_unwind().await.map_err(|panic| message(&*panic).to_owned())
}

/// Restarts a task of the server that panics: `while restarts.after(caught_async(task).await, &stop).await {}`.
pub struct Restarts {
    what: String,
    begun: Instant,
    pause: Duration,
}

impl Restarts {
    /// For a task with that name, which is started now.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), begun: Instant::now(), pause: BACKOFF.0 }
    }

    /// The task has ended. Whether it is to be run again: it panicked, which is logged, and a pause has
    /// passed in which there was no `stop`.
    pub async fn after(&mut self, ended: Result<(), String>, stop: &CancellationToken) -> bool {
        let Err(panic) = ended else { return false };
        if self.begun.elapsed() >= STEADY {
            self.pause = BACKOFF.0;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(BACKOFF.1);
        error!("{} panicked and is restarted in {pause:?}: {panic}", self.what);
        let again = stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some();
        self.begun = Instant::now();
        again
    }
}

/// Logs that a task panicked, if that is how it ended. Nobody else may notice.
pub fn report<T>(what: &str, ended: Result<T, JoinError>) -> Option<T> {
    match ended {
        Ok(value) => Some(value),
        Err(error) => {
            if let Ok(panic) = error.try_into_panic() {
                error!("{what} panicked: {}", message(&*panic));
            }
            None
        }
    }
}
