//! WebTransport over UDP alone, on both sides: what a client sends comes back.

use h3cast_transport::{
    Identity, Server,
    client::{Connection, Trust},
    webtransport::SessionRequest,
};
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn echo(request: SessionRequest) {
    let Ok(session) = request.accept().await else { return };
    while let Ok((mut send, mut recv)) = session.accept_bi().await {
        let _ = tokio::io::copy(&mut recv, &mut send).await;
        let _ = send.shutdown().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::localhost()?;
    let trust = Trust::Hashes(identity.hashes());
    let server = Server::builder(identity).listen("localhost:0".parse()?).webtransport("/echo", echo).build().await?;
    let address = server.addresses().tls[0].clone();
    assert!(tokio::net::TcpStream::connect(&address).await.is_err(), "nothing listens on TCP");
    let uri: Uri = format!("https://{address}/echo").parse()?;
    let serving = tokio::spawn(server.run(Default::default()));
    let connection = Connection::open(&uri, &trust).await?;
    let session = connection.webtransport(&uri, Default::default(), &[]).await?;
    let (mut send, mut recv) = session.open_bi().await?;
    send.write_all(b"there and back").await?;
    send.shutdown().await?;
    let mut text = String::new();
    recv.read_to_string(&mut text).await?;
    assert_eq!(text, "there and back");
    serving.abort();
    println!("webtransport: ok");
    Ok(())
}
