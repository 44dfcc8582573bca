//! JSON web tokens as another implementation makes them (`vectors.py`), and as it would not.

use h3cast::auth::{Access, Action, Authorize, Claims, Denied, SigningKey, Tokens};
use http::Request;
use serde_json::Value;
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

const VECTORS: &str = include_str!("vectors.json");

struct Keys {
    folder: tempfile::TempDir,
    vectors: Value,
}

impl Keys {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), vectors: serde_json::from_str(VECTORS).unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A secret, and a JWKS, whose keys have ids.
    async fn set(&self) -> Tokens {
        let secret = self.file("secret", &format!("{}\n", self.vectors["secret"].as_str().unwrap()));
        let jwks = self.file("jwks", &self.vectors["jwks"].to_string());
        Tokens::new().secret(secret).await.unwrap().keys(jwks).await.unwrap()
    }

    /// The same keys in PEM, all in one file.
    async fn pem(&self) -> Tokens {
        let pems: Vec<_> = self.vectors["pem"].as_object().unwrap().values().map(|pem| pem.as_str().unwrap()).collect();
        Tokens::new().keys(self.file("pem", &pems.concat())).await.unwrap()
    }

    fn tokens(&self, kind: &str) -> Vec<(&str, &str)> {
        let tokens = self.vectors.pointer(kind).unwrap().as_object().unwrap();
        tokens.iter().map(|(name, token)| (name.as_str(), token.as_str().unwrap())).collect()
    }
}

async fn access(tokens: &Tokens, token: &str) -> Result<Access, Denied> {
    let request = Request::get("/stream").header("authorization", format!("Bearer {token}")).body(()).unwrap();
    tokens.authorize(&request.into_parts().0).await
}

#[tokio::test]
async fn tokens_of_another_implementation_count() {
    let keys = Keys::new();
    let (set, pem) = (keys.set().await, keys.pem().await);
    let good = keys.tokens("/good");
    assert!(["RS256", "ES256", "EdDSA", "HS256"].iter().all(|name| good.iter().any(|(good, _)| good == name)));
    for (name, token) in good {
        let access = access(&set, token).await.unwrap_or_else(|denied| panic!("{name}: {denied}"));
        assert_eq!(access.who(), Some("alice"), "{name}");
        assert!(access.allows(Action::Read, "log") && !access.allows(Action::Read, "other"), "{name}");
        assert!(access.allows(Action::Publish, "chat.lobby") && !access.allows(Action::Publish, "log"), "{name}");
        assert!(access.ends_at().is_some_and(|at| at > SystemTime::now() + Duration::from_secs(3600)), "{name}");
        if matches!(name, "RS256" | "ES256" | "EdDSA") {
            assert!(self::access(&pem, token).await.is_ok(), "{name} by PEM");
        }
    }
}

#[tokio::test]
async fn others_do_not() {
    let keys = Keys::new();
    let (set, pem) = (keys.set().await, keys.pem().await);
    let bad = keys.tokens("/bad");
    assert!(bad.len() > 40);
    for (name, token) in bad {
        for tokens in [&set, &pem] {
            match access(tokens, token).await {
                Err(Denied::Invalid(text)) => assert!(!text.contains(token), "{name}: {text}"),
                // The keys of a PEM file have no ids.
                Ok(_) if std::ptr::eq(tokens, &raw const pem) && name.contains("kid") => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_audience_is_asked_for() {
    let keys = Keys::new();
    let tokens = keys.set().await.audiences(["casts".into(), "spare".into()]);
    for (name, token) in keys.tokens("/audience/for") {
        access(&tokens, token).await.unwrap_or_else(|denied| panic!("{name}: {denied}"));
    }
    for (name, token) in keys.tokens("/audience/not for") {
        assert!(matches!(access(&tokens, token).await, Err(Denied::Invalid(_))), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_key_is_told() {
    let keys = Keys::new();
    let private = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let mut cases = vec![
        ("", "empty"),
        ("\n", "empty"),
        ("a secret of more than thirty-two bytes", "no keys"),
        ("<html>It works! But it is not what was asked for.</html>", "no keys"),
        (private, "private key"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not supported"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n", "not supported"),
        ("{\"keys\": 1}", "not a list"),
        ("{\"keys\": []}", "none of its 0 keys"),
        ("{\"keys\": [{\"kty\":\"oct\",\"k\":\"c2hvcnQ\"}]}", "none of its 1 keys"),
        ("{}", "no `keys`"),
        ("{\"keys\": [", "no JSON at line 1"),
    ];
    let unsupported: Vec<_> = keys.tokens("/unsupported");
    cases.extend(unsupported.iter().map(|(_, pem)| (*pem, "not supported")));
    for (text, word) in cases {
        let error = Tokens::new().keys(keys.file("x", text)).await.unwrap_err().to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    let public = &keys.tokens("/pem")[0].1;
    for (text, word) in [
        (b"short\n".to_vec(), "5 bytes"),
        (b"\n".to_vec(), "empty"),
        (public.as_bytes().to_vec(), "not a secret"),
        (keys.vectors["jwks"].to_string().into_bytes(), "not a secret"),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHk me@here".to_vec(), "not a secret"),
        ([&[0x30, 0x82][..], &[0xa5; 90]].concat(), "not a secret"),
    ] {
        let path = keys.folder.path().join("x");
        std::fs::write(&path, &text).unwrap();
        let error = Tokens::new().secret(path).await.unwrap_err().to_string();
        assert!(error.contains(word), "{text:?}: {error}");
    }
    let missing = Tokens::new().keys(keys.folder.path().join("none")).await.unwrap_err();
    assert!(missing.to_string().contains("cannot read"), "{missing}");
}

#[tokio::test]
async fn what_we_sign_we_verify() {
    let keys = Keys::new();
    let soon = |seconds: i64| {
        let now = SystemTime::now();
        let at = match seconds {
            0.. => now + Duration::from_secs(seconds as u64),
            _ => now - Duration::from_secs(seconds.unsigned_abs()),
        };
        let mut claims = Claims::until(at);
        claims.read = vec!["log".to_owned()].into();
        claims
    };
    let secret = "x".repeat(40);
    let key = SigningKey::parse(secret.as_bytes()).unwrap();
    let tokens = Tokens::new().secret(keys.file("secret", &secret)).await.unwrap();
    assert!(access(&tokens, &key.sign(&soon(60), None).unwrap()).await.unwrap().allows(Action::Read, "log"));
    // Within what clocks may differ, and beyond.
    assert!(access(&tokens, &key.sign(&soon(-2), None).unwrap()).await.is_ok());
    assert!(access(&tokens, &key.sign(&soon(-30), None).unwrap()).await.is_err());
    assert!(!format!("{key:?}{tokens:?}").contains("xxx"));
    for (text, word) in [("short", "5 bytes"), ("-----BEGIN PUBLIC KEY-----\nAA\n-----END PUBLIC KEY-----", "private")]
    {
        assert!(SigningKey::parse(text.as_bytes()).unwrap_err().to_string().contains(word));
    }
}
