//! Hints: what this node keeps for owners that others could not reach, and their handoff.
//!
//! A fallback answers no reads. It delivers by merge when the owner answers again, and forgets a hint only when every
//! dot folded into it by then was acked as durable.

use super::operations::Operation;
use super::peers::{checked_object, overdue};
use super::{Effect, Kernel, Measure, Now, shard_of};
use crate::coordinator::plan::{bucket, check_key};
use crate::planted::{self, Bug};
use crate::replica::{corrupt, corrupt_record};
use crate::storage::{Read, Storage, StorageError, Table, hint_key, hint_range, parse_hint_key};
use bytes::Bytes;
use quorate_ring::id::{NodeId, Partition};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Dot, HintRecord};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerRequest, Purpose, Replicate, StoreHint};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Hints on their way to one owner at a time: its credits.
const UNDER_WAY_MAX: usize = 64;
/// About how many bytes of hints are read for one owner in one tick.
const READ_BYTES: usize = 1024 * 1024;
/// An owner that does not ack a hint within this gets it again.
const HANDOFF_PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Hints {
    kept: BTreeMap<NodeId, Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    rows: u64,
    bytes: u64,
    under_way: usize,
    /// Where the next tick goes on.
    cursor: Vec<u8>,
}

impl Hints {
    pub(super) fn pending(&self) -> u64 {
        self.kept.values().map(|kept| kept.rows).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.kept.values().map(|kept| kept.bytes).sum()
    }

    pub(super) fn under_way_ended(&mut self, target: NodeId) {
        if let Some(kept) = self.kept.get_mut(&target) {
            kept.under_way = kept.under_way.saturating_sub(1);
        }
    }
}

impl<S: Storage> Kernel<S> {
    /// Hints are found again at the start: none is stranded.
    pub(super) fn load_hints(&mut self) -> Result<(), StorageError> {
        let targets: Vec<NodeId> = self.layout.topology().nodes.iter().map(|node| node.id).collect();
        for target in targets {
            let (mut from, to) = hint_range(target);
            loop {
                let rows = self.store.scan(Table::Hints, &from, &to, READ_BYTES)?;
                let Some((last, _)) = rows.last() else { break };
                from = last.to_vec();
                from.push(0);
                let mine = || rows.iter().filter(|(key, _)| self.keeps(key));
                let (count, bytes) =
                    (mine().count(), mine().map(|(key, value)| key.len() + value.len()).sum::<usize>());
                let kept = self.hints.kept.entry(target).or_default();
                kept.rows += count as u64;
                kept.bytes += bytes as u64;
            }
        }
        Ok(())
    }

    /// Whether a row of hints is of this shard.
    fn keeps(&self, row: &Bytes) -> bool {
        parse_hint_key(row).is_some_and(|(_, p, ..)| shard_of(p, self.config.shards) == self.config.shard)
    }

