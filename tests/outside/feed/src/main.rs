//! `h3cast-feed` alone: a feed published and viewed without HTTP, continued by a cursor.

use futures_util::StreamExt;
use h3cast_feed::{End, Event, Feed, Lag, Start};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (feed, publisher) = Feed::live("news", 10_000, Lag::Skip);
    let first = publisher.publish("first".into()).await?;
    publisher.publish("second".into()).await?;
    publisher.end(End::Clean);
    let mut viewer = feed.view(Start::After(first), None);
    let Some(Event::Chunk(chunk)) = viewer.next().await else { return Err("no chunk".into()) };
    assert_eq!((chunk.seq, &chunk.bytes[..]), (1, &b"second"[..]));
    assert!(matches!(viewer.next().await, Some(Event::End(End::Clean))));
    println!("feed: ok");
    Ok(())
}
