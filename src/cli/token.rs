//! `h3cast token`.

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use ring::rand::{SecureRandom, SystemRandom};

use super::{Failure, complain, print, values};
use crate::auth::{Claims, Pattern, SigningKey, hashed};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// Feeds that the token allows reading: names, chat.* (one part after chat), chat.> (all below chat) or *
    /// (every feed). Can be repeated.
    #[arg(long, value_name = "FEEDS", value_delimiter = ',')]
    read: Vec<Pattern>,
    /// Feeds that it allows publishing to. Can be repeated.
    #[arg(long, value_name = "FEEDS", value_delimiter = ',')]
    publish: Vec<Pattern>,
    /// Sign a JSON web token with this private key (PEM), for servers with its public key in --auth.
    #[arg(long, env = "H3CAST_TOKEN_KEY", value_name = "PEM", conflicts_with = "secret")]
    key: Option<PathBuf>,
    /// Sign a JSON web token with the secret in this file, for servers with it in --auth-secret.
    #[arg(long, env = "H3CAST_TOKEN_SECRET", value_name = "FILE")]
    secret: Option<PathBuf>,
    /// How long a signed token is valid. [default: 1h]
    #[arg(long = "for", value_name = "TIME", value_parser = values::time)]
    valid_for: Option<Duration>,
    /// Which servers a signed token is for, as in their --auth-audience. Can be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    aud: Vec<String>,
    /// Whose the token is: a name for logs and quotas.
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// The id of the key, where a server has several.
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
    /// Create a key to sign tokens with (ES256): the private one in this file, the public one beside it in
    /// NAME.pub.pem.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["read", "publish", "key", "secret", "valid_for", "aud", "sub", "kid"])]
    new_key: Option<PathBuf>,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    if let Some(path) = &args.new_key {
        return new_key(path);
    }
    if args.read.is_empty() && args.publish.is_empty() {
        let text = "the token would allow nothing: give --read FEEDS or --publish FEEDS, as in --read 'chat.*'";
        return Err(Failure::usage(anyhow!(text)));
    }
    match args.key.as_deref().or(args.secret.as_deref()) {
        Some(key) => signed(args, key),
        None => random(args),
    }
}

/// A JSON web token.
fn signed(args: &TokenArgs, path: &Path) -> Result<(), Failure> {
    let read = || format!("cannot read {}", path.display());
    let bytes = std::fs::read(path).with_context(read).map_err(Failure::usage)?;
    let key = SigningKey::parse(&bytes).with_context(|| path.display().to_string()).map_err(Failure::usage)?;
    if args.key.is_some() && key.is_secret() {
        let text = "holds no private key: give --key a PEM file, or --secret a file with a secret";
        return Err(Failure::usage(anyhow!("{} {text}", path.display())));
    }
    if args.secret.is_some() && !key.is_secret() {
        return Err(Failure::usage(anyhow!("{} holds a private key: give it to --key", path.display())));
    }
    let valid_for = args.valid_for.unwrap_or(Duration::from_secs(3600));
    let until = SystemTime::now().checked_add(valid_for).ok_or_else(|| Failure::usage(anyhow!("--for is too long")))?;
    let texts = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    let mut claims = Claims::until(until);
    (claims.read, claims.publish) = (texts(&args.read), texts(&args.publish));
    (claims.aud, claims.sub) = (args.aud.clone().into(), args.sub.clone());
    let token = key.sign(&claims, args.kid.as_deref()).map_err(Failure::running)?;
    print(&format!("{token}\n"))
}

/// A static token, and its line for the file of tokens.
fn random(args: &TokenArgs) -> Result<(), Failure> {
    for (given, flag) in
        [(args.valid_for.is_some(), "--for"), (!args.aud.is_empty(), "--aud"), (args.kid.is_some(), "--kid")]
    {
        if given {
            return Err(Failure::usage(anyhow!("{flag} is for signed tokens: give --key or --secret as well")));
        }
    }
    if let Some(name) = &args.sub
        && (name.is_empty() || name.contains(char::is_whitespace))
    {
        return Err(Failure::usage(anyhow!("--sub of a token in a file is one word")));
    }
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::running(anyhow!("the system has no random bytes")))?;
    let token = URL_SAFE_NO_PAD.encode(bytes);
    let list = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let mut words = Vec::new();
    if !args.read.is_empty() {
        words.push(format!("read={}", list(&args.read)));
    }
    if !args.publish.is_empty() {
        words.push(format!("publish={}", list(&args.publish)));
    }
    words.extend(args.sub.iter().map(|name| format!("name={name}")));
    words.push(hashed(&token));
    complain(&format!(
        "the token is below; add this line to the server's file of tokens (--tokens FILE):\n{}",
        words.join(" ")
    ));
    print(&format!("{token}\n"))
}

/// A private key in a file of its own, and the public one beside it.
fn new_key(path: &Path) -> Result<(), Failure> {
    let (private, public) = SigningKey::generate();
    let beside = path.with_extension("pub.pem");
    write_new(path, &private, true)?;
    write_new(&beside, &public, false)?;
    complain(&format!(
        "sign with `h3cast token --key {} --read FEEDS`, and verify with `h3cast serve --auth {}`",
        path.display(),
        beside.display()
    ));
    Ok(())
}

/// Creates a file; one that is there is left alone.
fn write_new(path: &Path, text: &str, secret: bool) -> Result<(), Failure> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.with_context(|| format!("cannot create {}", path.display())).map_err(Failure::usage)
}
