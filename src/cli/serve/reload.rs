//! Settings that are read again while the server runs: all of them are looked at before one is changed.

use std::{collections::BTreeSet, fmt, sync::Arc};

use anyhow::anyhow;
use clap::CommandFactory;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Histories, ServeArgs, check, control::Control, handover::Yielding, memory};
use crate::{
    Identity,
    app::AppHandle,
    auth::{Switch, Tokens},
    cli::{
        Cli, Command, Failure, Started,
        config::{self, Given, Parsed},
        flags, mistyped,
        signals::Reloads,
    },
    feed::{Budget, Family},
    identity::Renewal,
    panics::{self, Restarts},
    server::ServerHandle,
    source::{Source, command::Commands},
};

/// The settings that may change while the server runs. Any other needs a restart.
const LIVE: &[&str] = &[
    // Who may read and write.
    "tokens",
    "auth",
    "auth-secret",
    "auth-audience",
    "auth-ca",
    "auth-cookie",
    "public",
    "publish-token",
    "publish-limit",
    "allow-origin",
    "trust-proxy",
    // The certificate.
    "cert",
    "key",
    // What clients may cost.
    "memory",
    "max-connections",
    "max-tcp-connections",
    "max-handshakes",
    "connections-per-address",
    "handshakes-per-address",
    "requests-per-address",
    "sessions-per-address",
    "retry-handshakes",
    "retry-initials",
    "handshake-timeout",
    "keep-alive",
    "idle-timeout",
    "send-timeout",
    "control-frames",
    "max-publications",
    "publications-per-client",
    "publish-wait",
    "max-keys",
    "keys-per-client",
    "max-processes",
    "processes-per-client",
    "max-feeds",
    "feeds-per-client",
    "feed-idle",
    // What is stored of feeds.
    "retain",
];

/// Those that decide whether clients need tokens, and which.
const TOKENS: &[&str] = &["tokens", "auth", "auth-secret", "auth-audience", "auth-ca", "auth-cookie", "public"];
/// Those that decide which certificate is served.
const CERTIFICATE: &[&str] = &[
    "cert",
    "key",
    "certs",
    "listen",
    "advertise",
    "acme",
    "acme-directory",
    "acme-ca",
    "acme-contact",
    "acme-challenge",
];

/// Those whose values are not shown.
const SECRET: &[&str] = &["publish-token"];

/// What came of reading the settings again, as `h3cast reload` is told.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cli) struct Outcome {
    /// The process of the server.
    pub(in crate::cli) pid: u32,
    /// Why nothing has changed, if that is so.
    pub(in crate::cli) error: Option<String>,
    /// The settings that have changed, with their new values.
    pub(in crate::cli) changed: Vec<String>,
    /// The files that were read again.
    pub(in crate::cli) read: Vec<String>,
    /// The settings that differ and need a restart.
    pub(in crate::cli) restart: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("changed", &self.changed), ("read again", &self.read)];
        let parts = parts.into_iter().filter(|(_, words)| !words.is_empty());
        let text: Vec<_> = parts.map(|(what, words)| format!("{what}: {}", words.join(", "))).collect();
        match text.as_slice() {
            [] => f.write_str("nothing has changed"),
            text => f.write_str(&text.join("; ")),
        }
    }
}

/// What is to be done beside it, by other parts of the program.
#[derive(Default)]
pub(super) struct Hooks {
    /// Before the settings are read, whatever comes of that.
    pub(super) begins: Vec<Hook>,
    /// When it is over, whatever came of it: files of logs are opened again here, too.
    pub(super) ends: Vec<Hook>,
}

pub(super) type Hook = Box<dyn Fn() + Send + Sync>;

/// The parts of a server that may change.
pub(super) struct Parts {
    pub(super) server: ServerHandle,
    pub(super) app: AppHandle,
    pub(super) tokens: Option<Switch>,
    pub(super) identity: Identity,
    pub(super) budget: Option<Budget>,
    pub(super) commands: Commands,
    pub(super) families: Vec<Arc<dyn Family>>,
    #[cfg(feature = "store")]
    pub(super) store: Option<crate::store::Disk>,
}

/// Reads the settings of a server again.
pub(super) struct Reloader {
    started: Started,
    /// What it was started with.
    sources: Vec<Source>,
    parts: Parts,
    hooks: Hooks,
    now: Mutex<Now>,
}

/// The settings that are in force.
struct Now {
    args: ServeArgs,
    given: Given,
}

/// What is to change, when all has been found to be right.
struct Change {
    args: ServeArgs,
    given: Given,
    tokens: Option<Tokens>,
    certificate: Option<Renewal>,
    memory: Option<u64>,
    outcome: Outcome,
}

