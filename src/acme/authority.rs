//! A certificate authority, as an account of it sees it.

use std::{
    future::Future,
    pin::Pin,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Request, header};
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
};

/// The longest wait that an authority may ask for, in seconds: a day.
const LONGEST_WAIT: u64 = 86_400;
/// What to do when the ACME server's own certificate is not trusted.
const ADVICE: &str = "a CA of your own is trusted if its certificate is named (`acme-ca`)";

impl HttpClient for Https {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let https = self.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let answer = https.ask(Request::from_parts(head, body.to_bytes())).await;
            let mut answer = answer.map_err(|error| Error::Other(error.into()))?;
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
        let builder = Account::builder_with_http(Box::new(https));
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
                debug!(%error, "the certificate authority suggests no time to renew the certificate");
                None
            }
        }
    }
}
