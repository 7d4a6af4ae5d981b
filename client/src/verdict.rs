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
    pub partitions: u32,
    /// In the order of the topology.
    pub buckets: Vec<BucketVerdict>,
}

/// What they mean for one bucket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BucketVerdict {
    pub name: String,
    /// Any so many of the live nodes may fail before a request does; none if some requests fail already.
    pub spare: Option<u32>,
    /// Partitions that lack the owners for a read or a write.
    pub failing: u32,
    /// Any one rack may fail as a whole before a request does.
    pub rack: bool,
}

/// Judges the placement with these nodes up and ready.
pub fn verdict(layout: &Layout, live: &[NodeId]) -> Verdict {
    let topology = layout.topology();
    let mut racks: Vec<&str> = topology.nodes.iter().map(|n| n.rack.as_str()).collect();
    racks.sort_unstable();
    racks.dedup();
    let without = |rack: &str| -> Vec<NodeId> {
        let in_rack = |id: &NodeId| topology.node(*id).is_some_and(|n| n.rack == rack);
        live.iter().copied().filter(|id| !in_rack(id)).collect()
    };
    let judge = |bucket: &Bucket| {
        let (least, failing) = margin(layout, bucket, live);
        let survives = |rack: &&str| margin(layout, bucket, &without(rack)).0 >= 0;
        let rack = racks.len() > 1 && racks.iter().all(survives);
        BucketVerdict { name: bucket.name.clone(), spare: u32::try_from(least).ok(), failing, rack }
    };
    Verdict {
        nodes: topology.nodes.len(),
        live: topology.nodes.iter().filter(|n| live.contains(&n.id)).count(),
        partitions: u32::from(topology.partitions),
        buckets: topology.buckets.iter().map(judge).collect(),
    }
}

/// Live owners beyond those needed, in the worst partition (negative if they are too few), and how many partitions
/// have too few.
fn margin(layout: &Layout, bucket: &Bucket, live: &[NodeId]) -> (i64, u32) {
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
    spares.fold((i64::MAX, 0), |(least, failing), spare| (least.min(spare), failing + u32::from(spare < 0)))
}

impl Verdict {
    /// Any so many nodes may fail before a request of any bucket does.
    pub fn spare(&self) -> Option<u32> {
        self.buckets.iter().map(|b| b.spare).min().flatten()
    }

    fn clause(&self, bucket: &BucketVerdict) -> String {
        match bucket.spare {
            None => format!("requests fail for {} of {} partitions", bucket.failing, self.partitions),
            Some(0) => "every request is served, but no further node can be lost".to_string(),
            Some(spare) => {
                let any = if spare == 1 { "any one node".to_string() } else { format!("any {spare} nodes") };
                let rack = if bucket.rack { ", or any one rack," } else { "" };
                format!("{any}{rack} can be lost before a request fails")
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.live == self.nodes {
            write!(f, "All {} nodes are up: ", self.nodes)?;
        } else {
            write!(f, "{} of {} nodes are up: ", self.live, self.nodes)?;
        }
        let mut clauses: Vec<(Option<u32>, String, Vec<&str>)> = Vec::new();
        for bucket in &self.buckets {
            let clause = self.clause(bucket);
            match clauses.iter_mut().find(|(_, text, _)| *text == clause) {
                Some((_, _, names)) => names.push(&bucket.name),
                None => clauses.push((bucket.spare, clause, vec![&bucket.name])),
            }
        }
        // The worst comes first; one that holds for all needs no names.
        clauses.sort_by_key(|(spare, _, _)| *spare);
        let all = clauses.len() == 1;
        let named = |(_, clause, names): &(Option<u32>, String, Vec<&str>)| match all {
            true => clause.clone(),
            false => format!("in bucket{} {} {clause}", if names.len() == 1 { "" } else { "s" }, names.join(", ")),
        };
        write!(f, "{}.", clauses.iter().map(named).collect::<Vec<_>>().join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_ring::topology::Topology;
    use std::sync::Arc;

    fn layout(nodes: u16, racks: u16, buckets: &[&str]) -> Layout {
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
        for (i, bucket) in buckets.iter().enumerate() {
            text += &format!("[[bucket]]\nid = {}\nname = \"b{i}\"\n{bucket}\n", i + 1);
        }
        Layout::new(Arc::new(Topology::parse(&text).unwrap())).unwrap()
    }

    fn of(layout: &Layout, live: &[u16]) -> Verdict {
        verdict(layout, &live.iter().map(|id| NodeId(*id)).collect::<Vec<_>>())
    }

    #[test]
    fn five_nodes_on_five_racks() {
        let layout = layout(5, 5, &["n = 3\nr = 2\nw = 2"]);
        let all = of(&layout, &[1, 2, 3, 4, 5]).to_string();
        assert_eq!(all, "All 5 nodes are up: any one node, or any one rack, can be lost before a request fails.");
        let four = of(&layout, &[1, 2, 3, 4]).to_string();
        assert_eq!(four, "4 of 5 nodes are up: every request is served, but no further node can be lost.");
        let three = of(&layout, &[1, 2, 3]);
        let failing = three.buckets[0].failing;
        assert!(three.spare().is_none() && failing > 0 && failing < 64, "{three:?}");
        assert_eq!(three.to_string(), format!("3 of 5 nodes are up: requests fail for {failing} of 64 partitions."));
        assert_eq!(of(&layout, &[]).buckets[0].failing, 64);
    }

    #[test]
    fn what_is_asked_of_a_bucket_decides() {
        let one = of(&layout(4, 1, &["n = 3\nr = 1\nw = 1"]), &[1, 2, 3, 4]);
        assert_eq!(one.to_string(), "All 4 nodes are up: any 2 nodes can be lost before a request fails.");
        let all = of(&layout(3, 3, &["n = 3\nr = 1\nw = 3"]), &[1, 2, 3]);
        assert_eq!(all.spare(), Some(0));
        let sloppy = of(&layout(4, 1, &["n = 3\nr = 2\nw = 2\nquorum = \"sloppy\""]), &[1, 2, 3, 4]);
        assert_eq!(sloppy.spare(), Some(2));
    }

    #[test]
    fn buckets_that_bear_less_are_named_first() {
        let layout = layout(4, 4, &["n = 3\nr = 2\nw = 2", "n = 1", "n = 3\nr = 2\nw = 2\nconflict = \"lww\""]);
        let all = of(&layout, &[1, 2, 3, 4]);
        assert_eq!(
            all.to_string(),
            "All 4 nodes are up: in bucket b1 every request is served, but no further node can be lost; in buckets \
             b0, b2 any one node, or any one rack, can be lost before a request fails."
        );
        assert_eq!(all.spare(), Some(0));
    }
}
