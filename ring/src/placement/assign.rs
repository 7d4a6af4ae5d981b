//! Owners by walk order under a cap per node, and exchanges where the walk gets stuck.

use super::PreferenceList;
use crate::id::NodeId;
use crate::topology::Topology;
use std::collections::VecDeque;

/// One `n`: how many partitions each node may own, and which it owns so far. Nodes and racks by position.
struct Assignment {
    n: usize,
    racks: Vec<usize>,
    rack_count: usize,
    caps: Vec<usize>,
    owned: Vec<usize>,
    owners: Vec<Vec<usize>>,
}

/// A preference list for each partition, in the order of `orders`.
pub(super) fn assign(topology: &Topology, orders: &[Vec<NodeId>], n: u8) -> Vec<PreferenceList> {
    let mut names: Vec<&str> = topology.nodes.iter().map(|node| node.rack.as_str()).collect();
    let of_node = names.clone();
    names.sort_unstable();
    names.dedup();
    let position = |name: &&str| names.binary_search(name).expect("every rack is in the list of racks");
    let racks: Vec<usize> = of_node.iter().map(position).collect();
    let weights: Vec<usize> = topology.nodes.iter().map(|node| node.weight as usize).collect();
    let n = usize::from(n);
    let nodes = racks.len();
    let mut assignment = Assignment {
        n,
        rack_count: names.len(),
        caps: caps(&weights, &racks, names.len(), orders.len(), n),
        racks,
        owned: vec![0; nodes],
        owners: vec![Vec::new(); orders.len()],
    };
    let index = |id: &NodeId| topology.nodes.binary_search_by_key(id, |node| node.id).expect("orders name its nodes");
    let walks: Vec<Vec<usize>> = orders.iter().map(|order| order.iter().map(index).collect()).collect();
    for (partition, walk) in walks.iter().enumerate() {
        assignment.take(partition, walk);
    }
    for (partition, walk) in walks.iter().enumerate() {
        assignment.complete(partition, walk);
    }
    let id = |node: usize| topology.nodes[node].id;
    let list = |(owners, walk): (&Vec<usize>, &Vec<usize>)| {
        let mut nodes: Vec<NodeId> = walk.iter().filter(|i| owners.contains(i)).map(|i| id(*i)).collect();
        nodes.extend(walk.iter().filter(|i| !owners.contains(i)).map(|i| id(*i)));
        PreferenceList { nodes, n }
    };
    assignment.owners.iter().zip(&walks).map(list).collect()
}

/// How many partitions each node may own: its share by weight, but no node more than one copy of each partition, and
/// no rack either when there are enough racks. What is cut off there is shared by the others.
fn caps(weights: &[usize], racks: &[usize], rack_count: usize, partitions: usize, n: usize) -> Vec<usize> {
    let total = partitions * n;
    // Groups that may hold one copy of a partition each: racks if there are enough of them, else nodes.
    let group_of = |node: usize| if rack_count >= n { racks[node] } else { node };
    let groups = if rack_count >= n { rack_count } else { weights.len() };
    let mut group_weight = vec![0; groups];
    for (node, weight) in weights.iter().enumerate() {
        group_weight[group_of(node)] += weight;
    }
    let mut full = vec![false; groups];
    let (mut left, mut weight_left) = (total, weights.iter().sum::<usize>());
    // Each round fills at least one more group, or ends.
    while let Some(group) = (0..groups).find(|g| !full[*g] && group_weight[*g] * left > partitions * weight_left) {
        full[group] = true;
        left -= partitions;
        weight_left -= group_weight[group];
    }
    let share = |node: usize| {
        let group = group_of(node);
        if full[group] {
            (weights[node] * partitions).div_ceil(group_weight[group])
        } else {
            (weights[node] * left).div_ceil(weight_left.max(1))
        }
    };
    (0..weights.len()).map(|node| share(node).min(partitions)).collect()
}

impl Assignment {
    /// Owners in the order of the walk: not full, not yet there, and of a new rack while there are new racks.
    fn take(&mut self, partition: usize, walk: &[usize]) {
        for node in walk {
            if self.owners[partition].len() == self.n {
                return;
            }
            if self.owned[*node] < self.caps[*node] && self.fits(partition, *node, None) {
                self.own(partition, *node);
            }
        }
    }

    /// Whether a node may join the owners of a partition, with `without` leaving.
    fn fits(&self, partition: usize, node: usize, without: Option<usize>) -> bool {
        let others = || self.owners[partition].iter().filter(|o| Some(**o) != without);
        if others().any(|o| *o == node) {
            return false;
        }
        let shared = others().filter(|o| self.racks[**o] == self.racks[node]).count();
        // With fewer racks than copies, no rack holds more than its even part.
        shared < self.n.div_ceil(self.rack_count.min(self.n))
    }

    fn own(&mut self, partition: usize, node: usize) {
        self.owners[partition].push(node);
        self.owned[node] += 1;
    }

    /// Finds the missing owners of a partition: first by exchanges that keep caps and racks; if there are none, over
    /// the cap; if racks stand in the way, without regard to racks.
    fn complete(&mut self, partition: usize, walk: &[usize]) {
        while self.owners[partition].len() < self.n {
            if self.exchange(partition, walk) {
                continue;
            }
            let least = |fitting: Vec<usize>, a: &Self| fitting.into_iter().min_by_key(|node| a.owned[*node]);
            let fitting = walk.iter().copied().filter(|i| self.fits(partition, *i, None)).collect();
            let absent = walk.iter().copied().filter(|i| !self.owners[partition].contains(i)).collect();
            let node = least(fitting, self).or_else(|| least(absent, self));
            self.own(partition, node.expect("a topology has at least n nodes"));
        }
    }

    /// Breadth-first: `partition` takes a full node, which gives one of its partitions to the next node, and so on to
    /// a node with room.
    fn exchange(&mut self, partition: usize, walk: &[usize]) -> bool {
        // How a node was reached: it would take `partition` from `giver`.
        let mut reached: Vec<Option<(usize, usize)>> = vec![None; self.caps.len()];
        let mut seen = vec![false; self.caps.len()];
        let mut queue = VecDeque::new();
        for node in walk.iter().copied().filter(|i| self.fits(partition, *i, None)) {
            seen[node] = true;
            queue.push_back(node);
        }
        while let Some(node) = queue.pop_front() {
            if self.owned[node] < self.caps[node] {
                self.apply(partition, node, &reached);
                return true;
            }
            for given in (0..self.owners.len()).filter(|p| *p != partition && self.owners[*p].contains(&node)) {
                for taker in 0..self.caps.len() {
                    if !seen[taker] && self.fits(given, taker, Some(node)) {
                        seen[taker] = true;
                        reached[taker] = Some((given, node));
                        queue.push_back(taker);
                    }
                }
            }
        }
        false
    }

    /// Carries out the exchanges that end at `taker`, a node with room.
    fn apply(&mut self, partition: usize, taker: usize, reached: &[Option<(usize, usize)>]) {
        self.owned[taker] += 1;
        let mut taker = taker;
        while let Some((given, giver)) = reached[taker] {
            let place = self.owners[given].iter().position(|o| *o == giver).expect("the giver owns what it gives");
            self.owners[given][place] = taker;
            taker = giver;
        }
        self.owners[partition].push(taker);
    }
}
