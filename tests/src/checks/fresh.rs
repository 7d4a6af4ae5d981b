//! Strict reads are fresh: a read that begins after a write was acknowledged knows of it, where R + W > N.
//!
//! The same holds for a write that supersedes `latest`.

use super::{Checks, Property, ReadSeen, Violation};
use crate::sim::keys::Keys;
use crate::sim::load::{Op, Stated};
use quorate_ring::version::Context;
use quorate_ring::wire::client::Receipt;
use std::collections::BTreeSet;

impl Checks {
    pub(super) fn check_fresh(&self, seen: &ReadSeen, context: &Context, keys: &Keys) -> Result<(), Violation> {
        let (key, answer, op) = (keys.get(seen.op.key), seen.answer, seen.op);
        let broken =
            |text: String| Err(Violation::new(Property::Fresh, Some(op.key), format!("op {}: {text}", op.number)));
        let answered: BTreeSet<_> = answer.answered.iter().map(|a| a.node).collect();
        if answered.len() != answer.answered.len() || !answered.iter().all(|node| key.owners.contains(node)) {
            return broken(format!("counts {:?}, owners are {:?}", answer.answered, key.owners));
        }
        if answer.needed != op.r_of(key) || (!answer.short && answered.len() < usize::from(answer.needed)) {
            return broken(format!("{} owners answered, {} were asked for", answered.len(), op.r_of(key)));
        }
        let history = self.truth.history(op.key);
        for acked in &history.acked {
            let overlap = acked.owners + answered.len() > usize::from(key.bucket.n);
            if !overlap || acked.at_us > seen.asked_us || !acked.by_an_owner() {
                continue;
            }
            let event = &history.events[acked.event as usize];
            if !context.covers(event.dot) && event.settled_us.is_none() {
                return broken(format!(
                    "does not know {} (op {}), acked by {} owners",
                    event.dot, event.op, acked.owners
                ));
            }
        }
        Ok(())
    }

    /// A write under `latest` supersedes all that was acknowledged before it began.
    pub(super) fn check_latest(
        &self,
        op: &Op,
        receipt: &Receipt,
        context: &Context,
        keys: &Keys,
    ) -> Result<(), Violation> {
        if receipt.repeated || !matches!(op.stated, Stated::Latest) {
            return Ok(());
        }
        let key = keys.get(op.key);
        let history = self.truth.history(op.key);
        let Some(event) = history.event(receipt.dot) else { return Ok(()) };
        for acked in &history.acked {
            let overlap = acked.owners + usize::from(op.r_of(key)) > usize::from(key.bucket.n);
            if !overlap || acked.at_us >= op.invoked_us || !acked.by_an_owner() {
                continue;
            }
            let earlier = &history.events[acked.event as usize];
            let past = event.supersedes(earlier)
                || earlier.settled_us.is_some()
                || history.superseded(earlier, |by| context.covers(by.dot));
            if !past && !earlier.delete {
                let text = format!("op {} under latest does not supersede {}", op.number, earlier.dot);
                return Err(Violation::new(Property::Fresh, Some(op.key), text));
            }
        }
        Ok(())
    }
}
