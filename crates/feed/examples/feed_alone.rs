//! A feed in one process, without HTTP or a network: a viewer that leaves, resumes from its cursor, and learns
//! exactly what it has missed.
//!
//! ```toml
//! [dependencies]
//! futures-util = "0.3"
//! h3cast-feed = "0.1"
//! tokio = { version = "1", features = ["macros", "rt"] }
//! ```
//!
//! ```sh
//! cargo run -p h3cast-feed --example feed_alone
//! ```

use std::error::Error;

use futures_util::StreamExt;
use h3cast_feed::{Cursor, End, Event, Feed, Lag, Start};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Keeps the latest 10 kB for viewers that are late, and never makes the publisher wait for a slow one.
    let (feed, publisher) = Feed::live("numbers", 10_000, Lag::Skip);

    // A viewer reads what is published from now on, and leaves after three chunks.
    let mut viewer = feed.view(Start::Now, None);
    let mut cursor = String::new();
    for number in 0..3 {
        publisher.publish(format!("number {number}").into()).await?;
        if let Some(Event::Chunk(chunk)) = viewer.next().await {
            println!("{}: {}", chunk.seq, String::from_utf8_lossy(&chunk.bytes));
            cursor = Cursor { epoch: viewer.epoch(), seq: chunk.seq }.to_string();
        }
    }
    drop(viewer);

    // While it is away, more is published than the feed keeps.
    for number in 3..1000 {
        publisher.publish(format!("number {number}").into()).await?;
    }
    publisher.end(End::Clean);

    // It resumes after its cursor, which is text that can be stored anywhere.
    println!("resuming");
    let mut viewer = feed.view(cursor.parse::<Start>()?, None);
    while let Some(event) = viewer.next().await {
        match event {
            Event::Chunk(chunk) => println!("{}: {}", chunk.seq, String::from_utf8_lossy(&chunk.bytes)),
            Event::Gap(gap) => println!("{} chunks are missing", gap.missing),
            Event::Stalled(_) => unreachable!("its publisher does not call `stall`"),
            Event::End(end) => println!("end: {end:?}"),
        }
    }
    Ok(())
}
