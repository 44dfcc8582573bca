//! Keys from a URL. Those who serve them, as a rule, have no HTTP/3.

#[cfg(test)]
mod tests;

use std::{io, path::Path};

use anyhow::anyhow;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};

use crate::{
    cli::{Failure, remote, secrets::hidden},
    https::Https,
    origin::is_loopback,
};

/// The URL that this is, if it is one and not a file.
pub(super) fn url(text: &str) -> Result<Option<Uri>, Failure> {
    let Some((scheme, _)) = text.split_once("://") else { return Ok(None) };
    let wrong =
        |why: &str| Failure::usage(anyhow!("--auth {}: {why}, as in https://login.example/jwks.json", hidden(text)));
    let uri: Uri = text.parse().map_err(|_| wrong("not a valid URL: write one"))?;
    let host = uri.host().ok_or_else(|| wrong("the URL has no host: write one"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("a URL of keys has no user and password: write it without"));
    }
    match scheme {
        "https" => Ok(Some(uri)),
        // Between the two nobody can change it.
        "http" if is_loopback(host) => Ok(Some(uri)),
        _ => Err(wrong("keys come over https, so that nobody in between can replace them: write an https URL")),
    }
}

/// Asks for the keys at `url`. `ca` is a file of CA certificates to trust as well.
pub(super) fn fetcher(
    url: &Uri,
    ca: Option<&Path>,
) -> Result<impl Fn() -> BoxFuture<'static, io::Result<Vec<u8>>> + Send + Sync + 'static, Failure> {
    let (https, url) = (Https::new(ca, "--auth-ca trusts a CA of your own").map_err(remote::failure)?, url.clone());
    Ok(move || {
        let (https, url) = (https.clone(), url.clone());
        let fetched: BoxFuture<'static, _> = Box::pin(async move {
            let request = Request::get(url)
                .header(header::ACCEPT, "application/jwk-set+json, application/json")
                .body(Bytes::new())
                .map_err(io::Error::other)?;
            let answer = https.ask(request).await?;
            if answer.status() != StatusCode::OK {
                // A redirection too: who follows one asks someone else for the keys.
                return Err(io::Error::other(format!("it answered {}", answer.status())));
            }
            Ok(answer.into_body().to_vec())
        });
        fetched
    })
}
