//! What differs between the owners of one key, and what should not be there.

use super::owner::{Held, Place};
use quorate_client::{Dot, Layout, NodeId};
use quorate_ring::version::Object;
use serde::Serialize;

/// One thing that is not as it should be at one owner.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    pub node: NodeId,
    pub bucket: u32,
    /// Bytes that are no text are shown as escapes.
    pub key: String,
    pub what: Wrong,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wrong {
    /// It lacks a value that the owners together show.
    Missing,
    /// It shows a value that another owner knows to be superseded.
    Superseded,
    /// It holds other bytes than another owner under one dot.
    OtherBytes,
    /// It holds a key that does not belong into this partition, or to no bucket.
    Stray,
    /// What it holds does not decode.
    Unreadable,
}

impl Wrong {
    pub fn text(self) -> &'static str {
        match self {
            Wrong::Missing => "is missing",
            Wrong::Superseded => "should not be there any more",
            Wrong::OtherBytes => "has other bytes than elsewhere",
            Wrong::Stray => "does not belong there",
            Wrong::Unreadable => "cannot be read",
        }
    }
}

/// All owners of one key, held against each other.
pub struct Comparison {
    pub wrong: Vec<(NodeId, Wrong)>,
    /// Every owner has the same record, byte for byte.
    pub identical: bool,
    /// What a reader would be shown.
    pub united: Object,
}

impl Comparison {
    pub fn of(layout: &Layout, place: &Place, held: &[Held]) -> Self {
        let mut wrong = Vec::new();
        let mut objects: Vec<(NodeId, Object)> = Vec::new();
        for Held { node, record, base } in held {
            match record.as_ref().map(|bytes| Object::decode(bytes)) {
                Some(Ok(object)) => objects.push((*node, object)),
                Some(Err(_)) => wrong.push((*node, Wrong::Unreadable)),
                None => objects.push((*node, Object::absent(base.clone()))),
            }
        }
        let mut united = objects.first().map(|(_, object)| object.clone()).unwrap_or_default();
        objects.iter().skip(1).for_each(|(_, object)| united.union(object));
        for (node, object) in &objects {
            wrong.extend(faults(object, &united).into_iter().map(|what| (*node, what)));
        }
        if is_stray(layout, place, held) {
            wrong.extend(held.iter().filter(|h| h.record.is_some()).map(|h| (h.node, Wrong::Stray)));
        }
        let identical = held.windows(2).all(|two| two[0].record == two[1].record);
        Self { wrong, identical, united }
    }
}

fn faults(object: &Object, united: &Object) -> Vec<Wrong> {
    let has = |dot: Dot| object.siblings().iter().find(|(d, _)| *d == dot).map(|(_, content)| content);
    let mut found = Vec::new();
    for (dot, content) in united.siblings() {
        match has(*dot) {
            None => found.push(Wrong::Missing),
            Some(theirs) if theirs != content => found.push(Wrong::OtherBytes),
            Some(_) => {}
        }
    }
    if object.siblings().iter().any(|(dot, _)| !united.shows(*dot)) {
        found.push(Wrong::Superseded);
    }
    found
}

