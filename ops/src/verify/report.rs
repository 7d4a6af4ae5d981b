//! What was found, for people and as JSON.

use super::compare::{Comparison, Difference, Wrong};
use super::owner::Place;
use super::residue::Residue;
use quorate_client::{LinkError, NodeId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Differences that are named; of the others only the number.
const NAMED_MAX: usize = 20;

/// What all owners hold, held against each other.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Findings {
    pub partitions: usize,
    /// Keys that some owner holds a record of.
    pub keys: u64,
    /// Of these, those whose record is the same at every owner, byte for byte.
    pub identical: u64,
    /// Of these, those whose values are the same, and whose records differ in what is known beside them.
    pub same_values: u64,
    pub counts: BTreeMap<Wrong, u64>,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Partitions that a node did not show, by node, with the last reason.
    pub unread: BTreeMap<NodeId, (u64, String)>,
    /// If it was asked for.
    pub residue: Option<Residue>,
}

impl Findings {
    /// All owners were read, and hold the same; and nothing is left, if that was asked for.
    pub fn clean(&self) -> bool {
        self.same_everywhere() && self.residue.is_none_or(|residue| residue.none_left())
    }

    pub fn same_everywhere(&self) -> bool {
        self.counts.is_empty() && self.unread.is_empty()
    }

    pub(super) fn not_read(&mut self, node: NodeId, cause: &LinkError) {
        let (count, why) = self.unread.entry(node).or_default();
        *count += 1;
        *why = cause.to_string();
    }

    pub(super) fn count(&mut self, (bucket, key): &Place, comparison: Comparison) {
        self.keys += 1;
        self.identical += u64::from(comparison.identical && comparison.wrong.is_empty());
        self.same_values += u64::from(!comparison.identical && comparison.wrong.is_empty());
        for (node, what) in comparison.wrong {
            *self.counts.entry(what).or_default() += 1;
            if self.differences.len() < NAMED_MAX {
                let key = key.escape_ascii().to_string();
                self.differences.push(Difference { node, bucket: bucket.0, key, what });
            }
        }
    }

    pub(super) fn add(&mut self, other: Findings) {
        self.partitions += other.partitions;
        self.keys += other.keys;
        self.identical += other.identical;
        self.same_values += other.same_values;
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
        let room = NAMED_MAX.saturating_sub(self.differences.len());
        self.differences.extend(other.differences.into_iter().take(room));
        for (node, (count, why)) in other.unread {
            let entry = self.unread.entry(node).or_default();
            *entry = (entry.0 + count, why);
        }
        if let (Some(all), Some(part)) = (&mut self.residue, &other.residue) {
            all.add(part);
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partitions, keys, identical, same_values, .. } = self;
        write!(f, "{keys} keys in {partitions} partitions, read at every owner: {identical} identical byte for byte")?;
        if *same_values > 0 {
            write!(f, ", {same_values} with the same values and different knowledge beside them")?;
        }
        for (what, count) in &self.counts {
            write!(f, "\n{count} times a value {}", what.text())?;
        }
        for Difference { node, bucket, key, what } in &self.differences {
            write!(f, "\n  {node}: bucket {bucket}, key {key:?} {}", what.text())?;
        }
        for (node, (count, why)) in &self.unread {
            write!(f, "\n{node} did not show {count} partitions: {why}")?;
        }
        if let Some(residue) = &self.residue {
            let Residue { tombstones, log_entries, hints, .. } = residue;
            write!(f, "\nleft over: {tombstones} tombstones, {log_entries} log entries, {hints} hints")?;
            let (tombstones, entries) = (residue.tombstones_held_back, residue.log_entries_held_back);
            if tombstones + entries > 0 {
                write!(f, "; held back by lost disks: {tombstones} tombstones, {entries} log entries")?;
            }
            if residue.log_entries_waiting > 0 {
                write!(f, "; waiting for values to expire: {} log entries", residue.log_entries_waiting)?;
            }
        }
        let verdict = match (self.same_everywhere(), self.clean()) {
            (true, true) => "clean: all owners hold the same",
            (true, false) => "all owners hold the same, and something is left that should go",
            (false, _) => "NOT the same everywhere",
        };
        write!(f, "\n{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_that_differs_was_not_read_or_is_left_is_not_clean() {
        let clean = Findings { residue: Some(Residue::default()), ..Findings::default() };
        assert!(clean.clean());
        let mut unread = clean.clone();
        unread.not_read(NodeId(1), &LinkError::Protocol("no".to_string()));
        let different = Findings { counts: [(Wrong::Missing, 1)].into(), ..clean.clone() };
        let left = Findings { residue: Some(Residue { log_entries: 1, ..Residue::default() }), ..clean.clone() };
        let held_back = Residue { tombstones_held_back: 3, log_entries_held_back: 1, ..Residue::default() };
        assert!(!unread.clean() && !different.clean() && !left.clean());
        assert!(left.same_everywhere());
        let mut sum = clean;
        sum.add(Findings { residue: Some(held_back), ..Findings::default() });
        assert!(sum.clean(), "what a lost disk holds back cannot go");
        sum.add(different);
        assert!(!sum.clean() && sum.to_string().ends_with("NOT the same everywhere"));
    }
}
