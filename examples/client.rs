//! A client that trusts the certificate in a file and prints a response as it arrives.
//!
//! ```toml
//! [dependencies]
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! ```sh
//! cargo run                      # a server, in one terminal
//! cargo run --example client     # or with a URL and a certificate's file
//! ```

use std::{error::Error, io::Write};

use h3cast::client::{Connection, Trust};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "https://localhost:4433/stream".into());
    let certificate = std::env::args().nth(2).unwrap_or_else(|| "certs/cert.pem".into());
    let uri = url.parse()?;

    let connection = Connection::open(&uri, &Trust::Files(vec![certificate.into()])).await?;
    let mut response = connection.get(&uri).await?;
    eprintln!("{}", response.status);
    // An error means that the response was cut off: `None` comes only at its real end.
    while let Some(bytes) = response.body.next().await? {
        std::io::stdout().write_all(&bytes)?;
        std::io::stdout().flush()?;
    }
    Ok(())
}
