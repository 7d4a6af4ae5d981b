//! Messages to be spoiled, and messages that are spoiled already.

use crate::real::lane::{get, put};
use crate::real::{CLUSTER, Cluster};
use bytes::Bytes;
use quorate_ring::id::{ActorId, BucketId, Epoch, NodeId, OpId, Partition};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Clock, Context, Dot, Hlc, Object, SeqSet};
use quorate_ring::wire::client::{Cancel, ClientRequest, Hello, LogRequest, RepairRequest, ScanRequest, StatusRequest};
use quorate_ring::wire::peer::{
    ClockNews, Coordinate, Fetch, Greet, PeerRequest, Ping, Pull, Purpose, Replicate, StoreHint, SyncRequest,
};
use quorate_ring::wire::{FRAME_VERSION, PROTOCOL_MINOR};

/// A frame of any payload, its checksum right.
pub fn frame(kind: u8, request: u64, payload: &[u8]) -> Vec<u8> {
    let mut head = vec![FRAME_VERSION, kind];
    head.extend_from_slice(&request.to_be_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&head), payload);
    [&(payload.len() as u32).to_be_bytes()[..], &head, &sum.to_be_bytes(), payload].concat()
}

const KEY: &str = "a key that is there for the storm only";
const ACTOR: ActorId = ActorId(2 << 48 | 7);

/// A whole frame of each kind of request of a client.
pub fn client_frames() -> Vec<Vec<u8>> {
    let scan = ScanRequest {
        epoch: Epoch(1),
        partition: Partition { n: 1, index: 3 },
        bucket: None,
        prefix: Vec::new(),
        after: None,
        bytes_max: 1000,
    };
    let log = LogRequest { epoch: Epoch(1), partition: scan.partition, after: None, bytes_max: 1000 };
    let messages = [
        ClientRequest::Hello(Hello { minor: PROTOCOL_MINOR, cluster: Some(CLUSTER) }),
        ClientRequest::Write(put(KEY, b"value")),
        ClientRequest::Read(get(KEY)),
        ClientRequest::Scan(scan),
        ClientRequest::Log(log),
        ClientRequest::Status(StatusRequest {}),
        ClientRequest::Repair(RepairRequest { partition: None }),
        ClientRequest::Cancel(Cancel {}),
    ];
    let written = |message: &ClientRequest| {
        let mut out = Vec::new();
        message.write(7, &mut out);
        out
    };
    messages.iter().map(written).collect()
}

/// A whole frame of each kind of request of a peer.
pub fn peer_frames() -> Vec<Vec<u8>> {
    let written = |message: &PeerRequest| {
        let mut out = Vec::new();
        message.write(0x700, &mut out);
        out
    };
    peer_requests(1, 100, 7).iter().map(written).collect()
}

/// With partitions of `n` owners; every time, number and size is `number`, and dots are of `seq`.
fn peer_requests(n: u8, number: u64, seq: u64) -> Vec<PeerRequest> {
    let dot = Dot(ACTOR, seq);
    let partition = Partition { n, index: 3 };
    let mut object = Object::absent(Context::new());
    object.write(dot, (OpId([7; 16]), Hlc(number)), &Context::new(), None);
    let seqs = SeqSet::from((seq / 2, vec![(seq / 2 + 2, seq)]));
    let mut clock = Clock::new();
    clock.insert(dot);
    let replicate = Replicate {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(KEY.as_bytes()),
        object: object.encode(),
        dots: vec![dot],
        durability: Durability::Sync,
        purpose: Purpose::Write,
        deadline_ms: number as u32,
    };
    let (epoch, bucket, key) = (Epoch(1), BucketId(1), replicate.key.clone());
    let bytes_max = number as u32;
    vec![
        PeerRequest::Greet(Greet { minor: PROTOCOL_MINOR, cluster: CLUSTER, epoch, actor: ACTOR, wall_ms: number }),
        PeerRequest::Ping(Ping { number, wall_ms: number, clocks: vec![ClockNews { partition, actor: ACTOR, seqs }] }),
        PeerRequest::Replicate(replicate.clone()),
        PeerRequest::Fetch(Fetch {
            epoch,
            bucket,
            key,
            context_for: None,
            deadline_ms: number as u32,
            request_id: None,
            held: vec![Dot(ACTOR, number), Dot(ACTOR, 0)],
        }),
        PeerRequest::Pull(Pull { epoch, partition, clock, bytes_max }),
        PeerRequest::Sync(SyncRequest { epoch, partition, after: None, bytes_max }),
        PeerRequest::StoreHint(StoreHint { target: NodeId(1), replicate }),
        PeerRequest::Coordinate(Coordinate { write: put(KEY, b"value") }),
    ]
}

/// Requests of a peer whose every number is at its end; of a cluster whose two nodes own everything.
pub fn extreme_requests(cluster: &Cluster) -> Vec<PeerRequest> {
    let n = cluster.layout.topology().buckets[0].n;
    let mut all = Vec::new();
    for number in [0, u64::MAX] {
        for seq in [1, u64::MAX / 2, u64::MAX] {
            // The deadline of a write that waits for an owner who is not there would be waited for.
            let requests = peer_requests(n, number, seq).into_iter();
            all.extend(requests.filter(|request| !matches!(request, PeerRequest::Coordinate(_))));
        }
    }
    all
}
