//! WebTransport sessions that a client opens.

use std::sync::PoisonError;

use h3cast_proto::structured;
use http::{HeaderMap, Method, Request, Uri};
use tokio::sync::oneshot;

use super::{ClientError, Connection, ProtocolError, connection::MAX_SESSIONS, request};
use crate::{
    exchange::Exchange,
    webtransport::{CHOSEN, Seat, Session, connect},
};

impl Connection {
    /// Opens a WebTransport session; `headers` may carry `origin` and what else the server wants,
    /// `protocols` the subprotocols offered, the preferred one first.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] when the server answers anything but 2xx; else as for
    /// [`get`](Self::get).
    ///
    /// # Cancel safety
    ///
    /// Cancel-safe: when dropped, the session is not opened, or closed again.
    pub async fn webtransport(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        protocols: &[&str],
    ) -> Result<Session, ClientError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert("sec-webtransport-http3-draft02", http::HeaderValue::from_static("1"));
        for protocol in protocols.iter().filter_map(|protocol| structured::quote(protocol)) {
            request.headers_mut().append("wt-available-protocols", protocol);
        }
        request.extensions_mut().insert(h3::ext::Protocol::WEB_TRANSPORT);
        // RFC 9220 §3: only a server that says so takes an extended CONNECT.
        if !self.shared.settings().await {
            return Err(ProtocolError::NoSettings.into());
        }
        self.shared.allow_many_streams();
        let mut stream = self.open_request(request).await?;
        let id = stream.id().into_inner();
        let seat = Seat::take(&self.registry, id).ok_or(ProtocolError::TooManySessions(MAX_SESSIONS))?;
        let response = request::final_response(&mut stream, &self.shared).await?;
        if !response.status().is_success() {
            let (head, ()) = response.into_parts();
            return Err(ClientError::Refused { status: head.status, headers: head.headers });
        }
        let protocol = response.headers().get(CHOSEN).and_then(structured::unquote);
        let (send, recv) = stream.split();
        let (opened, session) = oneshot::channel();
        let (conn, handle) = (self.shared.conn.clone(), self.handle.clone());
        {
            let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
            while sessions.try_join_next().is_some() {}
            sessions.spawn(connect::open((conn, handle, Exchange::default()), seat, protocol, opened, send, recv));
        }
        // The task sends it first of all.
        Ok(session.await.map_err(|_| ProtocolError::SessionLost)?)
    }
}
