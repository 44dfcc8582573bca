//! The start of a server: every socket bound, or none.

use std::sync::{Arc, PoisonError, RwLock};

use tracing::warn;

use super::{
    Addresses, DEFAULT_PORT, PlainHttp, Server, ServerBuilder, ServerHandle, StartError, Via, builder::Handed, tls,
};
use crate::{
    admission::Admission,
    fault,
    identity::IdentityError,
    listen::{Bound, Listen, ListenError, Pool, Sockets, handed_in, handed_in_plain},
    proxy::ProxyProtocol,
    quic,
    service::Context,
    tcp::{self, TlsAcceptor},
};

pub(super) async fn start(builder: ServerBuilder) -> Result<Server, StartError> {
    builder.check()?;
    let ServerBuilder { identity, mut listen, sockets, http, redirect, handed, limits, tls, .. } = builder;
    for excess in limits.excesses() {
        warn!("{excess}");
    }
    let Handed { udp, tcp, plain, redirect: redirect_handed } = handed;
    if listen.is_empty() && udp.is_empty() && tcp.is_empty() {
        listen.push(Listen::localhost(DEFAULT_PORT));
    }
    let (mut pool, mut owners) = builder.inherited.unwrap_or_default().into_parts();
    let mut bound = Vec::new();
    for listen in &listen {
        bound.push(listen.bind(sockets, &mut pool).await?);
    }
    bound.extend(handed_in(udp, tcp)?);
    let (http, http_moved) = bind_http(http, &mut pool).await.map_err(StartError::PlainHttp)?;
    let mut plain_bound: Vec<Bound> = http.into_iter().collect();
    plain_bound.extend(handed_in_plain(plain).map_err(StartError::PlainHttp)?);
    let mut redirecting = Vec::new();
    for listen in &redirect {
        redirecting.extend(listen.bind(Sockets::Tcp, &mut pool).await.map_err(StartError::Redirect)?.tcp);
    }
    let handed = handed_in(Vec::new(), redirect_handed).map_err(StartError::Redirect)?;
    redirecting.extend(handed.into_iter().flat_map(|bound| bound.tcp));
    let mut addresses = addresses(&bound, &plain_bound, http_moved);
    addresses.redirect = redirecting.iter().filter_map(|tcp| tcp.local_addr().ok()).collect();
    let (storing, hosts) = (identity.clone(), hosts(&listen));
    tokio::task::spawn_blocking(move || {
        fault::point("certificate-store");
        storing.commit()?;
        storing.report(&hosts);
        Ok::<_, IdentityError>(())
    })
    .await??;
    let tickets = tls::tickets();
    let keys = quic::server::Keys::new(
        &identity.secret(),
        builder.server_id.as_ref(),
        owners.values().flatten(),
        builder.seed,
    );
    let mut transport = quic::server_transport(&limits);
    let grows = builder.quic.is_empty();
    if !grows {
        // As large as it may become: what the application sets stays.
        quic::whole_send_window(&mut transport);
    }
    #[cfg(feature = "qlog")]
    if builder.qlog.is_some() && !grows {
        warn!("no connection is traced: the application changes the settings of QUIC, which each would need again");
    }
    builder.quic.into_iter().for_each(|change| change(&mut transport));
    if quic::receive_window(&transport).is_none() {
        // The engine does it then, whatever a connection carries.
        transport.keep_alive_interval(Some(quic::keep_alive(&limits)));
    }
    let transport = Arc::new(transport);
    let plain_port = plain_bound.first().map(|bound| bound.port);
    let tls_port = bound.first().map_or(DEFAULT_PORT, |bound| bound.port);
    let announced = |kind| builder.announced.contains(&kind);
    let has_udp = |port: u16| addresses.udp.iter().any(|udp| udp.port() == port);
    let (mut endpoints, mut listeners) = (Vec::new(), Vec::new());
    for bound in bound {
        let via = Via { tls: true, tls_port: bound.port, plain_port };
        if !bound.udp.is_empty() {
            let tls = tls.over_quic(&identity, &bound.host, tickets.clone())?;
            let config = quic::server::Config::new(tls, transport.clone())?;
            for udp in bound.udp {
                let others = udp.local_addr().ok().and_then(|address| owners.remove(&address));
                endpoints.push((quic::server::Endpoint::new(udp, &keys, &config, others, builder.wrap.clone())?, via));
            }
        }
        if !bound.tcp.is_empty() {
            let acceptor = TlsAcceptor::from(Arc::new(tls.over_tcp(&identity, &bound.host)?));
            let alt_svc = builder.advertise.is_some() || has_udp(bound.port);
            for tcp in bound.tcp {
                listeners.push(tcp::Listener::new(
                    tcp,
                    Some(acceptor.clone()),
                    via,
                    alt_svc,
                    announced(ProxyProtocol::Tls),
                )?);
            }
        }
    }
    let via = Via { tls: false, tls_port, plain_port };
    for tcp in plain_bound.into_iter().flat_map(|bound| bound.tcp) {
        listeners.push(tcp::Listener::new(tcp, None, via, false, announced(ProxyProtocol::Plain))?);
    }
    for tcp in redirecting {
        listeners.push(tcp::Listener::redirecting(tcp, via)?);
    }
    // What proxies forward counts for their clients.
    let proxies = Arc::new(RwLock::new(builder.proxies));
    let trusted = proxies.clone();
    let exempt = move |address| trusted.read().unwrap_or_else(PoisonError::into_inner).contains(address);
    let context = Context {
        given: Arc::default(),
        grows,
        service: builder.service,
        handlers: builder.handlers,
        admission: Arc::new(Admission::new(&limits, builder.counters, Box::new(exempt), builder.room)),
        counts: builder.counts,
        advertise: builder.advertise,
        hooks: builder.hooks,
        exchanges: builder.exchanges,
        #[cfg(feature = "qlog")]
        qlog: builder.qlog.filter(|_| grows),
        origins: builder.origins,
        proxies,
        status_paths: builder.status_paths,
        plain_port,
    };
    let context = Arc::new(context);
    let beginnings = endpoints.iter().map(|(endpoint, _)| endpoint.beginning().clone()).collect();
    let handle = ServerHandle::new(context.clone(), beginnings, !builder.announced.is_empty());
    Ok(Server { identity, addresses, context, endpoints, tcp: listeners, grace: builder.grace, handle })
}

