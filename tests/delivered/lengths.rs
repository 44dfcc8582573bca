//! A response that is not as long as its `content-length` is malformed (RFC 9114 §4.1.2).

use bytes::Bytes;
use h3cast::client::ClientError;
use http::{Method, Request};

use crate::{
    common::soon,
    liar::{Liar, Lie},
};

const LIES: &[Lie] = &[
    ("/none", 200, &[]),
    ("/right", 200, &["5"]),
    ("/twice", 200, &["5", "5"]),
    ("/longer", 200, &["9"]),
    ("/shorter", 200, &["4"]),
    ("/empty", 200, &["0"]),
    ("/abc", 200, &["abc"]),
    ("/two", 200, &["5", "6"]),
    ("/304", 304, &["9"]),
];

async fn body(server: &Liar, path: &str) -> Result<Vec<u8>, ClientError> {
    let connection = server.connect().await;
    let mut response = soon("the head", connection.get(&server.uri(path))).await?;
    let mut all = Vec::new();
    loop {
        match soon("more", response.body.next()).await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return Ok(all),
            Err(error) => {
                // It stays so.
                let again: Result<Option<Bytes>, _> = soon("the same", response.body.next()).await;
                assert_eq!(again.unwrap_err().to_string(), error.to_string(), "{path}");
                return Err(error);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_of_another_length_is_an_error() {
    let server = Liar::start(LIES);
    for path in ["/none", "/right", "/twice"] {
        assert_eq!(body(&server, path).await.unwrap(), b"part\n", "{path}");
    }
    assert_eq!(body(&server, "/304").await.unwrap(), b"");
    for (path, length, received) in [("/longer", 9, 5..=5), ("/shorter", 4, 5..=5), ("/empty", 0, 3..=5)] {
        let error = body(&server, path).await.expect_err(path);
        assert!(
            matches!(&error, ClientError::Length { length: said, received: came } if *said == length && received.contains(came)),
            "{path}: {error}"
        );
        assert!(!error.is_final(), "{path}");
    }
    for path in ["/abc", "/two"] {
        let error = body(&server, path).await.expect_err(path);
        assert!(matches!(error, ClientError::Malformed(_)) && error.is_final(), "{path}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_length_of_a_body_that_does_not_come() {
    let server = Liar::start(LIES);
    let connection = server.connect().await;
    let request = Request::builder().method(Method::HEAD).uri(server.uri("/longer")).body(()).unwrap();
    let mut response = soon("the head", connection.request(request)).await.unwrap();
    assert_eq!(soon("the end", response.body.next()).await.unwrap(), None);
}
