//! The process groups of the commands that run, and the signals that end them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::launch::Process;
#[cfg(unix)]
use super::watcher::Watcher;

/// All groups, for an exit that waits for nothing.
#[derive(Debug)]
struct Groups {
    #[cfg(unix)]
    running: std::collections::BTreeSet<i32>,
    #[cfg(unix)]
    watcher: WatcherState,
    /// The process is about to exit: nothing may be started.
    closed: bool,
}

/// Who ends them when this process is killed.
#[cfg(unix)]
#[derive(Debug)]
enum WatcherState {
    /// Nothing has run yet.
    NotYet,
    By(Watcher),
    /// There is no watcher to be had.
    Failed,
}

#[cfg(unix)]
impl Groups {
    fn add(&mut self, group: i32) {
        self.running.insert(group);
        if matches!(self.watcher, WatcherState::NotYet) {
            self.watcher = match Watcher::start() {
                Ok(watcher) => WatcherState::By(watcher),
                Err(error) => Self::unwatched(&error),
            };
        }
        self.tell(|watcher| watcher.add(group));
    }

    fn remove(&mut self, group: i32) {
        // Once: the watcher's list cannot do without what is not in it.
        if self.running.remove(&group) {
            self.tell(|watcher| watcher.remove(group));
        }
    }

    #[cfg(feature = "cli")]
    fn kill_all(&mut self) {
        for group in std::mem::take(&mut self.running) {
            if let Some(leader) = rustix::process::Pid::from_raw(group) {
                // An error means that nobody is left there.
                let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
            }
            // Its number may be that of others when the watcher comes to it.
            self.tell(|watcher| watcher.remove(group));
        }
    }

    fn tell(&mut self, what: impl FnOnce(&mut Watcher) -> std::io::Result<()>) {
        if let WatcherState::By(watcher) = &mut self.watcher
            && let Err(error) = what(watcher)
        {
            self.watcher = Self::unwatched(&error);
        }
    }

    fn unwatched(error: &std::io::Error) -> WatcherState {
        tracing::warn!(%error, "if this server is killed (SIGKILL), its commands will keep running");
        WatcherState::Failed
    }
}

static GROUPS: Mutex<Groups> = Mutex::new(Groups {
    #[cfg(unix)]
    running: std::collections::BTreeSet::new(),
    #[cfg(unix)]
    watcher: WatcherState::NotYet,
    closed: false,
});

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every command that runs, and lets no other begin: the process is about to exit without an orderly
/// end.
#[cfg(feature = "cli")]
pub(crate) fn kill_all() {
    let mut groups = groups();
    groups.closed = true;
    #[cfg(unix)]
    groups.kill_all();
}

/// A command's process group. What is left of it when this is dropped is killed.
#[derive(Debug)]
pub(super) struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

impl Group {
    /// Starts a process that leads a group.
    pub(super) fn start<T>(
        start: impl FnOnce() -> std::io::Result<T>,
        process: impl FnOnce(&T) -> &Process,
    ) -> std::io::Result<(T, Self)> {
        // Held until it is listed: who kills all misses none.
        #[cfg_attr(not(unix), expect(unused_mut))]
        let mut groups = groups();
        if groups.closed {
            return Err(std::io::Error::other("the server is shutting down"));
        }
        let started = start()?;
        #[cfg(unix)]
        {
            let leader = process(&started).id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
            if let Some(leader) = leader {
                groups.add(leader.as_raw_nonzero().get());
            }
            Ok((started, Self { leader }))
        }
        #[cfg(not(unix))]
        {
            let _ = process;
            Ok((started, Self {}))
        }
    }

    /// Asks all of it to end, also what is stopped.
    pub(super) fn terminate(&self) {
        #[cfg(unix)]
        {
            self.signal(rustix::process::Signal::TERM);
            self.signal(rustix::process::Signal::CONT);
        }
    }

    /// Ends all of it.
    pub(super) fn kill(&self) {
        #[cfg(unix)]
        self.signal(rustix::process::Signal::KILL);
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(leader) = self.leader {
            // An error means that nobody is left there.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }

    /// Whether nobody is left, once the leader has been waited for. From then on its number may be that of
    /// others, and is forgotten.
    pub(super) fn is_empty(&mut self) -> bool {
        #[cfg(unix)]
        if let Some(leader) = self.leader {
            use rustix::process::{WaitOptions, test_kill_process_group, waitpgid};
            // As the first process of a container we inherit its orphans.
            while matches!(waitpgid(leader, WaitOptions::NOHANG), Ok(Some(_))) {}
            if test_kill_process_group(leader).is_ok() {
                return false;
            }
            self.forget();
        }
        true
    }

    #[cfg(unix)]
    fn forget(&mut self) {
        if let Some(leader) = self.leader.take() {
            groups().remove(leader.as_raw_nonzero().get());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        #[cfg(unix)]
        self.forget();
    }
}

#[cfg(all(test, unix, feature = "cli"))]
mod tests {
    use std::{
        io::Read,
        os::unix::process::{CommandExt, ExitStatusExt},
        process::{Command, Stdio},
    };

    use super::*;

    /// What is dead is not the watcher's any more: by the time this process is gone its number may be another's.
    #[test]
    fn the_watcher_is_notified_of_groups_that_were_killed() {
        let mut watcher = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut heard = watcher.stdout.take().unwrap();
        let mut groups =
            Groups { running: Default::default(), watcher: WatcherState::By(Watcher::of(watcher)), closed: false };
        let mut command = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let group = command.id().cast_signed();
        groups.add(group);
        groups.kill_all();
        assert_eq!(command.wait().unwrap().signal(), Some(9));
        // No process has this number, and it is not killed.
        groups.add(i32::MAX);
        // Its own end comes to the same, and is not reported again.
        groups.remove(group);
        if let WatcherState::By(watcher) = &mut groups.watcher {
            watcher.close();
        }
        let mut text = String::new();
        heard.read_to_string(&mut text).unwrap();
        assert_eq!(text, format!("+ {group}\n- {group}\n+ {}\n", i32::MAX));
    }
}
