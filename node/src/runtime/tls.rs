//! Who may connect: mutual TLS 1.3, with one trust anchor for each plane.
//!
//! Nodes trust only the node CA among themselves, and only the client CA on the client plane; so no client can
//! replicate, and no node passes for a client. No session is resumed and nothing is sent early: every connection shows
//! a certificate that is valid now.

use quorate_ring::id::{ClusterId, NodeId};
use quorate_ring::topology::Topology;
use quorate_ring::wire::{ALPN_CLIENT, ALPN_PEER, ALPN_SYNC, node_of_server_name, server_name};
use ring::hmac;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Where the credentials of a node lie (PEM).
#[derive(Clone, Copy, Debug)]
pub struct TlsFiles<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    pub node_ca: &'a Path,
    pub client_ca: &'a Path,
}

/// The roles of a node. A fourth, the client's, is not played here.
#[derive(Clone, Debug)]
pub struct Tls {
    pub peer_server: Arc<ServerConfig>,
    pub peer_client: Arc<ClientConfig>,
    pub sync_client: Arc<ClientConfig>,
    pub client_server: Arc<ServerConfig>,
    /// When the certificate of this node ends to be valid, in seconds since 1970.
    pub expires_s: i64,
    /// Known to this node alone, and the same in its next run: so that the other ends of connections that it has no
    /// memory of can believe it that they are gone.
    pub reset_key: hmac::Key,
}

/// What is wrong with the credentials of a node.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} {}: {cause}", path.display())]
    File { what: &'static str, path: PathBuf, cause: String },
    #[error("certificate {}: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("key {} does not belong to certificate {}", key.display(), certificate.display())]
    KeyMismatch { key: PathBuf, certificate: PathBuf },
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl Tls {
    /// Reads the files, and checks that they are what this node of this cluster needs, now.
    pub fn load(files: TlsFiles<'_>, cluster: ClusterId, node: NodeId) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates("certificate", files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(files.key).map_err(|e| fault("key", files.key, &e))?;
        let node_anchor = anchor("node_ca", files.node_ca)?;
        let client_anchor = anchor("client_ca", files.client_ca)?;
        let nodes = WebPkiServerVerifier::builder_with_provider(node_anchor.clone(), provider.clone())
            .build()
            .map_err(|e| fault("node_ca", files.node_ca, &e))?;
        check_pair(files, &provider, &chain, &key)?;
        check_chain(files, nodes.as_ref(), &chain, &server_name(cluster, node))?;
        let peers = asks(&provider, node_anchor, "node_ca", files.node_ca)?;
        let clients = asks(&provider, client_anchor, "client_ca", files.client_ca)?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
        let reset_key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&secret, RESET_LABEL).as_ref());
        let expires_s = expiry(files, &chain)?;
        let identity = (chain, key);
        Ok(Self {
            peer_server: server(&provider, peers, &identity, &[ALPN_PEER, ALPN_SYNC])?,
            client_server: server(&provider, clients, &identity, &[ALPN_CLIENT])?,
            peer_client: client(&provider, nodes.clone(), &identity, ALPN_PEER)?,
            sync_client: client(&provider, nodes, &identity, ALPN_SYNC)?,
            expires_s,
            reset_key,
        })
    }
}

fn expiry(files: TlsFiles<'_>, chain: &[CertificateDer<'static>]) -> Result<i64, TlsError> {
    let unreadable = |reason: String| TlsError::Certificate { path: files.certificate.to_path_buf(), reason };
    let leaf = chain.first().ok_or_else(|| unreadable("it holds no certificate".to_string()))?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|e| unreadable(e.to_string()))?;
    Ok(leaf.validity().not_after.timestamp())
}

/// Sets the key for stateless resets apart from every other use of the private key.
const RESET_LABEL: &[u8] = b"quorate stateless reset";

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Demands a certificate signed by the only anchor.
fn asks(
    provider: &Arc<CryptoProvider>,
    anchor: Arc<RootCertStore>,
    what: &'static str,
    path: &Path,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(anchor, provider.clone()).build().map_err(|e| fault(what, path, &e))
}

