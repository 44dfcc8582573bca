//! Identities in memory: what they are served with, what is refused, and how they are replaced.

use h3cast_transport::{
    Identity, Server,
    client::{ClientError, Connection, Trust},
    identity::{IdentityError, PrivateKeyDer},
};
use http::Uri;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

fn created() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

/// A server at a free port, which stops with its task, and its URL.
async fn served(identity: Identity) -> (tokio::task::JoinHandle<()>, Uri) {
    let server = Server::builder(identity).listen("localhost:0".parse().unwrap()).build().await.unwrap();
    let uri = format!("https://{}/", server.addresses().tls[0]).parse().unwrap();
    (tokio::spawn(async { server.run(Default::default()).await.unwrap() }), uri)
}

async fn status(uri: &Uri, trusted: &Identity) -> Result<u16, ClientError> {
    let trust = Trust::Hashes(vec![trusted.current().hash()]);
    let answer = Connection::open(uri, &trust).await?.get(uri).await?;
    Ok(answer.status.as_u16())
}

#[tokio::test]
async fn localhost_is_served_from_memory_and_trusted_by_hash() {
    let identity = Identity::localhost().unwrap();
    assert_eq!(identity.hashes(), [identity.current().hash()], "browsers accept it");
    assert_eq!(identity.current().names(), ["localhost", "127.0.0.1", "::1"]);
    assert_eq!(identity.certificate_path().as_os_str(), "");
    let (server, uri) = served(identity.clone()).await;
    assert_eq!(status(&uri, &identity).await.unwrap(), 404);
    server.abort();
}

#[tokio::test]
async fn a_chain_and_its_key_are_served_from_memory_and_replaced() {
    let (one, other) = (created(), created());
    let key = PrivateKeyDer::from(one.signing_key);
    let first = Identity::from_der(vec![one.cert.into()], key).unwrap();
    let second =
        Identity::from_pem_bytes(other.cert.pem().as_bytes(), other.signing_key.serialize_pem().as_bytes()).unwrap();
    let before = first.current();
    let (server, uri) = served(first.clone()).await;
    assert_eq!(status(&uri, &first).await.unwrap(), 404);
    assert!(status(&uri, &second).await.is_err());
    first.replace(&second);
    assert_eq!(first.current(), second.current());
    assert_eq!(status(&uri, &second).await.unwrap(), 404);
    let trust = Trust::Hashes(vec![before.hash()]);
    assert!(Connection::open(&uri, &trust).await.is_err(), "the one before is not served any more");
    server.abort();
}

#[test]
fn what_cannot_be_served_is_refused_with_a_reason() {
    let (one, other) = (created(), created());
    let pem = (one.cert.pem(), one.signing_key.serialize_pem());
    let from_pem = |chain: &str, key: &str| Identity::from_pem_bytes(chain.as_bytes(), key.as_bytes()).unwrap_err();
    let from_der = |chain, key| Identity::from_der(chain, PrivateKeyDer::from(key)).unwrap_err();
    let damaged = vec![vec![0x30, 0x03].into()];
    for (error, reason) in [
        (from_pem("", &pem.1), "the certificate from memory holds no certificate in PEM form"),
        (from_pem(&pem.0, "secret"), "the key from memory holds no private key in PEM form"),
        (from_pem(&pem.0, &other.signing_key.serialize_pem()), "do not fit together"),
        (from_der(Vec::new(), created().signing_key), "there is none"),
        (from_der(damaged, created().signing_key), "the certificate from memory cannot be used"),
        (from_der(vec![other.cert.into()], created().signing_key), "do not fit together"),
    ] {
        assert!(error.to_string().contains(reason), "{error}");
        assert!(!matches!(error, IdentityError::File { .. }), "{error}");
    }
}
