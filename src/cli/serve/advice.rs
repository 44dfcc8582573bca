//! What users of the program can do about errors of the library, which knows nothing of flags.

use crate::{
    feed::FeedError,
    source::{Source, SourceError},
};

/// The error, followed by the flag that helps, if one does. `source` is what could not be started.
pub(super) fn advised(error: SourceError, source: &Source) -> anyhow::Error {
    match of(&error, source) {
        Some(advice) => anyhow::anyhow!("{}: {advice}", FeedError::of(&error)),
        None => error.into(),
    }
}

fn of(error: &SourceError, tried: &Source) -> Option<&'static str> {
    #[cfg(feature = "nats")]
    if let SourceError::Nats { source, .. } = error {
        use crate::{
            nats::{ConnectCause, NatsError},
            source::Kind,
        };
        return match source {
            NatsError::Connect { source: ConnectCause::UnknownCa, .. } => Some("name its CA with --nats-ca"),
            NatsError::Connect { source: ConnectCause::CertificateRequired, .. } => {
                Some("give one with --nats-cert and --nats-key")
            }
            NatsError::Connect { source: ConnectCause::Credentials, .. } => {
                Some("see --nats-creds and --nats-token-file, or write USER:PASSWORD@ before the host")
            }
            NatsError::Connect { source: ConnectCause::NoTls, .. } => Some(
                "write nats:// in place of tls:// (ws:// for wss://), without --nats-ca and --nats-cert, or give the server \
                 a certificate",
            ),
            NatsError::Block { .. } => Some("use --lag skip or --lag disconnect for it, or leave out ?live"),
            // Only to answers at the start.
            NatsError::Denied { what: "subscribe to", .. } => {
                Some("give the prefix to which this user may subscribe with --nats-inbox or ?inbox=PREFIX")
            }
            NatsError::Denied { .. } => Some("docs/operations.md has the permissions that a server needs"),
            NatsError::NoStream { .. } => Some(match &tried.kind {
                Kind::Nats(address) if !address.is_wildcard() => {
                    "create one, or let --ensure-stream create it (or append ?live for a subject that is not stored)"
                }
                _ => "create one, or let --ensure-stream create it",
            }),
            NatsError::Differs { .. } => Some(
                "--ensure-stream changes no stream that exists: use `nats stream edit`, or leave those settings out",
            ),
            _ => None,
        };
    }
    #[cfg(feature = "store")]
    if let SourceError::OtherKind { .. } = error {
        return Some(
            "give it the same kind of source as before, another name, or another folder with --store or H3CAST_STORE",
        );
    }
    let _ = (error, tried);
    None
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "nats")]
    #[test]
    fn the_library_names_no_flag_of_nats() {
        use super::*;
        use crate::nats::NatsError;

        let missing = SourceError::Nats { feed: "a".into(), source: NatsError::NoStream { subject: "b".into() } };
        let library = FeedError::of(&missing).0;
        assert_eq!(library, "cannot start the feed `a`: no JetStream stream stores the subject `b`");
        let read = |text: &str| text.parse::<Source>().unwrap();
        let program = advised(missing, &read("a=nats://h/b")).to_string();
        assert!(program.starts_with(&library) && program.contains("--ensure-stream"), "{program}");
        assert!(program.contains("?live"), "{program}");
        // Of what was not typed as a subject, or is a pattern, it would be no advice.
        for source in ["a=publish", "a=nats://h/b.*"] {
            let missing = SourceError::Nats { feed: "a".into(), source: NatsError::NoStream { subject: "b".into() } };
            let program = advised(missing, &read(source)).to_string();
            assert!(program.ends_with("create one, or let --ensure-stream create it"), "{program}");
        }
        let differences = vec!["replicas is 1, not 3".into()];
        let other =
            SourceError::Nats { feed: "a".into(), source: NatsError::Differs { stream: "s".into(), differences } };
        assert!(!FeedError::of(&other).0.contains("--"), "{other:?}");
        assert!(advised(other, &read("a=publish")).to_string().contains("replicas is 1, not 3: --ensure-stream"));
    }
}
