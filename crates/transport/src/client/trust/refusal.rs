//! Why a server is not trusted: what it has, and what was expected.

use std::{
    fmt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::{
    identity::{Fingerprint, rfc3339},
    note::Note,
    shown::Short,
};

/// A server that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The certificate that it has.
    pub presented: Presented,
    /// Those that would have been trusted besides what the system trusts.
    pub expected: Vec<Expected>,
}

/// Why a server is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is none that was expected, and no CA that is trusted has signed it.
    Unknown,
    /// It has not the hash that was expected.
    OtherHash,
    /// It is no longer valid.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// It is for other names than the one it was asked by.
    WrongName(String),
    /// Something else, in words.
    Unusable(String),
}

/// A certificate as a server presents it. The texts come from the server: control characters in them are
/// escaped, and long ones are shortened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presented {
    /// Its SHA-256.
    pub sha256: Fingerprint,
    /// Whom it is for.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Whether that was itself, by its name.
    pub self_signed: bool,
    /// The names and addresses that it is for.
    pub names: Vec<String>,
    /// When its validity begins and ends.
    pub validity: Option<(SystemTime, SystemTime)>,
}

/// A certificate that would have been trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Expected {
    /// Where it is from: its file, or the file of a running server's certificate; empty when it was
    /// given by its hash.
    pub file: PathBuf,
    /// Its SHA-256, if there is one.
    pub sha256: Option<Fingerprint>,
    /// Why it cannot be used.
    pub problem: Option<String>,
    /// Whether it is good for servers on this machine only.
    pub only_here: bool,
    /// The running server whose certificate it is, by its [note](crate::note).
    pub server: Option<Note>,
}

impl Refusal {
    /// Without what servers at other ports have: it was not expected at this one.
    pub fn at_port(mut self, port: u16) -> Self {
        self.expected.retain(|expected| expected.server.as_ref().is_none_or(|note| note.has_port(port)));
        self
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is not the one that was expected, and no trusted CA signed it"),
            Self::OtherHash => f.write_str("its SHA-256 is not the one that was given"),
            Self::Expired => f.write_str("it has expired"),
            Self::NotYetValid => f.write_str("it is not valid yet"),
            Self::WrongName(name) => write!(f, "it is not for {name}"),
            Self::Unusable(why) => f.write_str(why),
        }
    }
}

impl fmt::Display for Refusal {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server's certificate is not trusted: {} (it is {}", self.reason, self.presented)?;
        write!(f, ", SHA-256 {}", self.presented.sha256.hex())?;
        for expected in &self.expected {
            write!(f, "; expected {expected}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.subject.is_empty() { "without a subject" } else { &self.subject })?;
        match self.names.is_empty() {
            true => f.write_str(", for no names")?,
            false => write!(f, ", for {}", self.names_in_words())?,
        }
        if let Some((from, to)) = self.validity {
            write!(f, ", valid {} to {}", rfc3339(from), rfc3339(to))?;
        }
        match self.self_signed {
            true => f.write_str(", self-signed"),
            false => write!(f, ", issued by {}", self.issuer),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if let (Some(note), Some(hash)) = (&self.server, &self.sha256) {
            return write!(f, "{file} of the server with process id {}, SHA-256 {}", note.pid, hash.hex());
        }
        match (&self.sha256, &self.problem) {
            _ if self.only_here => write!(f, "{file} (not: it is trusted for servers on this machine only)"),
            (Some(hash), _) if self.file.as_os_str().is_empty() => write!(f, "SHA-256 {}", hash.hex()),
            (Some(hash), _) => write!(f, "{file}, SHA-256 {}", hash.hex()),
            (None, Some(problem)) => write!(f, "{file} ({problem})"),
            (None, None) => write!(f, "{file}"),
        }
    }
}

/// The most of a text that a server made up.
const LONGEST_TEXT: usize = 120;
/// The most names.
const MOST_NAMES: usize = 6;

impl Presented {
    pub(super) fn read(der: &[u8]) -> Self {
        let harmless = |text: &dyn fmt::Display| Short(text, LONGEST_TEXT).to_string();
        let unread = Self {
            sha256: Fingerprint::of(der),
            subject: "unreadable".into(),
            issuer: "unknown".into(),
            self_signed: false,
            names: Vec::new(),
            validity: None,
        };
        let Ok((_, x509)) = x509_parser::parse_x509_certificate(der) else { return unread };
        let at = |time: x509_parser::time::ASN1Time| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.timestamp().try_into().unwrap_or_default()))
        };
        Self {
            subject: harmless(&x509.subject()),
            issuer: harmless(&x509.issuer()),
            self_signed: x509.subject().as_raw() == x509.issuer().as_raw(),
            names: names(&x509).iter().map(|name| harmless(name)).collect(),
            validity: at(x509.validity().not_before).zip(at(x509.validity().not_after)),
            ..unread
        }
    }

    /// The first names, and how many more there are.
    #[must_use]
    pub fn names_in_words(&self) -> String {
        let first = self.names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
        match self.names.len().saturating_sub(MOST_NAMES) {
            0 => first,
            more => format!("{first} and {more} more"),
        }
    }
}

/// The names and addresses that a certificate is for. One that lists none is for its common name, as
/// curl has it; browsers and CAs gave that up.
pub(super) fn names(x509: &X509Certificate<'_>) -> Vec<String> {
    let listed = x509.subject_alternative_name().ok().flatten();
    let listed: Vec<_> = listed
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
                _ => <[u8; 16]>::try_from(*bytes).ok().map(|ip| std::net::IpAddr::from(ip).to_string()),
            },
            _ => None,
        })
        .collect();
    match listed.is_empty() {
        false => listed,
        true => x509.subject().iter_common_name().filter_map(|name| name.as_str().ok().map(String::from)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_does_nothing_to_a_terminal() {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap();
        let name = format!("\u{1b}[2Jx\n\u{202e}{}", "é".repeat(1000));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let subject = Presented::read(certificate.der()).subject;
        assert!(subject.starts_with("CN=\\u{1b}[2Jx\\n\\u{202e}éé") && subject.ends_with("é…"), "{subject:?}");
    }
}
