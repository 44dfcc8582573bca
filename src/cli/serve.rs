//! `h3cast serve`.

#[cfg(feature = "acme")]
mod acme;
mod advice;
mod announcement;
mod args;
mod auth;
mod check;
#[cfg_attr(not(unix), path = "serve/no_control.rs")]
pub(super) mod control;
mod effect;
mod feeding;
#[cfg(feature = "jwt")]
mod fetch;
#[cfg_attr(not(unix), path = "serve/no_handover.rs")]
mod handover;
pub(super) mod here;
mod histories;
#[cfg_attr(not(feature = "acme"), path = "serve/no_issuer.rs")]
mod issuer;
mod limits;
mod logs;
mod memory;
#[cfg(feature = "nats")]
mod nats;
mod own_key;
mod prepare;
mod proxies;
mod quotas;
pub(super) mod reload;
mod sockets;
mod stdin;
#[cfg(feature = "store")]
mod storing;
#[cfg_attr(not(unix), path = "serve/no_systemd.rs")]
mod systemd;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    Failure, Started, complain,
    config::Places,
    flags,
    holder::Holder,
    keylog,
    log::{self, Outlet},
    note::NoteKeeper,
    signals,
};
use crate::{
    App, Identity, Listen, Server,
    auth::Switch,
    browser::{Browser, Opened},
    fault, panics,
    server::{Addresses, Advertise, DEFAULT_HTTP_PORT},
    source::{Source, command::Commands},
};
pub(super) use args::{ServeArgs, ServeCommand};
use handover::{Changeover, TakeOverSettings};
use histories::Histories;
use issuer::Issuer;
use prepare::prepare;
use reload::{Hooks, Parts, Reloader};
pub(super) use sockets::Given;
use sockets::{Asked, Sockets};
use systemd::Manager;

pub(super) async fn run(
    sources: Vec<Source>,
    args: ServeArgs,
    given: Given,
    mut started: Started,
) -> Result<(), Failure> {
    log::start(&args.log)?;
    let (all, each) = args.quotas.processes();
    let commands = Commands::with_open_files(raise_file_limit()).for_viewers(all, each);
    let places = Arc::new(std::mem::take(&mut started.places));
    let looked = places.clone();
    if !args.check
        && let Ok(Some(warning)) = tokio::task::spawn_blocking(move || looked.warning()).await
    {
        warn!("{warning}");
    }
    let served = panics::caught_async(Box::pin(serve(sources, args, (given, started), &commands, &places))).await;
    // Also when it did not come to serving: what is still being ended when the process exits would stay.
    commands.stop();
    commands.ended().await;
    // The hook has logged it.
    let served = served.unwrap_or_else(|_| Err(Failure::running(anyhow::anyhow!("ended by a panic"))));
    served.map_err(|failure| if failure.code == Failure::USAGE { places.located(failure) } else { failure })
}

