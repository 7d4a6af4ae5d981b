//! Microbenchmarks of the parts that every put and get goes through: `cargo bench -p quorate-tests --profile release`.

use bytes::{Bytes, BytesMut};
use divan::{Bencher, black_box};
use quorate_ring::id::{ActorId, Epoch, NodeId, OpId};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Clock, Content, Context, Dot, Hlc, Object};
use quorate_ring::wire::peer::{PeerRequest, Purpose, Replicate};
use quorate_ring::wire::{FRAME_BYTES_MAX, take_frame};
use quorate_tests::cost::{Kernels, layout};

fn main() {
    divan::main();
}

fn actor(number: u16) -> ActorId {
    ActorId::new(NodeId(number), 1)
}

/// An object with so many siblings, written by as many owners that had not heard of each other.
fn object(siblings: u16, value_bytes: usize) -> Object {
    let mut object = Object::default();
    for number in 1..=siblings {
        let content = Content {
            value: vec![7; value_bytes].into(),
            hlc: Hlc(u64::from(number)),
            expires_ms: None,
            op_id: OpId([number as u8; 16]),
        };
        let op = (content.op_id, content.hlc);
        object.write(Dot(actor(number), 1), op, &Context::new(), Some(content));
    }
    object
}

#[divan::bench(args = [3, 8, 32])]
fn place_all_partitions(nodes: u16) {
    black_box(layout(nodes));
}

#[divan::bench]
fn find_the_owners_of_a_key(bencher: Bencher) {
    let layout = layout(5);
    bencher.bench(|| {
        let partition = layout.partition(&layout.topology().buckets[0], black_box(b"a key of usual length"));
        layout.preference(partition).map(|list| list.owners()[0])
    });
}

#[divan::bench]
fn clock_takes_a_dot_in_order(bencher: Bencher) {
    let (mut clock, mut seq) = (Clock::default(), 0);
    bencher.bench_local(|| {
        seq += 1;
        clock.insert(Dot(actor(1), seq))
    });
}

#[divan::bench(args = [1, 8, 64])]
fn merge_a_newer_object(bencher: Bencher, siblings: u16) {
    let (held, incoming) = (object(siblings, 100), object(siblings + 1, 100));
    bencher.with_inputs(|| held.clone()).bench_refs(|held| held.merge(&incoming, |_| false));
}

#[divan::bench(args = [100, 10_000, 1_000_000])]
fn encode_an_object(bencher: Bencher, value_bytes: usize) {
    let object = object(1, value_bytes);
    bencher.bench(|| object.encode());
}

#[divan::bench(args = [100, 10_000, 1_000_000])]
fn decode_an_object(bencher: Bencher, value_bytes: usize) {
    let record = object(1, value_bytes).encode();
    bencher.bench(|| Object::decode(&record));
}

#[divan::bench(args = [100, 10_000, 1_000_000])]
fn send_and_receive_a_replicate(bencher: Bencher, value_bytes: usize) {
    let message = PeerRequest::Replicate(Replicate {
        epoch: Epoch(1),
        bucket: quorate_ring::id::BucketId(1),
        key: Bytes::from_static(b"a key of usual length"),
        object: object(1, value_bytes).encode(),
        dots: vec![Dot(actor(1), 1)],
        durability: Durability::Sync,
        purpose: Purpose::Write,
        deadline_ms: 1_000,
    });
    bencher.bench(|| {
        let mut bytes = Vec::with_capacity(256);
        message.write(1, &mut bytes);
        let mut buffer = BytesMut::from(Bytes::from(bytes));
        let frame = take_frame(&mut buffer, FRAME_BYTES_MAX).expect("a frame").expect("all of it");
        PeerRequest::decode(frame.kind, &frame.payload).expect("a message")
    });
}

/// N=3, W=2, over memory, all three kernels and the messages between them.
#[divan::bench]
fn put_through_three_kernels(bencher: Bencher) {
    let (mut kernels, mut number) = (Kernels::default(), 0);
    bencher.bench_local(|| {
        number += 1;
        kernels.put(number % 1_000);
    });
}

/// N=3, R=2.
#[divan::bench]
fn get_through_three_kernels(bencher: Bencher) {
    let mut kernels = Kernels::default();
    (0..1_000).for_each(|number| kernels.put(number));
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        kernels.get(number % 1_000);
    });
}
