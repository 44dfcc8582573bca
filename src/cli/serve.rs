//! `h3cast serve`.

mod announcement;
mod feeding;
mod stdin;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    BrowserName, CertsArgs, Failure, complain,
    log::{self, Outlet},
    note::Keeper,
    signals,
};
use crate::{
    App, Identity, Listen, PlainHttp, Server,
    browser::{Browser, Opened},
    fault,
    feed::{self, Family, Feed, Lag},
    origin::{Origin, is_loopback},
    panics,
    server::{Addresses, Advertise, DEFAULT_HTTP_PORT, ServerId},
    source::{
        Feeding, Kind, Options, Source,
        chunker::Chunking,
        command::{Commands, Stderr},
    },
};

#[derive(Debug, Args)]
pub(super) struct ServeCommand {
    /// What to stream, each a feed: demo (the default), - (standard input), exec:COMMAND (what it
    /// prints), file:PATH (from its beginning for each viewer), tail:PATH (its last lines and whatever is
    /// appended to it; pipes too),
    /// publish (what clients send, as `h3cast publish` does), nats://HOST:PORT/SUBJECT (what a NATS
    /// JetStream stream keeps of it; with * or > in it, a feed for each subject).
    /// A feed without a NAME is the one at /stream, the others are at /stream/NAME.
    #[arg(value_name = "[NAME=]SOURCE")]
    pub(super) sources: Vec<Source>,
    #[command(flatten)]
    pub(super) args: ServeArgs,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Where to listen, UDP and TCP: HTTP/3, WebTransport, HTTP/2 and 1.1. May be given several
    /// times. `localhost` is both 127.0.0.1 and [::1]; port 0 takes a free one.
    #[arg(
        long,
        env = "H3CAST_LISTEN",
        value_name = "ADDR:PORT",
        value_delimiter = ',',
        default_value = "localhost:4433"
    )]
    listen: Vec<Listen>,
    /// Where to serve plain HTTP, for this machine only: any browser opens the page there without
    /// a flag. `off` for nowhere. [default: localhost:8080, or a free port if that is in use]
    #[arg(long, env = "H3CAST_HTTP", value_name = "ADDR:PORT|off", value_parser = plain_http)]
    http: Option<PlainHttp>,
    /// What clients are to call this server, where that cannot be seen from what they use: where plain
    /// HTTP and HTTPS are forwarded from other ports, or UDP comes another way than TCP. `:PORT` for
    /// the host that the client uses. [default: the host and port that the client uses]
    #[arg(long, env = "H3CAST_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<Advertise>,
    #[command(flatten)]
    certs: CertsArgs,
    /// How many chunks the demo feed has for each viewer; 0 for no end.
    #[arg(long, env = "H3CAST_COUNT", value_name = "N", default_value_t = 10)]
    count: u64,
    /// The time between two chunks of the demo feed.
    #[arg(long, env = "H3CAST_INTERVAL", value_name = "TIME", default_value = "100ms", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Where text and bytes are cut into chunks: behind each newline (lines), or wherever a read
    /// ends (bytes; a begun UTF-8 character waits for its rest). With NAME= for that feed only, as in --chunk video=bytes; the same holds for
    /// --history and --lag. [default: lines]
    #[arg(long, env = "H3CAST_CHUNK", value_name = "[NAME=]lines|bytes", value_delimiter = ',', value_parser = setting(chunk_at))]
    chunk: Vec<Setting<Chunking>>,
    /// How much of a live feed is kept for viewers who come late or again, in bytes (K, M and G
    /// are 1024, 1024² and 1024³). [default: 8M]
    #[arg(long, env = "H3CAST_HISTORY", value_name = "[NAME=]BYTES", value_delimiter = ',', value_parser = setting(size))]
    history: Vec<Setting<usize>>,
    /// What becomes of a viewer of a live feed that is behind all that is kept: it goes on with the
    /// oldest chunk kept and is told of the gap (skip), it is cut off (disconnect), or it does not
    /// come to that, as the source waits (block). [default: skip]
    #[arg(long, env = "H3CAST_LAG", value_name = "[NAME=]skip|disconnect|block", value_delimiter = ',', value_parser = setting(lag_policy))]
    lag: Vec<Setting<Lag>>,
    /// Where the standard error of exec:COMMAND goes: into its feed, interleaved with standard output as in
    /// a terminal, or into the log. [default: feed for --chunk lines, log for --chunk bytes]
    #[arg(long, env = "H3CAST_STDERR", value_name = "[NAME=]feed|log", value_delimiter = ',', value_parser = setting(stderr))]
    stderr: Vec<Setting<Stderr>>,
    /// How many lines tail:PATH begins with, for viewers who ask for from=start; 0 for none. [default: 10,
    /// with --chunk bytes 0]
    #[arg(long, env = "H3CAST_TAIL_LINES", value_name = "[NAME=]N", value_delimiter = ',', value_parser = setting(lines))]
    tail_lines: Vec<Setting<u64>>,
    /// Run exec:COMMAND for each viewer, and end it with its viewer.
    #[arg(long, env = "H3CAST_PER_VIEWER")]
    per_viewer: bool,
    /// Run exec:COMMAND again when it ends.
    #[arg(long, env = "H3CAST_RESTART", conflicts_with = "per_viewer")]
    restart: bool,
    /// What clients must know to publish. Needed for feeds that clients publish to when anything but
    /// this machine is listened to.
    #[arg(long, env = "H3CAST_PUBLISH_TOKEN", value_name = "TOKEN", hide_env_values = true, value_parser = token)]
    publish_token: Option<String>,
    /// The longest body that one request may publish, in bytes (K, M and G as for --history).
    /// [default: no limit]
    #[arg(long, env = "H3CAST_PUBLISH_LIMIT", value_name = "BYTES", value_parser = size)]
    publish_limit: Option<usize>,
    /// Keep what clients publish in NATS JetStream, for all servers that say the same: the feed NAME at
    /// the subject PREFIX.NAME.
    #[cfg(feature = "nats")]
    #[arg(long, env = "H3CAST_ENGINE", value_name = "nats://HOST:PORT[/PREFIX]", value_parser = crate::nats::Address::engine, hide_env_values = true)]
    engine: Option<crate::nats::Address>,
    /// Make the JetStream streams that are missing, and see that those that are there are like this:
    /// replicas=3,max-age=24h,max-bytes=10G,max-messages=N,discard=old|new,storage=file|memory. They
    /// are never changed.
    #[cfg(feature = "nats")]
    #[arg(long, env = "H3CAST_ENSURE_STREAM", value_name = "SETTINGS", num_args = 0..=1, default_missing_value = "", require_equals = true)]
    ensure_stream: Option<crate::nats::Ensure>,
    /// A file with credentials for NATS, as `nsc` writes it.
    #[cfg(feature = "nats")]
    #[arg(long, env = "H3CAST_NATS_CREDS", value_name = "FILE")]
    nats_creds: Option<PathBuf>,
    /// Certificates of who vouches for the NATS servers, in PEM.
    #[cfg(feature = "nats")]
    #[arg(long, env = "H3CAST_NATS_CA", value_name = "FILE")]
    nats_ca: Option<PathBuf>,
    /// Names this server in its QUIC connection ids, in hexadecimal, for a load balancer that reads
    /// them (draft-ietf-quic-load-balancers).
    #[arg(long, env = "H3CAST_SERVER_ID", value_name = "HEX")]
    server_id: Option<ServerId>,
    /// How long to go on as before after Ctrl-C or SIGTERM, while /readyz says 503, so that load
    /// balancers notice.
    #[arg(long, env = "H3CAST_DRAIN", value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    drain: Duration,
    /// Open the page in a browser, on a fresh profile.
    #[arg(long, env = "H3CAST_OPEN", value_name = "BROWSER")]
    open: Option<BrowserName>,
    /// A web origin whose pages may read the feeds, beside those of the same host and of this
    /// machine. May be given several times.
    #[arg(long, env = "H3CAST_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    allow_origin: Vec<Origin>,
    /// How long streams may go on after Ctrl-C.
    #[arg(long, env = "H3CAST_GRACE", value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// How long a chunk may wait for others, to leave in one packet with them. A feed of many small
    /// chunks needs less processor time so.
    #[arg(long, env = "H3CAST_COALESCE", value_name = "TIME", default_value = "0s", value_parser = coalesce)]
    coalesce: Duration,
    /// How many threads serve; as many as the machine has cores if it is not given. With little to do,
    /// one alone needs less processor time for each chunk.
    #[arg(long, env = "H3CAST_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    workers: Option<u16>,
    /// Serve the page from this folder, read anew at each request, to work on it.
    #[arg(long = "static", env = "H3CAST_STATIC", value_name = "DIR")]
    static_dir: Option<PathBuf>,
    /// What to log on stderr: error, warn, info, debug, trace, or directives as for RUST_LOG.
    #[arg(long, env = "H3CAST_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
}

