//! What an app may change while it is served.

use std::sync::{Arc, PoisonError, RwLock};

use super::{App, Quotas, publish::Publications};
use crate::origin::Origins;

/// Changes an app while it is served. Clones are of the same app.
///
/// ```no_run
/// # async fn doc(app: h3cast::App, identity: h3cast::Identity) -> Result<(), Box<dyn std::error::Error>> {
/// use h3cast::{Server, app::Quotas};
///
/// let handle = app.handle();
/// let server = app.install(Server::builder(identity)).build().await?;
/// tokio::spawn(server.serve());
/// // Later, as when a file of settings has changed:
/// handle.set_quotas(Quotas::default().publications(100, 10));
/// handle.set_publish_token("another-secret-of-32-characters-");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct AppHandle {
    publications: Publications,
    origins: Arc<RwLock<Origins>>,
}

impl AppHandle {
    pub(super) fn of(app: &App) -> Self {
        Self { publications: app.publications.clone(), origins: app.origins.clone() }
    }

    /// Replaces the [quotas](App::quotas). Publications that run continue, also where they are more than may be from
    /// now on; keys that are too many are forgotten as others come.
    pub fn set_quotas(&self, quotas: Quotas) {
        self.publications.set_quotas(&quotas);
    }

    /// Replaces the [token](App::publish_token) for publishing. What uses the one before ends, as when a token is
    /// revoked; what was begun when there was none continues.
    pub fn set_publish_token<'a>(&self, token: impl Into<Option<&'a str>>) {
        self.publications.set_token(token.into());
    }

    /// Replaces the [longest body](App::publish_limit), in bytes, for requests that come from now on.
    pub fn set_publish_limit(&self, bytes: impl Into<Option<u64>>) {
        self.publications.set_limit(bytes.into());
    }

    /// Replaces the [origins](App::allow_origins) whose pages may read the feeds, for requests that come from now on.
    pub fn set_allowed_origins(&self, origins: Origins) {
        *self.origins.write().unwrap_or_else(PoisonError::into_inner) = origins;
    }
}
