//! No WebTransport: sessions that are asked for are refused.

use std::sync::OnceLock;

use futures_util::future::BoxFuture;
use http::StatusCode;

use super::server::{Answering, ServerStream, refuse};
use crate::{admission::Open, exchange::RequestKind};

impl Answering {
    pub(super) async fn session(
        mut self,
        mut head: http::request::Parts,
        stream: ServerStream,
        _: &OnceLock<Open>,
    ) -> Option<BoxFuture<'static, ()>> {
        self.counted.answered(StatusCode::NOT_IMPLEMENTED);
        // Our SETTINGS do not offer any.
        self.begin(&mut head, RequestKind::Session);
        refuse(stream, StatusCode::NOT_IMPLEMENTED, self.parts.stopped, &self.exchange).await;
        None
    }
}
