//! Between h3 and QUIC.
//!
//! | file | its job |
//! |---|---|
//! | `first` | looks at each stream that the peer opens, before h3 does: whose is it? |
//! | `stream` | filters what h3 reads, writes whole frames, and hands the QUIC stream back when h3 lets go of it |
//! | `settings` | sends our SETTINGS in place of h3's |
//! | `backend` | h3's `quic` traits for a connection, which bring these together |
//! | `shared` | what the parts of one connection share, and where the streams of sessions go |
//!
//! `settings` is generic over h3's traits. The others take the streams of [`quic`](crate::quic): h3's traits cannot
//! hand a stream on, wait until the peer stops one, or say that it came as early data, and h3-quinn's streams have
//! no `into_inner` by which to ask quinn for that.

mod backend;
mod first;
mod settings;
mod shared;
mod stream;

pub(crate) use backend::{Backend, OpenStreams};
pub(crate) use shared::{Delivery, Limits, Sessions, Shared};
pub(crate) use stream::{BidiStream, Malformed, RecvStream, RequestParts, SendStream, Stopped};
