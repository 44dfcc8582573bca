//! Viewers that resume by their cursor, and check that they get each chunk once and in order.

use std::{sync::Arc, time::Duration};

use h3cast::{
    chunk::{Cursor, Epoch},
    client::{
        Viewer,
        viewer::{Event, Transport},
    },
    feed::End,
};
use h3cast_proto::feed::frames::{Frame, FrameDecoder};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, sync::mpsc};

use crate::{
    CHUNKS,
    process::{Place, soon},
};

/// A viewer has got its first chunk over a connection.
pub(crate) struct Seen;

/// What a viewer got to the end.
#[derive(Debug)]
pub(crate) struct Viewed {
    pub(crate) hash: Vec<u8>,
    pub(crate) epoch: Epoch,
    pub(crate) connections: usize,
}

/// What a viewer has so far.
struct View {
    hash: Sha256,
    next: u64,
    seen: mpsc::UnboundedSender<Seen>,
    /// It has got a chunk over this connection.
    reads: bool,
}

impl View {
    fn new(seen: mpsc::UnboundedSender<Seen>) -> Self {
        Self { hash: Sha256::new(), next: 0, seen, reads: false }
    }

    fn chunk(&mut self, seq: u64, bytes: &[u8]) {
        assert_eq!(seq, self.next, "a chunk was lost, or came twice");
        self.hash.update(bytes);
        self.next += 1;
        if !std::mem::replace(&mut self.reads, true) {
            let _ = self.seen.send(Seen);
        }
    }

    fn opened(&mut self) {
        self.reads = false;
    }

    fn end(self, epoch: Epoch, connections: usize) -> Viewed {
        assert_eq!(self.next, CHUNKS);
        Viewed { hash: self.hash.finalize().to_vec(), epoch, connections }
    }
}

/// With the library's viewer, over HTTP/3.
pub(crate) async fn over_viewer(place: Arc<Place>, transport: Transport, seen: mpsc::UnboundedSender<Seen>) -> Viewed {
    let uri = place.uri(&format!("/stream?from=start&limit={CHUNKS}"));
    let mut viewer = Viewer::new(&uri, place.trust()).unwrap().transport(transport);
    let (mut view, mut epoch, mut connections) = (View::new(seen), None, 0);
    loop {
        match soon("an event", viewer.next()).await.unwrap() {
            Some(Event::Opened { .. }) => {
                view.opened();
                connections += 1;
            }
            Some(Event::Chunk { cursor, bytes, .. }) => {
                assert!(epoch.is_none_or(|epoch| epoch == cursor.epoch), "another run of the feed");
                epoch = Some(cursor.epoch);
                view.chunk(cursor.seq, &bytes);
            }
            Some(Event::End(End::Clean)) | None => return view.end(epoch.unwrap(), connections),
            Some(Event::Lost { .. }) => {}
            Some(other) => panic!("{other:?}"),
        }
    }
}

/// By hand, over HTTP/1.1 and plain TCP.
pub(crate) async fn over_tcp(place: Arc<Place>, seen: mpsc::UnboundedSender<Seen>) -> Viewed {
    let (mut view, mut epoch, mut connections) = (View::new(seen), None, 0);
    loop {
        let from = match (epoch, view.next.checked_sub(1)) {
            (Some(epoch), Some(seq)) => Cursor { epoch, seq }.to_string(),
            _ => "start".into(),
        };
        let left = CHUNKS - view.next;
        let path = format!("/stream?format=frames&from={from}&limit={left}");
        view.opened();
        match read(&place, &path, &mut view, &mut epoch).await {
            Some(true) => return view.end(epoch.unwrap(), connections + 1),
            Some(false) => connections += 1,
            // The port is never refused, but a connection may just be let go.
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Reads one response. Whether it came to the clean end; `None` if there was none.
async fn read(place: &Place, path: &str, view: &mut View, epoch: &mut Option<Epoch>) -> Option<bool> {
    let stream = soon("a connection", TcpStream::connect(("127.0.0.1", place.http_port))).await.expect("not refused");
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "localhost").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = soon("the head", send.send_request(request)).await.ok()?;
    assert_eq!(response.status(), 200);
    let (mut body, mut frames) = (response.into_body(), FrameDecoder::new(1 << 20));
    while let Some(frame) = soon("more", body.frame()).await {
        // A cut body is an error.
        let Ok(frame) = frame else { return Some(false) };
        frames.push(frame.data_ref().map_or(&[][..], |bytes| bytes));
        while let Some(frame) = frames.pop().unwrap() {
            match frame {
                Frame::Begin { epoch: of, .. } => {
                    assert!(epoch.is_none_or(|epoch| epoch == of), "another run of the feed");
                    *epoch = Some(of);
                }
                Frame::Chunk { seq, bytes, .. } => view.chunk(seq, &bytes),
                Frame::End(End::Clean) => return Some(true),
                Frame::Heartbeat => {}
                other => panic!("{other:?}"),
            }
        }
    }
    Some(false)
}
