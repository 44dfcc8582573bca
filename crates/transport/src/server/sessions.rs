//! What a server is told about WebTransport sessions before it starts.

use std::sync::Arc;

use super::ServerBuilder;
use crate::webtransport::Handler;

impl ServerBuilder {
    /// What answers WebTransport sessions at `path`, which is that of the URL, without its query.
    ///
    /// A path is exact, or has wildcards as axum's have: `{name}` stands for one segment, `{*rest}` for one or
    /// more at the end, and [`SessionRequest::param`](crate::webtransport::SessionRequest::param) gives what
    /// they stood for. `{{` and `}}` are braces. A path without wildcards comes before one with them, and a
    /// slash at the end counts. Letters that need no percent-encoding are decoded before paths are compared,
    /// others are written here as in the URL (`/a%20b`); what a wildcard stands for is decoded, and a client gets
    /// 400 when that is not UTF-8. The last handler of the same path counts.
    ///
    /// # Panics
    ///
    /// When the path does not start with `/`, is invalid, or cannot be told apart from an earlier one, as
    /// `/{room}` and `/{name}`.
    #[must_use]
    #[track_caller]
    pub fn webtransport(mut self, path: &str, handler: impl Handler) -> Self {
        self.handlers.insert(path, Arc::new(handler));
        self
    }

    /// What answers WebTransport sessions at every other path. Without it they get 404.
    #[must_use]
    pub fn webtransport_fallback(mut self, handler: impl Handler) -> Self {
        self.handlers.set_fallback(Arc::new(handler));
        self
    }

    /// How many WebTransport sessions one connection may have at once (default 16).
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.max_sessions = sessions;
        self
    }
}
