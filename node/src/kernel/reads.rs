//! Gets, scans, and the repair of owners that a get finds behind.

use super::operations::Operation;
use super::{Consistency, Effect, Kernel, Measure, Now, Outcome};
use crate::coordinator::Origin;
use crate::coordinator::behind::{behind, repaired};
use crate::coordinator::get::{Found, Get, GetAnswer};
use crate::coordinator::plan::{ReadPlan, check_epoch};
use crate::replica::{Place, told};
use crate::storage::{Read, Storage, StorageError, Table, object_key, object_range, parse_object_key};
use bytes::Bytes;
use quorate_ring::id::{ActorId, NodeId, Partition};
use quorate_ring::topology::{Conflict, Durability};
use quorate_ring::version::{ContextToken, Dot, Object, visible};
use quorate_ring::wire::client::{ClientReply, ReadAnswer, ReadRequest, ScanPage, ScanRecord, ScanRequest};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Purpose, Replicate};
use std::collections::BTreeSet;
use std::time::Duration;

/// A page of a scan carries about this at the most.
const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl<S: Storage> Kernel<S> {
    pub(super) fn read(
        &mut self,
        now: Now,
        origin: Origin,
        arrived: Duration,
        request: &ReadRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let admitted = self.admit().and_then(|()| ReadPlan::new(&self.layout, now, arrived, request));
        let plan = match admitted {
            Ok(plan) => plan,
            Err(refusal) => {
                self.refuse_read(now, origin, (Consistency::Other, arrived), refusal, effects);
                return Ok(());
            }
        };
        let route = plan.route.clone();
        let own = match self.replicas.get(&route.partition).filter(|_| !self.config.rebuilding) {
            Some(replica) => Some((self.config.node, replica.answer(&self.store, &route.place)?)),
            None => None,
        };
        let others = self.reachable_others(now, route.partition);
        let (epoch, held_min) = (self.layout.epoch(), self.config.held_value_bytes);
        let mut get = Get::new(route, plan.r, plan.quorum, epoch, None, held_min, others.into_iter());
        let step = get.begin(now.mono, own);
        let conflict = self.layout.topology().bucket(request.bucket).map_or(Conflict::Siblings, |b| b.conflict);
        let operation = Operation::Read { origin, plan, conflict, get };
        let number = self.number();
        if step.answer.is_none() {
            self.send_all(number, step.send, effects);
            self.enrol(now, number, operation, effects);
            return Ok(());
        }
        self.get_step(now, number, operation, step, effects)
    }

    pub(super) fn read_found(
        &mut self,
        now: Now,
        origin: Origin,
        plan: ReadPlan,
        conflict: Conflict,
        answer: GetAnswer,
        effects: &mut Vec<Effect>,
    ) -> Result<(), StorageError> {
        let (began, consistency) = (plan.route.began, plan.route.consistency(plan.r));
        let found = match answer {
            GetAnswer::Found(found) => found,
            GetAnswer::Unavailable { needed, got } => {
                self.refuse_read(now, origin, (consistency, began), Refusal::Unavailable { needed, got }, effects);
                return Ok(());
            }
            GetAnswer::DeadlinePassed => {
                self.refuse_read(now, origin, (consistency, began), Refusal::DeadlinePassed, effects);
                return Ok(());
            }
        };
        let number = self.number();
        let (waiting, repaired) = self.repair_behind(number, &plan, &found, effects)?;
        let answer = self.read_answer(now, &plan, conflict, &found, waiting.iter().copied().collect());
        self.count_read(now, (consistency, began), &answer, effects);
        if plan.blocking_repair && !waiting.is_empty() {
            let held = (found.answers.len() - waiting.len()) as u8;
            let operation = Operation::Repairing {
                origin,
                answer: Box::new(answer),
                held,
                needed: plan.w.min(held + repaired),
                waiting,
                deadline: plan.route.deadline,
            };
            self.repair_enrol(now, number, operation, effects);
            return Ok(());
        }
        self.answer_read(origin, answer, effects);
        Ok(())
    }

    /// Sends the union to every owner that was found behind; merges it here if this node is one. Returns the others,
    /// and how many they are.
    fn repair_behind(
        &mut self,
        number: u64,
        plan: &ReadPlan,
        found: &Found,
        effects: &mut Vec<Effect>,
    ) -> Result<(BTreeSet<NodeId>, u8), StorageError> {
        let mut waiting: BTreeSet<NodeId> = behind(&found.union, &found.answers).into_iter().collect();
        if waiting.is_empty() {
            return Ok((waiting, 0));
        }
        let object = repaired(&found.union, &found.answers);
        let dots: Vec<Dot> = object.siblings().iter().map(|(dot, _)| *dot).collect();
        self.counters.read_repairs += waiting.len() as u64;
        effects.extend(waiting.iter().map(|_| Effect::Measure(Measure::ReadRepair)));
        if waiting.remove(&self.config.node) {
            self.merge(&plan.route.place, plan.route.partition, &object, &dots)?;
            self.sync = true;
        }
        let repair = PeerRequest::Replicate(Replicate {
            epoch: self.layout.epoch(),
            bucket: plan.route.place.bucket,
            key: plan.route.place.key.clone(),
            object: object.encode(),
            dots,
            durability: Durability::Sync,
            purpose: Purpose::ReadRepair,
            deadline_ms: u32::MAX,
        });
        self.send_all(number, waiting.iter().map(|owner| (*owner, repair.clone())).collect(), effects);
        let count = waiting.len() as u8;
        Ok((waiting, count))
    }

    fn repair_enrol(&mut self, now: Now, number: u64, operation: Operation, effects: &mut Vec<Effect>) {
        self.enrol(now, number, operation, effects);
        if let Some(operation) = self.operations.remove(&number) {
            self.repair_step(now, number, operation, effects);
        }
    }

    /// Answers a blocking read once enough owners hold what it found, or no further one can.
    pub(super) fn repair_step(&mut self, now: Now, number: u64, operation: Operation, effects: &mut Vec<Effect>) {
        let enough = match &operation {
            Operation::Repairing { held, needed, waiting, .. } => held >= needed || waiting.is_empty(),
            Operation::Read { .. }
            | Operation::Gather { .. }
            | Operation::Put(_)
            | Operation::Forwarded { .. }
            | Operation::Handoff { .. }
            | Operation::Exchange { .. } => true,
        };
        if enough {
            self.answer_repaired(now, operation, effects);
        } else {
            self.operations.insert(number, operation);
        }
    }

    pub(super) fn answer_repaired(&mut self, _: Now, operation: Operation, effects: &mut Vec<Effect>) {
        // Whoever failed to ack stays among those that are being repaired.
        if let Operation::Repairing { origin, answer, .. } = operation {
            self.answer_read(origin, *answer, effects);
        }
    }

    fn read_answer(
        &self,
        now: Now,
        plan: &ReadPlan,
        conflict: Conflict,
        found: &Found,
        repairing: Vec<NodeId>,
    ) -> ReadAnswer {
        let (siblings, set_aside) = visible(&found.union, conflict, now.wall_ms);
        let Place { bucket, key } = &plan.route.place;
        let cluster = self.layout.topology().cluster;
        ReadAnswer {
            epoch: self.layout.epoch(),
            siblings,
            context: ContextToken::seal(cluster, *bucket, key, found.union.context()),
            needed: plan.r,
            answered: found.answers.iter().map(|(answered, _)| answered.clone()).collect(),
            set_aside,
            repairing,
            short: found.short,
        }
    }

    fn count_read(
        &mut self,
        now: Now,
        (consistency, began): (Consistency, Duration),
        answer: &ReadAnswer,
        effects: &mut Vec<Effect>,
    ) {
        self.counters.reads += 1;
        self.counters.set_aside += u64::from(answer.set_aside);
        let outcome = match answer.siblings.len() {
            0 => Outcome::NotFound,
            1 => Outcome::Ok,
            _ => Outcome::Conflict,
        };
        let (took, siblings) = (now.mono.saturating_sub(began), answer.siblings.len() as u32);
        effects.push(Effect::Measure(Measure::Read { consistency, outcome, took, siblings }));
        if answer.set_aside > 0 {
            effects.push(Effect::Measure(Measure::SetAside { count: answer.set_aside }));
        }
    }

    fn answer_read(&self, origin: Origin, answer: ReadAnswer, effects: &mut Vec<Effect>) {
        // Reads are never forwarded: any node reads for its own clients.
        let peer = PeerReply::Refused(Refusal::Malformed("a read cannot be forwarded".to_string()));
        self.reply(origin, ClientReply::Read(answer), peer, effects);
    }

    fn refuse_read(
        &self,
        now: Now,
        origin: Origin,
        (consistency, began): (Consistency, Duration),
        refusal: Refusal,
        effects: &mut Vec<Effect>,
    ) {
        let outcome = match &refusal {
            Refusal::Overloaded { .. } => Outcome::Overloaded,
            refusal if refusal.worth_a_retry() || *refusal == Refusal::DeadlinePassed => Outcome::Unavailable,
            _ => Outcome::Error,
        };
        let took = now.mono.saturating_sub(began);
        effects.push(Effect::Measure(Measure::Read { consistency, outcome, took, siblings: 0 }));
        self.reply(origin, ClientReply::Refused(refusal.clone()), PeerReply::Refused(refusal), effects);
    }

    /// One page of what this very node holds.
    pub(super) fn scan(&self, request: &ScanRequest) -> Result<Result<ScanPage, Refusal>, StorageError> {
        if let Err(refusal) = check_epoch(&self.layout, request.epoch) {
            return Ok(Err(refusal));
        }
        let Some(replica) = self.replicas.get(&request.partition) else { return Ok(Err(Refusal::NotOwner)) };
        if self.config.rebuilding {
            return Ok(Err(Refusal::NotReady));
        }
        let (mut from, to) = scan_range(request);
        let bytes_max = (request.bytes_max as usize).clamp(1, PAGE_BYTES_MAX);
        if let Some((bucket, key)) = &request.after {
            let mut behind = object_key(request.partition, *bucket, key).to_vec();
            behind.push(0);
            from = from.max(behind);
        }
        let base = replica.clock().base();
        if from >= to {
            return Ok(Ok(ScanPage { records: Vec::new(), done: true, base }));
        }
        let rows = self.store.scan(Table::Objects, &from, &to, bytes_max)?;
        let done = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() < bytes_max;
        let record = |(key, object): (Bytes, Bytes)| {
            let (_, bucket, key) = parse_object_key(&key)?;
            Some(ScanRecord { bucket, key, object })
        };
        Ok(Ok(ScanPage { records: rows.into_iter().filter_map(record).collect(), done, base }))
    }

    /// Merges an object into this node's own replica.
    pub(super) fn merge(
        &mut self,
        place: &Place,
        partition: Partition,
        object: &Object,
        dots: &[Dot],
    ) -> Result<u32, StorageError> {
        let replica = self.replicas.get_mut(&partition).expect("only owners merge");
        let fresh = replica.merge(&mut self.store, place, object, dots)?;
        if fresh > 0 {
            let actors: BTreeSet<ActorId> = told(object, dots).map(Dot::actor).collect();
            actors.into_iter().for_each(|actor| self.clocks.changed(partition, actor));
        }
        Ok(fresh)
    }
}

/// The stored keys that a scan is about.
fn scan_range(request: &ScanRequest) -> (Vec<u8>, Vec<u8>) {
    let (from, to) = object_range(request.partition);
    let Some(bucket) = request.bucket else { return (from, to) };
    let from = object_key(request.partition, bucket, &request.prefix).to_vec();
    let to = successor(&from).unwrap_or(to);
    (from, to)
}

/// The least key that is greater than all that begin with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::successor;

    #[test]
    fn the_successor_of_a_prefix() {
        assert_eq!(successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(successor(b"a\xff\xff"), Some(b"b".to_vec()));
        assert_eq!(successor(b"\xff"), None);
    }
}
