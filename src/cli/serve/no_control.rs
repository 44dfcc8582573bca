//! Where there are no Unix sockets: nothing asks the server to read its settings again.

use super::reload::Outcome;

/// Nobody connects.
pub(super) enum Stream {}

/// No socket.
#[derive(Debug)]
pub(super) enum Control {}

impl Control {
    /// Puts it where it is reached.
    pub(super) async fn settle(&mut self) {
        match *self {}
    }

    /// Waits for that.
    pub(super) async fn settled(&mut self) {
        match *self {}
    }

    pub(super) async fn answer(&self, _: impl AsyncFn() -> Outcome, _: impl AsyncFn(Stream)) -> ! {
        match *self {}
    }
}
