//! Who may read and write, as arguments.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use tracing::warn;

use super::args::ServeArgs;
use crate::{
    auth::{DEFAULT_COOKIE, Pattern, SHORTEST_TOKEN, Tokens, TokensError},
    cli::Failure,
    feed,
    origin::{is_loopback, split_authority},
    source::{Kind, Source},
};

/// Without `--auth` and `--tokens`, everyone who reaches the server may read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Who may read and write")]
pub(super) struct AuthArgs {
    /// Let clients read and write with JSON web tokens signed by these keys: a file of public keys (PEM) or a
    /// JWKS, or the https URL of a JWKS. RS256, ES256 and EdDSA, each key for its own algorithm. Claims: `exp`
    /// (required), `nbf`, `aud`, `sub`, and `read` and `publish`, lists of feeds. Files are read again when they
    /// change, URLs every 5 min. Can be repeated.
    #[cfg(feature = "jwt")]
    #[arg(long, env = "H3CAST_AUTH", value_name = "FILE|URL", value_delimiter = ',')]
    auth: Vec<String>,
    /// The same with a shared secret (HS256): a file of at least 32 bytes. Can be repeated.
    #[cfg(feature = "jwt")]
    #[arg(long, env = "H3CAST_AUTH_SECRET", value_name = "FILE", value_delimiter = ',')]
    auth_secret: Vec<PathBuf>,
    /// The audience (`aud`) that tokens must be for. Without it, tokens must not have one. Can be repeated.
    #[cfg(feature = "jwt")]
    #[arg(long, env = "H3CAST_AUTH_AUDIENCE", value_name = "NAME", value_delimiter = ',')]
    auth_audience: Vec<String>,
    /// CA certificates (PEM) for the URL of --auth, in addition to those that the system trusts.
    #[cfg(feature = "jwt")]
    #[arg(long, env = "H3CAST_AUTH_CA", value_name = "FILE")]
    auth_ca: Option<PathBuf>,
    /// Let clients read and write by the tokens in this file, one on each line: read=FEEDS publish=FEEDS
    #[cfg_attr(
        feature = "jwt",
        doc = " name=NAME TOKEN. `h3cast token` makes such lines. Read again when it changes."
    )]
    #[cfg_attr(not(feature = "jwt"), doc = " name=NAME TOKEN. Read again when it changes.")]
    /// Can be repeated.
    #[arg(long, env = "H3CAST_TOKENS", value_name = "FILE", value_delimiter = ',')]
    tokens: Vec<PathBuf>,
    #[cfg_attr(
        feature = "jwt",
        doc = " Feeds that everyone may read without a token, where there is --auth or --tokens:"
    )]
    #[cfg_attr(not(feature = "jwt"), doc = " Feeds that everyone may read without a token, where there is --tokens:")]
    /// names, chat.* (one part after chat), chat.> (all below chat) or * (every feed). Can be repeated.
    #[arg(long, env = "H3CAST_PUBLIC", value_name = "FEEDS", value_delimiter = ',')]
    public: Vec<Pattern>,
    /// The cookie in which pages may send a token. [default: h3cast_token]
    #[arg(long, env = "H3CAST_AUTH_COOKIE", value_name = "NAME", value_parser = cookie)]
    auth_cookie: Option<String>,
    /// Where the page gets a new token when its own ends: a path of the same origin, served by you. It is sent
    /// a POST with the page's cookies, and answers with a token. Without it the page asks its user for one.
    #[arg(long, env = "H3CAST_AUTH_RENEWAL", value_name = "PATH", value_parser = path)]
    auth_renewal: Option<String>,
}

/// The flags that let clients in by tokens: without JSON web tokens there is one.
const FLAGS: &str = if cfg!(feature = "jwt") { "--tokens or --auth" } else { "--tokens" };
/// The same, where a token has to be made yet.
const TOKENS: &str =
    if cfg!(feature = "jwt") { "--tokens FILE (`h3cast token` makes one), --auth" } else { "--tokens FILE" };

fn cookie(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err("the name of a cookie is ASCII letters and digits, `-` and `_`".into()),
    }
}

fn path(text: &str) -> Result<String, String> {
    let own = text.starts_with('/') && !text.starts_with("//") && !text.contains('\\');
    match own && text.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("write a path of the same origin, as in /login/token".into()),
    }
}

impl AuthArgs {
    /// Whether clients need a token.
    pub(super) fn is_on(&self) -> bool {
        #[cfg(feature = "jwt")]
        let keys = !self.auth.is_empty() || !self.auth_secret.is_empty();
        #[cfg(not(feature = "jwt"))]
        let keys = false;
        keys || !self.tokens.is_empty()
    }

