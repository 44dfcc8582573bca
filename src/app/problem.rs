//! Errors as they are answered.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::admission::Refusal;

/// An error as RFC 9457 writes it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    detail: String,
    challenge: Challenge,
    refusal: Option<Refusal>,
    /// What a publication has written so far.
    published: Option<serde_json::Value>,
    /// More may have been published than is known here.
    in_doubt: bool,
}

/// What `WWW-Authenticate` names as wrong with a token (RFC 6750 §3.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Nothing: there was none. Only a 401 asks for one then.
    #[default]
    None,
    Request,
    Token,
    Scope,
}

#[derive(Serialize)]
struct Written<'a> {
    detail: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    in_doubt: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    published: Option<&'a serde_json::Value>,
    status: u16,
    title: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: String) -> Self {
        let refusal = match status {
            StatusCode::UNAUTHORIZED => Some(Refusal::Unauthorized),
            StatusCode::FORBIDDEN => Some(Refusal::Forbidden),
            StatusCode::MISDIRECTED_REQUEST => Some(Refusal::Misdirected),
            // Where a limit is the reason, it is counted where that is found.
            _ => None,
        };
        Self { status, detail, challenge: Challenge::None, refusal, published: None, in_doubt: false }
    }

    /// Counted as that, and not as what its status says.
    pub(super) fn because(self, refusal: Refusal) -> Self {
        Self { refusal: Some(refusal), ..self }
    }

    /// What it is counted as, if it is not counted yet.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    pub(super) fn challenge(self, challenge: Challenge) -> Self {
        Self { challenge, ..self }
    }

    /// The same with what the publication that it ends has written, for clients that continue it (an extension member,
    /// RFC 9457 §3.2).
    pub(super) fn published(self, published: serde_json::Value) -> Self {
        // What may be too little is not stated: a client would send the rest twice.
        Self { published: Some(published).filter(|_| !self.in_doubt), ..self }
    }

    /// The same where more may have been published than is known here.
    pub(super) fn in_doubt(self) -> Self {
        let detail = format!("{}; it is not known whether more was published", self.detail);
        Self { in_doubt: true, detail, ..self }
    }

    pub(super) fn bad(detail: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// As JSON.
    pub(super) fn text(&self) -> String {
        let written = Written {
            detail: &self.detail,
            in_doubt: self.in_doubt,
            published: self.published.as_ref(),
            status: self.status.as_u16(),
            title: self.status.canonical_reason().unwrap_or("Error"),
            kind: "about:blank",
        };
        serde_json::to_string(&written).unwrap_or_default()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        let mut response = (self.status, headers, self.text()).into_response();
        // RFC 9110 §11.6.1, RFC 6750 §3.
        let challenge = match self.challenge {
            Challenge::Request => Some("Bearer error=\"invalid_request\""),
            Challenge::Token => Some("Bearer error=\"invalid_token\""),
            Challenge::Scope => Some("Bearer error=\"insufficient_scope\""),
            Challenge::None => (self.status == StatusCode::UNAUTHORIZED).then_some("Bearer"),
        };
        if let Some(challenge) = challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(refusal) = self.refusal {
            // The guard counts it: it knows the client.
            response.extensions_mut().insert(refusal);
        }
        match self.status {
            // RFC 9110 §15.5.16.
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
