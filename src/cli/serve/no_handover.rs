//! Where no server takes over from another.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    args::ServeArgs,
    control::{Control, Stream},
    systemd::Manager,
};
use crate::{Server, app::estate::Estate, cli::Failure, server::ServerBuilder};

/// Nothing makes the end of a server take longer.
pub(super) const LONGER: Duration = Duration::ZERO;

pub(super) struct TakeOverSettings;

impl TakeOverSettings {
    pub(super) fn of(_: &ServeArgs) -> Self {
        Self
    }
}

#[derive(Default)]
pub(super) struct Shelf;

#[cfg(feature = "store")]
impl From<Option<crate::store::Disk>> for Shelf {
    fn from(_: Option<crate::store::Disk>) -> Self {
        Self
    }
}

/// Of no take-over, there is nothing to report.
pub(super) struct Report;

impl Report {
    pub(super) fn log(self) {}
}

pub(super) struct Changeover;

impl Changeover {
    pub(super) fn new(_: TakeOverSettings, _: &Manager) -> Self {
        Self
    }

    pub(super) async fn find(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    #[cfg(feature = "store")]
    pub(super) async fn claim(&mut self, _: &std::path::Path, _: bool) -> Result<bool, Failure> {
        Ok(false)
    }

    #[cfg(feature = "store")]
    pub(super) fn listens(&self, _: Option<u32>) -> Vec<std::net::SocketAddr> {
        Vec::new()
    }

    pub(super) fn inherit(&mut self, builder: ServerBuilder) -> ServerBuilder {
        builder
    }

    pub(super) async fn listen(&self) -> Result<Option<Control>, Failure> {
        Ok(None)
    }

    pub(super) async fn complete(
        &mut self,
        _: &Server,
        _: &Estate,
        _: &[String],
        stop: &CancellationToken,
    ) -> Result<Option<Report>, Failure> {
        Ok((!stop.is_cancelled()).then_some(Report))
    }

    pub(super) fn settled(&self) -> impl Future<Output = ()> + use<> {
        std::future::ready(())
    }

    pub(super) fn yielding(
        self,
        _: &Server,
        _: (Estate, Shelf),
        _: CancellationToken,
        _: CancellationToken,
    ) -> Option<Yielding> {
        None
    }
}

pub(super) enum Yielding {}

impl Yielding {
    pub(super) async fn to(&self, _: Stream) {}
}
