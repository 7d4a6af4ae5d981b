//! Which owners are behind what a read found.

use crate::planted::{self, Bug};
use quorate_ring::id::NodeId;
use quorate_ring::version::{Context, Object};
use quorate_ring::wire::client::Answered;

/// Owners that lack a sibling of the union, or still show one that it decides otherwise. Those that hold nothing at
/// all are among them. Differences of context alone are left to the clocks.
pub fn behind(union: &Object, answers: &[(Answered, Object)]) -> Vec<NodeId> {
    let skipped = |object: &Object| planted::is(Bug::RepairSkipsEmpty) && object.is_tombstone();
    let answers = answers.iter().filter(|(_, object)| !object.shows_same_as(union) && !skipped(object));
    answers.map(|(answered, _)| answered.node).collect()
}

/// What goes to them: the union, knowing what the owners know that hold something. What one without the key says with
/// "absent", the base of its clock, is about all keys: kept beside this one at some owners and not at others, it would
/// make them differ for good. It is not needed either: what it decides against was shown by an owner whose own context
/// covers it.
pub fn repaired(union: &Object, answers: &[(Answered, Object)]) -> Object {
    let mut context = Context::new();
    for (_, object) in answers.iter().filter(|(_, object)| !object.is_absent()) {
        context.join(object.context());
    }
    union.knowing(context)
}
