//! Connections to a node, with whatever credentials one likes.

use super::certs::Identity;
use super::lane::Lane;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::version::TLS13;
use rustls_pki_types::CertificateDer;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// Longer than any limit of the node that a refusal waits for.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);

/// What is shown to a node, and what is trusted of it.
pub struct Caller<'a> {
    /// None: no certificate is shown.
    pub identity: Option<&'a Identity>,
    pub trust: &'a CertificateDer<'static>,
    pub alpn: &'a [u8],
    pub server_name: &'a str,
}

impl Caller<'_> {
    fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.trust.clone()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_webpki_verifier(verifier);
        let mut tls = match self.identity {
            Some(identity) => builder.with_client_auth_cert(identity.chain(), identity.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = if self.alpn.is_empty() { Vec::new() } else { vec![self.alpn.to_vec()] };
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }

    /// Connects; with TLS 1.3 a refusal of our certificate comes only after that.
    pub async fn connect(&self, endpoint: &Endpoint, address: SocketAddr) -> Result<Connection, String> {
        let connecting = endpoint.connect_with(self.config(), address, self.server_name).map_err(|e| e.to_string())?;
        let connected = tokio::time::timeout(DIAL_TIME_MAX, connecting).await;
        connected.map_err(|_| "no answer".to_string())?.map_err(|e| e.to_string())
    }

    /// Connects and opens the lane.
    pub async fn lane(&self, endpoint: &Endpoint, address: SocketAddr) -> Result<Lane, String> {
        Lane::open(self.connect(endpoint, address).await?).await
    }
}

/// A socket to dial from.
pub fn endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}
