//! Stories of a few shards: real kernels over memory, every message delivered in order and at once.

mod world;

use bytes::Bytes;
use quorate_node::kernel::{Effect, Event, RequestId, SessionId};
use quorate_node::storage::Table;
use quorate_ring::id::{ActorId, BucketId, Epoch, NodeId};
use quorate_ring::topology::{Count, Durability};
use quorate_ring::version::{ContextToken, Object};
use quorate_ring::wire::client::*;
use quorate_ring::wire::failure::{Doubt, Refusal};
use quorate_ring::wire::peer::{Fetch, Fetched, PeerReply, PeerRequest};
use world::{World, delete, read, sloppy, write};

#[test]
fn two_puts_one_after_the_other_through_different_nodes_leave_one_value() {
    let mut world = World::new(5);
    for (via, supersede) in [(1, Supersede::Latest), (2, Supersede::Latest), (3, Supersede::Latest)] {
        let value = ["one", "two", "three"][via - 1];
        let receipt = world.put(via as u16, write(1, "k", value, supersede, via as u8));
        assert!(receipt.acks.len() >= 2 && receipt.siblings == 1, "{receipt:?}");
        assert!(receipt.acks.iter().all(|ack| ack.durability == Durability::Sync));
    }
    for via in 1..=5 {
        assert_eq!(world.values(via, 1, "k"), ["three"]);
    }
}

#[test]
fn two_writers_with_the_same_context_leave_siblings_until_one_resolves_them() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "base", Supersede::Latest, 1));
    let seen = world.get(1, 1, "k").context;
    world.put(1, write(1, "k", "left", Supersede::Seen(seen.clone()), 2));
    world.put(2, write(1, "k", "right", Supersede::Seen(seen), 3));
    let mut both = world.values(3, 1, "k");
    both.sort();
    assert_eq!(both, ["left", "right"]);
    let seen = world.get(3, 1, "k").context;
    world.put(3, write(1, "k", "both", Supersede::Seen(seen), 4));
    assert_eq!(world.values(1, 1, "k"), ["both"]);
}

#[test]
fn a_long_value_that_the_coordinator_holds_is_not_sent_to_it_again() {
    let mut world = World::new(3);
    let long: &'static str = "long".repeat(1_000).leak();
    world.put(1, write(1, "k", long, Supersede::Latest, 1));
    let fetched = |world: &mut World| {
        world.hold = |_, event| matches!(event, Event::PeerReply { message: PeerReply::Fetched(_), .. });
        assert!(world.ask(2, ClientRequest::Read(read(1, "k"))).is_none());
        let sizes = world.held.iter().map(|(_, event)| match event {
            Event::PeerReply { message: PeerReply::Fetched(fetched), .. } => fetched.object.len(),
            other => panic!("{other:?}"),
        });
        let sizes: Vec<usize> = sizes.collect();
        world.release();
        let Some(ClientReply::Read(answer)) = world.replies.remove(&world.next) else { panic!("not read") };
        (sizes, answer.siblings.iter().map(|s| s.value.len()).collect::<Vec<_>>())
    };
    let (sizes, values) = fetched(&mut world);
    assert!(sizes.len() == 1 && sizes[0] < 100, "{sizes:?}");
    assert_eq!(values, [4_000]);
    // A sibling that the coordinator has not is sent, and that alone.
    world.hold = |node, event| {
        node == NodeId(2) && matches!(event, Event::PeerRequest { message: PeerRequest::Replicate(_), .. })
    };
    world.put(1, write(1, "k", "and long, too".repeat(200).leak(), Supersede::Nothing, 2));
    world.lose();
    let (sizes, values) = fetched(&mut world);
    assert!(sizes.len() == 1 && (2_600..2_800).contains(&sizes[0]), "{sizes:?}");
    assert_eq!(values, [4_000, 2_600]);
    assert_eq!(world.values(2, 1, "k").len(), 2, "and now it is here, too");
    let (sizes, _) = fetched(&mut world);
    assert!(sizes[0] < 200, "{sizes:?}");
}

