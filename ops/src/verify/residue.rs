//! Tombstones and log entries that are left. Once every owner has seen everything, none should be, but those that the
//! dots of a lost disk hold back: nobody can tell any more what these were.

use super::owner::{Owner, Place};
use quorate_client::{Client, Dot, Layout, LinkError, NodeId};
use quorate_ring::id::ActorId;
use quorate_ring::version::{Context, Object};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(3);

/// What is left. A tombstone counts once, at however many owners it is; a log entry at each owner.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Residue {
    pub tombstones: u64,
    pub log_entries: u64,
    /// Held back by dots of lost disks.
    pub tombstones_held_back: u64,
    pub log_entries_held_back: u64,
    /// Kept until values expire.
    pub log_entries_waiting: u64,
    /// That nodes keep for others.
    pub hints: u64,
}

impl Residue {
    pub fn add(&mut self, other: &Residue) {
        self.tombstones += other.tombstones;
        self.log_entries += other.log_entries;
        self.tombstones_held_back += other.tombstones_held_back;
        self.log_entries_held_back += other.log_entries_held_back;
        self.log_entries_waiting += other.log_entries_waiting;
        self.hints += other.hints;
    }

    /// Nothing is left that should go by itself.
    pub fn none_left(&self) -> bool {
        self.tombstones == 0 && self.log_entries == 0 && self.hints == 0
    }
}

/// The actors under which nodes mint now. All others are of disks that were lost.
pub struct Actors(BTreeSet<ActorId>);

impl Actors {
    pub async fn ask(client: &Client, layout: &Layout) -> Self {
        let mut actors = BTreeSet::new();
        for node in &layout.topology().nodes {
            let owned = layout.partitions().find(|(_, list)| list.is_owner(node.id));
            let Some((partition, _)) = owned else { continue };
            // A node that does not answer now is not read either, and that is reported.
            if let Ok(page) = client.log_of_owner(node.id, partition, None, 1, PATIENCE).await {
                actors.insert(page.actor);
            }
        }
        Self(actors)
    }

    /// Whether this event was of a disk that was lost, and not all owners have seen it.
    fn holds_back(&self, dot: Dot, settled: &Context) -> bool {
        !self.0.contains(&dot.actor()) && !settled.covers(dot)
    }
}

/// What of one partition may be left: tombstones, and keys with values that expire.
#[derive(Default)]
pub struct Left {
    tombstones: BTreeMap<Place, Context>,
    expiring: BTreeSet<Place>,
}

impl Left {
    pub fn note(&mut self, place: &Place, united: &Object) {
        if united.is_tombstone() {
            self.tombstones.insert(place.clone(), united.context().clone());
        } else if united.siblings().iter().any(|(_, content)| content.expires_ms.is_some()) {
            self.expiring.insert(place.clone());
        }
    }

    /// Reads the logs of all owners, and counts.
    pub async fn read_logs(
        &self,
        client: &Client,
        owners: &mut [Owner],
        actors: &Actors,
    ) -> Result<Residue, (NodeId, LinkError)> {
        let mut logs = Vec::new();
        for owner in owners.iter_mut() {
            logs.extend(owner.log(client).await.map_err(|cause| (owner.node, cause))?);
        }
        let settled = settled(owners.iter().map(|owner| &owner.base));
        let held_back = |context: &Context| context.iter().any(|(a, seq)| actors.holds_back(Dot(a, seq), &settled));
        let mut residue = Residue::default();
        for context in self.tombstones.values() {
            let count = if held_back(context) { &mut residue.tombstones_held_back } else { &mut residue.tombstones };
            *count += 1;
        }
        for record in logs {
            let place = (record.bucket, record.key);
            let of_tombstone = self.tombstones.get(&place).is_some_and(held_back);
            let count = if of_tombstone || actors.holds_back(record.dot, &settled) {
                &mut residue.log_entries_held_back
            } else if self.expiring.contains(&place) {
                &mut residue.log_entries_waiting
            } else {
                &mut residue.log_entries
            };
            *count += 1;
        }
        Ok(residue)
    }
}

/// Per actor the seq up to which all have seen everything.
fn settled<'a>(mut bases: impl Iterator<Item = &'a Context>) -> Context {
    let first = bases.next().cloned().unwrap_or_default();
    bases.fold(first, |settled, base| settled.iter().map(|(actor, seq)| (actor, seq.min(base.seq(actor)))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_is_what_the_last_of_them_has_seen() {
        let (a, b) = (ActorId(1), ActorId(2));
        let bases = [Context::from(vec![(a, 5), (b, 9)]), Context::from(vec![(a, 7)]), Context::from(vec![(a, 6)])];
        let settled = settled(bases.iter());
        assert_eq!((settled.seq(a), settled.seq(b)), (5, 0));
    }

    #[test]
    fn only_what_a_lost_disk_knew_alone_holds_anything_back() {
        let (lives, lost) = (ActorId(1), ActorId(2));
        let actors = Actors([lives].into());
        let settled = Context::from(vec![(lives, 3), (lost, 3)]);
        assert!(!actors.holds_back(Dot(lives, 9), &settled), "it will be brought by its owner");
        assert!(!actors.holds_back(Dot(lost, 3), &settled), "everybody has seen it");
        assert!(actors.holds_back(Dot(lost, 4), &settled));
    }
}
