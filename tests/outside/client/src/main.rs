//! The client alone: `client URL HASH` reads from a server whose certificate has that hash.

use h3cast_transport::{
    client::{Connection, Trust},
    identity::Fingerprint,
};
use http::Uri;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let uri: Uri = arguments.next().ok_or("no URL")?.parse()?;
    let hash = arguments.next().and_then(|hash| Fingerprint::from_hex(&hash)).ok_or("no hash")?;
    let connection = Connection::open(&uri, &Trust::Hashes(vec![hash])).await?;
    let mut response = connection.get(&uri).await?;
    let mut text = Vec::new();
    while let Some(bytes) = response.body.next().await? {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(String::from_utf8(text)?, "HTTP/3.0 /hello");
    assert!(Connection::open(&uri, &Trust::System).await.is_err(), "the system does not trust it");
    println!("server, client: ok");
    Ok(())
}
