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

/// How many partitions each node may own: its share by weight, but no node more than one copy of each partition, and no
/// rack more than its even part of them, one if there are enough racks. What is cut off there is shared by the others.
fn caps(weights: &[usize], racks: &[usize], rack_count: usize, partitions: usize, n: usize) -> Vec<usize> {
    let part = even_part(n, rack_count);
    let nodes = (0..weights.len()).map(|node| (vec![node], partitions));
    let rack = |rack| (0..weights.len()).filter(|node| racks[*node] == rack).collect::<Vec<_>>();
    let whole_racks = (0..rack_count).map(|number| (rack(number), part * partitions));
    // A rack that holds one copy of each partition leaves none of its nodes more.
    let groups: Vec<_> = nodes.filter(|_| part > 1).chain(whole_racks).collect();
    let mut caps: Vec<Option<usize>> = vec![None; weights.len()];
    let mut left = partitions * n;
    loop {
        let weight = |nodes: &[usize]| nodes.iter().map(|node| weights[*node]).sum::<usize>();
        let free = |nodes: &[usize]| nodes.iter().copied().filter(|node| caps[*node].is_none()).collect::<Vec<_>>();
        let all = free(&(0..weights.len()).collect::<Vec<_>>());
        let all_weight = weight(&all);
        let over = groups.iter().find_map(|(nodes, most)| {
            let room = most.saturating_sub(nodes.iter().filter_map(|node| caps[*node]).sum());
            let free = free(nodes);
            (weight(&free) * left > room * all_weight).then_some((free, room))
        });
        // Each round settles at least one more node, or is the last.
        let last = over.is_none();
        let (settled, room) = over.unwrap_or((all, left));
        let settled_weight = weight(&settled).max(1);
        for node in settled {
            caps[node] = Some((weights[node] * room).div_ceil(settled_weight).min(partitions));
        }
        left = left.saturating_sub(room);
        if last {
            return caps.into_iter().map(|cap| cap.expect("the last round settles all that are left")).collect();
        }
    }
}

/// Copies of a partition that a rack may hold: with fewer racks than copies, its even part.
fn even_part(n: usize, rack_count: usize) -> usize {
    n.div_ceil(rack_count.min(n))
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
        shared < even_part(self.n, self.rack_count)
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
