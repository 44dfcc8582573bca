//! Between h3 and QUIC.
//!
//! | file | its job |
//! |---|---|
//! | `first` | looks at each stream that the peer opens, before h3 does: whose is it? |
//! | `head` | reads a stream's first bytes |
//! | `recv` | filters what h3 reads |
//! | `send` | writes whole frames for h3, and hands the QUIC stream on when h3 lets go of it |
//! | `request` | both halves of a request's stream, and what its driver needs besides |
//! | `settings` | sends our SETTINGS in place of h3's |
//! | `backend` | h3's `quic` traits for a connection, which bring these together |
//! | `shared` | what the parts of one connection share, and where the streams of sessions go |
//!
//! `head`, `recv` and `settings` are generic over the streams of h3's `quic` traits. The others take those of
//! [`quic`](crate::quic), for what h3's traits do not have: `send` writes without copying and hands a stream on,
//! `request` waits until the peer stops a stream and asks whether it came as early data, `shared` sends the
//! streams of sessions away from h3 and raises the limits of a connection, and `first` and `backend` bring all of
//! that together. h3-quinn's own streams could not stand in: they have no `into_inner` by which to ask quinn.

mod backend;
mod first;
mod head;
mod recv;
mod request;
mod send;
mod settings;
mod shared;

pub(crate) use backend::{Backend, OpenStreams};
pub(crate) use recv::{Malformed, RecvStream};
pub(crate) use request::{BidiStream, RequestParts, Stopped};
pub(crate) use send::SendStream;
pub(crate) use shared::{Begun, Delivery, Sessions, Shared};