#[test]
fn an_lww_bucket_shows_one_winner_everywhere_and_counts_the_other() {
    let mut world = World::new(3);
    world.put(1, write(2, "k", "first", Supersede::Nothing, 1));
    world.ms += 5;
    world.put(2, write(2, "k", "second", Supersede::Nothing, 2));
    for via in 1..=3 {
        let answer = world.get(via, 2, "k");
        assert_eq!((answer.siblings.len(), answer.set_aside), (1, 1));
        assert_eq!(&answer.siblings[0].value[..], b"second");
    }
}

#[test]
fn a_delete_leaves_nothing_and_a_key_that_never_was_reads_the_same() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "v", Supersede::Latest, 1));
    let delete = WriteRequest { change: Change::Delete, ..write(1, "k", "", Supersede::Latest, 2) };
    world.put(2, delete);
    assert!(world.values(3, 1, "k").is_empty() && world.values(3, 1, "never").is_empty());
}

#[test]
fn a_retry_is_known_as_one_even_when_another_write_came_between() {
    let mut world = World::new(3);
    let first = write(1, "k", "x", Supersede::Latest, 1);
    let receipt = world.put(1, first.clone());
    world.put(2, write(1, "k", "y", Supersede::Latest, 2));
    let again = world.put(1, first.clone());
    assert!(again.repeated && again.dot == receipt.dot);
    // Through another coordinator too: it asks the owners before it mints.
    assert!(world.put(3, first).repeated);
    assert_eq!(world.values(2, 1, "k"), ["y"]);
}

#[test]
fn with_two_of_three_owners_known_dead_nothing_is_applied() {
    let mut world = World::new(5);
    let owners = world.owners("k");
    world.kill(owners[1]);
    world.kill(owners[2]);
    for via in [owners[0], world.non_owner("k")] {
        let answer = world.ask(via, ClientRequest::Write(write(1, "k", "v", Supersede::Nothing, 1)));
        assert_eq!(answer, Some(ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 })));
    }
    let answer = world.ask(owners[0], ClientRequest::Read(read(1, "k")));
    assert_eq!(answer, Some(ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 })));
    let one = ReadRequest { r: Some(Count::One), ..read(1, "k") };
    assert!(
        matches!(world.ask(owners[0], ClientRequest::Read(one)), Some(ClientReply::Read(a)) if a.siblings.is_empty())
    );
}

