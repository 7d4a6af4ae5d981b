//! Stories of repair: full syncs that are broken off, what is excused, how fast it goes, and what it says of itself.

mod world;

use bytes::Bytes;
use quorate_node::kernel::Event;
use quorate_node::storage::Table;
use quorate_ring::id::{BucketId, NodeId, Partition};
use quorate_ring::topology::Count;
use quorate_ring::wire::client::*;
use quorate_ring::wire::failure::{Doubt, Refusal};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use std::collections::BTreeSet;
use world::{World, delete, read, write};

const PAGE: fn(NodeId, &Event) -> bool =
    |_, event| matches!(event, Event::PeerReply { message: PeerReply::Synced(_), .. });

fn keys(count: u8) -> Vec<&'static str> {
    (0..count).map(|number| &*Box::leak(format!("key-{number:02}").into_boxed_str())).collect()
}

/// Three nodes with these keys in all of them, and logs that are cut: only a full sync can help.
fn filled(keys: &[&'static str]) -> World {
    let mut world = World::new(3);
    for (op, key) in keys.iter().enumerate() {
        world.put(1, write(1, key, "v", Supersede::Nothing, op as u8 + 1));
    }
    world.pass(3_000);
    assert_eq!(world.rows(1, Table::Log), 0);
    world
}

fn held_by(world: &mut World, node: u16, key: &'static str) -> Vec<String> {
    match world.alone(node, key) {
        Some(ClientReply::Read(answer)) => {
            assert_eq!(answer.answered[0].node, NodeId(node));
            answer.siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Of whom, for what, and behind which key.
type Asked = (NodeId, Partition, Option<(BucketId, Bytes)>);

/// Where each page that node 2 asked for was to go on: from whom, of which partition, behind what.
fn asked_by_2(world: &World) -> Vec<Asked> {
    let syncs = world.sent.iter().filter(|(from, ..)| *from == NodeId(2));
    syncs
        .filter_map(|(_, to, message)| match message {
            PeerRequest::Sync(sync) => Some((*to, sync.partition, sync.after.clone())),
            _ => None,
        })
        .collect()
}

#[test]
fn a_full_sync_that_is_broken_off_after_every_page_by_a_restart_gets_to_its_end() {
    let keys = keys(24);
    let mut world = filled(&keys);
    world.tune = |config| config.page_bytes = 1;
    world.hold = PAGE;
    world.wipe(2);
    let mut asked = BTreeSet::new();
    for round in 0.. {
        assert!(round < 200, "it does not get on: {asked:?}");
        world.pass(500);
        if world.joined.contains(&NodeId(2)) {
            break;
        }
        // One page of those under way arrives. Then the node is killed.
        if let Some((node, page)) = world.held.pop_front() {
            world.deliver(node, page);
        }
        world.run();
        world.held.clear();
        asked.extend(asked_by_2(&world).into_iter().filter(|(.., after)| after.is_some()));
        world.sent.clear();
        world.restart(2);
    }
    assert!(asked.len() >= 2 * keys.len() - 16, "it went on behind {} places only", asked.len());
    world.lose();
    for key in keys {
        assert_eq!(held_by(&mut world, 2, key), ["v"]);
    }
}

#[test]
fn a_sync_goes_on_with_its_first_clock_so_that_what_was_written_meanwhile_is_not_missed() {
    let keys = keys(24);
    let mut world = filled(&keys);
    world.tune = |config| config.page_bytes = 1;
    // Copies get to their third key, and no further.
    world.hold = |_, event| {
        let behind =
            |after: &Option<(BucketId, Bytes)>| after.as_ref().is_some_and(|(_, key)| key[..] >= b"key-12"[..]);
        matches!(event, Event::PeerRequest { message: PeerRequest::Sync(sync), .. } if behind(&sync.after))
    };
    world.wipe(2);
    world.pass(3_000);
    world.lose();
    world.kill(2);
    for (op, key) in keys.iter().enumerate() {
        match op % 3 {
            0 => world.put(1, write(1, key, "w", Supersede::Latest, op as u8 + 101)),
            1 => world.put(3, delete(key, op as u8 + 101)),
            _ => continue,
        };
    }
    world.pass(3_000);
    world.restart(2);
    world.pass(30_000);
    assert_eq!(world.joined, [NodeId(2)]);
    for node in 1..=3 {
        for (op, key) in keys.iter().enumerate() {
            let expected = [&["w"][..], &[], &["v"]][op % 3];
            assert_eq!(held_by(&mut world, node, key), expected, "{key} at node {node}");
        }
    }
    let same = |table| (world.rows(1, table), world.rows(2, table), world.rows(3, table));
    assert_eq!(same(Table::Objects), (16, 16, 16));
    assert_eq!(same(Table::Log), (0, 0, 0));
}

#[test]
fn what_was_copied_to_the_end_is_not_copied_again_after_a_restart() {
    let keys = keys(24);
    let mut world = filled(&keys);
    world.hold =
        |node, event| node == NodeId(3) && matches!(event, Event::PeerRequest { message: PeerRequest::Sync(_), .. });
    world.wipe(2);
    world.pass(20_000);
    assert!(world.joined.is_empty(), "node 3 has not been copied");
    let copied =
        |status: &NodeStatus| status.repair.sources.iter().map(|s| (s.node, s.partitions_copied)).collect::<Vec<_>>();
    let status = world.repair(2);
    let all = status.repair.sources[0].partitions;
    assert_eq!((status.state.as_str(), copied(&status)), ("rebuilding", vec![(1, all), (3, 0)]));
    world.restart(2);
    assert_eq!(copied(&world.repair(2)), [(1, all), (3, 0)]);
    world.sent.clear();
    world.lose();
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(2)]);
    assert!(asked_by_2(&world).iter().all(|(source, ..)| *source == NodeId(3)), "node 1 was copied again");
    // Should it forget once more, all of that counts for nothing.
    world.wipe(2);
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(2)]);
    assert!(asked_by_2(&world).iter().any(|(source, ..)| *source == NodeId(1)));
}

