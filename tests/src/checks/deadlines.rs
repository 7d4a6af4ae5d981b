//! Nothing is done after its deadline: no event is minted when the time that its request was given is over.

use super::{Commit, Property, Said, Violation};
use crate::sim::load::Op;
use quorate_node::kernel::Event;
use quorate_ring::wire::client::{ClientRequest, WriteRequest};
use quorate_ring::wire::peer::PeerRequest;
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Default)]
pub struct Deadlines {
    /// By node and operation, on the node's monotonic clock, the latest of its attempts.
    until: BTreeMap<(usize, u32), Duration>,
}

impl Deadlines {
    pub fn promised(&mut self, node: usize, arrived: Duration, event: &Event) {
        let write: &WriteRequest = match event {
            Event::Client { message: ClientRequest::Write(write), .. } => write,
            Event::PeerRequest { message: PeerRequest::Coordinate(coordinate), .. } => &coordinate.write,
            Event::Started
            | Event::Client { .. }
            | Event::ClientCancelled { .. }
            | Event::ClientGone { .. }
            | Event::PeerRequest { .. }
            | Event::PeerReply { .. }
            | Event::LinkUp { .. }
            | Event::LinkDown { .. }
            | Event::Fired { .. }
            | Event::Layout(_)
            | Event::DiskReserve { .. }
            | Event::Drain => return,
        };
        let until = arrived + Duration::from_millis(u64::from(write.deadline_ms));
        let latest = self.until.entry((node, Op::number_of(write.op_id))).or_default();
        *latest = until.max(*latest);
    }

    pub fn check(&self, commit: &Commit, minted: &Said) -> Result<(), Violation> {
        let until = self.until.get(&(commit.index, minted.op)).copied().unwrap_or_default();
        if commit.handled < until {
            return Ok(());
        }
        let late = commit.handled - until;
        let text = format!("{} minted for op {} {late:?} after its deadline", commit.node.id, minted.op);
        Err(Violation::new(Property::Deadlines, Some(minted.key), text))
    }
}
