//! What the app does when memory is short: no new viewers, and an end for those that are cut.

use axum::response::{IntoResponse, Response};
use h3cast_proto::code;
use http::{Extensions, HeaderValue, StatusCode, header};
use tokio_util::sync::CancellationToken;

use super::{App, Problem};
use crate::{
    admission::Refusal,
    connection::ConnectionHandle,
    feed::{Pressure, Viewer},
    format::CUT,
};

/// How long a client that was refused should wait, in seconds: it takes that long for memory to be free again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// No viewer is admitted now.
pub(super) struct Short;

impl IntoResponse for Short {
    fn into_response(self) -> Response {
        let text = "the server is short of memory, and takes no new viewers for now: try again later";
        let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, text.into()).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        response
    }
}

impl App {
    /// Whether a new viewer may come.
    pub(super) fn admit_viewer(&self, extensions: &Extensions) -> Result<(), Short> {
        let Some(budget) = &self.budget else { return Ok(()) };
        if budget.pressure() >= Pressure::High {
            if let Some(admission) = &self.admission {
                let client = extensions.get::<ConnectionHandle>().map(ConnectionHandle::remote_address);
                admission.refused(Refusal::Memory, client.map_or_else(|| "?".into(), |client| client.to_string()));
            }
            return Err(Short);
        }
        Ok(())
    }
}

/// Cancelled when the viewer is cut.
pub(super) fn when_cut(viewer: &Viewer) -> CancellationToken {
    let token = CancellationToken::new();
    let cut = token.clone();
    viewer.on_cut(move || cut.cancel());
    token
}

/// Has the connection of a viewer closed when the viewer is cut: a body is not asked for more while its client
/// takes nothing.
pub(super) fn close_when_cut(viewer: &Viewer, connection: Option<&ConnectionHandle>) {
    if let Some(connection) = connection.cloned() {
        viewer.on_cut(move || connection.close(code::H3_EXCESSIVE_LOAD, CUT));
    }
}
