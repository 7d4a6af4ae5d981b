//! The files that a cluster is made of, before any process runs: topology, certificates, configuration of each node,
//! profile of a client.

use crate::certs::{Certs, CertsError};
use crate::disk;
use crate::folder::{Folder, FolderError, NodeRecord, Record, RelayRecord};
use crate::relay;
use quorate_ring::id::{ClusterId, NodeId};
use quorate_ring::placement::{Layout, PlacementError};
use quorate_ring::topology::{Topology, TopologyError};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Ports are taken from here: below those that systems hand out to outgoing connections, so that a node that is down
/// for a while finds its port free when it comes back.
const PORTS: Range<u16> = 20_000..32_000;
const PORTS_PER_NODE: usize = 3;

/// Why the files of a cluster could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Certs(#[from] CertsError),
    #[error("these settings make no cluster: {}", .0.reason)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    #[error("{needed} free ports are needed on 127.0.0.1, and of {} to {} only {found} are free", PORTS.start, PORTS.end)]
    Ports { needed: usize, found: usize },
    #[error("no random bytes from the system: {0}")]
    Entropy(getrandom::Error),
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
}

/// What a cluster should look like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    pub nodes: u16,
    pub racks: u16,
    /// Copies of each key; by default 3, or as many as there are nodes.
    pub n: Option<u8>,
    pub partitions: u16,
    /// Lines added to the configuration of each node.
    pub node_settings: String,
    /// Where in a node's folder its data lies.
    pub data: &'static str,
    /// The nodes talk through a relay, so that links can be cut and slowed down.
    pub faults: bool,
    /// Each node has a small disk of its own, of this size, that can be filled.
    pub disk_bytes: Option<u64>,
}

impl Default for Shape {
    fn default() -> Self {
        let node_settings = String::new();
        let (faults, disk_bytes) = (false, None);
        Self { nodes: 5, racks: 3, n: None, partitions: 256, node_settings, data: "data", faults, disk_bytes }
    }
}

/// Makes the folder of a cluster. No process is started; the record names none.
pub fn make(folder: &Folder, shape: &Shape) -> Result<Record, PlanError> {
    let cluster = ClusterId(random()?);
    let (nodes, spare) = nodes(shape)?;
    let text = topology_text(cluster, shape, &nodes);
    Layout::new(Arc::new(Topology::parse(&text)?))?;
    folder.make()?;
    write(folder.topology(), &text)?;
    let mut record = Record { disk_bytes: shape.disk_bytes, data: shape.data.to_string(), ..Record::new(nodes) };
    issue_certificates(folder, cluster, &record)?;
    let relay = shape.faults.then(|| relay_plan(&record.nodes, &spare));
    for node in &record.nodes {
        let path = folder.node(&node.name);
        fs::create_dir_all(&path).map_err(|error| PlanError::File { path, error })?;
        write(folder.node_config(&node.name), &node_text(node, shape))?;
        if let Some(relay) = &relay {
            let seen = record.nodes.iter().map(|other| through(relay, node, other)).collect::<Vec<_>>();
            write(folder.node(&node.name).join("topology.toml"), &topology_text(cluster, shape, &seen))?;
        }
    }
    if let Some(relay) = relay {
        let text = serde_json::to_string_pretty(&relay).expect("names and addresses are valid JSON");
        write(folder.relay_plan(), &text)?;
        record.relay = Some(RelayRecord { control: relay.control, process: None });
    }
    write(folder.client_profile(), &profile_text(cluster, &record))?;
    folder.write_record(&record)?;
    Ok(record)
}

/// New certificates for every node and the client, by the authorities of the folder.
pub fn issue_certificates(folder: &Folder, cluster: ClusterId, record: &Record) -> Result<(), PlanError> {
    let certs = Certs::open_or_make(&folder.certs())?;
    for node in &record.nodes {
        certs.issue_node(cluster, NodeId(node.id), &node.name)?;
    }
    Ok(certs.issue_client(cluster, "client")?)
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], PlanError> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(PlanError::Entropy)?;
    Ok(bytes)
}

