//! A right that the test ends.

#![allow(unreachable_pub, reason = "a module of a test")]

use std::sync::{Arc, Mutex};

use h3cast::auth::{Access, Authorize, Denied, Pattern};
use http::request::Parts;
use tokio_util::sync::CancellationToken;

/// Lets everyone do everything until the test says otherwise, and from then on again.
#[derive(Clone, Default)]
pub struct Revocable(Arc<Mutex<CancellationToken>>);

impl Revocable {
    pub fn revoke(&self) {
        std::mem::take(&mut *self.0.lock().unwrap()).cancel();
    }
}

impl Authorize for Revocable {
    async fn authorize(&self, _: &Parts) -> Result<Access, Denied> {
        let all = [Pattern::all()];
        Ok(Access::granted().read(all.clone()).publish(all).revoked_by(self.0.lock().unwrap().clone()))
    }
}
