//! What has been asked of a server, as an access log has it: one entry for each request, session and publication, at
//! its end.

mod shown;

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use http::{Extensions, HeaderName, Method, StatusCode, Uri, Version, header, request::Parts};

use super::App;
use crate::{
    ConnectionHandle,
    exchange::{Outcome, RequestEnd, RequestId, RequestKind, TraceParent},
    feed::Feed,
    server::{Forwarded, ServerBuilder},
};
use shown::{hidden, hidden_in_path, hidden_in_url};

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// A request; the body of a POST or PUT may be a publication.
    Request,
    /// A WebTransport session.
    Session,
    /// A stream that a client has opened in its session to publish. Its method is `PUBLISH`.
    Publication,
}

impl EntryKind {
    /// One word for it: `request`, `session` or `publication`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Session => "session",
            Self::Publication => "publication",
        }
    }
}

/// What has been asked of a server, and what came of it: see [`App::on_request_end`].
///
/// Texts are as the client sent them, except that tokens in URLs are hidden (`token=***`), and that those of more than
/// [`LONGEST`](Self::LONGEST) bytes are cut and end with `...`: escape them for the format that they are written in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// What it is about.
    pub kind: EntryKind,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it took, from the request's head.
    pub duration: Duration,
    /// The client's address: behind a trusted proxy, the one that it states.
    pub client: Option<SocketAddr>,
    /// The [number](ConnectionHandle::id) of its connection.
    pub connection: Option<u64>,
    /// The request's id; a session and what is published in it have the same.
    pub request: Option<RequestId>,
    /// The trace that it belongs to, if the client states one.
    pub trace: Option<TraceParent>,
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub target: String,
    /// The version of HTTP.
    pub version: Version,
    /// What the client calls the server.
    pub host: Option<String>,
    /// What was answered; `None` if nothing was.
    pub status: Option<StatusCode>,
    /// Bytes of the response's body, or of a session, that were handed to the connection.
    pub sent: u64,
    /// Bytes of the request's body, or of a session, that were read.
    pub received: u64,
    /// How it ended.
    pub end: RequestEnd,
    /// The client's software.
    pub user_agent: Option<String>,
    /// Where the client found the URL.
    pub referrer: Option<String>,
    /// The feed that was asked for, if there is one and the client may use it.
    pub feed: Option<String>,
    /// The client's name, if its token has one.
    pub user: Option<String>,
}

impl Entry {
    /// How long a text may be that a client has sent, in bytes. They are kept for as long as the request lasts.
    pub const LONGEST: usize = 2048;
}

type Hook = dyn Fn(&Entry) + Send + Sync;

/// What is called with each entry.
#[derive(Clone)]
pub(super) struct OnEntry(Arc<Hook>);

impl fmt::Debug for OnEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnEntry")
    }
}

impl App {
    /// Is called at the end of each request, each session, and each stream that is published in a session: for an
    /// access log. It must not block, and runs where the request did. Requests that the server refuses without asking
    /// the app are among them. The last one counts.
    ///
    /// It takes effect with [`install`](Self::install), and is then the server's
    /// [`on_request`](ServerBuilder::on_request). Responses then have an `X-Request-Id`, by which their entry is found.
    ///
    /// ```
    /// # fn doc(app: h3cast::App) -> h3cast::App {
    /// app.on_request_end(|entry| {
    ///     let status = entry.status.map_or(0, |status| status.as_u16());
    ///     println!("{} {:?} {status} {} {}", entry.method, entry.target, entry.sent, entry.end.as_str());
    /// })
    /// # }
    /// ```
    #[must_use]
    pub fn on_request_end(mut self, hook: impl Fn(&Entry) + Send + Sync + 'static) -> Self {
        self.on_entry = Some(OnEntry(Arc::new(hook)));
        self
    }

    /// Has a server tell of its requests.
    pub(super) fn watch(&self, server: ServerBuilder) -> ServerBuilder {
        let Some(OnEntry(hook)) = self.on_entry.clone() else { return server };
        server.on_request(move |head, kind| {
            let noted = Noted::new(head, kind, hook.clone());
            head.extensions.insert(noted.clone());
            Some(Box::new(move |outcome: &Outcome| noted.end(outcome)))
        })
    }
}

/// What is noted of a request while it lasts, which it has in its extensions.
#[derive(Clone)]
pub(super) struct Noted(Arc<Note>);

struct Note {
    hook: Arc<Hook>,
    /// As far as it is known at the beginning.
    begun: Entry,
    feed: OnceLock<String>,
    user: OnceLock<String>,
}

