//! Acks that come after the answer: kept in mind for a while, for the metrics alone.

use super::{Effect, Kernel, Measure, Now};
use crate::coordinator::late::{Late, Timing};
use crate::coordinator::put::Put;
use crate::storage::Storage;
use quorate_ring::id::NodeId;
use quorate_ring::wire::peer::PeerReply;
use std::collections::BTreeMap;
use std::time::Duration;

/// Puts kept in mind; over it the oldest is forgotten, and its last acks are not measured.
const PUTS_MAX: usize = 4096;
/// An ack later than this is no ack of a write any more: the clocks have seen to it.
const PATIENCE: Duration = Duration::from_secs(10);

/// By the number of their operation, which grows with time.
#[derive(Debug, Default)]
pub(super) struct LatePuts(BTreeMap<u64, Late>);

impl LatePuts {
    pub(super) fn keep(&mut self, now: Duration, number: u64, put: Put) {
        let Some(late) = put.into_late(now + PATIENCE) else { return };
        self.0.insert(number, late);
        if self.0.len() > PUTS_MAX {
            self.0.pop_first();
        }
    }

    /// Forgets those that waited for too long.
    pub(super) fn forget_old(&mut self, now: Duration) {
        while self.0.first_key_value().is_some_and(|(_, late)| late.until() <= now) {
            self.0.pop_first();
        }
    }
}

impl<S: Storage> Kernel<S> {
    /// A peer answered what no operation waits for.
    pub(super) fn late_reply(
        &mut self,
        now: Now,
        from: NodeId,
        number: u64,
        reply: &PeerReply,
        effects: &mut Vec<Effect>,
    ) {
        let Some(late) = self.late.0.get_mut(&number) else { return };
        let timing = late.on_reply(now.mono, from, matches!(reply, PeerReply::Replicated(_)));
        if late.is_over() {
            self.late.0.remove(&number);
        }
        if let Some(timing) = timing {
            measure_ack(timing, effects);
        }
    }
}

/// An owner or a fallback acked.
pub(super) fn measure_ack(timing: Timing, effects: &mut Vec<Effect>) {
    effects.push(Effect::Measure(Measure::Replied { kind: timing.asked, took: timing.took }));
    if let Some((owners, took)) = timing.spread {
        effects.push(Effect::Measure(Measure::AckSpread { owners, took }));
    }
}
