//! `locate`, `ring` and `bucket ls`: where things lie.

use crate::failure::Failure;
use crate::output::{self, put_bytes, shown_in_line, table};
use crate::session::Session;
use crate::value;
use quorate_client::{Conflict, Durability, Layout, NodeId, QuorumKind};
use quorate_ring::placement::{PlacementReport, key_hash};
use quorate_ring::topology::Topology;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::time::Duration;

/// Nodes that take longer to say how they are are shown as `?`.
pub const PATIENCE: Duration = Duration::from_millis(700);
/// Up to this, the busiest node's share over the mean counts as even.
const BALANCED: f64 = 1.05;

pub async fn locate(session: &Session, key: &OsStr) -> Result<(), Failure> {
    let key = value::key(key);
    let layout = session.layout();
    let bucket = session.bucket_of(&layout)?;
    let hash = key_hash(bucket.id, &key);
    let partition = layout.partition(bucket, &key);
    let list = layout.preference(partition).expect("a layout has the partitions of its own buckets");
    let states: BTreeMap<NodeId, String> = session
        .client
        .status(PATIENCE)
        .await
        .into_iter()
        .map(|(node, status)| (node, status.map_or("?".to_string(), |s| s.state)))
        .collect();
    let roles = list.owners().iter().map(|n| (*n, "owner")).chain(list.fallbacks().iter().map(|n| (*n, "fallback")));
    let rows: Vec<[String; 5]> = roles.map(|(node, role)| row(&layout, node, role, &states)).collect();
    let mut racks: Vec<&str> = rows.iter().filter(|r| r[1] == "owner").map(|r| r[2].as_str()).collect();
    racks.sort_unstable();
    racks.dedup();
    if session.common.output.is_json() {
        let mut fields = Map::new();
        put_bytes(&mut fields, "key", &key);
        let node = |r: &[String; 5]| json!({"node": r[0], "role": r[1], "rack": r[2], "state": r[3], "address": r[4]});
        let more = json!({
            "bucket": bucket.name,
            "hash": format!("{hash:016x}"),
            "partition": partition.index,
            "partitions": layout.topology().partitions,
            "n": bucket.n,
            "epoch": layout.epoch(),
            "owner_racks": racks.len(),
            "nodes": rows.iter().map(node).collect::<Vec<_>>(),
        });
        if let Value::Object(more) = more {
            fields.extend(more);
        }
        return output::document(&Value::Object(fields), session.common.output);
    }
    output::line(&format!(
        "{:?} in bucket {}: hash {hash:016x}, partition {} of {}; {} (epoch {})",
        shown_in_line(&key, 80),
        bucket.name,
        partition.index,
        layout.topology().partitions,
        spread(bucket.n, racks.len(), layout.topology()),
        layout.epoch(),
    ))?;
    let cells = rows.into_iter().map(|row| row.to_vec()).collect();
    output::bytes(table(&["NODE", "ROLE", "RACK", "STATE", "ADDRESS"], cells).as_bytes())
}

/// Over how many racks the owners of a key lie.
fn spread(n: u8, owner_racks: usize, topology: &Topology) -> String {
    let mut racks: Vec<&str> = topology.nodes.iter().map(|node| node.rack.as_str()).collect();
    racks.sort_unstable();
    racks.dedup();
    match (usize::from(n), racks.len()) {
        (1, _) => "it has one owner".to_string(),
        (owners, _) if owners == owner_racks => format!("its {n} owners lie in {owner_racks} racks"),
        (owners, racks) if racks < owners => {
            format!("its {n} owners share {owner_racks} racks, as there are only {racks}")
        }
        _ => format!("its {n} owners share {owner_racks} racks"),
    }
}

fn row(layout: &Layout, node: NodeId, role: &str, states: &BTreeMap<NodeId, String>) -> [String; 5] {
    let known = layout.topology().node(node).expect("preference lists hold nodes of the topology");
    [
        known.name.clone(),
        role.to_string(),
        known.rack.clone(),
        states.get(&node).cloned().unwrap_or_else(|| "?".to_string()),
        known.client_address.to_string(),
    ]
}

