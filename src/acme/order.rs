//! One certificate, from its order to its chain.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, KeyAuthorization, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::{Challenge, authority::Authority};
use crate::{
    Identity,
    identity::{Certificate, CertificateDer, ChallengeAnswer},
};

/// What is asked for is not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcmeError {
    /// There is no name.
    #[error("a certificate needs a name: write the one that clients use")]
    NoName,
    /// Certificate authorities issue nothing for it.
    #[error("no certificate can be issued for {name}: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
}

/// Refuses what no authority would issue a certificate for, or not by our challenges.
pub(super) fn check(name: &str) -> Result<(), AcmeError> {
    let wrong = |why| Err(AcmeError::Name { name: name.to_owned(), why });
    let label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.parse::<std::net::IpAddr>().is_ok() || name.starts_with('[') {
        return wrong("it is an address: write a name that leads to it");
    }
    if name.starts_with("*.") {
        return wrong("a wildcard needs a record in the DNS: write the names themselves");
    }
    if name.len() > 253 || !name.split('.').all(label) {
        return wrong("it is not a valid host name (an international one is written as xn--…)");
    }
    if !name.contains('.') || name.ends_with(".localhost") || name.ends_with(".local") {
        return wrong("it is not a public DNS name; for this machine alone, leave it out");
    }
    Ok(())
}

/// Why a try has failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// Whether the authority has refused: it counts failures.
    pub(super) refused: bool,
    /// Whether it does not know our account any more.
    pub(super) unknown_account: bool,
    not_before: Duration,
    text: String,
}

impl Failed {
    pub(super) fn local(error: impl fmt::Display) -> Self {
        Self { refused: false, unknown_account: false, not_before: Duration::ZERO, text: error.to_string() }
    }

    fn refused(text: String) -> Self {
        Self { refused: true, ..Self::local(text) }
    }

    /// How long to wait at least.
    pub(super) fn not_before(&self) -> Duration {
        self.not_before
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => {
                let kind = kind(&problem);
                Self {
                    unknown_account: kind == "accountDoesNotExist",
                    // Limits of authorities are of hours.
                    not_before: Duration::from_secs(if kind == "rateLimited" { 3600 } else { 0 }),
                    refused: !matches!(kind, "badNonce" | "serverInternal" | "accountDoesNotExist"),
                    text: told(&problem),
                }
            }
            Error::Timeout(_) => Self::refused("checking whether the names lead here took too long".into()),
            error => Self::local(causes(&error)),
        }
    }
}

/// An error with what caused it, each said once.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

/// The type of a problem, without its name space.
fn kind(problem: &instant_acme::Problem) -> &str {
    problem.r#type.as_deref().unwrap_or_default().rsplit(':').next().unwrap_or_default()
}

/// Whether a refused order may be about the certificate that it replaces, which the authority does not know, or which is
/// replaced already; so that one without it may succeed. A second order costs a second time, so not for other reasons.
fn is_of_replaced(problem: &instant_acme::Problem) -> bool {
    const OTHERS: [&str; 8] = [
        "accountDoesNotExist",
        "badNonce",
        "externalAccountRequired",
        "rateLimited",
        "rejectedIdentifier",
        "serverInternal",
        "unsupportedIdentifier",
        "userActionRequired",
    ];
    !OTHERS.contains(&kind(problem))
}

/// A problem in the authority's words, which may be any.
fn told(problem: &instant_acme::Problem) -> String {
    const LONGEST: usize = 500;
    let text = problem.to_string();
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST);
    plain.collect::<String>().trim_start_matches("API error: ").to_owned()
}

/// What HTTP-01 challenges are answered with, by their tokens.
#[derive(Debug, Clone, Default)]
pub struct Tokens(Arc<Mutex<HashMap<String, String>>>);

impl Tokens {
    /// The path below which authorities ask (RFC 8555 §8.3).
    const PATH: &str = "/.well-known/acme-challenge/";

