//! The sockets of a server: those that systemd passes, and the addresses that are bound for the rest.

use std::net::{SocketAddr, TcpListener, UdpSocket};

#[cfg(unix)]
use tracing::warn;

use crate::{
    Listen, PlainHttp,
    cli::Failure,
    server::{DEFAULT_HTTP_PORT, ServerBuilder},
};

/// The name (`FileDescriptorName=`) of sockets for plain HTTP, on loopback only.
#[cfg(unix)]
const HTTP: &str = "http";
/// The name of those where plain HTTP is redirected to HTTPS.
#[cfg(unix)]
const REDIRECT: &str = "redirect";

/// Sockets that the program was started with (`LISTEN_FDS`), not looked at yet.
pub(in crate::cli) struct Given {
    #[cfg(unix)]
    sockets: listenfd::ListenFd,
    /// One for each, as far as they have names.
    #[cfg(unix)]
    names: Vec<String>,
    /// How many there are to be, if that cannot be.
    #[cfg(unix)]
    wrong: Option<String>,
}

/// No program is started with more.
#[cfg(unix)]
const MOST: usize = 4096;

impl Given {
    /// Takes them from the environment. To be called while the process has one thread.
    #[cfg(unix)]
    pub(in crate::cli) fn take() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names.split(':').map(String::from).collect();
        let number = std::env::var("LISTEN_FDS").unwrap_or_default();
        let is_possible = number.is_empty() || number.parse().is_ok_and(|number: usize| number <= MOST);
        match is_possible {
            true => Self { sockets: listenfd::ListenFd::from_env(), names, wrong: None },
            // Each would take memory before it is looked at.
            false => Self { sockets: listenfd::ListenFd::empty(), names, wrong: Some(number) },
        }
    }

    #[cfg(not(unix))]
    pub(in crate::cli) fn take() -> Self {
        Self {}
    }
}

/// Where the arguments have the server listen.
pub(super) struct Asked {
    pub(super) listen: Vec<Listen>,
    pub(super) http: Option<PlainHttp>,
    pub(super) redirect: Vec<Listen>,
}

/// Sockets that need not be bound.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    http: Vec<TcpListener>,
    redirect: Vec<TcpListener>,
}

impl Sockets {
    /// Sorts what was given: by the kind of each socket, and TCP listeners by their names too.
    #[cfg(unix)]
    pub(super) fn find(mut given: Given) -> Result<Self, Failure> {
        if let Some(number) = given.wrong {
            let text = format!("LISTEN_FDS={number} is not the number of sockets that the program was started with");
            return Err(Failure::usage(anyhow::anyhow!(text)));
        }
        let mut found = Self::default();
        for at in 0..given.sockets.len() {
            let name = given.names.get(at).map_or("", String::as_str);
            if let Ok(Some(udp)) = given.sockets.take_udp_socket(at) {
                if matches!(name, HTTP | REDIRECT) {
                    return Err(refused(name, "is a UDP socket: plain HTTP needs ListenStream="));
                }
                found.udp.push(udp);
                continue;
            }
            let Ok(Some(tcp)) = given.sockets.take_tcp_listener(at) else {
                return Err(refused(
                    name,
                    "is not a TCP or UDP socket: give ports with ListenStream= and ListenDatagram=",
                ));
            };
            // Apple's systems do not tell, and have no systemd.
            #[cfg(not(target_vendor = "apple"))]
            if !rustix::net::sockopt::socket_acceptconn(&tcp).unwrap_or(false) {
                return Err(refused(name, "is a connection, not a listener: set Accept=no"));
            }
            match name {
                HTTP => found.http.push(tcp),
                REDIRECT => found.redirect.push(tcp),
                _ => found.tcp.push(tcp),
            }
        }
        match (found.udp.is_empty(), found.tcp.is_empty()) {
            (true, false) => {
                warn!("systemd passed no UDP socket: without ListenDatagram= there is no HTTP/3 and no WebTransport");
            }
            (false, true) => {
                warn!("systemd passed no TCP listener: without ListenStream= browsers do not find HTTP/3");
            }
            _ => {}
        }
        Ok(found)
    }

    #[cfg(not(unix))]
    pub(super) fn find(_: Given) -> Result<Self, Failure> {
        Ok(Self::default())
    }

    /// Where those for HTTPS are bound.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let udp = self.udp.iter().filter_map(|udp| udp.local_addr().ok());
        udp.chain(self.tcp.iter().filter_map(|tcp| tcp.local_addr().ok())).collect()
    }

    /// Whether some are for redirects.
    pub(super) fn redirects(&self) -> bool {
        !self.redirect.is_empty()
    }

    /// Has a server use them, and bind what else it was asked for. Only what was not asked for gives way to them.
    pub(super) fn apply(self, builder: ServerBuilder, asked: Asked) -> ServerBuilder {
        let Asked { listen, http, redirect } = asked;
        let mut builder = builder.plain_http(match http {
            Some(http) => http,
            None if self.http.is_empty() => PlainHttp::Near(Listen::localhost(DEFAULT_HTTP_PORT)),
            None => PlainHttp::Off,
        });
        builder = listen.into_iter().fold(builder, ServerBuilder::listen);
        builder = redirect.into_iter().fold(builder, ServerBuilder::redirect_http);
        builder = self.udp.into_iter().fold(builder, ServerBuilder::udp_socket);
        builder = self.tcp.into_iter().fold(builder, ServerBuilder::tcp_listener);
        builder = self.http.into_iter().fold(builder, ServerBuilder::plain_http_listener);
        self.redirect.into_iter().fold(builder, ServerBuilder::redirect_listener)
    }
}

#[cfg(unix)]
fn refused(name: &str, why: &str) -> Failure {
    let which = if name.is_empty() { "a socket".to_owned() } else { format!("the socket `{name}`") };
    Failure::usage(anyhow::anyhow!("{which} that systemd passed {why}"))
}
