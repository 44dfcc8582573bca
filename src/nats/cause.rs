//! Why NATS cannot be reached, in words that say what to do about it.

/// Why no connection to NATS could be made.
///
/// It is read from the text of the client's error: when it reconnects, the client gives no more than that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectCause {
    /// Nothing listens there.
    #[error("connection refused (is nats-server running there?)")]
    Refused,
    /// The name of a server has no address.
    #[error("the host name cannot be resolved: {0}")]
    Name(String),
    /// No answer in time.
    #[error("no answer within 3 s")]
    Silent,
    /// The server takes no such user, or none without credentials.
    #[error("authorization violation: the user, password, token or credentials are missing or wrong")]
    Credentials,
    /// The certificate of the server is not signed by one that is trusted.
    #[error("the server's TLS certificate is not signed by a trusted CA")]
    UnknownCa,
    /// The certificate of the server has other names.
    #[error("the server's TLS certificate is for another name: {0}")]
    WrongName(String),
    /// The certificate of the server has ended, or does not begin yet.
    #[error("the server's TLS certificate has expired or is not valid yet")]
    Expired,
    /// The server wants a certificate of the client.
    #[error("the server requires a TLS client certificate")]
    CertificateRequired,
    /// The server does not take that of the client.
    #[error("the server rejected the TLS client certificate: {0}")]
    CertificateRejected(String),
    /// Something else about TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The server does not speak as a NATS server does.
    #[error(
        "it did not answer like a NATS server (another port, one for WebSocket alone, or TLS with `handshake_first`, which \
         is not supported?)"
    )]
    Greeting,
    /// The server does not offer TLS, which is asked for.
    #[error("the server does not offer TLS")]
    NoTls,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl ConnectCause {
    /// Reads it from the client's words.
    pub(super) fn of(text: &str) -> Self {
        let has = |word: &str| text.contains(word);
        // Without the kind that the client puts before it.
        let rest = text.split_once("error: ").map_or(text, |(_, rest)| rest).trim_start_matches("nats: ");
        let after = |word: &str| rest.split_once(word).map_or(rest, |(_, after)| after).to_owned();
        if text.to_lowercase().contains("authorization violation")
            || has("Authentication")
            || has("failed signing nonce")
        {
            Self::Credentials
        } else if has("invalid peer certificate") {
            let why = after("invalid peer certificate: ");
            if why.contains("UnknownIssuer") || why.contains("CaUsedAsEndEntity") {
                Self::UnknownCa
            } else if why.contains("Expired") || why.contains("expired") || why.contains("NotValidYet") {
                Self::Expired
            } else if why.contains("not valid for name") || why.contains("NotValidForName") {
                Self::WrongName(why)
            } else {
                Self::Tls(rest.to_owned())
            }
        } else if has("CertificateRequired") {
            Self::CertificateRequired
        } else if has("received fatal alert: ") {
            let alert = after("received fatal alert: ");
            match alert.contains("Certificate") || alert.contains("UnknownCA") {
                // Before TLS 1.3 that is all a server says when there is none.
                true => Self::CertificateRejected(alert),
                false => Self::Tls(rest.to_owned()),
            }
        } else if has("TLS error") || has("certificate") {
            Self::Tls(rest.to_owned())
        } else if has("onnection refused") {
            Self::Refused
        } else if has("DNS error") {
            Self::Name(rest.to_owned())
        } else if has("timed out") {
            Self::Silent
        } else if has("InvalidContentType") {
            // It has greeted before that, unless its greeting is to come over TLS.
            Self::NoTls
        } else if has("expected INFO") {
            Self::Greeting
        } else {
            Self::Other(rest.to_owned())
        }
    }

    /// Whether it may be over soon without anybody's doing: a server that starts, a network that is mended.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Refused | Self::Name(_) | Self::Silent | Self::Greeting | Self::Other(_))
    }
}

/// What may be denied.
pub(super) const PUBLISH: &str = "publish to";
pub(super) const SUBSCRIBE: &str = "subscribe to";

/// What a server lets nobody do, as it says it: `Permissions Violation for Publish to "a.b"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Denied {
    /// `publish to` or `subscribe to`.
    pub(super) what: &'static str,
    pub(super) subject: String,
    /// It is where answers come to.
    is_inbox: bool,
}

/// What the names of this server's consumers begin with.
pub(super) const NAMES: &str = "h3cast-";
/// What they are asked for with, and deleted.
pub(super) const CREATE: &str = "CREATE";
pub(super) const DELETE: &str = "DELETE";

/// Where all consumers of a stream are created or deleted: a user may do either for each of them, or for none.
pub(super) fn subject_of(verb: &str, stream: &str) -> String {
    format!("$JS.API.CONSUMER.{verb}.{stream}.>")
}