#[test]
fn a_dead_owner_is_waited_for_unless_an_operator_excuses_it() {
    let keys = keys(8);
    let mut world = filled(&keys);
    world.kill(3);
    world.wipe(2);
    world.pass(30_000);
    assert!(world.joined.is_empty());
    world.tune = |config| config.excused = BTreeSet::from([NodeId(3)]);
    world.restart(2);
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(2)]);
    assert_eq!(held_by(&mut world, 2, keys[0]), ["v"]);
    // One that is excused and answers all the same is copied.
    world.revive(3);
    world.pass(3_000);
    world.sent.clear();
    world.wipe(2);
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(2)]);
    assert!(asked_by_2(&world).iter().any(|(source, ..)| *source == NodeId(3)));
}

#[test]
fn repair_moves_as_many_bytes_in_a_second_as_it_may() {
    let mut world = World::new(3);
    let value = Bytes::from(vec![b'x'; 1_000]);
    for (op, key) in keys(60).into_iter().enumerate() {
        let change = Change::Put { value: value.clone(), expires_ms: None };
        world.put(1, WriteRequest { change, ..write(1, key, "", Supersede::Nothing, op as u8 + 1) });
    }
    world.pass(3_000);
    world.tune = |config| (config.page_bytes, config.repair_bytes_per_second) = (2_000, 10_000);
    world.wipe(2);
    // Two times 60,000 bytes are to be copied, one from each of the others.
    world.pass(6_000);
    let taken = world.repair(2).repair.bytes_taken;
    assert!(world.joined.is_empty() && (40_000..80_000).contains(&taken), "{taken} bytes in 6 s at 10,000 a second");
    world.pass(12_000);
    assert_eq!(world.joined, [NodeId(2)]);
}

#[test]
fn who_asks_for_repair_need_not_wait_and_is_told_how_far_it_is() {
    let mut world = World::new(3);
    world.hold = |node, event| {
        node == NodeId(2) && matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. })
    };
    world.put(1, write(1, "k", "v", Supersede::Nothing, 1));
    world.lose();
    world.pass(250);
    let before = world.repair(2).repair;
    assert_eq!((before.dots_missing, before.partitions_behind, before.dots_pulled), (1, 1, 0));
    assert!(before.unheard.is_empty() && before.sources.is_empty() && before.under_way == 2);
    let after = world.repair(2).repair;
    assert_eq!((after.dots_missing, after.dots_pulled), (0, 1), "it was pulled without a second of waiting");
    assert!(after.bytes_taken > 0);
    assert_eq!(held_by(&mut world, 2, "k"), ["v"]);
}

#[test]
fn a_node_that_just_started_says_whose_clocks_it_has_not_heard() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "v", Supersede::Nothing, 1));
    world.restart(2);
    assert_eq!(world.repair(2).repair.unheard, [1, 3]);
    world.pass(500);
    assert!(world.repair(2).repair.unheard.is_empty());
}

#[test]
fn when_owners_die_without_a_word_nobody_waits_for_the_whole_deadline() {
    let mut world = World::new(5);
    world.pass(3_000);
    let owners = world.owners("k");
    world.down.extend([NodeId(owners[1]), NodeId(owners[2])]);
    let patient = WriteRequest { deadline_ms: 10_000, ..write(1, "k", "v", Supersede::Nothing, 1) };
    assert_eq!(world.ask(owners[0], ClientRequest::Write(patient)), None);
    let asked = world.next;
    let all = ReadRequest { r: Some(Count::All), deadline_ms: 10_000, ..read(1, "k") };
    assert_eq!(world.ask(owners[0], ClientRequest::Read(all)), None);
    world.pass(2_000);
    match world.replies.remove(&asked) {
        Some(ClientReply::Unknown(u)) => assert_eq!((u.doubt, u.needed, u.acks.len()), (Doubt::OwnersFailed, 2, 1)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.replies.remove(&world.next), Some(ClientReply::Refused(_))));
}

#[test]
fn a_write_handed_to_an_owner_that_died_without_a_word_is_told_of_before_its_deadline() {
    let mut world = World::new(5);
    world.pass(3_000);
    let owners = world.owners("k");
    world.down.extend(owners.iter().map(|owner| NodeId(*owner)));
    let patient = WriteRequest { deadline_ms: 10_000, ..write(1, "k", "v", Supersede::Nothing, 1) };
    let via = world.non_owner("k");
    assert_eq!(world.ask(via, ClientRequest::Write(patient)), None);
    world.pass(2_000);
    match world.replies.remove(&world.next) {
        Some(ClientReply::Unknown(u)) => assert_eq!(u.doubt, Doubt::LinkBroke),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_owner_that_died_before_it_was_asked_is_not_asked_after() {
    let mut world = World::new(3);
    world.pass(1_000);
    // The second owner is asked, and says nothing.
    world.hold = |_, event| matches!(event, Event::PeerRequest { message: PeerRequest::Fetch(_), .. });
    let patient = ReadRequest { deadline_ms: 10_000, ..read(1, "k") };
    assert_eq!(world.ask(1, ClientRequest::Read(patient)), None);
    let silent = world.held.front().map(|(node, _)| node.0).expect("one owner was asked");
    world.kill(5 - silent);
    world.kill(silent);
    match world.replies.remove(&world.next) {
        Some(ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 })) => {}
        other => panic!("{other:?}"),
    }
}
