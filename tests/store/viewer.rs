//! A viewer over HTTP/1.1 that resumes by its cursor.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use h3cast::chunk::Cursor;
use h3cast_proto::feed::frames::{Frame, FrameDecoder};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{Place, process::soon};

pub(crate) struct Plain {
    place: Arc<Place>,
    last: Option<Cursor>,
    epoch: Option<h3cast::chunk::Epoch>,
    body: Option<(Incoming, FrameDecoder)>,
    chunks: VecDeque<(u64, Bytes)>,
}

impl Plain {
    pub(crate) fn new(place: Arc<Place>) -> Self {
        Self { place, last: None, epoch: None, body: None, chunks: VecDeque::new() }
    }

    /// The next chunk, and its number.
    pub(crate) async fn next(&mut self) -> (u64, Bytes) {
        loop {
            if let Some((seq, bytes)) = self.chunks.pop_front() {
                self.last = self.epoch.map(|epoch| Cursor { epoch, seq });
                return (seq, bytes);
            }
            let Some((body, frames)) = &mut self.body else {
                self.body = self.open().await;
                if self.body.is_none() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                continue;
            };
            let Some(Ok(frame)) = soon("more", body.frame()).await else {
                self.body = None;
                continue;
            };
            frames.push(frame.data_ref().map_or(&[][..], |bytes| bytes));
            while let Some(frame) = frames.pop().unwrap() {
                match frame {
                    Frame::Begin { epoch, .. } => {
                        assert_eq!(*self.epoch.get_or_insert(epoch), epoch, "another run");
                    }
                    Frame::Chunk { seq, bytes, .. } => self.chunks.push_back((seq, Bytes::copy_from_slice(&bytes))),
                    Frame::Heartbeat | Frame::End(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    async fn open(&self) -> Option<(Incoming, FrameDecoder)> {
        let stream = TcpStream::connect(("127.0.0.1", self.place.http_port)).await.ok()?;
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let from = self.last.map_or_else(|| "start".into(), |last| last.to_string());
        let request = http::Request::get(format!("/stream?format=frames&from={from}")).header("host", "localhost");
        let response = send.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.ok()?;
        (response.status() == 200).then(|| (response.into_body(), FrameDecoder::new(1 << 20)))
    }
}