fn coalesce(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match time <= Duration::from_secs(10) {
        true => Ok(time),
        false => Err("chunks may wait for at most 10s".into()),
    }
}

impl ServeArgs {
    /// How many threads are to serve, if that was said.
    pub(super) fn workers(&self) -> Option<usize> {
        self.workers.map(usize::from)
    }
}

/// A value for one feed, or for all that have none of their own.
#[derive(Debug, Clone)]
struct Setting<T> {
    feed: Option<String>,
    value: T,
}

/// Reads `[NAME=]VALUE`.
fn setting<T>(parse: fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Setting<T>, String> + Clone {
    move |text| {
        let (feed, value) = match text.split_once('=') {
            Some((feed, value)) => (Some(feed.to_owned()), value),
            None => (None, text),
        };
        Ok(Setting { feed, value: parse(value)? })
    }
}

/// The last value that is for that feed, or for all.
fn setting_of<T: Copy>(settings: &[Setting<T>], feed: &str, default: T) -> T {
    setting_for(settings, feed).unwrap_or(default)
}

fn setting_for<T: Copy>(settings: &[Setting<T>], feed: &str) -> Option<T> {
    let last = |name: Option<&str>| settings.iter().rfind(|setting| setting.feed.as_deref() == name);
    last(Some(feed)).or_else(|| last(None)).map(|setting| setting.value)
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

fn size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['m', 'M']) {
            Some(digits) => (digits, 1 << 20),
            None => text.strip_suffix(['g', 'G']).map_or((text, 1), |digits| (digits, 1 << 30)),
        },
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    number.ok_or_else(|| "write a number of bytes, as in 500000, 64K or 8M".into())
}

