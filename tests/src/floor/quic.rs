//! Endpoints with the limits of the store, and TLS on both sides by one certificate that all have.

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig, TransportConfig,
    VarInt,
};
use quorate_ring::wire::DATAGRAMS_UNACKED_MAX;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub type Fault = Box<dyn Error>;

const NAME: &str = "floor";
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// A certificate and its key, shared by all processes.
pub struct Credentials {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Credentials {
    pub fn make() -> Result<Self, Fault> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        let certificate = rcgen::CertificateParams::new(vec![NAME.to_string()])?.self_signed(&key)?;
        Ok(Self { certificate: certificate.der().to_vec(), key: key.serialize_der() })
    }

    pub fn save(&self, folder: &Path) -> std::io::Result<()> {
        std::fs::write(folder.join("certificate.der"), &self.certificate)?;
        std::fs::write(folder.join("key.der"), &self.key)
    }

    pub fn read(folder: &Path) -> std::io::Result<Self> {
        let file = |name| std::fs::read(folder.join(name));
        Ok(Self { certificate: file("certificate.der")?, key: file("key.der")? })
    }

    fn parts(&self) -> Result<(Arc<RootCertStore>, CertificateDer<'static>, PrivateKeyDer<'static>), Fault> {
        let certificate = CertificateDer::from(self.certificate.clone());
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        Ok((Arc::new(roots), certificate, PrivatePkcs8KeyDer::from(self.key.clone()).into()))
    }

    fn client(&self) -> Result<ClientConfig, Fault> {
        let (roots, certificate, key) = self.parts()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(transport());
        Ok(config)
    }

    fn server(&self) -> Result<ServerConfig, Fault> {
        let (roots, certificate, key) = self.parts()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)?;
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        config.transport_config(transport());
        Ok(config)
    }
}

fn transport() -> Arc<TransportConfig> {
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(DATAGRAMS_UNACKED_MAX));
    let mut config = TransportConfig::default();
    config
        .ack_frequency_config(Some(acks))
        .receive_window(VarInt::from_u32(WINDOW_BYTES))
        .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(Duration::from_secs(3)));
    Arc::new(config)
}

/// Listens at `address`, and dials from there.
pub fn endpoint(address: SocketAddr, credentials: &Credentials) -> Result<Endpoint, Fault> {
    let mut endpoint = Endpoint::server(credentials.server()?, address)?;
    endpoint.set_default_client_config(credentials.client()?);
    Ok(endpoint)
}

/// Dials until there is an answer; the one stream of the connection is opened with a first byte, which says who dials.
pub async fn dial(endpoint: &Endpoint, to: SocketAddr, me: u8) -> Result<(Connection, SendStream, RecvStream), Fault> {
    loop {
        match endpoint.connect(to, NAME)?.await {
            Ok(connection) => {
                let (mut send, receive) = connection.open_bi().await?;
                send.write_all(&[me]).await?;
                return Ok((connection, send, receive));
            }
            Err(_not_up_yet) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}
