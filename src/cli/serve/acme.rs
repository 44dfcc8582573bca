//! A certificate from a certificate authority, as arguments.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use http::Uri;

use crate::{
    acme::{Acme, Challenge},
    cli::{CertsArgs, Failure},
};

/// Without `--acme`, the certificate is created for this machine, or given with `--cert`.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "A certificate that browsers trust")]
pub(super) struct AcmeArgs {
    /// Have a certificate for these names issued and renewed by Let's Encrypt, or by the authority of
    /// --acme-directory; by using it you agree to the authority's terms of service. The names must lead here: port 443
    /// to --listen over TCP, or port 80 to --redirect. It is kept in the folder acme of --certs.
    #[arg(long, env = "H3CAST_ACME", value_name = "NAME", value_delimiter = ',', conflicts_with = "cert")]
    acme: Vec<String>,
    /// The URL of another ACME server's directory, for example Let's Encrypt's staging environment.
    #[arg(long, env = "H3CAST_ACME_DIRECTORY", value_name = "URL", value_parser = directory)]
    acme_directory: Option<Uri>,
    /// CA certificates (PEM) to trust when the ACME server is asked, in addition to those that the system trusts.
    #[arg(long, env = "H3CAST_ACME_CA", value_name = "FILE")]
    acme_ca: Option<PathBuf>,
    /// Where the authority may write to, as in admin@example.org.
    #[arg(long, env = "H3CAST_ACME_CONTACT", value_name = "ADDRESS", value_delimiter = ',', value_parser = contact)]
    acme_contact: Vec<String>,
    /// How the authority makes sure that the names lead here: by a handshake at port 443, or a request at port 80.
    /// [default: tls-alpn-01, then http-01 if there is --redirect]
    #[arg(long, env = "H3CAST_ACME_CHALLENGE", value_name = "CHALLENGE", value_delimiter = ',')]
    acme_challenge: Vec<ChallengeName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ChallengeName {
    #[value(name = "tls-alpn-01")]
    TlsAlpn01,
    #[value(name = "http-01")]
    Http01,
}

impl From<ChallengeName> for Challenge {
    fn from(name: ChallengeName) -> Self {
        match name {
            ChallengeName::TlsAlpn01 => Self::TlsAlpn01,
            ChallengeName::Http01 => Self::Http01,
        }
    }
}

fn directory(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| "not a valid URL".to_owned())?;
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => Ok(url),
        _ => Err("write the https URL of the authority's directory".into()),
    }
}

fn contact(text: &str) -> Result<String, String> {
    match text.split_once('@') {
        Some((name, host)) if !name.is_empty() && !host.is_empty() && !text.contains(char::is_whitespace) => {
            Ok(text.trim_start_matches("mailto:").to_owned())
        }
        _ => Err("write an e-mail address, as in admin@example.org".into()),
    }
}

impl AcmeArgs {
    /// Whether a certificate is to be issued.
    pub(super) fn is_on(&self) -> bool {
        !self.acme.is_empty()
    }

    /// Who issues the certificate, if that is wanted. `redirects` if plain HTTP of other machines is answered.
    pub(super) fn acme(&self, certs: &CertsArgs, redirects: bool) -> Result<Option<Acme>, Failure> {
        if self.acme.is_empty() {
            for (given, flag) in [
                (self.acme_directory.is_some(), "--acme-directory"),
                (self.acme_ca.is_some(), "--acme-ca"),
                (!self.acme_contact.is_empty(), "--acme-contact"),
                (!self.acme_challenge.is_empty(), "--acme-challenge"),
            ] {
                if given {
                    return Err(Failure::usage(anyhow!(
                        "{flag} has no effect without --acme: write the names that the certificate is for, as in --acme example.org"
                    )));
                }
            }
            return Ok(None);
        }
        let challenges: Vec<Challenge> = match (self.acme_challenge.is_empty(), !redirects) {
            (false, _) => self.acme_challenge.iter().copied().map(Challenge::from).collect(),
            (true, false) => vec![Challenge::TlsAlpn01, Challenge::Http01],
            (true, true) => vec![Challenge::TlsAlpn01],
        };
        if !redirects && challenges.contains(&Challenge::Http01) {
            return Err(Failure::usage(anyhow!(
                "--acme-challenge http-01 is answered where plain HTTP is redirected: give --redirect 0.0.0.0:80 too"
            )));
        }
        let acme = Acme::new(&certs.certs.join("acme"), self.acme.iter().cloned());
        let acme = acme.map_err(|error| Failure::usage(anyhow!("--acme: {error}")))?;
        let acme = acme.challenges(challenges).ca(self.acme_ca.clone()).contacts(self.acme_contact.iter().cloned());
        Ok(Some(match &self.acme_directory {
            Some(url) => acme.directory(url.clone()),
            None => acme,
        }))
    }
}