pub fn ring(session: &Session) -> Result<(), Failure> {
    let layout = session.layout();
    let topology = layout.topology();
    let reports: Vec<_> = topology.ns().into_iter().filter_map(|n| layout.report(n)).collect();
    if session.common.output.is_json() {
        let report = |report: &PlacementReport| {
            let owned: Map<String, Value> =
                report.owned.iter().map(|(node, owned)| (output::node_name(&layout, *node), json!(owned))).collect();
            json!({"n": report.n, "owned": owned, "imbalance": report.imbalance, "rack_shared": report.rack_shared})
        };
        let nodes: Vec<Value> = topology
            .nodes
            .iter()
            .map(|n| json!({"name": n.name, "id": n.id, "rack": n.rack, "weight": n.weight, "address": n.client_address}))
            .collect();
        let value = json!({
            "cluster": topology.cluster.to_string(),
            "epoch": topology.epoch,
            "partitions": topology.partitions,
            "nodes": nodes,
            "placements": reports.iter().map(report).collect::<Vec<_>>(),
        });
        return output::document(&value, session.common.output);
    }
    let mut racks: Vec<&str> = topology.nodes.iter().map(|n| n.rack.as_str()).collect();
    racks.sort_unstable();
    racks.dedup();
    output::line(&format!(
        "{} nodes on {} racks, {} partitions, epoch {}, cluster {}",
        topology.nodes.len(),
        racks.len(),
        topology.partitions,
        topology.epoch,
        topology.cluster
    ))?;
    for report in &reports {
        output::line(&placement_sentence(report, topology))?;
    }
    let mut header = vec!["NODE".to_string(), "RACK".to_string(), "WEIGHT".to_string(), "ADDRESS".to_string()];
    header.extend(reports.iter().map(|report| format!("OWNS (N={})", report.n)));
    let row = |(i, node): (usize, &quorate_ring::topology::Node)| {
        let mut row =
            vec![node.name.clone(), node.rack.clone(), node.weight.to_string(), node.client_address.to_string()];
        row.extend(reports.iter().map(|report| format!("{} partitions", report.owned[i].1)));
        row
    };
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    output::bytes(table(&header, topology.nodes.iter().enumerate().map(row).collect()).as_bytes())
}

/// Copies of a key go to distinct racks first, and evenly second: what that costs is said here.
fn placement_sentence(report: &PlacementReport, topology: &Topology) -> String {
    let mut weights: BTreeMap<&str, u32> = BTreeMap::new();
    for node in &topology.nodes {
        *weights.entry(node.rack.as_str()).or_default() += node.weight;
    }
    let uneven = weights.values().min() != weights.values().max();
    let why_uneven = match report.imbalance > BALANCED && uneven && report.n > 1 {
        true => " (racks come first, and they are of different sizes)",
        false => "",
    };
    let (n, racks) = (report.n, weights.len());
    let shared = match report.rack_shared {
        0 => "the owners of every partition lie in distinct racks".to_string(),
        some => format!("in {some} of {} partitions two owners share a rack", topology.partitions),
    };
    let why_shared = match report.rack_shared > 0 && racks < usize::from(n) {
        true => format!(" (there are only {racks} racks)"),
        false => String::new(),
    };
    format!("N={n}: the busiest node owns {:.3} times its share{why_uneven}; {shared}{why_shared}", report.imbalance)
}

pub fn buckets(session: &Session) -> Result<(), Failure> {
    let layout = session.layout();
    let buckets = &layout.topology().buckets;
    if session.common.output.is_json() {
        let entry = |b: &quorate_ring::topology::Bucket| {
            json!({
                "name": b.name, "id": b.id, "n": b.n, "r": b.r, "w": b.w, "conflict": b.conflict,
                "quorum": b.quorum, "durability": b.durability, "value_bytes_max": b.value_bytes_max,
            })
        };
        let all = Value::Array(buckets.iter().map(entry).collect());
        return output::document(&all, session.common.output);
    }
    let row = |b: &quorate_ring::topology::Bucket| {
        let conflict = match b.conflict {
            Conflict::Siblings => "siblings",
            Conflict::Lww => "lww",
        };
        let quorum = match b.quorum {
            QuorumKind::Strict => "strict",
            QuorumKind::Sloppy => "sloppy",
        };
        let durability = match b.durability {
            Durability::Sync => "sync",
            Durability::Async => "async",
        };
        let numbers = [u64::from(b.id.0), u64::from(b.n), u64::from(b.r), u64::from(b.w)].map(|n| n.to_string());
        let words = [conflict, quorum, durability].map(str::to_string);
        let limit = format!("{} KiB", b.value_bytes_max / 1024);
        [vec![b.name.clone()], numbers.to_vec(), words.to_vec(), vec![limit]].concat()
    };
    let header = ["BUCKET", "ID", "N", "R", "W", "CONFLICT", "QUORUM", "DURABILITY", "VALUES UP TO"];
    output::bytes(table(&header, buckets.iter().map(row).collect()).as_bytes())
}
