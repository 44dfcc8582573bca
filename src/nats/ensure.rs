//! The JetStream stream of a subject: found, and made or looked at when that is wanted. It is never
//! changed.

use async_nats::jetstream::{
    ErrorCode,
    stream::{Config, Info, RetentionPolicy},
};

use sha2::{Digest, Sha256};

use super::{
    answered::{answer, is_no_stream, plain, said},
    connection::Link,
    error::{NatsError, Unfit},
    settings::Ensure,
    several::streams,
};

/// A stream as far as a feed must know it.
#[derive(Debug, Clone)]
pub(super) struct StreamInfo {
    pub(super) name: String,
    /// All that it keeps has this subject, so that its numbers follow each other.
    pub(super) only: Option<String>,
}

impl StreamInfo {
    pub(super) fn of(config: &Config) -> Self {
        let whole = config.mirror.is_none() && config.sources.as_ref().is_none_or(Vec::is_empty);
        let only = match config.subjects.as_slice() {
            [subject] if whole && !subject.contains(['*', '>']) => Some(subject.clone()),
            _ => None,
        };
        Self { name: config.name.clone(), only }
    }
}

/// Whether messages of that subject may be in a stream.
fn stores(config: &Config, subject: &str) -> bool {
    let mirrored = config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty());
    mirrored || config.subjects.iter().any(|kept| overlaps(kept, subject))
}

/// Why a stream cannot have the feed of a subject.
fn unfit(config: &Config, subject: &str, writable: bool) -> Option<Unfit> {
    if config.retention != RetentionPolicy::Limits {
        Some(Unfit::Retention)
    } else if !stores(config, subject) {
        Some(Unfit::Subjects { subject: subject.to_owned(), stored: config.subjects.clone() })
    } else if writable && config.no_ack {
        Some(Unfit::NoAck)
    } else {
        None
    }
}

/// Whether two subjects, with wildcards or without, have messages in common.
fn overlaps(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

/// The names that a stream of these subjects may have, if it is made here: several subjects can have the same first
/// one.
fn names(subject: &str) -> [String; 2] {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = subject.chars().map(plain).collect();
    let hash: String = Sha256::digest(subject).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let other = format!("{name}-{hash}");
    [name, other]
}

/// Whether a server has what came with that version.
fn is_at_least(version: &str, (major, minor): (u64, u64)) -> bool {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u64>().unwrap_or_default());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (major, minor)
}

/// The oldest server that is tested: what feeds need of JetStream, it has.
const OLDEST: (&str, (u64, u64)) = ("2.10", (2, 10));

/// Refuses a server that is older. One that does not say what it is gets the benefit of the doubt.
fn is_new_enough(version: String) -> Result<(), NatsError> {
    let (needs, oldest) = OLDEST;
    match version.is_empty() || is_at_least(&version, oldest) {
        true => Ok(()),
        false => Err(NatsError::TooOld { setting: "a feed on JetStream", needs, version }),
    }
}

