//! A feed as it is read over one connection.

use std::{pin::pin, process::Stdio, sync::Arc, time::Duration};

use bytes::Bytes;
use h3cast::{
    client::{Body, Connection},
    webtransport::{RecvStream, Session},
};
use h3cast_proto::feed::frames::{Frame, FrameDecoder};
use http::HeaderMap;
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::edges::Address;

/// How long a server may say nothing. It sends something every 15 s, if it is not stopped.
const SILENCE: Duration = Duration::from_secs(20);
/// How long it may take to begin.
const BEGIN: Duration = Duration::from_secs(12);

/// What carries a feed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Over {
    Http2,
    Http3,
    Session,
}

pub(crate) const ALL: [Over; 3] = [Over::Http2, Over::Http3, Over::Session];

enum Carrier {
    /// curl's, which ends with it.
    Http2(ChildStdout, Child),
    Http3(Box<Body>, Arc<Connection>),
    /// The session's handle keeps it open.
    Session(RecvStream, #[expect(dead_code)] Session, Arc<Connection>),
}

/// A feed that is read.
pub(crate) struct Reading {
    carrier: Carrier,
    decoder: FrameDecoder,
    pub(crate) patience: Duration,
}

/// Somebody who reads several feeds of a server one after another, over the same connection.
#[derive(Default)]
pub(crate) struct Client {
    connection: Option<(usize, Arc<Connection>)>,
}

impl Client {
    /// The connection to that server, which is one of several.
    pub(crate) async fn connection(&mut self, servers: &[Address], at: usize) -> Result<Arc<Connection>, String> {
        let at = at % servers.len();
        if let Some((to, connection)) = &self.connection
            && *to == at
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        let server = &servers[at];
        let (uri, trust) = (server.uri("/"), server.trust());
        let opening = timeout(BEGIN, Connection::open(&uri, &trust));
        let connection = opening.await.map_err(|_| "no connection".to_owned())?.map_err(|error| error.to_string())?;
        let connection = Arc::new(connection);
        self.connection = Some((at, connection.clone()));
        Ok(connection)
    }

    /// Opens `path`, which may have a query.
    pub(crate) async fn open(
        &mut self,
        servers: &[Address],
        at: usize,
        over: Over,
        path: &str,
    ) -> Result<Reading, String> {
        let server = &servers[at % servers.len()];
        let path = format!("{path}{}format=frames", if path.contains('?') { '&' } else { '?' });
        let uri = server.uri(&path);
        let carrier = match over {
            Over::Http2 => {
                let mut curl = server.curl(&["-N", "-f", "--http2"], &path).stdout(Stdio::piped()).spawn().unwrap();
                Carrier::Http2(curl.stdout.take().unwrap(), curl)
            }
            Over::Http3 => {
                let connection = self.connection(servers, at).await?;
                let response = timeout(BEGIN, connection.get(&uri)).await.map_err(|_| "no head".to_owned());
                let response = response.and_then(|response| response.map_err(|error| error.to_string()));
                let response = self.keeps(response)?;
                if !response.status.is_success() {
                    return Err(format!("{path}: {}", response.status));
                }
                Carrier::Http3(Box::new(response.body), connection)
            }
            Over::Session => {
                let connection = self.connection(servers, at).await?;
                let opening = async {
                    let session = connection.webtransport(&uri, HeaderMap::new(), &[]).await;
                    let session = session.map_err(|error| error.to_string())?;
                    let stream = session.accept_uni().await.map_err(|error| error.to_string())?;
                    Ok((stream, session))
                };
                let opened = timeout(BEGIN, opening).await.unwrap_or_else(|_| Err("no session".into()));
                let (stream, session) = self.keeps(opened)?;
                Carrier::Session(stream, session, connection)
            }
        };
        Ok(Reading { carrier, decoder: FrameDecoder::new(1 << 20), patience: SILENCE })
    }

    /// A connection on which something failed is not used again.
    fn keeps<T>(&mut self, result: Result<T, String>) -> Result<T, String> {
        if result.is_err() {
            self.connection = None;
        }
        result
    }
}

impl Reading {
    /// The next frame; `None` at the clean end.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(frame) = self.decoder.pop().map_err(|error| error.to_string())? {
                return Ok(Some(frame));
            }
            match timeout(self.patience, self.piece()).await.map_err(|_| "silent".to_owned())?? {
                Some(piece) => self.decoder.push(&piece),
                None if self.decoder.at_boundary() => return Ok(None),
                None => return Err("ended in a frame".into()),
            }
        }
    }

    async fn piece(&mut self) -> Result<Option<Bytes>, String> {
        match &mut self.carrier {
            Carrier::Http2(out, curl) => {
                let mut bytes = vec![0; 16 << 10];
                let length = out.read(&mut bytes).await.map_err(|error| error.to_string())?;
                if length > 0 {
                    bytes.truncate(length);
                    return Ok(Some(bytes.into()));
                }
                match curl.wait().await {
                    Ok(status) if status.success() => Ok(None),
                    other => Err(format!("curl: {other:?}")),
                }
            }
            Carrier::Http3(body, connection) => {
                attended(connection, body.next()).await.map_err(|error| error.to_string())
            }
            Carrier::Session(stream, _, connection) => {
                attended(connection, stream.read_bytes(usize::MAX)).await.map_err(|error| error.to_string())
            }
        }
    }
}

/// Looks at whether the server is there meanwhile.
async fn attended<T>(connection: &Connection, event: impl Future<Output = T>) -> T {
    let event = pin!(event);
    tokio::select! {
        biased;
        event = event => event,
        never = connection.attend() => match never {},
    }
}
