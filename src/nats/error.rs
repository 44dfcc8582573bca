//! What can go wrong with feeds on NATS.

use std::{error::Error, io, path::PathBuf};

use async_nats::jetstream::{
    ErrorCode,
    context::{PublishError, PublishErrorKind},
};
use tokio::task::JoinError;

use super::{
    answered::{Refused, Unsaid, answer, is_limit, is_no_stream, plain, said},
    cause::{ConnectCause, Denied},
};
use crate::{feed::FeedError, units::many};

/// An error of NATS' client, of whatever type.
pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Why a feed on NATS cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NatsError {
    /// A server's address that NATS' client does not take.
    #[error("not a valid address of a NATS server")]
    Server(#[source] io::Error),
    /// No server could be reached, or none accepted the credentials.
    #[error("cannot connect to NATS at {servers}")]
    Connect {
        /// The servers, as `HOST:PORT`, separated by commas.
        servers: String,
        /// Why not, at the one that was tried last.
        source: ConnectCause,
    },
    /// A file with which NATS is entered cannot be read.
    #[error("cannot read the {what} for NATS in {}", path.display())]
    Credentials {
        /// What is in the file, in words.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The user may not use a subject that feeds need.
    #[error("permission denied: the NATS user may not {what} `{subject}`")]
    Denied {
        /// `publish to` or `subscribe to`.
        what: &'static str,
        /// The subject.
        subject: String,
    },
    /// A server that is too old for a setting.
    #[error("{setting} needs nats-server {needs} or newer; this is {version}")]
    TooOld {
        /// The setting.
        setting: &'static str,
        /// The oldest version that has it.
        needs: &'static str,
        /// The version of the server.
        version: String,
    },
    /// The servers don't answer requests to JetStream, or refuse them.
    #[error("{}", without_jetstream(.0))]
    JetStream(#[source] BoxError),
    /// None of the servers answers requests to JetStream in time.
    #[error("JetStream does not answer (is it enabled, as with nats-server -js?)")]
    Unanswered,
    /// What a stream is like cannot be read.
    #[error("cannot read the state of the stream `{stream}`")]
    Stream {
        /// The stream.
        stream: String,
        /// Why not.
        source: BoxError,
    },
    /// A missing stream cannot be created.
    #[error("cannot create the stream `{stream}` for the subject `{subject}`")]
    Create {
        /// The stream.
        stream: String,
        /// The subject that it would store.
        subject: String,
        /// Why not.
        source: BoxError,
    },
    /// A missing stream cannot be created: too few servers can have it.
    #[error(
        "cannot create the stream `{stream}` for the subject `{subject}`: it needs {} of the cluster with JetStream and \
         enough room", many(*replicas as u64, "server")
    )]
    Peers {
        /// The stream.
        stream: String,
        /// The subject that it would store.
        subject: String,
        /// How many servers were to keep it.
        replicas: usize,
        /// What NATS says of that.
        source: BoxError,
    },
    /// A stream cannot be created, and another server seems to have been faster to create one.
    #[error("another server is creating the stream `{stream}`, or one that stores subjects like `{subject}`")]
    Forestalled {
        /// The stream.
        stream: String,
        /// The subject that it would store.
        subject: String,
        /// Why not.
        source: BoxError,
    },
    /// No stream stores the subject.
    #[error("no JetStream stream stores the subject `{subject}`")]
    NoStream {
        /// The subject.
        subject: String,
    },
    /// A pattern of subjects that several streams store, whose numbers are not one feed's.
    #[error(
        "several JetStream streams store subjects like `{subject}`: {}. Name one of them: nats://…/{}?stream={}",
        streams.join(", "), subject.replace('@', "%40"), streams.first().map_or("", String::as_str)
    )]
    Several {
        /// The pattern.
        subject: String,
        /// The streams.
        streams: Vec<String>,
    },
    /// A stream that cannot have a feed.
    #[error("the stream `{stream}` {unfit}")]
    Unfit {
        /// The stream.
        stream: String,
        /// What is wrong with it.
        unfit: Unfit,
    },
    /// A stream that exists with other settings than those of an [`Ensure`](super::Ensure). It is not changed.
    #[error("the stream `{stream}` has different settings from those requested: {}", differences.join("; "))]
    Differs {
        /// The stream.
        stream: String,
        /// Each setting that differs, in words.
        differences: Vec<String>,
    },
    /// A subject without JetStream cannot wait for slow viewers.
    #[error(
        "the live subject `{subject}` cannot wait for slow viewers: NATS would drop what arrives meanwhile. Skip or \
         disconnect them, or store the subject in a JetStream stream"
    )]
    Block {
        /// The subject.
        subject: String,
    },
    /// A pattern has as many feeds as it may, and each has viewers.
    #[error("{max} feeds of {pattern} have viewers already")]
    Full {
        /// The pattern of their names.
        pattern: String,
        /// How many there may be.
        max: usize,
    },
}