    /// Where pages renew their token.
    pub(super) fn renewal(&self) -> Option<String> {
        self.auth_renewal.clone()
    }

    /// The same with the page's way to a new token of others.
    pub(super) fn renewing_as(mut self, others: &Self) -> Self {
        self.auth_renewal.clone_from(&others.auth_renewal);
        self
    }

    /// Who may do what; `None` if everyone may read. They take the place of `earlier` ones, if there are any.
    pub(super) async fn tokens(&self, earlier: Option<&Tokens>) -> Result<Option<Tokens>, Failure> {
        let usage = |text: &str| Failure::usage(anyhow!("{text}"));
        if !self.is_on() {
            for (given, flag) in [
                (!self.public.is_empty(), "--public"),
                (self.auth_cookie.is_some(), "--auth-cookie"),
                (self.auth_renewal.is_some(), "--auth-renewal"),
            ] {
                if given {
                    return Err(usage(&format!(
                        "{flag} has no effect without {FLAGS}: everyone who reaches the server may read"
                    )));
                }
            }
        }
        #[cfg(feature = "jwt")]
        if self.auth.is_empty() && (!self.auth_audience.is_empty() && self.auth_secret.is_empty()) {
            return Err(usage("--auth-audience is for JSON web tokens: give --auth or --auth-secret as well"));
        }
        #[cfg(feature = "jwt")]
        if self.auth_ca.is_some() && !self.auth.iter().any(|from| from.starts_with("https://")) {
            return Err(usage("--auth-ca is for the https URL of --auth: give one, or leave it out"));
        }
        if !self.is_on() {
            return Ok(None);
        }
        let tokens = earlier.map_or_else(Tokens::new, |earlier| Tokens::new().after(earlier));
        let mut tokens = tokens.public(self.public.iter().cloned());
        tokens = tokens.cookie(self.auth_cookie.as_deref().unwrap_or(DEFAULT_COOKIE));
        for file in &self.tokens {
            tokens = tokens.file(file).await.map_err(|error| failed("--tokens", error))?;
        }
        #[cfg(feature = "jwt")]
        {
            tokens = tokens.audiences(self.auth_audience.iter().cloned());
            for file in &self.auth_secret {
                tokens = tokens.secret(file).await.map_err(|error| failed("--auth-secret", error))?;
            }
            for from in &self.auth {
                tokens = match super::fetch::url(from)? {
                    Some(url) => {
                        let fetch = super::fetch::fetcher(&url, self.auth_ca.as_deref())?;
                        tokens.keys_from(from.as_str(), fetch).await
                    }
                    None => tokens.keys(from).await.map_err(|error| failed("--auth", error))?,
                };
            }
        }
        let looked = tokens.clone();
        let warnings = tokio::task::spawn_blocking(move || looked.warnings()).await.unwrap_or_default();
        for warning in warnings {
            warn!("{warning}");
        }
        Ok(Some(tokens))
    }
}

/// With the flag that helps.
fn failed(flag: &str, error: TokensError) -> Failure {
    #[cfg(feature = "jwt")]
    {
        use crate::auth::KeyError;
        let source = match &error {
            TokensError::Keys { source, .. } => Some(source),
            _ => None,
        };
        let help = match source {
            Some(KeyError::Unknown) => " (--auth-secret takes a secret of HS256)",
            Some(KeyError::NotSecret) => " (--auth takes public keys)",
            Some(KeyError::Short(_)) => " (`h3cast token --new-key FILE` makes a key)",
            _ => "",
        };
        if !help.is_empty() {
            return Failure::usage(anyhow!("{flag}: {error}{help}"));
        }
    }
    let help = if cfg!(feature = "jwt") { " (`h3cast token` makes such lines)" } else { "" };
    Failure::usage(match error {
        // Its text has its cause.
        TokensError::Tokens { .. } => anyhow!("{flag}: {error}{help}"),
        #[cfg(feature = "jwt")]
        TokensError::Keys { .. } => anyhow!("{flag}: {error}"),
        error => anyhow::Error::from(error).context(flag.to_owned()),
    })
}

