//! TLS and transport settings of the client plane: mutual TLS 1.3, no 0-RTT, every limit set explicitly.

use crate::failure::ConnectError;
use crate::profile::Profile;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{AckFrequencyConfig, ClientConfig, TransportConfig, VarInt};
use quorate_ring::wire;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A node that is silent for this long counts as gone, and what it was asked as unanswered: who works in a closed loop
/// stands still until then, as sooner or later all that is under way waits for that node. As QUIC takes the lesser time of
/// both sides (RFC 9000, 10.1), the node drops a silent client as soon.
pub(crate) const SILENCE_MAX: Duration = Duration::from_millis(1_500);
const KEEP_ALIVE: Duration = Duration::from_millis(400);
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

pub(crate) fn client_config(profile: &Profile) -> Result<ClientConfig, ConnectError> {
    let chain = certificates(&profile.certificate)?;
    let key_path = &profile.key;
    let key = PrivateKeyDer::from_pem_slice(&read(key_path)?).map_err(|e| fault(key_path, e))?;
    let mut anchors = rustls::RootCertStore::empty();
    for anchor in certificates(&profile.node_ca)? {
        anchors.add(anchor).map_err(|e| fault(&profile.node_ca, e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| ConnectError::Tls(e.to_string()))?
        .with_root_certificates(anchors)
        .with_client_auth_cert(chain, key)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => fault(
                &profile.certificate,
                format!("the key in {} is not the key of this certificate", key_path.display()),
            ),
            error => fault(&profile.certificate, error),
        })?;
    tls.alpn_protocols = vec![wire::ALPN_CLIENT.to_vec()];
    tls.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(tls).map_err(|e| ConnectError::Tls(e.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(wire::DATAGRAMS_UNACKED_MAX));
    transport.ack_frequency_config(Some(acks));
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    transport.datagram_receive_buffer_size(None);
    transport.stream_receive_window(VarInt::from_u32(WINDOW_BYTES));
    transport.receive_window(VarInt::from_u32(WINDOW_BYTES));
    transport.send_window(u64::from(WINDOW_BYTES));
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    let silence = SILENCE_MAX.try_into().expect("this is a valid idle timeout");
    transport.max_idle_timeout(Some(silence));
    transport
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|e| fault(path, e))?;
    if all.is_empty() {
        return Err(fault(path, "it holds no certificate"));
    }
    Ok(all)
}

fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    std::fs::read(path).map_err(|e| fault(path, e))
}

fn fault(path: &Path, reason: impl std::fmt::Display) -> ConnectError {
    ConnectError::Certificate { path: path.to_path_buf(), reason: reason.to_string() }
}