/// Why a stream cannot have a feed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// It keeps messages only until they are consumed.
    #[error("drops messages that others have consumed: its retention must be `limits`")]
    Retention,
    /// It stores other subjects.
    #[error("does not store the subject `{subject}`, but {}", stored.join(", "))]
    Subjects {
        /// The subject of the feed.
        subject: String,
        /// Those that it stores.
        stored: Vec<String>,
    },
    /// It does not confirm what is published to it.
    #[error("does not acknowledge what is published")]
    NoAck,
}

impl NatsError {
    /// Whether the feed can be had as soon as something comes that is not there now: its stream, or its servers.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::NoStream { .. }) || self.may_pass()
    }

    /// Whether it may be over soon without anybody's doing, as in a cluster that starts.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.may_pass(),
            Self::JetStream(source) | Self::Stream { source, .. } | Self::Create { source, .. } => {
                answer(source.as_ref()).is_none_or(|error| match error.error_code() {
                    ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => false,
                    // The peers of a cluster that has started are not known at once, and a stream that was found, or
                    // that another server has just created, not to all of them.
                    ErrorCode::CLUSTER_NO_PEERS | ErrorCode::STREAM_NOT_FOUND => true,
                    _ => error.code() == 503,
                })
            }
            // The peers of a cluster that has started are not known at once.
            Self::Forestalled { .. } | Self::Unanswered | Self::Peers { .. } => true,
            _ => false,
        }
    }

    /// That JetStream does not answer, or what it answers.
    pub(super) fn jetstream(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        match Unsaid::of(error.as_ref()) {
            Some(Unsaid::Answer | Unsaid::Responder) => Self::Unanswered,
            _ => Self::JetStream(plain(error)),
        }
    }
}

/// What is wrong with JetStream, for which there is a cause.
fn without_jetstream(cause: &BoxError) -> &'static str {
    match answer(cause.as_ref()) {
        Some(_) => "JetStream cannot be used",
        None => "JetStream does not answer (is it enabled, as with nats-server -js?)",
    }
}

impl From<Denied> for NatsError {
    fn from(Denied { what, subject, .. }: Denied) -> Self {
        Self::Denied { what, subject }
    }
}

impl From<NatsError> for FeedError {
    fn from(error: NatsError) -> Self {
        Self::of(&error)
    }
}

/// Why publications are given up, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Denied,
    Disconnected,
    Full,
    NoStream,
    Other,
    Silent,
    Stalled,
    TooLarge,
}

impl Refusal {
    pub(super) const ALL: [Self; 8] = [
        Self::Denied,
        Self::Disconnected,
        Self::Full,
        Self::NoStream,
        Self::Other,
        Self::Silent,
        Self::Stalled,
        Self::TooLarge,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Disconnected => "disconnected",
            Self::Full => "full",
            Self::NoStream => "no_stream",
            Self::Other => "other",
            Self::Silent => "silent",
            Self::Stalled => "stalled",
            Self::TooLarge => "too_large",
        }
    }
}

