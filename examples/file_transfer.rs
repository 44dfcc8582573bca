//! A file over HTTP/3. If the connection is lost, or the program is restarted, the download continues
//! where it stopped, unless the file has changed.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! http = "1"
//! tokio = { version = "1", features = ["fs", "io-util", "macros", "rt-multi-thread", "time"] }
//! tower-http = { version = "0.7", features = ["fs"] }
//! ```
//!
//! ```sh
//! cargo run --example file_transfer serve big.iso
//! cargo run --example file_transfer get https://localhost:4433/ copy.iso      # Ctrl-C, and again
//! cargo run -- open chrome https://localhost:4433/                            # or a browser's download
//! ```

use std::path::{Path, PathBuf};
use std::{env::args, error::Error, io::ErrorKind, time::Duration};

use axum::Router;
use h3cast::client::{Connection, Trust};
use h3cast::{Identity, Server};
use http::header::{IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE};
use http::{Request, StatusCode};
use tokio::fs::{self, OpenOptions};
use tokio::io::AsyncWriteExt;
use tower_http::services::ServeFile;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", file] => serve(file, "localhost:4433").await,
        ["serve", file, address] => serve(file, address).await,
        ["get", url, file] => get(url, file.as_ref(), "certs/cert.pem").await,
        ["get", url, file, certificate] => get(url, file.as_ref(), certificate).await,
        _ => Err("usage: file_transfer serve FILE [ADDRESS:PORT] or get URL FILE [CERTIFICATE]".into()),
    }
}

/// `ServeFile` answers `Range`, and compares the file's time.
async fn serve(file: &str, address: &str) -> Result<()> {
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    let app = Router::new().fallback_service(ServeFile::new(file));
    let server = Server::builder(identity).listen(address.parse()?).http_service(app).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    Ok(server.run(Default::default()).await?)
}

/// Tries again until the file is complete. `FILE.part` has what arrived, `FILE.date` of which version.
async fn get(url: &str, file: &Path, certificate: &str) -> Result<()> {
    let suffix = |suffix| PathBuf::from(format!("{}.{suffix}", file.display()));
    let (part, date) = (suffix("part"), suffix("date"));
    while let Err(error) = attempt(url, certificate, &part, &date).await {
        eprintln!("{error}; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    fs::rename(&part, file).await?;
    Ok(fs::remove_file(&date).await?)
}

async fn attempt(url: &str, certificate: &str, part: &Path, date: &Path) -> Result<()> {
    let uri = url.parse()?;
    let connection = Connection::open(&uri, &Trust::Files(vec![certificate.into()])).await?;
    let mut request = Request::get(uri);
    if let (Ok(have), Ok(version)) = (fs::metadata(part).await, fs::read_to_string(date).await) {
        println!("continuing after {} bytes", have.len());
        request = request.header(RANGE, format!("bytes={}-", have.len())).header(IF_UNMODIFIED_SINCE, version);
    }
    let mut response = connection.request(request.body(())?).await?;
    let mut out = match response.status {
        StatusCode::OK => {
            // The date comes first: a part without one is not continued.
            let version = response.headers.get(LAST_MODIFIED).ok_or("the server does not say when the file changed")?;
            remove(part).await?;
            fs::write(date, version).await?;
            fs::File::create(part).await?
        }
        StatusCode::PARTIAL_CONTENT => OpenOptions::new().append(true).open(part).await?,
        // The part is complete, or the file is another now: from the beginning.
        status @ (StatusCode::PRECONDITION_FAILED | StatusCode::RANGE_NOT_SATISFIABLE) => {
            remove(date).await?;
            return Err(format!("cannot continue: {status}").into());
        }
        status => return Err(format!("the server answered {status}").into()),
    };
    // An error means that the response was cut off: `None` comes only at its real end.
    let result = loop {
        match response.body.next().await {
            Ok(Some(bytes)) => out.write_all(&bytes).await?,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // In either case what arrived is in the file, before its length is asked for again.
    out.sync_all().await?;
    Ok(result?)
}

async fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file).await {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
