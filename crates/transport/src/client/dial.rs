//! Finding a server's addresses, and trying them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tracing::debug;

use super::{ClientError, ConnectError, Connector, Refusal};
use crate::quic::{self, ConnectionError};

/// How long the handshake may take when nothing listens on the TCP port of the same number either.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);
/// How long one address is tried before the next one is tried too (RFC 8305 §5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// How long an eager client waits for a sign of the server before it tries again, since the engine repeats its first
/// packets ever more seldom. The first attempt stays, for servers that are far away.
const AGAIN: Duration = Duration::from_secs(1);

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, ClientError> {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        // As browsers do, whatever the system says (RFC 6761 §6.3): what is trusted on this machine only must
        // not be found on another one.
        let both = [IpAddr::from(Ipv6Addr::LOCALHOST), Ipv4Addr::LOCALHOST.into()];
        return Ok(both.map(|ip| (ip, port).into()).into());
    }
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| ClientError::Resolve { host: host.to_owned(), source })?;
    Ok(found.collect())
}

/// How long a socket waits for the system's word that nothing listens where it has sent something.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Tries the addresses of `host` one after another, each a little later than the one before; the
/// first that answers is taken.
pub(super) async fn connect_any(host: &str, port: u16, connector: &Connector) -> Result<quic::Connection, ClientError> {
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let connect_timeout = connector.settings().connect_timeout;
    let addresses = connector.reachable(addresses(host, port).await?);
    let mut attempts: FuturesUnordered<_> = addresses
        .iter()
        .zip(0_u32..)
        .map(|(address, number)| async move {
            tokio::time::sleep(ATTEMPT_DELAY * number).await;
            match connector.settings().eager {
                true => connect_eagerly(*address, host, connector).await,
                false => connect_one(*address, host, connector).await,
            }
        })
        .collect();
    let mut reason: Option<Attempt> = None;
    let attempt = async {
        loop {
            let patience = match &reason {
                // An answer was had: the other addresses need not take as long as one that is lost.
                Some(Attempt { untrusted: true, .. }) => REFUSED_TIMEOUT.min(connect_timeout),
                _ => connect_timeout,
            };
            match tokio::time::timeout(patience, attempts.next()).await.ok()?? {
                Ok(connected) => return Some(connected),
                Err(error) => {
                    debug!(%error.reason, "an attempt to connect failed");
                    // That a server is not trusted is not made good by one that is not there.
                    if !reason.as_ref().is_some_and(|known| known.untrusted) {
                        reason = Some(error);
                    }
                }
            }
        }
    };
    let limit = async {
        match all_refused(&addresses).await {
            // A client that waits for its server to come back has its own pauses.
            true if !connector.settings().eager && no_one_is_here(&addresses).await => {}
            true => tokio::time::sleep(REFUSED_TIMEOUT.min(connect_timeout)).await,
            false => tokio::time::sleep(connect_timeout).await,
        }
    };
    let connected = tokio::select! {
        connected = attempt => connected,
        () = limit => None,
    };
    match (connected, reason) {
        (Some(connected), _) => Ok(connected),
        (None, Some(Attempt { refusal: Some(refusal), .. })) => {
            Err(ClientError::Untrusted { authority, refusal: Box::new(refusal.at_port(port)) })
        }
        (None, Some(Attempt { reason, untrusted, .. })) => Err(ClientError::Connect { authority, reason, untrusted }),
        (None, None) => Err(ClientError::Unreachable { authority }),
    }
}

/// Whether nothing listens on TCP either. UDP itself does not say that nobody is there.
async fn all_refused(addresses: &[SocketAddr]) -> bool {
    for address in addresses {
        let connect = tokio::net::TcpStream::connect(address);
        match tokio::time::timeout(Duration::from_secs(1), connect).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            _ => return false,
        }
    }
    true
}

/// Whether nothing listens at any of these addresses of this machine, where the system reports that to a socket that is
/// connected to one. A server that is there answers before it is asked for in this way.
async fn no_one_is_here(addresses: &[SocketAddr]) -> bool {
    tokio::time::sleep(ATTEMPT_DELAY).await;
    for address in addresses {
        if !address.ip().is_loopback() || !is_refused(*address).await {
            return false;
        }
    }
    true
}

