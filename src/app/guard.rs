//! What holds for every route.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tracing::{debug, field::display};

use super::{App, Problem, authorize, entry::Noted, host};
use crate::{
    ConnectionHandle,
    admission::Refusal,
    origin::{Origins, is_loopback},
    server::{Advertise, Forwarded, Via},
};

/// The headers that a page of another origin may see beside those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "accept-ranges, content-length, content-range, etag, h3cast-session, retry-after, www-authenticate",
);

/// A request that a page of another origin made, as far as that shows, or that a browser made in case its user wants
/// the answer later: it may read what is there, but starts nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Unasked {
    Foreign,
    Prefetch,
}

impl Unasked {
    /// Of a request whose `Origin` is allowed, or not, or not there; `any` tells whether every origin is allowed.
    fn of(headers: &HeaderMap, allowed: Option<bool>, any: impl FnOnce() -> bool) -> Option<Self> {
        let value = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
        // Fetch Metadata: `cross-site` and `same-site` are other origins; `none` is a user who opens it. Browsers leave
        // `Origin` out for images, scripts and links.
        let foreign = match allowed {
            Some(allowed) => !allowed,
            None => value("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) && !any(),
        };
        let prefetch = || {
            let purposes = ["sec-purpose", "purpose", "x-moz"].into_iter().filter_map(value);
            purposes.map(str::trim_start).any(|purpose| purpose.starts_with("prefetch"))
        };
        match foreign {
            true => Some(Self::Foreign),
            false => prefetch().then_some(Self::Prefetch),
        }
    }

    /// Why a feed that starts something for each viewer does not.
    pub(super) fn problem(self) -> Problem {
        match self {
            Self::Foreign => {
                let text = "this feed starts a command for each viewer, which pages of another origin may not do: open its \
                            URL or this server's page by hand, or let the server allow that origin";
                Problem::new(StatusCode::FORBIDDEN, text.into())
            }
            Self::Prefetch => {
                let text = "this feed starts a command for each viewer, but not for a prefetch";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text.into())
            }
        }
    }
}

/// What holds for every route: who may ask, which pages may read the answer, and what a browser
/// must not make of it. Refusals are counted here, where the client is known.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Result<Response, Infallible> {
    let client = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(client)| *client);
    let id = Noted::of(request.extensions()).and_then(Noted::id);
    let mut response = guarded(&app, request, next).await;
    if let Some(id) = id.and_then(|id| HeaderValue::try_from(id).ok()) {
        response.headers_mut().insert("x-request-id", id);
    }
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        app.refused(refusal, client.map_or_else(|| "?".into(), |client| client.to_string()));
    }
    Ok(response)
}

