//! The certificates of a cluster.
//!
//! A root signs two intermediates, the node CA and the client CA. A node trusts, on the plane of its peers, only what
//! the node CA issued, and on the plane of its clients only what the client CA issued: so a client's certificate can
//! never replicate, and a node's is nobody's client. All keys are Ed25519.

use quorate_ring::id::{ClusterId, NodeId};
use quorate_ring::wire::server_name;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519,
};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// How long a certificate of a node or a client is good for.
pub const LEAF_DAYS: i64 = 90;
const INTERMEDIATE_DAYS: i64 = 5 * 365;
const ROOT_DAYS: i64 = 10 * 365;
/// Certificates are good from a little before now on, as clocks differ.
const LEEWAY: Duration = Duration::hours(1);

/// Why certificates could not be made. What was written before stays.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not a certificate or key that was made here ({error}); move it away to have a new one made", path = path.display())]
    Unreadable { path: PathBuf, error: rcgen::Error },
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// A folder of certificates, with both authorities at hand.
pub struct Certs {
    folder: PathBuf,
    node_ca: Authority,
    client_ca: Authority,
}

/// Something that issues certificates: its own as text, and its key.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Who a certificate is for.
enum Role<'a> {
    Node(NodeId),
    Client(&'a str),
}

impl Certs {
    /// Opens a folder of certificates; makes it, the root and the two intermediates where they are missing.
    pub fn open_or_make(folder: &Path) -> Result<Self, CertsError> {
        fs::create_dir_all(folder).map_err(|error| CertsError::File { path: folder.to_path_buf(), error })?;
        let authority = |file: &str, name: &str, path_length, days, parent: Option<&Authority>| {
            let path = folder.join(format!("{file}.pem"));
            let key_path = folder.join(format!("{file}-key.pem"));
            match path.exists() && key_path.exists() {
                true => Authority::read(&path, &key_path),
                false => Authority::make(&path, &key_path, name, path_length, days, parent),
            }
        };
        let root = authority("ca", "Quorate root CA", 1, ROOT_DAYS, None)?;
        let node_ca = authority("node-ca", "Quorate node CA", 0, INTERMEDIATE_DAYS, Some(&root))?;
        let client_ca = authority("client-ca", "Quorate client CA", 0, INTERMEDIATE_DAYS, Some(&root))?;
        Ok(Self { folder: folder.to_path_buf(), node_ca, client_ca })
    }

    /// A new certificate and key for a node, in `<name>.pem` and `<name>-key.pem`.
    pub fn issue_node(&self, cluster: ClusterId, node: NodeId, name: &str) -> Result<(), CertsError> {
        self.issue(cluster, name, &Role::Node(node))
    }

    /// A new certificate and key for a client, in `<name>.pem` and `<name>-key.pem`.
    pub fn issue_client(&self, cluster: ClusterId, name: &str) -> Result<(), CertsError> {
        self.issue(cluster, name, &Role::Client(name))
    }

    fn issue(&self, cluster: ClusterId, file: &str, role: &Role<'_>) -> Result<(), CertsError> {
        let (dns, authority) = match role {
            Role::Node(node) => (server_name(cluster, *node), &self.node_ca),
            Role::Client(name) => (format!("client-{name}.{cluster}.quorate"), &self.client_ca),
        };
        let mut params = CertificateParams::new(vec![dns.clone()])?;
        describe(&mut params, &dns, LEAF_DAYS);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node dials its peers and is dialled by them with one and the same certificate.
        params.extended_key_usages = match role {
            Role::Node(_) => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Client(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let leaf = params.signed_by(&key, &authority.issuer)?;
        let chain = format!("{}{}", leaf.pem(), authority.pem);
        write(&self.folder.join(format!("{file}-key.pem")), &key.serialize_pem(), 0o600)?;
        write(&self.folder.join(format!("{file}.pem")), &chain, 0o644)
    }
}

impl Authority {
    fn make(
        path: &Path,
        key_path: &Path,
        name: &str,
        path_length: u8,
        days: i64,
        parent: Option<&Authority>,
    ) -> Result<Self, CertsError> {
        let mut params = CertificateParams::new(Vec::new())?;
        describe(&mut params, name, days);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate = match parent {
            Some(parent) => params.signed_by(&key, &parent.issuer)?,
            None => params.self_signed(&key)?,
        };
        let pem = certificate.pem();
        write(key_path, &key.serialize_pem(), 0o600)?;
        write(path, &pem, 0o644)?;
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    fn read(path: &Path, key_path: &Path) -> Result<Self, CertsError> {
        let text = |path: &Path| {
            fs::read_to_string(path).map_err(|error| CertsError::File { path: path.to_path_buf(), error })
        };
        let unreadable = |path: &Path, error| CertsError::Unreadable { path: path.to_path_buf(), error };
        let pem = text(path)?;
        let key = KeyPair::from_pem(&text(key_path)?).map_err(|error| unreadable(key_path, error))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| unreadable(path, error))?;
        Ok(Self { pem, issuer })
    }
}

fn describe(params: &mut CertificateParams, name: &str, days: i64) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - LEEWAY;
    params.not_after = now + Duration::days(days);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.use_authority_key_identifier_extension = true;
}

/// Written beside its place and moved there, so that no reader ever finds half a file; keys are for their owner only.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let beside = path.with_extension("pem.new");
    let written = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|error| CertsError::File { path: path.to_path_buf(), error })
}

#[cfg(test)]
#[path = "certs_tests.rs"]
mod tests;