    /// Folds an object into what is kept for an owner. The ack waits for the commit.
    pub(super) fn store_hint(
        &mut self,
        now: Now,
        arrived: Duration,
        hint: &StoreHint,
    ) -> Result<Result<(), Refusal>, StorageError> {
        let message = &hint.replicate;
        let partition = match self.hinted(hint) {
            Ok(partition) => partition,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if overdue(now, arrived, message.deadline_ms) {
            return Ok(Err(Refusal::DeadlinePassed));
        }
        if self.disk_reserve {
            return Ok(Err(Refusal::DiskReserve));
        }
        let object = match checked_object(message) {
            Ok(object) => object,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let row = hint_key(hint.target, partition, message.bucket, &message.key);
        let held = self.store.get(Table::Hints, &row)?;
        let kept = self.hints.kept.entry(hint.target).or_default();
        if kept.bytes + (row.len() + message.object.len()) as u64 > self.config.hint_bytes_max {
            return Ok(Err(Refusal::HintsFull { target: hint.target }));
        }
        let mut record = match &held {
            Some(bytes) => HintRecord::decode(bytes).map_err(corrupt_record)?,
            None => HintRecord::default(),
        };
        record.fold(&object, &message.dots);
        let bytes = record.encode();
        kept.rows += u64::from(held.is_none());
        kept.bytes -= held.map_or(0, |held| (row.len() + held.len()) as u64);
        kept.bytes += (row.len() + bytes.len()) as u64;
        self.store.stage(Table::Hints, row, Some(bytes));
        self.sync |= message.durability == Durability::Sync;
        Ok(Ok(()))
    }

    /// Checks that a hint is for another node, which owns the key.
    fn hinted(&self, hint: &StoreHint) -> Result<Partition, Refusal> {
        let message = &hint.replicate;
        let bucket = bucket(&self.layout, message.epoch, message.bucket)?;
        check_key(&message.key)?;
        let partition = self.layout.partition(bucket, &message.key);
        let owner = self.layout.preference(partition).is_some_and(|list| list.is_owner(hint.target));
        if !owner || hint.target == self.config.node {
            return Err(Refusal::Malformed(format!("{} is no owner of this key that needs a hint", hint.target)));
        }
        Ok(partition)
    }

    /// Sends hints to owners that answer again, as far as their credits go.
    pub(super) fn hand_off(&mut self, now: Now, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let targets: Vec<NodeId> = self.hints.kept.iter().filter(|(_, k)| k.rows > 0).map(|(id, _)| *id).collect();
        for target in targets {
            if !self.liveness.reachable(target, now.mono) || self.hints.kept[&target].under_way > 0 {
                continue; // A batch at a time: a hint is not sent again while its ack may be on its way.
            }
            self.hand_off_batch(now, target, effects)?;
        }
        Ok(())
    }

    fn hand_off_batch(&mut self, now: Now, target: NodeId, effects: &mut Vec<Effect>) -> Result<(), StorageError> {
        let (start, to) = hint_range(target);
        let cursor = self.hints.kept.get(&target).map_or(Vec::new(), |kept| kept.cursor.clone());
        let from = start.max(cursor);
        let rows = self.store.scan(Table::Hints, &from, &to, READ_BYTES)?;
        let mut sent = 0;
        let mut next = Vec::new(); // From the start again, unless there is more.
        if rows.iter().map(|(row, value)| row.len() + value.len()).sum::<usize>() >= READ_BYTES
            && let Some((last, _)) = rows.last()
        {
            next = [&last[..], &[0]].concat();
        }
        for (row, value) in rows {
            if sent == UNDER_WAY_MAX {
                next = row.to_vec();
                break;
            }
            if !self.keeps(&row) {
                continue;
            }
            let (_, _, bucket, key) = parse_hint_key(&row).ok_or_else(|| corrupt("read a hint", "its key is short"))?;
            let record = HintRecord::decode(&value).map_err(corrupt_record)?;
            let dots: Vec<Dot> = record.dots.iter().copied().collect();
            let message = PeerRequest::Replicate(Replicate {
                epoch: self.layout.epoch(),
                bucket,
                key,
                object: record.object.encode(),
                dots,
                durability: Durability::Sync,
                purpose: Purpose::Handoff,
                deadline_ms: u32::MAX,
            });
            let number = self.number();
            self.send_all(number, vec![(target, message)], effects);
            let deadline = now.mono + HANDOFF_PATIENCE;
            self.enrol(now, number, Operation::Handoff { target, row, dots: record.dots, deadline }, effects);
            sent += 1;
        }
        if let Some(kept) = self.hints.kept.get_mut(&target) {
            kept.under_way = sent;
            kept.cursor = next;
        }
        Ok(())
    }

    /// The owner has durably merged these dots. What was folded in since they were sent is kept.
    pub(super) fn handed_off(
        &mut self,
        now: Now,
        target: NodeId,
        row: &Bytes,
        acked: &BTreeSet<Dot>,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        if let Some(value) = self.store.get(Table::Hints, row)? {
            let record = HintRecord::decode(&value).map_err(corrupt_record)?;
            if record.dots.is_subset(acked) || planted::is(Bug::AckForgetsMore) {
                self.store.stage(Table::Hints, row.clone(), None);
                if let Some(kept) = self.hints.kept.get_mut(&target) {
                    kept.rows = kept.rows.saturating_sub(1);
                    kept.bytes = kept.bytes.saturating_sub((row.len() + value.len()) as u64);
                }
                effects.push(Effect::Measure(Measure::HandedOff));
            }
        }
        if self.hints.kept.get(&target).is_some_and(|kept| kept.under_way == 0 && kept.rows > 0) {
            self.hand_off_batch(now, target, effects)?;
        }
        Ok(())
    }
}
