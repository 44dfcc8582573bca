//! `h3cast health`: whether a server is ready.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Command, Failure, config, print,
    remote::{self, TrustArgs},
    serve, values,
};
use crate::{client::Trust, shown::Shown};

/// Where servers report whether they take new clients, and whether they are alive.
const PATHS: (&str, &str) = ("/readyz", "/healthz");
/// Flags by which the server on this machine is found.
const SETTINGS: [&str; 3] = ["config", "listen", "http"];
/// No more of an answer is read, in bytes.
const LONGEST: usize = 4096;

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    /// The server, as `https://cast.example` or `http://localhost:8080`. Without it, the server on this machine that has
    /// these settings, by the same flags, environment and file as `serve`.
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// Ask whether the server is alive (/healthz), and not whether it takes new clients (/readyz): then it is
    /// healthy also while it shuts down, is short of memory, or waits for NATS.
    #[arg(long)]
    live: bool,
    /// How long the server may take to answer.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = values::time)]
    timeout: Duration,
    /// The file of settings of the server, as its --config.
    #[arg(long, env = "H3CAST_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the server listens, as its --listen. [default: localhost:4433]
    #[arg(long, env = "H3CAST_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where the server has plain HTTP, as its --http. It answers there also when it takes no more connections.
    #[arg(long, env = "H3CAST_HTTP", value_name = "ADDR:PORT|off")]
    http: Option<String>,
    #[command(flatten)]
    trust: TrustArgs,
}

pub(super) async fn run(args: HealthArgs) -> Result<(), Failure> {
    let wait = args.timeout;
    let asked = timeout(wait, ask(args))
        .await
        .unwrap_or_else(|_| Err(Failure::running(anyhow!("no answer within {}", humantime::format_duration(wait)))));
    // Docker knows 0 and 1.
    let text = asked.map_err(|failure| Failure { code: Failure::RUNNING, ..failure })?;
    print(&text)
}

async fn ask(args: HealthArgs) -> Result<String, Failure> {
    let path = if args.live { PATHS.1 } else { PATHS.0 };
    let (base, trust) = match &args.url {
        Some(url) => {
            // The environment may be that of another server, as in the image.
            let words: Vec<_> = std::env::args_os().collect();
            if let Some(flag) = SETTINGS.iter().find(|flag| config::is_given(&words, flag)) {
                let text = format!("--{flag} is for the server on this machine: leave it out, or the URL");
                return Err(Failure::usage(anyhow!(text)));
            }
            (url.clone(), args.trust.trust()?)
        }
        None => tokio::task::spawn_blocking(move || here(&args)).await.map_err(Failure::running)??,
    };
    // Whatever page of it was named.
    let url = format!("{}{path}", origin(&base));
    let (status, text) = match url.starts_with("http://") {
        true => plain(&url).await.map_err(|error| Failure::running(anyhow!("cannot ask {url}: {error:#}")))?,
        false => secure(&remote::url(&url)?, &trust).await?,
    };
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    let text = Shown(text.lines().collect::<Vec<_>>().join("; "));
    match status {
        StatusCode::OK => Ok(format!("{url}: {text}\n")),
        status => Err(Failure::running(anyhow!("{url}: {}: {text}", status.as_u16()))),
    }
}

/// A URL without its path.
fn origin(url: &str) -> &str {
    let begins = url.find("://").map_or(0, |at| at + 3);
    url[begins..].find(['/', '?', '#']).map_or(url, |at| &url[..begins + at])
}

/// The server with the settings of `serve`.
fn here(args: &HealthArgs) -> Result<(String, Trust), Failure> {
    let mut arguments: Vec<OsString> = vec!["h3cast".into(), "serve".into()];
    let mut add = |flag: &str, value: Option<OsString>| {
        arguments.extend(value.into_iter().flat_map(|value| [flag.into(), value]))
    };
    add("--config", args.config.clone().map(Into::into));
    add("--listen", args.listen.clone().map(Into::into));
    add("--http", args.http.clone().map(Into::into));
    add("--certs", args.trust.certs().map(Into::into));
    let cli = config::parse_again(&arguments)?.cli;
    let served = match &cli.command {
        Some(Command::Serve(command)) => &command.args,
        _ => &cli.serve,
    };
    if !args.live {
        serve::here::accepted(served)?;
    }
    let (base, trust) = serve::here::find(served)?;
    Ok((base, if args.trust.is_stated() { args.trust.trust()? } else { trust }))
}

/// Asks over HTTP/3.
async fn secure(url: &Uri, trust: &Trust) -> Result<(StatusCode, Vec<u8>), Failure> {
    let (status, _, mut text) = remote::ask(url, trust, HeaderMap::new(), LONGEST).await?;
    text.truncate(LONGEST);
    Ok((status, text))
}

/// Asks over HTTP/1.1, without TLS.
async fn plain(url: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let url: Uri = url.parse()?;
    let host = url.host().unwrap_or_default();
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), url.port_u16().unwrap_or(80))).await?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(url.path()).header(header::HOST, url.authority().map_or("", |at| at.as_str()));
    let answered = async {
        let response = requests.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status();
        let text = Limited::new(response.into_body(), LONGEST).collect().await;
        anyhow::Ok((status, text.map_or_else(|_| Vec::new(), |text| text.to_bytes().to_vec())))
    };
    tokio::select! {
        answered = answered => answered,
        ended = connection => Err(anyhow!("the connection has ended: {ended:?}")),
    }
}
