//! A client that trusts the certificate in a file and prints what arrives, as it arrives.
//!
//! ```sh
//! cargo run            # in one terminal
//! cargo run --example client
//! ```

use std::io::Write;

use h3cast::client::{Connection, Trust};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "https://localhost:4433/stream".into());
    let certificate = std::env::args().nth(2).unwrap_or_else(|| "certs/cert.pem".into());
    let uri = url.parse()?;

    let connection = Connection::open(&uri, &Trust::Files(vec![certificate.into()])).await?;
    let mut response = connection.get(&uri).await?;
    eprintln!("{}", response.status);
    while let Some(bytes) = response.body.next().await? {
        std::io::stdout().write_all(&bytes)?;
        std::io::stdout().flush()?;
    }
    Ok(())
}
