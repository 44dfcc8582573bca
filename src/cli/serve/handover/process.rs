//! A process that may end.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, test_kill_process},
};

/// How often to see whether it has ended.
const EVERY: Duration = Duration::from_millis(20);

/// Another process.
pub(super) enum Process {
    /// By its descriptor: it is not mistaken for another one later.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "there are no such descriptors"))]
    Watched(OwnedFd),
    /// By its number.
    Numbered(Pid),
    /// It has none here: it is in another container.
    Unknown,
}

impl Process {
    pub(super) fn find(pid: Option<i32>) -> Self {
        let Some(pid) = pid.and_then(Pid::from_raw) else { return Self::Unknown };
        watched(pid).unwrap_or(Self::Numbered(pid))
    }

    /// Waits until it has ended. An error if that cannot be seen from here.
    pub(super) async fn ended(&self) -> io::Result<()> {
        while self.runs()? {
            tokio::time::sleep(EVERY).await;
        }
        Ok(())
    }

    pub(super) fn runs(&self) -> io::Result<bool> {
        match self {
            Self::Watched(process) => {
                let mut asked = [PollFd::new(process, PollFlags::IN)];
                match poll(&mut asked, Some(&Timespec::default())) {
                    Err(Errno::INTR | Errno::AGAIN) => Ok(true),
                    polled => Ok(polled? == 0),
                }
            }
            // One of another user is there too, though it cannot be signalled.
            Self::Numbered(pid) => Ok(test_kill_process(*pid) != Err(Errno::SRCH)),
            Self::Unknown => Err(io::Error::other(
                "its end cannot be seen from here, as it is in another PID namespace: start this server in the same one, or again when it has ended",
            )),
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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_process_has_ended_once_it_is_not_there() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let processes = [Process::find(Some(pid.as_raw_pid())), Process::Numbered(pid)];
        for process in &processes {
            assert!(process.runs().unwrap());
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for process in &processes {
            process.ended().await.unwrap();
        }
    }

    /// Otherwise a server would serve beside one that keeps serving.
    #[tokio::test]
    async fn one_that_cannot_be_seen_has_not_ended() {
        // As of another PID namespace (unix(7)).
        for pid in [None, Some(0)] {
            let error = Process::find(pid).ended().await.unwrap_err();
            assert!(error.to_string().contains("PID namespace"), "{error}");
        }
        // It may not be signalled, except by root.
        assert!(Process::Numbered(Pid::INIT).runs().unwrap());
    }
}
