//! The fields of a line of the log.

use std::fmt;

use tracing_subscriber::{
    field::MakeExt,
    fmt::{
        FormatFields,
        format::{self, Writer},
    },
};

use super::plain::Plain;
use crate::shown::{Lines, Short, Shown};

/// The fields of the log, so shown; the message may have several lines, as a backtrace has. The
/// formatter's own knows a few characters, and those in the message only.
pub(super) fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let value = format_args!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", Lines(Plain(value))),
            "error" => named(writer, "error", format_args!("{}", Plain(value))),
            name => named(writer, name, value),
        }
    })
    .delimited(" ")
}

/// The same with whole messages of one line, however long that is.
pub(super) fn whole_fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    format::debug_fn(|writer, field, value| {
        let value = format_args!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", Short(value, usize::MAX)),
            name => named(writer, name, value),
        }
    })
    .delimited(" ")
}

fn named(writer: &mut Writer<'_>, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    match writer.has_ansi_escapes() {
        true => write!(writer, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m{}", Shown(value)),
        false => write!(writer, "{name}={}", Shown(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_the_log() {
        let logged = |colours: bool| {
            let sink = Captured::default();
            let writer = sink.clone();
            let log = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .fmt_fields(fields())
                .with_ansi(colours)
                .without_time()
                .with_target(false)
                .finish();
            tracing::subscriber::with_default(log, || {
                let _span = tracing::info_span!("conn", peer = %"\u{1b}]").entered();
                tracing::info!(feed = "x", error = %"\u{1b}[2J\n (os error 2)", "said (os error 5) {}", "\u{9b}m\r");
            });
            let written = sink.0.lock().unwrap().clone();
            String::from_utf8(written).unwrap()
        };
        let expected = " INFO conn{peer=\\u{1b}]}: said \\u{9b}m\\r feed=\"x\" error=\\u{1b}[2J\\n\n";
        assert_eq!(logged(false), expected);
        let coloured = logged(true);
        assert!(coloured.contains("said \\u{9b}m\\r \x1b[3mfeed\x1b[0m\x1b[2m=\x1b[0m\"x\""), "{coloured:?}");
        assert!(!coloured.contains("\x1b[2J") && coloured.matches('\n').count() == 1, "{coloured:?}");
    }
}
