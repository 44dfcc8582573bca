//! What is logged on a thread while a test runs.

use std::{
    io,
    sync::{Arc, Mutex, OnceLock},
};

use tracing::{Dispatch, subscriber::NoSubscriber};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// What has been logged since the last time.
    pub(crate) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Keeps what is logged at that level and above, until the guard is dropped.
pub(crate) fn kept(level: &str) -> (Log, tracing::subscriber::DefaultGuard) {
    // With one alone, what is logged first on a thread that has none would count as wanted by nobody, on all threads.
    static OTHER: OnceLock<Dispatch> = OnceLock::new();
    OTHER.get_or_init(|| Dispatch::new(NoSubscriber::new()));
    let log = Log::default();
    let lines = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_ansi(false);
    let guard = tracing::subscriber::set_default(lines.with_writer(log.clone()).finish());
    (log, guard)
}