    fn with<T>(&self, with: impl FnOnce(&mut HashMap<String, String>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The answer to a request of that path, if a certificate authority has been told to ask.
    pub(crate) fn answer(&self, path: &str) -> Option<String> {
        let token = path.strip_prefix(Self::PATH)?;
        self.with(|tokens| tokens.get(token).cloned())
    }
}

/// A token that is answered.
struct Answered {
    tokens: Tokens,
    token: String,
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.tokens.with(|tokens| tokens.remove(&self.token));
    }
}

/// By what a challenge is answered, until it is dropped.
enum Answer {
    TlsAlpn01 { _shown: ChallengeAnswer },
    Http01 { _answered: Answered },
}

/// How names are validated.
pub(super) struct Way<'a> {
    pub(super) challenge: Challenge,
    pub(super) identity: &'a Identity,
    pub(super) tokens: &'a Tokens,
}

impl Way<'_> {
    fn kind(&self) -> ChallengeType {
        match self.challenge {
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Http01 => ChallengeType::Http01,
        }
    }

    /// What was found when a name was looked at, and what to do.
    fn unvalidated(&self, found: &str) -> String {
        let advice = match self.challenge {
            Challenge::TlsAlpn01 => "its port 443 must lead to this server's TLS port, over TCP",
            Challenge::Http01 => "its port 80 must lead to the listener that redirects plain HTTP",
        };
        format!("the name was not validated by {} ({found}): {advice}", self.challenge)
    }

    fn answer(&self, name: &str, token: &str, key: &KeyAuthorization) -> Result<Answer, Failed> {
        if !is_token(token) {
            return Err(Failed::refused(format!("its challenge {} for {name} has no valid token", self.challenge)));
        }
        match self.challenge {
            Challenge::TlsAlpn01 => {
                let mut params = CertificateParams::new([name.to_owned()]).map_err(Failed::local)?;
                params.custom_extensions = vec![CustomExtension::new_acme_identifier(key.digest().as_ref())];
                let pair = KeyPair::generate().map_err(Failed::local)?;
                let certificate = params.self_signed(&pair).map_err(Failed::local)?;
                let answer = Identity::from_der(vec![certificate.into()], pair.into()).map_err(Failed::local)?;
                Ok(Answer::TlsAlpn01 { _shown: self.identity.answer_challenge(name, &answer) })
            }
            Challenge::Http01 => {
                self.tokens.with(|tokens| tokens.insert(token.to_owned(), key.as_str().to_owned()));
                let answered = Answered { tokens: self.tokens.clone(), token: token.to_owned() };
                Ok(Answer::Http01 { _answered: answered })
            }
        }
    }
}

/// The longest token, in characters: it has at least 128 bits (RFC 8555 §8.3), and no authority uses more than 64.
const LONGEST_TOKEN: usize = 256;
/// So many authorizations an order may have for each name: an authority may ask for more than one (RFC 8555 §7.1.3).
const AUTHORIZATIONS: usize = 4;

/// Whether a token has only the characters of base64url (RFC 8555 §8.3): it is in a path, and in what is served there.
fn is_token(token: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(is_base64url)
}

/// Whether an order for so many names has authorizations as many as it may: each costs requests.
fn bounded(authorizations: usize, names: usize) -> Result<(), Failed> {
    match authorizations <= names.saturating_mul(AUTHORIZATIONS) {
        true => Ok(()),
        false => Err(Failed::refused(format!("its order has {authorizations} authorizations for {names} names"))),
    }
}

/// How long the authority is waited for, and how often it is asked.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(120));

