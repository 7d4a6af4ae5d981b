//! Random and mutated datagrams and frames, all at once, for a while.

use super::Random;
use super::messages::{client_frames, frame, peer_frames};
use crate::real::certs::Identity;
use crate::real::dial::{Caller, endpoint};
use crate::real::lane::{Lane, name_of};
use crate::real::{Cluster, RealNode};
use quinn::Endpoint;
use quorate_ring::wire::{ALPN_CLIENT, ALPN_PEER, HEADER_BYTES};
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

const ANSWER_TIME_MAX: Duration = Duration::from_millis(50);
const HANDSHAKE_TIME_MAX: Duration = Duration::from_millis(300);

/// What was thrown, and what came back.
#[derive(Clone, Copy, Default, Debug)]
pub struct Thrown {
    pub datagrams: usize,
    pub mutated_datagrams: usize,
    pub frames: usize,
    /// Connections that the node closed, saying why.
    pub closed_with_reason: usize,
    /// Frames that were answered with what is wrong with them.
    pub refused_as_malformed: usize,
}

impl std::ops::AddAssign for Thrown {
    fn add_assign(&mut self, other: Thrown) {
        self.datagrams += other.datagrams;
        self.mutated_datagrams += other.mutated_datagrams;
        self.frames += other.frames;
        self.closed_with_reason += other.closed_with_reason;
        self.refused_as_malformed += other.refused_as_malformed;
    }
}

/// One plane of the node, and what opens it.
struct Target {
    address: SocketAddr,
    identity: Identity,
    trust: CertificateDer<'static>,
    alpn: &'static [u8],
    frames: Vec<Vec<u8>>,
}

impl Target {
    async fn lane(&self, endpoint: &Endpoint, address: SocketAddr) -> Result<Lane, String> {
        let name = name_of(1);
        let caller = Caller { identity: Some(&self.identity), trust: &self.trust, alpn: self.alpn, server_name: &name };
        caller.lane(endpoint, address).await
    }
}

pub struct Storm {
    until: Instant,
    tasks: JoinSet<Thrown>,
}

impl Storm {
    pub fn begin(cluster: &Cluster, node: &RealNode, until: Instant) -> Self {
        let targets = [
            Arc::new(Target {
                address: node.client_address,
                identity: cluster.client_identity(),
                trust: cluster.node_ca.certificate.clone(),
                alpn: ALPN_CLIENT,
                frames: client_frames(),
            }),
            Arc::new(Target {
                address: node.peer_address,
                identity: cluster.node_identity(2),
                trust: cluster.node_ca.certificate.clone(),
                alpn: ALPN_PEER,
                frames: peer_frames(),
            }),
        ];
        let mut tasks = JoinSet::new();
        for (seed, target) in (1..).zip(targets) {
            tasks.spawn(datagrams(target.address, Random::new(seed), until));
            tasks.spawn(handshakes(target.clone(), Random::new(seed + 10), until));
            tasks.spawn(frames(target, Random::new(seed + 20), until));
        }
        Self { until, tasks }
    }

    pub fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    pub async fn end(self) -> Thrown {
        let mut all = Thrown::default();
        self.tasks.join_all().await.into_iter().for_each(|thrown| all += thrown);
        all
    }
}

/// Datagrams of random bytes; some begin like the first one of a QUIC connection.
async fn datagrams(address: SocketAddr, mut random: Random, until: Instant) -> Thrown {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut thrown = Thrown::default();
    while Instant::now() < until {
        for _ in 0..8 {
            let length = random.below(1500) + 1;
            let mut bytes = random.bytes(length);
            if random.below(2) == 0 && length > 5 {
                bytes[0] |= 0xc0;
                bytes[1..5].copy_from_slice(&[0, 0, 0, 1]);
            }
            socket.send_to(&bytes, address).await.unwrap();
            thrown.datagrams += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    thrown
}

/// Real connections, through something that spoils a part of their datagrams.
async fn handshakes(target: Arc<Target>, mut random: Random, until: Instant) -> Thrown {
    let (inside, outside) =
        (UdpSocket::bind("127.0.0.1:0").await.unwrap(), UdpSocket::bind("127.0.0.1:0").await.unwrap());
    outside.connect(target.address).await.unwrap();
    let address = inside.local_addr().unwrap();
    let attempts = tokio::spawn(async move {
        let socket = endpoint();
        while Instant::now() < until {
            if let Ok(Ok(mut lane)) = timeout(HANDSHAKE_TIME_MAX, target.lane(&socket, address)).await {
                for bytes in &target.frames {
                    let _spoilt_already = lane.write(bytes).await;
                    let _spoilt_already = timeout(ANSWER_TIME_MAX, lane.frame()).await;
                }
            }
        }
    });
    let (mut thrown, mut caller) = (Thrown::default(), None);
    let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    while Instant::now() < until {
        tokio::select! {
            Ok((length, from)) = inside.recv_from(&mut there) => {
                caller = Some(from);
                let mut bytes = there[..length].to_vec();
                if random.below(3) == 0 {
                    random.mutate(&mut bytes);
                    bytes.truncate(65_000);
                    thrown.mutated_datagrams += 1;
                }
                let _refused = outside.send(&bytes).await;
            }
            Ok(length) = outside.recv(&mut back) => {
                if let Some(caller) = caller {
                    inside.send_to(&back[..length], caller).await.unwrap();
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
    }
    attempts.await.unwrap();
    thrown
}

/// Connections that are in order, and frames that are not.
async fn frames(target: Arc<Target>, mut random: Random, until: Instant) -> Thrown {
    let socket = endpoint();
    let mut thrown = Thrown::default();
    while Instant::now() < until {
        let Ok(mut lane) = target.lane(&socket, target.address).await else { continue };
        for _ in 0..20 {
            thrown.frames += 1;
            let (bytes, last) = bad_frame(&mut random, &target.frames);
            if lane.write(&bytes).await.is_err() {
                break;
            }
            if last {
                let _closed_already = lane.send.finish();
            }
            match timeout(ANSWER_TIME_MAX, lane.frame()).await {
                Ok(Ok(answer)) => {
                    let text = String::from_utf8_lossy(&answer.payload);
                    thrown.refused_as_malformed += usize::from(text.contains("malformed"));
                }
                Ok(Err(reason)) => {
                    thrown.closed_with_reason += usize::from(reason.starts_with("closed by peer: "));
                    break;
                }
                Err(_) => {}
            }
        }
    }
    thrown
}

/// Bytes of a bad frame, and whether the lane is ended behind them.
fn bad_frame(random: &mut Random, good: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut bytes = good[random.below(good.len())].clone();
    match random.below(8) {
        // Damaged anywhere.
        0 => {
            random.mutate(&mut bytes);
            (bytes, random.below(2) == 0)
        }
        // Cut off.
        1 => {
            bytes.truncate(random.below(bytes.len()));
            (bytes, true)
        }
        // Too long, by its header.
        2 => (u32::MAX.to_be_bytes().into_iter().chain(bytes.into_iter().skip(4)).collect(), false),
        // Nested deeply.
        3 => (frame(bytes[5], 7, &vec![0x91 + random.below(2) as u8 * 0xf; 50_000]), false),
        // No frame at all.
        4 => {
            let length = random.below(4000) + 1;
            (random.bytes(length), false)
        }
        // Whole, and its payload spoilt.
        _ => {
            let mut payload = bytes[HEADER_BYTES..].to_vec();
            random.mutate(&mut payload);
            (frame(bytes[5], 0x700, &payload), false)
        }
    }
}