impl Reloader {
    pub(super) fn new(started: Started, sources: Vec<Source>, args: ServeArgs, parts: Parts, hooks: Hooks) -> Self {
        let now = Mutex::new(Now { args, given: started.given.clone() });
        Self { started, sources, parts, hooks, now }
    }

    /// Reads the settings again whenever that is asked for, by a signal or at the control socket, until `stop`. Another
    /// server that asks there takes over.
    pub(super) async fn keep(
        &self,
        reloads: Reloads,
        (mut control, yielding): (Option<Control>, Option<Yielding>),
        stop: &CancellationToken,
    ) {
        if let Some(control) = &mut control {
            stop.run_until_cancelled(control.settled()).await;
        }
        let mut restarts = Restarts::new("the task that reads settings again");
        let reloads = Mutex::new(reloads);
        let keeping = || async {
            let by_signal = async {
                let mut reloads = reloads.lock().await;
                loop {
                    reloads.next().await;
                    Box::pin(self.reload()).await;
                }
            };
            let by_control = async {
                match &control {
                    Some(control) => {
                        let take_over = async |stream| {
                            if let Some(yielding) = &yielding {
                                yielding.to(stream).await;
                            }
                        };
                        control.answer(async || Box::pin(self.reload()).await, take_over).await
                    }
                    None => std::future::pending().await,
                }
            };
            stop.run_until_cancelled(async { tokio::join!(by_signal, by_control) }).await;
        };
        while restarts.after(panics::caught_async(keeping()).await, stop).await {}
    }

    /// Reads the settings again. If anything is wrong with them, nothing changes.
    async fn reload(&self) -> Outcome {
        // One at a time.
        let mut now = self.now.lock().await;
        self.hooks.begins.iter().for_each(|hook| hook());
        let outcome = match Box::pin(self.prepared(&now)).await {
            Ok(change) => self.apply(&mut now, change),
            Err(failure) => Outcome { error: Some(failure.in_words()), ..Outcome::default() },
        };
        match &outcome.error {
            Some(error) => error!("cannot reload, nothing has changed: {error}"),
            None => info!("reloaded: {outcome}"),
        }
        if !outcome.restart.is_empty() {
            warn!("needs a restart: {}", outcome.restart.join(", "));
        }
        self.hooks.ends.iter().for_each(|hook| hook());
        Outcome { pid: std::process::id(), ..outcome }
    }

    /// Looks at all that is new; changes nothing.
    async fn prepared(&self, now: &Now) -> Result<Change, Failure> {
        let arguments = self.started.arguments.clone();
        let parsed = tokio::task::spawn_blocking(move || config::parse_again(&arguments));
        let Parsed { cli, given, places } = parsed.await.map_err(Failure::running)??;
        let (sources, wanted) = match cli.command {
            Some(Command::Serve(command)) => (command.sources, command.args),
            _ => (Vec::new(), cli.serve),
        };
        self.checked(now, sources, (wanted, given)).await.map_err(|failure| places.located(failure))
    }

    /// The same with settings that have been read.
    async fn checked(
        &self,
        now: &Now,
        sources: Vec<Source>,
        (mut wanted, given): (ServeArgs, Given),
    ) -> Result<Change, Failure> {
        // What it was started with, and would be again.
        (wanted.handed, wanted.handed_redirect) = (now.args.handed.clone(), now.args.handed_redirect);
        // Also what takes a restart has to be right.
        check::settings(&sources, &wanted).await?;
        let names: BTreeSet<_> =
            now.given.keys().chain(given.keys()).filter(|name| differs(now, &given, name)).collect();
        let lasting = self.lasting(&now.args, &wanted);
        let (changed, restart): (Vec<&String>, Vec<_>) =
            names.into_iter().partition(|name| LIVE.contains(&name.as_str()) && !lasting.contains(&name.as_str()));
        self.startable(&sources, &wanted, &restart).await?;
        let args = effective(&now.args, &wanted, &lasting);
        // The new settings, beside what stays as it is until a restart.
        check::settings(&self.sources, &args).await?;
        check::server(&args, self.parts.identity.clone())?;
        let tokens = self.tokens(&args).await?;
        let certificate = self.certificate(&args).await?;
        let memory = memory::limit(args.limits.memory.unwrap_or_default(), Histories::find(&self.sources, &args))?;
        let shown = |name: &&String| shown(name, given.get(*name));
        let outcome = Outcome {
            changed: changed.iter().map(shown).collect(),
            restart: restart.iter().map(|name| flag(name)).collect(),
            read: self.read(&args, &given, certificate.as_ref().is_some_and(Renewal::is_read)),
            ..Outcome::default()
        };
        let kept = restart.iter().filter_map(|name| Some(((*name).clone(), now.given.get(*name)?.clone())));
        let kept: Vec<_> = kept.collect();
        let gone: Vec<_> =
            restart.iter().filter(|name| !now.given.contains_key(**name)).map(|name| (*name).clone()).collect();
        let mut given = given;
        given.retain(|name, _| !gone.contains(name));
        given.extend(kept);
        Ok(Change { args, given, tokens, certificate, memory, outcome })
    }