impl Noted {
    fn new(head: &Parts, kind: RequestKind, hook: Arc<Hook>) -> Self {
        let extensions = &head.extensions;
        let text = |name: HeaderName| {
            let value = head.headers.get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()))
        };
        let connection = extensions.get::<ConnectionHandle>();
        let forwarded = extensions.get::<Forwarded>().and_then(Forwarded::host);
        let named = forwarded.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).map(Cow::from);
        let begun = Entry {
            kind: if kind == RequestKind::Session { EntryKind::Session } else { EntryKind::Request },
            ended: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            client: connection.map(ConnectionHandle::remote_address),
            connection: connection.map(ConnectionHandle::id),
            request: extensions.get().cloned(),
            trace: extensions.get().copied(),
            method: head.method.clone(),
            target: cut(&target(&head.uri)),
            version: head.version,
            host: named.or_else(|| text(header::HOST)).map(|host| cut(&host)),
            status: None,
            sent: 0,
            received: 0,
            end: RequestEnd::Gone,
            user_agent: text(header::USER_AGENT).map(|agent| cut(&agent)),
            referrer: text(header::REFERER).map(|url| cut(&hidden_in_url(&url))),
            feed: None,
            user: None,
        };
        Self(Arc::new(Note { hook, begun, feed: OnceLock::new(), user: OnceLock::new() }))
    }

    /// The one of a request, if anyone wants to know.
    pub(super) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The feed that it asks for.
    pub(super) fn feed(extensions: &Extensions, feed: &Feed) {
        if let Some(Self(note)) = Self::of(extensions) {
            note.feed.get_or_init(|| feed.name().to_owned());
        }
    }

    /// Who asks.
    pub(super) fn user(extensions: &Extensions, name: Option<&str>) {
        if let (Some(Self(note)), Some(name)) = (Self::of(extensions), name) {
            note.user.get_or_init(|| cut(name));
        }
    }

    /// The id by which its entry is found.
    pub(super) fn id(&self) -> Option<String> {
        self.0.begun.request.as_ref().map(ToString::to_string)
    }

    fn end(&self, outcome: &Outcome) {
        let Outcome { status, sent, received, duration, end, .. } = *outcome;
        self.tell(Entry { status, sent, received, duration, end, ..self.0.begun.clone() });
    }

    fn tell(&self, entry: Entry) {
        let Note { hook, feed, user, .. } = &*self.0;
        hook(&Entry { ended: SystemTime::now(), feed: feed.get().cloned(), user: user.get().cloned(), ..entry });
    }

    /// A publication that begins in this session.
    pub(super) fn publication(&self) -> NotedPublication {
        NotedPublication {
            noted: self.clone(),
            begun: Instant::now(),
            status: None,
            end: RequestEnd::Gone,
            received: 0,
            sent: 0,
        }
    }
}

/// A publication in a session while it lasts. Its entry comes when it is dropped.
pub(super) struct NotedPublication {
    noted: Noted,
    begun: Instant,
    status: Option<StatusCode>,
    end: RequestEnd,
    received: u64,
    sent: u64,
}

impl NotedPublication {
    pub(super) fn received(&mut self, bytes: usize) {
        self.received += bytes as u64;
    }

    /// What came of it, and with how many bytes it is answered.
    pub(super) fn answered(&mut self, status: StatusCode, is_gone: bool) {
        self.status = Some(status);
        self.end = match status.is_success() {
            true => RequestEnd::Complete,
            false if is_gone => RequestEnd::Gone,
            false => RequestEnd::Cut,
        };
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }
}

impl Drop for NotedPublication {
    fn drop(&mut self) {
        // Only now: while it lasts, it shares the session's texts.
        self.noted.tell(Entry {
            kind: EntryKind::Publication,
            method: Method::from_bytes(b"PUBLISH").unwrap_or_default(),
            status: self.status,
            end: self.end,
            received: self.received,
            sent: self.sent,
            duration: self.begun.elapsed(),
            ..self.noted.0.begun.clone()
        });
    }
}

/// A text of at most [`Entry::LONGEST`] bytes.
fn cut(text: &str) -> String {
    const MARK: &str = "...";
    match text.len() > Entry::LONGEST {
        true => format!("{}{MARK}", &text[..text.floor_char_boundary(Entry::LONGEST - MARK.len())]),
        false => text.to_owned(),
    }
}

/// The path and the query of a URL, as in the first line of a request, without its tokens.
fn target(uri: &Uri) -> String {
    match (uri.path(), uri.query()) {
        ("", None) => "*".into(),
        (path, None) => hidden_in_path(path).into_owned(),
        (path, Some(query)) => format!("{}?{}", hidden_in_path(path), hidden(query)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_name_of_a_client_is_cut_and_a_token_in_the_path_hidden() {
        let head = http::Request::get("/stream/log&token=geheim?from=start").body(()).unwrap();
        let (mut head, ()) = head.into_parts();
        let seen = Arc::<Mutex<Option<Entry>>>::default();
        let to = seen.clone();
        let hook = move |entry: &Entry| *to.lock().unwrap() = Some(entry.clone());
        let noted = Noted::new(&head, RequestKind::Response, Arc::new(hook));
        head.extensions.insert(noted.clone());
        Noted::user(&head.extensions, Some(&"x".repeat(5000)));
        noted.tell(noted.0.begun.clone());
        let entry = seen.lock().unwrap().take().unwrap();
        assert_eq!(entry.user.map(|user| user.len()), Some(Entry::LONGEST));
        assert_eq!(entry.target, "/stream/log&token=***?from=start");
    }
}
