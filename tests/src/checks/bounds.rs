//! Queues are bounded: what is kept for an owner that cannot be reached stays below its limit, and so does a page of
//! what another replica lacks. The world itself looks at inboxes and at operations under way.

use super::{Checks, Commit, Property, Violation};
use crate::sim::disk::Batch;
use quorate_node::storage::{Table, parse_hint_key};
use quorate_ring::wire::peer::PeerReply;
use std::collections::BTreeMap;

/// Larger limits are never met in a run.
const LIMIT_LOOKED_AT: u64 = 1 << 20;
/// A hint takes a little more room once it is stored: its dots, and its version.
const SLACK_BYTES: u64 = 1_024;

impl Checks {
    /// A page of a pull or a full sync ends with the object that reaches what was asked for.
    pub fn check_page(&self, reply: &PeerReply) -> Result<(), Violation> {
        let (bytes, objects): (usize, usize) = match reply {
            PeerReply::Pulled(page) => {
                let without_last = page.objects.split_last().map_or(&[][..], |(_, before)| before);
                (without_last.iter().map(|o| o.object.len() + o.key.len()).sum(), page.objects.len())
            }
            PeerReply::Synced(page) => {
                let without_last = page.records.split_last().map_or(&[][..], |(_, before)| before);
                (without_last.iter().map(|r| r.object.len() + r.key.len()).sum(), page.records.len())
            }
            PeerReply::Greeted(_)
            | PeerReply::Pong(_)
            | PeerReply::Written(_)
            | PeerReply::Replicated(_)
            | PeerReply::Fetched(_)
            | PeerReply::Refused(_)
            | PeerReply::Unknown(_) => return Ok(()),
        };
        if bytes < self.page_bytes as usize || objects <= 1 {
            return Ok(());
        }
        let text =
            format!("a page has {objects} objects, {bytes} bytes before the last; {} were asked for", self.page_bytes);
        Err(Violation::new(Property::Bounds, None, text))
    }

    pub(super) fn check_hints(&self, batch: &Batch, commit: &Commit) -> Result<(), Violation> {
        let grows = batch.rows.iter().any(|row| row.table == Table::Hints && row.value.is_some());
        if !grows || self.hint_bytes_max >= LIMIT_LOOKED_AT {
            return Ok(());
        }
        let shards = commit.node.shards.len() as u64;
        let mut bytes: BTreeMap<_, u64> = BTreeMap::new();
        commit.node.disk.each_row_of(Table::Hints, |key, value| {
            if let Some((target, ..)) = parse_hint_key(key) {
                *bytes.entry(target).or_default() += (key.len() + value.len()) as u64;
            }
        });
        match bytes.into_iter().find(|(_, bytes)| *bytes > (self.hint_bytes_max + SLACK_BYTES) * shards) {
            Some((target, bytes)) => {
                let text = format!("{} keeps {bytes} bytes of hints for {target}", commit.node.id);
                Err(Violation::new(Property::Bounds, None, text))
            }
            None => Ok(()),
        }
    }
}
