//! What the commands have in common that speak to a server: whom they trust, what they tell, and
//! how signals end them.

use std::{
    path::PathBuf,
    time::{Duration, Instant, SystemTime},
};

use clap::{ArgMatches, Args, Command, FromArgMatches, parser::ValueSource};
use http::{HeaderMap, Request, StatusCode, Uri, header};

use super::{DEFAULT_CERTS, Failure, complain, log, signals, untrusted};
use crate::{
    client::{ClientError, Connection, Token, Trust, UrlProblem, url},
    identity::Fingerprint,
    note::{self, Note},
    origin::{is_loopback, split_authority},
    server::{DEFAULT_HTTP_PORT, DEFAULT_PORT},
    shown::Shown,
};

#[derive(Debug, Args)]
pub(super) struct TrustArgs {
    /// Folder whose certificate is trusted for any host, as --certs of `serve`. Without it, servers
    /// that you run on this machine are found automatically, and `certs` in the current folder is
    /// trusted for this machine only.
    #[arg(long, env = "H3CAST_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// Trust the certificates in this file (PEM or DER), and those that they signed.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cert_hash", "insecure"])]
    cacert: Option<PathBuf>,
    /// Trust the server whose certificate (DER) has this SHA-256, and no other.
    #[arg(long, value_name = "HEX", value_parser = fingerprint, conflicts_with = "insecure")]
    cert_hash: Option<Fingerprint>,
    /// Skip certificate verification (INSECURE: allows man-in-the-middle attacks).
    #[arg(long)]
    insecure: bool,
}

/// What is shown to a server that asks for a token. What stands on the command line counts before the environment.
#[derive(Debug)]
pub(super) struct TokenArgs(GivenToken);

#[derive(Debug, Args)]
struct GivenToken {
    /// The token for a server that asks for one. Other users can see command lines: set H3CAST_TOKEN, or use
    /// --token-file.
    #[arg(long, env = "H3CAST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The file that holds the token. It is read again whenever the server is connected to, so that a token
    /// that ends can be replaced.
    #[arg(long, env = "H3CAST_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Args for TokenArgs {
    fn augment_args(command: Command) -> Command {
        GivenToken::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        GivenToken::augment_args_for_update(command)
    }
}

impl FromArgMatches for TokenArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Self::from_arg_matches_mut(&mut matches.clone())
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        let is_given = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        let only_token = is_given("token") && !is_given("token_file");
        let mut given = GivenToken::from_arg_matches_mut(matches)?;
        if only_token {
            given.token_file = None;
        }
        Ok(Self(given))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl TokenArgs {
    /// The token, if there is one; `or` is another variable that may hold it.
    pub(super) fn token(&self, or: Option<&str>) -> Result<Option<Token>, Failure> {
        if let Some(file) = &self.0.token_file {
            return Ok(Some(Token::file(file)));
        }
        let other = or.filter(|_| self.0.token.is_none()).and_then(|name| Some((name, std::env::var_os(name)?)));
        let other = other.filter(|(_, token)| !token.is_empty()).map(|(name, token)| {
            let wrong = |_| Failure::usage(anyhow::anyhow!("{name}: the value is not valid UTF-8"));
            token.into_string().map_err(wrong)
        });
        let Some(token) = self.0.token.clone().or(other.transpose()?) else { return Ok(None) };
        match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Some(Token::fixed(token))),
            false => Err(Failure::usage(anyhow::anyhow!("a token has one or more visible ASCII characters"))),
        }
    }
}

/// The headers that show it.
pub(super) async fn shown_token(token: Option<&Token>) -> Result<HeaderMap, Failure> {
    let Some(token) = token else { return Ok(HeaderMap::new()) };
    let value = token.header().await.map_err(Failure::usage)?;
    Ok([(header::AUTHORIZATION, value)].into_iter().collect())
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::from_hex(text).ok_or_else(|| "a SHA-256 hash has 64 hexadecimal digits".into())
}

impl TrustArgs {
    /// The folder of the server's certificate, if it was named.
    pub(super) fn certs(&self) -> Option<&std::path::Path> {
        self.certs.as_deref()
    }

    /// Whether it was said by what the server is known, other than by its folder.
    pub(super) fn is_stated(&self) -> bool {
        self.cacert.is_some() || self.cert_hash.is_some() || self.insecure
    }

    pub(super) fn trust(&self) -> Result<Trust, Failure> {
        if self.insecure {
            complain("--insecure: the server is not checked, anyone could be answering");
            return Ok(Trust::Anyone);
        }
        if let Some(hash) = self.cert_hash {
            return Ok(Trust::Hashes(vec![hash]));
        }
        if let Some(file) = &self.cacert {
            return Trust::file(file.clone()).map_err(failure);
        }
        if let Some(folder) = self.certs.as_ref().filter(|folder| !folder.is_dir()) {
            let text = "is not a folder: name the one that the server uses, or leave --certs (H3CAST_CERTS) out";
            return Err(Failure::usage(anyhow::anyhow!("--certs: {} {text}", folder.display())));
        }
        let certs = self.certs.clone().unwrap_or_else(|| DEFAULT_CERTS.into());
        Ok(Trust::Local { certs: Some(certs), anywhere: self.certs.is_some() })
    }
}

/// By which an answer to a GET names its session, and a POST the session of its input. A secret: who knows it may send
/// to the command.
pub(super) const SESSION: &str = "h3cast-session";

