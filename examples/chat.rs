//! A chat: everyone who has the page open is in one room.
//!
//! ```toml
//! [dependencies]
//! anyhow = "1"
//! axum = "0.8"
//! bytes = "1"
//! futures-util = "0.3"
//! h3cast = { version = "0.1", default-features = false }
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! tokio = { version = "1", features = ["io-util", "macros", "rt-multi-thread", "signal", "sync"] }
//! tokio-util = { version = "0.7", features = ["rt"] }
//! ```
//!
//! ```sh
//! cargo run --example chat
//! ```
//!
//! Open the page that it prints in two tabs, or in two browsers.
//!
//! - WebTransport, `CONNECT /chat?name=NAME`: the client opens one bidirectional stream. Each line
//!   that it writes is a message, each line that it reads one of [`Line`] as JSON. Empty lines are
//!   ignored; when the client ends its stream, it has left the room.
//! - Any HTTP, for clients without WebTransport: `GET /chat?name=NAME` streams the same lines,
//!   `POST /chat?name=NAME` posts its body as a message.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::{StatusCode, header};
use axum::{Router, body::Body, response::IntoResponse, routing::get};
use bytes::Bytes;
use futures_util::stream;
use h3cast::webtransport::{RecvStream, SendStream, SessionRequest};
use h3cast::{App, Identity, Listen, PlainHttp, Server, origin::Origins};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// The longest message, in bytes of UTF-8.
const MAX_TEXT: usize = 4096;
/// The longest name, in bytes of UTF-8.
const MAX_NAME: usize = 64;
/// How many messages those who join get to read.
const HISTORY: usize = 50;
/// How many lines a reader may fall behind. They are stored once for all: since a control
/// character takes six bytes in JSON, 6.3 MB at most.
const BEHIND: usize = 256;
/// The code of a stream that is stopped because a message was too long.
const TOO_LONG: u32 = 1;
/// The code of a stream that is stopped because a message was no UTF-8.
const NOT_TEXT: u32 = 2;

/// What is written, as one line of JSON; `at` is in milliseconds since 1970. `Missed` goes to a
/// reader that was too slow: so many lines are missing there.
#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Message { from: &'a str, text: &'a str, at: u64 },
    Joined { joined: &'a str, at: u64 },
    Left { left: &'a str, at: u64 },
    Missed { missed: u64, at: u64 },
}

impl Line<'_> {
    fn encode(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).expect("strings and numbers are JSON");
        line.push(b'\n');
        line.into()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// The query of every request.
#[derive(Deserialize)]
struct Who {
    #[serde(deserialize_with = "name")]
    name: String,
}

/// A name that can be shown, without the spaces around it.
fn name<'de, D: Deserializer<'de>>(query: D) -> Result<String, D::Error> {
    let name = String::deserialize(query)?.trim().to_owned();
    let fine = (1..=MAX_NAME).contains(&name.len()) && !name.contains(char::is_control);
    fine.then_some(name).ok_or_else(|| D::Error::custom("a name has 1 to 64 bytes, without control characters"))
}

struct Room {
    history: Mutex<VecDeque<Bytes>>,
    lines: broadcast::Sender<Bytes>,
    stop: CancellationToken,
}

impl Room {
    /// An empty text is ignored.
    fn say(&self, name: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        let mut history = self.history.lock().unwrap();
        let line = Line::Message { from: name, text, at: now() }.encode();
        if history.len() == HISTORY {
            history.pop_front();
        }
        history.push_back(line.clone());
        // Sent while the history is held: a new member has a message there or in the queue, never in
        // both. An error means that the room is empty.
        let _ = self.lines.send(line);
    }

    fn join(self: &Arc<Self>, name: String) -> Member {
        let history = self.history.lock().unwrap();
        let member = Member { history: history.clone(), lines: self.lines.subscribe(), room: self.clone(), name };
        let _ = self.lines.send(Line::Joined { joined: &member.name, at: now() }.encode());
        member
    }
}

/// Somebody who is in the room, until dropped.
struct Member {
    name: String,
    room: Arc<Room>,
    history: VecDeque<Bytes>,
    lines: broadcast::Receiver<Bytes>,
}

impl Member {
    /// The next line, or `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(line) = self.history.pop_front() {
            return Some(line);
        }
        match self.room.stop.run_until_cancelled(self.lines.recv()).await? {
            Ok(line) => Some(line),
            Err(RecvError::Lagged(missed)) => Some(Line::Missed { missed, at: now() }.encode()),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.room.lines.send(Line::Left { left: &self.name, at: now() }.encode());
    }
}