/// The nodes, and the ports that are left for a relay.
fn nodes(shape: &Shape) -> Result<(Vec<NodeRecord>, Vec<u16>), PlanError> {
    let start = u16::from_le_bytes(random()?);
    let count = usize::from(shape.nodes);
    let for_relay = if shape.faults { 1 + count * (count - 1) } else { 0 };
    let mut ports = free_ports(count * PORTS_PER_NODE + for_relay, start)?;
    let spare = ports.split_off(count * PORTS_PER_NODE);
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let node = |(index, ports): (usize, &[u16])| NodeRecord {
        id: index as u16 + 1,
        name: format!("n{}", index + 1),
        rack: format!("rack{}", index % usize::from(shape.racks) + 1),
        client_address: address(ports[0]),
        peer_address: address(ports[1]),
        admin_address: address(ports[2]),
        initialised: false,
        process: None,
    };
    Ok((ports.chunks_exact(PORTS_PER_NODE).enumerate().map(node).collect(), spare))
}

/// A port for each ordered pair of nodes, and one for orders.
fn relay_plan(nodes: &[NodeRecord], ports: &[u16]) -> relay::Plan {
    let mut addresses = ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port)));
    let mut next = || addresses.next().expect("as many ports were looked for as there are pairs, and one");
    let control = next();
    let mut ports = Vec::new();
    for node in nodes {
        for other in nodes.iter().filter(|other| other.id != node.id) {
            ports.push(relay::Port { of: node.name.clone(), as_if: other.name.clone(), address: next() });
        }
    }
    let nodes = nodes.iter().map(|node| (node.name.clone(), node.peer_address)).collect();
    relay::Plan { control, nodes, ports }
}

/// A node as another finds it: behind the relay.
fn through(relay: &relay::Plan, node: &NodeRecord, other: &NodeRecord) -> NodeRecord {
    let peer_address = relay.port(&node.name, &other.name).unwrap_or(other.peer_address);
    NodeRecord { peer_address, ..other.clone() }
}

/// Ports that are free for UDP and for TCP, looked for from some place of the range on, so that two labs that are
/// made at the same time hardly ever pick the same.
fn free_ports(needed: usize, start: u16) -> Result<Vec<u16>, PlanError> {
    let count = PORTS.end - PORTS.start;
    let candidates = (0..count).map(|step| PORTS.start + (start % count + step) % count);
    let found: Vec<u16> = candidates.filter(|port| is_free(*port)).take(needed).collect();
    match found.len() == needed {
        true => Ok(found),
        false => Err(PlanError::Ports { needed, found: found.len() }),
    }
}

/// A port that nobody uses.
pub fn free_port() -> Option<u16> {
    let start = u16::from_le_bytes(random().ok()?);
    free_ports(1, start).ok()?.pop()
}

/// Whether nobody on this machine uses the port on 127.0.0.1, for UDP or TCP.
pub fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
}

fn topology_text(cluster: ClusterId, shape: &Shape, nodes: &[NodeRecord]) -> String {
    let n = shape.n.unwrap_or(shape.nodes.min(3) as u8);
    let mut text = format!("cluster = \"{cluster}\"\nepoch = 1\npartitions = {}\n", shape.partitions);
    for node in nodes {
        let NodeRecord { id, name, rack, client_address, peer_address, .. } = node;
        let _ = write!(
            text,
            "\n[[node]]\nid = {id}\nname = \"{name}\"\nclient_address = \"{client_address}\"\n\
             peer_address = \"{peer_address}\"\nrack = \"{rack}\"\n"
        );
    }
    let buckets = [
        ("default", n, "siblings", "strict"),
        ("lww", n, "lww", "strict"),
        ("sloppy", n, "siblings", "sloppy"),
        ("single", 1, "siblings", "strict"),
        ("canary", n, "lww", "strict"),
    ];
    for (index, (name, n, conflict, quorum)) in buckets.into_iter().enumerate() {
        let id = index + 1;
        let _ = write!(
            text,
            "\n[[bucket]]\nid = {id}\nname = \"{name}\"\nn = {n}\nconflict = \"{conflict}\"\nquorum = \"{quorum}\"\n\
             durability = \"sync\"\n"
        );
    }
    text
}

