//! Stories of what is measured: lag and its age, late acks, hints, partitions within reach, the canary.
#![allow(clippy::unwrap_used)]

mod world;

use quorate_node::kernel::{Asked, Consistency, Event, Measure, Outcome, WriteOp};
use quorate_ring::id::{BucketId, NodeId};
use quorate_ring::topology::Count;
use quorate_ring::wire::client::*;
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use std::time::Duration;
use world::{World, read, sloppy, write};

fn peer(status: &NodeStatus, id: u16) -> PeerStatus {
    status.peers.iter().find(|peer| peer.node == id).unwrap().clone()
}

fn from_now_on(world: &mut World) {
    world.measured.clear();
}

fn has(world: &World, by: u16, measure: Measure) -> bool {
    world.measured.contains(&(NodeId(by), measure))
}

#[test]
fn the_lag_of_a_dead_owner_is_counted_and_aged_by_the_others_and_goes_when_it_is_back() {
    let mut world = World::new(3);
    world.pass(1_000);
    world.kill(3);
    for (number, key) in ["a", "b", "c", "d"].into_iter().enumerate() {
        world.put(1, write(1, key, "v", Supersede::Local, number as u8));
        world.pass(1_000);
    }
    for by in [1, 2] {
        let status = world.status(by);
        let third = peer(&status, 3);
        assert_eq!((third.lag_dots, third.clock_known), (4, true));
        assert!((3_000..=4_250).contains(&third.lag_oldest_ms), "{third:?}");
        assert_eq!(peer(&status, 3 - by).lag_dots, 0);
        assert!(status.log_entries >= 4, "what is not settled is kept");
    }
    world.revive(3);
    world.pass(5_000);
    for by in [1, 2, 3] {
        let status = world.status(by);
        assert!(status.peers.iter().all(|peer| peer.lag_dots == 0 && peer.lag_oldest_ms == 0), "{status:?}");
        assert_eq!(status.log_entries, 0);
    }
}

#[test]
fn before_a_peer_has_told_what_it_has_its_lag_is_not_known() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "v", Supersede::Local, 1));
    world.pass(1_000);
    world.kill(3);
    world.restart(1);
    let third = peer(&world.status(1), 3);
    assert_eq!((third.lag_dots, third.clock_known), (0, false));
}

#[test]
fn a_late_ack_is_measured_from_the_first_on() {
    let mut world = World::new(3);
    from_now_on(&mut world);
    world.hold = |node, event| {
        node == NodeId(3) && matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. })
    };
    world.put(1, write(1, "k", "v", Supersede::Local, 1));
    let second = Measure::AckSpread { owners: 2, took: Duration::ZERO };
    assert!(has(&world, 1, second), "{:?}", world.measured);
    world.ms += 700;
    world.release();
    let took = Duration::from_millis(700);
    assert!(has(&world, 1, Measure::AckSpread { owners: 3, took }), "{:?}", world.measured);
    assert!(has(&world, 1, Measure::Replied { kind: Asked::Replicate, took }), "{:?}", world.measured);
}

#[test]
fn an_ack_that_comes_when_it_no_longer_counts_is_not_measured() {
    let mut world = World::new(3);
    world.hold =
        |_, event| matches!(event, Event::PeerReply { from: NodeId(3), message: PeerReply::Replicated(_), .. });
    world.put(1, write(1, "k", "v", Supersede::Local, 1));
    world.pass(11_000);
    from_now_on(&mut world);
    world.release();
    let late = |measure: &Measure| matches!(measure, Measure::AckSpread { .. });
    assert!(!world.measured.iter().any(|(_, measure)| late(measure)), "{:?}", world.measured);
}

