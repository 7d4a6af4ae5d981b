//! After faults, all owners of a key hold the same, byte for byte, which is what no event superseded; and what is
//! settled is forgotten, but for what lost disks hold back.

use super::truth::{Minted, clock_of};
use super::{Checks, Property, Violation};
use crate::sim::clock::Walls;
use crate::sim::keys::Keys;
use crate::sim::node::SimNode;
use bytes::Bytes;
use quorate_node::storage::{LogEntry, Read, Table, object_key, parse_log_key, parse_object_key};
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::version::{Clock, Context, Dot, Object};
use std::collections::BTreeMap;

/// The replicas of all nodes.
struct Replicas<'a> {
    nodes: &'a [SimNode],
    clocks: BTreeMap<(Partition, NodeId), &'a Clock>,
}

fn apart(key: Option<u32>, text: String) -> Violation {
    Violation::new(Property::Convergence, key, text)
}

impl<'a> Replicas<'a> {
    fn of(nodes: &'a [SimNode], keys: &Keys) -> Result<Self, Violation> {
        let mut clocks = BTreeMap::new();
        for node in nodes {
            if !node.running || node.is_rebuilding() {
                return Err(apart(None, format!("{} is not back", node.id)));
            }
            if !node.disk.is_empty(Table::Hints) {
                return Err(apart(None, format!("{} still keeps hints", node.id)));
            }
            for (partition, list) in keys.layout.partitions().filter(|(_, list)| list.is_owner(node.id)) {
                let held = node.shards.iter().find_map(|shard| clock_of(&shard.kernel, partition));
                let first = list.owners()[0];
                let held = held.ok_or_else(|| apart(None, format!("{} lacks partition {partition}", node.id)))?;
                clocks.insert((partition, node.id), held);
                if let Some(other) = clocks.get(&(partition, first)).filter(|other| **other != held) {
                    let text = format!("clocks of {partition} at {first} and {}: {other:?} and {held:?}", node.id);
                    return Err(apart(None, text));
                }
            }
        }
        Ok(Self { nodes, clocks })
    }

    fn floor(&self, node: NodeId, partition: Partition) -> Option<&Context> {
        let shards = &self.nodes[usize::from(node.0) - 1].shards;
        shards.iter().find_map(|shard| shard.kernel.replica(partition)).map(|replica| replica.floor())
    }

    /// Whether an object knows of events of a lost disk that not every owner has seen.
    fn held_back(&self, object: &Object, base: &Context) -> bool {
        let unseen = object.context().iter().find(|(actor, seq)| *seq > base.seq(*actor));
        unseen.is_some_and(|(actor, _)| self.nodes[usize::from(actor.node().0) - 1].actor != actor)
    }

    fn row(&self, node: NodeId, row: &[u8]) -> Option<Bytes> {
        let disk = &self.nodes[usize::from(node.0) - 1].disk;
        disk.get(Table::Objects, row).ok().flatten()
    }
}

/// What every owner has seen is in no log any more, but for what brings to mind a tombstone that is held back, or content
/// that has yet to expire.
fn check_logs(replicas: &Replicas, keys: &Keys) -> Result<(), Violation> {
    for node in replicas.nodes {
        let mut residue = None;
        let mut bases: BTreeMap<Partition, Context> = BTreeMap::new();
        let base_of = |partition| replicas.clocks.get(&(partition, node.id)).map(|clock| clock.base());
        node.disk.each_row_of(Table::Log, |row, entry| {
            let Some((partition, dot)) = parse_log_key(row) else { return };
            let base = bases.entry(partition).or_insert_with(|| base_of(partition).unwrap_or_default());
            if !base.covers(dot) {
                return;
            }
            let Ok(entry) = LogEntry::decode(entry) else { return };
            let object = replicas.row(node.id, &object_key(partition, entry.bucket, &entry.key));
            let object = object.and_then(|bytes| Object::decode(&bytes).ok()).unwrap_or_default();
            let waits = object.siblings().iter().any(|(_, content)| content.expires_ms.is_some());
            let held_back = object.is_tombstone() && replicas.held_back(&object, base);
            if !waits && !held_back {
                residue = Some((keys.number(entry.bucket, &entry.key), dot));
            }
        });
        if let Some((key, dot)) = residue {
            let text = format!("{} still has {dot} in its log, which all owners have seen", node.id);
            return Err(Violation::new(Property::Residue, key, text));
        }
    }
    Ok(())
}