/// Where other machines reach the server, if they do: an address that is not this machine's, or what a proxy or
/// a load balancer is told.
///
/// `bound`: the addresses of the server, where it listens already.
fn reached(args: &ServeArgs, bound: &[String]) -> Option<String> {
    let beyond = args.listen.iter().find(|listen| !is_loopback(listen.host())).map(|listen| {
        let mut ports = bound.iter().filter_map(|at| split_authority(at));
        let port = ports.find(|(host, _)| !is_loopback(host)).and_then(|(_, port)| port);
        let text = listen.to_string();
        match (port, text.strip_suffix(":0")) {
            (Some(port), Some(host)) => format!("{host}:{port}"),
            _ => text,
        }
    });
    let handed = || args.handed.iter().find(|at| !at.ip().to_canonical().is_loopback()).map(ToString::to_string);
    let advertised = || args.advertise.as_ref().filter(|at| at.host().is_some_and(|host| !is_loopback(host)));
    let proxied = || args.proxies.are_trusted().then(|| "the proxy".to_owned());
    beyond.or_else(handed).or_else(|| advertised().map(ToString::to_string)).or_else(proxied)
}

/// Beyond this machine nothing is written without a token.
pub(super) fn check(sources: &[Source], args: &ServeArgs) -> Result<(), Failure> {
    let Some(reached) = reached(args, &[]) else { return Ok(()) };
    let writable = sources.iter().find(|source| source.kind == Kind::Publish);
    if args.publish_token.as_ref().is_some_and(|token| token.len() < SHORTEST_TOKEN) {
        return Err(Failure::usage(anyhow!(
            "the token of --publish-token (H3CAST_PUBLISH_TOKEN) has fewer than {SHORTEST_TOKEN} characters, and those who reach {reached} could guess it: take a random one, or listen on localhost only"
        )));
    }
    if args.publish_token.is_some() || args.auth.is_on() {
        return Ok(());
    }
    let takes_input = |source: &&Source| matches!(source.kind, Kind::Exec(_)) && args.per_viewer && args.input;
    let written = writable.map(|source| (source, "publish to"));
    let typed = || Some((sources.iter().find(takes_input)?, "send input to the command of"));
    match written.or_else(typed) {
        Some((source, what)) => Err(Failure::usage(anyhow!(
            "everyone who reaches {reached} could {what} `{}`: give {TOKENS}, or --publish-token (H3CAST_PUBLISH_TOKEN), or listen on localhost only",
            source.name
        ))),
        None => Ok(()),
    }
}

/// The patterns of --public that match no feed.
pub(super) fn public_without_feeds(sources: &[Source], args: &ServeArgs) -> Vec<String> {
    if !args.auth.is_on() {
        // Then all of --public is refused.
        return Vec::new();
    }
    let mut names: Vec<String> = sources.iter().map(feeds_of).collect();
    if names.is_empty() {
        names.push(feed::DEFAULT.into());
    }
    let matches = |pattern: &&Pattern| names.iter().any(|name| pattern.common(name).is_some());
    args.auth.public.iter().filter(|pattern| !matches(pattern)).map(ToString::to_string).collect()
}

/// The name of a source's feed, or a pattern of the names of its feeds.
fn feeds_of(source: &Source) -> String {
    match &source.kind {
        #[cfg(feature = "nats")]
        Kind::Nats(address) if address.is_wildcard() => match source.name.as_str() {
            feed::DEFAULT => ">".into(),
            name => format!("{name}.>"),
        },
        _ => source.name.clone(),
    }
}

/// Feeds that a sentence names.
const NAMED: usize = 5;

