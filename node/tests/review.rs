//! Stories of what may go wrong: each was written against a suspected fault.

mod world;

use bytes::Bytes;
use quorate_node::kernel::{Effect, Event, RequestId, SessionId};
use quorate_node::replica::{Mint, Place, Replica};
use quorate_node::storage::{MemoryStorage, Read, Staged, Table, log_range, object_range};
use quorate_ring::id::{ActorId, BucketId, Epoch, NodeId, OpId, Partition};
use quorate_ring::topology::{Count, Durability};
use quorate_ring::version::{Content, Context, ContextToken, Dot, Hlc, Object};
use quorate_ring::wire::client::*;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{Greeted, PeerReply, PeerRequest, SyncPage};
use std::collections::{BTreeMap, BTreeSet};
use world::{World, delete, read, sloppy, write};

const REPLICATED: fn(NodeId, &Event) -> bool =
    |_, event| matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. });

fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// One key in each partition of the buckets with n = 3.
fn a_key_of_each_partition(world: &World) -> BTreeMap<Partition, &'static str> {
    let mut keys = BTreeMap::new();
    for number in 0.. {
        let key = leaked(format!("key-{number}"));
        keys.entry(world.layout.partition(&world.layout.topology().buckets[0], key.as_bytes())).or_insert(key);
        if keys.len() == 8 {
            break;
        }
    }
    keys
}

fn with_one(key: &'static str, op: u8) -> WriteRequest {
    WriteRequest { w: Some(Count::One), ..write(1, key, "v", Supersede::Nothing, op) }
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

fn pulls(world: &World) -> usize {
    world.sent.iter().filter(|(_, _, message)| matches!(message, PeerRequest::Pull(_))).count()
}

#[test]
fn what_a_lost_disk_took_along_is_not_asked_for_for_ever_and_starves_nobody() {
    let mut world = World::new(3);
    let keys = a_key_of_each_partition(&world);
    // Node 1 takes a write in each partition; the others hear of it by its clock only, and then its disk is gone.
    world.hold = REPLICATED;
    for (op, key) in keys.values().enumerate() {
        world.put(1, with_one(key, op as u8 + 1));
    }
    world.pass(250);
    world.lose();
    world.wipe(1);
    world.pass(10_000);
    assert_eq!(world.joined, [NodeId(1)]);
    world.sent.clear();
    world.pass(10_000);
    assert_eq!(pulls(&world), 0, "nobody has what is still asked for");
    // Node 2 misses a write of node 3, in the partition that comes last.
    let last = keys.values().last().unwrap();
    world.hold = |node, event| node == NodeId(2) && REPLICATED(node, event);
    world.put(3, write(1, last, "w", Supersede::Nothing, 100));
    world.lose();
    world.pass(10_000);
    assert_eq!(held_by(&mut world, 2, last), 1, "it was never pulled");
}

#[test]
fn a_peer_that_answers_no_pulls_does_not_keep_others_from_being_asked() {
    let mut world = World::new(3);
    let keys = a_key_of_each_partition(&world);
    // Node 2 misses what 1 and 3 wrote, and what it asks of node 1 is never answered.
    world.hold = |node, event| {
        let to_1 = node == NodeId(1) && matches!(event, Event::PeerRequest { message: PeerRequest::Pull(_), .. });
        to_1 || node == NodeId(2) && REPLICATED(node, event)
    };
    for (op, key) in keys.values().enumerate() {
        world.put(3, write(1, key, "w", Supersede::Nothing, op as u8 + 1));
    }
    world.pass(30_000);
    for key in keys.values() {
        assert_eq!(held_by(&mut world, 2, key), 1, "{key} was never pulled from the owner that answers");
    }
}

#[test]
fn clocks_are_told_also_when_an_answer_takes_longer_than_the_next_ping() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "v", Supersede::Nothing, 1));
    for _ in 0..8 {
        let late = std::mem::take(&mut world.held);
        world.hold = |_, event| matches!(event, Event::PeerReply { message: PeerReply::Pong(_), .. });
        world.pass(250);
        world.hold = |_, _| false;
        world.inbox.extend(late);
        world.run();
    }
    world.sent.clear();
    world.pass(250);
    for (from, to, message) in &world.sent {
        if let PeerRequest::Ping(ping) = message {
            assert!(ping.clocks.is_empty(), "{from} goes on telling {to} what it has acknowledged: {ping:?}");
        }
    }
}

