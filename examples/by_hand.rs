//! You are the source: each line that you type is a chunk for everyone who views the feed.
//!
//! ```toml
//! [dependencies]
//! anyhow = "1"
//! bytes = "1"
//! futures-util = "0.3"
//! h3cast = { version = "0.1", default-features = false }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal", "sync"] }
//! tokio-util = "0.7"
//! ```
//!
//! ```sh
//! cargo run --example by_hand
//! ```
//!
//! Open the page that it prints, press Start, and type. Ctrl-D ends the feed.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream;
use h3cast::{App, Identity, Listen, PlainHttp, Server, feed::Feed};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The viewers there are. A viewer that falls this many lines behind misses the next ones.
type Viewers = Arc<Mutex<Vec<mpsc::Sender<Bytes>>>>;
const BEHIND: usize = 1024;

/// The value of `--NAME`, if it is given.
fn option(name: &str) -> Option<String> {
    std::env::args().skip_while(|arg| *arg != format!("--{name}")).nth(1)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let certs = option("certs").unwrap_or_else(|| "certs".into());
    let identity = Identity::self_signed(certs.as_ref(), &[], Default::default())?;
    let viewers = Viewers::default();
    let joining = viewers.clone();
    let feed = Feed::on_demand("default", move || {
        let (tx, rx) = mpsc::channel(BEHIND);
        joining.lock().unwrap().push(tx);
        println!("viewer joined");
        let left = Left;
        stream::unfold((rx, left), |(mut rx, left)| async move { Some((Ok(rx.recv().await?), (rx, left))) })
    });

    let http: Listen = option("http").unwrap_or_else(|| "localhost:8080".into()).parse()?;
    let listen: Listen = option("listen").unwrap_or_else(|| "localhost:4433".into()).parse()?;
    let builder = Server::builder(identity.clone()).listen(listen).plain_http(PlainHttp::Near(http));
    let server = App::new([feed], identity).install(builder).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    println!("  any browser    http://{}/", server.addresses().http.as_deref().unwrap_or("(off)"));

    let stop = CancellationToken::new();
    let ctrl_c = stop.clone();
    tokio::spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        ctrl_c.cancel();
    });
    // A thread: a task that reads the terminal would hold up the end of the program.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let chunk = Bytes::from(line + "\n");
            viewers.lock().unwrap().retain(|viewer| viewer.try_send(chunk.clone()).is_ok());
        }
        // Without senders, every viewer's feed ends.
        viewers.lock().unwrap().clear();
    });
    server.run(stop).await?;
    Ok(())
}

/// Says when a viewer goes.
struct Left;

impl Drop for Left {
    fn drop(&mut self) {
        println!("viewer left");
    }
}