fn lines(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a number of lines, as in 10 or log=100".into())
}

fn token(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a token is visible ASCII characters, without spaces".into()),
    }
}

fn plain_http(text: &str) -> Result<PlainHttp, crate::listen::BadListen> {
    match text {
        "off" => Ok(PlainHttp::Off),
        address => address.parse().map(PlainHttp::At),
    }
}

pub(super) async fn run(sources: Vec<Source>, args: ServeArgs) -> Result<(), Failure> {
    log::start(&args.log)?;
    let commands = Commands::with_open_files(raise_file_limit());
    let served = panics::caught_async(serve(sources, args, &commands)).await;
    // Also when it did not come to serving: what is still being ended when the process exits would stay.
    commands.stop();
    commands.ended().await;
    // The hook has logged it.
    served.unwrap_or_else(|_| Err(Failure::running(anyhow::anyhow!("ended by a panic"))))
}

/// Serves until a signal. One that comes during the start ends that at once: it may be waiting for a file, a
/// name or another server.
async fn serve(sources: Vec<Source>, args: ServeArgs, commands: &Commands) -> Result<(), Failure> {
    let is_demo = sources.is_empty();
    if let Some(reached) = args.listen.iter().find(|listen| !is_loopback(listen.host()))
        && sources.iter().any(|source| source.kind == Kind::Publish)
        && args.publish_token.is_none()
    {
        let text = "everyone who reaches {listen} could publish: give --publish-token TOKEN (or H3CAST_PUBLISH_TOKEN), which clients must then know, or listen on localhost only";
        return Err(Failure::usage(anyhow::anyhow!(text.replace("{listen}", &reached.to_string()))));
    }
    // Both are ready before anything is bound, so that no signal is missed.
    let stop = signals::stop(args.drain.saturating_add(args.grace)).map_err(Failure::running)?;
    let names: Vec<String> = args
        .listen
        .iter()
        .map(Listen::host)
        .chain(args.advertise.as_ref().and_then(Advertise::host))
        .filter(|host| names_one_host(host))
        .map(String::from)
        .collect();
    let starting = async {
        if let Some(dir) = &args.static_dir
            && !tokio::fs::metadata(dir).await.is_ok_and(|found| found.is_dir())
        {
            let text = format!("{} is no folder: give --static the page's folder", dir.display());
            return Err(Failure::usage(anyhow::anyhow!(text)));
        }
        let identity = args.certs.identity(names).await?;
        Ok((identity, start(sources, &args, commands).await?))
    };
    let Some(started) = stop.run_until_cancelled(starting).await else { return Ok(()) };
    let (identity, Running { feeds, families, feedings, of_commands }) = started?;
    let shown: Vec<String> = feeds.iter().map(|feed| feed.name().to_owned()).collect();
    let patterns = families.iter().map(|family| family.pattern().to_owned());
    let shown: Vec<String> = shown.into_iter().chain(patterns).collect();
    let live = feeds.clone();
    let app = App::new(feeds, identity.clone()).stopping(stop.clone());
    let app = families.into_iter().fold(app, App::family);
    let app = app
        .allow_origins(args.allow_origin.into_iter().collect())
        .publish_token(args.publish_token.as_deref())
        .publish_limit(args.publish_limit.map(|bytes| bytes as u64))
        .static_dir(args.static_dir)
        .coalesce(args.coalesce);
    let http = args.http.unwrap_or(PlainHttp::Near(Listen::localhost(DEFAULT_HTTP_PORT)));
    let mut builder = Server::builder(identity.clone())
        .plain_http(http)
        .grace(args.grace)
        .server_id(args.server_id)
        .advertise(args.advertise.clone());
    for listen in args.listen {
        builder = builder.listen(listen);
    }
    let Some(built) = stop.run_until_cancelled(app.install(builder).build()).await else {
        abandon(identity).await;
        return Ok(());
    };
    let server = built.map_err(Failure::usage)?;
    let note = Keeper::leave(server.addresses(), &identity).await;
    let announced = announce(&announcement::text(server.addresses(), args.advertise.as_ref(), &shown, &identity))
        .map_err(Failure::running)?;
    if server.addresses().http_moved {
        warn!(
            "localhost:{DEFAULT_HTTP_PORT} is in use by another program: plain HTTP moved to {}",
            server.addresses().http.as_deref().unwrap_or_default()
        );
    }
    let _browser = args.open.and_then(|name| open(name.into(), server.addresses(), &identity));
    // The server's own, which comes later when load balancers are to notice first.
    let ending = CancellationToken::new();
    let draining = async {
        stop.cancelled().await;
        fault::point("drain");
        // No longer when the server is not there any more.
        ending.run_until_cancelled(tokio::time::sleep(args.drain)).await;
        ending.cancel();
    };
    let serving = async {
        let served = server.run(ending.clone()).await;
        stop.cancel();
        ending.cancel();
        served
    };
    let live = feeding::Live { feeds: live, feedings, of_commands, commands: commands.clone() };
    let feeding = live.run(ending.clone(), args.grace);
    let hint = async {
        if is_demo && stop.run_until_cancelled(stdin::is_left_unread()).await == Some(true) {
            complain("standard input is not read: `h3cast serve -` serves what comes on standard input");
        }
    };
    let ((), served, (), (), ()) = tokio::join!(draining, serving, feeding, note.keep(ending.clone()), hint);
    // Nobody has to read it.
    let _ = announced.flush(PATIENCE.1);
    served.map_err(Failure::running)
}

