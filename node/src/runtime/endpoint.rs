//! The two UDP ports of a node, with every limit of QUIC set.

use super::tls::Tls;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime, TransportConfig, VarInt};
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

    /// Bytes that the other side may send ahead of what was read, on a connection. There is one stream on it.
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
    listen(Plane::Client, address, server_config(Plane::Client, tls.client_server.clone())?)
}

/// Listens for peers, and dials them from the same port.
pub fn peer_plane(address: SocketAddr, tls: &Tls) -> Result<Endpoint, EndpointError> {
    let mut endpoint = listen(Plane::Peer, address, server_config(Plane::Peer, tls.peer_server.clone())?)?;
    let crypto = QuicClientConfig::try_from(tls.peer_client.clone())?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(Plane::Peer, 0)));
    endpoint.set_default_client_config(config);
    Ok(endpoint)
}

fn listen(plane: Plane, address: SocketAddr, config: ServerConfig) -> Result<Endpoint, EndpointError> {
    let bind = |cause| EndpointError::Bind { plane, address, cause };
    let socket = UdpSocket::bind(address).map_err(bind)?;
    Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime)).map_err(bind)
}

fn server_config(plane: Plane, tls: Arc<rustls::ServerConfig>) -> Result<ServerConfig, EndpointError> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(Arc::new(transport(plane, 1)))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    Ok(config)
}

/// `lanes`: streams that the other side may open.
fn transport(plane: Plane, lanes: u32) -> TransportConfig {
    let window = VarInt::from_u32(plane.receive_window());
    let idle = IdleTimeout::try_from(plane.idle_timeout()).expect("seconds fit");
    let mut config = TransportConfig::default();
    config
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
