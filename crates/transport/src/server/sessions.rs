//! What a server is told about WebTransport sessions before it starts.

use std::sync::Arc;

use super::ServerBuilder;
use crate::{origin::Origins, webtransport::Handler};

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
    /// The [service](Self::http_service) is asked first, by the path with these letters decoded, so that layers see
    /// the path that finds the handler. A service without a route for the session answers 404 or 405; then the
    /// handler is called. Any other answer, as of a layer that wants a token, refuses the session,
    /// with its status and headers. (One of success opens none either, and is sent as 500.)
    ///
    /// axum's `Router::layer` also wraps the router's fallback: a layer on a router that is merged into another one
    /// refuses the sessions of every path that has no route. `Router::route_layer` does not.
    ///
    /// A layer that hides what it protects with 404 does not cover this handler. Make the session a route of the
    /// router under that layer instead: `.route("/chat", any(handler))`, see
    /// [`SessionRequest`](crate::webtransport::SessionRequest).
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

    /// What answers WebTransport sessions at every other path, after the service, as at
    /// [`webtransport`](Self::webtransport). Without it they get what the service answers.
    #[must_use]
    pub fn webtransport_fallback(mut self, handler: impl Handler) -> Self {
        self.handlers.set_fallback(Arc::new(handler));
        self
    }

    /// Origins whose pages may open WebTransport sessions, in addition to pages of this server's own origin
    /// (`https://` and the host and port that the session is asked from, and what it serves over
    /// [plain HTTP](Self::plain_http), at its first such listener). Others get 403. A client that states no origin is
    /// not a browser, and may.
    ///
    /// Routes that follow a rule of their own have it in their extensions:
    /// `.layer(axum::Extension(Origins::any()))`. A service whose rule is to hold for the server's handlers as well
    /// puts it into the extensions of the 404 or 405 with which it leaves a session to them; `h3cast::App` does, so
    /// that its `allow_origins` decides there, and not this setting.
    ///
    /// ```
    /// # fn doc(server: h3cast_transport::server::ServerBuilder) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = server.origins(["https://app.example".parse()?].into_iter().collect());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn origins(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// How many WebTransport sessions one connection may have at once:
    /// [`Limits::sessions`](crate::Limits::sessions).
    #[must_use]
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.limits = self.limits.sessions(sessions);
        self
    }
}