    /// Whether a server would start with what needs a restart, as far as `--check` looks: not again at what is read
    /// for the server that runs.
    async fn startable(&self, sources: &[Source], wanted: &ServeArgs, restart: &[&String]) -> Result<(), Failure> {
        let is_any = |names: &[&str]| restart.iter().any(|name| names.contains(&name.as_str()));
        if is_any(&[config::SOURCES]) {
            check::files(sources).await?;
        }
        if is_any(TOKENS) {
            wanted.auth.tokens(None).await?;
        }
        let identity = match is_any(CERTIFICATE) {
            true => check::identity(wanted).await?,
            false => self.parts.identity.clone(),
        };
        check::server(wanted, identity)
    }

    /// The settings that may change while the server runs, but not as they are wanted here.
    fn lasting(&self, now: &ServeArgs, wanted: &ServeArgs) -> Vec<&'static str> {
        let mut lasting = Vec::new();
        if now.auth.is_on() != wanted.auth.is_on() {
            // Whether clients need tokens at all.
            lasting.extend(TOKENS);
        }
        if now.certs.cert.is_some() != wanted.certs.cert.is_some() {
            lasting.extend(["cert", "key"]);
        }
        let is_off = |args: &ServeArgs| args.limits.memory == Some(memory::Memory::Off);
        if self.parts.budget.is_none() || is_off(wanted) {
            lasting.push("memory");
        }
        lasting
    }

    /// The tokens and keys as they are now, if clients need some.
    async fn tokens(&self, args: &ServeArgs) -> Result<Option<Tokens>, Failure> {
        let Some(switch) = &self.parts.tokens else { return Ok(None) };
        let before = switch.now();
        let tokens = args.auth.tokens(Some(&before)).await?;
        let known = before.missing();
        let missing = tokens.iter().flat_map(Tokens::missing).find(|place| !known.contains(place));
        match missing {
            Some(place) => {
                Err(Failure::running(anyhow!("--auth: no keys could be had from {place} (the log has why)")))
            }
            None => Ok(tokens),
        }
    }

    /// The certificate of the user's own, as it is now.
    async fn certificate(&self, args: &ServeArgs) -> Result<Option<Renewal>, Failure> {
        let (Some(cert), Some(key)) = (args.certs.cert.clone(), args.certs.key.clone()) else { return Ok(None) };
        let identity = self.parts.identity.clone();
        let read = tokio::task::spawn_blocking(move || identity.read_again(&cert, &key));
        let read = read.await.map_err(Failure::running)?;
        Ok(Some(read.map_err(|error| Failure::usage(flags::of_identity(error)))?))
    }

    /// The files that are read again.
    fn read(&self, args: &ServeArgs, given: &Given, has_certificate: bool) -> Vec<String> {
        let mut files: Vec<_> = args.config.iter().map(|file| file.display().to_string()).collect();
        let mut add = |name: &str| {
            files.extend(given.get(name).into_iter().flatten().map(|file| file.to_string_lossy().into_owned()));
        };
        if self.parts.tokens.is_some() {
            ["tokens", "auth", "auth-secret"].into_iter().for_each(&mut add);
        }
        if has_certificate {
            ["cert", "key"].into_iter().for_each(&mut add);
        }
        files
    }

    /// Nothing of this can fail.
    fn apply(&self, now: &mut Now, change: Change) -> Outcome {
        let Change { args, given, tokens, certificate, memory, mut outcome } = change;
        let Parts { server, app, budget, commands, families, .. } = &self.parts;
        let set = server.set_limits(args.limits.limits()).map_err(|error| error.to_string());
        let trusted = server.set_trusted_proxies(args.proxies.trusted()).map_err(|error| error.to_string());
        // They have been checked.
        for error in [set, trusted].into_iter().filter_map(Result::err) {
            error!("a setting was not changed: {error}");
        }
        app.set_quotas(args.quotas.quotas());
        app.set_publish_limit(args.publish_limit.map(|bytes| bytes as u64));
        app.set_publish_token(args.publish_token.as_deref());
        app.set_allowed_origins(args.allow_origin.iter().cloned().collect());
        let (all, each) = args.quotas.processes();
        commands.set_for_viewers(all, each);
        families.iter().for_each(|family| family.set_limits(args.quotas.written()));
        if let (Some(budget), Some(bytes)) = (budget, memory) {
            budget.set_limit(bytes);
        }
        #[cfg(feature = "store")]
        if let Some(store) = &self.parts.store {
            let all = self.sources.iter().map(|source| (source.name.clone(), args.storing.retain(&source.name)));
            store.set_retain(all.collect());
        }
        if let (Some(switch), Some(tokens)) = (&self.parts.tokens, tokens) {
            switch.replace(tokens);
        }
        if certificate.is_some_and(Renewal::apply) {
            outcome.changed.push("the certificate".into());
        }
        *now = Now { args, given };
        outcome
    }
}

