//! What a ledger finds fault with, and what it does not.
use super::*;
use quorate_client::{BucketId, Hlc, OpId};
use quorate_ring::id::{ActorId, ClusterId, Epoch, NodeId};
use quorate_ring::topology::Durability;
use quorate_ring::version::Context;
use quorate_ring::wire::client::Ack;

fn receipt(seq: u64, owners: u16) -> Receipt {
    let ack = |node| Ack {
        node: NodeId(node),
        standing: Standing::Owner,
        durability: Durability::Sync,
        sent_us: 0,
        acked_us: 0,
        took_us: 0,
    };
    Receipt {
        epoch: Epoch(1),
        coordinator: NodeId(1),
        dot: Dot(ActorId(1), seq),
        hlc: Hlc(1),
        needed: 2,
        acks: (1..=owners).map(ack).collect(),
        context: ContextToken::seal(ClusterId([0; 16]), BucketId(1), b"k", &Context::new()),
        siblings: 1,
        repeated: false,
    }
}

/// What each write gave, in its order: a number of owners, `n` for not applied, `?` for unknown; `-` before it: a
/// delete.
fn ledger(writes: &[&str]) -> Ledger {
    let mut ledger = Ledger::new(7, &b"k"[..]);
    for (number, write) in writes.iter().enumerate() {
        let (delete, what) = match write.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, *write),
        };
        match what {
            "n" => ledger.not_applied(delete),
            "?" => ledger.unknown(delete),
            owners => ledger.applied(delete, &receipt(number as u64 + 1, owners.parse().unwrap())),
        }
    }
    ledger
}

/// Siblings by (version, seq of the dot).
fn shown(ledger: &Ledger, versions: &[(usize, u64)]) -> Vec<Sibling> {
    let sibling = |(version, seq): &(usize, u64)| Sibling {
        value: ledger.value(*version),
        dot: Dot(ActorId(1), *seq),
        hlc: Hlc(1),
        expires_ms: None,
        op_id: OpId([0; 16]),
    };
    versions.iter().map(sibling).collect()
}

fn judge(writes: &[&str], versions: &[(usize, u64)]) -> Judgement {
    let ledger = ledger(writes);
    ledger.judge(&shown(&ledger, versions))
}

fn breaches(writes: &[&str], versions: &[(usize, u64)]) -> Vec<Breach> {
    judge(writes, versions).breaches
}

#[test]
fn the_last_acknowledged_write_is_shown_and_nothing_else() {
    assert_eq!(breaches(&["2", "2"], &[(1, 2)]), []);
    assert_eq!(breaches(&["2", "2"], &[]), [Breach::Lost]);
    assert_eq!(breaches(&["2", "2"], &[(0, 1)]), [Breach::CameBack, Breach::Lost]);
    assert_eq!(breaches(&["2", "2"], &[(0, 1), (1, 2)]), [Breach::CameBack]);
    assert_eq!(breaches(&[], &[]), []);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    assert_eq!(breaches(&["2", "-2"], &[]), []);
    assert_eq!(breaches(&["2", "-2"], &[(0, 1)]), [Breach::CameBack]);
}

#[test]
fn what_was_refused_is_nowhere() {
    assert_eq!(breaches(&["2", "n"], &[(0, 1)]), []);
    assert_eq!(breaches(&["2", "n"], &[(0, 1), (1, 2)]), [Breach::Refused]);
}

#[test]
fn what_is_in_doubt_may_be_there_or_not() {
    assert_eq!(breaches(&["2", "?"], &[(0, 1)]), []);
    assert_eq!(breaches(&["2", "?"], &[(1, 2)]), []);
    assert_eq!(breaches(&["2", "-?"], &[]), []);
    assert_eq!(breaches(&["2", "?", "2"], &[(1, 9), (2, 3)]), []);
    assert_eq!(breaches(&["2", "?", "2"], &[(1, 9)]), [Breach::Lost], "the doubt is older than what was acknowledged");
    assert!(ledger(&["2", "?"]).in_doubt() && !ledger(&["2", "?", "2"]).in_doubt());
}

#[test]
fn bytes_that_nobody_wrote_are_noticed() {
    let ledger = ledger(&["2"]);
    let mut others = shown(&ledger, &[(0, 1)]);
    others[0].value = Bytes::from_static(b"12345678 nobody wrote this");
    assert_eq!(ledger.judge(&others).breaches, [Breach::Foreign, Breach::Lost]);
    let mut cut = shown(&ledger, &[(0, 1)]);
    cut[0].value = cut[0].value.slice(..NUMBER_BYTES);
    assert_eq!(ledger.judge(&cut).breaches, [Breach::Foreign, Breach::Lost]);
}

#[test]
fn a_write_that_took_effect_twice_is_told_apart_by_its_dot() {
    let judgement = judge(&["2", "2"], &[(0, 77), (1, 2)]);
    assert_eq!((judgement.breaches, judgement.twins), (Vec::new(), 1));
}

#[test]
fn who_holds_it_decides_how_many_have_to_be_asked() {
    assert!(ledger(&["3"]).held_by(3) && !ledger(&["2"]).held_by(3));
    assert!(!ledger(&["3", "?"]).held_by(3) && ledger(&["?", "3", "n"]).held_by(3));
}
