//! A process that may end.

use std::{os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, test_kill_process},
};

/// How often to see whether it has ended.
const EVERY: Duration = Duration::from_millis(20);

/// Another process.
pub(super) enum Process {
    /// By its descriptor: it is not mistaken for another one later.
    Watched(OwnedFd),
    /// By its number.
    Numbered(Pid),
    /// It has none here: it is of another container.
    Unknown,
}

impl Process {
    pub(super) fn find(pid: Option<i32>) -> Self {
        let Some(pid) = pid.and_then(Pid::from_raw) else { return Self::Unknown };
        watched(pid).unwrap_or(Self::Numbered(pid))
    }

    /// Waits until it has ended. One that is not known counts as such.
    pub(super) async fn ended(&self) {
        while self.runs() {
            tokio::time::sleep(EVERY).await;
        }
    }

    fn runs(&self) -> bool {
        match self {
            Self::Watched(process) => {
                // What cannot be asked is not waited for.
                let mut asked = [PollFd::new(process, PollFlags::IN)];
                poll(&mut asked, Some(&Timespec::default())) == Ok(0)
            }
            Self::Numbered(pid) => test_kill_process(*pid).is_ok(),
            Self::Unknown => false,
        }
    }
}

#[cfg(target_os = "linux")]
fn watched(pid: Pid) -> Option<Process> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok().map(Process::Watched)
}

#[cfg(not(target_os = "linux"))]
fn watched(_: Pid) -> Option<Process> {
    None
}
