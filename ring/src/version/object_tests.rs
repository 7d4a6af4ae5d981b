use super::*;
use crate::id::ActorId;
use crate::version::PAST_OPS_MAX;
use proptest::prelude::*;

fn content(text: &str, op: u8) -> Content {
    Content {
        value: Bytes::copy_from_slice(text.as_bytes()),
        hlc: Hlc(u64::from(op)),
        expires_ms: None,
        op_id: OpId([op; 16]),
    }
}

fn put(object: &mut Object, dot: Dot, seen: &Context, op: u8) {
    object.write(dot, (OpId([op; 16]), Hlc(u64::from(op))), seen, Some(content(&format!("v{op}"), op)));
}

const A: ActorId = ActorId(1 << 48);
const B: ActorId = ActorId(2 << 48);

#[test]
fn concurrent_puts_are_siblings_until_one_has_seen_both() {
    let mut at_a = Object::default();
    put(&mut at_a, Dot(A, 1), &Context::new(), 1);
    let mut at_b = Object::default();
    put(&mut at_b, Dot(B, 1), &Context::new(), 2);
    at_a.merge(&at_b, |_| false);
    assert_eq!(at_a.siblings().len(), 2);
    let seen = at_a.context().clone();
    put(&mut at_a, Dot(A, 2), &seen, 3);
    assert_eq!(at_a.siblings().len(), 1);
    at_b.merge(&at_a, |_| false);
    assert_eq!(at_b, at_a);
}

#[test]
fn what_the_clock_has_seen_does_not_come_back() {
    let mut old = Object::default();
    put(&mut old, Dot(A, 1), &Context::new(), 1);
    // The tombstone that superseded it was collected: only the clock remembers.
    let mut erased = Object::default();
    erased.merge(&old, |dot| dot == Dot(A, 1));
    assert!(erased.is_tombstone());
}

#[test]
fn an_op_id_is_known_after_it_was_superseded() {
    let mut object = Object::default();
    put(&mut object, Dot(A, 1), &Context::new(), 1);
    assert_eq!(object.event_of(OpId([1; 16])), Some(Dot(A, 1)));
    let seen = object.context().clone();
    object.write(Dot(A, 2), (OpId([2; 16]), Hlc(2)), &seen, None);
    assert_eq!(object.event_of(OpId([1; 16])), Some(Dot(A, 1)));
    assert_eq!(object.event_of(OpId([2; 16])), Some(Dot(A, 2)));
}

#[test]
fn expired_siblings_go_and_stay_covered() {
    let mut object = Object::default();
    put(&mut object, Dot(A, 1), &Context::new(), 1);
    let brief = Content { expires_ms: Some(10), ..content("brief", 2) };
    object.write(Dot(B, 1), (OpId([2; 16]), Hlc(2)), &Context::new(), Some(brief));
    let settled = Context::of(Dot(B, 1));
    assert!(!object.erase_expired(9, &settled) && !object.erase_expired(10, &Context::new()));
    assert!(object.erase_expired(10, &settled) && !object.erase_expired(10, &settled));
    assert!(object.shows(Dot(A, 1)) && !object.shows(Dot(B, 1)) && object.context().covers(Dot(B, 1)));
    assert_eq!(object.event_of(OpId([2; 16])), Some(Dot(B, 1)), "a late retry is known");
}

#[test]
fn golden_bytes() {
    let mut object = Object::default();
    put(&mut object, Dot(A, 1), &Context::new(), 1);
    let seen = object.context().clone();
    put(&mut object, Dot(A, 2), &seen, 2);
    let hex: String = object.encode().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(hex, include_str!("../../golden/object_v3.hex").trim());
    assert_eq!(Object::decode(&object.encode()), Ok(object));
}

#[test]
fn a_sibling_outside_the_context_is_refused() {
    let object = Object { siblings: vec![(Dot(A, 1), content("v", 1))], ..Object::default() };
    assert_eq!(Object::decode(&object.encode()), Err(RecordError::Uncovered(Dot(A, 1))));
    assert_eq!(Object::decode(&[]), Err(RecordError::Empty));
    assert_eq!(Object::decode(&[9]), Err(RecordError::Version(9)));
}

