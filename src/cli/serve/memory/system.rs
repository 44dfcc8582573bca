//! The memory that the machine has, that its control groups allow, and that the process uses.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// How much memory there is, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) bytes: u64,
    by: By,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Machine,
    Group,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.bytes >> 20;
        match self.by {
            By::Machine => write!(f, "this machine's {mib} MiB"),
            By::Group => write!(f, "the {mib} MiB that its control group may use"),
        }
    }
}

/// How much memory the process may use, if that can be found out.
pub(super) fn memory() -> Option<Found> {
    memory_at(Path::new("/"))
}

fn memory_at(root: &Path) -> Option<Found> {
    let machine = total(root).map(|bytes| Found { bytes, by: By::Machine });
    let group = groups(root).iter().filter_map(Group::limit).min().map(|bytes| Found { bytes, by: By::Group });
    machine.into_iter().chain(group).min_by_key(|found| found.bytes)
}

fn total(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What the process uses, in bytes: its resident memory, and what the kernel keeps for the TCP sockets of its control
/// group. 0 where neither can be found out.
pub(super) fn resident() -> u64 {
    resident_at(Path::new("/"))
}

fn resident_at(root: &Path) -> u64 {
    let pages = std::fs::read_to_string(root.join("proc/self/statm")).ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or_default();
    pages * page_size() + groups(root).first().and_then(Group::sockets).unwrap_or_default()
}

fn page_size() -> u64 {
    #[cfg(unix)]
    return rustix::param::page_size() as u64;
    #[cfg(not(unix))]
    4096
}

/// A control group, of version 1 or 2 (cgroups(7)).
#[derive(Debug, PartialEq, Eq)]
enum Group {
    V1(PathBuf),
    V2(PathBuf),
}

/// The groups that the process is in, the innermost first: a limit of each holds.
fn groups(root: &Path) -> Vec<Group> {
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    // Lines are `HIERARCHY:CONTROLLERS:PATH`, with no controllers for version 2.
    let own = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some((controllers, path))
    };
    let lines: Vec<_> = text.lines().filter_map(own).collect();
    let mounts = root.join("sys/fs/cgroup");
    let v1 = lines.iter().find(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    let v2 = lines.iter().find(|(controllers, _)| controllers.is_empty());
    if let Some((_, path)) = v1 {
        return within(&mounts.join("memory"), path, "memory.limit_in_bytes").map(Group::V1).collect();
    }
    let Some((_, path)) = v2 else { return Vec::new() };
    within(&mounts, path, "cgroup.controllers").map(Group::V2).collect()
}

/// The folder `path` of a hierarchy and those around it, as far as they are there. In a container the path may be the
/// one outside, and only the container's own group is mounted.
fn within(mount: &Path, path: &str, file: &str) -> impl Iterator<Item = PathBuf> {
    let around: Vec<_> = Path::new(path.trim_start_matches('/')).ancestors().map(|path| mount.join(path)).collect();
    let file = file.to_owned();
    around.into_iter().filter(move |folder| folder.join(&file).exists())
}

impl Group {
    /// What it may use, in bytes.
    fn limit(&self) -> Option<u64> {
        match self {
            Self::V1(folder) => number(&folder.join("memory.limit_in_bytes")),
            // From the lower one on, its processes are slowed down.
            Self::V2(folder) => {
                ["memory.max", "memory.high"].into_iter().filter_map(|name| number(&folder.join(name))).min()
            }
        }
    }

    /// What the kernel keeps for its TCP sockets, in bytes.
    fn sockets(&self) -> Option<u64> {
        match self {
            Self::V1(folder) => number(&folder.join("memory.kmem.tcp.usage_in_bytes")),
            Self::V2(folder) => {
                let text = std::fs::read_to_string(folder.join("memory.stat")).ok()?;
                text.lines().find_map(|line| line.strip_prefix("sock "))?.trim().parse().ok()
            }
        }
    }
}

/// The number in a file; `None` for `max`.
fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [("proc/meminfo", "MemFree: 1 kB\nMemTotal:       8000 kB\n")].iter().chain(files) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> (u64, By) {
        let found = memory_at(machine(files).path()).unwrap();
        (found.bytes, found.by)
    }

    #[test]
    fn the_least_limit_of_all_groups_around_holds() {
        let machine = (8000 << 10, By::Machine);
        assert_eq!(found(&[]), machine);
        let v2 = [
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/a/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/a/memory.max", "3000000\n"),
            ("sys/fs/cgroup/a/b/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.high", "max\n"),
        ];
        assert_eq!(found(&v2), (3_000_000, By::Group));
        assert_eq!(
            found(&[&v2[..6], &[("sys/fs/cgroup/a/b/memory.high", "2000000")]].concat()),
            (2_000_000, By::Group)
        );
        // The path outside of the container.
        let inside = [
            ("proc/self/cgroup", "0::/docker/1234\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/memory.max", "4000000\n"),
        ];
        assert_eq!(found(&inside), (4_000_000, By::Group));
        let v1 = [
            ("proc/self/cgroup", "4:memory:/a/b\n1:cpu:/\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000000\n"),
            ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "6000000\n"),
        ];
        assert_eq!(found(&v1), (5_000_000, By::Group));
        // More than the machine has is no limit.
        assert_eq!(found(&v1[..2]), machine);
    }

    #[test]
    fn sockets_of_the_own_group_count() {
        let pages = 100 * page_size();
        let statm = ("proc/self/statm", "300 100 20 1 0 5 0\n");
        assert_eq!(resident_at(machine(&[statm]).path()), pages);
        let v2 = [
            statm,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cgroup.controllers", "memory"),
            ("sys/fs/cgroup/memory.stat", "anon 5\nsock 7000\n"),
        ];
        assert_eq!(resident_at(machine(&v2).path()), pages + 7000);
        assert_eq!(resident_at(Path::new("/nowhere")), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine() {
        assert!(memory().is_some_and(|found| found.bytes > 1 << 20));
        assert!(resident() > 1 << 20);
    }
}
