//! The one place of the app that decides who may read and write.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use http_body::{Frame, SizeHint};
use tracing::{debug, info};

use super::{App, Problem, entry::Noted, guard::Unasked, host, problem::Challenge};
use crate::{
    admission::Refusal,
    auth::{Access, Action, Credential, Denied, Way},
    body::Unfinished,
    origin::{Origin, is_loopback},
    rarely,
    server::{Forwarded, Via},
    units::were,
};

/// The value of no cookie.
const NO_COOKIE: &str = "\0";

/// What the client of a request may do.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    access: Access,
    /// It brought credentials.
    credentials: bool,
    /// Why it may not publish what its credentials would let it.
    foreign: bool,
}

impl App {
    /// What the client of this request may do.
    ///
    /// # Errors
    ///
    /// When it is refused whatever it asks for.
    pub(super) async fn decide(&self, request: &Parts) -> Result<Decided, Problem> {
        let decided = self.decided(request).await?;
        Noted::user(&request.extensions, decided.access.named_by().map(|(_, name)| name));
        Ok(decided)
    }

    async fn decided(&self, request: &Parts) -> Result<Decided, Problem> {
        let Some(decider) = &self.decider else { return self.by_publish_token(request) };
        if self.publications.has_token()
            && let Some(credential) = Credential::of(request, NO_COOKIE).map_err(refused)?
            && let Some(revoked) = self.publications.is_token(credential.token())
        {
            // It is good for publishing. What everyone may read, its client may read too.
            let open = decider.decide(&without_credentials(request)).await.map_err(refused)?;
            let access = open.into_publisher().revoked_by(revoked);
            return Ok(Decided { access, credentials: true, foreign: false });
        }
        let access = decider.decide(request).await.map_err(|denied| {
            debug!(%denied, path = request.uri.path(), "a request is refused");
            refused(denied)
        })?;
        if access.has_ended() {
            return Err(refused(Denied::invalid(format!("the token {}: get a new one", over(&access)))));
        }
        // A page elsewhere can have a browser send a cookie, and publish as its user.
        let unsafe_by_cookie = !request.method.is_safe() && is_by_cookie(request, &access);
        let foreign = unsafe_by_cookie && access.publishes() && !is_same_origin(request);
        let access = if foreign { access.only_reading() } else { access };
        Ok(Decided { credentials: access.is_granted(), access, foreign })
    }

    /// Without a decider everyone may read, and publish with the server's token, if it has one.
    fn by_publish_token(&self, request: &Parts) -> Result<Decided, Problem> {
        let access = self.open.clone();
        if !self.publications.has_token() || request.method.is_safe() {
            return Ok(Decided { access, credentials: false, foreign: false });
        }
        let credential = Credential::of(request, NO_COOKIE).map_err(refused)?;
        let by_token = credential.as_ref().and_then(|given| self.publications.is_token(given.token()));
        let access = match by_token {
            Some(revoked) => access.revoked_by(revoked),
            None => access.only_reading(),
        };
        Ok(Decided { access, credentials: credential.is_some(), foreign: false })
    }
}

impl Decided {
    /// With nothing of a request.
    #[cfg(test)]
    pub(super) fn test(access: Access) -> Self {
        Self { access, credentials: false, foreign: false }
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the client may do that with the feed of that name, which need not exist: the answer shows nothing of
    /// whether it does.
    pub(super) fn require(&self, action: Action, feed: &str) -> Result<(), Problem> {
        match self.access.allows(action, feed) {
            true => Ok(()),
            false => {
                if action == Action::Publish {
                    info!(feed, "publish rejected: no token that allows it");
                }
                Err(self.refusal(action, &format!("the feed `{feed}`"), ", whether it exists or not"))
            }
        }
    }

    /// Whether the client may read every feed, and with them what concerns the server as a whole.
    pub(super) fn require_all(&self) -> Result<(), Problem> {
        match self.access.reads_all() {
            true => Ok(()),
            false => {
                let right = ": that takes the right to read all feeds (`*`)";
                Err(self.refusal(Action::Read, "the metrics of the whole server", right))
            }
        }
    }

    /// `more` is said of it to clients whose token does not suffice.
    fn refusal(&self, action: Action, what: &str, more: &str) -> Problem {
        if self.foreign && action == Action::Publish {
            let text = "a token in a cookie is valid only for pages of this server: send `Authorization: Bearer TOKEN`";
            return Problem::new(StatusCode::FORBIDDEN, text.into()).challenge(Challenge::Scope);
        }
        if self.access.is_granted() {
            let text = format!("this token may not {action} {what}{more}");
            return Problem::new(StatusCode::FORBIDDEN, text).challenge(Challenge::Scope);
        }
        let text = match self.credentials {
            false => {
                format!(
                    "a token is needed to {action} {what}: send `Authorization: Bearer TOKEN`, or ?token=TOKEN in the \
                     URL"
                )
            }
            true => format!("this is not the token that lets clients {action} {what}"),
        };
        let problem = Problem::new(StatusCode::UNAUTHORIZED, text);
        problem.challenge(if self.credentials { Challenge::Token } else { Challenge::None })
    }

    /// Completes when the right ends, for what waits for that beside something more frequent.
    pub(super) fn ended(&self) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        self.access.ended().map(rarely)
    }

