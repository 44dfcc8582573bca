//! Reads the first messages of a subject with an ordered consumer of async-nats, and prints how many it read a second.
//!
//! `consumer PORT STREAM SUBJECT COUNT`

use std::{error::Error, time::Instant};

use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use futures_util::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, stream, subject, count] = &arguments[..] else {
        return Err("usage: consumer PORT STREAM SUBJECT COUNT".into());
    };
    let count: u32 = count.parse()?;
    let jetstream = jetstream::new(async_nats::connect(format!("127.0.0.1:{port}")).await?);
    let began = Instant::now();
    let stream = jetstream.get_stream_no_info(stream).await?;
    let config = OrderedConfig { filter_subject: subject.clone(), ..Default::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    for _ in 0..count {
        messages.next().await.ok_or("the stream has ended")??;
    }
    println!("{:.0}", f64::from(count) / began.elapsed().as_secs_f64());
    Ok(())
}
