//! The arguments of `h3cast serve`.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use clap::Args;

use super::limits::LimitArgs;
use super::logs::LogArgs;
use super::proxies::ProxyArgs;
use super::quotas::QuotaArgs;
use crate::{
    Listen, PlainHttp,
    app::StatusPage,
    cli::{BrowserName, CertsArgs, mistyped, values},
    feed::Lag,
    origin::Origin,
    server::{Advertise, ServerId},
    source::{Source, chunker::Chunking, command::Stderr},
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ServeCommand {
    /// What to stream, one feed each: demo (the default), - (standard input), exec:COMMAND (its output),
    /// file:PATH (from its beginning for each viewer), tail:PATH (its last lines and whatever is appended;
    /// pipes too), publish (whatever clients send, as `h3cast publish` does; with a NAME such as chat.*, feeds
    /// that they create by writing them), nats://HOST:PORT/SUBJECT (a
    /// subject stored in NATS JetStream; with * or > in it, a feed for each matching subject). A feed
    /// without a NAME is at /stream, others at /stream/NAME. A NAME has up to 100 ASCII letters, digits,
    /// `-`, `_` and `.`, and not only dots.
    #[arg(value_name = "[NAME=]SOURCE", value_parser = mistyped::source)]
    pub(in crate::cli) sources: Vec<Source>,
    #[command(flatten)]
    pub(in crate::cli) args: ServeArgs,
}

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ServeArgs {
    /// Read settings from this file (TOML): each flag is a key, as in listen = "0.0.0.0:443", and `sources` a
    /// list. Flags and environment variables take the place of keys.
    #[arg(long, env = "H3CAST_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Check the flags, the file of --config and the files that they name, and exit: 0 if the server would start
    /// with them. Nothing is bound, started or written.
    #[arg(long)]
    pub(in crate::cli) check: bool,
    /// The socket at which `h3cast reload` reaches the server, for its own user and root alone; `off` for none.
    /// [default: in $RUNTIME_DIRECTORY or the user's folder for running programs]
    #[cfg(unix)]
    #[arg(long, env = "H3CAST_CONTROL", value_name = "PATH|off", value_parser = super::control::parse)]
    pub(super) control: Option<super::control::Where>,
    /// Take over from the server that runs here now, found by these addresses or its control socket: its ports, the
    /// feeds that clients write and, with --store, all feeds on disk, and their viewers, without losing a chunk. Starts from scratch if there is none.
    #[cfg(unix)]
    #[arg(long, env = "H3CAST_TAKE_OVER")]
    pub(super) take_over: bool,
    /// A feed of the old server that is lost with its history if these settings do not have it; otherwise, such a feed
    /// stops --take-over. Can be repeated, and be a pattern as in chat.*.
    #[cfg(unix)]
    #[arg(long, env = "H3CAST_TAKE_OVER_DROP", value_name = "FEED", value_delimiter = ',', requires = "take_over")]
    pub(super) take_over_drop: Vec<super::handover::Dropped>,
    /// Where to listen, UDP and TCP: HTTP/3, WebTransport, HTTP/2 and 1.1. Can be repeated. `localhost` is
    /// both 127.0.0.1 and [::1]; `:4433` is every interface, by IPv4 and IPv6; port 0 picks a free port.
    /// [default: localhost:4433, or the sockets that systemd passes]
    #[arg(long, env = "H3CAST_LISTEN", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub(super) listen: Vec<Listen>,
    /// Where sockets that the program was started with are bound, for HTTPS.
    #[arg(skip)]
    pub(super) handed: Vec<SocketAddr>,
    /// Whether one of them is for redirects.
    #[arg(skip)]
    pub(super) handed_redirect: bool,
    /// The flags that were given, here or in the environment or the file of settings, without their `--`.
    #[arg(skip)]
    pub(in crate::cli) stated: BTreeSet<String>,
    /// Where to serve plain HTTP, for this machine only: any browser opens the page there without a flag.
    /// `off` turns it off. [default: localhost:8080, or a free port if that is in use]
    #[arg(long, env = "H3CAST_HTTP", value_name = "ADDR:PORT|off", value_parser = plain_http)]
    pub(super) http: Option<PlainHttp>,
    /// Where to redirect plain HTTP to HTTPS, for clients of any machine, as in :80. Can be repeated.
    #[arg(long, env = "H3CAST_REDIRECT", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub(super) redirect: Vec<Listen>,
    /// The address that clients are given, where the server cannot see it: plain HTTP and HTTPS forwarded
    /// from other ports, or UDP that arrives another way than TCP. `:PORT` keeps the host that the client
    /// uses. [default: the host and port that the client uses]
    #[arg(long, env = "H3CAST_ADVERTISE", value_name = "HOST:PORT")]
    pub(super) advertise: Option<Advertise>,
    #[command(flatten)]
    pub(super) proxies: ProxyArgs,
    #[command(flatten)]
    pub(super) certs: CertsArgs,
    /// Number of chunks of the demo feed for each viewer; 0 for an endless demo.
    #[arg(long, env = "H3CAST_COUNT", value_name = "N", default_value_t = 10, value_parser = values::count::<u64>)]
    pub(super) count: u64,
    /// Time between two chunks of the demo feed.
    #[arg(long, env = "H3CAST_INTERVAL", value_name = "TIME", default_value = "100ms", value_parser = values::time)]
    pub(super) interval: Duration,
    /// How input is split into chunks: after each newline (lines), or at each read (bytes; an incomplete
    /// UTF-8 character waits for its rest). With NAME= for that feed only, as in --chunk video=bytes; the
    /// same goes for --history, --lag, --stderr and --tail-lines. A flag that applies to no feed is an
    /// error, or a warning if it comes from the environment. [default: lines]
    #[arg(long, env = "H3CAST_CHUNK", value_name = "[NAME=]lines|bytes", value_delimiter = ',', value_parser = setting(chunk_at))]
    pub(super) chunk: Vec<Setting<Chunking>>,
    /// Memory for the history of a live feed, for late and returning viewers, in bytes (k, M and G are 1024,
    /// 1024² and 1024³; 8MB and 8MiB are 8M). Each chunk counts as its bytes plus about 200 bytes of overhead; up to an eighth
    /// goes to encodings that viewers share. [default: 8M, for each feed of NAME.*=publish 1M]
    #[arg(long, env = "H3CAST_HISTORY", value_name = "[NAME=]BYTES", value_delimiter = ',', value_parser = setting(values::room))]
    pub(super) history: Vec<Setting<usize>>,
    /// What to do with a viewer that falls behind the history of a live feed: skip ahead and report the gap
    /// (skip), disconnect it (disconnect), or make the source wait (block). [default: skip]
    #[arg(long, env = "H3CAST_LAG", value_name = "[NAME=]skip|disconnect|block", value_delimiter = ',', value_parser = setting(lag_policy))]
    pub(super) lag: Vec<Setting<Lag>>,
    /// Where the standard error of exec:COMMAND goes: into its feed, interleaved with standard output as in
    /// a terminal, or into the log. [default: feed for --chunk lines, log for --chunk bytes]
    #[arg(long, env = "H3CAST_STDERR", value_name = "[NAME=]feed|log", value_delimiter = ',', value_parser = setting(stderr))]
    pub(super) stderr: Vec<Setting<Stderr>>,
    /// Number of lines that tail:PATH begins with, for viewers with from=start; 0 for none. [default: 10;
    /// with --chunk bytes, 0]
    #[arg(long, env = "H3CAST_TAIL_LINES", value_name = "[NAME=]N", value_delimiter = ',', value_parser = setting(lines))]
    pub(super) tail_lines: Vec<Setting<u64>>,
    /// Run exec:COMMAND for each viewer, and end it with its viewer.
    #[arg(long, env = "H3CAST_PER_VIEWER")]
    pub(super) per_viewer: bool,
    /// With --per-viewer, send what a viewer types to the standard input of its command: for a shell or another
    /// program to talk to. Where other machines can reach the server, this needs a token, as publishing does.
    #[arg(long, env = "H3CAST_INPUT")]
    pub(super) input: bool,
    /// Run exec:COMMAND again when it ends, after a pause of 500ms. The pause doubles each time the command
    /// ends within a minute, up to 30s.
    #[arg(long, env = "H3CAST_RESTART", conflicts_with = "per_viewer")]
    pub(super) restart: bool,
    /// A secret with which clients may publish to every feed. Where other machines can reach the server,
    #[cfg_attr(feature = "jwt", doc = " publish feeds need this, --tokens or --auth.")]
    #[cfg_attr(not(feature = "jwt"), doc = " publish feeds need this or --tokens.")]
    /// Other users can see command lines: set H3CAST_PUBLISH_TOKEN, or use --tokens.
    #[arg(long, env = "H3CAST_PUBLISH_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    pub(super) publish_token: Option<String>,
    /// The longest body that one request may publish, in bytes (k, M and G as for --history).
    /// [default: no limit]
    #[arg(long, env = "H3CAST_PUBLISH_LIMIT", value_name = "BYTES", value_parser = values::room)]
    pub(super) publish_limit: Option<usize>,
    /// Server id to include in QUIC connection ids, in hexadecimal, for a load balancer that reads it
    /// (draft-ietf-quic-load-balancers).
    #[arg(long, env = "H3CAST_SERVER_ID", value_name = "HEX")]
    pub(super) server_id: Option<ServerId>,
    /// How long to keep running after Ctrl-C or SIGTERM, while /readyz answers 503 so that load balancers
    /// notice.
    #[arg(long, env = "H3CAST_DRAIN", value_name = "TIME", default_value = "0s", value_parser = values::time)]
    pub(super) drain: Duration,
    /// Open the page in a browser, on a fresh profile.
    #[arg(long, env = "H3CAST_OPEN", value_name = "BROWSER")]
    pub(super) open: Option<BrowserName>,
    /// Additional web origin allowed to read feeds (the same host and localhost always are). Can be
    /// repeated.
    #[arg(long, env = "H3CAST_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    pub(super) allow_origin: Vec<Origin>,
    /// How long streams may continue after Ctrl-C.
    #[arg(long, env = "H3CAST_GRACE", value_name = "TIME", default_value = "5s", value_parser = values::time)]
    pub(super) grace: Duration,
    /// Batch small chunks for up to TIME into one packet, to save CPU.
    #[arg(long, env = "H3CAST_COALESCE", value_name = "TIME", default_value = "0s", value_parser = coalesce)]
    pub(super) coalesce: Duration,
    /// Number of threads that serve. Under light load, a single thread uses the least CPU per chunk.
    /// [default: one per core]
    #[arg(long, env = "H3CAST_WORKERS", value_name = "N", value_parser = values::number(1..=512_u16, 4))]
    pub(super) workers: Option<u16>,
    /// Serve the page from this folder, re-read on every request, to work on it.
    #[arg(long = "static", env = "H3CAST_STATIC", value_name = "DIR")]
    pub(super) static_dir: Option<PathBuf>,
    /// Who may open the status page, /status: browsers on this machine (loopback), any client (public; with
    #[cfg_attr(feature = "jwt", doc = " --tokens or --auth, those that may read all feeds), or no one (off).")]
    #[cfg_attr(not(feature = "jwt"), doc = " --tokens, those that may read all feeds), or no one (off).")]
    #[arg(long, env = "H3CAST_STATUS", value_name = "loopback|public|off", default_value = "loopback", value_parser = status_page)]
    pub(super) status: StatusPage,
    /// What to log on stderr: error, warn, info, debug, trace or off, or directives such as
    /// h3cast_transport=debug,info.
    #[arg(long, env = "H3CAST_LOG", value_name = "LEVEL", default_value = "info")]
    pub(super) log: String,
    // Their headings are for all flags after them.
    #[cfg(feature = "store")]
    #[command(flatten)]
    pub(super) storing: super::storing::StoreArgs,
    #[cfg(feature = "nats")]
    #[command(flatten)]
    pub(super) nats: super::nats::NatsArgs,
    #[cfg(feature = "acme")]
    #[command(flatten)]
    pub(super) acme: super::acme::AcmeArgs,
    #[command(flatten)]
    pub(in crate::cli) logs: LogArgs,
    #[command(flatten)]
    pub(super) quotas: QuotaArgs,
    #[command(flatten)]
    pub(super) auth: super::auth::AuthArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

fn coalesce(text: &str) -> Result<Duration, String> {
    values::time_up_to(text, Duration::from_secs(10))
}

impl ServeArgs {
    /// Whether plain HTTP is redirected to HTTPS.
    #[cfg(feature = "acme")]
    pub(super) fn redirects(&self) -> bool {
        !self.redirect.is_empty() || self.handed_redirect
    }

    /// Where `h3cast reload` is to reach the server, if that was said.
    #[cfg(unix)]
    pub(super) fn control(&self) -> Option<&super::control::Where> {
        self.control.as_ref()
    }

    /// Whether it is to take over from another server.
    pub(super) fn takes_over(&self) -> bool {
        #[cfg(unix)]
        return self.take_over;
        #[cfg(not(unix))]
        false
    }

    /// Whether a feed of the old server need not be continued.
    #[cfg(feature = "store")]
    #[cfg_attr(not(unix), allow(unused_variables, reason = "no server takes over"))]
    pub(super) fn drops(&self, name: &str) -> bool {
        #[cfg(unix)]
        return self.take_over_drop.iter().any(|dropped| dropped.is(name));
        #[cfg(not(unix))]
        false
    }

    /// Whether what clients publish is stored externally.
    #[cfg(feature = "store")]
    pub(super) fn has_engine(&self) -> bool {
        #[cfg(feature = "nats")]
        return self.nats.engine.is_some();
        #[cfg(not(feature = "nats"))]
        false
    }

    /// Where live feeds are stored on this machine, if they are.
    #[cfg(feature = "store")]
    pub(super) fn store(&self) -> Option<&std::path::Path> {
        self.storing.store.as_deref()
    }

    /// How many threads are to serve, if that was said.
    pub(in crate::cli) fn workers(&self) -> Option<usize> {
        self.workers.map(usize::from)
    }
}

/// A value for one feed, or for all that have none of their own.
#[derive(Debug, Clone)]
pub(super) struct Setting<T> {
    pub(super) feed: Option<String>,
    value: T,
}

/// Reads `[NAME=]VALUE`.
pub(super) fn setting<T>(parse: fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Setting<T>, String> + Clone {
    move |text| {
        let (feed, value) = match text.split_once('=') {
            Some((feed, value)) => (Some(feed.to_owned()), value),
            None => (None, text),
        };
        Ok(Setting { feed, value: parse(value)? })
    }
}

/// The value that is for that feed, or for all. Two of the same are refused before.
pub(super) fn setting_of<T: Copy>(settings: &[Setting<T>], feed: &str, default: T) -> T {
    setting_for(settings, feed).unwrap_or(default)
}

pub(super) fn setting_for<T: Copy>(settings: &[Setting<T>], feed: &str) -> Option<T> {
    let of = |name: Option<&str>| settings.iter().find(|setting| setting.feed.as_deref() == name);
    of(Some(feed)).or_else(|| of(None)).map(|setting| setting.value)
}

fn chunk_at(text: &str) -> Result<Chunking, String> {
    match text {
        "lines" => Ok(Chunking::Lines),
        "bytes" => Ok(Chunking::Bytes),
        _ => Err("write lines or bytes".into()),
    }
}

fn lag_policy(text: &str) -> Result<Lag, String> {
    match text {
        "skip" => Ok(Lag::Skip),
        "disconnect" => Ok(Lag::Disconnect),
        "block" => Ok(Lag::Block),
        _ => Err("write skip, disconnect or block".into()),
    }
}

fn stderr(text: &str) -> Result<Stderr, String> {
    match text {
        "feed" => Ok(Stderr::Feed),
        "log" => Ok(Stderr::Log),
        _ => Err("write feed or log".into()),
    }
}

fn lines(text: &str) -> Result<u64, String> {
    values::number(0..=u64::MAX, 10)(text)
}

fn token(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a token is visible ASCII characters, without spaces".into()),
    }
}

fn status_page(text: &str) -> Result<StatusPage, String> {
    match text {
        "loopback" => Ok(StatusPage::Loopback),
        "public" => Ok(StatusPage::Public),
        "off" => Ok(StatusPage::Off),
        _ => Err("write loopback, public or off".into()),
    }
}

fn plain_http(text: &str) -> Result<PlainHttp, String> {
    if text == "off" {
        return Ok(PlainHttp::Off);
    }
    let listen = text.parse::<Listen>().map_err(|error| error.to_string())?;
    match listen.is_everywhere() {
        true => Err(format!(
            "`{text}` is every interface, and plain HTTP is for this machine only: write localhost{text}, or give --redirect {text} for a redirect to HTTPS"
        )),
        false => Ok(PlainHttp::At(listen)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_for_one_feed_and_for_all() {
        let read = |texts: &[&str]| -> Vec<_> { texts.iter().map(|text| setting(lag_policy)(text).unwrap()).collect() };
        let of = |texts: &[&str], feed| setting_of(&read(texts), feed, Lag::Skip);
        assert_eq!(of(&[], "log"), Lag::Skip);
        assert_eq!(of(&["block"], "log"), Lag::Block);
        // The order between the two kinds does not matter.
        for texts in [["log=disconnect", "block"], ["block", "log=disconnect"]] {
            assert_eq!((of(&texts, "log"), of(&texts, "other")), (Lag::Disconnect, Lag::Block));
        }
        let history = setting(values::size)("pipe=64M").unwrap();
        assert_eq!((history.feed.as_deref(), history.value), (Some("pipe"), 64 << 20));
        assert!(setting(values::size)("pipe=lots").is_err());
    }
}
