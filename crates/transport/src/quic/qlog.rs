//! What QUIC does on a connection, as qlog: packets, losses, congestion.

use std::{
    fmt,
    io::{self, Write},
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use super::TransportConfig;

/// A connection that may be traced.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct QlogConnection {
    /// Whether this side is the server.
    pub is_server: bool,
    /// The connection id to which the client has sent its first packet, in hexadecimal. A client does not know it yet.
    pub id: Option<String>,
}

type Make = dyn Fn(&QlogConnection) -> Option<Box<dyn Write + Send + Sync>> + Send + Sync;

/// Gives where a connection is traced to.
#[derive(Clone)]
pub(crate) struct Qlog(Arc<Make>);

impl fmt::Debug for Qlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Qlog")
    }
}

impl Qlog {
    pub(crate) fn new(
        make: impl Fn(&QlogConnection) -> Option<Box<dyn Write + Send + Sync>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }
}

/// Has the one connection with these settings traced, if that is wanted.
pub(super) fn trace(transport: &mut TransportConfig, qlog: &Qlog, connection: &QlogConnection) {
    let Some(to) = qlog.0(connection) else { return };
    let header = header(connection, SystemTime::now());
    let mut config = quinn::QlogConfig::default();
    config.writer(Box::new(Records { to, record: Vec::new(), header: Some(header) }));
    transport.qlog_stream(config.into_stream());
}

/// What a trace begins with: the engine's own does not tell which side it is of, nor when it began.
fn header(connection: &QlogConnection, began: SystemTime) -> String {
    let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let side = if connection.is_server { "server" } else { "client" };
    let group = connection.id.as_ref().map(|id| format!(r#""group_id":"{id}","#)).unwrap_or_default();
    format!(
        r#"{{"qlog_format":"JSON-SEQ","qlog_version":"0.3","title":"h3cast","trace":{{"vantage_point":{{"name":"h3cast","type":"{side}"}},"title":"h3cast","common_fields":{{{group}"protocol_type":["QUIC","HTTP3"],"reference_time":{began},"time_format":"relative"}}}}}}"#
    )
}

/// Writes each record at once: the engine writes its parts.
struct Records {
    to: Box<dyn Write + Send + Sync>,
    record: Vec<u8>,
    header: Option<String>,
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.record.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let record = std::mem::take(&mut self.record);
                // RFC 7464 §2.2
                let record = match self.header.take() {
                    Some(header) => format!("\u{1e}{header}\n").into_bytes(),
                    None => record,
                };
                self.to.write_all(&record)?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Where the connections of a program's clients are traced to.
static CLIENTS: OnceLock<Qlog> = OnceLock::new();

/// Has the connections of clients traced that have no settings of QUIC of their own. The first one counts.
pub fn trace_clients(qlog: impl Fn(&QlogConnection) -> Option<Box<dyn Write + Send + Sync>> + Send + Sync + 'static) {
    let _ = CLIENTS.set(Qlog::new(qlog));
}

/// The settings of a client's next connection, if it may be traced.
pub(super) fn of_client() -> Option<TransportConfig> {
    let qlog = CLIENTS.get()?;
    let mut transport = super::transport(Some(super::KEEP_ALIVE));
    trace(&mut transport, qlog, &QlogConnection { is_server: false, id: None });
    Some(transport)
}