fn is_stray(layout: &Layout, (bucket, key): &Place, held: &[Held]) -> bool {
    let Some(bucket) = layout.topology().bucket(*bucket) else { return true };
    let list = layout.preference(layout.partition(bucket, key));
    !held.iter().all(|held| list.is_some_and(|list| list.is_owner(held.node)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_client::{BucketId, Hlc, OpId};
    use quorate_ring::id::ActorId;
    use quorate_ring::topology::Topology;
    use quorate_ring::version::{Content, Context};
    use std::sync::Arc;

    const FIRST: ActorId = ActorId(1 << 48);
    const SECOND: ActorId = ActorId(2 << 48);

    /// Three nodes that own everything.
    fn layout() -> Layout {
        let mut text = format!("cluster = \"{}\"\nepoch = 1\npartitions = 1\n", "0".repeat(32));
        for id in 1..=3 {
            text += &format!(
                "[[node]]\nid = {id}\nname = \"n{id}\"\nclient_address = \"127.0.0.1:{}\"\n\
                 peer_address = \"127.0.0.1:{}\"\nrack = \"r\"\n",
                7000 + id,
                8000 + id
            );
        }
        text += "[[bucket]]\nid = 1\nname = \"b\"\nn = 3\n";
        Layout::new(Arc::new(Topology::parse(&text).unwrap())).unwrap()
    }

    fn object(dots: &[(ActorId, u64, &'static str)], seen: &Context) -> Object {
        let mut object = Object::default();
        for (actor, seq, value) in dots {
            let op_id = OpId([*seq as u8; 16]);
            let content =
                Content { value: Bytes::from_static(value.as_bytes()), hlc: Hlc(*seq), expires_ms: None, op_id };
            object.write(Dot(*actor, *seq), (op_id, Hlc(*seq)), seen, Some(content));
        }
        object
    }

    fn compare(bucket: u32, records: [Option<Bytes>; 3], base: &Context) -> Comparison {
        let held = records.into_iter().enumerate();
        let held: Vec<Held> =
            held.map(|(index, record)| Held { node: NodeId(index as u16 + 1), record, base: base.clone() }).collect();
        Comparison::of(&layout(), &(BucketId(bucket), Bytes::from_static(b"k")), &held)
    }

    #[test]
    fn the_same_everywhere() {
        let record = Some(object(&[(FIRST, 1, "a")], &Context::new()).encode());
        let same = compare(1, [record.clone(), record.clone(), record], &Context::new());
        assert!(same.identical && same.wrong.is_empty());
    }

    #[test]
    fn an_owner_that_never_saw_it_lacks_it() {
        let record = Some(object(&[(FIRST, 1, "a")], &Context::new()).encode());
        let found = compare(1, [record.clone(), None, record], &Context::new());
        assert!(!found.identical);
        assert_eq!(found.wrong, [(NodeId(2), Wrong::Missing)]);
    }

    #[test]
    fn an_owner_that_has_seen_it_go_shows_that_it_should_not_be_there() {
        let record = Some(object(&[(FIRST, 1, "a")], &Context::new()).encode());
        let found = compare(1, [record, None, None], &Context::of(Dot(FIRST, 5)));
        assert_eq!(found.wrong, [(NodeId(1), Wrong::Superseded)]);
        assert!(found.united.is_tombstone());
    }

    #[test]
    fn one_has_the_old_value_and_lacks_the_new() {
        let old = object(&[(FIRST, 1, "a")], &Context::new());
        let new = object(&[(SECOND, 1, "b")], old.context());
        let found = compare(1, [Some(new.encode()), Some(old.encode()), Some(new.encode())], &Context::new());
        assert_eq!(found.wrong, [(NodeId(2), Wrong::Missing), (NodeId(2), Wrong::Superseded)]);
    }

    #[test]
    fn other_bytes_strays_and_rubbish() {
        let record = |value| Some(object(&[(FIRST, 1, value)], &Context::new()).encode());
        let found = compare(1, [record("a"), record("b"), record("a")], &Context::new());
        assert_eq!(found.wrong, [(NodeId(2), Wrong::OtherBytes)]);
        let found = compare(9, [record("a"), record("a"), record("a")], &Context::new());
        assert_eq!(found.wrong.iter().map(|(_, what)| *what).collect::<Vec<_>>(), [Wrong::Stray; 3]);
        let found = compare(1, [record("a"), Some(Bytes::from_static(b"\xff")), record("a")], &Context::new());
        assert_eq!(found.wrong, [(NodeId(2), Wrong::Unreadable)]);
    }

    #[test]
    fn what_is_known_beside_the_values_may_differ_and_is_not_identical() {
        let plain = object(&[(FIRST, 1, "a")], &Context::new());
        let mut knows_more = plain.clone();
        knows_more.union(&Object::absent(Context::of(Dot(SECOND, 3))));
        let found = compare(1, [plain.encode(), knows_more.encode(), plain.encode()].map(Some), &Context::new());
        assert!(!found.identical && found.wrong.is_empty());
    }
}
