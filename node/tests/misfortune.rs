//! Stories of bad input from peers, and of bad luck: a refusal, and the cluster goes on.

mod world;

use bytes::Bytes;
use quorate_node::kernel::Event;
use quorate_node::storage::Table;
use quorate_ring::id::{ActorId, BucketId, Epoch, NodeId, Partition};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Clock, Dot, Object};
use quorate_ring::wire::client::*;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Pull, Purpose, Replicate, StoreHint, SyncRequest};
use world::{World, write};

fn replicate(key: &'static str) -> Replicate {
    Replicate {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(key.as_bytes()),
        object: Object::default().encode(),
        dots: Vec::new(),
        durability: Durability::Sync,
        purpose: Purpose::Write,
        deadline_ms: 1_000,
    }
}

fn held_by(world: &mut World, node: u16, key: &'static str) -> usize {
    match world.alone(node, key) {
        Some(ClientReply::Read(answer)) => {
            assert_eq!(answer.answered[0].node, NodeId(node));
            answer.siblings.len()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_hint_for_an_unknown_node_or_for_no_owner_is_refused_and_not_kept() {
    let mut world = World::new(5);
    let (owner, other) = (world.owners("k")[0], world.non_owner("k"));
    let another = (1..=5).find(|id| *id != other && !world.owners("k").contains(id)).unwrap();
    for target in [99, other, another] {
        let hint = StoreHint { target: NodeId(target), replicate: replicate("k") };
        let answer = world.ask_as_peer(owner, other, PeerRequest::StoreHint(hint));
        let refused = matches!(&answer, PeerReply::Refused(Refusal::Malformed(why)) if why.contains("no owner"));
        assert!(refused, "{answer:?}");
    }
    assert_eq!(world.rows(other, Table::Hints), 0);
}

#[test]
fn a_pull_or_sync_of_a_partition_that_is_not_owned_or_does_not_exist_is_refused() {
    let mut world = World::new(5);
    let not_mine = world.non_owner("k");
    let partition = world.layout.partition(&world.layout.topology().buckets[0], b"k");
    for partition in [partition, Partition { n: 3, index: 60_000 }, Partition { n: 15, index: 0 }] {
        let (epoch, clock, after, bytes_max) = (Epoch(1), Clock::new(), None, 1_000);
        let pull = PeerRequest::Pull(Pull { epoch, partition, clock, bytes_max });
        let sync = PeerRequest::Sync(SyncRequest { epoch, partition, after, bytes_max });
        for message in [pull, sync] {
            assert_eq!(world.ask_as_peer(1, not_mine, message), PeerReply::Refused(Refusal::NotOwner));
        }
    }
}

#[test]
fn a_pull_that_brings_another_keys_object_or_events_that_it_does_not_cover_is_not_taken() {
    let mut world = World::new(3);
    world.hold = |node, event| {
        node == NodeId(2) && matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. })
    };
    world.put(1, write(1, "k", "v", Supersede::Nothing, 1));
    world.put(1, write(1, "l", "v", Supersede::Nothing, 2));
    world.lose();
    world.hold = |_, event| matches!(event, Event::PeerReply { message: PeerReply::Pulled(_), .. });
    world.pass(1_500);
    let bucket = world.layout.topology().buckets[0].clone();
    let elsewhere = |p: Partition, key: &String| world.layout.partition(&bucket, key.as_bytes()) != p;
    for (_, event) in &mut world.held {
        let Event::PeerReply { message: PeerReply::Pulled(page), .. } = event else { unreachable!() };
        let at = page.partition;
        for object in &mut page.objects {
            if object.key[..] == *b"k" {
                object.key = (0..).map(|n| format!("x{n}")).find(|key| elsewhere(at, key)).unwrap().into();
            } else {
                object.dots.push(Dot(ActorId::new(NodeId(3), 1), 77));
            }
        }
    }
    world.release();
    assert_eq!(world.rows(2, Table::Objects), 0);
    world.pass(3_000);
    for key in ["k", "l"] {
        assert_eq!(held_by(&mut world, 2, key), 1, "{key} was not asked for again");
    }
}

#[test]
fn a_page_of_a_full_sync_with_strange_records_is_not_taken_and_the_sync_goes_on() {
    let mut world = World::new(3);
    let keys: Vec<&'static str> = (0..24).map(|n| &*Box::leak(format!("key-{n}").into_boxed_str())).collect();
    for (op, key) in keys.iter().enumerate() {
        world.put(1, write(1, key, "v", Supersede::Nothing, op as u8 + 1));
    }
    world.pass(3_000);
    world.hold = |_, event| matches!(event, Event::PeerReply { message: PeerReply::Synced(_), .. });
    world.wipe(2);
    world.pass(250);
    assert!(world.held.len() >= 3, "{}", world.held.len());
    for (turn, (_, event)) in world.held.iter_mut().enumerate() {
        let Event::PeerReply { message: PeerReply::Synced(page), .. } = event else { unreachable!() };
        let Some(last) = page.records.last().cloned() else { continue };
        match turn % 4 {
            0 => page.records.push(last),
            1 => page.records.last_mut().unwrap().bucket = BucketId(77),
            2 => page.records.last_mut().unwrap().object = Bytes::from_static(b"no object"),
            _ => (page.records, page.done) = (Vec::new(), false),
        }
    }
    world.release();
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(2)]);
    assert_eq!(world.rows(2, Table::Objects), keys.len());
}

#[test]
fn a_clock_an_hour_ahead_moves_no_other_clock_and_hides_no_write() {
    let mut world = World::new(3);
    let hour = 3_600_000;
    world.wall_ahead.insert(NodeId(3), hour);
    for bucket in [1, 2] {
        let ahead = world.put(3, write(bucket, "k", "ahead", Supersede::Latest, 1)).hlc;
        assert!(ahead.wall_ms() >= world.now().wall_ms + hour);
        world.pass(1_000);
        // Written later by a node whose clock is right: it supersedes what it follows, whatever that one's time is.
        world.put(1, write(bucket, "k", "later", Supersede::Latest, 2));
        assert_eq!(world.values(2, bucket, "k"), ["later"]);
        let elsewhere = world.put(1, write(bucket, "other", "v", Supersede::Latest, 3)).hlc;
        assert!(elsewhere.wall_ms() < world.now().wall_ms + 60_000, "the clock of node 1 was taken along");
    }
    world.wall_ahead.clear();
    world.restart(3);
    world.pass(2_000);
    for node in 1..=3 {
        assert_eq!(held_by(&mut world, node, "k"), 1);
    }
}