impl Checks {
    /// Whether all is well again; if not, what is missing.
    pub fn check_converged(&self, nodes: &[SimNode], keys: &Keys, walls: &Walls) -> Result<(), Violation> {
        let replicas = Replicas::of(nodes, keys)?;
        self.check_all_known(&replicas, keys)?;
        let mut contexts: BTreeMap<u32, Context> = BTreeMap::new();
        for number in 0..keys.len() {
            let key = keys.get(number);
            let row = object_key(key.partition, key.bucket.id, &key.bytes);
            let mut held = key.owners.iter().map(|owner| (*owner, replicas.row(*owner, &row)));
            let (first, object) = held.next().expect("each key has an owner");
            let decoded = object.as_ref().and_then(|bytes| Object::decode(bytes).ok());
            if let Some((other, theirs)) = held.find(|(_, other)| *other != object) {
                let theirs = theirs.and_then(|bytes| Object::decode(&bytes).ok()).unwrap_or_default();
                let ours = decoded.clone().unwrap_or_default();
                if ours.siblings() != theirs.siblings() {
                    let floors: Vec<_> = key.owners.iter().map(|owner| replicas.floor(*owner, key.partition)).collect();
                    let text = format!("{first} holds {ours:?}, {other} holds {theirs:?}, floors are {floors:?}");
                    return Err(apart(Some(number), text));
                }
            }
            let clock = replicas.clocks[&(key.partition, first)];
            if let Some(object) = &decoded {
                self.check_residue(number, object, clock, &replicas, key.partition)?;
                contexts.insert(number, object.context().clone());
            }
            self.check_outcome(number, &decoded.unwrap_or_default(), clock, walls.erasable_ms(&key.owners))?;
        }
        self.check_acked(|key, event| {
            let clock = replicas.clocks[&(keys.get(key).partition, keys.get(key).owners[0])];
            clock.contains(event.dot) || contexts.get(&key).is_some_and(|context| context.covers(event.dot))
        })?;
        check_logs(&replicas, keys)?;
        self.check_no_strangers(nodes, keys)
    }

    /// What the owners show is what no event that they know of supersedes.
    fn check_outcome(&self, key: u32, object: &Object, clock: &Clock, erasable_ms: u64) -> Result<(), Violation> {
        let history = self.truth.history(key);
        let known = |e: &Minted| clock.contains(e.dot) || object.context().covers(e.dot) || e.settled_us.is_some();
        for event in history.events.iter().filter(|event| clock.contains(event.dot)) {
            let live = !event.delete && !history.superseded(event, known);
            let may_be_gone = event.expires_ms.is_some_and(|at| at <= erasable_ms);
            if live != object.shows(event.dot) && !may_be_gone {
                let text = format!("{} (op {}) should {}be shown", event.dot, event.op, if live { "" } else { "not " });
                return Err(apart(Some(key), text));
            }
        }
        Ok(())
    }

    /// Every event of an actor that still mints is known to all owners.
    fn check_all_known(&self, replicas: &Replicas, keys: &Keys) -> Result<(), Violation> {
        for (partition, actor, seq) in self.truth.minted() {
            let author = &replicas.nodes[usize::from(actor.node().0) - 1];
            if author.actor != actor {
                continue; // Its disk was lost, perhaps with events that nobody else had seen.
            }
            let owners = keys.layout.preference(partition).map_or(&[][..], |list| list.owners());
            for owner in owners {
                let clock = replicas.clocks[&(partition, *owner)];
                if let Some(missing) = (1..=seq).find(|seq| !clock.contains(Dot(actor, *seq))) {
                    let text = format!("{owner} never learned of {} in partition {partition}", Dot(actor, missing));
                    return Err(apart(None, text));
                }
            }
        }
        Ok(())
    }

    /// A tombstone whose whole context every owner has seen is gone; what holds others back is a lost disk.
    fn check_residue(
        &self,
        key: u32,
        object: &Object,
        clock: &Clock,
        replicas: &Replicas,
        partition: Partition,
    ) -> Result<(), Violation> {
        if !object.is_tombstone() {
            return Ok(());
        }
        if replicas.held_back(object, &clock.base()) {
            return Ok(());
        }
        let text = format!("the tombstone {object:?} of partition {partition} is still there");
        Err(Violation::new(Property::Residue, Some(key), text))
    }

    /// No node holds objects of partitions that it does not own.
    fn check_no_strangers(&self, nodes: &[SimNode], keys: &Keys) -> Result<(), Violation> {
        for node in nodes {
            let mut stranger = None;
            node.disk.each_row_of(Table::Objects, |key, _| {
                let Some((partition, ..)) = parse_object_key(key) else { return };
                let owned = keys.layout.preference(partition).is_some_and(|list| list.is_owner(node.id));
                stranger = stranger.or((!owned).then_some(partition));
            });
            if let Some(partition) = stranger {
                return Err(apart(None, format!("{} holds an object of partition {partition}, not its own", node.id)));
            }
        }
        Ok(())
    }
}
