//! The QUIC engine: the only module that names quinn.
//!
//! Everything above it speaks h3's `quic` traits and the few types here, whose error codes are plain `u64`,
//! so that the engine can be exchanged or measured. They are newtypes that delegate, and cost nothing.
//!
//! | file | what it is |
//! |---|---|
//! | `connection`, `stream` | a connection, its streams and datagrams, and their errors |
//! | `server`, `client` | the two ends: a socket that accepts connections, sockets that open them |
//! | `config` | what one connection may cost, and how it behaves |
//! | `sending` | what a connection keeps for a peer that takes nothing, and for how long |
//! | `control` | streams that h3 itself needs, opened by h3-quinn |
//! | `traits` | errors as h3 takes them, and h3's `RecvStream` |
//! | `qlog` | what the engine tells of each connection (feature `qlog`) |
//! | `runtime` | tokio as quinn sees it |
//! | `reset`, `routing` | stateless resets, and connection ids that name their server and their process |
//! | `relay` | a socket that one process reads for several |

pub(crate) mod client;
mod config;
mod connection;
pub(crate) mod control;
#[cfg(feature = "qlog")]
pub(crate) mod qlog;
#[cfg_attr(not(unix), path = "no_relay.rs")]
pub(crate) mod relay;
mod reset;
mod routing;
mod runtime;
mod sending;
pub(crate) mod server;
mod stream;
mod traits;

#[doc(hidden)]
pub use config::transport;
pub(crate) use config::{
    FEW_BI_STREAMS, FEW_UNI_STREAMS, KEEP_ALIVE, OWN_STREAMS, SOME_BI_STREAMS, keep_alive, receive_window,
    server_transport, whole_send_window,
};
pub(crate) use connection::{Acknowledged, Frames, INITIAL_RTT, Loss, Path, linger};
pub use connection::{Connection, SendDatagramError};
#[cfg(feature = "qlog")]
pub use qlog::QlogConnection;
/// The engine itself, for what takes or gives its types.
#[doc(no_inline)]
pub use quinn as engine;
/// Why a connection could not be begun.
#[doc(no_inline)]
pub use quinn::ConnectError;
/// How a connection was lost.
#[doc(no_inline)]
pub use quinn::ConnectionError;
/// The settings of a connection.
#[doc(no_inline)]
pub use quinn::TransportConfig;
/// The TLS configuration lacks the cipher suite that QUIC begins with.
#[doc(no_inline)]
pub use quinn::crypto::rustls::NoInitialCipherSuite;
pub use routing::{BadServerId, ServerId};
pub(crate) use runtime::Wrap;
pub use stream::{ReadError, RecvStream, SendStream, WriteError, Written};
pub(crate) use traits::{connection_error, lost, stream_id, write_error};

/// An error code as the engine takes it. Every code of HTTP/3 fits.
#[inline]
fn varint(code: u64) -> quinn::VarInt {
    quinn::VarInt::from_u64(code).unwrap_or(quinn::VarInt::MAX)
}
