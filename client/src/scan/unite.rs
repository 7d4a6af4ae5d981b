//! The pages of several owners as one sequence of keys.

use super::ScanItem;
use bytes::Bytes;
use quorate_ring::id::{BucketId, NodeId};
use quorate_ring::version::{Context, Object, RecordError};
use quorate_ring::wire::client::{ScanPage, ScanRecord};
use std::collections::VecDeque;

/// How far one owner has been read.
#[derive(Debug)]
pub(super) struct Cursor {
    pub owner: NodeId,
    /// The last record of the last page: the next page goes on behind it.
    pub after: Option<(BucketId, Bytes)>,
    records: VecDeque<ScanRecord>,
    /// What "not in the page" means, for keys up to its last record, and for all if it was the last page.
    base: Context,
    done: bool,
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Item(ScanItem),
    /// A cursor needs its next page before the next key is certain.
    NeedPages,
    End,
    Fault {
        owner: NodeId,
        cause: RecordError,
    },
}

impl Cursor {
    pub fn new(owner: NodeId, after: Option<(BucketId, Bytes)>) -> Self {
        Self { owner, after, records: VecDeque::new(), base: Context::new(), done: false }
    }

    pub fn needs_page(&self) -> bool {
        self.records.is_empty() && !self.done
    }

    /// Takes the next page. One that does not go forward is refused: it would never end.
    pub fn take(&mut self, page: ScanPage) -> Result<(), String> {
        if page.records.is_empty() && !page.done {
            return Err("a page of the listing is empty and yet not the last".to_string());
        }
        let mut before = self.after.clone();
        for record in &page.records {
            let place = (record.bucket, record.key.clone());
            if before.as_ref().is_some_and(|before| *before >= place) {
                return Err("a page of the listing is not in order".to_string());
            }
            before = Some(place);
        }
        self.after = before;
        self.records = page.records.into();
        self.base = page.base;
        self.done = page.done;
        Ok(())
    }

    fn head(&self) -> Option<(BucketId, &Bytes)> {
        self.records.front().map(|r| (r.bucket, &r.key))
    }
}