/// Serves until a signal. One that comes during the start ends that at once: it may be waiting for a file, a
/// name or another server.
async fn serve(
    sources: Vec<Source>,
    mut args: ServeArgs,
    (given, mut how): (Given, Started),
    commands: &Commands,
    places: &Arc<Places>,
) -> Result<(), Failure> {
    let is_demo = sources.is_empty();
    let sockets = Sockets::find(given)?;
    (args.handed, args.handed_redirect) = (sockets.addresses(), sockets.redirects());
    auth::check(&sources, &args)?;
    if args.check {
        return check::run(sources, &args, places.clone()).await;
    }
    let manager = Manager::find();
    let _passed = manager.passed();
    manager.status("starting");
    // Before anything is bound, so that no signal is missed.
    let stop = signals::stop(args.drain.saturating_add(args.grace).saturating_add(handover::LONGER))
        .map_err(Failure::running)?;
    let reloads = std::mem::take(&mut how.reloads);
    let settings = (sources.clone(), args.clone());
    let (names, has_own_key) = (names(&args), args.certs.key.is_some());
    let (asked, take_over) = (TakeOverSettings::of(&args), args.takes_over());
    let mut changeover = Changeover::new(asked, &manager);
    let starting = async {
        check::folder(&args).await?;
        let tokens = args.auth.tokens(None).await?.map(Switch::new);
        let resources =
            memory::Resources::find(args.limits.memory.unwrap_or_default(), Histories::find(&sources, &args))?;
        let issuer = Issuer::find(&args)?;
        let identity = match issuer.identity().await? {
            Some(identity) => identity,
            None => args.certs.identity(names).await?,
        };
        let prepared = prepare(sources, &args, commands, &mut changeover).await?;
        Ok((resources, (identity, issuer), prepared, tokens))
    };
    let Some(started) = stop.run_until_cancelled(starting).await else { return Ok(()) };
    let (resources, (identity, issuer), mut prepared, tokens) = started?;
    let shown: Vec<String> = prepared.feeds.iter().map(|feed| feed.name().to_owned()).collect();
    let patterns = prepared.families.iter().map(|family| family.pattern().to_owned());
    let shown: Vec<String> = shown.into_iter().chain(patterns).collect();
    let app = App::new(prepared.feeds.clone(), identity.clone()).stopping(stop.clone());
    let families = std::mem::take(&mut prepared.families);
    let app = families.iter().cloned().fold(app, App::family);
    let app = app
        .allow_origins(args.allow_origin.into_iter().collect())
        .publish_token(args.publish_token.as_deref())
        .publish_limit(args.publish_limit.map(|bytes| bytes as u64))
        .quotas(args.quotas.quotas())
        .commands(commands.clone())
        .static_dir(args.static_dir)
        .status_page(args.status)
        .renewal(args.auth.renewal())
        .coalesce(args.coalesce);
    let app = match &tokens {
        Some(tokens) => app.authorize(tokens.clone()),
        None => app,
    };
    let app = args.logs.install(issuer.install(app)).await?;
    #[cfg(feature = "nats")]
    let app = prepared.nats.install(app);
    #[cfg(feature = "store")]
    let app = match &prepared.store {
        Some(store) => store.install(app),
        None => app,
    };
    let help = "Lines of the log that were left out, being too many of a kind; and lines of it, of the access log and the TLS key log, and pieces of standard output that could not be written.";
    let app = app.counter("h3cast_log_lines_dropped_total", help, || log::dropped() as f64);
    let (app, room) = resources.install(app);
    let Some(found) = stop.run_until_cancelled(changeover.find()).await else { return Ok(()) };
    found?;
    let estate = app.estate();
    let mut builder = Server::builder(identity.clone())
        .room(room)
        .grace(args.grace)
        .limits(args.limits.limits())
        .server_id(args.server_id)
        .advertise(args.advertise.clone());
    builder = sockets.apply(builder, Asked { listen: args.listen, http: args.http, redirect: args.redirect });
    builder = args.proxies.apply(builder);
    builder = args.logs.trace(builder).await?;
    if let Some(keys) = keylog::found() {
        builder = builder.tls(move |tls| tls.key_log = keys.clone());
    }
    builder = changeover.inherit(builder);
    let (admission, app_handle) = (builder.admission().clone(), app.handle());
    let Some(built) = stop.run_until_cancelled(app.install(builder).build()).await else {
        abandon(identity).await;
        return Ok(());
    };
    let server = match built {
        Ok(server) => server,
        Err(error) => {
            let held = Holder::find(&error).await;
            return Err(Failure::usage(flags::of_start(error, held.as_ref(), take_over)));
        }
    };
    let mut control = changeover.listen().await?;
    let note = NoteKeeper::leave(server.addresses(), &identity).await;
    let outlet = match args.logs.takes_stdout() {
        // Readers of the access log would trip over the announcement.
        true => None,
        false => Some(Outlet::start("stdout", super::standard::stdout()).map_err(Failure::running)?),
    };
    // The last that can fail: a server that was taken over drains.
    let Some(report) = changeover.complete(&server, &estate, &prepared.mixed(), &stop).await? else { return Ok(()) };
    let shelf = prepared.begin();
    report.log();
    if let Some(control) = &mut control {
        control.settle().await;
    }
    let parts = Parts {
        server: server.handle(),
        app: app_handle,
        tokens: tokens.clone(),
        identity: identity.clone(),
        budget: resources.budget().cloned(),
        commands: commands.clone(),
        families,
        #[cfg(feature = "store")]
        store: prepared.store.clone(),
    };
    let access = auth::access(&settings.1, &settings.0, &shown, &server.addresses().tls);
    let advertised = args.advertise.as_ref();
    let announcement = announcement::text(server.addresses(), advertised, &shown, &access, &identity, issuer.name());
    match &outlet {
        None => log::write(&announcement),
        Some(outlet) => announce(outlet, &announcement),
    }
    if server.addresses().http_moved {
        warn!(
            "localhost:{DEFAULT_HTTP_PORT} is in use by another program: plain HTTP moved to {}",
            server.addresses().http.as_deref().unwrap_or_default()
        );
    }
    let status = format!("serving {}", server.addresses().tls.join(", "));
    manager.ready(&status);
    let (reloading, ready) = (manager.clone(), manager.clone());
    let hooks = Hooks {
        begins: vec![Box::new(move || reloading.reloading())],
        ends: vec![Box::new(log::access::reopen), Box::new(move || ready.ready(&status))],
    };
    let reloader = Reloader::new(how, settings.0, settings.1, parts, hooks);
    let addresses = server.addresses().clone();
    let opened = async {
        // The server runs: clients of the one that it has taken over from do not wait for a browser.
        let browser = args.open.and_then(|name| open(name.into(), &addresses, &identity));
        let Some(mut browser) = browser else { return };
        let looked = tokio::task::spawn_blocking(move || (browser.failure(), browser));
        if let Some(Ok((failure, _browser))) = stop.run_until_cancelled(looked).await {
            if let Some(why) = failure {
                warn!("the browser that --open started failed: {why}");
            }
            // Its profile goes with it, if it ends before the server.
            stop.cancelled().await;
        }
    };
    // The server's own, which comes later when load balancers are to notice first.
    let ending = CancellationToken::new();
    let settled = changeover.settled();
    let draining = async {
        stop.cancelled().await;
        manager.stopping(args.drain.saturating_add(args.grace));
        fault::point("drain");
        // No longer when the server is not there any more.
        ending.run_until_cancelled(tokio::time::sleep(args.drain)).await;
        // A new server that is about to take over gets everything first.
        let _settled = settled.await;
        ending.cancel();
    };
    let yielding = changeover.yielding(&server, (estate, shelf), stop.clone(), ending.clone());
    let serving = async {
        let served = server.run(ending.clone()).await;
        stop.cancel();
        ending.cancel();
        served
    };
    let live = feeding::Live {
        feeds: std::mem::take(&mut prepared.feeds),
        feedings: std::mem::take(&mut prepared.feedings),
        of_commands: std::mem::take(&mut prepared.of_commands),
        commands: commands.clone(),
    };
    let feeding = live.run(ending.clone(), args.grace);
    let hint = async {
        if is_demo && stop.run_until_cancelled(stdin::is_left_unread()).await == Some(true) {
            complain("standard input is not read: `h3cast serve -` serves what comes on standard input");
        }
    };
    let tokens = async {
        if let Some(tokens) = tokens {
            ending.run_until_cancelled(tokens.keep()).await;
        }
    };
    let watching = ending.run_until_cancelled(resources.watch(&admission));
    let issuing = issuer.keep(&identity, &ending);
    let key_watching = async {
        // Of one that it has created, the library warns.
        if has_own_key {
            ending.run_until_cancelled(own_key::watch(&identity)).await;
        }
    };
    #[cfg(feature = "store")]
    let storing = storing::keep(prepared.store.clone(), &ending);
    #[cfg(not(feature = "store"))]
    let storing = async {};
    // Large, and rarely run.
    let reloading = Box::pin(reloader.keep(reloads, (control, yielding), &ending));
    let all = async {
        tokio::join!(
            draining,
            serving,
            feeding,
            note.keep(ending.clone()),
            hint,
            opened,
            tokens,
            watching,
            issuing,
            key_watching,
            storing,
            reloading
        )
    };
    let ((), served, (), (), (), (), (), _, (), (), (), ()) = tokio::select! {
        all = all => all,
        // To the very end: also what hangs while it stops is to be noticed.
        never = manager.keep_alive() => match never {},
    };
    #[cfg(feature = "store")]
    storing::close(prepared.store.take()).await;
    // It may remain unread.
    if let Some(outlet) = outlet {
        let _ = outlet.flush(PATIENCE.1);
    }
    served.map_err(Failure::running)
}

