//! Who may publish, and how much at once.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use http::StatusCode;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

use super::{
    keys::{KeyLimits, Known},
    known::{Ledger, PublicationRequest, Said},
};
use crate::{
    admission::{Counters, Refusal},
    app::{Problem, Quotas, authorize::Decided},
    auth::Action,
    feed::{Account, Exhausted, Feed, Publisher, Share, Shares},
    units::{many, were},
};

/// Who may publish, how much, and what has been published.
#[derive(Debug, Clone)]
pub(in crate::app) struct Publications {
    /// What may change while the app is served.
    rules: Arc<RwLock<Rules>>,
    known: Arc<Ledger>,
    places: Shares,
    refusals: Option<Counters>,
    /// Cancelled when the server stops.
    stopping: CancellationToken,
    /// Cancelled when another server has what is published here.
    left: CancellationToken,
}

#[derive(Debug, Clone)]
struct Rules {
    token: Option<Token>,
    limit: Option<u64>,
    /// How long a publication may take for its first byte; zero for as long as it likes.
    wait: Duration,
}

#[derive(Debug, Clone)]
struct Token {
    /// Of the token, so that comparing it takes the same time whatever is compared.
    hash: [u8; 32],
    /// Ends what is published with it, once there is another.
    revoked: CancellationToken,
}

impl Token {
    fn new(token: &str) -> Self {
        Self { hash: Sha256::digest(token).into(), revoked: CancellationToken::new() }
    }
}

impl Default for Publications {
    fn default() -> Self {
        Self::within(None, None, &Quotas::default())
    }
}

impl Publications {
    fn within(token: Option<Token>, limit: Option<u64>, quotas: &Quotas) -> Self {
        let (all, each) = quotas.keys;
        let known = Arc::new(Ledger::new(KeyLimits { all, each }));
        let (all, each) = quotas.publications;
        let rules = Arc::new(RwLock::new(Rules { token, limit, wait: quotas.publish_wait }));
        let (stopping, left) = (CancellationToken::new(), CancellationToken::new());
        Self { rules, known, places: Shares::new(all, each), refusals: None, stopping, left }
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other rules, for the app that is being described: clones of it keep theirs.
    fn describe(&mut self, change: impl FnOnce(&mut Rules)) {
        let mut rules = self.rules().clone();
        change(&mut rules);
        self.rules = Arc::new(RwLock::new(rules));
    }

    /// Other rules for what is served.
    fn change(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(in crate::app) fn quotas(&mut self, quotas: &Quotas) {
        let (refusals, stopping) = (self.refusals.take(), self.stopping.clone());
        let Rules { token, limit, .. } = self.rules().clone();
        *self = Self { refusals, stopping, ..Self::within(token, limit, quotas) };
    }

    /// What is cancelled when the server stops.
    pub(in crate::app) fn stopping(&mut self, stopping: CancellationToken) {
        self.stopping = stopping;
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// Another server has what is published here, and continues it.
    pub(in crate::app) fn leave(&self) {
        self.left.cancel();
    }

    /// Whether feeds end with their server, and not by themselves.
    pub(super) fn is_ending(&self) -> bool {
        self.left.is_cancelled() || self.stopping.is_cancelled()
    }

    /// Why a feed has ended, for its publishers.
    pub(super) fn why_ended(&self) -> &'static str {
        match (self.left.is_cancelled(), self.stopping.is_cancelled()) {
            (true, _) => "another server is taking over from this one",
            (false, true) => "the server is stopping",
            (false, false) => "the feed has ended",
        }
    }

    /// The same while the app is served. What runs continues.
    pub(in crate::app) fn set_quotas(&self, quotas: &Quotas) {
        let (all, each) = quotas.keys;
        self.known.set_limits(KeyLimits { all, each });
        let (all, each) = quotas.publications;
        self.places.resize(all, each);
        self.change(|rules| rules.wait = quotas.publish_wait);
    }

    /// Another token while the app is served. What uses the one before ends.
    pub(in crate::app) fn set_token(&self, token: Option<&str>) {
        if token.is_some_and(|token| self.is_token(token).is_some()) {
            return;
        }
        let mut before = None;
        self.change(|rules| before = std::mem::replace(&mut rules.token, token.map(Token::new)));
        if let Some(before) = before {
            before.revoked.cancel();
        }
    }

    /// Another limit while the app is served, for requests that come from now on.
    pub(in crate::app) fn set_limit(&self, bytes: Option<u64>) {
        self.change(|rules| rules.limit = bytes);
    }

    /// The longest body that one request may publish.
    pub(in crate::app) fn longest(&self) -> Option<u64> {
        self.rules().limit
    }

    /// How long a publication may take for its first byte; zero for as long as it likes.
    pub(in crate::app) fn wait(&self) -> Duration {
        self.rules().wait
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

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// What is known of publications by their keys, for another process.
    pub(in crate::app) fn known(&self) -> Vec<Known> {
        self.known.known()
    }

    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    /// Continues what another process knew.
    pub(in crate::app) fn restore(&self, known: Vec<Known>) {
        self.known.restore(known);
    }

    pub(in crate::app) fn token(&mut self, token: Option<&str>) {
        self.describe(|rules| rules.token = token.map(Token::new));
    }

    pub(in crate::app) fn limit(&mut self, bytes: Option<u64>) {
        self.describe(|rules| rules.limit = bytes);
    }

    pub(in crate::app) fn has_token(&self) -> bool {
        self.rules().token.is_some()
    }

    /// Whether that is the token with which clients may publish; then, what is cancelled when it is not any more.
    pub(in crate::app) fn is_token(&self, token: &str) -> Option<CancellationToken> {
        let given: [u8; 32] = Sha256::digest(token).into();
        let rules = self.rules();
        let expected = rules.token.as_ref()?;
        bool::from(given.ct_eq(&expected.hash)).then(|| expected.revoked.clone())
    }

    /// The feed's publisher, if it has one and the client may use it.
    pub(super) fn admit<'a>(&self, feed: &'a Feed, decided: &Decided) -> Result<&'a Publisher, Problem> {
        decided.require(Action::Publish, feed.name())?;
        feed.publisher().ok_or_else(|| {
            let text = format!(
                "clients cannot publish to the feed `{0}`: to let them, start the server with `{0}=publish`",
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

    pub(in crate::app) fn place(&self, account: &Account) -> Result<Share, Problem> {
        self.places.take(account).map_err(|exhausted| match exhausted {
            Exhausted::Account(each) => {
                self.refused(Refusal::PublicationsPerClient, account);
                let text = format!(
                    "this client already has {each} publications running, the most that one client may have: end one \
                     of them first"
                );
                Problem::new(StatusCode::TOO_MANY_REQUESTS, text)
            }
            Exhausted::All(all) => {
                self.refused(Refusal::Publications, account);
                let text =
                    format!("{all} publications are running, the most that this server accepts: try again in a moment");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        })
    }

    pub(in crate::app) fn too_long(&self, published: u64) -> Problem {
        let limit = self.longest().unwrap_or_default();
        let text = format!("one request may publish at most {}: {}", many(limit, "byte"), were(published, "published"));
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    }
}
