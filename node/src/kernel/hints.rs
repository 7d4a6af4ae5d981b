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
use crate::storage::{Read, Rows, Storage, StorageError, Table, hint_key, hint_range, parse_hint_key};
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
/// About how many bytes of hints are read, and sent to one owner, at a time: a client may wait behind that.
const BATCH_BYTES: usize = 32 * 1024;
/// Hints read at a time when they are counted at the start.
const READ_BYTES: usize = 1024 * 1024;
/// An owner that does not ack a hint within this gets it again.
pub(super) const HANDOFF_PATIENCE: Duration = Duration::from_secs(5);

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
    /// How many rows hold an oldest write of this second.
    seconds: BTreeMap<u64, u64>,
}

impl Kept {
    fn add(&mut self, bytes: usize, second: u64) {
        self.rows += 1;
        self.bytes += bytes as u64;
        *self.seconds.entry(second).or_default() += 1;
    }

    fn remove(&mut self, bytes: usize, second: u64) {
        self.rows = self.rows.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes as u64);
        if let Some(rows) = self.seconds.get_mut(&second) {
            *rows -= 1;
            if *rows == 0 {
                self.seconds.remove(&second);
            }
        }
    }
}

/// What is kept for one node, for the status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeptFor {
    pub rows: u64,
    pub bytes: u64,
    /// When the oldest write of them was made, in seconds since 1970; none if none is kept.
    pub oldest_s: Option<u64>,
}

/// The first key behind a row's.
fn behind(row: &Bytes) -> Vec<u8> {
    [&row[..], &[0]].concat()
}

/// When the oldest write of a hint was made, in seconds since 1970.
fn second_of(record: &HintRecord) -> u64 {
    let live = record.object.siblings().iter().map(|(dot, content)| (*dot, content.hlc));
    let past = record.object.past_ops().iter().map(|past| (past.dot, past.hlc));
    let oldest = live.chain(past).filter(|(dot, _)| record.dots.contains(dot)).map(|(_, hlc)| hlc).min();
    oldest.unwrap_or(record.object.hlc_max()).wall_ms() / 1000
}

impl Hints {
    pub(super) fn kept_for(&self, target: NodeId) -> KeptFor {
        let of = |kept: &Kept| KeptFor {
            rows: kept.rows,
            bytes: kept.bytes,
            oldest_s: kept.seconds.first_key_value().map(|(second, _)| *second),
        };
        self.kept.get(&target).map_or_else(KeptFor::default, of)
    }

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
                from = behind(last);
                for (key, value) in rows.iter().filter(|(key, _)| self.keeps(key)).cloned().collect::<Vec<_>>() {
                    let record = HintRecord::decode(&value).map_err(corrupt_record)?;
                    let kept = self.hints.kept.entry(target).or_default();
                    kept.add(key.len() + value.len(), second_of(&record));
                }
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
        if let Some(held) = &held {
            kept.remove(row.len() + held.len(), second_of(&record));
        }
        record.fold(&object, &message.dots);
        let bytes = record.encode();
        kept.add(row.len() + bytes.len(), second_of(&record));
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
        let (rows, mut next) = self.next_hints(target)?;
        let mut sent = 0;
        for (row, value) in rows {
            if !self.repair.pace.allows(now.mono) {
                next = row.to_vec();
                break;
            }
            let (_, _, bucket, key) = parse_hint_key(&row).ok_or_else(|| corrupt("read a hint", "its key is short"))?;
            let record = HintRecord::decode(&value).map_err(corrupt_record)?;
            self.repair.pace.spend(row.len() + value.len());
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

    /// The next hints of this shard for an owner, and where to go on behind them; none behind the last, and then from
    /// the start again, with the next tick.
    fn next_hints(&self, target: NodeId) -> Result<(Rows, Vec<u8>), StorageError> {
        let (start, to) = hint_range(target);
        let cursor = self.hints.kept.get(&target).map_or(Vec::new(), |kept| kept.cursor.clone());
        let mut from = start.max(cursor);
        loop {
            let read = self.store.scan(Table::Hints, &from, &to, BATCH_BYTES)?;
            let Some((last, _)) = read.last() else { return Ok((Rows::new(), Vec::new())) };
            from = behind(last);
            let mut rows: Rows = read.into_iter().filter(|(row, _)| self.keeps(row)).collect();
            if rows.len() > UNDER_WAY_MAX {
                rows.truncate(UNDER_WAY_MAX);
                from = behind(&rows[UNDER_WAY_MAX - 1].0);
            }
            if !rows.is_empty() {
                return Ok((rows, from));
            }
        }
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
                    kept.remove(row.len() + value.len(), second_of(&record));
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
