//! Who may read and write feeds.
//!
//! An [`App`](crate::App) asks one decider, an [`Authorize`], about every request and every session, over every
//! version of HTTP. What it returns, an [`Access`], names the feeds that this client may read and write, and until
//! when. No feed can be read by one way that another refuses: the app finds its feeds by an `Access` only.
//!
//! [`Tokens`] is the decider of the `h3cast` program: static tokens from a file, and JSON web tokens. A program of
//! your own may bring any other:
//!
//! ```
//! use h3cast::auth::{Access, Authorize, Denied};
//! use h3cast::http::{header, request::Parts};
//!
//! /// Members read everything, and everyone reads `news`.
//! struct Members;
//!
//! impl Authorize for Members {
//!     async fn authorize(&self, request: &Parts) -> Result<Access, Denied> {
//!         let Some(member) = request.headers.get("x-member") else {
//!             return Ok(Access::anonymous().read(["news".parse().unwrap()]));
//!         };
//!         let member = member.to_str().map_err(|_| Denied::malformed("x-member is not text"))?;
//!         Ok(Access::granted().read(["*".parse().unwrap()]).subject(member))
//!     }
//! }
//!
//! # fn doc(app: h3cast::App) -> h3cast::App {
//! app.authorize(Members)
//! # }
//! ```
//!
//! What is public, whatever the decider returns: the page's files, which hold nothing of a feed and are needed to
//! ask for a token; `/healthz` and `/readyz`, which load balancers ask without one and which name no feed that the
//! client may not read; and `OPTIONS`, which browsers send without credentials (of routes of your own, the preflight). `/info` and `/feeds` list the feeds
//! that the client may read. `/metrics` is for clients that may read every feed.

mod access;
mod credential;
mod denied;
mod exposed;
#[cfg(feature = "jwt")]
mod jwt;
mod pattern;
#[cfg_attr(not(feature = "jwt"), allow(dead_code, unused_imports, reason = "what is served are keys"))]
mod reload;
mod statics;
mod switch;
#[cfg_attr(not(feature = "jwt"), allow(dead_code, unused_imports, reason = "what is served are keys"))]
mod tokens;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use http::request::Parts;

pub use access::{Access, Action};
pub use credential::{Credential, DEFAULT_COOKIE, LONGEST_TOKEN, Way};
pub use denied::Denied;
#[cfg(feature = "cli")]
pub(crate) use exposed::Exposed;
#[cfg(feature = "jwt")]
pub use jwt::{
    Claims, KeyError, LEEWAY,
    sign::{SignError, SigningKey},
};
pub use pattern::{BadPattern, Pattern};
pub use statics::{BadTokens, SHORTEST_TOKEN, hashed};
pub use switch::Switch;
pub use tokens::{Tokens, TokensError};

/// How long a decision may take before the request is answered with 503.
pub(crate) const DECISION_WAIT: Duration = Duration::from_secs(10);

/// Decides what a client may do, from the head of its request.
///
/// It is asked once for each request and each session, before anything else is done for it. See the [module](self)
/// for an example.
pub trait Authorize: Send + Sync + 'static {
    /// What this request's client may read and write. For a session, `request` is its CONNECT.
    ///
    /// The token of a request, however it was sent, is [`Credential::of`].
    ///
    /// # Errors
    ///
    /// When the request is to be refused whatever it asks for: its credentials are not valid (401), or nothing can be
    /// decided now ([`Denied::unavailable`], 503). A client without credentials is no error: return what everyone may
    /// do, as [`Access::anonymous`]. A decision that takes longer than 10 s is given up, and answered with 503.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the client leaves.
    fn authorize(&self, request: &Parts) -> impl Future<Output = Result<Access, Denied>> + Send;

    /// Why new clients cannot be decided about now, if they cannot: `/readyz` then answers 503 with it, so that load
    /// balancers send clients elsewhere. Anyone may read it. By default nothing.
    fn unready(&self) -> Option<String> {
        None
    }
}

impl<T: Authorize + ?Sized> Authorize for Arc<T> {
    fn unready(&self) -> Option<String> {
        self.as_ref().unready()
    }

    fn authorize(&self, request: &Parts) -> impl Future<Output = Result<Access, Denied>> + Send {
        self.as_ref().authorize(request)
    }
}

trait Erased: Send + Sync {
    fn unready(&self) -> Option<String>;

    fn authorize<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Access, Denied>>;
}

impl<T: Authorize> Erased for T {
    fn unready(&self) -> Option<String> {
        Authorize::unready(self)
    }

    fn authorize<'a>(&'a self, request: &'a Parts) -> BoxFuture<'a, Result<Access, Denied>> {
        Box::pin(Authorize::authorize(self, request))
    }
}

/// Any decider.
#[derive(Clone)]
pub(crate) struct Decider(Arc<dyn Erased>);

impl fmt::Debug for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decider")
    }
}

impl Decider {
    pub(crate) fn new(authorize: impl Authorize) -> Self {
        Self(Arc::new(authorize))
    }

    /// Why it cannot decide now.
    pub(crate) fn unready(&self) -> Option<String> {
        self.0.unready()
    }

    /// Decides, or fails: a decider that does not answer lets no one in.
    pub(crate) async fn decide(&self, request: &Parts) -> Result<Access, Denied> {
        let decided = tokio::time::timeout(DECISION_WAIT, self.0.authorize(request)).await;
        decided.unwrap_or_else(|_| Err(Denied::unavailable("who may do this could not be decided in time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Hangs;

    impl Authorize for Hangs {
        async fn authorize(&self, _: &Parts) -> Result<Access, Denied> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_decider_that_hangs_lets_no_one_in() {
        let (request, ()) = http::Request::new(()).into_parts();
        let started = tokio::time::Instant::now();
        let decided = Decider::new(Hangs).decide(&request).await;
        assert!(matches!(decided, Err(Denied::Unavailable(_))));
        assert_eq!(started.elapsed(), DECISION_WAIT);
    }
}
