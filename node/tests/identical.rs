//! Stories of what owners hold beside the values: once nothing is missing anywhere, their records are the same bytes.

mod world;

use bytes::Bytes;
use quorate_node::kernel::Event;
use quorate_node::storage::{Read, Table, object_key};
use quorate_ring::id::{BucketId, NodeId};
use quorate_ring::topology::Count;
use quorate_ring::version::Object;
use quorate_ring::wire::client::*;
use quorate_ring::wire::peer::PeerRequest;
use world::*;

/// What each of three nodes, which own everything, has stored of a key.
fn records(world: &World, key: &'static str) -> Vec<Option<Bytes>> {
    let partition = world.layout.partition(&world.layout.topology().buckets[0], key.as_bytes());
    let row = object_key(partition, BucketId(1), key.as_bytes());
    (1..=3).map(|node| world.kernels[&NodeId(node)].store().get(Table::Objects, &row).unwrap()).collect()
}

fn assert_identical(world: &World, key: &'static str) -> Object {
    let records = records(world, key);
    let decoded: Vec<Option<Object>> =
        records.iter().map(|row| row.as_ref().map(|bytes| Object::decode(bytes).unwrap())).collect();
    assert!(records.iter().all(|record| *record == records[0]), "{decoded:#?}");
    decoded[0].clone().expect("the key is there")
}

/// Another key of the same partition.
fn neighbour(world: &World, key: &str) -> &'static str {
    let bucket = &world.layout.topology().buckets[0];
    let partition = world.layout.partition(bucket, key.as_bytes());
    let mut keys = (0..).map(|number| format!("neighbour-{number}"));
    let found = keys.find(|other| world.layout.partition(bucket, other.as_bytes()) == partition);
    Box::leak(found.expect("there are keys without end").into_boxed_str())
}

#[test]
fn a_read_repair_leaves_no_more_knowledge_than_the_other_owners_have() {
    let mut world = World::new(3);
    let neighbour = neighbour(&world, "k");
    world.put(2, write(1, neighbour, "v", Supersede::Nothing, 1));
    // The second node misses the write, and has seen one that the key knows nothing of.
    world.hold = |node, event| {
        node == NodeId(2) && matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. })
    };
    world.put(1, write(1, "k", "v", Supersede::Nothing, 2));
    world.lose();
    assert_eq!(records(&world, "k")[1], None);
    let all = ReadRequest { r: Some(Count::All), ..read(1, "k") };
    assert!(matches!(world.ask(1, ClientRequest::Read(all)), Some(ClientReply::Read(_))));
    assert_eq!(assert_identical(&world, "k").siblings().len(), 1);
}

#[test]
fn a_key_written_anew_where_only_some_have_erased_its_tombstone_is_the_same_everywhere() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "old", Supersede::Nothing, 1));
    // Logs are cut once a second.
    world.pass(500);
    world.put(1, delete("k", 2));
    // The first node hears that the others have seen the delete, and they do not hear of it.
    world.hold =
        |node, event| node != NodeId(1) && matches!(event, Event::PeerRequest { message: PeerRequest::Ping(_), .. });
    world.pass(750);
    let there = |world: &World| records(world, "k").iter().map(Option::is_some).collect::<Vec<_>>();
    assert_eq!(there(&world), [false, true, true]);
    world.put(1, write(1, "k", "new", Supersede::Nothing, 3));
    world.release();
    world.pass(5_000);
    let object = assert_identical(&world, "k");
    assert_eq!(object.siblings().len(), 1);
    assert_eq!(world.values(2, 1, "k"), ["new"]);
}