fn node_text(node: &NodeRecord, shape: &Shape) -> String {
    let NodeRecord { name, admin_address, .. } = node;
    // Behind a relay each node has a topology of its own, in which the others are at ports of the relay.
    let topology = if shape.faults { "topology.toml" } else { "../topology.toml" };
    let reserve = shape.disk_bytes.map(|bytes| format!("disk_reserve_bytes = {}\n", disk::reserve(bytes)));
    format!(
        "node = \"{name}\"\ntopology = \"{topology}\"\ndata = \"{}\"\ncertificate = \"../certs/{name}.pem\"\n\
         key = \"../certs/{name}-key.pem\"\nnode_ca = \"../certs/node-ca.pem\"\n\
         client_ca = \"../certs/client-ca.pem\"\nadmin_address = \"{admin_address}\"\n{}{}",
        shape.data,
        reserve.unwrap_or_default(),
        shape.node_settings
    )
}

fn profile_text(cluster: ClusterId, record: &Record) -> String {
    let mut text = format!(
        "cluster = \"{cluster}\"\ncertificate = \"certs/client.pem\"\nkey = \"certs/client-key.pem\"\n\
         node_ca = \"certs/node-ca.pem\"\nbucket = \"default\"\n"
    );
    for node in &record.nodes {
        let _ = write!(text, "\n[[node]]\nid = {}\naddress = \"{}\"\n", node.id, node.client_address);
    }
    text
}

fn write(path: PathBuf, text: &str) -> Result<(), PlanError> {
    fs::write(&path, text).map_err(|error| PlanError::File { path, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_made_folder_holds_what_it_should() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(&dir.path().join("lab")).unwrap();
        let record = make(&folder, &Shape::default()).unwrap();
        assert_eq!(record.names(), ["n1", "n2", "n3", "n4", "n5"]);
        assert_eq!(folder.read_record().unwrap(), record);
        let topology = Topology::parse(&fs::read_to_string(folder.topology()).unwrap()).unwrap();
        let racks: BTreeSet<&str> = topology.nodes.iter().map(|node| node.rack.as_str()).collect();
        assert_eq!(racks.len(), 3);
        let default = topology.bucket_named("default").unwrap();
        assert_eq!((default.n, default.r, default.w), (3, 2, 2));
        assert_eq!(topology.bucket_named("single").unwrap().n, 1);
        for name in ["ca", "node-ca", "client-ca", "client", "n1", "n5"] {
            assert!(folder.certs().join(format!("{name}.pem")).exists(), "{name}");
        }
        let ports: BTreeSet<u16> = record
            .nodes
            .iter()
            .flat_map(|n| [n.client_address.port(), n.peer_address.port(), n.admin_address.port()])
            .collect();
        assert_eq!(ports.len(), 15);
    }

    #[test]
    fn behind_a_relay_each_node_has_its_own_view_of_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(&dir.path().join("lab")).unwrap();
        let record = make(&folder, &Shape { nodes: 3, faults: true, ..Shape::default() }).unwrap();
        let relay = relay::Plan::load(&folder.relay_plan()).unwrap();
        assert_eq!(Some(relay.control), record.relay.as_ref().map(|relay| relay.control));
        assert_eq!(relay.ports.len(), 6);
        for node in &record.nodes {
            let text = fs::read_to_string(folder.node(&node.name).join("topology.toml")).unwrap();
            let seen = Topology::parse(&text).unwrap();
            for other in &seen.nodes {
                let real = &record.node(&other.name).unwrap();
                let expected = relay.port(&node.name, &other.name).unwrap_or(real.peer_address);
                assert_eq!((other.peer_address, other.client_address), (expected, real.client_address));
            }
        }
    }

    #[test]
    fn settings_that_make_no_cluster_leave_no_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(&dir.path().join("lab")).unwrap();
        let error = make(&folder, &Shape { n: Some(6), ..Shape::default() }).unwrap_err().to_string();
        assert!(error.contains("6 copies need 6 nodes"), "{error}");
        let error = make(&folder, &Shape { partitions: 100, ..Shape::default() }).unwrap_err().to_string();
        assert!(error.contains("power of two"), "{error}");
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let start = 7;
        let udp = free_ports(1, start).unwrap()[0];
        let _held = UdpSocket::bind((Ipv4Addr::LOCALHOST, udp)).unwrap();
        assert!(!is_free(udp));
        let tcp = free_ports(1, start).unwrap()[0];
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, tcp)).unwrap();
        assert!(!is_free(tcp) && tcp != udp);
    }
}