#[test]
fn a_record_that_is_cut_anywhere_is_refused() {
    let mut object = Object::default();
    let brief = Content { expires_ms: Some(10), ..content("brief", 1) };
    object.write(Dot(A, 1), (OpId([1; 16]), Hlc(1)), &Context::new(), Some(brief));
    put(&mut object, Dot(B, 1), &Context::new(), 2);
    let bytes = object.encode();
    assert_eq!(Object::decode(&bytes), Ok(object));
    for length in 1..bytes.len() {
        assert_eq!(Object::decode(&bytes[..length]), Err(RecordError::Short), "{length} bytes");
    }
    let endless = [&[RECORD_VERSION][..], &[0xff; 4], &[0; 100]].concat();
    assert_eq!(Object::decode(&endless), Err(RecordError::Short));
}

#[test]
fn numbers_and_places_that_are_none_are_refused() {
    let malformed = |bytes: &[u8]| matches!(Object::decode(bytes), Err(RecordError::Malformed(_)));
    let long = |last: u8| [&[RECORD_VERSION][..], &[0xff; 9], &[last], &[0; 100]].concat();
    assert!(malformed(&long(2)) && malformed(&long(0x81)), "more than 64 bits");
    assert_eq!(Object::decode(&long(1)), Err(RecordError::Short), "64 bits");
    // No actors, and a sibling of the first actor.
    let nobody = [&[RECORD_VERSION, 0, 1, 0, 5][..], &[0; 100]].concat();
    assert!(malformed(&nobody));
}

#[test]
fn a_value_that_the_reader_holds_need_not_be_sent_however_long_it_is() {
    let value = |length: usize| Content { value: Bytes::from(vec![7; length]), ..content("", 1) };
    for length in [1, 127, 128, 16_383, 16_384, 1 << 20] {
        let mut object = Object::default();
        let op = |number| (OpId([number; 16]), Hlc(u64::from(number)));
        object.write(Dot(A, 1), op(1), &Context::new(), Some(value(length)));
        object.write(Dot(B, 1), op(2), &Context::new(), Some(value(3)));
        object.write(Dot(B, 2), op(3), &Context::new(), Some(value(0)));
        assert_eq!(object.long(length.max(4)).collect::<Vec<_>>(), if length > 3 { vec![Dot(A, 1)] } else { vec![] });
        let all = object.encode();
        let sent = Object::unsettled_record(&all, &Context::new(), &[Dot(A, 1), Dot(B, 2)]).unwrap();
        assert!(sent.len() <= all.len() - length, "{} of {}", sent.len(), all.len());
        let mut decoded = Object::decode(&sent).unwrap();
        assert_eq!(decoded.siblings().iter().map(|(_, c)| c.value.len()).collect::<Vec<_>>(), [0, 3, 0]);
        decoded.take_values(&Object::default());
        assert_ne!(decoded, object, "nothing comes from nowhere");
        decoded.take_values(&object);
        assert_eq!(decoded, object);
        assert_eq!(Object::unsettled_record(&all, &Context::new(), &[Dot(A, 2)]), Ok(all), "it is not there");
    }
}

#[test]
fn a_length_that_is_written_at_length_is_left_out_with_its_value() {
    let mut object = Object::default();
    put(&mut object, Dot(A, 1), &Context::new(), 1);
    let plain = object.encode().to_vec();
    let value = object.siblings()[0].1.value.clone();
    let at = plain.len() - value.len() - 1;
    assert_eq!((plain[at] as usize, &plain[at + 1..]), (value.len(), &value[..]));
    let padded = [&plain[..at], &[plain[at] | 0x80, 0x80, 0], &value[..]].concat();
    assert_eq!(Object::decode(&padded), Ok(object.clone()));
    let lean = Object::unsettled_record(&Bytes::from(padded), &Context::new(), &[Dot(A, 1)]).unwrap();
    assert_eq!(lean[..], [&plain[..at], &[0]].concat());
}