/// Finds the stream that stores `subject`, or creates it.
pub(super) async fn stream(
    connection: &Link,
    subject: &str,
    name: Option<&str>,
    ensure: Option<&Ensure>,
    writable: bool,
) -> Result<StreamInfo, NatsError> {
    let now = connection.now();
    let jetstream = &now.jetstream;
    is_new_enough(now.client.server_info().version)?;
    // A stream that exists, checked against what is asked for.
    let found = |config: &Config| {
        let stream = config.name.clone();
        if let Some(unfit) = unfit(config, subject, writable) {
            return Err(NatsError::Unfit { stream, unfit });
        }
        let differences = ensure.map(|ensure| ensure.differences(subject, config)).unwrap_or_default();
        if !differences.is_empty() {
            return Err(NatsError::Differs { stream, differences });
        }
        Ok(StreamInfo::of(config))
    };
    let named = match name {
        Some(name) => Some(name.to_owned()),
        None => streams(connection, subject).await?.into_iter().next(),
    };
    if let Some(named) = named {
        match info(connection, &named).await {
            Ok(info) => return found(&info.config),
            // Found by its subject it is there: not every server knows yet of a stream that was just created.
            Err(error) if name.is_none() || !is_missing(&error) => return Err(error),
            Err(_) => {}
        }
    }
    let Some(ensure) = ensure else {
        // A server without JetStream is another error: no stream can be created there.
        jetstream.query_account().await.map_err(NatsError::jetstream)?;
        return Err(NatsError::NoStream { subject: subject.to_owned() });
    };
    let version = now.client.server_info().version;
    let can_be_atomic = is_at_least(&version, (2, 12));
    if ensure.atomic == Some(true) && !can_be_atomic {
        return Err(NatsError::TooOld { setting: "allow-atomic=on", needs: "2.12", version });
    }
    let stored = ensure.widened(subject);
    let all = match name {
        Some(name) => vec![name.to_owned()],
        None => names(stored).into(),
    };
    let (given, mut names) = (name, all.into_iter().peekable());
    while let Some(name) = names.next() {
        let error = match jetstream.create_stream(ensure.config(name.clone(), stored, can_be_atomic)).await {
            // A server that is older than the one of this connection leaves out what it does not know.
            Ok(made) => return found(&made.cached_info().config),
            Err(error) => error,
        };
        match info(connection, &name).await {
            // That of another subject.
            Ok(info) if names.peek().is_some() && !stores(&info.config, subject) => {}
            // Another server may have created it first.
            Ok(info) => return found(&info.config),
            Err(_) => {
                let code = answer(&error).map(|answer| answer.error_code());
                let stored = stored.to_owned();
                let is_forestalled = match code {
                    Some(ErrorCode::STREAM_NAME_EXIST) => true,
                    Some(ErrorCode::STREAM_SUBJECT_OVERLAP) => {
                        let (of_feed, of_all) =
                            (streams(connection, subject).await?, streams(connection, &stored).await?);
                        may_be_new(given, &of_feed, &of_all)
                    }
                    _ => false,
                };
                return Err(match is_forestalled {
                    true => NatsError::Forestalled { stream: name, subject: stored, source: plain(error) },
                    false if code == Some(ErrorCode::CLUSTER_NO_PEERS) => {
                        let replicas = ensure.replicas.unwrap_or(1);
                        let source = answer(&error).map(|answer| said(&answer)).unwrap_or_default().into();
                        NatsError::Peers { stream: name, subject: stored, replicas, source }
                    }
                    false => NatsError::Create { stream: name, subject: stored, source: plain(error) },
                });
            }
        }
    }
    Err(NatsError::NoStream { subject: subject.to_owned() })
}

/// Whether streams that have some of the subjects of one that cannot be created for that reason may be another server's
/// of just now, which are to be looked at again: they have the feed's subject by now, or are not known here yet.
fn may_be_new(given: Option<&str>, of_feed: &[String], of_all: &[String]) -> bool {
    match given {
        Some(name) if !of_feed.is_empty() => of_feed.iter().any(|stream| stream == name),
        _ => !of_feed.is_empty() || of_all.is_empty(),
    }
}

async fn info(connection: &Link, name: &str) -> Result<Info, NatsError> {
    match connection.now().jetstream.get_stream(name).await {
        Ok(stream) => Ok(stream.cached_info().clone()),
        Err(error) => Err(NatsError::Stream { stream: name.to_owned(), source: plain(error) }),
    }
}

/// Whether a stream cannot be read since there is none of that name.
fn is_missing(error: &NatsError) -> bool {
    let NatsError::Stream { source, .. } = error else { return false };
    is_no_stream(source.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_in_common() {
        for (one, other) in [("a.b", "a.b"), ("a.*", "a.b"), ("a.>", "a.b.c"), ("a.*", "a.>"), ("*.b", "a.*")] {
            assert!(overlaps(one, other) && overlaps(other, one), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("a.b", "a"), ("a.>", "a"), ("a.*", "a.b.c")] {
            assert!(!overlaps(one, other) && !overlaps(other, one), "{one} {other}");
        }
    }

    #[test]
    fn names_that_are_folded_alike_differ() {
        let ([one, one_more], [other, other_more]) = (names("h3cast.a.b"), names("h3cast.a_b"));
        assert_eq!((one.as_str(), other.as_str()), ("h3cast_a_b", "h3cast_a_b"));
        assert_ne!(one_more, other_more);
        assert!(is_at_least("2.12.0", (2, 12)) && is_at_least("2.15.1-beta", (2, 12)) && is_at_least("3.0.0", (2, 12)));
        assert!(!is_at_least("2.11.11", (2, 12)) && !is_at_least("", (2, 12)));
    }

    #[test]
    fn a_stream_in_the_way_may_be_of_just_now() {
        let streams = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (none, one, other) = (streams(&[]), streams(&["ONE"]), streams(&["OTHER"]));
        // It has the subject, or is not known here yet.
        assert!(
            may_be_new(None, &one, &one) && may_be_new(None, &none, &none) && may_be_new(Some("ONE"), &none, &none)
        );
        assert!(may_be_new(Some("ONE"), &one, &one));
        // It has other subjects of the stream that was to be created, or another name than the one asked for.
        assert!(!may_be_new(None, &none, &other) && !may_be_new(Some("ONE"), &other, &other));
    }
}
