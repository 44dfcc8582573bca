//! What the app does when memory or file descriptors are short: no new viewers, and an end for those that are cut.

use std::{fmt, sync::Arc};

use axum::response::{IntoResponse, Response};
use h3cast_proto::code;
use http::{Extensions, HeaderValue, StatusCode, Version, header};
use tokio_util::sync::CancellationToken;

use super::{App, Problem};
use crate::{
    admission::Refusal,
    connection::{ConnectionHandle, Cut},
    feed::{Budget, Charge, Counted, Feed, Pressure, Viewer},
    format::CUT,
};

/// How long a client that was refused should wait, in seconds: it takes that long for memory to be free again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// From this size on, in bytes, an answer that is held in memory and a file of no feed are charged and refused when
/// memory is short: a hundred smaller ones on a connection are as much as it may take by itself.
const LARGE: u64 = 16 << 10;

/// From this size on, in bytes, a file costs as much as a viewer that a source is read for: what is on its way of it,
/// and not all of it.
const READER: u64 = 512 << 10;

/// No viewer is admitted now, for want of this.
pub(super) struct Short(Refusal);

impl IntoResponse for Short {
    fn into_response(self) -> Response {
        let text = match self.0 {
            Refusal::Descriptors => {
                "the server is short of file descriptors and accepts no new viewers of this kind for now: try again later"
            }
            _ => "the server is short of memory and accepts no new viewers for now: try again later",
        };
        let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, text.into()).into_response();
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        // What its connection holds is needed for others. Over HTTP/2 and HTTP/3 it carries more, and this is left out.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl App {
    /// Whether a new viewer of a feed may come, and what is charged for it until it has: it counts for those that ask
    /// meanwhile.
    pub(super) fn admit_viewer(&self, feed: &Feed, extensions: &Extensions) -> Result<Option<Charge>, Short> {
        // A file, or the pipes of a command and the descriptor of the process.
        let descriptors = match () {
            () if feed.file().is_some() => 1,
            () if feed.takes_input() => 5,
            () if feed.is_costly() => 4,
            () => 0,
        };
        self.admit(feed.reserve(), descriptors, extensions)
    }

    /// The same for a client that is sent a file of that many bytes, which is no feed's. Small ones are always sent: a
    /// page shows with them that it has to wait.
    pub(super) fn admit_reader(&self, bytes: u64, extensions: &Extensions) -> Result<Option<Charge>, Short> {
        match bytes {
            LARGE.. => self.admit(self.budget.as_ref().map(|budget| reserve(budget, bytes)), 1, extensions),
            _ => Ok(None),
        }
    }

    /// The same for an answer of that many bytes that is held in memory.
    pub(super) fn admit_answer(&self, bytes: u64, extensions: &Extensions) -> Result<(), Short> {
        match bytes {
            LARGE.. => self.admit(None, 0, extensions).map(drop),
            _ => Ok(()),
        }
    }

    /// Counts a client that is sent a file.
    pub(super) fn reader(&self, bytes: u64) -> Option<Counted> {
        let budget = self.budget.as_ref().filter(|_| bytes >= LARGE)?;
        Some(if bytes < READER { budget.answer(bytes) } else { budget.reader() })
    }

    fn admit(
        &self,
        reserved: Option<Charge>,
        descriptors: u64,
        extensions: &Extensions,
    ) -> Result<Option<Charge>, Short> {
        let short = || {
            if self.budget.as_ref().is_some_and(|budget| budget.pressure() >= Pressure::High) {
                return Some(Refusal::Memory);
            }
            let Descriptors(take) = self.descriptors.as_ref().filter(|_| descriptors > 0)?;
            (!take(descriptors)).then_some(Refusal::Descriptors)
        };
        let Some(reason) = short() else { return Ok(reserved) };
        if let Some(admission) = &self.admission {
            let client = extensions.get::<ConnectionHandle>().map(ConnectionHandle::remote_address);
            admission.refused(reason, client.map_or_else(|| "?".into(), |client| client.to_string()));
        }
        Err(Short(reason))
    }
}

/// What [`App::reader`] charges.
fn reserve(budget: &Budget, bytes: u64) -> Charge {
    if bytes < READER { budget.charge(bytes) } else { budget.reserve() }
}

/// Takes so many file descriptors, if there are enough for requests.
#[derive(Clone)]
pub(super) struct Descriptors(pub(super) Arc<dyn Fn(u64) -> bool + Send + Sync>);

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors").finish_non_exhaustive()
    }
}

/// Cancelled when the viewer is cut.
pub(super) fn when_cut(viewer: &Viewer) -> CancellationToken {
    let token = CancellationToken::new();
    let cut = token.clone();
    viewer.on_cut(move || cut.cancel());
    token
}

/// What to do when a viewer is cut that reads a response of the server's: a body is not asked for more while its client
/// takes nothing. Its stream is reset; where there are none, its connection is closed.
pub(super) fn cutting(
    version: Version,
    extensions: &Extensions,
    response: &mut Response,
) -> impl FnOnce() + Send + use<> {
    let cut = Cut::default();
    let connection = match version >= Version::HTTP_2 {
        true => {
            response.extensions_mut().insert(cut.clone());
            None
        }
        false => extensions.get::<ConnectionHandle>().cloned(),
    };
    move || match connection {
        Some(connection) => connection.close(code::H3_EXCESSIVE_LOAD, CUT),
        None => cut.cut(),
    }
}
