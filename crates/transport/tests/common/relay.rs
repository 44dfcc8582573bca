//! A network between one client and the server: it can hold back or lose what the server says, and
//! send again what the client said.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::soon;

/// Passes datagrams on while it is there.
pub struct Relay {
    pub port: u16,
    server: watch::Sender<SocketAddr>,
    hold: watch::Sender<bool>,
    lose: watch::Sender<bool>,
    apart: watch::Sender<Duration>,
    pace: watch::Sender<Duration>,
    queue: watch::Sender<Option<Queue>>,
    queued: watch::Receiver<Passed>,
    held: watch::Receiver<usize>,
    recorded: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
    running: JoinHandle<()>,
}

/// A slow link with a long queue of its own before it, as a modem has one.
#[derive(Debug, Clone, Copy)]
pub struct Queue {
    /// The time that each packet takes.
    pub pace: Duration,
    /// How many packets are left in the queue when one is lost, once.
    pub lose_before_last: usize,
}

/// What a queue has let through, and lost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    pub passed: usize,
    pub lost: usize,
    pub longest: usize,
}

/// Queues packets apart from the rest, so that what the client says is not held up.
async fn queueing(
    mut packets: mpsc::UnboundedReceiver<(Queue, Vec<u8>, SocketAddr)>,
    front: Arc<UdpSocket>,
    passed: watch::Sender<Passed>,
) {
    while let Some((queue, packet, client)) = packets.recv().await {
        tokio::time::sleep(queue.pace).await;
        let left = packets.len();
        let mut lost = false;
        passed.send_modify(|passed| {
            passed.longest = passed.longest.max(left);
            // Only on its way down from a long one.
            lost = passed.lost == 0 && passed.longest > 4 * queue.lose_before_last && left <= queue.lose_before_last;
            passed.lost += usize::from(lost);
            passed.passed += usize::from(!lost);
        });
        if !lost {
            front.send_to(&packet, client).await.unwrap();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Relay {
    pub async fn start(server: u16) -> Self {
        let (server, leads_to) = watch::channel(SocketAddr::from(([127, 0, 0, 1], server)));
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let port = front.local_addr().unwrap().port();
        let (hold, mut holding) = watch::channel(false);
        let (lose, lost) = watch::channel(false);
        let (apart, distance) = watch::channel(Duration::ZERO);
        let (pace, paced) = watch::channel(Duration::ZERO);
        let (queue, queues) = watch::channel(None::<Queue>);
        let (count_passed, queued) = watch::channel(Passed::default());
        let (count_held, held) = watch::channel(0);
        let recorded = Arc::new(Mutex::new(None::<Vec<Vec<u8>>>));
        let record = recorded.clone();
        let running = tokio::spawn(async move {
            let back = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let (to_queue, packets) = mpsc::unbounded_channel();
            // It ends with the relay.
            let queueing = queueing(packets, front.clone(), count_passed);
            let mut queueing = std::pin::pin!(queueing);
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
                    () = &mut queueing => unreachable!("it ends after this"),
                    Ok(len) = back.recv(&mut answered) => {
                        if let (Some(queue), Some(client)) = (*queues.borrow(), client) {
                            to_queue.send((queue, answered[..len].to_vec(), client)).unwrap();
                            continue;
                        }
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
        Self { port, server, hold, lose, apart, pace, queue, queued, held, recorded, running }
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

    /// Lets what the server says wait in a queue from now on.
    pub fn queue(&self, queue: Queue) {
        self.queue.send_replace(Some(queue));
    }

    /// What that queue has let through by now.
    pub fn passed(&self) -> Passed {
        *self.queued.borrow()
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