#[test]
fn a_put_that_arrived_late_and_superseded_is_known_when_it_is_tried_again() {
    let mut world = World::new(3);
    world.hold = |node, event| node == NodeId(2) && REPLICATED(node, event);
    let first = write(1, "k", "first", Supersede::Local, 1);
    world.put(1, first.clone());
    let seen = world.get(3, 1, "k").context;
    // Node 2 coordinates what supersedes it, and meets it only then.
    world.held.iter().for_each(|(node, _)| assert_eq!(*node, NodeId(2)));
    world.put(2, write(1, "k", "second", Supersede::Seen(seen), 2));
    world.release();
    let again = world.put(2, first);
    assert!(again.repeated, "the same put was applied twice");
    assert_eq!(world.values(3, 1, "k"), ["second"]);
}

#[test]
fn a_made_up_context_does_not_make_a_node_believe_that_it_has_forgotten() {
    let mut world = World::new(3);
    let future = Context::of(Dot(ActorId::new(NodeId(1), 1), 1_000));
    let token = ContextToken::seal(world.layout.topology().cluster, BucketId(1), b"k", &future);
    world.put(2, write(1, "k", "v", Supersede::Seen(token), 1));
    // Node 1 asks the others, and finds that they "know" of writes that it never made. (Amnesia fails the story.)
    let answer = world.ask(1, ClientRequest::Write(write(1, "k", "w", Supersede::Latest, 2)));
    assert!(matches!(answer, Some(ClientReply::Refused(Refusal::Context(_)))), "{answer:?}");
    world.put(1, write(1, "other", "w", Supersede::Latest, 3));
}

#[test]
fn an_answer_to_an_earlier_run_says_nothing_of_this_one() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "v", Supersede::Nothing, 1));
    world.wipe(1);
    let known = vec![(world.layout.partition(&world.layout.topology().buckets[0], b"k"), 1)];
    let (actor, epoch) = (ActorId::new(NodeId(2), 1), Epoch(1));
    let message = PeerReply::Greeted(Greeted { minor: 1, epoch, actor, wall_ms: 0, known });
    // What the earlier run asked first of all. (Amnesia fails the story.)
    world.inbox.push_back((NodeId(1), Event::PeerReply { from: NodeId(2), request: RequestId(1 << 8), message }));
    world.run();
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(1)]);
}

#[test]
fn a_clock_that_jumps_ahead_erases_nothing_before_its_time() {
    let mut world = World::new(3);
    let hour = 3_600_000;
    let expires_ms = Some(world.now().wall_ms + hour);
    let change = Change::Put { value: Bytes::from_static(b"v"), expires_ms };
    world.put(1, WriteRequest { change, ..write(1, "k", "", Supersede::Nothing, 1) });
    world.pass(3_000);
    world.wall_ahead.insert(NodeId(3), 24 * hour);
    world.pass(3_000);
    world.wall_ahead.clear();
    world.pass(3_000);
    assert_eq!(world.values(1, 1, "k"), ["v"]);
    assert_eq!(held_by(&mut world, 3, "k"), 1);
}

#[test]
fn a_hint_that_cannot_be_delivered_does_not_hold_up_the_next() {
    let mut world = World::new(5);
    let keys = a_key_of_each_partition(&world);
    let (partition, good) = keys.first_key_value().unwrap();
    let bucket = &world.layout.topology().buckets[0];
    let poisoned = (0..).map(|n| leaked(format!("a-{n}")));
    let poisoned = poisoned.into_iter().find(|k| world.layout.partition(bucket, k.as_bytes()) == *partition).unwrap();
    let owners = world.owners(good);
    let target = NodeId(owners[2]);
    world.kill(owners[2]);
    // A context that its owner refuses, and a value that fills a page of hints.
    let future = Context::of(Dot(ActorId::new(target, 1), 1_000));
    let token = ContextToken::seal(world.layout.topology().cluster, BucketId(1), poisoned.as_bytes(), &future);
    let change = Change::Put { value: Bytes::from(vec![b'x'; 1024 * 1024]), expires_ms: None };
    world.put(owners[0], WriteRequest { change, supersede: Supersede::Seen(token), ..sloppy(poisoned, 1) });
    world.put(owners[0], sloppy(good, 2));
    let fallback = (1..=5).find(|id| world.rows(*id, Table::Hints) == 2).expect("one fallback keeps both");
    world.revive(owners[2]);
    world.pass(500);
    assert_eq!(world.rows(fallback, Table::Hints), 1, "the other hint was not handed off");
}

