//! Queues are bounded: what is kept for an owner that cannot be reached stays below its limit.

use super::{Checks, Commit, Property, Violation};
use crate::sim::disk::Batch;
use quorate_node::storage::{Table, parse_hint_key};
use std::collections::BTreeMap;

/// Larger limits are never met in a run.
const LIMIT_LOOKED_AT: u64 = 1 << 20;
/// A hint takes a little more room once it is stored: its dots, and its version.
const SLACK_BYTES: u64 = 1_024;

impl Checks {
    pub(super) fn check_hints(&self, batch: &Batch, commit: &Commit) -> Result<(), Violation> {
        let grows = batch.rows.iter().any(|row| row.table == Table::Hints && row.value.is_some());
        if !grows || self.hint_bytes_max >= LIMIT_LOOKED_AT {
            return Ok(());
        }
        let shards = commit.node.shards.len() as u64;
        let mut bytes: BTreeMap<_, u64> = BTreeMap::new();
        commit.node.disk.each_row(|table, key, value| {
            if let (Table::Hints, Some((target, ..))) = (table, parse_hint_key(key)) {
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
