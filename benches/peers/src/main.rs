//! The peers that h3cast is compared with. See README.md.

mod feed;
mod peers;
mod tls;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{feed::Feed, peers::Setup, tls::Identity};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The smallest honest server for each peer that h3cast is compared with
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bare QUIC, without HTTP
    Quinn(Serve),
    /// HTTP/3 by h3 and h3-quinn
    H3(Serve),
    /// HTTP/3 by salvo
    #[cfg(feature = "salvo")]
    Salvo(Serve),
    /// HTTP/3 by h3 and s2n-quic
    #[cfg(feature = "s2n")]
    #[command(name = "s2n-quic-h3")]
    S2n(Serve),
    /// HTTP/3 by tokio-quiche
    #[cfg(feature = "tokio-quiche")]
    TokioQuiche(Serve),
    /// WebTransport by wtransport
    #[cfg(feature = "wtransport")]
    Wtransport(Serve),
    /// WebTransport by web-transport-quinn
    #[cfg(feature = "web-transport-quinn")]
    WebTransportQuinn(Serve),
    /// HTTP/1.1 by hyper, for a reverse proxy
    #[cfg(feature = "http1")]
    Http1(Serve),
    /// Read a stream of the `quinn` peer and count what comes
    View {
        /// Where it listens
        server: SocketAddr,
        /// Stop after so many bytes of payload
        #[arg(long, default_value_t = u64::MAX)]
        limit: u64,
    },
    /// Write a self-signed certificate, cert.pem and key.pem
    Cert {
        /// The folder
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// Address and port; port 0 is any free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Time between two chunks
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Bytes in a chunk
    #[arg(long, default_value_t = 16)]
    size: usize,
    /// Send each viewer this file, instead of the live feed
    #[arg(long)]
    file: Option<PathBuf>,
    /// Worker threads; with 1, one thread does all
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    /// End when standard input does, so that no server outlives its script
    #[arg(long)]
    until_stdin_ends: bool,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Quinn(args) => serve(args, peers::quinn::run),
        Command::H3(args) => serve(args, peers::h3::run),
        #[cfg(feature = "salvo")]
        Command::Salvo(args) => serve(args, peers::salvo::run),
        #[cfg(feature = "s2n")]
        Command::S2n(args) => serve(args, peers::s2n::run),
        #[cfg(feature = "tokio-quiche")]
        Command::TokioQuiche(args) => serve(args, peers::tokio_quiche::run),
        #[cfg(feature = "wtransport")]
        Command::Wtransport(args) => serve(args, peers::wtransport::run),
        #[cfg(feature = "web-transport-quinn")]
        Command::WebTransportQuinn(args) => serve(args, peers::web_transport_quinn::run),
        #[cfg(feature = "http1")]
        Command::Http1(args) => serve(args, peers::http1::run),
        Command::View { server, limit } => {
            let count = runtime(NonZeroUsize::MIN)?.block_on(peers::quinn::view(server, limit))?;
            let end = if count.ended { "ended" } else { "not ended" };
            println!("{} chunks, {} bytes, {} missing, {end}", count.chunks, count.bytes, count.missing);
            Ok(())
        }
        Command::Cert { out } => Identity::generate()?.write(&out),
    }
}

/// Runs one peer until the process is asked to end. What is under way then is not waited for.
fn serve(args: Serve, run: impl AsyncFnOnce(Setup) -> anyhow::Result<()>) -> anyhow::Result<()> {
    anyhow::ensure!(!args.interval.is_zero(), "--interval has to be longer than nothing");
    // Libraries that make their own TLS configuration take this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = runtime(args.threads)?;
    let result = runtime.block_on(async {
        let feed = match args.file {
            Some(path) => Feed::file(path),
            None => Feed::live(args.interval, args.size),
        };
        let setup = Setup { listen: args.listen, feed, identity: Identity::generate()? };
        tokio::select! {
            result = run(setup) => result,
            result = asked_to_end(args.until_stdin_ends) => result,
        }
    });
    runtime.shutdown_background();
    result
}

fn runtime(threads: NonZeroUsize) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match threads.get() {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder.worker_threads(threads.get()).enable_all().build().context("cannot start the runtime")
}

async fn asked_to_end(until_stdin_ends: bool) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (ended_tx, ended) = oneshot::channel();
    if until_stdin_ends {
        // A thread of its own: the runtime would wait for a read that cannot be broken off.
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = ended_tx.send(());
        });
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = ended, if until_stdin_ends => {}
    }
    Ok(())
}
