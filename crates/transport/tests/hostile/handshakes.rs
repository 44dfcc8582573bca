//! Handshakes that are never completed, counted by the reason as `h3cast_handshakes_failed_total` has them.

use std::time::Duration;

use h3cast_transport::{
    Limits,
    admission::Counters,
    counts::{Carrier, Counts, HandshakeFailure},
};
use tokio::net::TcpStream;

use super::{
    common::TestServer,
    floods::{Attacker, shows, trusting},
    initial::HalfOpen,
};

struct Served {
    server: TestServer,
    admission: Counters,
    counts: Counts,
    /// Begins over QUIC what it never completes.
    quic: Attacker,
}

async fn served(limits: Limits) -> Served {
    let mut counters = None;
    let server = TestServer::start(|builder, _| {
        counters = Some((builder.admission().clone(), builder.counts().clone()));
        builder.limits(limits)
    });
    let (server, (admission, counts)) = (server.await, counters.unwrap());
    let quic = Attacker::at(([127, 0, 0, 1], server.port()).into()).await;
    Served { server, admission, counts, quic }
}

impl Served {
    async fn begin_quic(&self) {
        self.quic.send(&self.quic.connection().first(&self.quic.hello)).await;
    }

    /// Connects over TCP, and says nothing.
    async fn begin_tls(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.server.port())).await.unwrap()
    }

    async fn in_progress(&self, handshakes: u64) {
        shows(&self.admission, "handshakes in progress", |now| now.handshakes == handshakes).await;
    }

    /// Waits until these have failed over that carrier, and no others.
    async fn failed(&self, carrier: Carrier, expected: &[(HandshakeFailure, u64)]) {
        let now = || HandshakeFailure::ALL.map(|reason| (reason, self.counts.snapshot().failed(carrier, reason)));
        shows(&self.admission, "the failures", |_| {
            now().into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>() == expected
        })
        .await;
    }
}

#[tokio::test]
async fn a_silent_client_fails_by_the_timeout() {
    let served = served(Limits::default().handshake_timeout(Duration::from_millis(100))).await;
    served.begin_quic().await;
    let _silent = served.begin_tls().await;
    for carrier in Carrier::ALL {
        served.failed(carrier, &[(HandshakeFailure::Timeout, 1)]).await;
    }
}

#[tokio::test]
async fn one_too_many_ousts_the_oldest() {
    let served = served(trusting().handshakes(1)).await;
    let mut silent = Vec::new();
    for ousted in 0..3 {
        served.begin_quic().await;
        silent.push(served.begin_tls().await);
        let expected = [(HandshakeFailure::Ousted, ousted)];
        for carrier in Carrier::ALL {
            served.failed(carrier, &expected[..usize::from(ousted > 0)]).await;
        }
    }
}

#[tokio::test]
async fn what_quic_forbids_is_no_failure_of_tls() {
    let served = served(Limits::default()).await;
    // A frame that an Initial may not have (RFC 9000 §12.4).
    served.quic.send(&served.quic.connection().misplaced()).await;
    served.failed(Carrier::Quic, &[(HandshakeFailure::Quic, 1)]).await;
    let spoiled = served.quic.hellos.hello().spoiled();
    let mut connection = HalfOpen::new(served.quic.hellos.id(), &spoiled);
    served.quic.send(&connection.first(&spoiled)).await;
    served.failed(Carrier::Quic, &[(HandshakeFailure::Tls, 1), (HandshakeFailure::Quic, 1)]).await;
}

#[tokio::test]
async fn a_stop_ends_handshakes_in_progress() {
    let served = served(Limits::default()).await;
    served.begin_quic().await;
    let _silent = served.begin_tls().await;
    served.in_progress(2).await;
    served.server.stop.cancel();
    for carrier in Carrier::ALL {
        served.failed(carrier, &[(HandshakeFailure::Stopped, 1)]).await;
    }
}
