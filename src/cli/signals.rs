//! The signals that end a server or a client, handled by a thread that nothing else holds up.

use std::{io, sync::mpsc, thread, time::Duration};

#[cfg(unix)]
use tokio::time::Instant;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Failure, log};
use crate::panics;

/// How much longer than it should a server may take to stop.
const OVERDUE: Duration = Duration::from_secs(10);
/// A terminal that closes sends SIGHUP several times, from the kernel and from the shell: within this time
/// they are one.
#[cfg(unix)]
const SAME_HANGUP: Duration = Duration::from_secs(1);

/// A signal that asks the program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signal {
    name: &'static str,
    number: u8,
}

const INTERRUPT: Signal = Signal { name: "SIGINT", number: 2 };
const HANGUP: Signal = Signal { name: "SIGHUP", number: 1 };

impl Signal {
    /// The exit code of a client, as a shell reports a program that a signal has killed.
    fn code(self) -> u8 {
        128 + self.number
    }

    fn in_words(self) -> String {
        match self {
            INTERRUPT => "interrupted".into(),
            Self { name, .. } => format!("ended by {name}"),
        }
    }
}

/// Waits for signals in a thread of its own: the first one cancels the token that this gives, the second
/// one ends the process, and so does an end that takes longer than `most` after the first.
pub(super) fn stop(most: Duration) -> io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let stop = token.clone();
    listen(async move |mut signals: Signals| {
        let first = signals.next().await;
        log::complain("shutting down (press Ctrl-C again to stop immediately)");
        stop.cancel();
        match timeout(most.saturating_add(OVERDUE), signals.after(first)).await {
            Ok(()) => log::exit(INTERRUPT.code()),
            Err(_) => {
                log::complain("the server does not stop: ending the process");
                log::exit(Failure::RUNNING);
            }
        }
    })?;
    Ok(token)
}

/// The same for a client. This completes at the first signal, with the failure that it is; a second one, or an
/// end that takes longer than `wait`, ends the process after `before_exit`, which must not block.
pub(super) fn interrupted(
    wait: Duration,
    before_exit: impl FnOnce() + Send + 'static,
) -> io::Result<impl Future<Output = Failure>> {
    let (interrupt, interrupted) = oneshot::channel();
    listen(async move |mut signals: Signals| {
        let first = signals.next().await;
        // Whoever waits for it may be stuck, or have ended.
        let _ = interrupt.send(first);
        let _ = timeout(wait, signals.after(first)).await;
        before_exit();
        log::fail(&first.in_words());
        log::exit(first.code());
    })?;
    Ok(async {
        match interrupted.await {
            Ok(signal) => Failure { code: signal.code(), error: anyhow::anyhow!(signal.in_words()) },
            Err(_) => std::future::pending().await,
        }
    })
}

/// The signals that have a server read its settings again: SIGUSR1. Where none is awaited, it ends the program, as it
/// ends programs by default.
#[cfg(unix)]
#[derive(Default)]
pub(super) struct Reloads(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Reloads {
    /// Begins with those that have come since [`unblock`]. Only before there are threads that start programs, since
    /// these would inherit that it is blocked.
    pub(super) fn listen() -> io::Result<Self> {
        // What handles a signal stays when the runtime goes in which that was asked for.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::user_defined1())?;
        release();
        Ok(Self(Some(signal)))
    }

    /// Leaves SIGUSR1 as it is by default.
    pub(super) fn none() -> Self {
        release();
        Self(None)
    }

    /// Waits for the next one; several that came meanwhile are one. Cancel-safe.
    pub(super) async fn next(&mut self) {
        let heard = match &mut self.0 {
            Some(signal) => signal.recv().await.is_some(),
            None => false,
        };
        if !heard {
            std::future::pending().await
        }
    }
}

/// Lets this thread be reached by SIGUSR1, and by one that waits since [`unblock`].
#[cfg(unix)]
fn release() {
    let mut signal = nix::sys::signal::SigSet::empty();
    signal.add(nix::sys::signal::Signal::SIGUSR1);
    // It fails for no set that is valid.
    let _ = signal.thread_unblock();
}

/// Where there are no such signals.
#[cfg(not(unix))]
#[derive(Default)]
pub(super) struct Reloads;

#[cfg(not(unix))]
impl Reloads {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) fn none() -> Self {
        Self
    }

    pub(super) async fn next(&mut self) {
        std::future::pending().await
    }
}

