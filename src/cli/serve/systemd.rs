//! What systemd is told (`Type=notify`): that the server is ready, reloads, stops, and is alive (`WatchdogSec=`).
//! See `sd_notify(3)`.

use std::{
    convert::Infallible,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use crate::fault;

/// Messages that wait for systemd to take them. It takes them at once, or is gone.
const WAITING: usize = 16;
/// How long systemd waits on for a server that waits for another one, and how often it is told that it still does.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(20);
/// How long the end of the process waits for a manager that is slow.
const TAKEN: Duration = Duration::from_secs(1);
/// How much longer than it should the server may take to stop, before systemd ends it.
const OVERDUE: Duration = Duration::from_secs(15);

enum Message {
    Ready(String),
    Reloading,
    Stopping(Duration),
    Status(String),
    Waiting(String),
    Alive,
    /// Everything before it was passed on.
    Passed(SyncSender<()>),
}

/// What manages this process, if something does. Clones tell the same.
#[derive(Clone)]
pub(super) struct Manager {
    /// To a thread, since a manager that is slow must not hold the server up.
    messages: Option<SyncSender<Message>>,
    /// How long the server may be silent.
    watchdog: Option<Duration>,
}

impl Manager {
    pub(super) fn find() -> Self {
        let none = Self { messages: None, watchdog: None };
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
            return none;
        }
        let (messages, waiting) = sync_channel(WAITING);
        match thread::Builder::new().name("systemd".into()).spawn(move || tell(&waiting)) {
            Ok(_) => Self { messages: Some(messages), watchdog: sd_notify::watchdog_enabled() },
            Err(error) => {
                warn!(%error, "cannot notify systemd");
                none
            }
        }
    }

    /// The server serves; also after a reload.
    pub(super) fn ready(&self, status: &str) {
        self.send(Message::Ready(status.to_owned()));
    }

    /// The server reads its settings again, until it is [`ready`](Self::ready).
    pub(super) fn reloading(&self) {
        self.send(Message::Reloading);
    }

    /// The server stops, within that time.
    pub(super) fn stopping(&self, most: Duration) {
        self.send(Message::Stopping(most));
    }

    /// What it does, for `systemctl status`.
    pub(super) fn status(&self, status: &str) {
        self.send(Message::Status(status.to_owned()));
    }

    /// Waits for what may take longer than systemd gives a server to start (`TimeoutStartSec=`), as the end of another one:
    /// systemd waits on as long as this does. Cancel safe if that is.
    pub(super) async fn waiting<T>(&self, status: &str, event: impl Future<Output = T>) -> T {
        let mut event = std::pin::pin!(event);
        let mut due = interval(AGAIN);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                done = &mut event => return done,
                _ = due.tick() => self.send(Message::Waiting(status.to_owned())),
            }
        }
    }

    /// Reports that the server is alive, as often as the watchdog asks, as long as its workers run what is spawned: one
    /// that stands still while others take over its tasks is not noticed.
    pub(super) async fn keep_alive(&self) -> Infallible {
        let Some(watchdog) = self.watchdog.filter(|_| self.messages.is_some()) else {
            return std::future::pending().await;
        };
        // Twice as often as needed (`sd_watchdog_enabled(3)`).
        let mut due = interval((watchdog / 2).max(Duration::from_millis(1)));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            // This future may run on a thread that is none of them.
            let _ = tokio::spawn(tokio::task::yield_now()).await;
            self.send(Message::Alive);
        }
    }

    /// Waits, when dropped, until what was reported has been passed on: the process may end before its thread has run.
    pub(super) fn passed(&self) -> Passed {
        Passed(self.clone())
    }

    fn send(&self, message: Message) {
        let Some(messages) = &self.messages else { return };
        if messages.try_send(message).is_err() {
            debug!("systemd does not read our notifications");
        }
    }
}

/// See [`Manager::passed`].
pub(super) struct Passed(Manager);

impl Drop for Passed {
    fn drop(&mut self) {
        let (passed, is_passed) = sync_channel(1);
        self.0.send(Message::Passed(passed));
        // It ends at once where there is no manager, or one that takes nothing.
        let _ = is_passed.recv_timeout(TAKEN);
    }
}

/// Passes messages on until there can be no more.
fn tell(waiting: &Receiver<Message>) {
    let (mut failed, mut stopping) = (false, false);
    while let Ok(message) = waiting.recv() {
        fault::point("systemd");
        stopping |= matches!(message, Message::Stopping(_));
        // A reload during a drain makes no server of it that is ready.
        if stopping && matches!(message, Message::Ready(_) | Message::Reloading) {
            continue;
        }
        match notify(&message) {
            Ok(()) => failed = false,
            Err(error) if !failed => {
                failed = true;
                warn!(%error, "cannot notify systemd");
            }
            Err(_) => {}
        }
    }
}

fn notify(message: &Message) -> std::io::Result<()> {
    match message {
        Message::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(status)]),
        Message::Reloading => {
            let now = NotifyState::monotonic_usec_now()?;
            sd_notify::notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading")])
        }
        Message::Stopping(most) => {
            // A drain may be longer than `TimeoutStopSec=`.
            let most = u64::try_from(most.saturating_add(OVERDUE).as_micros()).unwrap_or(u64::MAX);
            // What the crate has for that ends at 71 minutes.
            let most = format!("EXTEND_TIMEOUT_USEC={most}");
            let status = NotifyState::Status("shutting down");
            sd_notify::notify(&[NotifyState::Stopping, status, NotifyState::Custom(&most)])
        }
        Message::Waiting(status) => {
            let most = format!("EXTEND_TIMEOUT_USEC={}", PATIENCE.as_micros());
            sd_notify::notify(&[NotifyState::Status(status), NotifyState::Custom(&most)])
        }
        Message::Status(status) => sd_notify::notify(&[NotifyState::Status(status)]),
        Message::Alive => sd_notify::notify(&[NotifyState::Watchdog]),
        Message::Passed(passed) => {
            // Nobody may wait any more.
            let _ = passed.try_send(());
            Ok(())
        }
    }
}