#[test]
fn what_will_expire_late_does_not_keep_tombstones_from_being_erased() {
    let actor = ActorId::new(NodeId(1), 1);
    let mut store = Staged::new(MemoryStorage::new());
    let mut replica = Replica::load(&store, Partition { n: 3, index: 0 }).unwrap();
    for number in 0..10u8 {
        let place = Place { bucket: BucketId(1), key: Bytes::copy_from_slice(&[b'a', number]) };
        let (op_id, hlc, expires_ms) = (OpId([number; 16]), Hlc(u64::from(number)), Some(u64::MAX));
        let content = Content { value: Bytes::new(), hlc, expires_ms, op_id };
        let mint = Mint { op_id, hlc, seen: Context::new(), content: Some(content) };
        replica.mint(&mut store, &place, &mut Object::default(), actor, mint);
    }
    let deleted = Place { bucket: BucketId(1), key: Bytes::from_static(b"z") };
    let mint = Mint { op_id: OpId([99; 16]), hlc: Hlc(99), seen: Context::new(), content: None };
    replica.mint(&mut store, &deleted, &mut Object::default(), actor, mint);
    let settled = replica.clock().base();
    for _ in 0..10 {
        replica.collect(&mut store, &settled, 0, (100, 4)).unwrap();
    }
    assert!(replica.stored(&store, &deleted).unwrap().is_none());
}

#[test]
fn expired_content_goes_where_a_lost_disk_holds_back_what_it_superseded() {
    let (ours, lost) = (ActorId::new(NodeId(1), 1), ActorId::new(NodeId(2), 1));
    let place = Place { bucket: BucketId(1), key: Bytes::from_static(b"k") };
    let op = |number: u8| (OpId([number; 16]), Hlc(u64::from(number)));
    let mut object = Object::default();
    object.write(Dot(lost, 7), op(1), &Context::new(), None);
    let content = Content { value: Bytes::new(), hlc: op(2).1, expires_ms: Some(1_000), op_id: op(2).0 };
    object.write(Dot(ours, 1), op(2), &object.context().clone(), Some(content));
    let mut store = Staged::new(MemoryStorage::new());
    let mut replica = Replica::load(&store, Partition { n: 3, index: 0 }).unwrap();
    replica.merge(&mut store, &place, &object, &[]).unwrap();
    let settled = replica.clock().base();
    replica.collect(&mut store, &settled, 999, (100, 100)).unwrap();
    assert!(replica.stored(&store, &place).unwrap().is_some_and(|object| object.shows(Dot(ours, 1))));
    replica.collect(&mut store, &settled, 1_000, (100, 100)).unwrap();
    let left = replica.stored(&store, &place).unwrap().expect("its context is not settled");
    assert!(left.is_tombstone() && left.context().covers(Dot(ours, 1)));
}

#[test]
fn a_delete_that_came_by_repair_is_handed_on_though_its_minter_lost_its_disk() {
    let (ours, lost) = (ActorId::new(NodeId(1), 1), ActorId::new(NodeId(2), 1));
    let place = Place { bucket: BucketId(1), key: Bytes::from_static(b"k") };
    let content = Content { value: Bytes::new(), hlc: Hlc(1), expires_ms: None, op_id: OpId([1; 16]) };
    let mut object = Object::default();
    object.write(Dot(ours, 1), (OpId([1; 16]), Hlc(1)), &Context::new(), Some(content));
    let mut store = Staged::new(MemoryStorage::new());
    let mut replica = Replica::load(&store, Partition { n: 3, index: 0 }).unwrap();
    replica.merge(&mut store, &place, &object, &[]).unwrap();
    let without_delete = replica.clock().clone();
    object.write(Dot(lost, 1), (OpId([2; 16]), Hlc(2)), &object.context().clone(), None);
    assert_eq!(replica.merge(&mut store, &place, &object, &[]), Ok(1));
    let page = replica.pull_page(&store, &without_delete, 1 << 20).unwrap();
    assert_eq!(page.objects.iter().map(|pulled| &pulled.dots[..]).collect::<Vec<_>>(), [[Dot(lost, 1)]]);
}

