//! Chunks and cursors of feeds. All of it is the crate [`h3cast_feed`].

pub use h3cast_feed::{BadCursor, Chunk, Cursor, EndCursor, Epoch};
