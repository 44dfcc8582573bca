//! Who may publish, and how much at once.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{
    keys::KeyLimits,
    known::{Ledger, PublicationRequest, Said},
};
use crate::{
    admission::{Counters, Refusal},
    app::{Problem, Quotas, authorize::Decided},
    auth::Action,
    feed::{Account, Exhausted, Feed, Publisher, Share, Shares},
};

/// Who may publish, how much, and what has been published.
#[derive(Debug, Clone)]
pub(in crate::app) struct Publications {
    /// The hash of the token, so that comparing it takes the same time whatever is compared.
    token: Option<[u8; 32]>,
    pub(super) limit: Option<u64>,
    known: Arc<Ledger>,
    places: Shares,
    /// How long a publication may take for its first byte; zero for as long as it likes.
    pub(super) wait: Duration,
    refusals: Option<Counters>,
}

impl Default for Publications {
    fn default() -> Self {
        Self::within(None, None, &Quotas::default())
    }
}

impl Publications {
    fn within(token: Option<[u8; 32]>, limit: Option<u64>, quotas: &Quotas) -> Self {
        let (all, each) = quotas.keys;
        let known = Arc::new(Ledger::new(KeyLimits { all, each }));
        let (all, each) = quotas.publications;
        let wait = quotas.publish_wait;
        Self { token, limit, known, places: Shares::new(all, each), wait, refusals: None }
    }

    pub(in crate::app) fn quotas(&mut self, quotas: &Quotas) {
        let refusals = self.refusals.take();
        *self = Self { refusals, ..Self::within(self.token, self.limit, quotas) };
    }

    /// Counts refusals there.
    pub(in crate::app) fn count_in(&mut self, refusals: &Counters) {
        self.refusals = Some(refusals.clone());
    }

    pub(super) fn refused(&self, reason: Refusal, account: &Account) {
        if let Some(refusals) = &self.refusals {
            refusals.refused(reason, account);
        }
    }

    /// How many publications run, and how many keys are remembered.
    pub(in crate::app) fn counts(&self) -> (usize, usize) {
        (self.places.taken(), self.known.len())
    }

    pub(in crate::app) fn token(&mut self, token: Option<&str>) {
        self.token = token.map(|token| Sha256::digest(token).into());
    }

    pub(in crate::app) fn limit(&mut self, bytes: Option<u64>) {
        self.limit = bytes;
    }

    pub(in crate::app) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether that is the token with which clients may publish.
    pub(in crate::app) fn is_token(&self, token: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(token).into();
        self.token.as_ref().is_some_and(|expected| bool::from(given.ct_eq(expected)))
    }

    /// The feed's publisher, if it has one and the client may use it.
    pub(super) fn admit<'a>(&self, feed: &'a Feed, decided: &Decided) -> Result<&'a Publisher, Problem> {
        decided.require(Action::Publish, feed.name())?;
        feed.publisher().ok_or_else(|| {
            let text = format!(
                "clients do not publish to the feed `{0}`: start the server with `{0}=publish` for one that they write",
                feed.name()
            );
            Problem::new(StatusCode::FORBIDDEN, text)
        })
    }

    pub(super) async fn begin(&self, said: Said<'_>) -> Result<PublicationRequest, Problem> {
        let account = said.account;
        let begun = self.known.begin(said).await;
        begun.inspect_err(|problem| {
            if problem.status == StatusCode::TOO_MANY_REQUESTS {
                self.refused(Refusal::PublishKeys, account);
            }
        })
    }

    pub(super) fn place(&self, account: &Account) -> Result<Share, Problem> {
        self.places.take(account).map_err(|exhausted| match exhausted {
            Exhausted::Account(each) => {
                self.refused(Refusal::PublicationsPerClient, account);
                let text = format!(
                    "this client publishes {each} times at once, which is all that one may: end one of the \
                     publications first"
                );
                Problem::new(StatusCode::TOO_MANY_REQUESTS, text)
            }
            Exhausted::All(all) => {
                self.refused(Refusal::Publications, account);
                let text =
                    format!("{all} publications run, which is all that this server takes: try again in a moment");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        })
    }

    pub(super) fn too_long(&self, published: u64) -> Problem {
        let limit = self.limit.unwrap_or_default();
        let text =
            format!("one request may publish {limit} bytes: {published} of this publication have been published");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }
}
