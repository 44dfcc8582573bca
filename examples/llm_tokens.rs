//! Tokens of a language model as they are generated. When the client disconnects, generation stops.
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! h3cast = { version = "0.1", default-features = false }
//! serde = { version = "1", features = ["derive"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
//! ```
//!
//! ```sh
//! cargo run --example llm_tokens
//! cargo run -- open chrome 'https://localhost:4433/?prompt=why'     # then press the browser's Stop
//! cargo run -- get 'https://localhost:4433/?prompt=why'             # or Ctrl-C
//! ```

use std::{error::Error, time::Duration};

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::{Router, extract::Query, response::IntoResponse, routing::get};
use h3cast::{Identity, Server, body};
use serde::Deserialize;

#[derive(Deserialize)]
struct Ask {
    prompt: String,
    #[serde(default = "Ask::max_tokens")]
    max_tokens: usize,
}

impl Ask {
    fn max_tokens() -> usize {
        200
    }
}

async fn generate(Query(ask): Query<Ask>) -> impl IntoResponse {
    // One token ahead of the client: a slow client slows the model down, and nothing piles up.
    let (tx, body) = body::channel(1);
    tokio::spawn(async move {
        let mut model = Model::new(&ask);
        let mut tokens = 0;
        let generation = async {
            while let Some(token) = model.next().await {
                tx.send(token).await?;
                tokens += 1;
            }
            Ok::<_, body::ClientGone>(())
        };
        // The second future ends as soon as the client leaves, even while the model computes a token.
        let complete = tokio::select! {
            result = generation => result.is_ok(),
            () = tx.closed() => false,
        };
        println!("{} after {tokens} tokens", if complete { "complete" } else { "cancelled" });
        if complete {
            tx.finish();
        }
    });
    let text = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (text, [(CACHE_CONTROL, "no-store")], body)
}

/// Stands for a model: it repeats the prompt, a word at a time.
struct Model(Box<dyn Iterator<Item = String> + Send>);

impl Model {
    fn new(ask: &Ask) -> Self {
        let words: Vec<_> = ask.prompt.split_whitespace().map(|word| format!("{word} ")).collect();
        Self(Box::new(words.into_iter().cycle().take(ask.max_tokens)))
    }

    async fn next(&mut self) -> Option<String> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.0.next()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:4433".into());
    let identity = Identity::self_signed("certs".as_ref(), &[], Default::default())?;
    let app = Router::new().route("/", get(generate));
    let server = Server::builder(identity).listen(address.parse()?).http_service(app).build().await?;
    println!("ready https://{}/", server.addresses().tls[0]);
    Ok(server.run(Default::default()).await?)
}