#[test]
fn what_every_owner_knows_need_not_be_sent() {
    let mut object = Object::default();
    for seq in 1..=3 {
        let seen = object.context().clone();
        put(&mut object, Dot(A, seq), &seen, seq as u8);
    }
    let seen = object.context().clone();
    put(&mut object, Dot(B, 1), &seen, 4);
    let record = object.encode();
    let sent = |settled: &Context| {
        let record = Object::unsettled_record(&record, settled, &[]).expect("it was just written");
        let decoded = Object::decode(&record).expect("it is a record");
        assert_eq!(Object::decode_unsettled(&object.encode(), settled), Ok(decoded.clone()));
        decoded
    };
    assert_eq!(sent(&Context::new()), object);
    let settled = Context::of(Dot(A, 2));
    assert_eq!(sent(&settled).past_ops().iter().map(|past| past.dot).collect::<Vec<_>>(), [Dot(A, 3)]);
    assert_eq!((sent(&settled).siblings(), sent(&settled).context()), (object.siblings(), object.context()));
    let long = Bytes::from(vec![7; 32 * 1024]);
    let mut large = object.clone();
    let seen = large.context().clone();
    large.write(Dot(B, 2), (OpId([5; 16]), Hlc(5)), &seen, Some(Content { value: long, ..content("", 5) }));
    let all = large.encode();
    assert_eq!(Object::unsettled_record(&all, &settled, &[]), Ok(all), "long values are not copied for a few op ids");
    let mut deleted = object.clone();
    deleted.write(Dot(B, 2), (OpId([5; 16]), Hlc(5)), &seen, None);
    assert_eq!(Object::unsettled_record(&deleted.encode(), &settled, &[]), Ok(deleted.encode()));
    assert_eq!(Object::decode_unsettled(&deleted.encode(), &settled), Ok(deleted));
    // Whoever has seen what is settled is as wise as after the whole object.
    let mut owner = Object::default();
    for seq in 1..=2 {
        let seen = owner.context().clone();
        put(&mut owner, Dot(A, seq), &seen, seq as u8);
    }
    owner.merge(&sent(&settled), |_| false);
    assert_eq!(owner, object);
}

/// One step in the life of a key on three owners.
#[derive(Clone, Debug)]
enum Step {
    Write { owner: usize, delete: bool, stale: bool },
    Sync { source: usize, target: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3usize, any::<bool>(), any::<bool>()).prop_map(|(owner, delete, stale)| Step::Write {
            owner,
            delete,
            stale
        }),
        (0..3usize, 0..3usize).prop_map(|(source, target)| Step::Sync { source, target }),
    ]
}

