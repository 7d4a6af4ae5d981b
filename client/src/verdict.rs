//! How many nodes can still be lost, in one sentence.

use quorate_ring::id::NodeId;
use quorate_ring::placement::Layout;
use quorate_ring::topology::{Bucket, QuorumKind};
use std::fmt;

/// What a set of live nodes means for the requests of every bucket, at the bucket's own r and w.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub nodes: usize,
    pub live: usize,
    /// Any so many of the live nodes may fail before a request does; none if some requests fail already.
    pub spare: Option<u32>,
    /// The bucket that bears the least.
    pub weakest: String,
    /// Of that bucket: its partitions that lack the owners for a read or a write.
    pub short: u32,
    pub partitions: u32,
    /// Any one rack may fail as a whole before a request does.
    pub rack: bool,
}

/// Judges the placement with these nodes up and ready.
pub fn verdict(layout: &Layout, live: &[NodeId]) -> Verdict {
    let topology = layout.topology();
    let weakest = topology
        .buckets
        .iter()
        .map(|bucket| (margin(layout, bucket, live), bucket))
        .min_by_key(|(margin, bucket)| (margin.least, bucket.id))
        .expect("a topology has a bucket");
    let (margin, bucket) = weakest;
    let mut racks: Vec<&str> = topology.nodes.iter().map(|n| n.rack.as_str()).collect();
    racks.sort_unstable();
    racks.dedup();
    let survives = |rack: &&str| {
        let in_rack = |id: &NodeId| topology.node(*id).is_some_and(|n| n.rack == *rack);
        let left: Vec<NodeId> = live.iter().copied().filter(|id| !in_rack(id)).collect();
        topology.buckets.iter().all(|bucket| self::margin(layout, bucket, &left).least >= 0)
    };
    Verdict {
        nodes: topology.nodes.len(),
        live: topology.nodes.iter().filter(|n| live.contains(&n.id)).count(),
        spare: u32::try_from(margin.least).ok(),
        weakest: bucket.name.clone(),
        short: margin.short,
        partitions: u32::from(topology.partitions),
        rack: racks.len() > 1 && racks.iter().all(survives),
    }
}

struct Margin {
    /// Live owners beyond those needed, in the worst partition; negative if they are too few.
    least: i64,
    short: u32,
}

fn margin(layout: &Layout, bucket: &Bucket, live: &[NodeId]) -> Margin {
    let up = live.len() as i64;
    let spare = |owners: &[NodeId]| {
        let owners_up = owners.iter().filter(|o| live.contains(o)).count() as i64;
        match bucket.quorum {
            QuorumKind::Strict => owners_up - i64::from(bucket.r.max(bucket.w)),
            // One owner coordinates and answers; hints on any node make up the rest of W.
            QuorumKind::Sloppy => (owners_up - 1).min(up - i64::from(bucket.w)),
        }
    };
    let spares = layout.partitions().filter(|(p, _)| p.n == bucket.n).map(|(_, list)| spare(list.owners()));
    let (mut least, mut short) = (i64::MAX, 0);
    for spare in spares {
        least = least.min(spare);
        short += u32::from(spare < 0);
    }
    Margin { least, short }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, live, short, partitions, weakest, .. } = self;
        if live == nodes {
            write!(f, "All {nodes} nodes are up")?;
        } else {
            write!(f, "{live} of {nodes} nodes are up")?;
        }
        match self.spare {
            None => write!(f, ": requests fail now for {short} of {partitions} partitions of bucket {weakest}."),
            Some(0) => write!(f, ": every request is served, but no further node can be lost (bucket {weakest})."),
            Some(spare) => {
                let any = if spare == 1 { "any one node".to_string() } else { format!("any {spare} nodes") };
                let rack = if self.rack { ", or any one rack," } else { "" };
                write!(f, ": {any}{rack} can be lost before a request fails.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_ring::topology::Topology;
    use std::sync::Arc;

    fn layout(nodes: u16, racks: u16, bucket: &str) -> Layout {
        let mut text = "cluster = \"000102030405060708090a0b0c0d0e0f\"\nepoch = 1\npartitions = 64\n".to_string();
        for id in 1..=nodes {
            text += &format!(
                "[[node]]\nid = {id}\nname = \"n{id}\"\nclient_address = \"127.0.0.1:{}\"\npeer_address = \
                 \"127.0.0.1:{}\"\nrack = \"r{}\"\n",
                7000 + id,
                8000 + id,
                id % racks
            );
        }
        text += &format!("[[bucket]]\nid = 1\nname = \"default\"\n{bucket}\n");
        Layout::new(Arc::new(Topology::parse(&text).unwrap())).unwrap()
    }

    fn sentence(layout: &Layout, live: &[u16]) -> String {
        verdict(layout, &live.iter().map(|id| NodeId(*id)).collect::<Vec<_>>()).to_string()
    }

    #[test]
    fn five_nodes_on_five_racks() {
        let layout = layout(5, 5, "n = 3\nr = 2\nw = 2");
        let all = sentence(&layout, &[1, 2, 3, 4, 5]);
        assert_eq!(all, "All 5 nodes are up: any one node, or any one rack, can be lost before a request fails.");
        let four = sentence(&layout, &[1, 2, 3, 4]);
        let none_left = "every request is served, but no further node can be lost (bucket default).";
        assert_eq!(four, format!("4 of 5 nodes are up: {none_left}"));
        let three = verdict(&layout, &[NodeId(1), NodeId(2), NodeId(3)]);
        assert!(three.spare.is_none() && three.short > 0 && three.short < 64, "{three:?}");
        assert!(three.to_string().starts_with("3 of 5 nodes are up: requests fail now for "), "{three}");
        assert_eq!(verdict(&layout, &[]).short, 64);
    }

    #[test]
    fn what_is_asked_of_a_bucket_decides() {
        let one = layout(4, 1, "n = 3\nr = 1\nw = 1");
        assert_eq!(
            sentence(&one, &[1, 2, 3, 4]),
            "All 4 nodes are up: any 2 nodes can be lost before a request fails."
        );
        let all = layout(3, 3, "n = 3\nr = 1\nw = 3");
        assert!(sentence(&all, &[1, 2, 3]).contains("no further node can be lost"));
        let sloppy = layout(4, 1, "n = 3\nr = 2\nw = 2\nquorum = \"sloppy\"");
        assert_eq!(verdict(&sloppy, &[NodeId(1), NodeId(2), NodeId(3), NodeId(4)]).spare, Some(2));
    }
}
