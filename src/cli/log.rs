//! The log and other messages: lines on standard error that never hold up the program, whatever happens to
//! standard error.

pub(super) mod access;
mod fields;
mod file;
mod json;
mod limit;
mod outlet;
mod plain;
mod terminal;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    borrow::Cow,
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use clap::ValueEnum;
use tracing::{Level, Subscriber, error};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, filter_fn},
    fmt::FormatFields,
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::{Failure, keylog, standard};
use crate::shown::Lines;
use fields::{fields, whole_fields};
pub(super) use file::telling;
use limit::Limit;
pub(super) use outlet::Outlet;
#[cfg(feature = "qlog")]
pub(super) use outlet::Tell;
pub(super) use terminal::draw_target;

/// How long the last lines may take to leave when the process ends, without one that is read and in all.
const LAST_LINES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Standard error, which all messages go to.
static STDERR: OnceLock<Outlet> = OnceLock::new();
/// What limits the log of a server, once there is one.
static LIMIT: OnceLock<Limit> = OnceLock::new();

/// Has messages written by a thread of their own. Before, and where there can be no thread, they are written
/// by whoever has them.
pub(super) fn open() -> io::Result<()> {
    if STDERR.get().is_none() {
        let _ = STDERR.set(Outlet::start("log", standard::stderr())?);
    }
    Ok(())
}

/// Reads a level, or directives as for `RUST_LOG`. A bare word that is no level would be a target's name there,
/// and silence everything else.
fn filter(directives: &str) -> Result<EnvFilter, String> {
    let expected =
        "expected error, warn, info, debug, trace or off (or 1 to 5, 0), or directives such as h3cast=debug,warn";
    let words = directives.split(',').map(str::trim).filter(|word| !word.is_empty());
    let wrong = words.filter(|word| !word.contains(['=', '['])).find(|word| word.parse::<LevelFilter>().is_err());
    match wrong {
        Some(word) => Err(format!("unknown log level `{word}`: {expected}")),
        None => EnvFilter::try_new(without_nats_client(directives))
            .map_err(|_| format!("cannot read the log level `{directives}`: {expected}")),
    }
}

/// The directives, with which the client of NATS writes nothing unless it is named, or all is wanted: what it has to
/// say, `h3cast::nats` says, with the cause.
fn without_nats_client(directives: &str) -> Cow<'_, str> {
    let wants = |word: &str| {
        let level = word.parse::<LevelFilter>();
        word.starts_with("async_nats") || level.is_ok_and(|level| level >= LevelFilter::DEBUG)
    };
    match directives.split(',').map(str::trim).any(wants) {
        true => directives.into(),
        false => format!("{directives},async_nats=off").into(),
    }
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object each.
    Json,
}

/// Has all lines of the process written so from now on.
pub(super) fn set_format(format: LogFormat) {
    json::choose(format == LogFormat::Json);
}

/// Starts the log of a server.
pub(super) fn start(directives: &str) -> Result<(), Failure> {
    let filter = filter(directives).map_err(|text| Failure::usage(anyhow::anyhow!(text)))?;
    open().map_err(Failure::running)?;
    let limit = Limit::start().map_err(Failure::running)?;
    let limit = LIMIT.get_or_init(|| limit);
    // What commands write is bounded by the chunker, and none of it may be missing.
    let of_commands = filter_fn(limit::is_of_command);
    let of_others = filter_fn(|metadata| !limit::is_of_command(metadata));
    let registry = tracing_subscriber::registry().with(filter).with(limit.clone());
    if json::is_chosen() {
        registry.with(json::JsonLines(write_line)).init();
        return Ok(());
    }
    let commands = lines(whole_fields()).with_filter(of_commands);
    let others = lines(fields()).with_filter(of_others);
    registry.with(commands).with(others).init();
    Ok(())
}