fn server(
    provider: &Arc<CryptoProvider>,
    asks: Arc<dyn ClientCertVerifier>,
    (chain, key): &Identity,
    alpns: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(asks)
        .with_single_cert(chain.clone(), key.clone_key())?;
    config.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn client(
    provider: &Arc<CryptoProvider>,
    nodes: Arc<WebPkiServerVerifier>,
    (chain, key): &Identity,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_webpki_verifier(nodes)
        .with_client_auth_cert(chain.clone(), key.clone_key())?;
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn check_pair(
    files: TlsFiles<'_>,
    provider: &CryptoProvider,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), TlsError> {
    let signing = provider.key_provider.load_private_key(key.clone_key()).map_err(|e| fault("key", files.key, &e))?;
    let pair = CertifiedKey::new(chain.to_vec(), signing);
    pair.keys_match().map_err(|e| match e {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::KeyMismatch { key: files.key.to_path_buf(), certificate: files.certificate.to_path_buf() }
        }
        other => fault("certificate", files.certificate, &other),
    })
}

/// Looks at the node's own certificate as its peers will.
fn check_chain(
    files: TlsFiles<'_>,
    nodes: &WebPkiServerVerifier,
    chain: &[CertificateDer<'static>],
    name: &str,
) -> Result<(), TlsError> {
    let refused = |reason| TlsError::Certificate { path: files.certificate.to_path_buf(), reason };
    let (leaf, issuers) = chain.split_first().expect("a file without a certificate was refused");
    let expected = ServerName::try_from(name).map_err(|e| refused(format!("{name}: {e}")))?;
    let verified = nodes.verify_server_cert(leaf, issuers, &expected, &[], UnixTime::now());
    let Err(error) = verified else { return Ok(()) };
    let signer = files.node_ca.display();
    Err(refused(match error {
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("expired on {}; have a new one signed", validity(leaf).1)
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            format!("not valid before {}; check the clock of this machine", validity(leaf).0)
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            let names = dns_names(leaf).join(", ");
            format!("it is for [{names}], and this node needs {name}; use the certificate of this node and cluster")
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!("it is not signed by node_ca {signer}; use files of one cluster")
        }
        other => format!("it does not hold against node_ca {signer}: {other}"),
    }))
}

fn validity(certificate: &CertificateDer<'_>) -> (String, String) {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => (parsed.validity().not_before.to_string(), parsed.validity().not_after.to_string()),
        Err(_) => ("an unknown date".to_string(), "an unknown date".to_string()),
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(|e| fault(what, path, &e))?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(|e| fault(what, path, &e))?;
    if chain.is_empty() {
        let cause = "there is no certificate in this file".to_string();
        return Err(TlsError::File { what, path: path.to_path_buf(), cause });
    }
    Ok(chain)
}

/// The first certificate of the file, as the only one trusted.
fn anchor(what: &'static str, path: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    let first = certificates(what, path)?.swap_remove(0);
    store.add(first).map_err(|e| fault(what, path, &e))?;
    Ok(Arc::new(store))
}

fn fault(what: &'static str, path: &Path, cause: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { what, path: path.to_path_buf(), cause: cause.to_string() }
}

/// Why a verified certificate is not one of a peer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the certificate names [{names}]; no other node of cluster {cluster} is called so in topology epoch {epoch}")]
pub struct NotAPeer {
    names: String,
    cluster: ClusterId,
    epoch: u64,
}

/// The node that a peer's verified certificate names. It is one of the topology, and not `own`.
pub fn peer_of(certificate: &CertificateDer<'_>, topology: &Topology, own: NodeId) -> Result<NodeId, NotAPeer> {
    let names = dns_names(certificate);
    let known = |name: &String| {
        let node = node_of_server_name(topology.cluster, name)?;
        (node != own && topology.node(node).is_some()).then_some(node)
    };
    names.iter().find_map(known).ok_or_else(|| NotAPeer {
        names: names.join(", "),
        cluster: topology.cluster,
        epoch: topology.epoch.0,
    })
}

fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else { return Vec::new() };
    let name = |general: &GeneralName<'_>| match general {
        GeneralName::DNSName(name) => Some(name.to_string()),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(name).collect()
}
