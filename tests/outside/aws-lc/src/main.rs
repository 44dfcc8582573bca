//! aws-lc-rs in place of ring: a client that knows no other key exchange than X25519MLKEM768 is answered.

use std::sync::Arc;

use h3cast_transport::{
    Identity, Server,
    client::{Connection, Trust},
};
use http::Uri;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::{RootCertStore, crypto::aws_lc_rs};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::localhost()?;
    let trust = Trust::Hashes(identity.hashes());
    let mut roots = RootCertStore::empty();
    roots.add(identity.current().der().to_vec().into())?;
    let server = Server::builder(identity).listen("127.0.0.1:0".parse()?).build().await?;
    let address = server.addresses().udp[0];
    let serving = tokio::spawn(server.run(Default::default()));

    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519MLKEM768];
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?)));
    endpoint.connect(address, "localhost")?.await?;

    let uri: Uri = format!("https://{address}/").parse()?;
    let response = Connection::open(&uri, &trust).await?.get(&uri).await?;
    assert_eq!(response.status, 404);
    serving.abort();
    println!("aws-lc: ok");
    Ok(())
}
