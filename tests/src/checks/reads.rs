//! What a read shows follows from its context: every event that the context covers and that nothing covered supersedes,
//! and no other. So no sibling is dropped, and nothing superseded or deleted returns.

use super::receipts::owner_holds;
use super::truth::{History, Minted};
use super::{Checks, Property, Violation, lww};
use crate::sim::clock::Walls;
use crate::sim::keys::Keys;
use crate::sim::load::{Load, Op};
use crate::sim::node::SimNode;
use quorate_ring::topology::{Conflict, Durability};
use quorate_ring::version::{Context, Dot};
use quorate_ring::wire::client::{ReadAnswer, Sibling};
use std::collections::BTreeMap;

/// A read that was answered.
pub struct ReadSeen<'a> {
    pub op: &'a Op,
    pub answer: &'a ReadAnswer,
    /// When this attempt was sent.
    pub asked_us: u64,
    /// The gateway's wall clock when the request came, and when it was answered.
    pub wall_ms: (Option<u64>, Option<u64>),
    pub walls: &'a Walls,
    pub now_us: u64,
}

impl ReadSeen<'_> {
    fn broken(&self, property: Property, text: String) -> Violation {
        Violation::new(property, Some(self.op.key), format!("op {}: {text}", self.op.number))
    }

    /// The earliest and the latest that the gateway's wall clock may have shown when it judged what had expired.
    fn walls(&self) -> (u64, u64) {
        let (arrived, replied) = (self.wall_ms.0.unwrap_or(0), self.wall_ms.1.unwrap_or(u64::MAX));
        (arrived.min(replied), arrived.max(replied))
    }
}

impl Checks {
    pub(super) fn check_read(&self, seen: &ReadSeen, load: &Load, keys: &Keys) -> Result<Context, Violation> {
        let key = keys.get(seen.op.key);
        let cluster = keys.layout.topology().cluster;
        let context = seen.answer.context.open(cluster, key.bucket.id, &key.bytes);
        let context = context.map_err(|why| seen.broken(Property::Wire, why.to_string()))?;
        let history = self.truth.history(seen.op.key);
        for sibling in &seen.answer.siblings {
            shown(seen, history, sibling, &context, load)?;
        }
        let erasable_ms = seen.walls.erasable_ms(&key.owners);
        let (earliest, latest) = seen.walls();
        // What all owners knew before the read began, it cannot show; what they came to know under way, it need not.
        let before = |event: &&Minted| live(history, event, &context, |at| at < seen.asked_us);
        let by_now = |event: &&Minted| live(history, event, &context, |_| true);
        let lives_at = |event: &Minted, wall_ms: u64| event.expires_ms.is_none_or(|at| at > wall_ms);
        let possible = one_per_op(history.events.iter().filter(before));
        let possible: Vec<&Minted> = possible.filter(|event| lives_at(event, earliest)).collect();
        let surely = |event: &Minted| lives_at(event, latest) && lives_at(event, erasable_ms);
        let due = one_per_op(history.events.iter().filter(by_now));
        let due: Vec<&Minted> = due.filter(|event| surely(event)).collect();
        if key.bucket.conflict == Conflict::Lww {
            lww::check(seen, &due, &possible)?;
            return Ok(context);
        }
        let shows = |dot: Dot| seen.answer.siblings.iter().any(|sibling| sibling.dot == dot);
        let dropped =
            due.iter().find(|event| !shows(event.dot) && !twin(event, &possible).is_some_and(|t| shows(t.dot)));
        match dropped {
            Some(event) => {
                let text = format!("{} (op {}) is not shown, and nothing supersedes it", event.dot, event.op);
                Err(seen.broken(Property::SiblingsKept, text))
            }
            None => Ok(context),
        }
    }

