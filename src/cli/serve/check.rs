//! What can be known of the settings before anything is bound, started or written.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::anyhow;

use super::{
    Failure, Histories, ServeArgs, advice, complain, effect, issuer::Issuer, memory, names, names_one_host, own_key,
};
use crate::{
    Identity, Server,
    cli::{config::Places, flags, print},
    feed,
    source::{Kind, Source},
};

/// `--check`: whether the server would start with these settings.
pub(super) async fn run(sources: Vec<Source>, args: &ServeArgs, places: Arc<Places>) -> Result<(), Failure> {
    settings(&sources, args).await?;
    files(&sources).await?;
    args.auth.tokens(None).await?;
    let identity = identity(args).await?;
    server(args, identity.clone())?;
    #[cfg(feature = "store")]
    for note in super::storing::check(&sources, args).await? {
        complain(&note);
    }
    // The server logs them when it starts.
    for warning in warnings(args, &identity, places).await {
        complain(&warning);
    }
    let what = match &args.config {
        Some(file) => format!("{}: ", file.display()),
        None => String::new(),
    };
    print(&format!("{what}ok\n"))
}

/// What the server would warn of when it starts, and does not stop it.
async fn warnings(args: &ServeArgs, identity: &Identity, places: Arc<Places>) -> Vec<String> {
    let key = args.certs.key.clone();
    let exposed = move || [places.warning(), key.as_deref().and_then(own_key::warning)];
    let exposed = tokio::task::spawn_blocking(exposed).await.unwrap_or_default();
    let hosts: Vec<_> = match args.listen.as_slice() {
        [] if args.handed.is_empty() => vec!["localhost".to_owned()],
        listen => listen.iter().map(|listen| listen.host().to_owned()).filter(|host| names_one_host(host)).collect(),
    };
    let certificate = identity.certificate_path();
    let of_certificate = identity.warnings(&hosts).into_iter();
    let of_certificate = of_certificate.map(|warning| format!("the certificate {}: {warning}", certificate.display()));
    exposed.into_iter().flatten().chain(of_certificate).collect()
}

/// Whether the files are there that are served from their beginning: a feed that follows one waits for it.
pub(super) async fn files(sources: &[Source]) -> Result<(), Failure> {
    for source in sources {
        source.check().await.map_err(|error| Failure::usage(advice::advised(error, source)))?;
    }
    Ok(())
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
    server.check().map_err(|error| Failure::usage(flags::of_start(error, None, args.takes_over())))
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
            let text = format!("{} is not a folder: give --static the page's folder", dir.display());
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
    let mut names = BTreeSet::new();
    if let Some(twice) = sources.iter().find(|source| !names.insert(source.name.as_str())) {
        let twice = match twice.name.as_str() {
            feed::DEFAULT => "two sources have no name, which makes both the feed `default`".to_owned(),
            name => format!("two sources have the same name, `{name}`"),
        };
        return Err(Failure::usage(anyhow!("{twice}: give each its own, as in build=exec:make log=tail:FILE")));
    }
    effect::check(sources, args)
}
