use super::*;
use crate::kernel::{RequestId, SessionId, Timer};
use bytes::Bytes;
use quorate_ring::id::{BucketId, Epoch, NodeId};
use quorate_ring::topology::Durability;
use quorate_ring::wire::client::{ClientRequest, ReadRequest, StatusRequest};
use quorate_ring::wire::peer::{Fetched, PeerReply, Pong, Replicate, Replicated};
use std::sync::Arc;

fn client(request: u64) -> Event {
    let message = ClientRequest::Status(StatusRequest {});
    Event::Client { from: SessionId(1), request, arrived: Duration::ZERO, message }
}

fn read() -> Event {
    let message = ClientRequest::Read(ReadRequest {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(b"k"),
        r: None,
        quorum: None,
        blocking_repair: false,
        deadline_ms: 1000,
        request_id: None,
    });
    Event::Client { from: SessionId(1), request: 1, arrived: Duration::ZERO, message }
}

fn replicate(purpose: Purpose, bytes: usize) -> Event {
    let message = PeerRequest::Replicate(Replicate {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(b"k"),
        object: Bytes::from(vec![0; bytes]),
        dots: Vec::new(),
        durability: Durability::Sync,
        purpose,
        deadline_ms: 1000,
    });
    Event::PeerRequest { from: NodeId(2), request: RequestId(1), arrived: Duration::ZERO, message }
}

fn pong() -> Event {
    let message = PeerReply::Pong(Pong { number: 1, wall_ms: 1, rebuilding: false });
    Event::PeerReply { from: NodeId(2), request: RequestId(1), message }
}

fn drained(inbox: &Inbox) -> Vec<Class> {
    let mut batch = Vec::new();
    assert_eq!(inbox.drain(Some(Duration::ZERO), &mut batch), Drained::Batch);
    batch.iter().map(class).collect()
}

#[test]
fn acks_are_served_before_work_and_work_before_repair() {
    let inbox = Inbox::new(1 << 20, 10);
    inbox.try_deliver(replicate(Purpose::Handoff, 10)).unwrap();
    inbox.try_deliver(replicate(Purpose::ReadRepair, 10)).unwrap();
    inbox.offer(client(1)).unwrap();
    inbox.try_deliver(pong()).unwrap();
    assert_eq!(drained(&inbox), [Class::Urgent, Class::Work, Class::Work, Class::Repair]);
    assert!([Class::Urgent, Class::Work, Class::Repair].iter().all(|class| inbox.bytes(*class) == 0));
}

#[test]
fn repair_is_not_starved_by_clients() {
    let inbox = Inbox::new(1 << 20, 10);
    (0..2_000).for_each(|i| inbox.offer(client(i)).unwrap());
    (0..100).for_each(|_| inbox.try_deliver(replicate(Purpose::Handoff, 1)).unwrap());
    let repair = drained(&inbox).iter().filter(|class| **class == Class::Repair).count();
    assert_eq!(repair, BATCH_REPAIR_MIN);
}

#[test]
fn a_turn_of_repair_is_short_while_there_are_clients() {
    let inbox = Inbox::new(1 << 20, 100);
    let page = || replicate(Purpose::Handoff, TURN_BYTES);
    (0..10).for_each(|_| inbox.try_deliver(page()).unwrap());
    inbox.offer(client(1)).unwrap();
    assert_eq!(drained(&inbox), [Class::Work, Class::Repair], "somebody waits");
    assert_eq!(drained(&inbox).len(), 9, "nobody does");
    (0..10).for_each(|_| inbox.try_deliver(page()).unwrap());
    inbox.offer(read()).unwrap();
    assert_eq!(drained(&inbox), [Class::Work, Class::Repair]);
    assert_eq!(drained(&inbox).len(), 1, "the next client may come any time");
}

