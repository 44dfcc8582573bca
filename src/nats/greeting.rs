//! How NATS servers greet: what they say of themselves before a client has said anything.

use async_nats::ServerAddr;
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};

use super::connection::ANSWER;

/// The longest greeting that is read.
const LONGEST: u64 = 64 << 10;

/// What a greeting says of TLS.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    tls_required: bool,
    #[serde(default)]
    tls_available: bool,
}

/// Whether each of the servers greets as one that does not offer TLS: no waiting helps a client that asks for it. The
/// client has found that of one of them.
pub(super) async fn none_offers_tls(servers: &[ServerAddr]) -> bool {
    if let [server] = servers
        && server.is_websocket()
    {
        // There the handshake comes first, so that its failure says it all.
        return true;
    }
    for server in servers {
        if timeout(ANSWER, offers_tls(server)).await.ok().flatten() != Some(false) {
            return false;
        }
    }
    true
}

/// Whether a server does; `None` if it does not say so.
async fn offers_tls(server: &ServerAddr) -> Option<bool> {
    if server.is_websocket() {
        return None;
    }
    let stream = TcpStream::connect((server.host(), server.port())).await.ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut line).await.ok()?;
    let Info { tls_required, tls_available } = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
    Some(tls_required || tls_available)
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// A server that greets so, for as long as its runtime runs.
    async fn greeting(words: &'static str) -> ServerAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tls://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                client.write_all(words.as_bytes()).await.unwrap();
            }
        });
        address.parse().unwrap()
    }

    #[tokio::test]
    async fn servers_without_tls_are_known_by_their_greeting() {
        let plain = greeting("INFO {\"server_id\":\"x\"} \r\n").await;
        let optional = greeting("INFO {\"tls_available\":true}\r\n").await;
        let required = greeting("INFO {\"tls_required\":true}\r\n").await;
        let other = greeting("220 mail\r\n").await;
        assert!(
            none_offers_tls(std::slice::from_ref(&plain)).await
                && none_offers_tls(&[plain.clone(), plain.clone()]).await
        );
        for server in [optional, required, other] {
            assert!(!none_offers_tls(&[plain.clone(), server]).await);
        }
        assert!(none_offers_tls(&["wss://localhost:1".parse().unwrap()]).await);
    }
}
