//! What is asked.

use axum::http::Method;
use bytes::Bytes;

#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) headers: Vec<(&'static str, &'static [u8])>,
    /// Without `:authority`.
    pub(crate) unnamed: bool,
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
    Case { name, method, path, headers: Vec::new(), unnamed: false, body: Sent::Nothing }
}

impl Case {
    pub(crate) fn header(self, name: &'static str, value: &'static str) -> Self {
        self.bytes(name, value.as_bytes())
    }

    fn bytes(mut self, name: &'static str, value: &'static [u8]) -> Self {
        self.headers.push((name, value));
        self
    }

    fn many(mut self, fields: usize) -> Self {
        self.headers.extend((0..fields).map(|number| (leak(format!("x-{number}")), &b"a value"[..])));
        self
    }

    fn unnamed(mut self) -> Self {
        self.unnamed = true;
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
        case("DELETE of a streamed body", "DELETE", "/echo").body(Sent::Streamed(&["one", "two"])),
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
        get("a value that is no ASCII", "/latin"),
        get("a large head", "/large-head"),
        get("te", "/").header("te", "trailers"),
        get("trailers", "/trailers/none"),
        case("the head of trailers", "HEAD", "/trailers/none"),
        get("a body that fails", "/failing"),
        get("a body that panics", "/panicking"),
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
    cases.extend(requests());
    cases.extend(targets());
    cases.extend(bodies());
    cases.extend(heads());
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
    for status in [100, 101, 102, 103] {
        cases.push(get(leak(format!("{status} from a handler")), leak(format!("/status/{status}/none"))));
    }
    cases
}

/// Heads of requests, as a handler sees them.
fn requests() -> Vec<Case> {
    let (seen, post) = (|name| case(name, "GET", "/seen"), |name| case(name, "POST", "/seen"));
    vec![
        seen("a request"),
        seen("two cookies sent").header("cookie", "a=1").header("x", "between").header("cookie", "b=2; c=3"),
        seen("a field several times").header("x", "1").header("x", "").header("x", "2"),
        seen("a field with bytes that are no UTF-8").bytes("x", b"caf\xe9 \xff\xfe"),
        seen("a field with a tab").header("x", "a\tb"),
        seen("an empty field").header("x", ""),
        seen("an authority and the same host").header("host", "parity.test:8443"),
        seen("a host and no authority").header("host", "other.test").unnamed(),
        seen("another expectation").header("expect", "the best"),
        case("HEAD with a length of 0", "HEAD", "/seen").header("content-length", "0"),
        seen("GET with a length of 0").header("content-length", "0"),
        seen("GET with a body").text("a body"),
        post("POST with a length of 0").text(""),
        post("a length twice").header("content-length", "4").text("four"),
        post("two lengths").header("content-length", "3").text("four"),
        post("a list of lengths").header("content-length", "4, 4").body(Sent::Streamed(&["four"])),
        post("a length that is no number").header("content-length", "+4").body(Sent::Streamed(&["four"])),
        case("trailers of a request", "POST", "/read").body(Sent::Trailed("before")),
        case("trailers of a request alone", "POST", "/read").body(Sent::Trailed("")),
        case("empty pieces", "POST", "/read").body(Sent::Streamed(&["", "one", "", "", "two", ""])),
        case("nothing but empty pieces", "POST", "/read").body(Sent::Streamed(&["", ""])),
        case("a method in lower case", "get", "/seen").text(""),
        case("a method of punctuation", "!#$%&'*+-.^_`|~", "/seen").text(""),
        case("TRACE", "TRACE", "/seen").text(""),
        case("many fields", "GET", "/seen").many(90),
        case("more fields than there may be", "GET", "/seen").many(500),
    ]
}

/// What stands where a path belongs.
fn targets() -> Vec<Case> {
    let mut cases = vec![
        case("OPTIONS *", "OPTIONS", "*"),
        case("GET *", "GET", "*"),
        case("a long path", "GET", long(8_000)),
        case("a path that is longer than a head may be", "GET", long(20_000)),
        case("the longest path", "GET", long(65_534)),
    ];
    for path in [
        "/seen?",
        "/seen?a=%",
        "/seen?a=b?c",
        "/seen?a=\"<>",
        "/seen?a=/../b",
        "/seen/",
        "//seen",
        "/./seen",
        "/a/../seen",
        "/SEEN",
        "/see%6e",
        "/seen%3Fa=b",
        "/seen;a=b",
        "/path/%",
        "/path/%zz",
        "/path/%ff",
        "/path/%c3%a9",
        "/path/é",
        "/path/a%2Fb",
        "/path/%2e%2e/b",
        "/path/%00",
        "/path/a+b",
        "/path/a//b",
        "/path/{a}\"b|c",
        "/path/",
        "/path",
        "/path/:a@b",
        "/path/a\\b",
        "/query?a=%ff",
        "/query?a=b+c&a=d",
        "/query?%61=b",
        "/query?a",
        "/query?&&a=b",
        "/query?a=é",
    ] {
        if path.parse::<axum::http::uri::PathAndQuery>().is_ok() {
            cases.push(case(leak(format!("the path {path}")), "GET", path));
        }
    }
    cases
}

/// Bodies that a handler does not read to their end, and pieces of none.
fn bodies() -> Vec<Case> {
    let large = || Sent::Sized("x".repeat(1_000_000).into());
    vec![
        case("a body that is not read", "POST", "/unread").body(large()),
        case("a body that is read in part", "POST", "/begun").body(large()),
        case("a small body that is not read", "POST", "/unread").text("small"),
        case("a body where none is taken", "POST", "/missing").body(large()),
        case("a body that is dropped before the answer ends", "POST", "/dropped").body(large()),
        case("an answer with empty pieces", "GET", "/pieces/empty"),
        case("an answer of empty pieces", "GET", "/pieces/none"),
        case("an answer with trailers and no body", "GET", "/pieces/trailers"),
        case("an answer that fails at once", "GET", "/pieces/failing"),
    ]
}

/// Heads of responses.
fn heads() -> Vec<Case> {
    let both =
        |what: &'static str, path| [case(what, "GET", path), case(leak(format!("the head of {what}")), "HEAD", path)];
    [
        both("a length of 0 of nothing", "/length/0/none"),
        both("a length of 0 of a sized body", "/length/0/sized"),
        both("a length of 0 of a streamed body", "/length/0/streamed"),
        both("the same length twice", "/length/5+5/sized"),
        both("two different lengths", "/length/5+7/sized"),
        both("a length that is none", "/length/five/sized"),
        both("many response fields", "/many"),
        both("response bytes that are no UTF-8", "/bytes"),
        both("a date of one's own", "/dated"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A path of that many bytes.
fn long(len: usize) -> &'static str {
    leak(format!("/path/{}", "a".repeat(len - "/path/".len())))
}

fn leak(text: String) -> &'static str {
    text.leak()
}
