use super::*;
use crate::topology::Topology;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A cluster of `racks.len()` nodes; `racks[i]` is the rack of node i + 1.
fn topology(racks: &[usize], weights: &[u32], partitions: u16, n: u8) -> Arc<Topology> {
    let mut text = format!("cluster = \"{}\"\nepoch = 1\npartitions = {partitions}\n", "00".repeat(16));
    for (i, (rack, weight)) in racks.iter().zip(weights).enumerate() {
        let id = i + 1;
        text += &format!(
            "[[node]]\nid = {id}\nname = \"n{id}\"\nrack = \"r{rack}\"\nweight = {weight}\n\
             client_address = \"127.0.0.1:{}\"\npeer_address = \"127.0.0.1:{}\"\n",
            10_000 + id,
            20_000 + id
        );
    }
    text += &format!("[[bucket]]\nid = 1\nname = \"b\"\nn = {n}\n");
    Arc::new(Topology::parse(&text).unwrap())
}

fn layout(racks: &[usize], n: u8) -> Layout {
    Layout::new(topology(racks, &vec![1; racks.len()], 256, n)).unwrap()
}

/// All tokens of a topology, in order.
fn tokens(topology: &Topology) -> Vec<(u64, NodeId)> {
    let mut tokens: Vec<(u64, NodeId)> = Vec::new();
    for node in &topology.nodes {
        for i in 0..node.weight * crate::topology::TOKENS_PER_WEIGHT {
            tokens.push((walk::token(node.id, i), node.id));
        }
    }
    tokens.sort();
    tokens
}

/// The walk as one would do it by hand: the list of tokens, looked through from the point on.
fn naive_order(topology: &Topology, tokens: &[(u64, NodeId)], index: u16) -> Vec<NodeId> {
    let point = walk::point(index, topology.partitions);
    let from = tokens.iter().position(|(token, _)| *token >= point).unwrap_or(0);
    let mut order: Vec<NodeId> = Vec::new();
    for (_, node) in tokens[from..].iter().chain(&tokens[..from]) {
        if !order.contains(node) {
            order.push(*node);
        }
    }
    order
}

/// Could the owners lie as far apart as there are racks for, with no node over `most`? Asked of the racks alone: each
/// holds its even part of the copies of a partition at the most (one, if there are enough racks), and `most` a node.
/// Where that is room enough, copies dealt out evenly within each rack are a placement in fractions, and so, by the
/// integrality of flows, there is one in whole copies.
fn feasible(racks: &[usize], partitions: usize, n: usize, most: usize) -> bool {
    let distinct: BTreeSet<_> = racks.iter().collect();
    let part = n.div_ceil(distinct.len().min(n));
    let size = |rack: &usize| racks.iter().filter(|r| *r == rack).count();
    let room = |rack: &&usize| (size(rack) * most).min(partitions * part.min(size(rack)));
    distinct.iter().map(room).sum::<usize>() >= partitions * n
}

fn check_targets(racks: &[usize], n: u8) {
    let layout = layout(racks, n);
    let report = layout.report(n).unwrap();
    let distinct = racks.iter().collect::<BTreeSet<_>>().len();
    if distinct >= usize::from(n) {
        assert_eq!(report.rack_shared, 0, "{racks:?}: owners share a rack although there are enough");
    }
    let mean = 256.0 * f64::from(n) / racks.len() as f64;
    let most = (1.05 * mean).floor() as usize;
    if feasible(racks, 256, usize::from(n), most) {
        assert!(report.imbalance <= 1.05, "{racks:?}: busiest over mean is {:.3}", report.imbalance);
    }
    assert_eq!(report.owned.iter().map(|(_, owned)| owned).sum::<u32>(), 256 * u32::from(n));
    let tokens = tokens(layout.topology());
    for (partition, list) in layout.partitions() {
        let all: BTreeSet<_> = list.owners().iter().chain(list.fallbacks()).collect();
        assert_eq!((all.len(), list.owners().len()), (racks.len(), usize::from(n)), "{partition}");
        let order = naive_order(layout.topology(), &tokens, partition.index);
        for part in [list.owners(), list.fallbacks()] {
            let places: Vec<_> = part.iter().map(|id| order.iter().position(|o| o == id).unwrap()).collect();
            assert!(places.is_sorted(), "{partition}: not in the order of the walk");
        }
    }
}

