//! What a reader is shown of an object, and which owners are behind it.

use crate::planted::{self, Bug};
use quorate_ring::id::NodeId;
use quorate_ring::topology::Conflict;
use quorate_ring::version::{Content, Dot, Object};
use quorate_ring::wire::client::{Answered, Sibling};
use std::collections::BTreeMap;

/// The siblings that a reader sees, in the order of their dots, and how many concurrent writes an lww bucket hides.
///
/// Two live siblings of one op id, minted by two coordinators, are one write: the larger dot stands for both. Expired
/// content reads as deleted, as if it had been erased already: so nobody sees when that happens. An lww bucket shows the
/// sibling with the greatest (HLC, dot) of the rest.
pub fn view(object: &Object, conflict: Conflict, wall_ms: u64) -> (Vec<Sibling>, u32) {
    let mut by_op: BTreeMap<_, &(Dot, Content)> = BTreeMap::new();
    for sibling in object.siblings() {
        by_op.insert(sibling.1.op_id, sibling); // Siblings come in the order of their dots: the larger one stays.
    }
    let live = by_op.into_values().filter(|(_, content)| !content.expired(wall_ms));
    let mut shown: Vec<&(Dot, Content)> = live.collect();
    shown.sort_unstable_by_key(|(dot, _)| *dot);
    let mut set_aside = 0;
    if conflict == Conflict::Lww
        && let Some(winner) = shown.iter().copied().max_by_key(|(dot, content)| (content.hlc, *dot))
    {
        set_aside = shown.len() as u32 - 1;
        shown = vec![winner];
    }
    (shown.into_iter().map(|(dot, content)| sibling(*dot, content)).collect(), set_aside)
}

fn sibling(dot: Dot, content: &Content) -> Sibling {
    Sibling {
        value: content.value.clone(),
        dot,
        hlc: content.hlc,
        expires_ms: content.expires_ms,
        op_id: content.op_id,
    }
}

/// Owners that lack a sibling of the union, or still show one that it decides otherwise. Those that hold nothing at
/// all are among them. Differences of context alone are left to the clocks.
pub fn behind(union: &Object, answers: &[(Answered, Object)]) -> Vec<NodeId> {
    let skipped = |object: &Object| planted::is(Bug::RepairSkipsEmpty) && object.is_tombstone();
    let answers = answers.iter().filter(|(_, object)| !object.shows_same_as(union) && !skipped(object));
    answers.map(|(answered, _)| answered.node).collect()
}
