//! One direction of one pair of nodes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};

/// The largest there is.
const PACKET_BYTES_MAX: usize = 65_535;
/// Bytes of packets that wait to be late. What comes on top is lost, as in any router.
const LATE_BYTES_MAX: usize = 16 * 1024 * 1024;
const CUT: u64 = u64::MAX;

/// The rule of a link and what went by; others turn it and read it while packets flow.
#[derive(Default)]
pub struct Valve {
    /// Microseconds by which packets are late, or `CUT`.
    rule: AtomicU64,
    pub passed: AtomicU64,
    pub lost: AtomicU64,
}

impl Valve {
    pub fn turn(&self, cut: bool, late: Duration) {
        self.rule.store(if cut { CUT } else { late.as_micros() as u64 }, Ordering::Relaxed);
    }
}

pub struct Link {
    /// Where the sender takes its peer to be.
    pub inlet: Arc<UdpSocket>,
    pub source: SocketAddr,
    /// Where the receiver takes the sender to be.
    pub outlet: Arc<UdpSocket>,
    pub target: SocketAddr,
    pub valve: Arc<Valve>,
}

/// Packets that are late, in the order in which they came.
#[derive(Default)]
struct Late {
    packets: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

impl Link {
    /// Forwards packets, for as long as it is polled.
    pub async fn forward(self) {
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut late = Late::default();
        loop {
            let due = late.packets.front().map(|(due, _)| *due);
            tokio::select! {
                received = self.inlet.recv_from(&mut buffer) => match received {
                    Ok((length, from)) if from == self.source => self.take(&buffer[..length], &mut late).await,
                    // Not from the node that this port is for; or the news that an earlier packet found nobody.
                    Ok(_) | Err(_) => {}
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.release(&mut late).await,
            }
        }
    }

    async fn take(&self, packet: &[u8], late: &mut Late) {
        let rule = self.valve.rule.load(Ordering::Relaxed);
        if rule == CUT || late.bytes + packet.len() > LATE_BYTES_MAX {
            self.valve.lost.fetch_add(1, Ordering::Relaxed);
        } else if rule == 0 && late.packets.is_empty() {
            self.send(packet).await;
        } else {
            let due = Instant::now() + Duration::from_micros(rule);
            late.bytes += packet.len();
            late.packets.push_back((due, packet.to_vec()));
        }
    }

    async fn release(&self, late: &mut Late) {
        let now = Instant::now();
        while late.packets.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, packet)) = late.packets.pop_front() else { return };
            late.bytes -= packet.len();
            if self.valve.rule.load(Ordering::Relaxed) == CUT {
                self.valve.lost.fetch_add(1, Ordering::Relaxed);
            } else {
                self.send(&packet).await;
            }
        }
    }

    async fn send(&self, packet: &[u8]) {
        let sent = self.outlet.send_to(packet, self.target).await;
        let count = if sent.is_ok() { &self.valve.passed } else { &self.valve.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
