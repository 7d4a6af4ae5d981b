//! C1 and C2, at every commit; and that nothing is let out before its batch is as durable as it was to be.

use super::truth::{Touched, clock_of};
use super::{Checks, Commit, Property, Violation};
use crate::sim::clock::Walls;
use crate::sim::disk::{Batch, SimDisk};
use crate::sim::keys::Keys;
use crate::sim::node::SimNode;
use quorate_node::kernel::Kernel;
use quorate_node::storage::{Read, Table, object_key};
use quorate_ring::version::{Clock, Object};

/// One key in so many is looked at when a node starts.
const OPENED_SAMPLE: u32 = 4;

impl Checks {
    /// Without `async` there is no drain that enters dots and lets go of its effects without an fsync.
    pub(super) fn released(&self, batch: &Batch, commit: &Commit) -> Result<(), Violation> {
        if batch.sync || self.asynchronous || !commit.node.disk.enters_dots(batch) || commit.kernel.is_none() {
            return Ok(());
        }
        let text = format!("{} entered dots and did not wait for an fsync", commit.node.id);
        Err(Violation::new(Property::Released, None, text))
    }

    /// What a batch left of a key.
    pub(super) fn check_replica(
        &self,
        kernel: &Kernel<SimDisk>,
        commit: &Commit,
        touched: &Touched,
        keys: &Keys,
    ) -> Result<(), Violation> {
        let Some(clock) = clock_of(kernel, touched.partition) else {
            let text = format!("{} wrote to partition {}, which it does not own", commit.node.id, touched.partition);
            return Err(Violation::new(Property::C1, Some(touched.key), text));
        };
        let history = self.truth.history(touched.key);
        if let Some(dot) = touched.dots.iter().find(|dot| history.event(**dot).is_none()) {
            let text = format!("{} entered {dot}, which no node has committed", commit.node.id);
            return Err(Violation::new(Property::Released, Some(touched.key), text));
        }
        let erasable_ms = commit.walls.erasable_ms(&keys.get(touched.key).owners);
        match &touched.object {
            Some(Some((_, object))) => self.check_state(commit.node, touched.key, object, clock, erasable_ms),
            Some(None) => self.check_state(commit.node, touched.key, &Object::default(), clock, erasable_ms),
            None => {
                let Some(object) = stored(kernel, touched.key, keys) else { return Ok(()) };
                self.check_state(commit.node, touched.key, &object, clock, erasable_ms)
            }
        }
    }

    /// C1 for one key: each event of the clock is shown, or superseded by what the replica knows; and nothing is shown
    /// that something in the clock supersedes.
    fn check_state(
        &self,
        node: &SimNode,
        key: u32,
        object: &Object,
        clock: &Clock,
        erasable_ms: u64,
    ) -> Result<(), Violation> {
        let history = self.truth.history(key);
        let id = node.id;
        // A context is said with the state of whoever sent it. What that state has forgotten, as all owners had seen it,
        // an old copy of a disk may still show, until the node has copied from all others; so long it answers nobody.
        let told = |by: &super::truth::Minted| !node.is_rebuilding() && object.context().covers(by.dot);
        for event in &history.events {
            let dot = event.dot;
            let seen = clock.contains(dot);
            if object.shows(dot) {
                let text = if !seen {
                    format!("{id} shows {dot}, which its clock does not have")
                } else if history.superseded(event, |by| clock.contains(by.dot) || told(by)) {
                    format!("{id} shows {dot}, and has seen what supersedes it")
                } else {
                    continue;
                };
                return Err(Violation::new(Property::C1, Some(key), text));
            }
            let gone = event.delete || event.expires_ms.is_some_and(|at| at <= erasable_ms);
            if !seen || gone {
                continue;
            }
            let known = |by: &super::truth::Minted| {
                clock.contains(by.dot) || object.context().covers(by.dot) || by.settled_us.is_some()
            };
            if !history.superseded(event, known) {
                let text = format!("{id} has {dot} in its clock, not its value, nor anything that supersedes it");
                return Err(Violation::new(Property::C1, Some(key), text));
            }
        }
        match object.siblings().iter().find(|(dot, _)| history.event(*dot).is_none()) {
            Some((dot, _)) => {
                let text = format!("{id} shows {dot}, which no node has committed");
                Err(Violation::new(Property::Released, Some(key), text))
            }
            None => Ok(()),
        }
    }

    /// A node has started from its disk: what it makes of it keeps C1.
    pub fn opened(&self, index: usize, node: &SimNode, keys: &Keys, walls: &Walls) -> Result<(), Violation> {
        let sampled = |key: &u32| (key + index as u32 + node.incarnation).is_multiple_of(OPENED_SAMPLE);
        for key in (0..keys.len()).filter(sampled) {
            self.check_key(node, key, keys, walls)?;
        }
        Ok(())
    }

    /// C1 for a key as a node has it now.
    pub fn check_key(&self, node: &SimNode, key: u32, keys: &Keys, walls: &Walls) -> Result<(), Violation> {
        let partition = keys.get(key).partition;
        let erasable_ms = walls.erasable_ms(&keys.get(key).owners);
        for shard in &node.shards {
            if let Some(clock) = clock_of(&shard.kernel, partition) {
                let Some(object) = stored(&shard.kernel, key, keys) else { continue };
                self.check_state(node, key, &object, clock, erasable_ms)?;
            }
        }
        Ok(())
    }
}

/// What a replica holds of a key; none if its disk is damaged there.
fn stored(kernel: &Kernel<SimDisk>, key: u32, keys: &Keys) -> Option<Object> {
    let key = keys.get(key);
    let row = kernel.store().get(Table::Objects, &object_key(key.partition, key.bucket.id, &key.bytes));
    row.ok().map(|row| row.and_then(|bytes| Object::decode(&bytes).ok()).unwrap_or_default())
}
