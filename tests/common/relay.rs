//! A network between one client and the server: it can hold back or lose what the server says, and
//! send again what the client said.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::UdpSocket, sync::watch, task::JoinHandle};

use crate::common::soon;

/// Passes datagrams on while it is there.
pub struct Relay {
    pub port: u16,
    server: watch::Sender<SocketAddr>,
    hold: watch::Sender<bool>,
    lose: watch::Sender<bool>,
    apart: watch::Sender<Duration>,
    pace: watch::Sender<Duration>,
    held: watch::Receiver<usize>,
    recorded: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
    running: JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Relay {
    pub async fn start(server: u16) -> Self {
        let (server, leads_to) = watch::channel(SocketAddr::from(([127, 0, 0, 1], server)));
        let front = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let port = front.local_addr().unwrap().port();
        let (hold, mut holding) = watch::channel(false);
        let (lose, lost) = watch::channel(false);
        let (apart, distance) = watch::channel(Duration::ZERO);
        let (pace, paced) = watch::channel(Duration::ZERO);
        let (count_held, held) = watch::channel(0);
        let recorded = Arc::new(Mutex::new(None::<Vec<Vec<u8>>>));
        let record = recorded.clone();
        let running = tokio::spawn(async move {
            let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (mut client, mut waiting) = (None, Vec::<Vec<u8>>::new());
            let (mut said, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
            loop {
                tokio::select! {
                    Ok((len, from)) = front.recv_from(&mut said) => {
                        client = Some(from);
                        if let Some(recorded) = &mut *record.lock().unwrap() {
                            recorded.push(said[..len].to_vec());
                        }
                        let distance = *distance.borrow();
                        tokio::time::sleep(distance).await;
                        let server = *leads_to.borrow();
                        back.send_to(&said[..len], server).await.unwrap();
                    }
                    Ok(len) = back.recv(&mut answered) => {
                        let pace = *paced.borrow();
                        if !pace.is_zero() {
                            tokio::time::sleep(pace).await;
                        }
                        if !*lost.borrow() {
                            waiting.push(answered[..len].to_vec());
                        }
                        count_held.send_modify(|held| *held += 1);
                    }
                    _ = holding.changed() => {}
                }
                if !*holding.borrow()
                    && let Some(client) = client
                {
                    for datagram in waiting.drain(..) {
                        front.send_to(&datagram, client).await.unwrap();
                    }
                }
            }
        });
        Self { port, server, hold, lose, apart, pace, held, recorded, running }
    }

    /// Passes what the client says on to another server from now on.
    pub fn lead_to(&self, server: u16) {
        self.server.send_replace(SocketAddr::from(([127, 0, 0, 1], server)));
    }

    /// Lets that much time be between what the client says.
    pub fn apart(&self, time: Duration) {
        self.apart.send_replace(time);
    }

    /// Lets that much time be between the packets of the server's: a slow link.
    pub fn pace(&self, time: Duration) {
        self.pace.send_replace(time);
    }

    /// Whether what the server says is held back from now on.
    pub fn hold(&self, hold: bool) {
        self.hold.send(hold).unwrap();
    }

    /// Whether what the server says is lost from now on.
    pub fn lose(&self, lose: bool) {
        self.lose.send_replace(lose);
    }

    /// Waits for the next datagram of the server's.
    pub async fn answered(&mut self) {
        self.held.mark_unchanged();
        soon("the server's answer", self.held.changed()).await.unwrap();
    }

    /// Keeps what the client says from now on.
    pub fn record(&self) {
        *self.recorded.lock().unwrap() = Some(Vec::new());
    }

    /// Sends that to the server again, as somebody else, until it is answered. For a while a server
    /// drops all packets of a connection that it has closed.
    pub async fn replay(&self) {
        let recorded = self.recorded.lock().unwrap().take().expect("nothing was recorded");
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = *self.server.borrow();
        let answer = async {
            let mut buf = vec![0; 65_536];
            loop {
                for datagram in &recorded {
                    socket.send_to(datagram, server).await.unwrap();
                }
                if tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut buf)).await.is_ok() {
                    return;
                }
            }
        };
        soon("an answer to the copy", answer).await;
    }
}
