//! The topology file: its layout, and every check, each with the line at fault.

use super::{
    Bucket, Conflict, Count, Durability, N_MAX, Node, QuorumKind, Topology, VALUE_BYTES_DEFAULT, VALUE_BYTES_MAX,
};
use crate::id::{BucketId, ClusterId, Epoch, NodeId};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use toml::Spanned;

const NODES_MAX: usize = 1024;
const BUCKETS_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 64;
const WEIGHT_MAX: u32 = 64;
const PARTITIONS_MAX: u16 = 32_768;
const SOURCE_BYTES_MAX: usize = 1024 * 1024;

/// What is wrong with a topology file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct TopologyError {
    /// Counted from 1.
    pub line: usize,
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    cluster: Spanned<String>,
    epoch: Spanned<u64>,
    #[serde(default = "default_partitions")]
    partitions: Spanned<u16>,
    #[serde(default)]
    node: Vec<Spanned<NodeEntry>>,
    #[serde(default)]
    bucket: Vec<Spanned<BucketEntry>>,
}

fn default_partitions() -> Spanned<u16> {
    Spanned::new(0..0, 256)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    id: Spanned<u16>,
    name: Spanned<String>,
    client_address: Spanned<SocketAddr>,
    peer_address: Spanned<SocketAddr>,
    rack: Spanned<String>,
    #[serde(default = "default_weight")]
    weight: Spanned<u32>,
}

