//! Collection: logs are cut and tombstones erased up to what every owner has seen.

use super::{Effect, Kernel, Measure, Now, Timer};
use crate::replica::Place;
use crate::storage::{Storage, StorageError};
use quorate_ring::id::Partition;
use quorate_ring::topology::Durability;
use quorate_ring::wire::peer::{PeerRequest, Purpose, Replicate};
use std::time::Duration;

/// Log entries cut at one time, over all partitions: few, as a client may wait behind them.
const CUT_MAX: usize = 512;
/// Objects looked at at one time, whether they may be erased, over all partitions.
const LOOKED_AT_MAX: usize = 256;
/// Until the next time, if there is more to collect.
const GO_ON_AFTER: Duration = Duration::from_millis(10);
/// From one beginning to the next: not with each tick, as a run of log entries costs what one costs.
const EVERY: Duration = Duration::from_secs(1);

impl<S: Storage> Kernel<S> {
    /// Begins with a tick, unless what the last one began is still under way. In an idle node there is nothing to collect.
    pub(super) fn collect_tick(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        if self.repair.collect_from.is_some() || now.mono < self.repair.collect_after {
            return Ok(());
        }
        self.repair.collect_after = now.mono + EVERY;
        self.collect(now, effects)
    }

    /// Collects a little, and sets a timer if there is more.
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
                effects.push(Effect::Arm { timer: Timer::Collect, after: GO_ON_AFTER });
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
            for place in collected.revived {
                self.tell_of_revived(now, partition, place, effects)?;
            }
        }
        Ok(())
    }

    /// A value was put where this replica still had a tombstone, and others had none any more. What the tombstone knew
    /// would stay with the value here and not there: so they get it, too.
    fn tell_of_revived(
        &mut self,
        now: Now,
        partition: Partition,
        place: Place,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let Some(object) = self.replicas[&partition].stored(&self.store, &place)? else { return Ok(()) };
        let message = PeerRequest::Replicate(Replicate {
            epoch: self.layout.epoch(),
            bucket: place.bucket,
            key: place.key,
            object: object.encode(),
            dots: object.siblings().iter().map(|(dot, _)| *dot).collect(),
            durability: Durability::Sync,
            purpose: Purpose::ReadRepair,
            deadline_ms: u32::MAX,
        });
        let others = self.other_owners(partition).filter(|owner| self.liveness.reachable(*owner, now.mono));
        let send = others.map(|owner| (owner, message.clone())).collect();
        let number = self.number();
        self.send_all(number, send, effects);
        Ok(())
    }
}