async fn guarded(app: &App, mut request: Request, next: Next) -> Response {
    crate::fault::point("request");
    #[cfg(feature = "acme")]
    if let Some(answer) = app.challenges.as_ref().and_then(|tokens| tokens.answer(request.uri().path())) {
        // Asked for by the name that is to be validated, whether the server knows it yet or not.
        return ([(header::CACHE_CONTROL, "no-store")], answer).into_response();
    }
    let via = request.extensions().get::<Via>().copied();
    let authority = match host::checked(request.version(), request.uri(), request.headers()) {
        Ok(authority) => authority,
        Err(text) => return Problem::bad(text.into()).into_response(),
    };
    let named = authority.and_then(host::host_in);
    let forwarded = request.extensions().get::<Forwarded>();
    let advertised = request.extensions().get::<Arc<Advertise>>().and_then(|at| at.host());
    let is_given = |host: &str| advertised.is_some_and(|at| at.eq_ignore_ascii_case(host)) || app.names(host);
    // A client that names none is not a browser.
    let is_local = authority.is_none() || named.is_some_and(|host| is_loopback(host) || is_given(host));
    if via.is_some_and(|via| !via.tls) && !is_local && !forwarded.is_some_and(Forwarded::is_unforgeable) {
        return misdirected(named, forwarded).into_response();
    }
    // A page elsewhere can make its own name point here, and be of the same host then. A certificate is in the way of
    // that, ours or the proxy's (unless the browser was told to take ours for every name).
    let host = forwarded.and_then(Forwarded::host).and_then(host::host_in).or(named).unwrap_or("localhost");
    let is_ours = is_given(host) || forwarded.is_some_and(|by| by.https() == Some(true));
    log(&request);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let foreign = origin.is_some();
    let allowed = origin.filter(|origin| origin.to_str().is_ok_and(|origin| app.allows(origin, host, is_ours)));
    if foreign && allowed.is_none() && !request.method().is_safe() {
        // Browsers send simple cross-origin POSTs without asking first.
        let text = "pages of that origin may not do this here: the server must allow their origin";
        return Problem::new(StatusCode::FORBIDDEN, text.into()).because(Refusal::Origin).into_response();
    }
    let trusted = foreign.then_some(allowed.is_some());
    let unasked = Unasked::of(request.headers(), trusted, || app.allows("null", host, is_ours));
    // Extensions are a map on the heap: only what a request needs goes into them.
    if let Some(prefix) = host::Prefix::of(&request) {
        request.extensions_mut().insert(prefix);
    }
    if let Some(unasked) = unasked {
        request.extensions_mut().insert(unasked);
    }
    let opens_session = authorize::asks_for_session(request.method());
    let secret = app.decider.is_some() || authorize::is_in_url(&request);
    if secret {
        authorize::hide(request.headers_mut());
    }
    if opens_session {
        // Which pages may open one has been decided here.
        request.extensions_mut().insert(Origins::any());
    }
    let preflight = (*request.method() == Method::OPTIONS).then(|| request.headers().clone());
    let mut response = next.run(request).await;
    if let Some(allowed) = response.headers().get(header::ALLOW).and_then(|allowed| allowed.to_str().ok())
        && allowed.contains("CONNECT")
    {
        // That opens sessions, which is no request that a page or a tool could make.
        let methods: Vec<_> = allowed.split(',').map(str::trim).filter(|method| *method != "CONNECT").collect();
        if let Ok(methods) = HeaderValue::from_str(&methods.join(",")) {
            response.headers_mut().insert(header::ALLOW, methods);
        }
    }
    if let Some(preflight) = preflight
        && response.status() == StatusCode::METHOD_NOT_ALLOWED
    {
        // What is refused is OPTIONS itself, and the refusal says what is allowed.
        response = options(&preflight, response.headers().get(header::ALLOW));
    }
    if opens_session {
        // Also for the server's own handlers, which are asked next.
        response.extensions_mut().insert(Origins::any());
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if secret && !headers.contains_key(header::REFERRER_POLICY) {
        // A token may stand in the URL, which a browser would show to whatever the answer links to.
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        // Lets the page see which protocol carried the response.
        headers.insert("timing-allow-origin", origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

/// The answer to a request over plain HTTP under a name that was not given to this server.
///
/// A page elsewhere that makes its own name point at this machine (DNS rebinding) would otherwise read everything here
/// as its own. It can pretend to be a trusted proxy of this machine, but not under another name, nor with `Via`.
fn misdirected(named: Option<&str>, forwarded: Option<&Forwarded>) -> Problem {
    let host = named.unwrap_or("this name");
    let text = match forwarded {
        None => format!(
            "plain HTTP is served to this machine only, under its own name: open http://localhost instead of {host}. \
             If a proxy forwards this, the server must trust it (`trust-proxy`, with its address)"
        ),
        Some(_) => format!(
            "the proxy forwards {host}, but so could any page that makes its name point here: have the proxy send \
             `Via`, or `Host: localhost` and the name in `X-Forwarded-Host`, or give the server this name \
             (`advertise` or `allow-origin`)"
        ),
    };
    Problem::new(StatusCode::MISDIRECTED_REQUEST, text)
}

/// Has a line in the log for a request, with the client's address: behind a trusted proxy, the one that it states.
fn log(request: &Request) {
    let client = || request.extensions().get::<ConnectionHandle>().map(|at| display(at.remote_address()));
    let (version, method) = (request.version(), request.method());
    debug!(?version, %method, path = request.uri().path(), client = client(), "request");
}

/// OPTIONS, and with it the preflight of CORS (Fetch §4.8).
fn options(request: &HeaderMap, allowed: Option<&HeaderValue>) -> Response {
    let methods = allowed.and_then(|allowed| allowed.to_str().ok()).unwrap_or("GET, HEAD");
    let listed = methods.split(',').map(str::trim).filter(|method| *method != "OPTIONS");
    let methods = listed.chain(["OPTIONS"]).collect::<Vec<_>>().join(", ");
    let methods = HeaderValue::from_str(&methods).unwrap_or(HeaderValue::from_static("GET, HEAD, OPTIONS"));
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, methods.clone());
    if request.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        if let Some(names) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
    }
    response
}
