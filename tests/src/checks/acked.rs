//! What was acknowledged is kept; what was answered "not applied" was not written.

use super::truth::Minted;
use super::{Checks, Property, Violation};
use crate::sim::load::Load;

impl Checks {
    /// After all has healed. `known` says whether an owner has seen an event of a key, or what carries its effect on.
    pub fn check_acked(&self, known: impl Fn(u32, &Minted) -> bool) -> Result<(), Violation> {
        for (key, history) in self.truth.histories() {
            for acked in history.acked.iter().filter(|acked| !acked.holders.is_empty()) {
                let event = &history.events[acked.event as usize];
                let kept = known(key, event)
                    || event.settled_us.is_some()
                    || history.superseded(event, |by| known(key, by) || by.settled_us.is_some());
                if !kept {
                    let text = format!("{} (op {}) was acknowledged and is gone", event.dot, event.op);
                    return Err(Violation::new(Property::AckedKept, Some(key), text));
                }
            }
        }
        Ok(())
    }

    /// A write all of whose attempts were answered "not applied" was written nowhere.
    pub fn check_not_applied(&self, load: &Load) -> Result<(), Violation> {
        for (key, history) in self.truth.histories() {
            for event in &history.events {
                let op = load.op(event.op);
                if op.refused == op.attempts && !op.applied {
                    let text = format!("op {} was refused each time, and yet it is {}", op.number, event.dot);
                    return Err(Violation::new(Property::NotApplied, Some(key), text));
                }
            }
        }
        Ok(())
    }
}