#[test]
fn requests_are_counted_by_what_they_wait_for_and_how_they_end() {
    let mut world = World::new(3);
    from_now_on(&mut world);
    world.put(1, WriteRequest { w: Some(Count::All), ..write(1, "k", "v", Supersede::Local, 1) });
    world.get(1, 1, "k");
    world.kill(2);
    world.kill(3);
    world.ask(1, ClientRequest::Write(world::delete("k", 2)));
    world.ask(1, ClientRequest::Read(ReadRequest { r: Some(Count::One), ..read(1, "nothing") }));
    let took = Duration::ZERO;
    let put = Measure::Written { op: WriteOp::Put, consistency: Consistency::All, outcome: Outcome::Ok, took };
    let deleted =
        Measure::Written { op: WriteOp::Delete, consistency: Consistency::Quorum, outcome: Outcome::Unavailable, took };
    let got = Measure::Read { consistency: Consistency::Quorum, outcome: Outcome::Ok, took, siblings: 1 };
    let missed = Measure::Read { consistency: Consistency::One, outcome: Outcome::NotFound, took, siblings: 0 };
    for measure in [put, deleted, got, missed] {
        assert!(has(&world, 1, measure), "{measure:?} is not in {:?}", world.measured);
    }
}

#[test]
fn hints_are_counted_and_aged_for_their_owner_also_after_a_restart() {
    let mut world = World::new(4);
    let owners = world.owners("k");
    let keeper = world.non_owner("k");
    world.kill(owners[2]);
    world.put(owners[0], WriteRequest { w: Some(Count::All), ..sloppy("k", 1) });
    world.pass(5_000);
    world.restart(keeper);
    let kept = peer(&world.status(keeper), owners[2]);
    assert!(kept.hints_pending == 1 && kept.hints_bytes > 0, "{kept:?}");
    assert!((4_000..=7_000).contains(&kept.hints_oldest_ms), "{kept:?}");
    world.revive(owners[2]);
    world.pass(3_000);
    let kept = peer(&world.status(keeper), owners[2]);
    assert_eq!((kept.hints_pending, kept.hints_bytes, kept.hints_oldest_ms), (0, 0, 0));
}

#[test]
fn partitions_lose_their_quorum_with_their_owners_and_a_rebuilding_one_reads_nothing() {
    let mut world = World::new(3);
    let whole = world.status(1).partitions_to_read;
    assert!(whole.all > 0 && whole.quorum == 0 && whole.no_quorum == 0, "{whole:?}");
    world.kill(3);
    let states = world.status(1);
    // Of the buckets in which n is 3, that is: others have partitions of fewer owners.
    assert!(states.partitions_to_read.quorum >= 8, "{states:?}");
    world.kill(2);
    assert!(world.status(1).partitions_to_write.no_quorum >= 8);
    world.revive(2);
    world.pass(1_000);
    assert!(world.status(1).partitions_to_write.quorum >= 8);
    world.hold = |_, event| matches!(event, Event::PeerReply { message: PeerReply::Synced(_), .. });
    world.wipe(2);
    world.pass(1_000);
    let (rebuilding, states) = (world.status(2), world.status(1));
    assert_eq!(rebuilding.state, "rebuilding");
    assert!(rebuilding.copies_needed > 0 && rebuilding.copies_made < rebuilding.copies_needed, "{rebuilding:?}");
    assert!(states.partitions_to_read.no_quorum >= 8, "{states:?}");
    assert!(states.partitions_to_write.quorum >= 8, "it takes replicated writes: {states:?}");
}

#[test]
fn the_canary_is_seen_at_each_other_owner_and_owed_by_one_that_is_gone() {
    let mut world = World::with(3, |config| config.canary = Some(BucketId(1)));
    world.pass(3_000);
    for (by, of) in [(1, 2), (1, 3), (2, 1), (3, 2)] {
        let seen = |measure: &Measure| matches!(measure, Measure::CanarySeen { peer, .. } if *peer == NodeId(of));
        assert!(world.measured.iter().any(|(node, measure)| node.0 == by && seen(measure)), "{by} of {of}");
    }
    let writes = |measure: &&(NodeId, Measure)| matches!(measure.1, Measure::Written { .. });
    assert_eq!(world.measured.iter().filter(writes).count(), 0, "the canary's writes are no client's");
    world.kill(3);
    world.pass(6_000);
    assert!(peer(&world.status(1), 3).canary_waiting_ms >= 4_000);
    assert!(peer(&world.status(1), 2).canary_waiting_ms <= 250);
    world.revive(3);
    world.pass(4_000);
    assert_eq!(peer(&world.status(1), 3).canary_waiting_ms, 0);
}
