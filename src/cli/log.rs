//! The log: lines on standard error that never hold up the server, whatever happens to standard error.

mod limit;
mod outlet;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use tracing::error;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Failure, shown};
use limit::Limit;
pub(super) use outlet::Outlet;

/// How long the last lines may take to leave when the process ends.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Standard error, once there is a log.
static LOG: OnceLock<(Outlet, Limit)> = OnceLock::new();

/// Starts the log of a server.
pub(super) fn start(directives: &str) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| Failure::usage(anyhow::anyhow!("`{directives}` is no log level: {error}")))?;
    let outlet = Outlet::start("log", stderr()).map_err(Failure::running)?;
    let limit = Limit::start().map_err(Failure::running)?;
    let (outlet, limit) = LOG.get_or_init(|| (outlet, limit));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(Lines(outlet))
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .fmt_fields(shown::fields())
        // It would be written to standard error, and panic when that fails.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(limit.clone()).with(lines).init();
    Ok(())
}

/// Writes a line on standard error; when that fails, there is nobody to tell. With a log it is queued.
pub(super) fn complain(text: &str) {
    let line = format!("h3cast: {}\n", shown::Lines(text));
    match LOG.get() {
        Some((outlet, _)) => outlet.write(line.as_bytes()),
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Gives the last lines time to leave, before the process ends.
pub(super) fn flush() {
    if let Some((outlet, limit)) = LOG.get() {
        limit.report();
        // What is left then is lost with the process.
        let _ = outlet.flush(LAST_LINES);
    }
}

/// Has panics logged, by a hook that cannot block where there is a log.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = describe(panic);
        match LOG.get() {
            Some(_) => error!("{text}"),
            None => complain(&text),
        }
        // The runtime is about to abort the process, since it cannot unwind: a panic while another one is
        // cleaned up after, as in a library whose locks are poisoned.
        if panic.payload_as_str().is_some_and(|text| {
            text.starts_with("panic in a destructor") || text.starts_with("panic in a function that cannot unwind")
        }) {
            exit(Failure::RUNNING);
        }
    }));
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("?");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let text = panic.payload_as_str().unwrap_or("(no message)");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => format!("the thread `{name}` panicked{place}: {text}\n{backtrace}"),
        _ => format!("the thread `{name}` panicked{place}: {text}"),
    }
}

/// How long the commands and the last lines may take when the process ends at once.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Ends the process at once, and every command with it.
pub(super) fn exit(code: u8) -> ! {
    // In a thread of its own: a command that is just being started is waited for, and may be stuck in that.
    let (killed_tx, killed) = mpsc::channel();
    let killing = thread::Builder::new().name("kill".into()).spawn(move || {
        crate::source::command::kill_all();
        killed_tx.send(())
    });
    match killing {
        Ok(_) => drop(killed.recv_timeout(AT_ONCE)),
        Err(_) => crate::source::command::kill_all(),
    }
    if let Some((outlet, _)) = LOG.get() {
        let _ = outlet.flush(AT_ONCE);
    }
    std::process::exit(code.into())
}

/// Standard error itself: the standard library's has a lock, which a write that does not return would
/// hold.
fn stderr() -> Box<dyn Write + Send> {
    #[cfg(unix)]
    if let Ok(descriptor) = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned() {
        return Box::new(std::fs::File::from(descriptor));
    }
    Box::new(io::stderr())
}

/// Standard output likewise.
pub(super) fn stdout() -> Box<dyn Write + Send> {
    #[cfg(unix)]
    if let Ok(descriptor) = std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned() {
        return Box::new(std::fs::File::from(descriptor));
    }
    Box::new(io::stdout())
}

/// Where the lines of the log go.
struct Lines(&'static Outlet);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0)
    }
}

/// A line, written at once.
struct Line(&'static Outlet);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
