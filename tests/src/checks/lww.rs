//! Lww readers agree: of all that a read knows and nothing supersedes, it shows the greatest (HLC, dot), and counts the
//! rest.

use super::reads::{one_per_op, twins};
use super::truth::Minted;
use super::{Property, ReadSeen, Violation};

/// `due` are the events that a read has to take into account, `possible` those that it may, near the end of their time.
pub fn check(seen: &ReadSeen, due: &[&Minted], possible: &[&Minted]) -> Result<(), Violation> {
    let broken = |text: String| Err(Violation::new(Property::Lww, Some(seen.op.key), text));
    let answer = seen.answer;
    if answer.siblings.len() > 1 {
        return broken(format!("a read shows {} values", answer.siblings.len()));
    }
    let shown = answer.siblings.first().map(|shown| shown.dot);
    let greatest = |among: &[&Minted]| among.iter().map(|event| (event.hlc, event.dot)).max();
    let at = possible.iter().find(|event| Some(event.dot) == shown).map(|event| (event.hlc, event.dot));
    let sure: Vec<&Minted> = due.iter().copied().filter(|event| twins(event, possible).next().is_none()).collect();
    if at < greatest(&sure) {
        return broken(format!("a read shows {at:?}, but knows {:?}, which is later", greatest(&sure)));
    }
    let most = one_per_op(possible.iter().copied()).count();
    let others = due.len().saturating_sub(1)..=most.saturating_sub(1);
    if !others.contains(&(answer.set_aside as usize)) {
        return broken(format!("a read counts {} writes set aside, there are {others:?}", answer.set_aside));
    }
    Ok(())
}