/// Who can read, publish and send input to commands, in a sentence. `bound`: the addresses of the server.
pub(super) fn access(args: &ServeArgs, sources: &[Source], feeds: &[String], bound: &[String]) -> String {
    let reached = reached(args, bound);
    let who = match &reached {
        Some(at) => format!("anyone who reaches {at}"),
        None => "anyone on this machine".into(),
    };
    let list = |names: &[String]| {
        let more = names.len().saturating_sub(NAMED);
        let named = names[..names.len().min(NAMED)].join(", ");
        if more > 0 { format!("{named} and {more} more") } else { named }
    };
    let writable = sources.iter().filter(|source| source.kind == Kind::Publish);
    let writable: Vec<String> = writable.map(|source| source.name.clone()).collect();
    let needs_token = match writable.as_slice() {
        [] => String::new(),
        writable => format!("; publishing to {} needs a token", list(writable)),
    };
    if !args.auth.is_on() {
        let advice = if reached.is_some() { format!(" ({FLAGS} lets only some)") } else { String::new() };
        if args.publish_token.is_some() {
            return format!("{who} can read {}{advice}{needs_token}", list(feeds));
        }
        let mut may = vec![format!("read {}", list(feeds))];
        may.extend((!writable.is_empty()).then(|| format!("publish to {}", list(&writable))));
        may.extend((args.per_viewer && args.input).then(|| "send input to commands".to_owned()));
        if let [_, .., last] = may.as_mut_slice() {
            last.insert_str(0, "and ");
        }
        let may = may.join(", ");
        return format!("{who} can {may}{advice}");
    }
    let mut open: Vec<String> = Vec::new();
    let mut all = true;
    for feed in feeds {
        let public: Vec<_> = args.auth.public.iter().filter_map(|pattern| pattern.common(feed)).collect();
        let whole = public.contains(feed);
        all &= whole;
        // Of a family, everyone may be able to read a part.
        for name in if whole { vec![feed.clone()] } else { public } {
            if !open.contains(&name) {
                open.push(name);
            }
        }
    }
    match open.as_slice() {
        [] if writable.is_empty() => "nothing can be read without a token".into(),
        [] => format!("nothing can be read, or published to {}, without a token", list(&writable)),
        open if all => format!("{who} can read {}{needs_token}", list(open)),
        open => format!(
            "{who} can read {}; the rest needs a token{}",
            list(open),
            needs_token.replace("; publishing", ", and publishing")
        ),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Given {
        #[command(flatten)]
        serve: ServeArgs,
    }

    #[test]
    fn who_can_read_a_part_of_a_family() {
        for (public, feeds, said) in [
            ("chat.lobby", &["chat.*"][..], "can read chat.lobby; the rest needs a token"),
            ("chat.lobby", &["log", "chat.*"], "can read chat.lobby; the rest needs a token"),
            ("chat.lobby,chat.*", &["chat.*"], "can read chat.*"),
            ("chat.>", &["chat.*"], "can read chat.*"),
            ("chat.*", &["chat.>"], "can read chat.*; the rest needs a token"),
            ("*.lobby", &["chat.>", "chat.*"], "can read chat.lobby; the rest needs a token"),
            ("*", &["log", "chat.>"], "can read log, chat.>"),
            ("log", &["log", "chat.*"], "can read log; the rest needs a token"),
            ("chat,chat.a.b,chats.a", &["chat.*"], "nothing can be read without a token"),
        ] {
            let given = Given::parse_from(["h3cast", "--tokens", "file", "--public", public]);
            let feeds: Vec<String> = feeds.iter().copied().map(String::from).collect();
            let access = access(&given.serve, &[], &feeds, &[]);
            assert!(access.ends_with(said), "{public} {feeds:?}: {access}");
        }
    }

    #[test]
    fn who_can_publish() {
        let sources: Vec<Source> = ["log=-", "chat=publish", "room.*=publish"].map(|text| text.parse().unwrap()).into();
        let feeds: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
        for (args, said) in [
            (&[][..], "anyone on this machine can read log, chat, room.*, and publish to chat, room.*"),
            (
                &["--publish-token", "secret-of-mine"],
                "can read log, chat, room.*; publishing to chat, room.* needs a token",
            ),
            (&["--tokens", "file"], "nothing can be read, or published to chat, room.*, without a token"),
            (
                &["--tokens", "file", "--public", "log"],
                "can read log; the rest needs a token, and publishing to chat, room.* needs a token",
            ),
            (
                &["--tokens", "file", "--public", ">"],
                "can read log, chat, room.*; publishing to chat, room.* needs a token",
            ),
            (
                &["--per-viewer", "--input"],
                "can read log, chat, room.*, publish to chat, room.*, and send input to commands",
            ),
            (
                &["--listen", ":0"],
                "can read log, chat, room.*, and publish to chat, room.* (--tokens or --auth lets only some)",
            ),
        ] {
            let given = Given::parse_from([&["h3cast"], args].concat());
            let access = access(&given.serve, &sources, &feeds, &[]);
            assert!(access.ends_with(&said.replace("--tokens or --auth", FLAGS)), "{args:?}: {access}");
        }
    }

    #[test]
    fn who_can_type_into_commands() {
        for (args, said) in [
            (&["--per-viewer", "--input"][..], "can read sh, and send input to commands"),
            (&["--per-viewer", "--input", "--publish-token", "secret-of-mine"], "can read sh"),
            (&["--per-viewer"], "can read sh"),
        ] {
            let given = Given::parse_from([&["h3cast"], args].concat());
            let access = access(&given.serve, &[], &["sh".into()], &[]);
            assert!(access.ends_with(said), "{args:?}: {access}");
        }
    }
}