#[test]
fn a_turn_of_repair_is_followed_by_a_rest_while_there_are_clients() {
    let inbox = Inbox::new(1 << 20, 1);
    let handoffs = || (0..200).for_each(|_| inbox.try_deliver(replicate(Purpose::Handoff, 1)).unwrap());
    handoffs();
    assert_eq!(drained(&inbox).len(), 200, "no client has been seen");
    handoffs();
    inbox.offer(read()).unwrap();
    assert_eq!(drained(&inbox).len(), 1 + BATCH_REPAIR_MIN);
    std::thread::sleep(Duration::from_millis(20)); // So long it is handled; the rest is 99 times that.
    inbox.offer(client(1)).unwrap();
    assert_eq!(drained(&inbox), [Class::Work]);
    assert!(drained(&inbox).is_empty(), "nothing else waits that has its turn");
    assert!(inbox.bytes(Class::Repair) > 0);
}

#[test]
fn a_shard_wakes_when_the_rest_of_repair_is_over() {
    let inbox = Inbox::new(1 << 20, 50);
    inbox.offer(read()).unwrap();
    (0..BATCH_REPAIR_MIN + 1).for_each(|_| inbox.try_deliver(replicate(Purpose::Handoff, 1)).unwrap());
    assert_eq!(drained(&inbox).len(), 1 + BATCH_REPAIR_MIN);
    std::thread::sleep(Duration::from_millis(20));
    let mut batch = Vec::new();
    while batch.is_empty() {
        assert_eq!(inbox.drain(None, &mut batch), Drained::Batch);
    }
    assert_eq!(batch.iter().map(class).collect::<Vec<_>>(), [Class::Repair]);
}

#[test]
fn a_full_inbox_refuses_clients_and_still_takes_peers_and_timers() {
    let inbox = Inbox::new(2_000, 10);
    let taken = (0..100).take_while(|i| inbox.offer(client(*i)).is_ok()).count();
    assert!((1..=8).contains(&taken), "{taken} of 256 bytes each went into 2,000");
    assert!(inbox.offer(client(200)).unwrap_err().retry_after_ms >= 50);
    assert!(inbox.try_deliver(replicate(Purpose::Write, 100)).is_ok());
    assert!(inbox.try_deliver(replicate(Purpose::Write, 5_000)).is_err(), "peers have a cap too");
    inbox.push(Event::Fired { timer: Timer::Tick });
    drained(&inbox);
    assert!(inbox.offer(client(201)).is_ok(), "there is room again");
}

#[test]
fn one_event_over_the_limit_passes_alone() {
    let inbox = Inbox::new(1_000, 10);
    assert!(inbox.try_deliver(replicate(Purpose::Write, 100_000)).is_ok());
    assert!(inbox.try_deliver(replicate(Purpose::Write, 1)).is_err());
}

#[test]
fn a_batch_is_bounded_in_bytes() {
    let inbox = Inbox::new(1 << 30, 10);
    (0..4).for_each(|_| inbox.try_deliver(replicate(Purpose::Write, BATCH_BYTES_MAX / 2)).unwrap());
    assert_eq!(drained(&inbox).len(), 2);
    assert_eq!(drained(&inbox).len(), 2);
}

