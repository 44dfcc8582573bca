//! What an authority answers, and what its answer means.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use instant_acme::{Account, BodyWrapper, BytesResponse, HttpClient, NewAccount};

use super::*;

/// An authority with one name to validate.
struct Scripted {
    /// The answer to each poll of the order.
    poll: (u16, &'static str),
    /// The error of the challenge once that has been polled.
    found: &'static str,
    /// How many authorizations its order has.
    authorizations: usize,
    /// The token of its challenge.
    token: &'static str,
    /// How many requests for the certificate are refused for their nonces.
    refused_nonces: AtomicUsize,
    finalized: AtomicBool,
}

impl HttpClient for Scripted {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (status, body) = match request.uri().path() {
            "/directory" => {
                let urls = r#""newAccount":"https://ca/account","newOrder":"https://ca/new-order""#;
                (200, format!(r#"{{"newNonce":"https://ca/nonce",{urls}}}"#))
            }
            "/nonce" => (200, String::new()),
            "/account" => (201, r#"{"status":"valid"}"#.into()),
            "/new-order" => {
                let all = vec![r#""https://ca/authorization""#; self.authorizations].join(",");
                (201, format!(r#"{{"status":"pending","authorizations":[{all}],"finalize":"https://ca/finalize"}}"#))
            }
            "/authorization" => {
                let challenge = r#""type":"tls-alpn-01","url":"https://ca/challenge","status":"pending""#;
                let challenge = format!(r#"{challenge},"token":"{}""#, self.token);
                let name = r#""identifier":{"type":"dns","value":"cast.example.org"}"#;
                (200, format!(r#"{{{name},"status":"pending","challenges":[{{{challenge}{}}}]}}"#, self.found))
            }
            "/challenge" => {
                (200, r#"{"type":"tls-alpn-01","url":"https://ca/challenge","token":"t","status":"processing"}"#.into())
            }
            "/order" if self.finalized.load(Relaxed) => (200, VALID.into()),
            "/order" => (self.poll.0, self.poll.1.into()),
            "/finalize" => {
                self.finalized.store(true, Relaxed);
                (200, VALID.into())
            }
            "/certificate" if self.refused_nonces.load(Relaxed) > 0 => {
                self.refused_nonces.fetch_sub(1, Relaxed);
                (400, r#"{"type":"urn:ietf:params:acme:error:badNonce","detail":"unknown nonce"}"#.into())
            }
            "/certificate" => (200, "not PEM".into()),
            other => panic!("{other} was asked for"),
        };
        let response =
            Response::builder().status(status).header("replay-nonce", "n").header("location", "https://ca/order");
        let response = response.body(Full::new(Bytes::from(body))).unwrap();
        Box::pin(async { Ok(BytesResponse::from(response)) })
    }
}

const READY: &str =
    r#"{"status":"ready","authorizations":["https://ca/authorization"],"finalize":"https://ca/finalize"}"#;
const VALID: &str = r#"{"status":"valid","authorizations":["https://ca/authorization"],"finalize":"https://ca/finalize","certificate":"https://ca/certificate"}"#;
const INVALID: &str =
    r#"{"status":"invalid","authorizations":["https://ca/authorization"],"finalize":"https://ca/finalize"}"#;
const WHY: &str = r#","error":{"type":"urn:ietf:params:acme:error:connection","detail":"connection refused"}"#;

/// Why no certificate is issued when the order is polled.
async fn failed(poll: (u16, &'static str), found: &'static str) -> Failed {
    refused(Scripted { poll, found, authorizations: 1, token: "t", refused_nonces: 0.into(), finalized: false.into() })
        .await
}

async fn refused(authority: Scripted) -> Failed {
    let builder = Account::builder_with_http(Box::new(authority));
    let new = NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
    let (account, _) = builder.create(&new, "https://ca/directory".into(), None).await.unwrap();
    let identity = Identity::localhost().unwrap();
    let way = Way { challenge: Challenge::TlsAlpn01, identity: &identity, tokens: &Tokens::default() };
    Authority { account }.issue(&["cast.example.org".to_owned()], None, &way).await.unwrap_err()
}

/// An error of the poll says nothing about the name: the next try is made soon, or when the authority wants it.
#[tokio::test(start_paused = true)]
async fn a_poll_that_fails_refuses_no_name() {
    for (poll, refused, not_before) in [
        ((400, r#"{"type":"urn:ietf:params:acme:error:badNonce","detail":"unknown nonce"}"#), false, 0),
        ((500, r#"{"type":"urn:ietf:params:acme:error:serverInternal","detail":"no database"}"#), false, 0),
        ((429, r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#), true, 3600),
    ] {
        let failed = failed(poll, "").await;
        assert_eq!((failed.refused, failed.not_before.as_secs()), (refused, not_before), "{failed}");
        assert!(!failed.text.contains("not validated"), "{failed}");
    }
}

/// A new order would be a second certificate: an issued one is asked for until it comes.
#[tokio::test(start_paused = true)]
async fn what_was_issued_is_asked_for_again() {
    for (refused_nonces, expected) in
        [(0, "what it issued cannot be used"), (9, "what it issued cannot be used"), (1000, "nonce")]
    {
        let scripted = Scripted {
            poll: (200, READY),
            found: "",
            authorizations: 1,
            token: "t",
            refused_nonces: refused_nonces.into(),
            finalized: false.into(),
        };
        let failed = refused(scripted).await;
        assert!(failed.text.contains(expected), "{refused_nonces}: {failed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_not_validated_is_told_with_the_reason() {
    for (found, why) in [(WHY, "cast.example.org: connection refused"), ("", "it gives no reason")] {
        let failed = failed((200, INVALID), found).await;
        assert!(failed.refused, "{failed}");
        assert!(failed.text.contains("not validated by tls-alpn-01") && failed.text.contains(why), "{failed}");
    }
}

/// An order of thousands of authorizations had each of them asked for, and any token was served as a path.
#[tokio::test(start_paused = true)]
async fn orders_and_tokens_are_bounded() {
    let scripted = |authorizations, token| Scripted {
        poll: (200, INVALID),
        found: "",
        authorizations,
        token,
        refused_nonces: 0.into(),
        finalized: false.into(),
    };
    let failed = refused(scripted(5000, "t")).await;
    assert!(failed.refused && failed.text.contains("5000 authorizations for 1 names"), "{failed}");
    let longest = "x".repeat(256).leak();
    let longer = "x".repeat(257).leak();
    for (token, is_valid) in [("../../feeds", false), ("", false), ("a.b", false), (longer, false), (longest, true)] {
        let failed = refused(scripted(4, token)).await;
        assert_eq!(failed.text.contains("no valid token"), !is_valid, "{token}: {failed}");
        assert!(failed.refused && failed.text.contains("not validated") == is_valid, "{token}: {failed}");
    }
}

#[test]
fn only_a_refusal_of_the_replaced_certificate_has_it_left_out() {
    let is = |name: &str| {
        let problem = format!(r#"{{"type":"urn:ietf:params:acme:error:{name}","detail":"no"}}"#);
        is_of_replaced(&serde_json::from_str(&problem).unwrap())
    };
    assert!(is("alreadyReplaced") && is("malformed") && is("unauthorized"));
    assert!(!is("rateLimited") && !is("serverInternal") && !is("badNonce"));
}
