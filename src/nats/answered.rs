//! What JetStream answers, or does not, in words that say what to do about it.

use std::{error::Error, fmt};

use async_nats::jetstream::{
    self, ErrorCode,
    context::{
        AccountError, AccountErrorKind, CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
    },
    stream::{ConsumerError, ConsumerErrorKind},
};

use super::{
    connection::ANSWER,
    error::{BoxError, KeepError},
};

/// What a server did not say, which the client's errors repeat at each of their levels, in words of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsaid {
    #[error("no answer within {} s", ANSWER.as_secs())]
    Answer,
    #[error("no NATS server answers these requests")]
    Responder,
    #[error("the NATS server is silent: neither messages nor heartbeats came in time")]
    SignOfLife,
}

impl Unsaid {
    /// Reads it from the client's words: there are a dozen types of its errors that may have it.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        if answer(error).is_some() {
            return None;
        }
        let text = error.to_string();
        let has = |words: &str| text.contains(words);
        // Not a time-out of the system's own, which has a number.
        if has("os error") {
            None
        } else if has("timed out") || has("deadline has elapsed") {
            Some(Self::Answer)
        } else if has("no responders") {
            Some(Self::Responder)
        } else {
            has("missed idle heartbeat").then_some(Self::SignOfLife)
        }
    }
}

/// What JetStream refuses, in words of the library, and in its own.
#[derive(Debug)]
pub(super) struct Refused {
    words: &'static str,
    answer: jetstream::Error,
}

impl Refused {
    /// If there are words for it that say more than its own.
    pub(super) fn of(answer: &jetstream::Error) -> Option<Self> {
        words(answer).map(|words| Self { words, answer: answer.clone() })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (NATS: {})", self.words, said(&self.answer))
    }
}

impl Error for Refused {}

/// What it says without its numbers, which its words make superfluous.
pub(super) fn said(answer: &jetstream::Error) -> String {
    answer.to_string().split(" (code ").next().unwrap_or_default().to_owned()
}

/// That the account requires a limit of each stream, and the largest one that it lets a stream have.
const MAX_BYTES_REQUIRED: ErrorCode = ErrorCode(10113);
const MAX_BYTES_EXCEEDED: ErrorCode = ErrorCode(10122);

/// What an answer means, and what helps.
fn words(answer: &jetstream::Error) -> Option<&'static str> {
    Some(match answer.error_code() {
        ErrorCode::JETSTREAM_NOT_ENABLED => {
            "JetStream is not enabled on the server: start it with -js, or with a `jetstream` block in its configuration"
        }
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            "JetStream is not enabled for the user's account: add `jetstream: enabled` to it"
        }
        ErrorCode::NO_LIMITS => "the user's account has no JetStream limits for that many replicas: give it some",
        ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED => {
            "a single NATS server keeps one replica of a stream: ask for one, or use a cluster"
        }
        ErrorCode::STORAGE_RESOURCES_EXCEEDED => {
            "the server, or the user's account, has too little JetStream storage left: ask for a stream with a smaller \
             max_bytes, delete others, or raise the server's max_file_store or the account's max_file"
        }
        ErrorCode::MEMORY_RESOURCES_EXCEEDED => {
            "the server, or the user's account, has too little JetStream memory left: ask for a stream with a smaller \
             max_bytes, delete others, or raise the server's max_memory_store or the account's max_mem"
        }
        ErrorCode::INSUFFICIENT_RESOURCES => {
            "the server's JetStream storage is used up: delete some of what is stored, or raise its max_file_store and \
             max_memory_store"
        }
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => {
            "the JetStream storage of the user's account is used up, or too small: delete some of what is stored, or raise \
             the account's limits"
        }
        MAX_BYTES_REQUIRED => "the user's account requires that each stream has a limit: ask for one with max_bytes",
        MAX_BYTES_EXCEEDED => {
            "the user's account allows no stream that large: ask for a smaller max_bytes, or raise the account's limit"
        }
        ErrorCode::MAXIMUM_STREAMS_LIMIT => {
            "the user's account has as many streams as it may: delete one, or raise its max_streams"
        }
        ErrorCode::MAXIMUM_CONSUMERS_LIMIT => {
            "the stream, or the user's account, has as many consumers as it may: delete some, or raise its max_consumers"
        }
        ErrorCode::STREAM_NOT_FOUND => "the stream does not exist: create it",
        ErrorCode::STREAM_SUBJECT_OVERLAP => {
            "another stream stores some of these subjects: read that one, or choose other subjects"
        }
        ErrorCode::STREAM_SEALED => "the stream is sealed: it takes no more messages",
        ErrorCode::STREAM_STORE_FAILED if is_limit(answer) => {
            "the stream has reached its limit and takes no more messages (discard=new): raise its max_bytes or max_msgs, \
             or remove some of what is stored"
        }
        _ => return None,
    })
}

/// Whether a message is not stored since its stream has reached one of its limits, which the text names.
pub(super) fn is_limit(answer: &jetstream::Error) -> bool {
    said(answer).starts_with("maximum ")
}

