//! Feeds on NATS: stored in JetStream for any number of servers, or live as messages arrive.
//!
//! A feed on JetStream has the numbers of its stream, less one, so that the first is 0; its epoch is the time
//! at which the stream was created, in milliseconds. Every server that has the feed gives the same chunks the
//! same cursors, so clients that lose one server continue at another.

mod address;
mod allowed;
mod answered;
mod cause;
mod client;
mod connection;
mod counts;
mod ensure;
mod error;
mod family;
mod fullness;
mod greeting;
mod keeper;
mod late;
mod leader;
mod live;
mod login;
mod names;
mod overview;
mod presence;
mod room;
mod servers;
mod settings;
mod several;
mod stored;
mod waiting;

use crate::{
    feed::{FeedError, Lag, Pattern},
    source::{Options, Started},
};
pub use address::{Address, BadAddress};
pub use cause::ConnectCause;
pub use connection::{Connections, NatsOptions};
pub use error::{NatsError, Unfit};
#[cfg(feature = "cli")]
pub(crate) use family::MAX_FEEDS;
use keeper::JetStream;
use late::Which;
pub use login::Access;
#[cfg(feature = "cli")]
pub(crate) use login::is_inbox;
use names::Names;
pub use settings::{BadEnsure, Ensure};
use waiting::Waiting;

/// A message's bytes without the buffer that they were read into, which other messages share: what is kept
/// must not cost more than its size.
fn alone(payload: &bytes::Bytes) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(payload)
}

/// Starts the feed `name`, or all those whose subjects the address matches.
///
/// # Errors
///
/// When NATS cannot be reached, or does not store the subject as asked for.
pub(crate) async fn start(
    name: &str,
    address: &Address,
    connections: &Connections,
    options: &Options,
) -> Result<Started, NatsError> {
    if address.live && options.lag == Lag::Block {
        return Err(NatsError::Block { subject: address.subject.clone() });
    }
    let mut waiting = Waiting::until(connections.wait_until());
    loop {
        match try_start(name, address, connections, options).await {
            Err(error) if waiting.goes_on(&error).await => {}
            done => return done,
        }
    }
}

async fn try_start(
    name: &str,
    address: &Address,
    connections: &Connections,
    options: &Options,
) -> Result<Started, NatsError> {
    if address.live {
        let connection = connections.apart(address).await?;
        connections.overview.note(&connection, address, name, None);
        let (feed, feeding) = live::start(name, address, connection, options);
        return Ok(Started::feed(feed, Some(feeding)));
    }
    let connection = connections.to(address).await?;
    let link = connection.clone();
    link.unless_denied(async {
        let found =
            ensure::stream(&connection, &address.subject, address.stream.as_deref(), connections.ensure(), false);
        let stream = found.await?;
        if address.is_wildcard() {
            if address.stream.is_none() {
                several::is_one(&connection, &address.subject).await?;
            }
            connections.overview.note(&connection, address, name, Some(&stream.name));
            let watched = (connection.clone(), stream.name.clone());
            let (family, feeding) = family::start(name, address.subject.clone(), connection, stream, options);
            let feeding = match address.stream {
                None => several::watched(watched, address.subject.clone(), feeding),
                Some(_) => feeding,
            };
            return Ok(Started { feed: None, family: Some(family), feeding: Some(feeding) });
        }
        let keeper = JetStream::new(connection.clone(), stream.clone(), address.subject.clone(), false);
        let (feed, feeding) = keeper.feed(name, options.history).await?;
        connections.overview.note(&connection, address, name, Some(&stream.name));
        Ok(Started::feed(feed, Some(feeding)))
    })
    .await
}

/// Starts a feed that clients write, stored by `engine` at the subject `PREFIX.NAME`; or all whose names a pattern
/// matches.
///
/// # Errors
///
/// As for [`start`].
pub(crate) async fn start_writable(
    name: &str,
    engine: &Address,
    connections: &Connections,
    options: &Options,
) -> Result<Started, NatsError> {
    let mut waiting = Waiting::until(connections.wait_until());
    loop {
        match try_start_writable(name, engine, connections, options).await {
            Err(error) if waiting.goes_on(&error).await => {}
            done => return done,
        }
    }
}

async fn try_start_writable(
    name: &str,
    engine: &Address,
    connections: &Connections,
    options: &Options,
) -> Result<Started, NatsError> {
    let connection = connections.to(engine).await?;
    let subject = format!("{}.{name}", engine.subject);
    let link = connection.clone();
    link.unless_denied(async {
        let stream = ensure::stream(&connection, &subject, None, connections.ensure(), true).await?;
        if let Ok(pattern) = name.parse::<Pattern>() {
            several::is_one(&connection, &subject).await?;
            connections.overview.note(&connection, engine, name, Some(&stream.name));
            let watched = (connection.clone(), stream.name.clone());
            let (family, feeding) = family::start_writable(&pattern, subject.clone(), connection, stream, options);
            let feeding = several::watched(watched, subject, feeding);
            return Ok(Started { feed: None, family: Some(family), feeding: Some(feeding) });
        }
        let keeper = JetStream::new(connection.clone(), stream.clone(), subject, true);
        let (feed, feeding) = keeper.feed(name, options.history).await?;
        connections.overview.note(&connection, engine, name, Some(&stream.name));
        Ok(Started::feed(feed, Some(feeding)))
    })
    .await
}

/// The feed `name`, or those of a pattern, which cannot be started now, for `why`: they are there once they can be, and
/// their clients get 503 until then.
pub(crate) fn start_late(name: &str, address: &Address, why: &NatsError, options: &Options) -> Started {
    let which = match address.is_wildcard() && !address.live {
        true => Which::Many(Names::read(name, address.subject.clone())),
        false => Which::One(name.to_owned()),
    };
    options.nats.expect();
    let (name, address, options) = (name.to_owned(), address.clone(), options.clone());
    late::start(which, false, FeedError::of(why).0, move || {
        let (name, address, options) = (name.clone(), address.clone(), options.clone());
        Box::pin(async move { try_start(&name, &address, &options.nats, &options).await })
    })
}

/// The same for feeds that clients write.
pub(crate) fn start_writable_late(name: &str, engine: &Address, why: &NatsError, options: &Options) -> Started {
    let which = match name.parse::<Pattern>() {
        Ok(pattern) => Which::Many(Names::written(&pattern, format!("{}.{name}", engine.subject))),
        Err(_) => Which::One(name.to_owned()),
    };
    options.nats.expect();
    let (name, engine, options) = (name.to_owned(), engine.clone(), options.clone());
    late::start(which, true, FeedError::of(why).0, move || {
        let (name, engine, options) = (name.clone(), engine.clone(), options.clone());
        Box::pin(async move { try_start_writable(&name, &engine, &options.nats, &options).await })
    })
}