fn default_weight() -> Spanned<u32> {
    Spanned::new(0..0, 1)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BucketEntry {
    id: Spanned<u32>,
    name: Spanned<String>,
    n: Option<Spanned<u8>>,
    r: Option<Spanned<CountEntry>>,
    w: Option<Spanned<CountEntry>>,
    #[serde(default = "default_conflict")]
    conflict: Conflict,
    #[serde(default = "default_quorum")]
    quorum: QuorumKind,
    #[serde(default = "default_durability")]
    durability: Durability,
    value_bytes_max: Option<Spanned<usize>>,
}

fn default_conflict() -> Conflict {
    Conflict::Siblings
}

fn default_quorum() -> QuorumKind {
    QuorumKind::Strict
}

fn default_durability() -> Durability {
    Durability::Sync
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CountEntry {
    Number(u8),
    Name(String),
}

/// Turns offsets into lines.
struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn fault<T>(&self, at: &Spanned<T>, reason: impl Into<String>) -> TopologyError {
        TopologyError { line: self.number(at.span().start), reason: reason.into() }
    }

    fn number(&self, offset: usize) -> usize {
        let end = offset.min(self.0.len());
        1 + self.0.as_bytes()[..end].iter().filter(|b| **b == b'\n').count()
    }
}

pub(super) fn parse(text: &str) -> Result<Topology, TopologyError> {
    let lines = Lines(text);
    if text.len() > SOURCE_BYTES_MAX {
        return Err(TopologyError { line: 1, reason: format!("the file is larger than {SOURCE_BYTES_MAX} bytes") });
    }
    let document: Document = toml::from_str(text).map_err(|e| TopologyError {
        line: lines.number(e.span().map_or(0, |s| s.start)),
        reason: e.message().to_string(),
    })?;
    let cluster: ClusterId =
        document.cluster.get_ref().parse().map_err(|e| lines.fault(&document.cluster, format!("cluster: {e}")))?;
    let partitions = *document.partitions.get_ref();
    if !partitions.is_power_of_two() || partitions > PARTITIONS_MAX {
        let reason = format!("partitions: expected a power of two up to {PARTITIONS_MAX}, got {partitions}");
        return Err(lines.fault(&document.partitions, reason));
    }
    if *document.epoch.get_ref() == 0 {
        return Err(lines.fault(&document.epoch, "epoch: the first epoch is 1"));
    }
    let nodes = nodes(&lines, &document.node)?;
    let buckets = buckets(&lines, &document.bucket, nodes.len())?;
    let epoch = Epoch(*document.epoch.get_ref());
    Ok(Topology { cluster, epoch, partitions, nodes, buckets, source: text.to_string() })
}

fn nodes(lines: &Lines<'_>, entries: &[Spanned<NodeEntry>]) -> Result<Vec<Node>, TopologyError> {
    if entries.is_empty() || entries.len() > NODES_MAX {
        let reason = format!("expected 1 to {NODES_MAX} [[node]] entries, got {}", entries.len());
        return Err(TopologyError { line: 1, reason });
    }
    let mut nodes: BTreeMap<NodeId, Node> = BTreeMap::new();
    for entry in entries {
        let node = entry.get_ref();
        let id = NodeId(*node.id.get_ref());
        if id.0 == 0 {
            return Err(lines.fault(&node.id, "node id: the first id is 1"));
        }
        name(lines, "node name", &node.name)?;
        name(lines, "rack", &node.rack)?;
        let weight = *node.weight.get_ref();
        if !(1..=WEIGHT_MAX).contains(&weight) {
            return Err(lines.fault(&node.weight, format!("weight: expected 1 to {WEIGHT_MAX}, got {weight}")));
        }
        let addresses = [&node.client_address, &node.peer_address];
        for address in addresses {
            let taken = nodes.values().any(|n| [n.client_address, n.peer_address].contains(address.get_ref()));
            if taken || node.client_address.get_ref() == node.peer_address.get_ref() {
                return Err(lines.fault(address, format!("address {} is used twice", address.get_ref())));
            }
        }
        if nodes.values().any(|n| n.name == *node.name.get_ref()) {
            return Err(lines.fault(&node.name, format!("node name {:?} is used twice", node.name.get_ref())));
        }
        let made = Node {
            id,
            name: node.name.get_ref().clone(),
            client_address: *node.client_address.get_ref(),
            peer_address: *node.peer_address.get_ref(),
            rack: node.rack.get_ref().clone(),
            weight,
        };
        if nodes.insert(id, made).is_some() {
            return Err(lines.fault(&node.id, format!("node id {} is used twice", id.0)));
        }
    }
    Ok(nodes.into_values().collect())
}

fn buckets(lines: &Lines<'_>, entries: &[Spanned<BucketEntry>], nodes: usize) -> Result<Vec<Bucket>, TopologyError> {
    if entries.is_empty() || entries.len() > BUCKETS_MAX {
        let reason = format!("expected 1 to {BUCKETS_MAX} [[bucket]] entries, got {}", entries.len());
        return Err(TopologyError { line: 1, reason });
    }
    let mut buckets: BTreeMap<BucketId, Bucket> = BTreeMap::new();
    for entry in entries {
        let made = bucket(lines, entry.get_ref(), nodes)?;
        let entry = entry.get_ref();
        if buckets.values().any(|b| b.name == made.name) {
            return Err(lines.fault(&entry.name, format!("bucket name {:?} is used twice", made.name)));
        }
        if let Some(before) = buckets.insert(made.id, made) {
            return Err(lines.fault(&entry.id, format!("bucket id {} is used twice", before.id.0)));
        }
    }
    Ok(buckets.into_values().collect())
}

fn bucket(lines: &Lines<'_>, entry: &BucketEntry, nodes: usize) -> Result<Bucket, TopologyError> {
    name(lines, "bucket name", &entry.name)?;
    if *entry.id.get_ref() == 0 {
        return Err(lines.fault(&entry.id, "bucket id: the first id is 1"));
    }
    let n = entry.n.as_ref().map_or(3, |n| *n.get_ref());
    let at = entry.n.as_ref().map_or(entry.id.span(), Spanned::span);
    if n == 0 || n > N_MAX || usize::from(n) > nodes {
        let most = usize::from(N_MAX).min(nodes);
        let reason = format!("n: {n} copies need {n} nodes; expected 1 to {most}, the cluster having {nodes}");
        return Err(lines.fault(&Spanned::new(at, ()), reason));
    }
    let count = |what: &str, given: &Option<Spanned<CountEntry>>| -> Result<u8, TopologyError> {
        let Some(given) = given else { return Ok(n / 2 + 1) };
        let asked = match given.get_ref() {
            CountEntry::Number(number) => Count::Exactly(*number),
            CountEntry::Name(name) => name.parse().map_err(|e| lines.fault(given, format!("{what}: {e}")))?,
        };
        asked.of(n).map_err(|e| lines.fault(given, format!("{what}: {e}")))
    };
    let value_bytes_max = entry.value_bytes_max.as_ref().map_or(VALUE_BYTES_DEFAULT, |v| *v.get_ref());
    if let Some(given) = &entry.value_bytes_max
        && !(1..=VALUE_BYTES_MAX).contains(&value_bytes_max)
    {
        let reason = format!("value_bytes_max: expected 1 to {VALUE_BYTES_MAX}, got {value_bytes_max}");
        return Err(lines.fault(given, reason));
    }
    Ok(Bucket {
        id: BucketId(*entry.id.get_ref()),
        name: entry.name.get_ref().clone(),
        n,
        r: count("r", &entry.r)?,
        w: count("w", &entry.w)?,
        conflict: entry.conflict,
        quorum: entry.quorum,
        durability: entry.durability,
        value_bytes_max,
    })
}

fn name(lines: &Lines<'_>, what: &str, given: &Spanned<String>) -> Result<(), TopologyError> {
    let text = given.get_ref();
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(fine) {
        let reason = format!("{what}: expected 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' or '.', got {:?}", text);
        return Err(lines.fault(given, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
cluster = "000102030405060708090a0b0c0d0e0f"
epoch = 1
partitions = 64

[[node]]
id = 2
name = "n2"
client_address = "127.0.0.1:7002"
peer_address = "127.0.0.1:7102"
rack = "b"

[[node]]
id = 1
name = "n1"
client_address = "127.0.0.1:7001"
peer_address = "127.0.0.1:7101"
rack = "a"
weight = 2

[[bucket]]
id = 1
name = "default"
n = 2
r = 1
w = "all"
"#;

    #[test]
    fn a_good_file() {
        let topology = Topology::parse(GOOD).unwrap();
        assert_eq!(topology.nodes.iter().map(|n| n.id.0).collect::<Vec<_>>(), [1, 2]);
        let bucket = topology.bucket_named("default").unwrap();
        assert_eq!((bucket.n, bucket.r, bucket.w), (2, 1, 2));
        assert_eq!(bucket.durability, Durability::Sync);
    }

    #[test]
    fn each_fault_names_its_line() {
        let cases = [
            ("epoch = 1", "epoch = 0", 3, "first epoch"),
            ("partitions = 64", "partitions = 65", 4, "power of two"),
            ("id = 1\nname = \"n1\"", "id = 2\nname = \"n1\"", 14, "used twice"),
            ("name = \"n1\"", "name = \"n2\"", 15, "used twice"),
            ("127.0.0.1:7101", "127.0.0.1:7102", 17, "used twice"),
            ("127.0.0.1:7101", "localhost", 17, "socket address"),
            ("weight = 2", "weight = 0", 19, "weight"),
            ("n = 2", "n = 3", 24, "3 copies need 3 nodes"),
            ("r = 1", "r = 3", 25, "3 owners were asked for"),
            ("w = \"all\"", "w = \"most\"", 26, "expected one, quorum, all"),
            ("w = \"all\"", "ww = 1", 26, "unknown field"),
            ("name = \"default\"", "name = \"a b\"", 23, "bucket name"),
            ("000102", "0001", 2, "32 hexadecimal digits"),
        ];
        for (from, to, line, reason) in cases {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD, "{from}");
            let fault = Topology::parse(&text).unwrap_err();
            assert!(fault.reason.contains(reason), "{from} -> {to}: {fault}");
            assert_eq!(fault.line, line, "{from} -> {to}: {fault}");
        }
    }
}