#[test]
fn targets_hold_for_3_to_32_nodes_in_1_3_and_many_racks() {
    for nodes in 3..=32usize {
        for racks in [1, 2, 3, 4, nodes] {
            for n in [1, 2, 3, 5].into_iter().filter(|n| usize::from(*n) <= nodes) {
                check_targets(&(0..nodes).map(|i| i % racks).collect::<Vec<_>>(), n);
            }
        }
    }
}

/// Racks of two, three and two nodes for five copies: 192 a node, which is 1.05 times the mean, and not one to spare.
#[test]
fn targets_hold_where_a_large_rack_leaves_more_to_the_others() {
    check_targets(&[1, 0, 1, 2, 2, 0, 0], 5);
    check_targets(&[2, 0, 2, 3, 3, 0, 0], 5);
}

#[test]
fn every_owner_the_walk_would_give_is_given_where_there_is_room() {
    // Three nodes, three racks: everyone owns everything, in the naive order.
    let layout = layout(&[0, 1, 2], 3);
    let tokens = tokens(layout.topology());
    for (partition, list) in layout.partitions() {
        assert_eq!(list.owners(), naive_order(layout.topology(), &tokens, partition.index));
    }
}

#[test]
fn golden_vectors() {
    let layout = layout(&[0, 1, 2, 0, 1], 3);
    let bucket = &layout.topology().buckets[0];
    let mut lines = String::new();
    for key in ["", "a", "greeting", "Zürich", "key-000001"] {
        let partition = layout.partition(bucket, key.as_bytes());
        let hash = key_hash(bucket.id, key.as_bytes());
        lines += &format!("key {key:?} hash {hash:016x} partition {partition}\n");
    }
    for (partition, list) in layout.partitions().step_by(16) {
        let names = |nodes: &[NodeId]| nodes.iter().map(|n| n.0.to_string()).collect::<Vec<_>>().join(",");
        lines += &format!("partition {partition} owners {} then {}\n", names(list.owners()), names(list.fallbacks()));
    }
    assert_eq!(lines, include_str!("../../golden/placement_v1.txt"), "placement now:\n{lines}");
}

/// Whole tables, by a digest: of few and many nodes, in one, some and many racks, of equal and unequal weights.
#[test]
fn golden_tables() {
    let mut lines = String::new();
    for (nodes, racks, heavy, n) in
        [(3, 1, 1, 3), (5, 3, 1, 3), (5, 5, 2, 3), (12, 4, 1, 5), (32, 1, 1, 3), (32, 3, 3, 3), (32, 32, 1, 3)]
    {
        let racks_of: Vec<usize> = (0..nodes).map(|i| i % racks).collect();
        let weights: Vec<u32> = (0..nodes).map(|i| if i == 0 { heavy } else { 1 }).collect();
        let layout = Layout::new(topology(&racks_of, &weights, 256, n)).unwrap();
        let mut digest = Xxh3::new();
        for (_, list) in layout.partitions() {
            list.owners().iter().chain(list.fallbacks()).for_each(|node| digest.update(&node.0.to_be_bytes()));
        }
        let sum = digest.digest();
        lines += &format!("{nodes} nodes, {racks} racks, the first of weight {heavy}, n = {n}: {sum:016x}\n");
    }
    assert_eq!(lines, include_str!("../../golden/placement_tables_v1.txt"), "placement now:\n{lines}");
}

#[test]
fn one_partition_and_one_node_are_allowed() {
    let layout = Layout::new(topology(&[0], &[1], 1, 1)).unwrap();
    let bucket = &layout.topology().buckets[0];
    assert_eq!(layout.partition(bucket, b"k"), Partition { n: 1, index: 0 });
}

#[test]
fn weight_draws_data() {
    let layout = Layout::new(topology(&[0, 0, 0, 0], &[1, 1, 1, 2], 256, 2)).unwrap();
    let report = layout.report(2).unwrap();
    assert!(report.imbalance < 1.05, "{report:?}");
    assert!(report.owned[3].1 > 190, "{report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn targets_hold_for_random_racks(racks in prop::collection::vec(0usize..6, 5..33), n in 1u8..6) {
        check_targets(&racks, n);
    }
}
