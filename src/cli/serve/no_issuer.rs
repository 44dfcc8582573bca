//! Built without ACME: certificates come from elsewhere.

use tokio_util::sync::CancellationToken;

use super::args::ServeArgs;
use crate::{App, Identity, cli::Failure};

/// No certificate authority.
pub(super) struct Issuer;

impl Issuer {
    pub(super) async fn checked(&self) -> Result<bool, Failure> {
        Ok(false)
    }

    pub(super) fn find(_: &ServeArgs) -> Result<Self, Failure> {
        Ok(Self)
    }

    pub(super) async fn identity(&self) -> Result<Option<Identity>, Failure> {
        Ok(None)
    }

    pub(super) fn name(&self) -> Option<&str> {
        None
    }

    pub(super) fn install(&self, app: App) -> App {
        app
    }

    pub(super) async fn keep(&self, _: &Identity, _: &CancellationToken) {}
}
