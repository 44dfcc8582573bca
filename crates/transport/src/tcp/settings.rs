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
                let (pace, blocked) = (Pace::new(&room), || flushes.is_blocked());
                let mut taken = while_taken(pace.clone(), task, pauses, blocked).await;
                if let Taken::CutByApplication { complete } = taken {
                    // The reset frees what h2 holds, and what the system holds goes if the client takes it.
                    if takes_nothing(&flushes).await {
                        let reason = "a response was cut, and its connection takes nothing";
                        return connection.close(code::H3_EXCESSIVE_LOAD, reason);
                    }
                    // No reset is possible then, and there are others on the connection.
                    if complete {
                        taken = while_taken(pace, std::future::ready(()), pauses, blocked).await;
                    }
                }
                match taken {
                    Taken::All(()) | Taken::CutByApplication { .. } => {}
                    Taken::Cut => cut(),
                    Taken::Stuck => stuck(),
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

/// Whether a connection takes nothing for as long as a reset may need to leave.
async fn takes_nothing(flushes: &Flushes) -> bool {
    if !flushes.is_blocked() {
        return false;
    }
    let written = flushes.written();
    sleep(RESET).await;
    flushes.is_blocked() && flushes.written() == written
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum_core::body::Body;
    use http_body_util::BodyExt;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        connection::{Cut, Owner},
        tcp::pace::Paced,
    };

    /// Others on the connection go on: it is closed only when the send timeout is over, if what is left stays so long.
    #[tokio::test(start_paused = true)]
    async fn a_complete_response_that_is_cut_does_not_close_its_connection() {
        const TIMEOUT: Duration = Duration::from_secs(60);
        let owner = Owner::tcp(None, ([127, 0, 0, 1], 9).into(), None, None, Default::default());
        let stuck = Arc::<AtomicUsize>::default();
        for (pauses, leaves, expected) in
            [(Some((TIMEOUT, TIMEOUT / 6)), true, 0), (None, false, 0), (Some((TIMEOUT, TIMEOUT / 6)), false, 1)]
        {
            let counted = stuck.clone();
            let tasks = Tasks {
                pauses,
                flushes: Flushes::default(),
                room: Room::default(),
                cut: Arc::new(|| {}),
                stuck: Arc::new(move || _ = counted.fetch_add(1, Ordering::Relaxed)),
                connection: owner.handle().clone(),
            };
            let (cut, (given, kept)) = (Cut::default(), oneshot::channel());
            let cuts = cut.clone();
            tasks.execute(async move {
                let mut body = Paced::new(Body::from("all of it")).cut_by(Some(cuts), &Default::default());
                // As h2 does: it has the end of the body, and the task is over.
                let _ = given.send(body.frame().await);
            });
            let piece = kept.await.unwrap();
            tokio::time::sleep(TIMEOUT / 10).await;
            cut.cut();
            tokio::time::sleep(TIMEOUT / 10).await;
            let piece = (!leaves).then_some(piece);
            tokio::time::sleep(2 * TIMEOUT).await;
            assert!(!owner.handle().closing().is_cancelled(), "{pauses:?}, {leaves}");
            assert_eq!(stuck.load(Ordering::Relaxed), expected, "{pauses:?}, {leaves}");
            drop(piece);
        }
    }
}
