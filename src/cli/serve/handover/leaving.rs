//! Servers that have closed their control socket, and still have their ports: they drain, or were just killed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::process::Process;
use crate::{Listen, cli::holder::Holder};

/// How long until the next look at who has a port, at first and at most: each goes through all processes. The end of one
/// that has it is noticed at once.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(1);
/// How long a server may still accept connections after it has closed its control socket. One that does after that has
/// none, and is not on its way out.
const CLOSING: Duration = Duration::from_secs(2);

/// Waits until a server that is shutting down frees the ports (Linux; elsewhere it is not known who has them). Ports of
/// any other program are not waited for: that they are in use is reported when they are bound.
pub(super) async fn wait(listen: &[Listen], handed: &[SocketAddr]) {
    let wanted: Vec<_> = listen.iter().flat_map(addresses).filter(|at| !handed.contains(at)).collect();
    let begun = Instant::now();
    let (mut is_told, mut pause) = (false, SHORTEST);
    for at in wanted {
        while let Some(holder) = Holder::at(at).await.filter(Holder::is_ours) {
            if holder.listens() && begun.elapsed() > CLOSING {
                break;
            }
            if !is_told {
                warn!("--take-over: {holder} still has {at} and is about to end: waiting for that");
                is_told = true;
            }
            let process = Process::find(holder.pid());
            tokio::select! {
                Ok(()) = process.ended() => {}
                // It may free the port before it ends.
                () = sleep(pause) => pause = (pause * 2).min(LONGEST),
            }
        }
    }
}

/// Those of a name but localhost are not known here.
fn addresses(listen: &Listen) -> Vec<SocketAddr> {
    let ips: Vec<IpAddr> = match listen.host() {
        "" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
        "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        host => host.parse().into_iter().collect(),
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, listen.port())).filter(|at| at.port() > 0).collect()
}
