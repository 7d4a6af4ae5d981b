//! How acks count in time, those too that come when the client has its answer already.

use crate::kernel::Asked;
use quorate_ring::id::NodeId;
use quorate_ring::wire::client::Standing;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one answer says about time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    pub asked: Asked,
    /// Since the node was asked.
    pub took: Duration,
    /// How many owners hold the write with this one, and how long that is after the first; none for a hint.
    pub spread: Option<(u8, Duration)>,
}

impl Timing {
    pub fn new(now: Duration, standing: Standing, sent: Duration, first: Duration, owners: u8) -> Self {
        let (asked, spread) = match standing {
            Standing::Owner => (Asked::Replicate, Some((owners.saturating_add(1), now.saturating_sub(first)))),
            Standing::Fallback { .. } => (Asked::Hint, None),
        };
        Self { asked, took: now.saturating_sub(sent), spread }
    }
}

/// A put that was answered, and whose last acks are still to come. Nothing waits for it but the metrics.
#[derive(Debug)]
pub struct Late {
    /// When the first owner held it.
    pub(super) first: Duration,
    /// How many hold it by now.
    pub(super) owners: u8,
    pub(super) waiting: BTreeMap<NodeId, (Standing, Duration)>,
    pub(super) until: Duration,
}

impl Late {
    /// After this moment nobody waits any more.
    pub fn until(&self) -> Duration {
        self.until
    }

    /// Takes the answer of a node; `held` is whether it holds the write.
    pub fn on_reply(&mut self, now: Duration, from: NodeId, held: bool) -> Option<Timing> {
        let (standing, sent) = self.waiting.remove(&from)?;
        let timing = Timing::new(now, standing, sent, self.first, self.owners);
        self.owners += u8::from(held && standing == Standing::Owner);
        held.then_some(timing)
    }

    /// Nothing more is expected.
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }
}