/// Takes the least key that any owner has next, as all of them hold it.
pub(super) fn step(cursors: &mut [Cursor]) -> Step {
    if cursors.iter().any(Cursor::needs_page) {
        return Step::NeedPages;
    }
    let Some(least) = cursors.iter().filter_map(Cursor::head).min() else { return Step::End };
    let (bucket, key) = (least.0, least.1.clone());
    let mut united: Option<Object> = None;
    for cursor in cursors {
        let holds_it = cursor.records.front().is_some_and(|r| r.bucket == bucket && r.key == key);
        let next = if holds_it { cursor.records.pop_front() } else { None };
        let held = match next.map(|record| Object::decode(&record.object)) {
            Some(Ok(object)) => object,
            Some(Err(cause)) => return Step::Fault { owner: cursor.owner, cause },
            None => Object::absent(cursor.base.clone()),
        };
        match &mut united {
            Some(object) => object.union(&held),
            None => united = Some(held),
        }
    }
    let object = united.expect("the least key stems from a cursor");
    Step::Item(ScanItem { bucket, key, object })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quorate_ring::id::{ActorId, OpId};
    use quorate_ring::version::{Content, Dot, Hlc};
    use std::collections::BTreeMap;

    const ACTOR: ActorId = ActorId(7);

    fn object(seq: u64) -> Object {
        let mut object = Object::default();
        let op_id = OpId([seq as u8; 16]);
        let content = Content { value: Bytes::from(vec![seq as u8]), hlc: Hlc(seq), expires_ms: None, op_id };
        object.write(Dot(ACTOR, seq), (op_id, Hlc(seq)), &Context::new(), Some(content));
        object
    }

    fn record(key: u8, object: &Object) -> ScanRecord {
        ScanRecord { bucket: BucketId(1), key: Bytes::from(vec![key]), object: object.encode() }
    }

    fn page(records: Vec<ScanRecord>, done: bool, base: u64) -> ScanPage {
        ScanPage { records, done, base: [(ACTOR, base)].into_iter().collect() }
    }

    fn cursor(node: u16, page: ScanPage) -> Cursor {
        let mut cursor = Cursor::new(NodeId(node), None);
        cursor.take(page).unwrap();
        cursor
    }

    fn item(step: Step) -> (u8, Vec<u64>) {
        match step {
            Step::Item(item) => (item.key[0], item.object.siblings().iter().map(|(d, _)| d.seq()).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_one_owner_has_seen_and_lets_go_does_not_come_back() {
        // The second owner has seen everything up to 5, and has no key 1: it was deleted. Of 9 it has not heard.
        let first = page(vec![record(1, &object(3)), record(2, &object(9))], true, 2);
        let mut cursors = [cursor(1, first), cursor(2, page(vec![], true, 5))];
        assert_eq!(item(step(&mut cursors)), (1, vec![]));
        assert_eq!(item(step(&mut cursors)), (2, vec![9]));
        assert_eq!(step(&mut cursors), Step::End);
    }

    #[test]
    fn no_key_is_given_out_while_a_page_is_missing() {
        let mut cursors = [
            cursor(1, page(vec![record(4, &object(1))], true, 1)),
            cursor(2, page(vec![record(2, &object(2))], false, 2)),
        ];
        assert_eq!(item(step(&mut cursors)), (2, vec![2]));
        assert_eq!(step(&mut cursors), Step::NeedPages);
        cursors[1].take(page(vec![record(3, &object(5))], true, 5)).unwrap();
        assert_eq!(item(step(&mut cursors)), (3, vec![5]));
        assert_eq!(item(step(&mut cursors)).0, 4);
        assert_eq!(step(&mut cursors), Step::End);
    }

    #[test]
    fn pages_that_do_not_go_forward_are_refused() {
        let mut cursor = Cursor::new(NodeId(1), Some((BucketId(1), Bytes::from_static(b"\x05"))));
        assert!(cursor.take(page(vec![record(5, &object(1))], false, 1)).is_err());
        assert!(cursor.take(page(vec![record(7, &object(1)), record(6, &object(2))], false, 2)).is_err());
        assert!(cursor.take(page(vec![], false, 1)).is_err());
        assert!(cursor.take(page(vec![record(6, &object(1))], false, 1)).is_ok());
    }

    #[test]
    fn a_damaged_record_names_its_owner() {
        let broken =
            ScanRecord { bucket: BucketId(1), key: Bytes::from_static(b"k"), object: Bytes::from_static(b"?") };
        let mut cursors = [cursor(3, page(vec![broken], true, 1))];
        assert!(matches!(step(&mut cursors), Step::Fault { owner: NodeId(3), .. }));
    }

    proptest! {
        /// However the records are cut into pages and spread over owners: every key once, in order, with every sibling.
        #[test]
        fn as_if_all_were_in_one_place(
            held in prop::collection::vec(prop::collection::btree_map(0u8..40, 1u64..200, 0..30), 1..4),
            cut in 1usize..7,
        ) {
            let mut expected: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            for owner in &held {
                for (key, seq) in owner {
                    expected.entry(*key).or_default().push(*seq);
                }
            }
            let mut pages: Vec<VecDeque<ScanPage>> = held.iter().map(|owner| {
                let records: Vec<_> = owner.iter().map(|(key, seq)| {
                    // An actor for each key and seq, so that nothing supersedes anything.
                    let mut object = Object::default();
                    let op_id = OpId([*seq as u8; 16]);
                    let content = Content { value: Bytes::new(), hlc: Hlc(*seq), expires_ms: None, op_id };
                    let dot = Dot(ActorId(u64::from(*key) << 16 | *seq), 1);
                    object.write(dot, (op_id, Hlc(*seq)), &Context::new(), Some(content));
                    record(*key, &object)
                }).collect();
                let mut chunks: VecDeque<_> = records.chunks(cut).map(|c| page(c.to_vec(), false, 0)).collect();
                chunks.push_back(page(vec![], true, 0));
                chunks
            }).collect();
            let mut cursors: Vec<_> = (0..held.len()).map(|i| Cursor::new(NodeId(i as u16), None)).collect();
            let mut found: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            let mut last = None;
            loop {
                match step(&mut cursors) {
                    Step::NeedPages => for (cursor, pages) in cursors.iter_mut().zip(&mut pages) {
                        if cursor.needs_page() {
                            cursor.take(pages.pop_front().unwrap()).unwrap();
                        }
                    },
                    Step::End => break,
                    Step::Fault { .. } => prop_assert!(false),
                    Step::Item(item) => {
                        prop_assert!(last < Some(item.key[0]));
                        last = Some(item.key[0]);
                        let seqs = item.object.siblings().iter().map(|(d, _)| d.actor().0 & 0xffff).collect();
                        found.insert(item.key[0], seqs);
                    }
                }
            }
            for seqs in expected.values_mut() {
                seqs.sort_unstable();
                seqs.dedup();
            }
            prop_assert_eq!(found, expected);
        }
    }
}
