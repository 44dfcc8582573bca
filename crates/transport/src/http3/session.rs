//! Answering the CONNECT of a session: the HTTP service is asked first, so that its layers decide about
//! sessions as well, then the handlers of the server.

use std::sync::OnceLock;

use axum_core::{body::Body, response::IntoResponse};
use futures_util::{FutureExt, future::BoxFuture};
use h3cast_proto::structured;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use tokio::sync::oneshot;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::{
    Takeover, response,
    server::{Answering, ServerStream, refuse_problem, refuse_with},
};
use crate::{
    admission::{Open, Refusal},
    connection::ConnectionHandle,
    counts,
    exchange::{Exchange, RequestKind},
    guard::{RequestParts, Stopped},
    path,
    quic::Connection,
    rarely::rarely,
    response::{checked, misforwarded, too_many},
    webtransport::{Answer, CHOSEN, Offer, Opening, Seat, Session, SessionRequest, connect},
};

/// What is still to be done for a session that is open.
type Run = BoxFuture<'static, ()>;

impl Answering {
    /// Answers it; gives what runs the session to its end. Nothing of the answer stays in memory beside that.
    pub(super) async fn session(self, head: Parts, stream: ServerStream, open: &OnceLock<Open>) -> Option<Run> {
        answer(self, head, stream, open).await
    }
}

async fn answer(mut asked: Answering, mut head: Parts, stream: ServerStream, open: &OnceLock<Open>) -> Option<Run> {
    let id = stream.id().into_inner();
    // draft-ietf-webtrans-http3 §3.1: they may name another version of the protocol.
    if !asked.shared.settings().await {
        reject(stream);
        return None;
    }
    let Ok(connection) = asked.context.describe(&mut head, &asked.connection, asked.via) else {
        asked.sessions.ended(id);
        asked.begin(&mut head, RequestKind::Session);
        let by = (&mut asked.counted, &asked.exchange);
        refuse_problem(stream, misforwarded(), asked.parts.stopped, by).await;
        return None;
    };
    let client = asked.context.counted(&connection, asked.client.clone());
    asked.connection = connection;
    asked.begin(&mut head, RequestKind::Session);
    let taken = client.session().and_then(|session| match Seat::take(&asked.sessions, id) {
        Some(seat) => Ok((session, seat)),
        None => Err(client.refused(Refusal::Sessions)),
    });
    let seat = match taken {
        Ok((session, seat)) => {
            let _ = open.set(session);
            seat
        }
        Err(reason) => {
            asked.sessions.ended(id);
            // draft-ietf-webtrans-http3 §5.2 leaves the way of refusing open.
            let by = (&mut asked.counted, &asked.exchange);
            refuse_problem(stream, too_many(reason), asked.parts.stopped, by).await;
            return None;
        }
    };
    let (conn, connection) = (asked.shared.conn.clone(), asked.connection.clone());
    let (counted, exchange) = (asked.counted, asked.exchange);
    let mut session = Asked { conn, connection, stream, seat, counted, exchange };
    // Before the answer, so that it comes with it or before it.
    asked.shared.allow_many_streams();
    head.extensions.insert(asked.context.origins.clone());
    let handler = asked.context.handlers.find(head.uri.path()).map(|found| (found, head.clone()));
    let (offer, mut answered) = Offer::new(head.uri.clone(), asked.connection.clone(), asked.context.plain_port);
    #[cfg(feature = "tcp")]
    head.extensions.insert(hyper::ext::Protocol::from_static("webtransport"));
    head.extensions.insert(offer.clone());
    // As the handlers are found: a layer that goes by paths must not see another one than they.
    let request = path::normalized(Request::from_parts(head, Body::empty()));
    let mut service = Box::pin(asked.context.service.clone().oneshot(request));
    let response = tokio::select! {
        biased;
        // A route has the session before it answers the request.
        Ok(answer) = &mut answered => Err(answer),
        response = &mut service => Ok(response.unwrap_or_else(|never| match never {})),
        // The client went away: whatever the service was doing is dropped here.
        _ = &mut asked.parts.stopped => {
            asked.shared.given_up();
            return None;
        }
    };
    // A service that answers at once comes first above.
    if (&mut asked.parts.stopped).now_or_never().is_some() {
        asked.shared.given_up();
        return None;
    }
    let mut response = match response.map(|response| (response, answered.try_recv())) {
        Ok((response, Err(_))) => response,
        Ok((_, Ok(answer))) => return session.answer(answer, asked.parts.stopped).await,
        Err(answer) => {
            let run = Box::pin(session.answer(answer, asked.parts.stopped)).await;
            return Some(Box::pin(async {
                let _ = tokio::join!(service, settled(run));
            }));
        }
    };
    drop(service);
    let untouched = offer.is_left();
    if untouched && matches!(response.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        let status = match handler {
            Ok(((handler, params), head)) => {
                if let Err(refused) = offer.check_after(&head, response.extensions()) {
                    client.refused(Refusal::Origin);
                    drop(session.seat);
                    let refused = refused.into_response();
                    session.counted.answered(refused.status());
                    let carrier = (asked.shared.conn.clone(), session.exchange);
                    return refuse_as((carrier, asked.parts), session.stream, refused).await;
                }
                let (request, answered) = SessionRequest::new(head, asked.connection.clone(), params);
                let handle = handler.call(request);
                let run = rarely(Box::pin(session.handled(answered, asked.parts.stopped)));
                // A handler may go on for a while after its session, or return before it.
                return Some(Box::pin(async {
                    tokio::join!(handle, run);
                }));
            }
            Err(status) => status,
        };
        // Not the methods that are allowed there: that is about requests.
        *response.status_mut() = status;
        response.headers_mut().remove(header::ALLOW);
    } else if response.status().is_success() {
        if let Some(opened) = Opening::take(response.extensions_mut()) {
            let run = session.open(response, opened.protocol, opened.session).await?;
            return Some(Box::pin(async {
                tokio::join!(opened.work, run);
            }));
        }
        let status = response.status();
        warn!(%status, untouched, "the HTTP service answers the CONNECT of a session and opens none: sending 500");
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        client.refused(refusal);
    }
    drop(session.seat);
    session.counted.answered(response.status());
    refuse_as(((asked.shared.conn.clone(), session.exchange), asked.parts), session.stream, response).await
}

