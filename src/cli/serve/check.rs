//! What can be known of the settings before anything is bound, started or written.

use std::collections::BTreeSet;

use anyhow::anyhow;

use super::{Failure, Histories, ServeArgs, effect, issuer::Issuer, memory, names};
use crate::{
    Identity, Server,
    cli::{flags, print},
    feed,
    source::{Kind, Source},
};

/// `--check`: whether the server would start with these settings.
pub(super) async fn run(sources: Vec<Source>, args: &ServeArgs) -> Result<(), Failure> {
    settings(&sources, args).await?;
    args.auth.tokens(None).await?;
    server(args, identity(args).await?)?;
    let what = match &args.config {
        Some(file) => format!("{}: ", file.display()),
        None => String::new(),
    };
    print(&format!("{what}ok\n"))
}

/// The certificate that the server would have, as far as it can be known.
pub(super) async fn identity(args: &ServeArgs) -> Result<Identity, Failure> {
    // What a certificate authority issues is looked at by a server that starts.
    match Issuer::find(args)?.checked().await? {
        true => Identity::localhost().map_err(|error| Failure::usage(flags::of_identity(error))),
        false => args.certs.identity(names(args)).await,
    }
}

/// Whether a server can be built with these settings.
pub(super) fn server(args: &ServeArgs, identity: Identity) -> Result<(), Failure> {
    let server = args.proxies.clone().apply(Server::builder(identity)).limits(args.limits.limits());
    server.check().map_err(|error| Failure::usage(flags::of_start(error, None)))
}

/// What can be known without the files of tokens and certificates.
pub(super) async fn settings(sources: &[Source], args: &ServeArgs) -> Result<(), Failure> {
    super::auth::check(sources, args)?;
    self::sources(sources, args)?;
    folder(args).await?;
    args.logs.check().await?;
    memory::limit(args.limits.memory.unwrap_or_default(), Histories::find(sources, args))?;
    Ok(())
}

/// Whether the page's folder is there.
pub(super) async fn folder(args: &ServeArgs) -> Result<(), Failure> {
    match &args.static_dir {
        Some(dir) if !tokio::fs::metadata(dir).await.is_ok_and(|found| found.is_dir()) => {
            let text = format!("{} is no folder: give --static the page's folder", dir.display());
            Err(Failure::usage(anyhow!(text)))
        }
        _ => Ok(()),
    }
}

/// Whether each source has a name of its own, and each flag an effect.
pub(super) fn sources(sources: &[Source], args: &ServeArgs) -> Result<(), Failure> {
    // Without any, the demo is served.
    let demo = [Source { name: feed::DEFAULT.into(), kind: Kind::Demo }];
    let sources = if sources.is_empty() { &demo } else { sources };
    let names: BTreeSet<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    if names.len() < sources.len() {
        let text = "two sources have the same name: give each its own, as in build=exec:make log=tail:FILE";
        return Err(Failure::usage(anyhow!(text)));
    }
    effect::check(sources, args)
}
