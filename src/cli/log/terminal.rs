//! The terminal that progress is shown on. What is drawn goes the way of all messages, so that a terminal that
//! is stopped holds up nobody.

use std::{
    fmt::Write,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{ProgressDrawTarget, TermLike};

use super::{Outlet, STDERR};

/// How often progress is drawn each second, at most.
const RATE: u8 = 20;

/// Where progress is drawn.
pub(in crate::cli) fn draw_target() -> ProgressDrawTarget {
    match STDERR.get() {
        // Consoles of Windows need more than escape sequences.
        Some(outlet) if cfg!(unix) => {
            let terminal = Terminal { outlet: outlet.clone(), frame: Mutex::default() };
            ProgressDrawTarget::term_like_with_hz(Box::new(terminal), RATE)
        }
        _ => ProgressDrawTarget::stderr(),
    }
}

#[derive(Debug)]
struct Terminal {
    outlet: Outlet,
    /// What is drawn next.
    frame: Mutex<String>,
}

impl Terminal {
    fn frame(&self) -> MutexGuard<'_, String> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cursor(&self, by: usize, direction: char) -> io::Result<()> {
        if by > 0 {
            write!(self.frame(), "\x1b[{by}{direction}").map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl TermLike for Terminal {
    fn width(&self) -> u16 {
        #[cfg(unix)]
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stderr())
            && size.ws_col > 0
        {
            return size.ws_col;
        }
        80
    }

    fn move_cursor_up(&self, by: usize) -> io::Result<()> {
        self.cursor(by, 'A')
    }

    fn move_cursor_down(&self, by: usize) -> io::Result<()> {
        self.cursor(by, 'B')
    }

    fn move_cursor_right(&self, by: usize) -> io::Result<()> {
        self.cursor(by, 'C')
    }

    fn move_cursor_left(&self, by: usize) -> io::Result<()> {
        self.cursor(by, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        writeln!(self.frame(), "{text}").map_err(io::Error::other)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.frame().push_str(text);
        Ok(())
    }

    fn clear_line(&self) -> io::Result<()> {
        self.write_str("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame());
        if !frame.is_empty() {
            self.outlet.write_now(frame.as_bytes());
        }
        Ok(())
    }
}
