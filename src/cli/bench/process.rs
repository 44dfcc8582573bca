//! What a process of this machine uses (Linux: proc(5)).

use std::{fs, io, time::Duration};

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Processor time, its own and the kernel's for it.
    pub(super) cpu: Duration,
    /// Memory that it has now, in bytes.
    pub(super) resident: u64,
    /// The most memory that it has had, in bytes.
    pub(super) peak: u64,
}

/// The kernel counts processor time in hundredths of a second for every program, whatever its own
/// clock is (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

impl Usage {
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&stat, &status).ok_or_else(|| io::Error::other("/proc is not as it is on Linux"))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The name before may have spaces and brackets of its own. utime and stime are fields 14 and
        // 15, the state behind the name is the third.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u32>().ok();
        let cpu = TICK * (ticks()? + ticks()?);
        let kilobytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        Some(Self { cpu, resident: kilobytes("VmRSS:")?, peak: kilobytes("VmHWM:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_from_proc() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 100 1000 200";
        let usage = Usage::parse(stat, "Name:\ta\nVmHWM:\t  30 kB\nVmRSS:\t  20 kB\n").unwrap();
        assert_eq!((usage.cpu, usage.resident, usage.peak), (Duration::from_secs(3), 20 * 1024, 30 * 1024));
        assert!(Usage::parse("", "").is_none());
        let own = Usage::of(std::process::id()).unwrap();
        assert!(own.resident > 0 && own.peak >= own.resident);
    }
}