proptest! {
    /// Whatever the order of writes and merges: merging everything everywhere ends in one state, merging again
    /// changes nothing, and shown is exactly what no event superseded.
    #[test]
    fn merges_converge(steps in prop::collection::vec(step(), 1..40)) {
        let actors = [A, B, ActorId(3 << 48)];
        let mut owners = [Object::default(), Object::default(), Object::default()];
        let (mut seqs, mut op) = ([0u64; 3], 0u8);
        let mut events: Vec<(Dot, Context, bool)> = Vec::new();
        for step in steps {
            match step {
                Step::Write { owner, delete, stale } => {
                    seqs[owner] += 1;
                    op += 1;
                    let dot = Dot(actors[owner], seqs[owner]);
                    let seen = if stale { Context::new() } else { owners[owner].context().clone() };
                    let value = (!delete).then(|| content("v", op));
                    owners[owner].write(dot, (OpId([op; 16]), Hlc(u64::from(op))), &seen, value);
                    events.push((dot, seen, delete));
                }
                Step::Sync { source, target } => {
                    let from = owners[source].clone();
                    owners[target].merge(&from, |_| false);
                }
            }
        }
        for _ in 0..2 {
            for source in 0..3 {
                for target in 0..3 {
                    let from = owners[source].clone();
                    owners[target].merge(&from, |_| false);
                }
            }
        }
        let want: Vec<Dot> = events
            .iter()
            .filter(|(dot, _, delete)| !delete && !events.iter().any(|(_, seen, _)| seen.covers(*dot)))
            .map(|(dot, ..)| *dot)
            .collect();
        for owner in &owners {
            let mut shown: Vec<Dot> = owner.siblings().iter().map(|(d, _)| *d).collect();
            let mut want = want.clone();
            shown.sort();
            want.sort();
            prop_assert_eq!(&shown, &want);
            prop_assert_eq!(owner, &owners[0]);
            prop_assert_eq!(&Object::decode(&owner.encode()).unwrap(), owner);
            for held in [&want[..], &want[..want.len() / 2]] {
                let lean = Object::unsettled_record(&owner.encode(), &Context::new(), held).unwrap();
                let mut sent = Object::decode(&lean).unwrap();
                prop_assert!(sent.siblings().iter().all(|(dot, c)| c.value.is_empty() == held.contains(dot)));
                sent.take_values(owner);
                prop_assert_eq!(&sent, owner);
            }
            for settled in [Context::of(Dot(A, 2)), owner.context().clone()] {
                let sent = Object::unsettled_record(&owner.encode(), &settled, &[]).unwrap();
                let kept = |past: &PastOp| owner.is_tombstone() || !settled.covers(past.dot);
                let decoded = Object::decode(&sent).unwrap();
                prop_assert!(decoded.past_ops().iter().eq(owner.past_ops().iter().filter(kept)));
                prop_assert_eq!(Ok(decoded), Object::decode_unsettled(&owner.encode(), &settled));
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Object::decode(&bytes);
        let mut versioned = vec![RECORD_VERSION];
        versioned.extend(bytes);
        // What decodes is still the same object, but for the values, when these are left out.
        if let Ok(mut object) = Object::decode(&versioned) {
            let held: Vec<Dot> = object.long(1).collect();
            let lean = Object::unsettled_record(&Bytes::from(versioned), &Context::new(), &held).unwrap();
            object.siblings.iter_mut().for_each(|(_, content)| content.value = Bytes::new());
            prop_assert_eq!(Object::decode(&lean), Ok(object));
        }
    }
}

#[test]
fn an_op_id_that_came_after_its_successor_is_known() {
    let mut late = Object::default();
    put(&mut late, Dot(A, 1), &Context::new(), 1);
    let mut newer = Object::default();
    put(&mut newer, Dot(B, 1), late.context(), 2);
    let mut other_way = late.clone();
    other_way.merge(&newer, |_| false);
    newer.merge(&late, |_| false);
    assert_eq!(newer.event_of(OpId([1; 16])), Some(Dot(A, 1)));
    assert_eq!(newer, other_way);
}

#[test]
fn who_erased_a_tombstone_and_wrote_anew_does_not_remember_what_it_knew() {
    let mut buried = Object::default();
    put(&mut buried, Dot(A, 1), &Context::new(), 1);
    buried.write(Dot(A, 2), (OpId([2; 16]), Hlc(2)), &Context::of(Dot(A, 1)), None);
    let mut anew = Object::default();
    put(&mut anew, Dot(A, 3), &Context::new(), 3);
    assert!(anew.context().covers_all(buried.context()), "the context alone does not tell");
    assert!(!anew.remembers_all_of(&buried));
    let mut upon_it = buried.clone();
    put(&mut upon_it, Dot(A, 3), &Context::new(), 3);
    assert!(upon_it.remembers_all_of(&buried) && !buried.remembers_all_of(&upon_it));
    // What falls off the end is not missed.
    for seq in 4..80 {
        put(&mut upon_it, Dot(A, seq), &Context::of(Dot(A, seq - 1)), seq as u8);
    }
    assert!(upon_it.past_ops().len() == PAST_OPS_MAX && upon_it.remembers_all_of(&buried));
}
