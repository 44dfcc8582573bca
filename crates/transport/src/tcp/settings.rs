//! hyper, set as the limits of a server say.

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use h3cast_proto::code;
use http::Request;
use hyper::rt::Executor;
use hyper_util::{rt::TokioTimer, server::conn::auto};
use tokio::time::sleep;
use tracing::error;

use super::{
    flushed::Flushes,
    opening,
    pace::{Pace, Room, Taken, while_taken},
    pings::Pings,
};
use crate::{connection::ConnectionHandle, limits::Limits, panics};

/// How long a connection may take nothing after one of its responses was cut: the reset cannot leave.
const RESET: Duration = Duration::from_secs(1);

/// Spawns hyper's tasks, each of them one request over HTTP/2, and logs their panics: hyper keeps no handle. A response
/// of which the client takes nothing is cut.
#[derive(Clone)]
pub(super) struct Tasks {
    pub(super) pauses: Option<(Duration, Duration)>,
    pub(super) flushes: Flushes,
    /// What responses have in h2.
    pub(super) room: Room,
    /// Called when one is cut.
    pub(super) cut: Arc<dyn Fn() + Send + Sync>,
    /// Called when one is stuck in h2: the connection has to end.
    pub(super) stuck: Arc<dyn Fn() + Send + Sync>,
    pub(super) connection: ConnectionHandle,
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let Self { pauses, flushes, room, cut, stuck, connection } = self.clone();
        // It is large, and each layer around it would have room for it again.
        let task = Box::pin(task);
        tokio::spawn(async move {
            let task = async {
                let pace = Pace::new(&room);
                match while_taken(pace, task, pauses, || flushes.is_blocked()).await {
                    Taken::All(()) => {}
                    Taken::Cut => cut(),
                    Taken::Stuck => stuck(),
                    // The reset frees what h2 holds, and what the system holds goes if the client takes it.
                    Taken::CutByApplication { complete: false } if !flushes.is_blocked() => {}
                    Taken::CutByApplication { complete } => {
                        let written = flushes.written();
                        sleep(RESET).await;
                        if complete || flushes.is_blocked() && flushes.written() == written {
                            let reason = "a response was cut, and its connection takes nothing";
                            connection.close(code::H3_EXCESSIVE_LOAD, reason);
                        }
                    }
                }
            };
            let mut task = pin!(panics::caught_async(task));
            let polled = poll_fn(|cx| {
                let polled = task.as_mut().poll(cx);
                opening::close();
                polled
            });
            if let Err(panic) = polled.await {
                error!("the task of a request panicked: {panic}");
            }
        });
    }
}

/// What a head has in HTTP/1.1 beside what [`head_size`] counts, in bytes: the version, and the ends of lines.
const SYNTAX: usize = 256;
/// The least that hyper takes, in bytes.
const LEAST_BUFFER: usize = 8 * 1024;

/// How large the head of a request is, as HTTP/2 and HTTP/3 count (RFC 9114 §4.2.2).
pub(super) fn head_size<B>(request: &Request<B>) -> u64 {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
    (request.method().as_str().len() + target + fields.sum::<usize>()) as u64
}

/// How much hyper may take of a head in HTTP/1.1, in bytes.
pub(super) fn head_buffer(limits: &Limits) -> usize {
    (usize::try_from(limits.head_size).unwrap_or(usize::MAX).saturating_add(SYNTAX)).max(LEAST_BUFFER)
}

/// What serves connections of HTTP/1.1 and HTTP/2.
pub(super) fn builder(limits: &Limits, tasks: Tasks, pings: Pings) -> auto::Builder<Tasks> {
    // hyper adds it to the time that it is.
    let silence = (limits.idle_timeout / 2).min(Duration::from_secs(u32::MAX.into()));
    let mut builder = auto::Builder::new(tasks);
    builder
        .http1()
        .timer(TokioTimer::new())
        // `waiting` has one for heads, and one for the pauses before them.
        .header_read_timeout(None)
        .keep_alive(!limits.keep_alive.is_zero())
        // A head that is not complete by then is refused (431), and no more of it is read. hyper keeps the buffer as
        // long as the connection; bodies are read into it as well.
        .max_buf_size(head_buffer(limits));
    builder
        .http2()
        .timer(pings)
        .max_concurrent_streams(limits.streams)
        // WebSocket (RFC 8441).
        .enable_connect_protocol()
        .max_header_list_size(u32::try_from(limits.head_size).unwrap_or(u32::MAX))
        // What one response may have in h2, in bytes: `pace` bounds all of them.
        .max_send_buf_size(256 * 1024)
        .keep_alive_interval(Some(silence))
        .keep_alive_timeout(silence);
    builder
}