async fn is_refused(address: SocketAddr) -> bool {
    let local = SocketAddr::new(address.ip(), 0);
    let probe = async {
        let socket = tokio::net::UdpSocket::bind(local).await?;
        socket.connect(address).await?;
        // No packet of QUIC, whose servers do not answer it.
        socket.send(&[0]).await?;
        socket.recv(&mut [0]).await
    };
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
    match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(Err(error)) => matches!(error.kind(), ConnectionRefused | ConnectionReset),
        _ => false,
    }
}

/// An attempt to connect that failed.
struct Attempt {
    reason: ConnectError,
    untrusted: bool,
    refusal: Option<Refusal>,
}

impl From<ConnectError> for Attempt {
    fn from(reason: ConnectError) -> Self {
        Self { reason, untrusted: false, refusal: None }
    }
}

async fn connect_one(address: SocketAddr, host: &str, connector: &Connector) -> Result<quic::Connection, Attempt> {
    completed(connector.begin(address, host)?, address, connector).await
}

/// Tries an address, and again as long as nothing comes from it.
async fn connect_eagerly(address: SocketAddr, host: &str, connector: &Connector) -> Result<quic::Connection, Attempt> {
    let mut first = connector.begin(address, host)?;
    let later = async {
        tokio::time::sleep(AGAIN).await;
        loop {
            let mut next = connector.begin(address, host)?;
            if tokio::time::timeout(AGAIN, next.heard()).await.is_ok() {
                return Ok::<_, Attempt>(next);
            }
        }
    };
    let connecting = tokio::select! {
        biased;
        () = first.heard() => first,
        later = later => later?,
    };
    completed(connecting, address, connector).await
}

async fn completed(
    connecting: quic::client::Connecting,
    address: SocketAddr,
    connector: &Connector,
) -> Result<quic::Connection, Attempt> {
    let source: ConnectionError = match connecting.await {
        Ok(conn) => return Ok(conn),
        Err(error) => error,
    };
    match quic::client::alert(&source) {
        // Those about certificates, access, and signatures.
        Some((42..=51, cause)) => {
            let refusal = connector.refusal(cause);
            let reason = ConnectError::Certificate { alert: cause.to_owned() };
            Err(Attempt { reason, untrusted: true, refusal })
        }
        _ => Err(ConnectError::Handshake { address, source }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nothing is asked of the system, whose answer might lead elsewhere.
    #[tokio::test]
    async fn names_of_this_machine_lead_to_this_machine() {
        for host in ["localhost", "LocalHost.", "build.localhost", "a.b.LOCALHOST."] {
            let found = addresses(host, 4433).await.unwrap();
            assert!(found.len() == 2 && found.iter().all(|address| address.ip().is_loopback()), "{host}: {found:?}");
        }
    }

    /// The system knows it; a server that answers nothing yet is waited for.
    #[tokio::test]
    async fn it_is_known_at_once_that_nothing_listens_on_this_machine() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        assert!(!is_refused(address).await);
        drop(socket);
        assert!(is_refused(address).await);
        assert!(no_one_is_here(&[address]).await);
        assert!(!no_one_is_here(&["192.0.2.1:4433".parse().unwrap()]).await);
    }

    /// Whenever a server starts, a packet for it leaves within half a second.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_asked_again_and_again() {
        // TCP is there, so that an attempt takes as long as it may.
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let udp = tokio::net::UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
        let began = tokio::time::Instant::now();
        let connector = Connector::builder().eager().build().unwrap();
        let mut connecting = std::pin::pin!(connect_any("127.0.0.1", port, &connector));
        let (mut at, mut longest, mut packet) = (began, Duration::ZERO, [0; 1500]);
        loop {
            tokio::select! {
                got = udp.recv(&mut packet) => {
                    got.unwrap();
                    longest = longest.max(at.elapsed());
                    at = tokio::time::Instant::now();
                }
                connected = &mut connecting => {
                    assert!(matches!(connected, Err(ClientError::Unreachable { .. })));
                    break;
                }
            }
        }
        assert_eq!(began.elapsed().as_secs(), 10);
        assert!(longest > Duration::ZERO && longest <= Duration::from_millis(500), "{longest:?}");
    }
}