    /// The same, for ever pending when the right does not end.
    pub(super) async fn until_ended(&self) {
        match self.ended() {
            Some(over) => over.await,
            None => std::future::pending().await,
        }
    }

    /// Whether it may end before its client is gone.
    pub(super) fn may_end(&self) -> bool {
        self.access.ended().is_some()
    }

    /// A publication was running when the right to it ended.
    pub(super) fn expired(&self, published: u64) -> Problem {
        let over = over(&self.access);
        let text = format!(
            "the token {over}: {}; continue with a new one under the same Idempotency-Key",
            were(published, "published")
        );
        Problem::new(StatusCode::UNAUTHORIZED, text).challenge(Challenge::Token)
    }

    /// What a session is closed with when the right to it ends.
    pub(super) fn expiry(&self) -> &'static str {
        match self.access.is_revoked() {
            true => "the token has been revoked: open a session with a new one",
            false => "the token has expired: open a session with a new one",
        }
    }

    /// Cuts a response off when the right to it ends.
    pub(super) fn limit(&self, response: Response) -> Response {
        match self.access.ended() {
            Some(over) => response.map(|body| Body::new(Until { body, over })),
            None => response,
        }
    }
}

/// How a right has ended.
fn over(access: &Access) -> &'static str {
    if access.is_revoked() { "has been revoked" } else { "has expired" }
}

/// Refuses, as the decider does.
pub(super) fn refused(denied: Denied) -> Problem {
    let (status, challenge) = match &denied {
        Denied::Invalid(_) => (StatusCode::UNAUTHORIZED, Challenge::Token),
        Denied::Malformed(_) => (StatusCode::BAD_REQUEST, Challenge::Request),
        Denied::Forbidden(_) => (StatusCode::FORBIDDEN, Challenge::Scope),
        // What is new is no reason to let anyone in.
        _ => (StatusCode::SERVICE_UNAVAILABLE, Challenge::None),
    };
    let problem = Problem::new(status, denied.to_string()).challenge(challenge);
    if status == StatusCode::SERVICE_UNAVAILABLE { problem.because(Refusal::Undecided) } else { problem }
}