async fn settled(run: Option<Run>) {
    if let Some(run) = run {
        run.await;
    }
}

/// A session that is asked for and has its place.
struct Asked {
    conn: Connection,
    connection: ConnectionHandle,
    stream: ServerStream,
    seat: Seat,
    counted: counts::Request,
    exchange: Exchange,
}

impl Asked {
    /// Waits for what a handler decides, and then for the end of the session.
    async fn handled(self, answered: oneshot::Receiver<Answer>, stopped: Stopped) {
        // A request that is dropped unanswered is the handler's failure.
        let failed = Answer::Reject { status: StatusCode::INTERNAL_SERVER_ERROR, headers: HeaderMap::new() };
        let answer = answered.await.unwrap_or(failed);
        // What gives the answer does not stay beside the session.
        let run = Box::pin(self.answer(answer, stopped)).await;
        settled(run).await;
    }

    /// Answers as a handler has decided.
    async fn answer(mut self, answer: Answer, stopped: Stopped) -> Option<Run> {
        match answer {
            Answer::Reject { status, headers } => {
                drop(self.seat);
                self.counted.answered(status);
                refuse_with(self.stream, status, headers, "", stopped, &self.exchange).await;
                None
            }
            Answer::Accept { status, headers, protocol, session } => {
                let mut response = Response::new(Body::empty());
                (*response.status_mut(), *response.headers_mut()) = (status, headers);
                self.open(response, protocol, session).await
            }
        }
    }

    /// Sends the head that opens a session; gives what runs it to its end.
    async fn open(
        mut self,
        response: Response<Body>,
        protocol: Option<String>,
        opened: oneshot::Sender<Session>,
    ) -> Option<Run> {
        let mut response = checked(Version::HTTP_3, &Method::CONNECT, response).map(drop);
        // RFC 9110 §9.3.6
        response.headers_mut().remove(header::CONTENT_LENGTH);
        // What draft 02 asks for; later drafts ignore it.
        response.headers_mut().insert("sec-webtransport-http3-draft", HeaderValue::from_static("draft02"));
        if let Some(chosen) = protocol.as_deref().and_then(structured::quote) {
            response.headers_mut().insert(CHOSEN, chosen);
        }
        let status = response.status();
        self.exchange.answered(status);
        if let Err(error) = self.stream.send_response(response).await {
            debug!(%error, "the client went away before its session was opened");
            return None;
        }
        self.counted.answered(status);
        self.counted.opened();
        let (send, recv) = self.stream.split();
        let carrier = (self.conn, self.connection, self.exchange);
        Some(Box::pin(connect::open(carrier, self.seat, protocol, opened, send, recv)))
    }
}

/// Resets a request of which nothing was handled. Its own half first, for the reason given at [`refuse_as`].
fn reject(mut stream: ServerStream) {
    stream.stop_stream(h3::error::Code::H3_REQUEST_REJECTED);
    stream.stop_sending(h3::error::Code::H3_REQUEST_REJECTED);
}

/// Answers with a response of the service. The client may stop sending only when it has the whole response: Chromium
/// answers STOP_SENDING with a reset, takes the acknowledgement of that for the end of a session, and its network
/// process crashes if it has not read the response's head by then.
async fn refuse_as(
    (carrier, parts): ((Connection, Exchange), RequestParts),
    stream: ServerStream,
    response: Response<Body>,
) -> Option<Run> {
    let (send, recv) = stream.split();
    let (_, offers) = Takeover::new();
    let run = response::write(carrier, send, parts, &Method::CONNECT, offers, response).await;
    drop(recv);
    run
}