/// Starts the thread that waits for signals, and comes back when they are heard.
fn listen(react: impl AsyncFnOnce(Signals) + Send + 'static) -> io::Result<()> {
    let (ready, listening) = mpsc::channel();
    let wait = move || {
        // A runtime of its own: the other one may stand still.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(ready.send(Err(error))),
        };
        runtime.block_on(async {
            let signals = match Signals::listen() {
                Ok(signals) => signals,
                Err(error) => return drop(ready.send(Err(error))),
            };
            // Nobody else sends on it.
            let _ = ready.send(Ok(()));
            react(signals).await;
        });
    };
    thread::Builder::new().name("signals".into()).spawn(move || {
        // The hook has logged it. A program that no signal stops must not stay.
        if panics::caught(wait).is_err() {
            log::exit(Failure::RUNNING);
        }
    })?;
    listening.recv().unwrap_or_else(|_| Err(io::Error::other("the thread that waits for signals is gone")))
}

/// Lets this thread be reached by the signals that end the program, and by SIGCHLD: what a parent has blocked stays
/// blocked in the programs that it starts. SIGUSR1 waits until it is known what to do at it: see [`Reloads`].
pub(super) fn unblock() {
    #[cfg(unix)]
    {
        use nix::sys::signal::{SigSet, Signal::*};
        let (mut later, mut now) = (SigSet::empty(), SigSet::empty());
        later.add(SIGUSR1);
        [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCHLD].into_iter().for_each(|signal| now.add(signal));
        // They fail for no set that is valid.
        let _ = (later.thread_block(), now.thread_unblock());
    }
}

#[cfg(unix)]
struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        const TERMINATE: Signal = Signal { name: "SIGTERM", number: 15 };
        const QUIT: Signal = Signal { name: "SIGQUIT", number: 3 };
        let mut signals =
            vec![(INTERRUPT, signal(SignalKind::interrupt())?), (TERMINATE, signal(SignalKind::terminate())?)];
        // `nohup` has the program ignore SIGHUP, a shell a command that it runs in the background SIGQUIT:
        // they are left as they are.
        if !is_ignored("HUP", SignalKind::hangup()) {
            signals.push((HANGUP, signal(SignalKind::hangup())?));
        }
        if !is_ignored("QUIT", SignalKind::quit()) {
            signals.push((QUIT, signal(SignalKind::quit())?));
        }
        Ok(Self(signals))
    }

    /// Waits for the next one.
    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (which, signal) in &mut self.0 {
                if signal.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*which);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// Waits for one that is not the first one again.
    async fn after(&mut self, first: Signal) {
        let until = Instant::now() + SAME_HANGUP;
        while self.next().await == HANGUP && first == HANGUP && Instant::now() < until {}
    }
}

/// Whether a signal was ignored when the program was started.
#[cfg(unix)]
fn is_ignored(name: &str, kind: tokio::signal::unix::SignalKind) -> bool {
    let listed = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        Some(mask >> (kind.as_raw_value() - 1) & 1 == 1)
    };
    listed().unwrap_or_else(|| is_ignored_by_a_shell(name))
}

/// The same where the system does not list it: a shell inherits what is ignored, and cannot trap that
/// (POSIX, `trap`).
#[cfg(unix)]
fn is_ignored_by_a_shell(name: &str) -> bool {
    use std::process::{Command, Stdio};
    let script = format!("trap 'exit 1' {name}; kill -s {name} $$; exit 0");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    shell.status().is_ok_and(|status| status.success())
}

#[cfg(not(unix))]
struct Signals(tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlClose);

#[cfg(not(unix))]
impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?, tokio::signal::windows::ctrl_close()?))
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.0.recv() => INTERRUPT,
            _ = self.1.recv() => HANGUP,
        }
    }

    async fn after(&mut self, _first: Signal) {
        self.next().await;
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_shell_knows_what_is_ignored() {
        let hangup = tokio::signal::unix::SignalKind::hangup();
        assert_eq!(is_ignored_by_a_shell("HUP"), is_ignored("HUP", hangup));
    }
}
