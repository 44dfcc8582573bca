//! A certificate authority, as an account of it sees it.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Uri, header, uri::Scheme};
use http_body_util::BodyExt;
use instant_acme::{
    Account, AccountCredentials, BodyWrapper, BytesResponse, CertificateIdentifier, Error, HttpClient, NewAccount,
};
use tracing::{debug, info};

use super::{Settings, order::Failed, store::Store};
use crate::{
    client::ClientError,
    https::Https,
    identity::{Certificate, CertificateDer},
    shown::Short,
};

/// The longest wait that an authority may ask for, in seconds: a day.
const LONGEST_WAIT: u64 = 86_400;
/// So much of a URL is shown that is not valid, in characters.
const LONGEST_URL: usize = 100;
/// What to do when the ACME server's own certificate is not trusted.
const ADVICE: &str = "to trust your own CA, name its certificate (`acme-ca`)";

/// The URLs of a directory that requests go to (RFC 8555 §7.1.1, RFC 9773 §4).
const URLS: [&str; 4] = ["newNonce", "newAccount", "newOrder", "renewalInfo"];

/// How the authority is asked.
struct Asking {
    https: Https,
    directory: Uri,
}

impl Asking {
    /// Whether a URL that the authority has named can be asked: one of HTTPS (RFC 8555 §6.1), and of plain HTTP only if
    /// its directory is.
    fn allows(&self, url: &Uri) -> bool {
        let is_plain = self.directory.scheme() == Some(&Scheme::HTTP);
        let is_known = |scheme: &Scheme| *scheme == Scheme::HTTPS || is_plain && *scheme == Scheme::HTTP;
        url.scheme().is_some_and(is_known) && url.host().is_some_and(|host| !host.is_empty())
    }

    /// Looks at the URLs of a directory: the ACME client takes them to be valid, and panics over one that is not.
    fn check(&self, directory: &[u8]) -> Result<(), Error> {
        // It reports on its own what is not a directory.
        let directory: serde_json::Value = serde_json::from_slice(directory).unwrap_or_default();
        let urls = URLS.iter().filter_map(|name| Some((name, directory.get(name)?.as_str()?)));
        for (name, url) in urls {
            if !url.parse().is_ok_and(|url| self.allows(&url)) {
                let text = format!("the URL `{name}` in its directory is not valid: {}", Short(url, LONGEST_URL));
                return Err(Error::Other(text.into()));
            }
        }
        Ok(())
    }
}

impl HttpClient for Asking {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let asking = Self { https: self.https.clone(), directory: self.directory.clone() };
        Box::pin(async move {
            let (head, body) = request.into_parts();
            if !asking.allows(&head.uri) {
                let text = format!("it named an invalid URL: {}", Short(&head.uri, LONGEST_URL));
                return Err(Error::Other(text.into()));
            }
            let Ok(body) = body.collect().await;
            // Nothing else with such URLs is asked for like that.
            let is_directory = head.method == Method::GET;
            let answer = asking.https.ask(Request::from_parts(head, body.to_bytes())).await;
            let mut answer = answer.map_err(|error| Error::Other(error.into()))?;
            if is_directory {
                asking.check(answer.body())?;
            }
            // It is added to the time: one that is no time would end in a panic.
            let long = |wait: &HeaderValue| {
                wait.to_str().is_ok_and(|wait| wait.trim().parse().is_ok_and(|wait: u64| wait > LONGEST_WAIT))
            };
            if answer.headers().get(header::RETRY_AFTER).is_some_and(long) {
                answer.headers_mut().insert(header::RETRY_AFTER, LONGEST_WAIT.into());
            }
            Ok(BytesResponse::from(answer.map(http_body_util::Full::new)))
        })
    }
}

/// What asks the authority. Blocks.
pub(super) fn https(settings: &Settings) -> Result<Https, ClientError> {
    Https::new(settings.ca.as_deref(), ADVICE)
}

/// A certificate authority, and our account there.
pub(super) struct Authority {
    pub(super) account: Account,
}

impl Authority {
    /// With the account that is kept, or a new one, which is kept then.
    pub(super) async fn open(settings: &Settings, store: &Store) -> Result<Self, Failed> {
        let shared = settings.clone();
        let https = tokio::task::spawn_blocking(move || https(&shared)).await;
        let https = https.map_err(Failed::local)?.map_err(Failed::local)?;
        let builder = Account::builder_with_http(Box::new(Asking { https, directory: settings.directory.clone() }));
        if let Some(kept) = store.blocking(Store::account).await? {
            let kept: AccountCredentials = serde_json::from_slice(&kept).map_err(|error| {
                let file = store.account_file();
                Failed::local(format!("{} is not a valid account ({error}): move it away", file.display()))
            })?;
            return Ok(Self { account: builder.from_credentials(kept).await? });
        }
        let contact: Vec<_> = settings.contacts.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder.create(&new, settings.directory.to_string(), None).await?;
        let kept = serde_json::to_vec(&credentials).map_err(Failed::local)?;
        store.blocking(move |store| store.keep_account(&kept)).await?;
        info!(account = account.id(), "registered with the certificate authority");
        Ok(Self { account })
    }

    /// When the authority suggests to renew a certificate (RFC 9773), and how long that counts; `None` if it does not.
    pub(super) async fn suggested(&self, certificate: &Certificate) -> Option<(SystemTime, Duration)> {
        let der = CertificateDer::from(certificate.der().to_vec());
        let id = CertificateIdentifier::try_from(&der).ok()?;
        match self.account.renewal_info(&id).await {
            Ok((info, again)) => {
                let (start, end) = (SystemTime::from(info.suggested_window.start), info.suggested_window.end.into());
                // Each client chooses a moment in it by chance, and keeps to it.
                let length = SystemTime::duration_since(&end, start).unwrap_or_default();
                let share =
                    u8::from_str_radix(&certificate.hash().hex()[..2], 16).map_or(0.0, |byte| f64::from(byte) / 256.0);
                Some((start + length.mul_f64(share), again))
            }
            Err(error) => {
                debug!(%error, "the certificate authority did not suggest when to renew the certificate");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A URL that is none made the client panic; one of another kind was asked as plain HTTP.
    #[test]
    fn the_urls_of_a_directory_are_looked_at() {
        let asking = |directory: &'static str| Asking {
            https: Https::new(None, ADVICE).unwrap(),
            directory: Uri::from_static(directory),
        };
        let check = |directory, url: &str| {
            let text = serde_json::json!({ "newNonce": url, "newOrder": "https://ca.example/o", "meta": {} });
            asking(directory).check(text.to_string().as_bytes()).map_err(|error| error.to_string())
        };
        let secure = "https://ca.example/directory";
        for url in [
            "file:///etc/passwd",
            "x",
            "",
            "/nonce",
            "https://ca.example/\r\nA: b",
            "https:///x",
            "http://ca.example/n",
        ] {
            let error = check(secure, url).unwrap_err();
            assert!(error.contains("`newNonce`") && !error.contains('\r'), "{url}: {error}");
        }
        check(secure, "https://other.example:14000/nonce").unwrap();
        check("http://localhost:1/directory", "http://localhost:1/nonce").unwrap();
        // The client says what it is then.
        for text in ["", "[]", "{}", r#"{"newNonce":1}"#] {
            asking(secure).check(text.as_bytes()).unwrap();
        }
    }
}
