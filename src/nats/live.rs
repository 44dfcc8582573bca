//! A feed that is a subject of NATS without JetStream: what comes while the server is there.

use tracing::warn;

use super::{Address, connection::Link, keeper::AGAIN};
use crate::{
    feed::{Feed, Publisher},
    source::{Feeding, Options},
};
use futures_util::StreamExt;
use tokio::time::sleep;

pub(super) fn start(name: &str, address: &Address, connection: Link, options: &Options) -> (Feed, Feeding) {
    let (feed, publisher) = Feed::live(name, options.history, options.lag);
    (feed, Box::pin(follow(address.subject.clone(), connection, publisher)))
}

/// Publishes what comes, as long as it is polled.
async fn follow(subject: String, connection: Link, publisher: Publisher) {
    loop {
        match connection.client.subscribe(subject.clone()).await {
            Ok(mut messages) => {
                let mut lost = Box::pin(connection.lost());
                loop {
                    let message = tokio::select! {
                        biased;
                        message = messages.next() => message,
                        () = &mut lost => {
                            // What comes meanwhile is lost, and viewers are told that nothing comes. The
                            // client subscribes again by itself.
                            publisher.stall(true);
                            connection.connected().await;
                            publisher.stall(false);
                            lost = Box::pin(connection.lost());
                            continue;
                        }
                    };
                    let Some(message) = message else { break };
                    if publisher.publish(super::alone(&message.payload)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => warn!(subject, "cannot subscribe to NATS: {error}"),
        }
        sleep(AGAIN).await;
    }
}
