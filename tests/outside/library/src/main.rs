//! The package `h3cast` as a library, without its program: a feed published, and read as `GET /stream`.

use h3cast::{
    App, Identity, Server,
    client::{Connection, Trust},
    feed::{End, Feed, Lag},
};
use http::Uri;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (feed, publisher) = Feed::live("default", 10_000, Lag::Skip);
    publisher.publish("one, ".into()).await?;
    publisher.publish("two".into()).await?;
    publisher.end(End::Clean);
    let identity = Identity::localhost()?;
    let trust = Trust::Hashes(identity.hashes());
    let app = App::new([feed], identity.clone());
    let server = app.install(Server::builder(identity).listen("localhost:0".parse()?)).build().await?;
    let uri: Uri = format!("https://{}/stream?from=start", server.addresses().tls[0]).parse()?;
    let serving = tokio::spawn(server.run(Default::default()));
    let connection = Connection::open(&uri, &trust).await?;
    let mut response = connection.get(&uri).await?;
    let mut text = Vec::new();
    while let Some(bytes) = response.body.next().await? {
        text.extend_from_slice(&bytes);
    }
    assert_eq!(String::from_utf8(text)?, "one, two");
    serving.abort();
    println!("library: ok");
    Ok(())
}