/// Somebody chats over WebTransport.
async fn session(room: Arc<Room>, request: SessionRequest) {
    // Browsers open sessions for pages of any site, and leave it to the server to refuse.
    let host = request.uri().host().unwrap_or_default();
    if request.origin().is_some_and(|origin| !Origins::default().allow(origin, host)) {
        return request.reject(StatusCode::FORBIDDEN);
    }
    let Ok(Query(Who { name })) = Query::try_from_uri(request.uri()) else {
        return request.reject(StatusCode::BAD_REQUEST);
    };
    let Ok(session) = request.accept().await else { return };
    let Ok((mut send, mut recv)) = session.accept_bi().await else { return };
    let mut member = room.join(name.clone());
    tokio::select! {
        () = tell(&mut member, &mut send) => {
            let _ = send.finish();
        }
        heard = hear(&room, &name, &mut recv) => match heard {
            // Their goodbye: to return closes the session.
            Ok(()) => return,
            Err(code) => recv.stop(code),
        }
    }
    drop(member);
    // Neither the session nor the stream's other half is ended as well: that could hide from the
    // client why its half was stopped, or cut what it still reads.
    session.closed().await;
}

/// Writes every line, as long as there are any and the client reads them.
async fn tell(member: &mut Member, send: &mut SendStream) {
    while let Some(line) = member.next().await {
        if send.write_bytes(line).await.is_err() {
            return;
        }
    }
}

/// Reads messages, one a line, until the stream ends. An error is the code to stop it with.
async fn hear(room: &Room, name: &str, recv: &mut RecvStream) -> Result<(), u32> {
    let mut recv = BufReader::new(recv);
    loop {
        let mut line = Vec::new();
        // One byte more than a message, for the line's end.
        let read = (&mut recv).take(MAX_TEXT as u64 + 1).read_until(b'\n', &mut line).await;
        if !read.is_ok_and(|bytes| bytes > 0) {
            return Ok(());
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if text.len() > MAX_TEXT {
            return Err(TOO_LONG);
        }
        room.say(name, str::from_utf8(text).map_err(|_| NOT_TEXT)?);
    }
}

/// The response that brings the lines. When its reader goes, it is dropped, and the member with it.
async fn listen(State(room): State<Arc<Room>>, Query(Who { name }): Query<Who>) -> impl IntoResponse {
    let lines = stream::unfold(room.join(name), |mut member| async move {
        let line = member.next().await?;
        Some((Ok::<_, Infallible>(line), member))
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(lines))
}

/// Says one message. axum answers 413 to a body over the limit, and 400 to one that is no UTF-8.
async fn say(State(room): State<Arc<Room>>, Query(Who { name }): Query<Who>, text: String) -> StatusCode {
    room.say(&name, &text);
    StatusCode::NO_CONTENT
}

/// The value of `--NAME`, if it is given.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| *arg != format!("--{name}")).nth(1)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let certs = option("certs").unwrap_or_else(|| "certs".into());
    let identity = Identity::self_signed(certs.as_ref(), &[], Default::default())?;
    let http: Listen = option("http").unwrap_or_else(|| "localhost:8080".into()).parse()?;
    let tls: Listen = option("listen").unwrap_or_else(|| "localhost:4433".into()).parse()?;

    let stop = CancellationToken::new();
    let lines = broadcast::Sender::new(BEHIND);
    let room = Arc::new(Room { history: Mutex::default(), lines, stop: stop.clone() });
    // The page asks with HEAD whether there is a chat; that joins no one.
    let chat = get(listen).head(async || {}).post(say);
    let routes = Router::new().route("/chat", chat).layer(DefaultBodyLimit::max(MAX_TEXT)).with_state(room.clone());
    let builder = Server::builder(identity.clone())
        .listen(tls)
        .plain_http(PlainHttp::Near(http))
        .webtransport("/chat", move |request| session(room.clone(), request));
    let server = App::new([], identity).routes(routes).install(builder).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/chat.html", server.addresses().http.as_deref().unwrap_or("(off)"));

    let ctrl_c = stop.clone();
    tokio::spawn(async move { tokio::signal::ctrl_c().await.map(|()| ctrl_c.cancel()) });
    server.run(stop).await?;
    Ok(())
}