/// Leaves the folder of certificates as it is, or with all that was to be stored there.
async fn abandon(identity: Identity) {
    // A folder that does not answer is not waited for.
    let _ = tokio::time::timeout(PATIENCE.1, tokio::task::spawn_blocking(move || identity.abandon())).await;
}

/// What the certificate must be for in addition to localhost.
fn names(args: &ServeArgs) -> Vec<String> {
    let hosts = args.listen.iter().map(Listen::host).chain(args.advertise.as_ref().and_then(Advertise::host));
    let handed = args.handed.iter().map(|at| at.ip().to_canonical().to_string());
    let mut names: Vec<_> = hosts.map(String::from).chain(handed).filter(|host| names_one_host(host)).collect();
    names.dedup();
    names
}

/// A host that a certificate can name: not a wildcard address, nor every interface.
fn names_one_host(host: &str) -> bool {
    !host.is_empty() && !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
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
            if let Some(soft) = limit.current {
                crate::child::keep_open_files(soft);
            }
            return limit.current;
        }
    }
    None
}

/// How long standard output may take what is printed there, before the log has a line about it; and when
/// the process ends.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// Prints to standard output, without waiting for whoever reads it.
fn announce(outlet: &Outlet, text: &str) {
    outlet.write(text.as_bytes());
    let printed = outlet.clone();
    let watching = std::thread::Builder::new().name("stdout watch".into()).spawn(move || {
        if let Err(error) = printed.flush(PATIENCE.0) {
            warn!("cannot print the addresses on standard output, running without: {error}");
        }
    });
    if let Err(error) = watching {
        warn!(%error, "could not start the thread that watches whether standard output is read");
    }
}

fn open(browser: Browser, addresses: &Addresses, identity: &Identity) -> Option<Opened> {
    let page = announcement::page_url(addresses, identity.current().names());
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