#[test]
fn a_tombstone_that_was_copied_is_erased_also_after_a_restart() {
    let partition = Partition { n: 3, index: 0 };
    let place = Place { bucket: BucketId(1), key: Bytes::from_static(b"k") };
    let (theirs, ours) = (ActorId::new(NodeId(1), 1), ActorId::new(NodeId(2), 1));
    let mut source_store = Staged::new(MemoryStorage::new());
    let mut source = Replica::load(&source_store, partition).unwrap();
    let mint = Mint { op_id: OpId([1; 16]), hlc: Hlc(1), seen: Context::new(), content: None };
    source.mint(&mut source_store, &place, &mut Object::default(), theirs, mint);
    let mut store = Staged::new(MemoryStorage::new());
    let mut replica = Replica::load(&store, partition).unwrap();
    let page = source.sync_page(&source_store, theirs, None, 1 << 20).unwrap();
    // A first sync is broken off by a restart, a second one is not.
    let first = SyncPage { done: false, ..page.clone() };
    assert!(!replica.take_sync_page(&mut store, NodeId(1), &first).unwrap());
    store.commit(true).unwrap();
    let mut replica = Replica::load(&store, partition).unwrap();
    assert!(replica.take_sync_page(&mut store, NodeId(1), &page).unwrap());
    store.commit(true).unwrap();
    let mut replica = Replica::load(&store, partition).unwrap();
    assert!(replica.stored(&store, &place).unwrap().is_some() && replica.clock().max(ours) == 0);
    let settled = replica.clock().base();
    replica.collect(&mut store, &settled, 0, (100, 100)).unwrap();
    assert!(replica.stored(&store, &place).unwrap().is_none(), "nothing brought it to mind");
}

#[test]
fn tombstones_beyond_those_listed_in_memory_are_brought_to_mind_by_the_log() {
    let (partition, actor) = (Partition { n: 3, index: 0 }, ActorId::new(NodeId(1), 1));
    for restart in [false, true] {
        let mut store = Staged::new(MemoryStorage::new());
        let mut replica = Replica::load(&store, partition).unwrap();
        for number in 0..600 {
            // Every third key is a long one, every fourth holds a value.
            let key = Bytes::from(format!("{number:>width$}", width = if number % 3 == 0 { 300 } else { 10 }));
            let value = Content { value: Bytes::new(), hlc: Hlc(1), expires_ms: None, op_id: OpId([1; 16]) };
            let content = (number % 4 == 0).then_some(value);
            let mint = Mint { op_id: OpId([1; 16]), hlc: Hlc(1), seen: Context::new(), content };
            replica.mint(&mut store, &Place { bucket: BucketId(1), key }, &mut Object::default(), actor, mint);
            store.commit(true).unwrap();
        }
        if restart {
            replica = Replica::load(&store, partition).unwrap();
        }
        let settled = replica.clock().base();
        for _ in 0..6 {
            assert!(!replica.is_collected());
            replica.collect(&mut store, &settled, 0, (100, 100)).unwrap();
            store.commit(true).unwrap();
        }
        assert!(replica.is_collected());
        let left = |table, (from, to): (Vec<u8>, Vec<u8>)| store.scan(table, &from, &to, usize::MAX).unwrap().len();
        assert_eq!(left(Table::Log, log_range(partition)), 0);
        assert_eq!(left(Table::Objects, object_range(partition)), 150);
    }
}