/// Why chunks of a feed cannot be read or published now. It may be over soon.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeepError {
    #[error("the connection to NATS is lost")]
    Disconnected,
    #[error("permission denied: the NATS user may not {what} `{subject}`")]
    Denied { what: &'static str, subject: String },
    #[error("NATS does not answer")]
    Silent,
    #[error("the leader of the stream does not answer")]
    Leaderless,
    #[error("the stream `{0}` no longer exists: create it again, and its feeds start over")]
    Missing(String),
    #[error("no JetStream stream stores its subject")]
    NoStream,
    #[error("{0}")]
    Late(String),
    /// `is_certain` if it is the stream or the account that has none, and not only the server that has answered.
    #[error("JetStream has no room for it: {why}")]
    Full { why: String, is_certain: bool },
    #[error(transparent)]
    Nats(BoxError),
    #[error("the stream was recreated")]
    Recreated,
    #[error("the stream stores other subjects by now")]
    Shared,
    #[error(
        "the stream `{stream}` has lost messages: it ends at {last}, and had {had}. Delete it, so that it is recreated"
    )]
    Forgotten { stream: String, last: u64, had: u64 },
    #[error("the leader of the stream has not caught up yet")]
    Behind,
    #[error("messages were lost in transit")]
    Lost,
    #[error("its consumer is gone")]
    ConsumerGone,
    #[error("its stream is being checked")]
    Unchecked,
    #[error("another request is publishing it")]
    Busy,
    #[error("the task that fills it panicked: {0}")]
    Panicked(String),
    #[error("the task that reads it is gone")]
    Task(#[from] JoinError),
}

impl KeepError {
    /// Why JetStream has not taken a message.
    pub(super) fn publish(error: PublishError) -> Self {
        if let Some(answer) = answer(&error) {
            let is_certain = match answer.error_code() {
                ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => true,
                ErrorCode::STREAM_STORE_FAILED if is_limit(&answer) => true,
                ErrorCode::STORAGE_RESOURCES_EXCEEDED
                | ErrorCode::MEMORY_RESOURCES_EXCEEDED
                | ErrorCode::INSUFFICIENT_RESOURCES => false,
                ErrorCode::STREAM_STORE_FAILED if said(&answer).contains("no space left") => false,
                _ => return Self::nats(error),
            };
            let why = Refused::of(&answer).map_or_else(|| said(&answer), |refused| refused.to_string());
            return Self::Full { why, is_certain };
        }
        match error.kind() {
            PublishErrorKind::StreamNotFound => Self::NoStream,
            PublishErrorKind::TimedOut => Self::Silent,
            _ => Self::nats(error),
        }
    }

    /// What of it is counted.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Disconnected => Refusal::Disconnected,
            Self::Denied { .. } => Refusal::Denied,
            Self::Silent | Self::Leaderless | Self::Behind | Self::Lost => Refusal::Silent,
            Self::NoStream | Self::Missing(_) => Refusal::NoStream,
            Self::Full { .. } => Refusal::Full,
            Self::Unchecked | Self::Forgotten { .. } | Self::Recreated => Refusal::Stalled,
            _ => Refusal::Other,
        }
    }

    /// An error of NATS' client about a stream.
    pub(super) fn of_stream(stream: &str, error: impl Into<BoxError>) -> Self {
        let error = error.into();
        match is_no_stream(error.as_ref()) {
            true => Self::Missing(stream.to_owned()),
            false => Self::nats(error),
        }
    }

    /// An error of NATS' client.
    pub(super) fn nats(error: impl Into<BoxError>) -> Self {
        Self::Nats(plain(error))
    }
}

impl From<KeepError> for FeedError {
    fn from(error: KeepError) -> Self {
        Self::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream;

    use super::*;

    #[test]
    fn what_a_start_waits_for() {
        let of = |code: u64, err_code: u64| {
            let answer = serde_json::json!({ "code": code, "err_code": err_code, "description": "" });
            let answer: jetstream::Error = serde_json::from_value(answer).unwrap();
            NatsError::Stream { stream: "s".into(), source: Box::new(KeepError::nats(answer)) }.may_pass()
        };
        // No such stream (10059), which was there a moment ago; no peers (10005); not ready.
        assert!(of(404, 10059) && of(400, 10005) && of(503, 10008));
        assert!(NatsError::Unanswered.may_pass());
        // Not enabled; something else.
        assert!(!of(503, 10076) && !of(400, 10025));
    }

    #[test]
    fn too_few_servers_are_counted() {
        let of = |replicas| {
            let source = "no suitable peers for placement, peer offline".into();
            FeedError::of(&NatsError::Peers { stream: "s".into(), subject: "a".into(), replicas, source }).0
        };
        let due = "cannot create the stream `s` for the subject `a`: it needs 5 servers of the cluster with JetStream and \
                   enough room: no suitable peers for placement, peer offline";
        assert_eq!(of(5), due);
        assert!(of(1).contains("needs 1 server of"));
    }
}