#[test]
fn a_peer_that_waits_goes_on_when_there_is_room() {
    let inbox = Arc::new(Inbox::new(1_000, 10));
    inbox.try_deliver(replicate(Purpose::Write, 5_000)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    let waits = inbox.clone();
    let delivery = runtime.spawn(async move { waits.deliver(replicate(Purpose::Write, 1)).await });
    std::thread::sleep(Duration::from_millis(20));
    assert!(!delivery.is_finished());
    assert_eq!(drained(&inbox).len(), 1);
    runtime.block_on(delivery).unwrap();
    assert_eq!(drained(&inbox).len(), 1);
}

#[test]
fn a_closed_inbox_ends_its_shard() {
    let inbox = Inbox::new(1_000, 10);
    inbox.close();
    assert_eq!(inbox.drain(None, &mut Vec::new()), Drained::Closed);
}

fn ack() -> Event {
    let message = PeerReply::Replicated(Replicated { durability: Durability::Sync, took_us: 1 });
    Event::PeerReply { from: NodeId(2), request: RequestId(1), message }
}

#[tokio::test]
async fn acks_are_taken_during_a_commit_and_nothing_else_is() {
    let inbox = Arc::new(Inbox::new(1 << 20, 10));
    inbox.try_deliver(pong()).unwrap();
    inbox.try_deliver(ack()).unwrap();
    inbox.offer(client(1)).unwrap();
    inbox.try_deliver(ack()).unwrap();
    let mut acks = Vec::new();
    inbox.first_here(true, &mut acks).await;
    assert!(acks.len() == 2 && acks.iter().all(Event::is_ack));
    let (waiting, mut late) = (inbox.clone(), Vec::new());
    let waits = tokio::spawn(async move {
        waiting.first_here(true, &mut late).await;
        late.len()
    });
    tokio::task::yield_now().await;
    inbox.offer(client(2)).unwrap();
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    inbox.try_deliver(ack()).unwrap();
    assert_eq!(waits.await.unwrap(), 1);
    assert_eq!(drained(&inbox), [Class::Urgent, Class::Work, Class::Work]);
}

#[tokio::test]
async fn reads_are_taken_during_a_commit_if_they_are_wanted() {
    let inbox = Inbox::new(1 << 20, 10);
    inbox.offer(client(1)).unwrap();
    inbox.offer(read()).unwrap();
    inbox.try_deliver(ack()).unwrap();
    inbox.try_deliver(replicate(Purpose::Write, 10)).unwrap();
    inbox.offer(read()).unwrap();
    let mut taken = Vec::new();
    inbox.first_here(false, &mut taken).await;
    assert!(taken.len() == 1 && taken[0].is_ack());
    taken.clear();
    inbox.first_here(true, &mut taken).await;
    assert!(taken.len() == 2 && taken.iter().all(Event::comes_first));
    assert!(inbox.lock().turns.clients_about(Instant::now()));
    assert_eq!(drained(&inbox), [Class::Work, Class::Work]);
    assert_eq!(inbox.bytes(Class::Work), 0);
}

#[test]
fn reads_go_first_but_leave_half_of_the_room_and_all_share_one_limit() {
    let inbox = Inbox::new(3 * weight(&read()), 10);
    let events = [read(), replicate(Purpose::Write, 10), read(), replicate(Purpose::Write, 10)];
    events.iter().for_each(|event| inbox.try_deliver(event.clone()).unwrap());
    assert!(inbox.offer(read()).is_err(), "there is no room for it beside the others");
    assert_eq!(inbox.bytes(Class::Work), events.iter().map(weight).sum::<usize>());
    let mut batch = Vec::new();
    assert_eq!(inbox.drain(Some(Duration::ZERO), &mut batch), Drained::Batch);
    assert_eq!(batch.iter().map(Event::comes_first).collect::<Vec<_>>(), [true, true, false, false]);
    let inbox = Inbox::new(1 << 20, 10);
    (0..1_000).for_each(|_| inbox.offer(read()).unwrap());
    (0..300).for_each(|number| inbox.offer(client(number)).unwrap());
    for (reads, others) in [(248, 248), (444, 52), (308, 0)] {
        batch.clear();
        inbox.drain(Some(Duration::ZERO), &mut batch);
        let first = batch.iter().filter(|event| event.comes_first()).count();
        assert_eq!((first, batch.len() - first), (reads, others));
    }
}

#[tokio::test]
async fn of_answers_to_reads_so_many_bytes_are_taken_at_one_time() {
    let inbox = Inbox::new(1 << 30, 10);
    let fetched = || {
        let message = PeerReply::Fetched(Fetched { object: Bytes::from(vec![0; 600 * 1024]), took_us: 1 });
        Event::PeerReply { from: NodeId(2), request: RequestId(1), message }
    };
    for _ in 0..4 {
        inbox.try_deliver(fetched()).unwrap();
        inbox.try_deliver(ack()).unwrap();
    }
    for expected in [6, 2] {
        let mut taken = Vec::new();
        inbox.first_here(true, &mut taken).await;
        assert_eq!(taken.len(), expected, "two answers, and all acks");
    }
}

#[tokio::test]
async fn what_was_left_of_a_commit_is_not_kept_waiting() {
    let inbox = Inbox::new(1 << 20, 10);
    let mut batch = vec![ack()];
    assert_eq!(inbox.drain_here(None, &mut Alarm::default(), &mut batch).await, Drained::Batch);
    assert_eq!(batch.len(), 1);
}