#[test]
fn what_all_owners_write_apart_fits_into_a_frame_together() {
    let mut world = World::new(5);
    let megabyte = || Change::Put { value: Bytes::from(vec![b'x'; 1024 * 1024]), expires_ms: None };
    world.hold = |_, event| matches!(event, Event::PeerRequest { .. });
    let all: Vec<u16> = (1..=5).collect();
    for (number, via) in all.iter().flat_map(|via| (0..12u8).map(move |n| (n, *via))) {
        let op = OpId([via as u8 * 16 + number; 16]);
        let put = WriteRequest { bucket: BucketId(5), op_id: op, change: megabyte(), ..with_one("k", 0) };
        world.ask(via, ClientRequest::Write(put));
    }
    world.release();
    // A delete that has seen nothing sends them all on.
    world.put(1, WriteRequest { bucket: BucketId(5), change: Change::Delete, ..with_one("k", 255) });
    let largest = world.sent.iter().map(|(_, _, message)| {
        let mut frame = Vec::new();
        message.write(1, &mut frame); // Panics over the limit.
        frame.len()
    });
    assert!(largest.max().unwrap() > 20 * 1024 * 1024);
}

#[test]
fn a_bucket_with_one_copy_writes_reads_deletes_and_remembers() {
    let mut world = World::new(3);
    let receipt = world.put(1, write(3, "k", "v", Supersede::Latest, 1));
    assert_eq!((receipt.needed, receipt.acks.len()), (1, 1));
    let owner = receipt.coordinator.0;
    world.pass(3_000);
    world.restart(owner);
    for via in 1..=3 {
        assert_eq!(world.values(via, 3, "k"), ["v"]);
    }
    world.put(2, WriteRequest { bucket: BucketId(3), ..delete("k", 2) });
    world.pass(3_000);
    assert!(world.values(1, 3, "k").is_empty());
    let again = world.put(3, write(3, "k", "w", Supersede::Latest, 3));
    assert!(again.dot.seq() == 3, "{:?}", again.dot);
    world.kill(owner);
    let other = if owner == 1 { 2 } else { 1 };
    let answer = world.ask(other, ClientRequest::Write(write(3, "k", "x", Supersede::Nothing, 4)));
    assert_eq!(answer, Some(ClientReply::Refused(Refusal::Unavailable { needed: 1, got: 0 })));
}

#[test]
fn a_bucket_with_two_copies_needs_both_and_heals() {
    let mut world = World::new(2);
    world.put(1, write(4, "k", "v", Supersede::Latest, 1));
    world.kill(2);
    let answer = world.ask(1, ClientRequest::Write(write(4, "k", "w", Supersede::Local, 2)));
    assert_eq!(answer, Some(ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 })));
    let receipt = world.put(1, WriteRequest { w: Some(Count::One), ..write(4, "k", "w", Supersede::Local, 3) });
    assert_eq!(receipt.acks.iter().map(|ack| ack.node).collect::<Vec<_>>(), [NodeId(1)]);
    world.revive(2);
    world.pass(3_000);
    let alone = ReadRequest { r: Some(Count::One), ..read(4, "k") };
    match world.ask(2, ClientRequest::Read(alone)) {
        Some(ClientReply::Read(answer)) => assert_eq!(&answer.siblings[0].value[..], b"w"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn two_wiped_nodes_copy_from_each_other_and_from_the_third() {
    let mut world = World::new(3);
    let keys = a_key_of_each_partition(&world);
    for (op, key) in keys.values().enumerate() {
        world.put(1, write(1, key, "v", Supersede::Nothing, op as u8 + 1));
    }
    let gone = *keys.values().next().unwrap();
    world.put(2, delete(gone, 50));
    world.kill(3);
    world.wipe(1);
    world.wipe(2);
    world.pass(5_000);
    assert!(world.joined.is_empty(), "the owner that remembers has not been asked");
    world.revive(3);
    world.pass(20_000);
    assert_eq!(world.joined.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from([NodeId(1), NodeId(2)]));
    for node in 1..=3 {
        for key in keys.values() {
            assert_eq!(held_by(&mut world, node, key), usize::from(*key != gone), "{key} at node {node}");
        }
    }
}

#[test]
fn a_retry_that_asks_for_more_durability_gets_it() {
    let mut world = World::new(3);
    let request = WriteRequest { durability: Some(Durability::Async), ..write(1, "k", "v", Supersede::Nothing, 1) };
    assert!(world.put(1, request.clone()).acks.iter().all(|ack| ack.durability == Durability::Async));
    let again = world.put(1, WriteRequest { durability: Some(Durability::Sync), ..request });
    assert!(again.repeated && again.acks.iter().all(|ack| ack.durability == Durability::Sync), "{again:?}");
}

#[test]
fn what_is_settled_is_collected_a_little_at_a_time() {
    let mut world = World::new(3);
    for number in 0..1_200 {
        world.put(1, write(1, leaked(format!("key-{number}")), "v", Supersede::Nothing, 1));
    }
    let mut left = vec![world.rows(1, Table::Log)];
    while left.last() != Some(&0) && left.len() < 40 {
        world.pass(250);
        left.push(world.rows(1, Table::Log));
    }
    assert_eq!(left.last(), Some(&0), "{left:?}");
    let most = left.windows(2).map(|two| two[0] - two[1]).max().unwrap();
    // Once by its timer, and once more as the tick begins anew.
    assert!((1..=1_024).contains(&most), "at most {most} log entries went between two looks: {left:?}");
}

#[test]
fn more_hints_than_credits_go_batch_by_batch() {
    let mut world = World::new(5);
    let target = world.owners("k")[2];
    world.kill(target);
    let mut keys = (0..).map(|number| leaked(format!("hinted-{number}")));
    for _ in 0..200 {
        let key = keys.find(|key| world.owners(key).contains(&target)).unwrap();
        let owner = world.owners(key).into_iter().find(|owner| *owner != target).unwrap();
        world.put(owner, sloppy(key, 1));
    }
    let hints = |world: &World| (1..=5).map(|node| world.rows(node, Table::Hints)).sum::<usize>();
    assert_eq!(hints(&world), 200);
    world.hold = |_, event| matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. });
    world.revive(target);
    world.pass(500);
    let keepers = (1..=5).filter(|node| world.rows(*node, Table::Hints) > 0).count();
    assert!(world.held.len() <= 64 * keepers, "{} hints are under way from {keepers} nodes", world.held.len());
    world.release();
    assert_eq!(hints(&world), 0, "each batch is followed by the next");
}