/// The same for the subject of one of this server's.
fn subject_of_all(subject: &str) -> Option<String> {
    let (verb, rest) = subject.strip_prefix("$JS.API.CONSUMER.")?.split_once('.')?;
    let (stream, consumer) = rest.split_once('.')?;
    consumer.starts_with(NAMES).then(|| subject_of(verb, stream))
}

impl Denied {
    /// `inbox` is what the subjects of answers begin with: one is like another.
    pub(super) fn of(text: &str, inbox: &str) -> Option<Self> {
        let lower = text.to_lowercase();
        let at = lower.find("permissions violation")?;
        let what = if lower[at..].contains("subscription") { SUBSCRIBE } else { PUBLISH };
        let subject = text.split('"').nth(1)?;
        let is_inbox = subject.strip_prefix(inbox).is_some_and(|rest| rest.starts_with('.'));
        let subject = match is_inbox {
            true => format!("{inbox}.>"),
            false => subject_of_all(subject).unwrap_or_else(|| subject.to_owned()),
        };
        Some(Self { what, subject, is_inbox })
    }

    /// Whether what is published or asked for at that subject fails for it.
    pub(super) fn concerns(&self, subject: &str) -> bool {
        self.is_inbox || self.subject == subject
    }

    /// Whether a feed cannot start without it: others that are there already read and publish over the same
    /// connection.
    pub(super) fn is_of_start(&self) -> bool {
        let asked = self
            .subject
            .strip_prefix("$JS.API.")
            .is_some_and(|of| of == "INFO" || of.strip_prefix("STREAM.").is_some_and(|of| !of.starts_with("MSG.")));
        asked || self.is_inbox
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_denied_of_a_start() {
        let of = |subject: &str| {
            let text = format!("Permissions Violation for Publish to \"{subject}\"");
            Denied::of(&text, "_INBOX").unwrap().is_of_start()
        };
        let starts = [
            "$JS.API.INFO",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.INFO.LOGS",
            "$JS.API.STREAM.CREATE.LOGS",
            "_INBOX.a.>",
        ];
        assert!(starts.into_iter().all(of));
        let others =
            ["logs.a", "$JS.API.CONSUMER.CREATE.LOGS", "$JS.API.DIRECT.GET.LOGS", "$JS.API.STREAM.MSG.GET.LOGS"];
        assert!(!others.into_iter().any(of));
    }

    #[test]
    fn words_of_the_client() {
        for (text, cause) in [
            ("authorization violation: nats: authorization violation", ConnectCause::Credentials),
            ("IO error: Connection refused (os error 111)", ConnectCause::Refused),
            ("IO error: invalid peer certificate: UnknownIssuer", ConnectCause::UnknownCa),
            ("IO error: received fatal alert: CertificateRequired", ConnectCause::CertificateRequired),
            (
                "IO error: received fatal alert: BadCertificate",
                ConnectCause::CertificateRejected("BadCertificate".into()),
            ),
            ("timed out", ConnectCause::Silent),
            ("IO error: expected INFO, got nothing", ConnectCause::Greeting),
            ("IO error: received corrupt message of type InvalidContentType", ConnectCause::NoTls),
            (
                "IO error: nats: maximum connections exceeded",
                ConnectCause::Other("maximum connections exceeded".into()),
            ),
        ] {
            assert_eq!(ConnectCause::of(text), cause, "{text}");
        }
        assert!(
            ConnectCause::Refused.may_pass() && !ConnectCause::UnknownCa.may_pass() && !ConnectCause::NoTls.may_pass()
        );
        let denied =
            Denied::of(r#"nats: Permissions Violation for Publish to "$JS.API.STREAM.NAMES""#, "_INBOX").unwrap();
        assert_eq!((denied.what, denied.subject.as_str()), ("publish to", "$JS.API.STREAM.NAMES"));
        // Each consumer has another name: it is one permission all the same.
        for subject in ["CREATE.LOGS.h3cast-abc.logs.a", "CREATE.LOGS.h3cast-def.logs.>"] {
            let denied =
                Denied::of(&format!("Permissions Violation for Publish to \"$JS.API.CONSUMER.{subject}\""), "_INBOX");
            assert_eq!(denied.unwrap().subject, subject_of(CREATE, "LOGS"));
        }
        let denied = |inbox| Denied::of(r#"Permissions Violation for Subscription to "_INBOX_a.b.*""#, inbox).unwrap();
        let own = denied("_INBOX_a");
        assert_eq!((own.what, own.subject.as_str(), own.concerns("any")), ("subscribe to", "_INBOX_a.>", true));
        let other = denied("_INBOX");
        assert_eq!(
            (other.subject.as_str(), other.concerns("any"), other.is_of_start()),
            ("_INBOX_a.b.*", false, false)
        );
        assert_eq!(Denied::of("nats: maximum payload violation", "_INBOX"), None);
    }
}
