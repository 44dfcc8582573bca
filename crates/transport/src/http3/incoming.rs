//! What h3 does for a connection of a server: it takes the requests.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::guard::{Backend, RequestParts, Shared};

pub(super) type Resolver = h3::server::RequestResolver<Backend, Bytes>;

pub(super) type H3 = Box<h3::server::Connection<Backend, Bytes>>;

pub(super) type Building = BoxFuture<'static, Result<H3, h3::error::ConnectionError>>;

/// h3's side of a connection, and where it leaves the parts of each request that it accepts. In a box, as it takes 3 KiB:
/// a task would keep that once for each name that it goes by.
pub(super) fn build(shared: &Arc<Shared>) -> (Building, Arc<Mutex<Option<RequestParts>>>) {
    let backend = Backend::new(shared.clone());
    let accepted = backend.accepted();
    let mut builder = h3::server::builder();
    // The settings themselves are ours (`settings`); h3 must know what it may accept.
    builder
        .max_field_section_size(shared.limits.head_size)
        // h3's GREASE frame at the end of a response hangs some clients.
        .send_grease(false)
        .enable_extended_connect(true)
        .enable_datagram(true);
    let building = async move { builder.build(backend).await.map(Box::new) };
    (Box::pin(building), accepted)
}

/// Waits for a request. Cancel-safe.
///
/// h3's future takes 1 KiB for what it does once it has one, and is ready in the same poll. So it is made for each poll,
/// and nothing of it is kept while a connection waits. Only a last GOAWAY may take longer: h3 does not send that twice.
pub(super) async fn next(h3: &mut H3) -> Result<Option<Box<Resolver>>, h3::error::ConnectionError> {
    poll_fn(|cx| pin!(h3.accept()).poll(cx).map_ok(|next| next.map(Box::new))).await
}
