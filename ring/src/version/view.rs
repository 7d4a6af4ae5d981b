//! What a reader is shown of an object: the one rule, by which nodes answer a get and clients a listing.

use super::{Content, Dot, Object};
use crate::topology::Conflict;
use crate::wire::client::Sibling;
use std::collections::BTreeMap;

/// The siblings that a reader sees, in the order of their dots, and how many concurrent writes an lww bucket hides.
///
/// Two live siblings of one op id, minted by two coordinators, are one write: the larger dot stands for both. What has
/// expired by `wall_ms` (milliseconds since 1970) reads as if it had been erased already, so that nobody sees when that
/// happens. An lww bucket shows the sibling with the greatest (HLC, dot) of the rest.
pub fn visible(object: &Object, conflict: Conflict, wall_ms: u64) -> (Vec<Sibling>, u32) {
    // Siblings come in the order of their dots: the larger one stays.
    let by_op: BTreeMap<_, &(Dot, Content)> = object.siblings().iter().map(|s| (s.1.op_id, s)).collect();
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
    (shown.into_iter().map(sibling).collect(), set_aside)
}

fn sibling((dot, content): &(Dot, Content)) -> Sibling {
    Sibling {
        value: content.value.clone(),
        dot: *dot,
        hlc: content.hlc,
        expires_ms: content.expires_ms,
        op_id: content.op_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ActorId, OpId};
    use crate::version::{Context, Hlc};
    use bytes::Bytes;

    fn object(siblings: &[(u64, u64, u8, Option<u64>)]) -> Object {
        let mut object = Object::default();
        for &(actor, hlc, op, expires_ms) in siblings {
            let op_id = OpId([op; 16]);
            let content = Content { value: Bytes::from(vec![op]), hlc: Hlc(hlc), expires_ms, op_id };
            object.write(Dot(ActorId(actor), 1), (op_id, Hlc(hlc)), &Context::new(), Some(content));
        }
        object
    }

    #[test]
    fn one_winner_in_an_lww_bucket_all_in_the_other() {
        let object = object(&[(1, 50, 1, None), (2, 70, 2, None), (3, 60, 3, None)]);
        let (all, set_aside) = visible(&object, Conflict::Siblings, 0);
        assert_eq!((all.len(), set_aside), (3, 0));
        let (winner, set_aside) = visible(&object, Conflict::Lww, 0);
        assert_eq!((winner.len(), set_aside), (1, 2));
        assert_eq!(winner[0].hlc, Hlc(70));
    }

    #[test]
    fn one_op_id_is_one_write_and_what_has_expired_reads_as_erased() {
        let (shown, _) = visible(&object(&[(1, 50, 9, None), (2, 51, 9, None)]), Conflict::Siblings, 0);
        assert_eq!(shown.iter().map(|s| s.dot).collect::<Vec<_>>(), [Dot(ActorId(2), 1)]);
        let expiring = object(&[(1, 50, 1, None), (2, 70, 2, Some(1_000))]);
        let (winner, set_aside) = visible(&expiring, Conflict::Lww, 999);
        assert_eq!((winner[0].hlc, set_aside), (Hlc(70), 1));
        let (winner, set_aside) = visible(&expiring, Conflict::Lww, 1_000);
        assert_eq!((winner[0].hlc, set_aside), (Hlc(50), 0));
        assert_eq!(visible(&expiring, Conflict::Siblings, 1_000).0.len(), 1);
    }
}
