//! Floods of HTTP/2 frames that cost the server and bring it nothing.
//!
//! Empty SETTINGS, PING, PRIORITY, streams that are reset at once and the like cost their sender nine bytes, and the
//! server a frame to parse, often one to answer with (CVE-2019-9511 to 9518, CVE-2023-44487). h2 bounds what they
//! take of memory, and not how many there are, which hyper does not show either. So they are counted as they pass,
//! below h2. What the server sends allows for more: clients acknowledge our SETTINGS and PINGs, give credit for each
//! piece of a response, and send their next request when one is answered. Beyond that there is a rate.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::frames::{ACK, DATA, END_STREAM, Frame, Frames, HEADERS, PING, PREFACE, SETTINGS};
use crate::calm::Allowance;

/// GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 §6.8, §7). The highest stream that may have been handled is not known
/// here, so that a client must take all for handled.
const GOODBYE: &[u8] = b"\0\0\x17\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo many frames";

/// How long a client has to see that, while what it still sends is read and dropped: a socket that is closed with
/// unread data is reset, which may overtake it.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// How much of it is read, in bytes: a flood does not stop for that.
const DROPPED: usize = 64 * 1024;

/// Whether h2 has ended a connection for a flood: of what it keeps in memory, it has counts of its own.
pub(super) fn is_flood(error: &(dyn Error + 'static)) -> bool {
    let flood = |error: &h2::Error| error.is_library() && error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM);
    std::iter::successors(Some(error), |&error| error.source()).any(|error| error.downcast_ref().is_some_and(flood))
}

/// What a frame of the client's takes from its allowance.
fn cost(frame: Frame) -> u32 {
    match frame.ty {
        // A request's body, or its end.
        DATA if frame.content > 0 || frame.flags & END_STREAM != 0 => 0,
        _ => 1,
    }
}

/// What a frame of ours adds to it.
fn credit(frame: Frame) -> u32 {
    match frame.ty {
        // Two WINDOW_UPDATEs for each frame, or for each half a kilobyte.
        DATA => 2 + frame.content / 256,
        // The next request: HEADERS, a priority, a reset by a client that has enough of the response.
        HEADERS => 4,
        SETTINGS | PING if frame.flags & ACK == 0 => 1,
        _ => 0,
    }
}

/// A connection, HTTP/2 or not, whose client may send only so many frames of that kind.
pub(super) struct ControlFrames<S> {
    stream: S,
    reading: Reading,
    /// What is written.
    written: Frames,
    allowance: Allowance,
    /// Called once, when the client has sent too many.
    flooded: Box<dyn Fn() + Send + Sync>,
}

enum Reading {
    /// So much of HTTP/2's preface has come, and nothing else.
    Preface(usize),
    /// It is not HTTP/2.
    Other,
    Frames(Frames),
    /// Too many have come.
    Calming(Calming),
}

/// The end of a connection.
struct Calming {
    /// What is left to write, until it is flushed.
    goodbye: Option<&'static [u8]>,
    closed: bool,
    dropped: usize,
    timer: Pin<Box<Sleep>>,
}

impl<S> ControlFrames<S> {
    /// `rate` is how many frames a second; 0 for no limit.
    pub(super) fn new(stream: S, rate: u32, flooded: impl Fn() + Send + Sync + 'static) -> Self {
        let reading = if rate == 0 { Reading::Other } else { Reading::Preface(0) };
        let (written, allowance) = (Frames::default(), Allowance::new(rate));
        Self { stream, reading, written, allowance, flooded: Box::new(flooded) }
    }

    /// Looks at what has been read; whether there are too many frames in it.
    fn read(&mut self, mut bytes: &[u8]) -> bool {
        if let Reading::Preface(seen) = &mut self.reading {
            let more = bytes.len().min(PREFACE.len() - *seen);
            let (preface, rest) = bytes.split_at(more);
            if preface != &PREFACE[*seen..*seen + more] {
                self.reading = Reading::Other;
                return false;
            }
            *seen += more;
            if *seen < PREFACE.len() {
                return false;
            }
            bytes = rest;
            self.reading = Reading::Frames(Frames::default());
        }
        let Reading::Frames(frames) = &mut self.reading else { return false };
        let mut calm = true;
        frames.push(bytes, |frame| calm &= self.allowance.take(cost(frame)));
        if calm {
            return false;
        }
        (self.flooded)();
        // Not into a frame that is half written.
        let goodbye = Some(GOODBYE).filter(|_| self.written.at_boundary());
        let timer = Box::pin(tokio::time::sleep(LAST_LOOK));
        self.reading = Reading::Calming(Calming { goodbye, closed: false, dropped: 0, timer });
        true
    }

    fn wrote(&mut self, bytes: &[u8]) {
        if let Reading::Frames(_) | Reading::Preface(_) = self.reading {
            let allowance = &mut self.allowance;
            self.written.push(bytes, |frame| allowance.add(credit(frame)));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> ControlFrames<S> {
    /// Ends the connection; gives the error for h2. `None` when it is not to be ended.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Error>> {
        let Reading::Calming(calming) = &mut self.reading else { return None };
        let ended = calming.poll(Pin::new(&mut self.stream), cx);
        Some(ended.map(|_| io::Error::other("the client floods the connection with frames")))
    }
}

impl Calming {
    fn poll(
        &mut self,
        mut stream: Pin<&mut (impl AsyncRead + AsyncWrite)>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        while let Some(left) = self.goodbye {
            if left.is_empty() {
                if stream.as_mut().poll_flush(cx)?.is_pending() {
                    break;
                }
                self.goodbye = None;
                continue;
            }
            match stream.as_mut().poll_write(cx, left)? {
                Poll::Ready(0) => return Poll::Ready(Ok(())),
                Poll::Ready(size) => self.goodbye = Some(&left[size..]),
                Poll::Pending => break,
            }
        }
        if self.goodbye.is_none() && !self.closed {
            self.closed = stream.as_mut().poll_shutdown(cx)?.is_ready();
        }
        let mut dropped = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut dropped);
            ready!(stream.as_mut().poll_read(cx, &mut buf))?;
            self.dropped += buf.filled().len();
            if buf.filled().is_empty() || self.dropped > DROPPED {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ControlFrames<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(ended) = self.poll_end(cx) {
            return ended.map(Err);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if self.read(&buf.filled()[before..]) {
            // What has come with one too many is not answered.
            buf.set_filled(before);
            return self.poll_read(cx, buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ControlFrames<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(ended) = self.poll_end(cx) {
            return ended.map(Err);
        }
        let size = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.wrote(&buf[..size]);
        Poll::Ready(Ok(size))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(ended) = self.poll_end(cx) {
            return ended.map(Err);
        }
        let size = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        let mut left = size;
        for buf in bufs {
            let piece = left.min(buf.len());
            self.wrote(&buf[..piece]);
            left -= piece;
        }
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(ended) = self.poll_end(cx) {
            return ended.map(Err);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
