//! Which owners are behind what a read found.

use crate::planted::{self, Bug};
use quorate_ring::id::NodeId;
use quorate_ring::version::Object;
use quorate_ring::wire::client::Answered;

/// Owners that lack a sibling of the union, or still show one that it decides otherwise. Those that hold nothing at
/// all are among them. Differences of context alone are left to the clocks.
pub fn behind(union: &Object, answers: &[(Answered, Object)]) -> Vec<NodeId> {
    let skipped = |object: &Object| planted::is(Bug::RepairSkipsEmpty) && object.is_tombstone();
    let answers = answers.iter().filter(|(_, object)| !object.shows_same_as(union) && !skipped(object));
    answers.map(|(answered, _)| answered.node).collect()
}
