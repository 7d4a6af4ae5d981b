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

    /// Whether the read cannot have missed an event: every owner had seen it before, or the context covers it and some owner
    /// has not seen it yet. What every owner came to see, and forgot, while the read was under way, one answer may still
    /// lack and the next no longer tell: what it supersedes can then stand beside what was written after all that.
    fn knows(&self, event: &Minted, context: &Context) -> bool {
        event.settled_us.map_or_else(|| context.covers(event.dot), |at| at < self.asked_us)
    }
}

impl Checks {
    /// A read is being answered: all events that its context covers are committed somewhere.
    pub fn told(&self, op: &Op, answer: &ReadAnswer, keys: &Keys) -> Result<(), Violation> {
        let key = keys.get(op.key);
        let broken = |property, text| Violation::new(property, Some(op.key), format!("op {}: {text}", op.number));
        let context = answer.context.open(keys.layout.topology().cluster, key.bucket.id, &key.bytes);
        let context = context.map_err(|why| broken(Property::Wire, why.to_string()))?;
        match context.iter().find(|(actor, seq)| *seq > self.truth.last_seq(key.partition, *actor)) {
            Some((actor, seq)) => {
                let text = format!("covers {}, which no node has committed", Dot(actor, seq));
                Err(broken(Property::Released, text))
            }
            None => Ok(()),
        }
    }

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
        let before = |event: &&Minted| live(history, event, &context, |by| seen.knows(by, &context));
        let by_now = |event: &&Minted| live(history, event, &context, |by| may_know(by, &context));
        let lives_at = |event: &Minted, wall_ms: u64| event.expires_ms.is_none_or(|at| at > wall_ms);
        let possible = history.events.iter().filter(before).filter(|event| lives_at(event, earliest));
        let possible: Vec<&Minted> = possible.collect();
        let surely = |event: &Minted| lives_at(event, latest) && lives_at(event, erasable_ms);
        let due = one_per_op(history.events.iter().filter(by_now));
        let due: Vec<&Minted> = due.filter(|event| surely(event)).collect();
        if key.bucket.conflict == Conflict::Lww {
            lww::check(seen, &due, &possible)?;
            return Ok(context);
        }
        let shows = |dot: Dot| seen.answer.siblings.iter().any(|sibling| sibling.dot == dot);
        let shown_as_twin = |event: &Minted| twins(event, &possible).any(|twin| shows(twin.dot));
        let dropped = due.iter().find(|event| !shows(event.dot) && !shown_as_twin(event));
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
    if history.superseded(event, |by| seen.knows(by, context)) {
        return Err(seen.broken(Property::NothingReturns, format!("shows {dot} (op {}), superseded", event.op)));
    }
    Ok(())
}

/// Whether a read with this context may know of an event.
fn may_know(event: &Minted, context: &Context) -> bool {
    context.covers(event.dot) || event.settled_us.is_some()
}

/// Whether an event is covered, and nothing that is known supersedes it.
fn live(history: &History, event: &Minted, context: &Context, known: impl Fn(&Minted) -> bool) -> bool {
    !event.delete && context.covers(event.dot) && !history.superseded(event, known)
}

/// Larger events of the same op, one of which a read may still show in its place: superseded by what every owner came to see
/// while the read was under way.
pub(super) fn twins<'a>(event: &Minted, possible: &[&'a Minted]) -> impl Iterator<Item = &'a Minted> {
    possible.iter().copied().filter(|other| other.op == event.op && other.dot > event.dot)
}

/// Two live events of one op id, minted by two coordinators, are one in answers: the larger dot.
pub(super) fn one_per_op<'a>(live: impl Iterator<Item = &'a Minted>) -> impl Iterator<Item = &'a Minted> {
    let mut by_op: BTreeMap<u32, &Minted> = BTreeMap::new();
    for event in live {
        let shown = by_op.entry(event.op).or_insert(event);
        if event.dot > shown.dot {
            *shown = event;
        }
    }
    by_op.into_values()
}