/// Leaves the folder of certificates as it is, or with all that was to be stored there.
async fn abandon(identity: Identity) {
    // A folder that does not answer is not waited for.
    let _ = tokio::time::timeout(PATIENCE.1, tokio::task::spawn_blocking(move || identity.abandon())).await;
}

/// What sources have become.
#[derive(Default)]
struct Running {
    feeds: Vec<Feed>,
    families: Vec<Arc<dyn Family>>,
    /// Each with the name of what it feeds.
    feedings: Vec<(String, Feeding)>,
    /// The names of those that a command feeds.
    of_commands: BTreeSet<String>,
}

/// Starts every source, or none.
async fn start(mut sources: Vec<Source>, args: &ServeArgs, commands: &Commands) -> Result<Running, Failure> {
    if sources.is_empty() {
        sources.push(Source { name: feed::DEFAULT.into(), kind: Kind::Demo });
    }
    let look = move || (stdin::shared(&sources), sources);
    let (shared, sources) = tokio::task::spawn_blocking(look).await.map_err(Failure::running)?;
    let names: BTreeSet<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    if names.len() < sources.len() {
        let text = "two sources have the same name: give each its own, as in build=exec:make log=tail:FILE";
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    if let Some((one, other)) = shared {
        let text = format!(
            "the feeds `{one}` and `{other}` both read standard input, so each line would reach only one of them: give one source; any number of viewers can read its feed"
        );
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    let named = args.chunk.iter().map(|setting| &setting.feed);
    let named = named.chain(args.history.iter().map(|setting| &setting.feed));
    let named = named.chain(args.lag.iter().map(|setting| &setting.feed));
    let named = named.chain(args.stderr.iter().map(|setting| &setting.feed));
    let named = named.chain(args.tail_lines.iter().map(|setting| &setting.feed));
    if let Some(unknown) = named.flatten().find(|name| !names.contains(name.as_str())) {
        let text = format!(
            "there is no feed `{unknown}`: --chunk, --history, --lag, --stderr and --tail-lines are for {}",
            list(&names)
        );
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    let is_command = |source: &Source| matches!(source.kind, Kind::Exec(_));
    let of_commands: BTreeSet<_> =
        sources.iter().filter(|source| is_command(source)).map(|source| source.name.clone()).collect();
    if let Some(other) =
        args.stderr.iter().filter_map(|setting| setting.feed.as_ref()).find(|name| !of_commands.contains(*name))
    {
        let text = format!("`{other}` is not fed by a command: --stderr is for exec:COMMAND");
        return Err(Failure::usage(anyhow::anyhow!(text)));
    }
    #[cfg(feature = "nats")]
    let nats = {
        let mut options = crate::nats::NatsOptions::default();
        (options.credentials, options.ca) = (args.nats_creds.clone(), args.nats_ca.clone());
        options.ensure = args.ensure_stream.clone();
        crate::nats::Connections::new(options)
    };
    let options: Vec<_> = sources
        .iter()
        .map(|Source { name, .. }| (name, setting_of(&args.chunk, name, Chunking::Lines)))
        .map(|(name, chunking)| Options {
            chunking,
            stderr: setting_of(&args.stderr, name, Stderr::of(chunking)),
            commands: commands.clone(),
            history: setting_of(&args.history, name, feed::DEFAULT_HISTORY),
            lag: setting_of(&args.lag, name, Lag::Skip),
            tail_lines: setting_for(&args.tail_lines, name),
            per_viewer: args.per_viewer,
            restart: args.restart,
            count: args.count,
            interval: args.interval,
            #[cfg(feature = "nats")]
            nats: nats.clone(),
            #[cfg(feature = "nats")]
            engine: args.engine.clone(),
        })
        .collect();
    let mut running = Running { of_commands, ..Running::default() };
    for (source, options) in sources.into_iter().zip(options) {
        let name = source.name.clone();
        let started = source.start(&options).await.map_err(Failure::usage)?;
        running.feeds.extend(started.feed);
        running.families.extend(started.family);
        running.feedings.extend(started.feeding.map(|feeding| (name, feeding)));
    }
    Ok(running)
}

fn list(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

/// A host that a certificate can name: not a wildcard address.
fn names_one_host(host: &str) -> bool {
    !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// Allows as many open files as the system lets us have: a command has two pipes, a connection a socket,
/// and a shell gives 1,024. Gives the limit that was raised, which is that of the commands.
fn raise_file_limit() -> Option<u64> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        // When it cannot be raised, it stays as it was.
        if limit.current != limit.maximum && setrlimit(Resource::Nofile, raised).is_ok() {
            return limit.current;
        }
    }
    None
}

/// How long standard output may take what is printed there, before the log has a line about it; and when
/// the process ends.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// Prints to standard output, without waiting for whoever reads it.
fn announce(text: &str) -> std::io::Result<Outlet> {
    let outlet = Outlet::start("stdout", log::stdout())?;
    outlet.write(text.as_bytes());
    let printed = outlet.clone();
    std::thread::Builder::new().name("stdout watch".into()).spawn(move || {
        if let Err(error) = printed.flush(PATIENCE.0) {
            warn!("cannot print the addresses on standard output, running without: {error}");
        }
    })?;
    Ok(outlet)
}

fn open(browser: Browser, addresses: &Addresses, identity: &Identity) -> Option<Opened> {
    let page = announcement::page_url(addresses);
    let plain = addresses.http.as_ref().map_or_else(|| page.clone(), |http| format!("http://{http}/"));
    let certificate = identity.certificate_for(crate::browser::host(&page));
    let (hash, spki) = (certificate.hash(), certificate.spki_hash());
    match browser.open(&page, &hash, &spki) {
        Ok(opened) => Some(opened),
        Err(error) => {
            complain(&format!("{error}. Open it by hand:\n{}", browser.command(&page, &plain, &spki)));
            None
        }
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
        // The order between the two kinds does not matter, among the same kind the last one counts.
        for texts in [["log=disconnect", "block"], ["block", "log=disconnect"]] {
            assert_eq!((of(&texts, "log"), of(&texts, "other")), (Lag::Disconnect, Lag::Block));
        }
        assert_eq!(of(&["log=block", "log=disconnect"], "log"), Lag::Disconnect);
        let history = setting(size)("pipe=64M").unwrap();
        assert_eq!((history.feed.as_deref(), history.value), (Some("pipe"), 64 << 20));
        assert!(setting(size)("pipe=lots").is_err());
    }
}