fn differs(now: &Now, given: &Given, name: &str) -> bool {
    now.given.get(name) != given.get(name)
}

/// The settings of a server once they have changed as far as they can while it runs.
fn effective(now: &ServeArgs, wanted: &ServeArgs, lasting: &[&str]) -> ServeArgs {
    let mut args = now.clone();
    args.quotas = wanted.quotas.clone();
    args.limits = wanted.limits.clone();
    if lasting.contains(&"memory") {
        args.limits.memory = now.limits.memory;
    }
    if !lasting.contains(&"tokens") {
        args.auth = wanted.auth.clone().renewing_as(&now.auth);
    }
    if !lasting.contains(&"cert") {
        (args.certs.cert, args.certs.key) = (wanted.certs.cert.clone(), wanted.certs.key.clone());
    }
    args.proxies = args.proxies.trusting(&wanted.proxies);
    #[cfg(feature = "store")]
    args.storing.retain.clone_from(&wanted.storing.retain);
    args.publish_token.clone_from(&wanted.publish_token);
    args.publish_limit = wanted.publish_limit;
    args.allow_origin.clone_from(&wanted.allow_origin);
    args
}

/// A setting as it is on the command line.
fn flag(name: &str) -> String {
    if name == config::SOURCES { name.to_owned() } else { format!("--{name}") }
}

/// A setting with its value, as it can be typed on the command line of a shell; without it if that is a secret.
fn shown(name: &str, values: Option<&Vec<std::ffi::OsString>>) -> String {
    match values {
        Some(values) if !values.is_empty() && !SECRET.contains(&name) => {
            let command = Cli::command();
            let delimiter = command.get_arguments().find(|arg| arg.get_long() == Some(name));
            let delimiter = delimiter.and_then(clap::Arg::get_value_delimiter).unwrap_or(',');
            let values: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
            format!("{}={}", flag(name), mistyped::quoted(&values.join(&delimiter.to_string())))
        }
        Some(_) => flag(name),
        None => format!("{} (its default)", flag(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is printed of settings can be typed: it is read as the same values.
    #[test]
    fn settings_are_shown_as_they_are_typed() {
        let given = |arguments: &[&str]| {
            let arguments: Vec<_> = ["h3cast", "serve"].iter().chain(arguments).map(Into::into).collect();
            config::parse(&arguments).map_err(|failure| failure.in_words()).unwrap().given
        };
        let shown = |arguments: &[&str], name| shown(name, given(arguments).get(name));
        assert_eq!(shown(&["--public", "a,b", "--public", "c"], "public"), "--public=a,b,c");
        assert_eq!(shown(&["--public", "room.*"], "public"), "--public='room.*'");
        assert_eq!(shown(&["--publish-token", "secret-of-mine"], "publish-token"), "--publish-token");
        #[cfg(feature = "store")]
        {
            let retain = ["--store", "s", "--retain", "log=10G,7d;chat.*=64M"];
            let typed = shown(&retain, "retain");
            assert_eq!(typed, "--retain='log=10G,7d;chat.*=64M'");
            assert_eq!(given(&["--store", "s", &typed.replace('\'', "")]), given(&retain));
        }
    }

    #[test]
    fn what_may_change_is_a_flag() {
        let command = crate::cli::Cli::command();
        let flags: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        // Some of them come with features.
        let optional = ["auth", "auth-secret", "auth-audience", "auth-ca"];
        let is_there = |name: &&&str| match **name {
            "retain" => cfg!(feature = "store"),
            name => !optional.contains(&name) || cfg!(feature = "jwt"),
        };
        for name in LIVE.iter().filter(is_there) {
            assert!(flags.contains(name), "{name}");
        }
        let hidden = command.get_arguments().filter(|arg| arg.is_hide_env_values_set());
        let hidden: Vec<_> = hidden.filter_map(clap::Arg::get_long).filter(|name| LIVE.contains(name)).collect();
        assert_eq!(hidden, SECRET, "the values of these are not shown");
    }
}