/// Whether lines on this stream have colours: on a terminal, unless `NO_COLOR` or `CLICOLOR=0` turns them off, and
/// elsewhere if `CLICOLOR_FORCE` turns them on (<https://no-color.org>, <https://bixense.com/clicolors>).
pub(super) fn is_coloured(stream: &impl IsTerminal) -> bool {
    let value = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is_forced = value("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    let is_refused = value("CLICOLOR").is_some_and(|value| value == "0");
    value("NO_COLOR").is_none() && (is_forced || !is_refused && stream.is_terminal())
}

/// Writes lines with their fields in this format.
fn lines<S, F>(fields: F) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: for<'writer> FormatFields<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(|| LogWriter)
        .with_ansi(is_coloured(&io::stderr()))
        .with_target(false)
        .fmt_fields(fields)
        // It would be written to standard error, and panic when that fails.
        .log_internal_errors(false)
}

/// Writes a line on standard error; when that fails, there is nobody to tell.
pub(super) fn complain(text: &str) {
    say(Level::WARN, text);
}

/// The same for what ends the program.
pub(super) fn fail(text: &str) {
    say(Level::ERROR, text);
}

fn say(level: Level, text: &str) {
    let text = &*plain::plain(text);
    match json::is_chosen() {
        true => put(json::plain(level, text).as_bytes()),
        false => write(&format!("h3cast: {}\n", Lines(text))),
    }
}

/// Writes text on standard error as it is, or as the message of one line where those are JSON.
pub(super) fn write(text: &str) {
    match json::is_chosen() {
        true => put(json::plain(Level::INFO, text).as_bytes()),
        false => put(text.as_bytes()),
    }
}

fn put(line: &[u8]) {
    match STDERR.get() {
        Some(outlet) => outlet.write(line),
        None => drop(io::stderr().write_all(line)),
    }
}

/// How many lines were left out so far, or could not be written; of the access log as well.
pub(super) fn dropped() -> u64 {
    LIMIT.get().map_or(0, Limit::left_out) + outlet::lost()
}

/// Gives the last lines time to leave, before the process ends.
pub(super) fn flush() {
    if let Some(limit) = LIMIT.get() {
        limit.report();
    }
    if let Some(access) = access::outlet() {
        let _ = access.flush_while_read(LAST_LINES.0, LAST_LINES.1);
        access.settle();
    }
    if let Some(keys) = keylog::outlet() {
        let _ = keys.flush_while_read(LAST_LINES.0, LAST_LINES.1);
        keys.settle();
    }
    #[cfg(feature = "qlog")]
    super::qlog::flush_while_written(LAST_LINES.0, LAST_LINES.1);
    if let Some(outlet) = STDERR.get() {
        // What is left then is lost with the process.
        let _ = outlet.flush_while_read(LAST_LINES.0, LAST_LINES.1);
    }
}

/// Has panics logged, by a hook that cannot block where there is a log.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let text = describe(panic);
        match LIMIT.get() {
            Some(_) => error!("{text}"),
            None => fail(&text),
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
    #[cfg(feature = "qlog")]
    super::qlog::flush_while_written(AT_ONCE, AT_ONCE);
    for outlet in access::outlet().into_iter().chain(keylog::outlet()).chain(STDERR.get()) {
        let _ = outlet.flush(AT_ONCE);
    }
    std::process::exit(code.into())
}

/// Writes a line of the log.
fn write_line(line: &[u8]) {
    if let Some(outlet) = STDERR.get() {
        outlet.write(line);
    }
}

/// A line of the log, written at once.
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        write_line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_does_not_silence_the_log() {
        let taken = ["warn", "WARN", "off", "3", "0", "4,quinn=0", "h3cast=debug,warn", "info,h3cast_feed=trace"];
        for text in taken.into_iter().chain(["[request]=debug"]) {
            assert!(filter(text).is_ok(), "{text}");
        }
        for text in ["warning", "foo", "warn,foo", "h3cast", "6", "h3cast=loud"] {
            assert!(filter(text).unwrap_err().contains("expected error, warn"), "{text}");
        }
    }
}