#[test]
fn an_ack_that_comes_during_a_commit_answers_its_put_and_no_other() {
    let mut world = World::new(3);
    world.hold = |_, event| matches!(event, Event::PeerReply { message: PeerReply::Replicated(_), .. });
    assert_eq!(world.ask(1, ClientRequest::Write(write(1, "k", "v", Supersede::Local, 1))), None);
    let acks: Vec<Event> = std::mem::take(&mut world.held).into_iter().map(|(_, event)| event).collect();
    let now = world.now();
    let kernel = world.kernels.get_mut(&NodeId(1)).unwrap();
    // The next put has its number, and its batch is on its way to the disk.
    let mut effects = Vec::new();
    let next = write(1, "k", "w", Supersede::Local, 2);
    let (from, message) = (SessionId(1), ClientRequest::Write(next));
    kernel.handle(now, Event::Client { from, request: 77, arrived: now.mono, message }, &mut effects).unwrap();
    assert!(kernel.batch().is_some() && !kernel.settled());
    let [Event::PeerReply { from, request, message }, second] = &acks[..] else { panic!("{acks:?}") };
    let forged = RequestId(request.0 + (1 << 8));
    let forged = Event::PeerReply { from: *from, request: forged, message: message.clone() };
    let mut answers = Vec::new();
    assert!(kernel.ack_meanwhile(now, forged, &mut answers).is_some(), "what is not committed was acked");
    assert!(kernel.ack_meanwhile(now, Event::Drain, &mut answers).is_some() && answers.is_empty());
    assert!(kernel.ack_meanwhile(now, acks[0].clone(), &mut answers).is_none());
    let answered = |effects: &[Effect]| {
        let reply = |effect: &Effect| matches!(effect, Effect::ClientReply { message: ClientReply::Written(_), .. });
        effects.iter().filter(|effect| reply(effect)).count()
    };
    assert_eq!(answered(&answers), 1);
    assert!(kernel.ack_meanwhile(now, second.clone(), &mut answers).is_none(), "a late ack is no one's concern");
    assert_eq!((answered(&answers), answered(&effects)), (1, 0));
    kernel.committed(&mut || now, &mut effects);
    let sent = |effect: &Effect| matches!(effect, Effect::PeerRequest { message: PeerRequest::Replicate(_), .. });
    assert_eq!(effects.iter().filter(|effect| sent(effect)).count(), 2);
}