fn addresses(bound: &[Bound], plain: &[Bound], http_moved: bool) -> Addresses {
    let tcp = |bound: &[Bound]| bound.iter().flat_map(|at| &at.tcp).filter_map(|tcp| tcp.local_addr().ok()).collect();
    Addresses {
        tls: bound.iter().flat_map(Bound::authorities).collect(),
        http: plain.iter().flat_map(Bound::authorities).next(),
        udp: bound.iter().flat_map(|at| &at.udp).filter_map(|udp| udp.local_addr().ok()).collect(),
        tcp: tcp(bound),
        plain: tcp(plain),
        redirect: Vec::new(),
        http_moved,
    }
}

/// The hosts by which clients come: what listens on all addresses has none of its own.
fn hosts(listen: &[Listen]) -> Vec<String> {
    let one = |host: &&str| !host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    listen.iter().map(Listen::host).filter(one).map(String::from).collect()
}

async fn bind_http(http: PlainHttp, pool: &mut Pool) -> Result<(Option<Bound>, bool), ListenError> {
    match http {
        PlainHttp::Off => Ok((None, false)),
        PlainHttp::At(listen) => Ok((Some(listen.bind_plain(pool).await?), false)),
        PlainHttp::Near(listen) => match listen.bind_plain(pool).await {
            Err(ListenError::InUse { .. }) => Ok((Some(listen.any_port().bind_plain(pool).await?), true)),
            other => Ok((Some(other?), false)),
        },
    }
}
