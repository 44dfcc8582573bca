//! Whether the subjects of a pattern are those of one stream.

use std::time::Duration;

use async_nats::jetstream::response::Response;
use tokio::time::sleep;
use tracing::warn;

use super::{NatsError, connection::Link, presence};
use crate::source::Feeding;

/// How often that is looked at again.
const WATCH: Duration = Duration::from_secs(10);

/// That no more than one stream stores subjects that a pattern matches: which of them has a feed cannot be told from
/// its name.
pub(super) async fn is_one(connection: &Link, subject: &str) -> Result<(), NatsError> {
    let streams = streams(connection, subject).await?;
    match streams.len() {
        0 | 1 => Ok(()),
        _ => Err(NatsError::Several { subject: subject.to_owned(), streams }),
    }
}

/// What feeds the feeds of a pattern, which are those of one stream, and sees every now and then whether others store
/// such subjects by now.
pub(super) fn watched((connection, stream): (Link, String), subject: String, feeding: Feeding) -> Feeding {
    let watch = async move {
        let mut told = None;
        loop {
            sleep(WATCH).await;
            connection.connected().await;
            match is_one(&connection, &subject).await {
                Err(error @ NatsError::Several { .. }) if told.is_none() => {
                    told = Some(connection.counts.ambiguous());
                    warn!(subject, "of this pattern, only the stream `{stream}` is read: {error}");
                }
                Ok(()) => told = None,
                // Nothing is known now, or it was told.
                Err(_) => {}
            }
        }
    };
    Box::pin(async move {
        tokio::select! { () = feeding => {}, () = watch => {} }
    })
}

/// The streams that store subjects which that one matches, without the one in which servers tell of themselves: it has
/// no feeds.
pub(super) async fn streams(connection: &Link, subject: &str) -> Result<Vec<String>, NatsError> {
    #[derive(serde::Deserialize)]
    struct Names {
        #[serde(default)]
        streams: Option<Vec<String>>,
    }
    let asked = serde_json::json!({ "subject": subject });
    let answer = connection.now().jetstream.request("STREAM.NAMES", &asked).await;
    match answer.map_err(NatsError::jetstream)? {
        Response::Ok(Names { streams }) => {
            Ok(streams.unwrap_or_default().into_iter().filter(|stream| stream != presence::STREAM).collect())
        }
        Response::Err { error } => Err(NatsError::jetstream(error)),
    }
}