#[test]
fn when_the_owners_die_under_way_the_outcome_is_unknown() {
    let mut world = World::new(3);
    // They hear nothing more, but nobody has noticed yet.
    world.down.extend([NodeId(2), NodeId(3)]);
    let asked = write(1, "k", "v", Supersede::Nothing, 1);
    assert_eq!(world.ask(1, ClientRequest::Write(asked)), None);
    let request = world.next;
    world.kill(2);
    world.kill(3);
    match world.replies.remove(&request) {
        Some(ClientReply::Unknown(u)) => assert_eq!((u.doubt, u.needed, u.acks.len()), (Doubt::OwnersFailed, 2, 1)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bad_requests_are_refused_each_for_its_reason() {
    let mut world = World::new(3);
    let good = || write(1, "k", "v", Supersede::Nothing, 1);
    let elsewhere = ContextToken::seal(
        world.layout.topology().cluster,
        quorate_ring::id::BucketId(1),
        b"other",
        &quorate_ring::version::Context::new(),
    );
    let long = Bytes::from(vec![b'k'; 5_000]);
    let big = Change::Put { value: Bytes::from(vec![0; 1024 * 1024 + 1]), expires_ms: None };
    let cases = [
        (WriteRequest { key: Bytes::new(), ..good() }, "1 to 4096 bytes"),
        (WriteRequest { key: long, ..good() }, "1 to 4096 bytes"),
        (WriteRequest { change: big, ..good() }, "up to 1048576 bytes"),
        (WriteRequest { w: Some(Count::Exactly(4)), ..good() }, "ask for 1 to 3"),
        (WriteRequest { r: Some(Count::Exactly(0)), ..good() }, "ask for 1 to 3"),
        (WriteRequest { epoch: quorate_ring::id::Epoch(9), ..good() }, "epoch 9"),
        (WriteRequest { bucket: quorate_ring::id::BucketId(77), ..good() }, "bucket number 77"),
        (WriteRequest { supersede: Supersede::Seen(elsewhere), ..good() }, "another key"),
        (WriteRequest { deadline_ms: 0, ..good() }, "deadline"),
    ];
    for (request, reason) in cases {
        match world.ask(1, ClientRequest::Write(request)) {
            Some(ClientReply::Refused(refusal)) => assert!(refusal.to_string().contains(reason), "{refusal}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
    assert!(world.values(2, 1, "k").is_empty());
}

#[test]
fn a_forged_context_that_covers_the_future_is_refused() {
    let mut world = World::new(3);
    let owner = world.owners("k")[0];
    let (cluster, bucket) = (world.layout.topology().cluster, quorate_ring::id::BucketId(1));
    let future = quorate_ring::version::Dot(ActorId::new(NodeId(owner), 1), 1_000);
    let token = ContextToken::seal(cluster, bucket, b"k", &quorate_ring::version::Context::of(future));
    match world.ask(owner, ClientRequest::Write(write(1, "k", "v", Supersede::Seen(token), 1))) {
        Some(ClientReply::Refused(refusal)) => assert!(refusal.to_string().contains("never made"), "{refusal}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sixty_four_siblings_are_the_most_a_client_can_make() {
    let mut world = World::new(3);
    for op in 0..64 {
        world.put(1, write(1, "k", "v", Supersede::Nothing, op + 1));
    }
    let answer = world.ask(1, ClientRequest::Write(write(1, "k", "v", Supersede::Nothing, 99)));
    assert_eq!(answer, Some(ClientReply::Refused(Refusal::TooManySiblings { siblings: 64 })));
    world.put(1, write(1, "k", "resolved", Supersede::Local, 100));
    assert_eq!(world.values(2, 1, "k"), ["resolved"]);
}

#[test]
fn a_read_repairs_the_owner_that_missed_the_write() {
    let mut world = World::new(3);
    let owners = world.owners("k");
    world.down.insert(NodeId(owners[2]));
    world.put(owners[0], write(1, "k", "v", Supersede::Nothing, 1));
    world.down.clear();
    let all = ReadRequest { r: Some(Count::All), blocking_repair: true, ..read(1, "k") };
    match world.ask(owners[0], ClientRequest::Read(all)) {
        Some(ClientReply::Read(answer)) => assert_eq!(answer.siblings.len(), 1),
        other => panic!("{other:?}"),
    }
    let alone = ReadRequest { r: Some(Count::One), ..read(1, "k") };
    match world.ask(owners[2], ClientRequest::Read(alone)) {
        Some(ClientReply::Read(answer)) => assert_eq!(answer.siblings.len(), 1, "the owner was not repaired"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_shows_what_one_node_holds() {
    let mut world = World::new(3);
    for (op, key) in ["a/1", "a/2", "b/1"].into_iter().enumerate() {
        world.put(1, write(1, key, "v", Supersede::Nothing, op as u8 + 1));
    }
    let mut keys = Vec::new();
    for index in 0..8 {
        let scan = ScanRequest {
            epoch: quorate_ring::id::Epoch(1),
            partition: quorate_ring::id::Partition { n: 3, index },
            bucket: Some(quorate_ring::id::BucketId(1)),
            prefix: b"a/".to_vec(),
            after: None,
            bytes_max: 1 << 20,
        };
        match world.ask(2, ClientRequest::Scan(scan)) {
            Some(ClientReply::Page(page)) => {
                assert!(page.done);
                keys.extend(page.records.into_iter().map(|r| r.key));
            }
            other => panic!("{other:?}"),
        }
    }
    keys.sort();
    assert_eq!(keys, [&b"a/1"[..], b"a/2"]);
}

#[test]
fn the_log_of_a_partition_comes_in_pages_and_in_order() {
    let mut world = World::new(3);
    world.kill(3); // What not every owner has seen stays in the log.
    for op in 0..9 {
        world.put(1, write(1, "key", "v", Supersede::Local, op + 1));
    }
    let mut seqs = Vec::new();
    for index in 0..8 {
        let mut after = None;
        loop {
            let partition = quorate_ring::id::Partition { n: 3, index };
            let log = LogRequest { epoch: quorate_ring::id::Epoch(1), partition, after, bytes_max: 100 };
            let Some(ClientReply::LogPage(page)) = world.ask(1, ClientRequest::Log(log)) else { panic!("no page") };
            assert!(page.records.iter().all(|record| record.key == "key"));
            seqs.extend(page.records.iter().map(|record| record.dot.seq()));
            after = page.records.last().map(|record| record.dot);
            if page.done {
                break;
            }
            assert!(after.is_some(), "a page that is not the last holds something");
        }
    }
    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());
}

#[test]
fn an_owner_that_was_away_pulls_what_it_missed() {
    let mut world = World::new(3);
    world.put(1, write(1, "before", "v", Supersede::Nothing, 1));
    world.kill(3);
    world.put(1, write(1, "while", "v", Supersede::Nothing, 2));
    world.put(2, delete("before", 3));
    world.pass(2_000);
    world.revive(3);
    world.pass(3_000);
    match world.alone(3, "while") {
        Some(ClientReply::Read(answer)) => assert_eq!(answer.siblings.len(), 1, "it was not pulled"),
        other => panic!("{other:?}"),
    }
    match world.alone(3, "before") {
        Some(ClientReply::Read(answer)) => assert!(answer.siblings.is_empty(), "the delete was not pulled"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn once_all_owners_have_seen_a_delete_nothing_of_it_is_left() {
    let mut world = World::new(3);
    world.put(1, write(1, "k", "v", Supersede::Nothing, 1));
    world.kill(3);
    world.put(1, delete("k", 2));
    world.pass(5_000);
    assert!(world.rows(1, Table::Objects) == 1, "a tombstone went before all owners had seen it");
    world.revive(3);
    world.pass(5_000);
    for node in 1..=3 {
        assert_eq!((world.rows(node, Table::Objects), world.rows(node, Table::Log)), (0, 0), "node {node}");
    }
    // What was erased stays known: a late retry of the first put brings nothing back.
    assert!(world.values(2, 1, "k").is_empty());
}

#[test]
fn a_wiped_node_answers_only_when_it_has_copied_everything() {
    let mut world = World::new(3);
    let keys = ["a", "b", "c", "d", "e", "f"];
    for (op, key) in keys.into_iter().enumerate() {
        world.put(1, write(1, key, "v", Supersede::Nothing, op as u8 + 1));
    }
    world.pass(3_000); // Logs are cut: only a full sync can help.
    assert_eq!(world.rows(1, Table::Log), 0);
    world.wipe(2);
    assert_eq!(world.alone(2, "a").map(|reply| matches!(reply, ClientReply::Read(_))), Some(true), "others answer");
    assert!(world.joined.is_empty());
    world.pass(20_000);
    assert_eq!(world.joined, [NodeId(2)]);
    assert_eq!(world.rows(2, Table::Objects), keys.len());
    let receipt = world.put(2, write(1, "a", "w", Supersede::Latest, 50));
    assert_eq!(receipt.coordinator, NodeId(2));
    assert_eq!(world.values(3, 1, "a"), ["w"]);
}

#[test]
fn expired_content_reads_as_deleted_and_goes_when_it_is_settled() {
    let mut world = World::new(3);
    let expires_ms = Some(world.now().wall_ms + 5_000);
    let value = Bytes::from_static(b"soon gone");
    world
        .put(1, WriteRequest { change: Change::Put { value, expires_ms }, ..write(1, "k", "", Supersede::Nothing, 1) });
    assert_eq!(world.values(2, 1, "k").len(), 1);
    world.pass(5_000);
    assert!(world.values(2, 1, "k").is_empty());
    world.pass(120_000);
    for node in 1..=3 {
        assert_eq!((world.rows(node, Table::Objects), world.rows(node, Table::Log)), (0, 0), "node {node}");
    }
}

#[test]
fn under_sloppy_a_fallback_keeps_a_hint_and_hands_it_off() {
    let mut world = World::new(5);
    let owners = world.owners("k");
    world.kill(owners[1]);
    world.kill(owners[2]);
    let receipt = world.put(owners[0], sloppy("k", 1));
    let standings: Vec<Standing> = receipt.acks.iter().map(|ack| ack.standing).collect();
    assert_eq!(standings[0], Standing::Owner);
    let Standing::Fallback { target } = standings[1] else { panic!("{standings:?}") };
    assert!(target.0 == owners[1] || target.0 == owners[2]);
    let fallbacks: Vec<u16> = (1..=5).filter(|id| !owners.contains(id)).collect();
    let hints = |world: &World| fallbacks.iter().map(|id| world.rows(*id, Table::Hints)).sum::<usize>();
    assert_eq!(hints(&world), 2, "one for each missing owner");
    world.kill(owners[0]); // Only the fallbacks hold it now, and whoever they reach.
    world.revive(owners[1]);
    world.revive(owners[2]);
    world.pass(1_000);
    assert_eq!(hints(&world), 0, "hints were not handed off, or not forgotten");
    assert_eq!(world.values(owners[1], 1, "k"), ["v"]);
}

#[test]
fn a_fallback_answers_no_reads_and_a_strict_write_gets_no_hint() {
    let mut world = World::new(5);
    let owners = world.owners("k");
    world.kill(owners[2]);
    world.put(owners[0], write(1, "k", "v", Supersede::Nothing, 1));
    assert!((1..=5).all(|id| world.rows(id, Table::Hints) == 0));
    world.kill(owners[1]);
    let one = ReadRequest { r: Some(Count::Exactly(2)), ..read(1, "k") };
    let answer = world.ask(world.non_owner("k"), ClientRequest::Read(one));
    assert_eq!(answer, Some(ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 })));
}

#[test]
fn a_fallback_that_was_restarted_finds_its_hints_again() {
    let mut world = World::new(5);
    let owners = world.owners("k");
    world.kill(owners[2]);
    world.put(owners[0], sloppy("k", 1));
    let fallback = (1..=5).find(|id| world.rows(*id, Table::Hints) > 0).expect("a fallback keeps a hint");
    world.restart(fallback);
    world.revive(owners[2]);
    world.pass(1_000);
    assert_eq!(world.rows(fallback, Table::Hints), 0);
    match world.alone(owners[2], "k") {
        Some(ClientReply::Read(answer)) => assert_eq!(answer.siblings.len(), 1),
        other => panic!("{other:?}"),
    }
}

/// Node 1 of three, with the put of another value to `changed` on its way to the disk. All three hold `still` and `changed`.
fn during_a_commit() -> World {
    let mut world = World::new(3);
    for (key, op) in [("still", 1), ("changed", 2)] {
        world.put(1, write(1, key, "v", Supersede::Local, op));
    }
    let mut held = Vec::new();
    let put = from_client(ClientRequest::Write(write(1, "changed", "w", Supersede::Local, 3)));
    let now = world.now();
    let kernel = world.kernels.get_mut(&NodeId(1)).unwrap();
    kernel.handle(now, put, &mut held).unwrap();
    assert!(kernel.batch().is_some_and(|batch| batch.sync));
    world
}

fn from_client(message: ClientRequest) -> Event {
    Event::Client { from: SessionId(1), request: 7, arrived: std::time::Duration::from_secs(1), message }
}

/// What comes of an event at node 1 while the commit is under way; none if it has to wait.
fn meanwhile(world: &mut World, event: Event) -> Option<Vec<Effect>> {
    let now = world.now();
    let mut effects = Vec::new();
    let back = world.kernels.get_mut(&NodeId(1)).unwrap().meanwhile(now, event, &mut effects).unwrap();
    assert!(back.is_none() || effects.is_empty(), "{effects:?}");
    back.is_none().then_some(effects)
}

#[test]
fn during_a_commit_what_is_stored_and_not_written_is_read_and_nothing_else() {
    let mut world = during_a_commit();
    let one = |key| from_client(ClientRequest::Read(ReadRequest { r: Some(Count::One), ..read(1, key) }));
    let fetch = |key: &'static str| {
        let (epoch, bucket, key) = (Epoch(1), BucketId(1), Bytes::from_static(key.as_bytes()));
        let fetch =
            Fetch { epoch, bucket, key, context_for: None, deadline_ms: 1_000, request_id: None, held: Vec::new() };
        let (request, arrived) = (RequestId(1), std::time::Duration::from_secs(1));
        Event::PeerRequest { from: NodeId(2), request, arrived, message: PeerRequest::Fetch(fetch) }
    };
    let answers = |effects: &Vec<Effect>| effects.iter().filter(|effect| effect.answers_a_read()).count();
    for event in [one("still"), fetch("still")] {
        assert_eq!(meanwhile(&mut world, event).as_ref().map(answers), Some(1));
    }
    // "Absent" would be said with the clock, which knows the put.
    for event in [one("changed"), fetch("changed"), one("absent"), fetch("absent"), Event::Drain] {
        assert!(meanwhile(&mut world, event.clone()).is_none(), "{event:?}");
    }
    let (now, mut effects) = (world.now(), Vec::new());
    world.kernels.get_mut(&NodeId(1)).unwrap().committed(&mut || now, &mut effects);
    assert!(meanwhile(&mut world, one("changed")).is_some(), "the commit is over");
}

#[test]
fn during_a_commit_an_answer_that_agrees_ends_a_read_and_one_that_does_not_waits() {
    let mut world = during_a_commit();
    let asked = meanwhile(&mut world, from_client(ClientRequest::Read(read(1, "still")))).unwrap();
    let request = asked.iter().find_map(|effect| match effect {
        Effect::PeerRequest { to: NodeId(2), request, message: PeerRequest::Fetch(_) } => Some(*request),
        _ => None,
    });
    let held = world.kernels[&NodeId(2)].replicas().find_map(|(_, replica)| {
        let place = quorate_node::replica::Place { bucket: BucketId(1), key: Bytes::from_static(b"still") };
        replica.stored(world.kernels[&NodeId(2)].store(), &place).unwrap()
    });
    let answer = |request: Option<RequestId>, object: &Object| {
        let message = PeerReply::Fetched(Fetched { object: object.encode(), took_us: 1 });
        Event::PeerReply { from: NodeId(2), request: request.unwrap(), message }
    };
    assert!(meanwhile(&mut world, answer(Some(RequestId(1 << 8)), &held.clone().unwrap())).is_none(), "nobody asked");
    assert!(meanwhile(&mut world, answer(request, &Object::default())).is_none(), "it may have to be repaired");
    let ended = meanwhile(&mut world, answer(request, &held.unwrap())).unwrap();
    assert!(ended.iter().any(Effect::answers_a_read), "{ended:?}");
}
