//! Proxies in front of the server.

use clap::{Args, ValueEnum};

use crate::server::{ProxyProtocol, ServerBuilder, TrustedProxies};

#[derive(Debug, Clone, Args)]
pub(in crate::cli) struct ProxyArgs {
    /// Proxies that are believed when they name their client: addresses, networks (10.0.0.0/8), `loopback`, or
    /// `private` (loopback and private networks). They do so by Forwarded or by X-Forwarded-For, X-Forwarded-Proto
    /// and X-Forwarded-Host, which they must set, and not pass on from clients. [default: none]
    #[arg(long, env = "H3CAST_TRUST_PROXY", value_name = "ADDRESS|CIDR[,…]")]
    trust_proxy: Vec<TrustedProxies>,
    /// Listeners on which these proxies begin every connection with the PROXY protocol, version 1 or 2: TCP of
    /// --listen (tls), --http (http), or both. Connections of other addresses begin without it.
    #[arg(
        long,
        env = "H3CAST_PROXY_PROTOCOL",
        value_name = "tls|http[,…]",
        value_delimiter = ',',
        hide_possible_values = true,
        requires = "trust_proxy"
    )]
    proxy_protocol: Vec<ProxyListeners>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProxyListeners {
    Tls,
    Http,
}

impl ProxyArgs {
    /// Whether other machines reach the server by them.
    pub(super) fn are_trusted(&self) -> bool {
        !self.trust_proxy.is_empty()
    }

    /// Whether connections of plain HTTP begin with the PROXY protocol.
    pub(super) fn announce_plain(&self) -> bool {
        self.proxy_protocol.iter().any(|listeners| matches!(listeners, ProxyListeners::Http))
    }

    /// Those that are trusted.
    pub(super) fn trusted(&self) -> TrustedProxies {
        self.trust_proxy.iter().cloned().collect()
    }

    /// The same with those that others trust.
    pub(super) fn trusting(mut self, others: &Self) -> Self {
        self.trust_proxy.clone_from(&others.trust_proxy);
        self
    }

    /// Sets them up on a server.
    pub(super) fn apply(self, server: ServerBuilder) -> ServerBuilder {
        let server = server.trust_proxy(self.trusted());
        self.proxy_protocol.into_iter().fold(server, |server, listeners| {
            server.proxy_protocol(match listeners {
                ProxyListeners::Tls => ProxyProtocol::Tls,
                ProxyListeners::Http => ProxyProtocol::Plain,
            })
        })
    }
}
