//! WebTransport sessions that are asked for.

use futures_util::future::BoxFuture;
use h3cast_proto::structured;
use http::{HeaderValue, Response, StatusCode};
use tokio::sync::oneshot;
use tracing::debug;

use super::server::{Answering, ServerStream, refuse, refuse_with};
use crate::{
    connection::ConnectionHandle,
    guard::Stopped,
    quic::Connection,
    rarely::rarely,
    webtransport::{Answer, CHOSEN, Seat, SessionRequest, connect},
};

impl Answering {
    /// A session that is asked for: what the application makes of it, and what runs it to its end.
    pub(super) async fn session(
        self,
        head: http::request::Parts,
        stream: ServerStream,
    ) -> Option<BoxFuture<'static, ()>> {
        let id = stream.id().into_inner();
        // draft-ietf-webtrans-http3 §3.1: they may name another version of the protocol.
        if !self.shared.settings().await {
            reject(stream);
            return None;
        }
        let (handler, params) = match self.context.handlers.find(head.uri.path()) {
            Ok(found) => found,
            Err(status) => {
                self.sessions.ended(id);
                refuse(stream, status, self.parts.stopped).await;
                return None;
            }
        };
        let Some(seat) = Seat::take(&self.sessions, id) else {
            self.sessions.ended(id);
            // draft-ietf-webtrans-http3 §5.2 leaves the way of refusing open.
            refuse(stream, StatusCode::TOO_MANY_REQUESTS, self.parts.stopped).await;
            return None;
        };
        // Before the answer, so that it comes with it or before it.
        self.shared.allow_many_streams();
        let (request, answered) = SessionRequest::new(head, self.connection.clone(), params);
        let handle = handler.call(request);
        let answer = Box::pin(answer_session(
            self.shared.conn.clone(),
            self.connection,
            stream,
            seat,
            answered,
            self.parts.stopped,
        ));
        let run = rarely(Box::pin(async move {
            let run = answer.await;
            if let Some(run) = run {
                run.await;
            }
        }));
        // A handler may go on for a while after its session, or return before it.
        Some(Box::pin(async {
            tokio::join!(handle, run);
        }))
    }
}

/// Answers the CONNECT of a session. When the application accepts it, it gives what runs the session
/// to its end; nothing of the answer stays in memory beside that.
async fn answer_session(
    conn: Connection,
    handle: ConnectionHandle,
    mut stream: ServerStream,
    seat: Seat,
    answered: oneshot::Receiver<Answer>,
    stopped: Stopped,
) -> Option<BoxFuture<'static, ()>> {
    // A request that is dropped unanswered is the handler's failure.
    let failed = Answer::Reject { status: StatusCode::INTERNAL_SERVER_ERROR, headers: http::HeaderMap::new() };
    match answered.await.unwrap_or(failed) {
        Answer::Reject { status, headers } => {
            drop(seat);
            refuse_with(stream, status, headers, stopped).await;
            None
        }
        Answer::Accept { status, headers, protocol, session: opened } => {
            let mut response = Response::new(());
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            // What draft 02 asks for; later drafts ignore it.
            response.headers_mut().insert("sec-webtransport-http3-draft", HeaderValue::from_static("draft02"));
            if let Some(chosen) = protocol.as_deref().and_then(structured::quote) {
                response.headers_mut().insert(CHOSEN, chosen);
            }
            if let Err(error) = stream.send_response(response).await {
                debug!(%error, "the client went away before its session was opened");
                return None;
            }
            let (send, recv) = stream.split();
            Some(Box::pin(connect::open(conn, handle, seat, protocol, opened, send, recv)))
        }
    }
}

/// Resets a request of which nothing was handled.
fn reject(mut stream: ServerStream) {
    stream.stop_sending(h3::error::Code::H3_REQUEST_REJECTED);
    stream.stop_stream(h3::error::Code::H3_REQUEST_REJECTED);
}
