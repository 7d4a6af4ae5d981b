use super::*;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn chain(folder: &Path, name: &str) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(folder.join(format!("{name}.pem"))).unwrap();
    read.collect::<Result<_, _>>().unwrap()
}

fn anchor(folder: &Path, name: &str) -> Arc<RootCertStore> {
    let mut store = RootCertStore::empty();
    store.add(chain(folder, name).remove(0)).unwrap();
    Arc::new(store)
}

fn passes_as_client(folder: &Path, leaf: &str, anchor_name: &str) -> bool {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(anchor(folder, anchor_name), provider).build().unwrap();
    let chain = chain(folder, leaf);
    verifier.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).is_ok()
}

fn passes_as_server(folder: &Path, leaf: &str, name: String, at: UnixTime) -> bool {
    let provider = Arc::new(default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(anchor(folder, "node-ca"), provider).build().unwrap();
    let chain = chain(folder, leaf);
    let name = ServerName::try_from(name).unwrap();
    verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], at).is_ok()
}

fn made() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let certs = Certs::open_or_make(folder.path()).unwrap();
    certs.issue_node(CLUSTER, NodeId(1), "n1").unwrap();
    certs.issue_client(CLUSTER, "client").unwrap();
    folder
}

#[test]
fn each_plane_takes_its_own_certificates_only() {
    let folder = made();
    let folder = folder.path();
    assert!(passes_as_client(folder, "n1", "node-ca"), "a node dials a peer");
    assert!(passes_as_client(folder, "client", "client-ca"), "a client dials a node");
    assert!(!passes_as_client(folder, "client", "node-ca"), "a client on the peer plane");
    assert!(!passes_as_client(folder, "n1", "client-ca"), "a node on the client plane");
    assert!(passes_as_client(folder, "n1", "ca") && passes_as_client(folder, "client", "ca"), "both chain to the root");
}

#[test]
fn a_node_is_itself_for_ninety_days_and_nobody_else() {
    let folder = made();
    let folder = folder.path();
    let later = |days: u64| {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(UnixTime::now().as_secs() + days * 86_400))
    };
    assert!(passes_as_server(folder, "n1", server_name(CLUSTER, NodeId(1)), later(0)));
    assert!(passes_as_server(folder, "n1", server_name(CLUSTER, NodeId(1)), later(89)));
    assert!(!passes_as_server(folder, "n1", server_name(CLUSTER, NodeId(1)), later(91)), "expired");
    assert!(!passes_as_server(folder, "n1", server_name(CLUSTER, NodeId(2)), later(0)), "another node");
    let elsewhere = ClusterId([8; 16]);
    assert!(!passes_as_server(folder, "n1", server_name(elsewhere, NodeId(1)), later(0)), "another cluster");
    assert!(!passes_as_server(folder, "client", server_name(CLUSTER, NodeId(1)), later(0)), "a client as a server");
}

#[test]
fn opened_again_it_issues_under_the_same_authorities() {
    let folder = made();
    let before = fs::read(folder.path().join("node-ca.pem")).unwrap();
    let certs = Certs::open_or_make(folder.path()).unwrap();
    certs.issue_node(CLUSTER, NodeId(2), "n2").unwrap();
    assert_eq!(fs::read(folder.path().join("node-ca.pem")).unwrap(), before);
    assert!(passes_as_client(folder.path(), "n2", "node-ca"));
}

#[test]
fn keys_are_for_their_owner_only() {
    let folder = made();
    for name in ["ca", "node-ca", "client-ca", "n1", "client"] {
        let mode = fs::metadata(folder.path().join(format!("{name}-key.pem"))).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_spoilt_authority_is_named_and_not_replaced() {
    let folder = made();
    fs::write(folder.path().join("node-ca.pem"), "not a certificate").unwrap();
    let error = Certs::open_or_make(folder.path()).err().unwrap().to_string();
    assert!(error.contains("node-ca.pem"), "{error}");
    assert_eq!(fs::read(folder.path().join("node-ca.pem")).unwrap(), b"not a certificate");
}
