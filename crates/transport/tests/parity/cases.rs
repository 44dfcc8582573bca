//! What is asked.

use axum::http::Method;
use bytes::Bytes;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
    pub(crate) body: Sent,
}

#[derive(Debug, Clone)]
pub(crate) enum Sent {
    Nothing,
    /// With a `content-length`.
    Sized(Bytes),
    /// Piece by piece.
    Streamed(&'static [&'static str]),
    /// With `x-sum` after it.
    Trailed(&'static str),
}

pub(crate) fn case(name: &'static str, method: &str, path: &'static str) -> Case {
    let method = method.parse().unwrap();
    Case { name, method, path, headers: Vec::new(), body: Sent::Nothing }
}

impl Case {
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body(mut self, body: Sent) -> Self {
        self.body = body;
        self
    }

    fn text(self, text: &'static str) -> Self {
        self.body(Sent::Sized(text.into()))
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let get = |name, path| case(name, "GET", path);
    let mut cases = vec![
        get("text", "/"),
        case("the head of text", "HEAD", "/"),
        get("nothing there", "/missing"),
        case("a method that is not allowed", "POST", "/"),
        case("OPTIONS", "OPTIONS", "/"),
        case("DELETE", "DELETE", "/echo"),
        case("a method of one's own", "PURGE", "/echo"),
        get("an empty body", "/empty"),
        get("a streamed body", "/stream"),
        case("the head of a streamed body", "HEAD", "/stream"),
        get("a large body", "/large"),
        case("an echo", "POST", "/echo").header("content-type", "text/plain").text("to and fro"),
        case("an echo of nothing", "POST", "/echo").text(""),
        case("an echo piece by piece", "PUT", "/echo").body(Sent::Streamed(&["one", "two"])),
        case("an echo with trailers", "POST", "/echo").body(Sent::Trailed("sum")),
        case("PATCH", "PATCH", "/echo").text("patch"),
        case("expecting 100", "POST", "/collected").header("expect", "100-continue").text("12345"),
        case("too large a body", "POST", "/text").body(Sent::Sized("x".repeat(2_100_000).into())),
        case("JSON", "POST", "/json").header("content-type", "application/json").text("[1, 2]"),
        case("JSON that is none", "POST", "/json").header("content-type", "application/json").text("[1"),
        case("JSON of no type", "POST", "/json").text("[1, 2]"),
        get("a query", "/query?a=b%20c&d=e"),
        get("no query", "/query"),
        get("an encoded path", "/path/a%20b/c"),
        get("a redirect", "/redirect"),
        get("two cookies set", "/cookies"),
        get("two cookies sent", "/cookie").header("cookie", "a=1").header("cookie", "b=2"),
        get("a value that is no ASCII", "/latin"),
        get("a large head", "/large-head"),
        get("te", "/").header("te", "trailers"),
        get("trailers", "/trailers/none"),
        case("the head of trailers", "HEAD", "/trailers/none"),
        get("a body that fails", "/failing"),
        get("a panic", "/panic"),
        get("early hints", "/hints"),
        get("a sized body without a length", "/unsaid"),
        case("the head of a sized body without a length", "HEAD", "/unsaid"),
        get("a body shorter than its length", "/length/7/sized"),
        get("a body longer than its length", "/length/3/sized"),
        get("a streamed body shorter than its length", "/length/7/streamed"),
        get("a streamed body longer than its length", "/length/3/streamed"),
        get("a streamed body with its length", "/length/5/streamed"),
        get("no body with a length", "/length/7/none"),
        case("the head of a length", "HEAD", "/length/7/sized"),
    ];
    for name in ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "named"] {
        let (path, trailers) = (format!("/forbidden/{name}"), format!("/trailers/{name}"));
        cases.push(get(leak(format!("{name} from a handler")), leak(path)));
        cases.push(get(leak(format!("{name} in trailers")), leak(trailers)));
    }
    for status in [204, 205, 304, 299, 418, 503, 599] {
        for (with, what) in
            [("body", "a body"), ("stream", "a streamed body"), ("length", "a length"), ("none", "nothing")]
        {
            let path = leak(format!("/status/{status}/{with}"));
            cases.push(get(leak(format!("{status} with {what}")), path));
            if with == "body" {
                cases.push(case(leak(format!("the head of {status} with {what}")), "HEAD", path));
            }
        }
    }
    for status in [100, 102, 103] {
        cases.push(get(leak(format!("{status} from a handler")), leak(format!("/status/{status}/none"))));
    }
    cases
}

fn leak(text: String) -> &'static str {
    text.leak()
}