/// An error of NATS' client in plain words, where its own say only that something was not said, or what JetStream
/// refuses.
pub(super) fn plain(error: impl Into<BoxError>) -> BoxError {
    let error = error.into();
    if let Some(refused) = answer(error.as_ref()).as_ref().and_then(Refused::of) {
        return refused.into();
    }
    Unsaid::of(error.as_ref()).map_or(error, Into::into)
}

/// What JetStream has answered, of whatever error of the client it is a part.
pub(super) fn answer(error: &(dyn Error + 'static)) -> Option<jetstream::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(KeepError::Nats(error)) = error.downcast_ref() {
            return answer(error.as_ref());
        }
        if let Some(Refused { answer, .. }) = error.downcast_ref() {
            return Some(answer.clone());
        }
        if let Some(error) = error.downcast_ref::<jetstream::Error>() {
            return Some(error.clone());
        }
        let created = error.downcast_ref().map(CreateStreamError::kind);
        let found = error.downcast_ref().map(GetStreamError::kind);
        let consumer = error.downcast_ref().map(ConsumerError::kind);
        let account = error.downcast_ref().map(AccountError::kind);
        if let Some(CreateStreamErrorKind::JetStream(answer)) = created {
            return Some(answer);
        }
        if let Some(GetStreamErrorKind::JetStream(answer)) = found {
            return Some(answer);
        }
        if let Some(ConsumerErrorKind::JetStream(answer)) = consumer {
            return Some(answer);
        }
        if let Some(AccountErrorKind::JetStream(answer)) = account {
            return Some(answer);
        }
        next = error.source();
    }
    None
}

/// Whether it says that the stream does not exist.
pub(super) fn is_no_stream(error: &(dyn Error + 'static)) -> bool {
    answer(error).is_some_and(|answer| answer.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{feed::FeedError, nats::NatsError};

    fn answered(code: u64, err_code: u64, description: &str) -> jetstream::Error {
        let answer = serde_json::json!({ "code": code, "err_code": err_code, "description": description });
        serde_json::from_value(answer).unwrap()
    }

    #[test]
    fn what_was_not_said_is_told_once() {
        let timed_out = || {
            let cause = io::Error::new(io::ErrorKind::TimedOut, "deadline has elapsed");
            let cause = async_nats::RequestError::with_source(async_nats::RequestErrorKind::TimedOut, cause);
            GetStreamError::with_source(GetStreamErrorKind::Request, cause)
        };
        let of = |error: NatsError| FeedError::of(&error).0;
        let unanswered = "JetStream does not answer (is it enabled, as with nats-server -js?)";
        assert_eq!(of(NatsError::jetstream(timed_out())), unanswered);
        let stream = NatsError::Stream { stream: "s".into(), source: plain(timed_out()) };
        assert!(stream.may_pass());
        assert_eq!(of(stream), "cannot read the state of the stream `s`: no answer within 3 s");
        let silent = async_nats::jetstream::consumer::pull::MessagesError::new(
            async_nats::jetstream::consumer::pull::MessagesErrorKind::MissingHeartbeat,
        );
        let words = "the NATS server is silent: neither messages nor heartbeats came in time";
        assert_eq!(KeepError::nats(silent).to_string(), words);
        assert!(KeepError::nats(answered(503, 10008, "it timed out")).to_string().contains("10008"));
    }

    #[test]
    fn what_is_refused_is_told_with_what_helps() {
        for (code, said, what) in [
            (10074, "replicas > 1 not supported in non-clustered mode", "a single NATS server keeps one replica"),
            (10047, "insufficient storage resources available", "too little JetStream storage left"),
            (10028, "insufficient memory resources available", "too little JetStream memory left"),
            (10023, "insufficient resources", "JetStream storage is used up"),
            (10002, "resource limits exceeded for account", "of the user's account is used up"),
            (10039, "JetStream not enabled for account", "add `jetstream: enabled`"),
            (10076, "JetStream not enabled", "start it with -js"),
            (10027, "maximum number of streams reached", "delete one, or raise its max_streams"),
            (10026, "maximum consumers limit reached", "delete some, or raise its max_consumers"),
            (10077, "maximum messages exceeded", "raise its max_bytes or max_msgs"),
        ] {
            let errors: [BoxError; 4] = [
                CreateStreamError::new(CreateStreamErrorKind::JetStream(answered(500, code, said))).into(),
                ConsumerError::new(ConsumerErrorKind::JetStream(answered(500, code, said))).into(),
                AccountError::new(AccountErrorKind::JetStream(answered(500, code, said))).into(),
                answered(500, code, said).into(),
            ];
            for error in errors {
                // However often it is looked at.
                let error = plain(plain(error));
                let told = error.to_string();
                assert!(told.contains(what) && told.ends_with(&format!(" (NATS: {said})")), "{told}");
                assert_eq!(answer(error.as_ref()).unwrap().error_code(), ErrorCode(code));
            }
        }
        let other = plain(answered(500, 10077, "something else")).to_string();
        assert!(other.starts_with("something else") && other.contains("10077"), "{other}");
        let disabled = FeedError::of(&NatsError::jetstream(answered(503, 10039, "not enabled"))).0;
        assert!(disabled.starts_with("JetStream cannot be used: JetStream is not enabled for"), "{disabled}");
    }
}
