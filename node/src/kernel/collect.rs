//! Collection: logs are cut and tombstones erased up to what every owner has seen.

use super::{Effect, Kernel, Measure, Now};
use crate::storage::{Storage, StorageError};
use quorate_ring::id::Partition;

/// Log entries cut in one tick, over all partitions.
const CUT_MAX: usize = 16_384;
/// Objects looked at in one tick, whether they may be erased, over all partitions.
const LOOKED_AT_MAX: usize = 4_096;

impl<S: Storage> Kernel<S> {
    /// Collects as far as the tick goes; the next one goes on behind. In an idle node there is nothing to collect.
    pub(super) fn collect(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let from = self.repair.collect_from.take();
        let partitions: Vec<Partition> = match from {
            Some(from) => self.replicas.range(from..).map(|(partition, _)| *partition).collect(),
            None => self.replicas.keys().copied().collect(),
        };
        let wall_ms = now.wall_ms.saturating_sub(self.config.clock_drift_max.as_millis() as u64);
        let (mut cut_left, mut looks_left) = (CUT_MAX, LOOKED_AT_MAX);
        for partition in partitions {
            if cut_left == 0 || looks_left == 0 {
                self.repair.collect_from = Some(partition);
                break;
            }
            let Some(replica) = self.replicas.get_mut(&partition).filter(|replica| !replica.is_collected()) else {
                continue;
            };
            let owners = self.layout.preference(partition).map_or(&[][..], |list| list.owners());
            let settled = self.clocks.settled(self.config.node, owners, partition, replica.clock());
            self.ages.settle(partition, &settled);
            // Content is erased once it has expired by the clock of every owner: one of them may have jumped ahead.
            let expired_ms = wall_ms.min(self.clocks.earliest_wall(self.config.node, owners));
            let collected = replica.collect(&mut self.store, &settled, expired_ms, (cut_left, looks_left))?;
            cut_left = cut_left.saturating_sub(collected.cut);
            looks_left = looks_left.saturating_sub(collected.looked_at);
            if collected.erased > 0 {
                effects.push(Effect::Measure(Measure::Erased { objects: collected.erased }));
            }
        }
        Ok(())
    }
}
