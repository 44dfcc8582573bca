//! The process that has a port which a server cannot have.

use std::{fmt, net::SocketAddr};

use crate::{listen::ListenError, server::StartError};

/// A process that has a port, as far as this user may know that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pid: u32,
    /// As the system calls it, cut to 15 bytes.
    name: String,
    /// It listens over TCP: one of ours that does not is on its way out.
    listens: bool,
}

impl Holder {
    /// Whoever is the reason why a server does not start.
    pub(super) async fn find(error: &StartError) -> Option<Self> {
        let (StartError::Listen(error) | StartError::PlainHttp(error) | StartError::Redirect(error)) = error else {
            return None;
        };
        let ListenError::InUse { address } = *error else { return None };
        Self::at(address).await
    }

    /// Whoever has an address: of several, the one that serves, and not one that has handed over to it and drains.
    pub(super) async fn at(address: SocketAddr) -> Option<Self> {
        // It looks at every process.
        tokio::task::spawn_blocking(move || system::holder(address)).await.ok()?
    }

    pub(super) fn is_ours(&self) -> bool {
        self.name == "h3cast"
    }

    #[cfg(unix)]
    pub(super) fn listens(&self) -> bool {
        self.listens
    }

    #[cfg(unix)]
    pub(super) fn pid(&self) -> Option<i32> {
        i32::try_from(self.pid).ok()
    }

    /// What is wrong with an address that it has, and what to do about it, also for a server that was to `take_over`.
    pub(super) fn describe(&self, address: SocketAddr, flag: &str, take_over: bool) -> String {
        match (self.is_ours(), self.listens) {
            (true, false) => format!(
                "{address} is still in use by another program ({self}), which lets its last clients leave: try again in a moment, or stop it"
            ),
            (true, true) => {
                let other = match take_over {
                    true => "give its control socket with --control",
                    false => "take over from it with --take-over",
                };
                format!(
                    "{address} is in use by another program ({self}): stop it, choose another port with {flag}, or {other}"
                )
            }
            (false, _) => {
                format!("{address} is in use by another program ({self}): stop it, or choose another port with {flag}")
            }
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, name, .. } = self;
        write!(f, "{name}, process {pid}")
    }
}

/// By proc(5).
#[cfg(target_os = "linux")]
mod system {
    use std::{
        fs,
        net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    };

    use super::Holder;

    /// The state of a TCP socket that listens.
    const LISTEN: &str = "0A";

    pub(super) fn holder(address: SocketAddr) -> Option<Holder> {
        let sockets = |name: &str| {
            let text = fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
            inodes(&text, address, name.starts_with("tcp"))
        };
        let tcp: Vec<_> = ["tcp", "tcp6"].into_iter().flat_map(sockets).collect();
        let udp: Vec<_> = ["udp", "udp6"].into_iter().flat_map(sockets).collect();
        if tcp.is_empty() && udp.is_empty() {
            return None;
        }
        let of = |pid: u32| {
            let (mut listens, mut has) = (false, false);
            for inode in sockets_of(pid) {
                has |= udp.contains(&inode);
                listens |= tcp.contains(&inode);
                if listens {
                    break;
                }
            }
            let name = || Some(fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned());
            (listens || has).then(name)?.map(|name| Holder { pid, name, listens })
        };
        let processes = fs::read_dir("/proc").ok()?.flatten();
        let pids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        best(pids.filter_map(of))
    }

    /// Of several that share a port: whoever listens over TCP, and a server of ours rather than who started it with its
    /// sockets. One that was taken over has the others until it has drained.
    pub(super) fn best(holders: impl Iterator<Item = Holder>) -> Option<Holder> {
        holders.max_by_key(|holder| (holder.listens, holder.is_ours()))
    }

    /// The inodes of the sockets that a process has.
    fn sockets_of(pid: u32) -> impl Iterator<Item = u64> {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
    }

    /// The sockets that are in the way of one at an address.
    fn inodes(text: &str, address: SocketAddr, listening: bool) -> Vec<u64> {
        let one = |line: &str| {
            let fields: Vec<_> = line.split_whitespace().collect();
            let (ip, port) = fields.get(1)?.split_once(':')?;
            let (ip, port) = (ip_of(ip)?, u16::from_str_radix(port, 16).ok()?);
            let clashes = port == address.port()
                && (ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified())
                && (!listening || *fields.get(3)? == LISTEN);
            // A socket without an inode is nobody's any more.
            fields.get(9)?.parse().ok().filter(|inode| clashes && *inode > 0)
        };
        text.lines().skip(1).filter_map(one).collect()
    }

    /// Words of 32 bits, in the order of bytes of this machine.
    fn ip_of(hex: &str) -> Option<IpAddr> {
        let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
        match hex.len() {
            8 => Some(Ipv4Addr::from(word(0)?).into()),
            32 => {
                let octets: Vec<u8> = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
                Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical())
            }
            _ => None,
        }
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, UdpSocket};

        use super::*;

        #[test]
        fn of_several_the_one_that_serves_is_named() {
            let holder = |pid, name: &str, listens| Holder { pid, name: name.into(), listens };
            let (old, new) = (holder(7, "h3cast", false), holder(8, "h3cast", true));
            let systemd = holder(1, "systemd", true);
            for all in [[&systemd, &old, &new], [&new, &old, &systemd]] {
                assert_eq!(best(all.into_iter().cloned()), Some(new.clone()));
            }
            assert_eq!(best([systemd.clone(), old].into_iter()), Some(systemd));
        }

        #[test]
        fn this_process_is_found_by_its_ports() {
            for host in ["127.0.0.1:0", "[::1]:0"] {
                let (Ok(tcp), Ok(udp)) = (TcpListener::bind(host), UdpSocket::bind(host)) else { continue };
                let found = holder(tcp.local_addr().unwrap()).unwrap();
                assert_eq!((found.pid, found.listens), (std::process::id(), true), "{found:?}");
                let found = holder(udp.local_addr().unwrap()).unwrap();
                assert_eq!(found.pid, std::process::id(), "{found:?}");
            }
            let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            assert_eq!(holder(free), None);
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn holder(_: std::net::SocketAddr) -> Option<super::Holder> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_depends_on_who_has_the_port() {
        let described = |name: &str, listens, take_over| {
            let holder = Holder { pid: 7, name: name.into(), listens };
            holder.describe("127.0.0.1:443".parse().unwrap(), "--listen", take_over)
        };
        let others = described("nginx", true, false);
        assert!(others.contains("(nginx, process 7): stop it, or choose another port with --listen"), "{others}");
        assert!(described("h3cast", true, false).contains("--take-over"));
        let taken = described("h3cast", true, true);
        assert!(taken.contains("--control") && !taken.contains("--take-over"), "{taken}");
        assert!(described("h3cast", false, false).contains("try again in a moment"));
    }
}
