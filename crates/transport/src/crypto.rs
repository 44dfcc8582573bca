//! The cryptography of every connection.

/// Of TLS: aws-lc-rs where that feature is on, ring otherwise.
#[cfg(feature = "aws-lc-rs")]
pub(crate) use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) use rustls::crypto::ring::{default_provider, sign::any_supported_type};

/// Of connection ids: ring where that feature is on, as quinn does. The two have one interface.
#[cfg(not(feature = "ring"))]
pub(crate) use aws_lc_rs::{hmac, rand};
#[cfg(feature = "ring")]
pub(crate) use ring::{hmac, rand};

#[cfg(not(any(feature = "aws-lc-rs", feature = "ring")))]
compile_error!("h3cast-transport needs one of its features `ring` (the default) and `aws-lc-rs`");
