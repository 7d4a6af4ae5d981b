use super::*;
use crate::kernel::{RequestId, SessionId, Timer};
use bytes::Bytes;
use quorate_ring::id::{BucketId, Epoch, NodeId};
use quorate_ring::topology::Durability;
use quorate_ring::wire::client::{ClientRequest, StatusRequest};
use quorate_ring::wire::peer::{PeerReply, Pong, Replicate};
use std::sync::Arc;

fn client(request: u64) -> Event {
    let message = ClientRequest::Status(StatusRequest {});
    Event::Client { from: SessionId(1), request, arrived: Duration::ZERO, message }
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
    let inbox = Inbox::new(1 << 20);
    inbox.try_deliver(replicate(Purpose::ReadRepair, 10)).unwrap();
    inbox.offer(client(1)).unwrap();
    inbox.try_deliver(pong()).unwrap();
    assert_eq!(drained(&inbox), [Class::Urgent, Class::Work, Class::Repair]);
    assert!([Class::Urgent, Class::Work, Class::Repair].iter().all(|class| inbox.bytes(*class) == 0));
}

#[test]
fn repair_is_not_starved_by_clients() {
    let inbox = Inbox::new(1 << 20);
    (0..2_000).for_each(|i| inbox.offer(client(i)).unwrap());
    (0..100).for_each(|_| inbox.try_deliver(replicate(Purpose::Handoff, 1)).unwrap());
    let repair = drained(&inbox).iter().filter(|class| **class == Class::Repair).count();
    assert_eq!(repair, BATCH_REPAIR_MIN);
}

#[test]
fn one_page_of_repair_at_a_time_goes_into_a_batch_that_clients_wait_for() {
    let inbox = Inbox::new(1 << 20);
    let page = || replicate(Purpose::Handoff, BATCH_REPAIR_BYTES_BUSY);
    (0..8).for_each(|_| inbox.try_deliver(page()).unwrap());
    inbox.offer(client(1)).unwrap();
    assert_eq!(drained(&inbox), [Class::Work, Class::Repair]);
    assert_eq!(drained(&inbox).len(), 7, "nobody else waits");
}

#[test]
fn a_full_inbox_refuses_clients_and_still_takes_peers_and_timers() {
    let inbox = Inbox::new(2_000);
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
    let inbox = Inbox::new(1_000);
    assert!(inbox.try_deliver(replicate(Purpose::Write, 100_000)).is_ok());
    assert!(inbox.try_deliver(replicate(Purpose::Write, 1)).is_err());
}

#[test]
fn a_batch_is_bounded_in_bytes() {
    let inbox = Inbox::new(1 << 30);
    (0..4).for_each(|_| inbox.try_deliver(replicate(Purpose::Write, BATCH_BYTES_MAX / 2)).unwrap());
    assert_eq!(drained(&inbox).len(), 2);
    assert_eq!(drained(&inbox).len(), 2);
}

#[test]
fn a_peer_that_waits_goes_on_when_there_is_room() {
    let inbox = Arc::new(Inbox::new(1_000));
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
    let inbox = Inbox::new(1_000);
    inbox.close();
    assert_eq!(inbox.drain(None, &mut Vec::new()), Drained::Closed);
}
