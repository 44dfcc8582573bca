//! Why a command ended, in words.

use std::process::ExitStatus;

/// Says how a command ended that did not succeed.
pub(super) fn of(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return match name(signal) {
            Some(name) => format!("the command was killed by signal {signal} ({name})"),
            None => format!("the command was killed by signal {signal}"),
        };
    }
    match status.code() {
        Some(code) => format!("the command exited with status {code}"),
        None => format!("the command ended with {status}"),
    }
}

/// The name of a signal that ends processes.
#[cfg(unix)]
fn name(signal: i32) -> Option<&'static str> {
    use rustix::process::Signal;
    let names = [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::TRAP, "SIGTRAP"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
        (Signal::XCPU, "SIGXCPU"),
        (Signal::XFSZ, "SIGXFSZ"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::SYS, "SIGSYS"),
    ];
    names.iter().find(|(known, _)| known.as_raw() == signal).map(|(_, name)| *name)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_status_and_a_signal_in_words() {
        let of = |raw| of(ExitStatus::from_raw(raw));
        assert_eq!(of(101 << 8), "the command exited with status 101");
        assert_eq!(of(9), "the command was killed by signal 9 (SIGKILL)");
        // With a core dump.
        assert_eq!(of(11 | 0x80), "the command was killed by signal 11 (SIGSEGV)");
        assert_eq!(of(34), "the command was killed by signal 34");
    }
}
