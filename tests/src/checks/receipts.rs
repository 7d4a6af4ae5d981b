//! Receipts tell the truth: who is said to hold a write holds it, as durably as it is said.

use super::truth::Holder;
use super::{Checks, Property, Violation};
use crate::sim::disk::SimDisk;
use crate::sim::keys::{Key, Keys};
use crate::sim::load::Op;
use crate::sim::node::SimNode;
use bytes::Bytes;
use quorate_node::storage::{MetaKey, Read, Table, hint_key, log_key, object_key};
use quorate_ring::id::NodeId;
use quorate_ring::topology::{Durability, QuorumKind};
use quorate_ring::version::{Context, Dot, HintRecord, Object};
use quorate_ring::wire::client::{Ack, Receipt, Standing, Uncertain};
use std::collections::BTreeSet;

impl Checks {
    pub(super) fn check_receipt(
        &self,
        op: &Op,
        receipt: &Receipt,
        nodes: &[SimNode],
        keys: &Keys,
    ) -> Result<Context, Violation> {
        let key = keys.get(op.key);
        let broken = |text: String| broken(op, text);
        let cluster = keys.layout.topology().cluster;
        let context = receipt.context.open(cluster, key.bucket.id, &key.bytes);
        let context = context.map_err(|why| broken(why.to_string()))?;
        let held = distinct(op, &receipt.acks, key)?;
        if receipt.needed != op.w_of(key) || held < usize::from(receipt.needed) {
            return Err(broken(format!("{held} acks count, {} were asked for", op.w_of(key))));
        }
        if !key.owners.contains(&receipt.coordinator) || !context.covers(receipt.dot) {
            return Err(broken(format!("its context does not cover {}, or no owner coordinated", receipt.dot)));
        }
        let Some(event) = self.truth.history(op.key).event(receipt.dot) else {
            return Err(broken(format!("{} was never committed", receipt.dot)));
        };
        if event.op != op.number {
            let text = format!("op {} was answered with {}, which is of op {}", op.number, receipt.dot, event.op);
            return Err(Violation::new(Property::OneWrite, Some(op.key), text));
        }
        for ack in &receipt.acks {
            let kept = self.keeps(op, receipt.dot, &Holder::of(ack), nodes, keys);
            if kept && !holds(ack, receipt.dot, key, nodes) {
                return Err(broken(format!("{} is said to hold {}, and does not", ack.node, receipt.dot)));
            }
        }
        Ok(context)
    }

    pub(super) fn check_uncertain(&self, op: &Op, uncertain: &Uncertain, keys: &Keys) -> Result<(), Violation> {
        let key = keys.get(op.key);
        let held = distinct(op, &uncertain.acks, key)?;
        if uncertain.needed > 0 && held >= usize::from(uncertain.needed) {
            return Err(broken(op, format!("{held} acks are enough, and yet the outcome is said to be unknown")));
        }
        Ok(())
    }
}

fn broken(op: &Op, text: String) -> Violation {
    Violation::new(Property::Receipts, Some(op.key), format!("op {}: {text}", op.number))
}

/// For how many distinct owners the write is held, durably enough.
fn distinct(op: &Op, acks: &[Ack], key: &Key) -> Result<usize, Violation> {
    let nodes: BTreeSet<NodeId> = acks.iter().map(|ack| ack.node).collect();
    if nodes.len() != acks.len() {
        return Err(broken(op, format!("a node is counted twice: {acks:?}")));
    }
    let mut held: BTreeSet<NodeId> = BTreeSet::new();
    for ack in acks {
        let owner = key.owners.contains(&ack.node);
        let target = match ack.standing {
            Standing::Owner if owner => ack.node,
            Standing::Fallback { target } if !owner && key.owners.contains(&target) => target,
            Standing::Owner | Standing::Fallback { .. } => {
                return Err(broken(op, format!("{} counts as {:?}, and is not", ack.node, ack.standing)));
            }
        };
        if target != ack.node && op.quorum_of(key) == QuorumKind::Strict {
            return Err(broken(op, format!("{} is a fallback, in a strict quorum", ack.node)));
        }
        if ack.durability >= op.durability_of(key) {
            held.insert(target);
        }
    }
    Ok(held.len())
}

fn holds(ack: &Ack, dot: Dot, key: &Key, nodes: &[SimNode]) -> bool {
    let owner = |node: NodeId| owner_holds(&nodes[usize::from(node.0) - 1].disk, ack.durability, key, dot);
    match ack.standing {
        Standing::Owner => owner(ack.node),
        Standing::Fallback { target } => {
            // It may have been delivered by now.
            hint_holds(&nodes[usize::from(ack.node.0) - 1].disk, target, key, dot) || owner(target)
        }
    }
}

/// Whether a fallback keeps a hint with an event for an owner.
pub fn hint_holds(disk: &SimDisk, target: NodeId, key: &Key, dot: Dot) -> bool {
    let row = hint_key(target, key.partition, key.bucket.id, &key.bytes);
    let hint = disk.get(Table::Hints, &row).ok().flatten();
    hint.and_then(|bytes| HintRecord::decode(&bytes).ok()).is_some_and(|hint| hint.dots.contains(&dot))
}

/// Whether a replica holds an event, or what supersedes it: in its log, below its floor, or by what it knows of the key.
pub fn owner_holds(disk: &SimDisk, durability: Durability, key: &Key, dot: Dot) -> bool {
    let row = |table, row: &[u8]| match durability {
        Durability::Sync => disk.durable(table, row),
        Durability::Async => disk.get(table, row).ok().flatten(),
    };
    let covers = |row: Option<Bytes>| {
        let object = row.and_then(|bytes| Object::decode(&bytes).ok());
        object.is_some_and(|object| object.context().covers(dot))
    };
    row(Table::Log, &log_key(key.partition, dot)).is_some()
        || covers(row(Table::Meta, &MetaKey::Floor(key.partition).encode()))
        || covers(row(Table::Objects, &object_key(key.partition, key.bucket.id, &key.bytes)))
}
