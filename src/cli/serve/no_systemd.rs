//! Where there is no systemd.

use std::{convert::Infallible, time::Duration};

#[derive(Clone)]
pub(super) struct Manager;

impl Manager {
    pub(super) fn find() -> Self {
        Self
    }

    pub(super) fn ready(&self, _: &str) {}

    pub(super) fn stopping(&self, _: Duration) {}

    pub(super) fn status(&self, _: &str) {}

    pub(super) fn reloading(&self) {}

    pub(super) fn passed(&self) -> Self {
        Self
    }

    pub(super) async fn keep_alive(&self) -> Infallible {
        std::future::pending().await
    }
}
