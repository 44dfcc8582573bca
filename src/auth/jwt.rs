//! JSON web tokens (RFC 7519): which keys sign them, and what they allow.

mod keys;
mod ring;
pub(super) mod sign;

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Validation, decode, decode_header, errors::ErrorKind};
use serde::{Deserialize, Serialize};

use super::{Access, Denied, Pattern};
pub use keys::KeyError;
pub(super) use keys::{KeyKind, KeySet};

/// How far the clocks of a token's issuer and of the server may differ.
pub const LEEWAY: Duration = Duration::from_secs(5);
/// With so many keys that may have signed a token, no more are tried.
const MOST_TRIED: usize = 16;
/// The latest time that counts, in seconds since 1970: the year 9999.
const LATEST: f64 = 253_402_300_799.0;

/// What a token claims: the registered claims that count here, and those of h3cast. Others are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Claims {
    /// When it ends, in seconds since 1970. Required.
    pub exp: f64,
    /// When it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Which services it is for.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub aud: OneOrMany,
    /// The feeds that it allows reading: names, or [patterns](Pattern).
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub read: OneOrMany,
    /// The feeds that it allows publishing to.
    #[serde(default, skip_serializing_if = "OneOrMany::is_empty")]
    pub publish: OneOrMany,
}

impl Claims {
    /// A token that ends then, and allows nothing yet.
    #[must_use]
    pub fn until(time: SystemTime) -> Self {
        let exp = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let nothing = OneOrMany::default;
        Self { exp: exp as f64, nbf: None, sub: None, aud: nothing(), read: nothing(), publish: nothing() }
    }
}

/// A list in JSON, or the one text that it would have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(missing_docs)]
pub enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl From<Vec<String>> for OneOrMany {
    fn from(many: Vec<String>) -> Self {
        Self::Many(many)
    }
}

impl OneOrMany {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

/// Why a token does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unverified {
    /// None of the keys may have signed it: there may be newer ones.
    UnknownKey,
    Denied(Denied),
}

impl From<Denied> for Unverified {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

/// What a token allows, if it is signed by one of these keys, valid now and for one of these audiences.
pub(super) fn verify<'a>(
    token: &str,
    sets: impl Iterator<Item = &'a KeySet>,
    audiences: &[String],
) -> Result<Access, Unverified> {
    ring::install();
    let header = decode_header(token).map_err(|error| match error.kind() {
        // Among them `none`, and what is newer than this server.
        ErrorKind::Json(_) if token.matches('.').count() == 2 => Denied::invalid(
            "the token's header cannot be read, or its algorithm is not one of HS256, RS256, ES256, EdDSA",
        ),
        _ => Denied::invalid("the token is not known to this server, and is not a JSON web token that it can read"),
    })?;
    if header.crit.is_some() {
        // RFC 7515 §4.1.11.
        return Err(Denied::invalid("the token's header has `crit`, which this server does not support").into());
    }
    // The algorithm is the key's: a token whose header names another one has not been signed with it.
    let named = |kid: Option<&str>| kid.is_none_or(|kid| header.kid.as_deref().is_none_or(|named| named == kid));
    let mut candidates: Vec<_> = sets
        .flat_map(|set| set.keys())
        .filter(|key| key.algorithm == header.alg && named(key.kid.as_deref()))
        .take(MOST_TRIED)
        .peekable()
        .collect();
    if candidates.is_empty() {
        return Err(Unverified::UnknownKey);
    }
    // Those that it names come first.
    candidates.sort_by_key(|key| key.kid.is_none());
    for key in candidates {
        let mut validation = Validation::new(key.algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        if !audiences.is_empty() {
            validation.set_audience(audiences);
            validation.required_spec_claims.insert("aud".into());
        }
        match decode::<Claims>(token, &key.decoding, &validation) {
            Ok(token) => return Ok(allowed(&token.claims, audiences)?),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
            Err(error) => return Err(refused(error.kind()).into()),
        }
    }
    Err(Denied::invalid("the token is not signed with a key of this server").into())
}

/// Why a token that is signed does not count.
fn refused(kind: &ErrorKind) -> Denied {
    Denied::invalid(match kind {
        ErrorKind::ExpiredSignature => "the token has expired: get a new one".into(),
        ErrorKind::ImmatureSignature => "the token is not valid yet (its nbf is later than the server's clock)".into(),
        ErrorKind::InvalidAudience => "the token is for a different audience than this server (aud)".into(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token has no `{claim}`, or none that can be read"),
        ErrorKind::InvalidClaimFormat(claim) => format!("the token's `{claim}` is not a number of seconds since 1970"),
        ErrorKind::Json(_) => {
            "the token's claims cannot be read: exp and nbf are numbers, read and publish lists of feeds".into()
        }
        _ => "the token is not a JSON web token that this server can read".to_owned(),
    })
}

fn allowed(claims: &Claims, audiences: &[String]) -> Result<Access, Denied> {
    if audiences.is_empty() && !claims.aud.is_empty() {
        // RFC 7519 §4.1.3.
        return Err(Denied::invalid("the token is for an audience (aud), and this server has none"));
    }
    let patterns = |which: &str, list: &OneOrMany| {
        let read = list.as_slice().iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>, _>>();
        read.map_err(|error| Denied::invalid(format!("the token's `{which}`: {error}")))
    };
    let (read, publish) = (patterns("read", &claims.read)?, patterns("publish", &claims.publish)?);
    let seconds = if claims.exp.is_finite() { claims.exp.clamp(0.0, LATEST) } else { 0.0 };
    let until = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds) + LEEWAY;
    let access = Access::granted().read(read).publish(publish).until(until);
    Ok(match &claims.sub {
        Some(sub) => access.subject(sub.as_str()).by("JSON web token"),
        None => access,
    })
}
