//! Lww readers agree: of all that a read knows and nothing supersedes, it shows the greatest (HLC, dot), and counts the
//! rest.

use super::truth::Minted;
use super::{Property, ReadSeen, Violation};

/// `live` are the events that a read knows, one for each op id; `sure` if none of them may have been erased.
pub fn check(seen: &ReadSeen, live: &[&Minted], sure: bool) -> Result<(), Violation> {
    let broken = |text: String| Err(Violation::new(Property::Lww, Some(seen.op.key), text));
    let answer = seen.answer;
    if answer.siblings.len() > 1 {
        return broken(format!("a read shows {} values", answer.siblings.len()));
    }
    let winner = live.iter().max_by_key(|event| (event.hlc, event.dot));
    let shown = answer.siblings.first();
    if let (Some(shown), Some(winner)) = (shown, winner)
        && shown.dot != winner.dot
    {
        return broken(format!("a read shows {}, but knows {}, which is later", shown.dot, winner.dot));
    }
    let others = live.len().saturating_sub(1) as u32;
    if sure && answer.set_aside != others {
        return broken(format!("a read counts {} writes set aside, there are {others}", answer.set_aside));
    }
    Ok(())
}
