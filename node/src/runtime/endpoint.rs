//! The two UDP ports of a node, with every limit of QUIC set.

use super::tls::Tls;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectError, Connecting, ConnectionId, ConnectionIdGenerator, Endpoint,
    EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quorate_ring::wire::{DATAGRAMS_UNACKED_MAX, SOCKET_BYTES};
use ring::hmac;
use socket2::SockRef;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Connection attempts that wait for an answer; beyond it they are refused.
const INCOMING_MAX: usize = 256;
/// Bytes that may be sent ahead by one of them, and by all.
const INCOMING_BYTES_MAX: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL_MAX: u64 = 2 * 1024 * 1024;
/// Of TLS messages that arrive out of order.
const CRYPTO_BYTES_MAX: usize = 16 * 1024;

/// Which plane an endpoint serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plane {
    Client,
    Peer,
}

impl Plane {
    pub fn name(self) -> &'static str {
        match self {
            Plane::Client => "client",
            Plane::Peer => "peer",
        }
    }

    /// Bytes that the other side may send ahead of what was read, on a connection. There is one lane on it.
    fn receive_window(self) -> u32 {
        match self {
            Plane::Client => 1024 * 1024,
            Plane::Peer => 8 * 1024 * 1024,
        }
    }

    /// Bytes sent and not acknowledged yet.
    fn send_window(self) -> u64 {
        match self {
            Plane::Client => 2 * 1024 * 1024,
            Plane::Peer => 8 * 1024 * 1024,
        }
    }

    /// What a round trip is taken to be before one was measured: after three of it a first datagram is sent again.
    fn initial_rtt(self) -> Duration {
        match self {
            Plane::Client => Duration::from_millis(333),
            Plane::Peer => Duration::from_millis(50),
        }
    }

    /// How long the other side may be silent, at the most: QUIC takes the lesser time of both, and `quorate-client` says less.
    fn idle_timeout(self) -> Duration {
        match self {
            Plane::Client => Duration::from_secs(30),
            Plane::Peer => Duration::from_secs(10),
        }
    }

    fn keep_alive(self) -> Duration {
        match self {
            Plane::Client => Duration::from_secs(10),
            Plane::Peer => Duration::from_secs(3),
        }
    }
}

/// The two lanes to a peer, each on a connection of its own, so that a heavy sync does not delay an ack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PeerLane {
    /// Acks, heartbeats, and what a client waits for.
    Main,
    /// What nobody waits for.
    Sync,
}

impl PeerLane {
    pub fn other(self) -> Self {
        match self {
            PeerLane::Main => PeerLane::Sync,
            PeerLane::Sync => PeerLane::Main,
        }
    }
}

/// Of pages that were sent and not read yet.
const SYNC_WINDOW_BYTES: u32 = 1024 * 1024;

/// Dials peers.
#[derive(Clone, Debug)]
pub struct PeerDialler {
    endpoint: Endpoint,
    main: ClientConfig,
    sync: ClientConfig,
}

impl PeerDialler {
    fn new(endpoint: Endpoint, tls: &Tls) -> Result<Self, EndpointError> {
        let config = |crypto: &Arc<rustls::ClientConfig>, window| -> Result<ClientConfig, EndpointError> {
            let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto.clone())?));
            config.transport_config(Arc::new(transport(Plane::Peer, window, 0)));
            Ok(config)
        };
        let main = config(&tls.peer_client, Plane::Peer.receive_window())?;
        let sync = config(&tls.sync_client, SYNC_WINDOW_BYTES)?;
        Ok(Self { endpoint, main, sync })
    }

    pub fn dial(&self, lane: PeerLane, address: SocketAddr, name: &str) -> Result<Connecting, ConnectError> {
        let config = match lane {
            PeerLane::Main => &self.main,
            PeerLane::Sync => &self.sync,
        };
        self.endpoint.connect_with(config.clone(), address, name)
    }
}

/// Why the node does not listen.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("{} address {address} cannot be used: {cause}; is another node running there?", plane.name())]
    Bind { plane: Plane, address: SocketAddr, cause: std::io::Error },
    #[error("TLS cannot be used for QUIC: {0}")]
    Crypto(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Listens for clients.
pub fn client_plane(address: SocketAddr, tls: &Tls) -> Result<Endpoint, EndpointError> {
    listen(Plane::Client, address, &tls.reset_key, server_config(Plane::Client, tls.client_server.clone())?)
}

/// Listens for peers, and dials them from the same port.
pub fn peer_plane(address: SocketAddr, tls: &Tls) -> Result<(Endpoint, PeerDialler), EndpointError> {
    let config = server_config(Plane::Peer, tls.peer_server.clone())?;
    let endpoint = listen(Plane::Peer, address, &tls.reset_key, config)?;
    let dialler = PeerDialler::new(endpoint.clone(), tls)?;
    Ok((endpoint, dialler))
}

/// A datagram of a connection that an earlier run had is answered by a reset, which the other side can believe: the
/// key is the same in every run. So who was connected to a node that was killed learns of it when it is back.
fn listen(
    plane: Plane,
    address: SocketAddr,
    reset_key: &hmac::Key,
    config: ServerConfig,
) -> Result<Endpoint, EndpointError> {
    let bind = |cause| EndpointError::Bind { plane, address, cause };
    let socket = UdpSocket::bind(address).map_err(bind)?;
    let _as_many_as_the_system_allows = SockRef::from(&socket).set_recv_buffer_size(SOCKET_BYTES);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key.clone()));
    endpoint.cid_generator(|| Box::new(RandomIds));
    Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime)).map_err(bind)
}

/// Connection ids that say nothing. Those of an earlier run look as good as our own.
struct RandomIds;

const ID_BYTES: usize = 8;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; ID_BYTES];
        getrandom::fill(&mut id).expect("the operating system gives random numbers");
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn server_config(plane: Plane, tls: Arc<rustls::ServerConfig>) -> Result<ServerConfig, EndpointError> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport(plane, plane.receive_window(), 1)))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(config)
}

/// `lanes`: streams that the other side may open.
fn transport(plane: Plane, receive_window: u32, lanes: u32) -> TransportConfig {
    let window = VarInt::from_u32(receive_window);
    let idle = IdleTimeout::try_from(plane.idle_timeout()).expect("seconds fit");
    let mut config = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(DATAGRAMS_UNACKED_MAX));
    config
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(lanes))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(window)
        .stream_receive_window(window)
        .send_window(plane.send_window())
        .datagram_receive_buffer_size(None)
        .initial_rtt(plane.initial_rtt())
        .crypto_buffer_size(CRYPTO_BYTES_MAX)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(plane.keep_alive()));
    config
}