    /// After a blocking read W owners hold what it found, unless it says who is still being repaired.
    pub(super) fn check_blocking_repair(
        &self,
        seen: &ReadSeen,
        nodes: &[SimNode],
        keys: &Keys,
    ) -> Result<(), Violation> {
        let (key, answer) = (keys.get(seen.op.key), seen.answer);
        if !seen.op.blocking || !answer.repairing.is_empty() || answer.short || self.asynchronous {
            return Ok(());
        }
        let history = self.truth.history(seen.op.key);
        let lost = |node: usize| self.lost_us[node].is_some_and(|at| at >= seen.asked_us);
        for sibling in &answer.siblings {
            let holds =
                |index: usize| lost(index) || owner_holds(&nodes[index].disk, Durability::Sync, key, sibling.dot);
            let holders = answer.answered.iter().filter(|a| holds(usize::from(a.node.0) - 1)).count();
            let needed = usize::from(key.bucket.w).min(answer.answered.len());
            if holders < needed && history.event(sibling.dot).is_some() {
                let text = format!("{} is held by {holders} of those that answered, not by {needed}", sibling.dot);
                return Err(seen.broken(Property::Repairs, text));
            }
        }
        Ok(())
    }
}

/// A value that is shown is one that was written, and nothing that the read knows, or every owner knew, supersedes it.
fn shown(
    seen: &ReadSeen,
    history: &History,
    sibling: &Sibling,
    context: &Context,
    load: &Load,
) -> Result<(), Violation> {
    let dot = sibling.dot;
    let Some(event) = history.event(dot) else {
        return Err(seen.broken(Property::Released, format!("shows {dot}, which no node has committed")));
    };
    let written = load.op(event.op);
    if sibling.value != written.value || sibling.op_id != written.op_id() || event.delete {
        return Err(seen.broken(Property::OneWrite, format!("{dot} is not what op {} wrote", event.op)));
    }
    let twice = seen.answer.siblings.iter().filter(|other| other.op_id == sibling.op_id).count();
    if twice > 1 {
        return Err(seen.broken(Property::OneWrite, format!("shows {twice} values of op {}", event.op)));
    }
    let (wall_earliest, _) = seen.walls();
    if event.expires_ms.is_some_and(|at| at <= wall_earliest) {
        return Err(seen.broken(Property::NothingReturns, format!("shows {dot}, which has expired")));
    }
    // What every owner came to see, and forgot, while the read was under way, one answer may still lack and the next
    // no longer tell: the old value can then stand beside one that was written after all that.
    let known = |by: &Minted| by.settled_us.map_or_else(|| context.covers(by.dot), |at| at < seen.asked_us);
    if history.superseded(event, known) {
        return Err(seen.broken(Property::NothingReturns, format!("shows {dot} (op {}), superseded", event.op)));
    }
    Ok(())
}

/// Whether an event is covered, and nothing that is covered, or that every owner had seen by the moment of `settled`,
/// supersedes it.
fn live(history: &History, event: &Minted, context: &Context, settled: impl Fn(u64) -> bool) -> bool {
    let known = |by: &Minted| context.covers(by.dot) || by.settled_us.is_some_and(&settled);
    !event.delete && context.covers(event.dot) && !history.superseded(event, known)
}

/// The larger event of the same op that a read may still show in its place: superseded by what every owner came to see while
/// the read was under way.
pub(super) fn twin<'a>(event: &Minted, possible: &[&'a Minted]) -> Option<&'a Minted> {
    possible.iter().copied().find(|other| other.op == event.op && other.dot > event.dot)
}

/// Two live events of one op id, minted by two coordinators, are one in answers: the larger dot.
fn one_per_op<'a>(live: impl Iterator<Item = &'a Minted>) -> impl Iterator<Item = &'a Minted> {
    let mut by_op: BTreeMap<u32, &Minted> = BTreeMap::new();
    for event in live {
        let shown = by_op.entry(event.op).or_insert(event);
        if event.dot > shown.dot {
            *shown = event;
        }
    }
    by_op.into_values()
}
