//! The bucket in which servers tell of themselves.

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy, StorageType, Stream},
};
use tracing::debug;

use super::{KEPT, STREAM, SUBJECTS};
use crate::nats::error::BoxError;

/// What the bucket may take: some 30 servers of which all have 10,000 feeds viewed, or thousands with fewer. Its server
/// sets all of it aside.
const BYTES: i64 = 16 << 20;

/// The bucket, made if it may be.
pub(super) async fn bucket(jetstream: &jetstream::Context, replicas: Option<usize>) -> Result<Stream<()>, BoxError> {
    let found = jetstream.get_stream(STREAM).await;
    if let (Err(error), Some(replicas)) = (&found, replicas) {
        debug!("the bucket of those who view feeds on NATS is created, since it cannot be opened: {error}");
        let config = Config {
            name: STREAM.into(),
            subjects: vec![format!("{SUBJECTS}.>")],
            max_messages_per_subject: 1,
            max_age: KEPT,
            duplicate_window: KEPT,
            num_replicas: replicas,
            storage: StorageType::Memory,
            discard: DiscardPolicy::New,
            deny_delete: true,
            allow_rollup: true,
            allow_direct: true,
            max_messages: -1,
            max_bytes: BYTES,
            ..Config::default()
        };
        jetstream.create_stream(config).await?;
    } else {
        found?;
    }
    Ok(jetstream.get_stream_no_info(STREAM).await?)
}
