//! The profile: how to reach a cluster, and as whom.

use quorate_ring::id::{ClusterId, NodeId};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// A checked profile. Its certificates are still in their files; see [`crate::Client::connect`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Profile {
    pub cluster: ClusterId,
    /// Client addresses of some nodes, at least one. The others are learnt from the topology; an address given here
    /// goes before the one in the topology.
    pub nodes: BTreeMap<NodeId, SocketAddr>,
    /// The client's certificate, followed by its issuer (PEM).
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The certificate that signs those of the nodes (PEM).
    pub node_ca: PathBuf,
    /// The bucket that is meant where none is named.
    pub bucket: String,
}

/// What is wrong with a profile file.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("cannot read the profile {}: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("profile {}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    cluster: String,
    certificate: PathBuf,
    key: PathBuf,
    node_ca: PathBuf,
    #[serde(default = "default_bucket")]
    bucket: String,
    #[serde(default)]
    node: Vec<NodeEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    id: u16,
    address: SocketAddr,
}

fn default_bucket() -> String {
    "default".to_string()
}

impl Profile {
    /// Reads a profile file (TOML). Paths in it are relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ProfileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ProfileError::Unreadable { path: path.to_path_buf(), cause })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|reason| ProfileError::Malformed { path: path.to_path_buf(), reason })
    }

    fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let document: Document = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
        let cluster = document.cluster.parse().map_err(|e| format!("cluster: {e}"))?;
        let mut nodes = BTreeMap::new();
        for node in &document.node {
            if node.id == 0 || nodes.insert(NodeId(node.id), node.address).is_some() {
                return Err(format!("node id {} is used twice, or is 0; ids count from 1", node.id));
            }
        }
        if nodes.is_empty() {
            return Err("it names no node; add [[node]] with id and address".to_string());
        }
        Ok(Self {
            cluster,
            nodes,
            certificate: folder.join(document.certificate),
            key: folder.join(document.key),
            node_ca: folder.join(document.node_ca),
            bucket: document.bucket,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "000102030405060708090a0b0c0d0e0f"
certificate = "certs/client.pem"
key = "/abs/client-key.pem"
node_ca = "certs/node-ca.pem"

[[node]]
id = 1
address = "127.0.0.1:7001"
"#;

    #[test]
    fn paths_are_relative_to_the_file() {
        let profile = Profile::parse(GOOD, Path::new("lab")).unwrap();
        assert_eq!(profile.certificate, Path::new("lab/certs/client.pem"));
        assert_eq!(profile.key, Path::new("/abs/client-key.pem"));
        assert_eq!(profile.bucket, "default");
        assert_eq!(profile.nodes[&NodeId(1)], "127.0.0.1:7001".parse().unwrap());
    }

    #[test]
    fn faults_are_named() {
        let cases = [
            ("node_ca =", "node_cas =", "unknown field"),
            ("id = 1", "id = 0", "ids count from 1"),
            ("127.0.0.1:7001", "here", "socket address"),
            ("000102", "zz0102", "32 hexadecimal digits"),
            ("[[node]]\nid = 1\naddress = \"127.0.0.1:7001\"", "", "names no node"),
        ];
        for (from, to, reason) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let fault = Profile::parse(&text, Path::new("")).unwrap_err();
            assert!(fault.contains(reason), "{from}: {fault}");
        }
    }
}