/// Routes of the user's own, and sessions for the server's own handlers: for clients that may do something here.
/// What, the route decides; it finds the [`Access`] in the extensions of its requests.
///
/// A browser asks without credentials, by a preflight, whether it may send them. It is answered here and not by the
/// route: one that takes any method would run without a decision.
pub(super) async fn own(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    if let Some(method) = preflight(&parts) {
        return (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, method.clone())]).into_response();
    }
    match app.some_right(&parts).await {
        Ok(access) => {
            parts.extensions.insert(access);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// The method for which a browser asks before it sends what it will (Fetch §4.8). The [guard](super::guard) makes the
/// answer of what is allowed.
fn preflight(request: &Parts) -> Option<&HeaderValue> {
    if request.method != Method::OPTIONS || !request.headers.contains_key(header::ORIGIN) {
        return None;
    }
    let method = request.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(method.as_bytes()).is_ok().then_some(method)
}

impl App {
    /// Refuses a page that is neither this server's own nor of an origin that it was told to allow. More strictly than
    /// for what is only read: other pages of this machine, such as one that is being developed, may not send input to
    /// a command. Clients that are no browsers send no `Origin`.
    pub(super) fn require_own_page(&self, request: &Parts) -> Result<(), Problem> {
        let origin = request.headers.get(header::ORIGIN);
        let is_own = |origin: &HeaderValue| {
            let authority = reached_as(request).unwrap_or_default();
            let local = || host::host_in(authority).is_some_and(is_loopback);
            let plain_port = request.extensions.get::<Via>().and_then(|via| via.plain_port).filter(|_| local());
            let origin = origin.to_str().unwrap_or_default();
            is_same_origin(request) || self.origins().allow_session(origin, authority, plain_port)
        };
        let foreign = matches!(request.extensions.get::<Unasked>(), Some(Unasked::Foreign));
        if !foreign && origin.is_none_or(is_own) {
            return Ok(());
        }
        let text = "only this server's own pages may send input to a command: let the server allow that origin";
        Err(Problem::new(StatusCode::FORBIDDEN, text.into()).because(Refusal::Origin))
    }

    /// Whether the client of this request may do anything at all.
    pub(super) async fn some_right(&self, request: &Parts) -> Result<Access, Problem> {
        let decided = self.decide(request).await?;
        match decided.access.allows_anything() {
            true => Ok(decided.access),
            false => {
                // What a cookie may not do from elsewhere is publish.
                let action = if decided.foreign { Action::Publish } else { Action::Read };
                Err(decided.refusal(action, "what is here", ""))
            }
        }
    }
}

fn without_credentials(request: &Parts) -> Parts {
    let (mut bare, ()) = http::Request::new(()).into_parts();
    bare.method = request.method.clone();
    bare.version = request.version;
    bare.uri = request.uri.path().parse().unwrap_or_default();
    bare
}

/// Whether what lets a request in is, or may be, a cookie, which browsers add by themselves.
///
/// A decider of the user's own may go by a cookie whatever else there is. Only a bearer token shows that a page knew
/// it: any page can append `?token=` to a URL, and browsers and proxies add passwords (`Basic`) by themselves.
fn is_by_cookie(request: &Parts, access: &Access) -> bool {
    if let Some(way) = access.way() {
        return way == Way::Cookie;
    }
    let is_bearer = |field: &HeaderValue| {
        let scheme = field.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"bearer")
    };
    let has_bearer = || request.headers.get_all(header::AUTHORIZATION).iter().any(is_bearer);
    request.headers.contains_key(header::COOKIE) && !has_bearer()
}

/// Whether a page of this very server asks, by what the browser says: in `Sec-Fetch-Site`, which it sends where a
/// network could not change it, else in `Origin`. The server is what the client calls it, which behind a trusted proxy
/// is what that forwards.
fn is_same_origin(request: &Parts) -> bool {
    let mut sites = request.headers.get_all("sec-fetch-site").iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| site == "same-origin");
    }
    let mut origins = request.headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return false };
    let Some(origin) = origin.to_str().ok().and_then(|origin| origin.parse::<Origin>().ok()) else { return false };
    let Some(authority) = reached_as(request) else { return false };
    let forwarded = request.extensions.get::<Forwarded>();
    let via = request.extensions.get::<Via>().map(|via| via.tls);
    // One that forwards may have ended TLS and not say so; so may what is in front of another server than ours.
    let https = forwarded.map_or(via, Forwarded::https);
    let schemes = match https {
        Some(true) => &["https"][..],
        Some(false) => &["http"],
        None => &["https", "http"],
    };
    schemes.iter().any(|scheme| format!("{scheme}://{authority}").parse().is_ok_and(|own: Origin| own == origin))
}

/// What the client calls the server: behind a trusted proxy, what that forwards.
fn reached_as(request: &Parts) -> Option<&str> {
    let named = || host::checked(request.version, &request.uri, &request.headers).ok().flatten();
    request.extensions.get::<Forwarded>().and_then(Forwarded::host).or_else(named)
}

/// Keeps what is secret in a request out of every log that shows requests.
pub(super) fn hide(headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, header::COOKIE] {
        if let header::Entry::Occupied(mut values) = headers.entry(name) {
            values.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

/// Whether a request's URL holds a token.
pub(super) fn is_in_url(request: &Request) -> bool {
    request.uri().query().is_some_and(|query| query.contains("token="))
}

/// Whether a session is asked for.
pub(super) fn asks_for_session(method: &Method) -> bool {
    *method == Method::CONNECT
}

/// A body that breaks off when the right to it ends.
struct Until {
    body: Body,
    over: BoxFuture<'static, ()>,
}

impl HttpBody for Until {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over.poll_unpin(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(Unfinished))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