/// What is told on stderr with `-v`.
#[derive(Debug, Clone)]
pub(super) struct Log {
    verbose: bool,
    start: Instant,
}

impl Log {
    pub(super) fn new(verbose: bool) -> Self {
        Self { verbose, start: Instant::now() }
    }

    pub(super) fn say(&self, text: std::fmt::Arguments<'_>) {
        if self.verbose {
            let (time, text) = (self.start.elapsed().as_secs_f64() * 1000.0, Shown(text));
            log::write(&format!("{time:8.1} ms  {text}\n"));
        }
    }

    pub(super) fn headers(&self, headers: &HeaderMap) {
        for (name, value) in headers {
            // What lets others act for this client does not belong into logs.
            let is_secret = *name == SESSION || *name == header::SET_COOKIE || value.is_sensitive();
            let value = if is_secret { "(hidden)".into() } else { String::from_utf8_lossy(value.as_bytes()) };
            self.say(format_args!("< {name}: {value}"));
        }
    }
}

/// How long a signal waits for an orderly end.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(1);

/// Completes at a signal that ends the program, with the failure that this is. A second one, or an end that
/// takes longer than `wait`, ends the process after `before_exit`, which must not block.
pub(super) fn interrupted(
    wait: Duration,
    before_exit: impl FnOnce() + Send + 'static,
) -> Result<impl Future<Output = Failure>, Failure> {
    signals::interrupted(wait, before_exit).map_err(Failure::running)
}

/// The URL of a resource; `https://host` means its root.
pub(super) fn url(text: &str) -> Result<Uri, Failure> {
    url::parse(text).map_err(|error| {
        let error = match over_tls(text) {
            Some(instead) => error.but(instead),
            None => error,
        };
        Failure::usage(match error.problem() {
            problem @ UrlProblem::Credentials => anyhow::anyhow!(
                "cannot open `{}`: {problem} (a token is given with --token-file or H3CAST_TOKEN); write {}",
                error.url(),
                error.instead()
            ),
            _ => error.into(),
        })
    })
}

/// What to write instead of a URL of plain HTTP on this machine, where more is known than the URL says: the
/// server's note has its other ports.
fn over_tls(text: &str) -> Option<String> {
    let (host, port, path) = url::plain(text).filter(|(host, ..)| is_loopback(host))?;
    let notes = note::find();
    let is_plain =
        |note: &&Note| note.http.as_deref().and_then(split_authority).is_some_and(|(_, its)| its == Some(port));
    if let Some(note) = notes.iter().find(is_plain) {
        let address = note.addresses.first()?;
        let (listens, port) = split_authority(address)?;
        let everywhere = matches!(listens.trim_matches(['[', ']']), "0.0.0.0" | "::");
        return Some(match port {
            Some(port) if everywhere && host.contains(':') => format!("https://[{host}]:{port}{path}"),
            Some(port) if everywhere => format!("https://{host}:{port}{path}"),
            _ => format!("https://{address}{path}"),
        });
    }
    if let Some(note) = notes.iter().find(|note| note.has_port(port)) {
        // That is not plain HTTP.
        let address = note.addresses.iter().find(|at| split_authority(at).is_some_and(|(_, its)| its == Some(port)))?;
        return Some(format!("https://{address}{path}"));
    }
    // The default one has its default counterpart.
    (port != DEFAULT_HTTP_PORT).then(|| {
        let path = if path.is_empty() { "/" } else { path };
        format!("the https URL that the server printed at its start, as in https://localhost:{DEFAULT_PORT}{path}")
    })
}

/// The longest explanation of a refusal, in bytes.
const LONGEST_PROBLEM: usize = 64 << 10;

/// Asks over HTTP/3, and gives the answer with no more of its body than `longest` bytes and a piece; of a refusal, with
/// less.
pub(super) async fn ask(
    url: &Uri,
    trust: &Trust,
    headers: HeaderMap,
    longest: usize,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), Failure> {
    let connection = Connection::open(url, trust).await.map_err(failure)?;
    let mut request = Request::new(());
    *request.uri_mut() = url.clone();
    *request.headers_mut() = headers;
    let mut response = connection.request(request).await.map_err(failure)?;
    let longest = if response.status.is_success() { longest } else { longest.min(LONGEST_PROBLEM) };
    let mut body = Vec::new();
    while body.len() < longest
        && let Some(bytes) = response.body.next().await.map_err(failure)?
    {
        body.extend_from_slice(&bytes);
    }
    let (status, headers) = (response.status, std::mem::take(&mut response.headers));
    drop(response);
    connection.close().await;
    Ok((status, headers, body))
}

/// What went wrong with a connection, and what to do.
pub(super) fn failure(error: impl Into<anyhow::Error>) -> Failure {
    let error = error.into();
    let client = error.chain().find_map(|error| error.downcast_ref::<ClientError>());
    match client {
        Some(ClientError::Uri(_) | ClientError::Certificate { .. }) => Failure::usage(error),
        Some(ClientError::Untrusted { authority, refusal }) => {
            Failure::running(anyhow::anyhow!(untrusted::in_words(authority, refusal, SystemTime::now())))
        }
        Some(ClientError::Connect { untrusted: true, .. }) => Failure::running(anyhow::anyhow!(
            "{error}: give --cacert PEM or --cert-hash HEX (`h3cast cert` shows both)"
        )),
        _ => Failure::running(error),
    }
}
