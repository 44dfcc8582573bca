//! The progress bar.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{complain, log};

/// How far a transfer is, on the terminal; or nothing at all. Clones show the same.
#[derive(Debug, Clone)]
pub(super) struct Progress(Option<ProgressBar>);

/// How often the bar is drawn.
const TICK: std::time::Duration = std::time::Duration::from_millis(100);

impl Progress {
    /// A bar where it is of use. `to_file`: what comes does not go to standard output; `quiet`: no
    /// bar is wanted.
    pub(super) fn new(to_file: bool, quiet: bool) -> Self {
        let (err, out) = (std::io::stderr().is_terminal(), std::io::stdout().is_terminal());
        Self(wanted(err, out, to_file, quiet).then(|| {
            let bar = ProgressBar::with_draw_target(None, log::draw_target());
            bar.set_style(style("{spinner} {bytes}  {bytes_per_sec}  {elapsed}"));
            bar.enable_steady_tick(TICK);
            bar
        }))
    }

    /// A transfer begins, or begins again, at `at`.
    pub(super) fn begin(&self, at: u64, length: Option<u64>) {
        let Some(bar) = &self.0 else { return };
        if let Some(length) = length {
            bar.set_length(length);
            bar.set_style(style("{bytes} of {total_bytes} [{bar:30}] {bytes_per_sec}  {eta} left"));
        }
        bar.set_position(at);
        bar.reset_eta();
        bar.force_draw();
    }

    pub(super) fn advance(&self, bytes: usize) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes as u64);
        }
    }

    /// Says what is wrong, above the bar.
    pub(super) fn complain(&self, text: &str) {
        match &self.0 {
            Some(bar) => bar.suspend(|| complain(text)),
            None => complain(text),
        }
    }

    /// Takes the bar off the terminal.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are those above, which the tests read.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Whether a bar is of use: somebody sees it, and it does not come between what is printed.
fn wanted(err_is_terminal: bool, out_is_terminal: bool, to_file: bool, quiet: bool) -> bool {
    err_is_terminal && (to_file || !out_is_terminal) && !quiet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_where_it_is_seen_and_in_nobodys_way() {
        for (err, out, file, quiet, expected) in [
            (true, false, false, false, true),
            (true, true, true, false, true),
            (true, true, false, false, false),
            (true, false, true, true, false),
            (false, false, true, false, false),
            (false, true, true, false, false),
        ] {
            assert_eq!(wanted(err, out, file, quiet), expected, "{err} {out} {file} {quiet}");
        }
    }
}