impl Authority {
    /// A certificate for `names`: its key and its chain, in PEM form.
    pub(super) async fn issue(
        &self,
        names: &[String],
        replaced: Option<&Certificate>,
        way: &Way<'_>,
    ) -> Result<String, Failed> {
        let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = self.order(&identifiers, replaced).await?;
        bounded(order.state().authorizations.len(), names.len())?;
        let answers = self.answers(&mut order, way).await?;
        let polled = order.poll_ready(&PATIENCE).await;
        let state = order.state();
        // An error may also be about the poll alone, as that too many nonces were rejected: then nothing is wrong with
        // the names.
        let refused = state.status == OrderStatus::Invalid || state.error.is_some();
        match polled {
            Ok(OrderStatus::Ready) => {}
            _ if refused => return Err(refusal(&mut order, way).await),
            Ok(status) => return Err(Failed::refused(format!("the order is {status:?}, not ready"))),
            Err(error) => return Err(error.into()),
        }
        drop(answers);
        let pair = KeyPair::generate().map_err(Failed::local)?;
        let mut params = CertificateParams::new(names).map_err(Failed::local)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&pair).map_err(Failed::local)?;
        asked_again(async || order.finalize_csr(request.der()).await, is_nonce).await?;
        let chain = asked_again(async || order.poll_certificate(&PATIENCE).await, is_passing).await?;
        // What an authority sends is looked at before it takes the place of what works.
        let key = pair.serialize_pem();
        let issued = Identity::from_pem_bytes(chain.as_bytes(), key.as_bytes())
            .map_err(|error| Failed::refused(format!("what it issued cannot be used: {error}")))?;
        match names.iter().find(|name| !issued.current().names().contains(name)) {
            Some(name) => Err(Failed::refused(format!("it issued a certificate that does not name {name}"))),
            None => Ok(key + &chain),
        }
    }

    /// Says which certificate the new one is for, where the authority takes that (RFC 9773 §5).
    async fn order(&self, identifiers: &[Identifier], replaced: Option<&Certificate>) -> Result<Order, Failed> {
        let der = replaced.map(|certificate| CertificateDer::from(certificate.der().to_vec()));
        let replaced = der.as_ref().and_then(|der| CertificateIdentifier::try_from(der).ok());
        if let Some(replaced) = replaced {
            let order = NewOrder::new(identifiers).replaces(replaced);
            match self.account.new_order(&order).await {
                Ok(order) => return Ok(order),
                Err(Error::Api(problem)) if is_of_replaced(&problem) => {}
                // It does not take that (RFC 9773 is optional).
                Err(Error::Unsupported(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.account.new_order(&NewOrder::new(identifiers)).await?)
    }

    /// Answers the challenges of names that are not validated yet, and tells the authority to look.
    async fn answers(&self, order: &mut Order, way: &Way<'_>) -> Result<Vec<Answer>, Failed> {
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let Some(mut challenge) = authorization.challenge(way.kind()) else {
                return Err(Failed::refused(format!("it does not offer the challenge {} for {name}", way.challenge)));
            };
            answers.push(way.answer(&name, &challenge.token, &challenge.key_authorization())?);
            if let Err(error) = challenge.set_ready().await {
                // It may have looked already.
                let looked = matches!(error, Error::Api(_));
                let failed = Failed::from(error);
                let text = way.unvalidated(&format!("{name}: {}", failed.text));
                return Err(if looked && failed.refused { Failed { text, ..failed } } else { failed });
            }
        }
        Ok(answers)
    }
}

/// Asks up to five times while it fails with what passes. From the end of an order on a new one would be a second
/// certificate for the same names, of which authorities issue few in a week.
async fn asked_again<T>(
    mut ask: impl AsyncFnMut() -> Result<T, Error>,
    passes: fn(&Error) -> bool,
) -> Result<T, Error> {
    for pause in [1, 2, 4, 8] {
        match ask().await {
            Err(error) if passes(&error) => tokio::time::sleep(Duration::from_secs(pause)).await,
            asked => return asked,
        }
    }
    ask().await
}

/// Whether a request was refused for its nonce alone (RFC 8555 §6.5), and had no effect.
fn is_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind(problem) == "badNonce")
}

/// Whether the answer to a question may be another the next time.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Api(problem) => matches!(kind(problem), "badNonce" | "serverInternal"),
        // The connection.
        Error::Other(_) => true,
        _ => false,
    }
}

/// Why an order is not ready: what the authority found when it looked.
async fn refusal(order: &mut Order, way: &Way<'_>) -> Failed {
    let mut why = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        let name = authorization.identifier().to_string();
        if let Err(error) = authorization.refresh().await {
            why.push(format!("{name}: cannot ask for the reason: {}", causes(&error)));
            continue;
        }
        let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        why.extend(problems.map(|problem| format!("{name}: {}", told(problem))));
    }
    why.extend(order.state().error.as_ref().filter(|_| why.is_empty()).map(told));
    let found = if why.is_empty() { "it gives no reason".to_owned() } else { why.join("; ") };
    Failed::refused(way.unvalidated(&found))
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        })
    }
}

#[cfg(test)]
mod tests;
