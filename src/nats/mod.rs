//! Feeds on NATS: stored in JetStream for any number of servers, or live as messages arrive.
//!
//! A feed on JetStream has the numbers of its stream, less one, so that the first is 0; its epoch is the time
//! at which the stream was created, in milliseconds. Every server that has the feed gives the same chunks the
//! same cursors, so clients that lose one server continue at another.

mod address;
mod cause;
mod connection;
mod counts;
mod ensure;
mod error;
mod family;
mod keeper;
mod leader;
mod live;
mod login;
mod presence;
mod servers;
mod waiting;

use crate::{
    feed::{Lag, Pattern},
    source::{Options, Started},
};
pub use address::{Address, BadAddress};
pub use cause::ConnectCause;
pub use connection::{Connections, NatsOptions};
pub use ensure::{BadEnsure, Ensure};
pub use error::{NatsError, Unfit};
#[cfg(feature = "cli")]
pub(crate) use family::MAX_FEEDS;
use keeper::JetStream;
pub use login::Access;
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
    let mut waiting = Waiting::new(connections.wait());
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
    let connection = connections.to(address).await?;
    if address.live {
        let (feed, feeding) = live::start(name, address, connection, options);
        return Ok(Started::feed(feed, Some(feeding)));
    }
    let link = connection.clone();
    link.unless_denied(async {
        let found =
            ensure::stream(&connection, &address.subject, address.stream.as_deref(), connections.ensure(), false);
        let stream = found.await?;
        if address.is_wildcard() {
            if address.stream.is_none() {
                ensure::is_one(&connection, &address.subject).await?;
            }
            let (family, feeding) = family::start(name, address.subject.clone(), connection, stream, options);
            return Ok(Started { feed: None, family: Some(family), feeding: Some(feeding) });
        }
        let keeper = JetStream::new(connection, stream, address.subject.clone(), false);
        let (feed, feeding) = keeper.feed(name, options.history).await?;
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
    let mut waiting = Waiting::new(connections.wait());
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
            ensure::is_one(&connection, &subject).await?;
            let (family, feeding) = family::start_writable(&pattern, subject, connection, stream, options);
            return Ok(Started { feed: None, family: Some(family), feeding: Some(feeding) });
        }
        let keeper = JetStream::new(connection, stream, subject, true);
        let (feed, feeding) = keeper.feed(name, options.history).await?;
        Ok(Started::feed(feed, Some(feeding)))
    })
    .await
}
