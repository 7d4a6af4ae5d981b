//! Golden bytes of every kind of message, and of every refusal, doubt and purpose that one may carry.

use super::client::*;
use super::failure::*;
use super::peer::*;
use super::*;
use crate::id::{ActorId, BucketId, ClusterId, Epoch, NodeId, OpId, Partition};
use crate::topology::{CountError, Durability, QuorumKind};
use crate::version::{Clock, Context, ContextToken, Dot, Hlc, SeqSet, TokenError};
use bytes::Bytes;
use std::collections::BTreeSet;

const ACTOR: ActorId = ActorId((1 << 48) | 0xabcd);
const CLUSTER: ClusterId = ClusterId([7; 16]);
const EPOCH: Epoch = Epoch(3);
const BUCKET: BucketId = BucketId(2);
const KEY: Bytes = Bytes::from_static(b"key");
const OBJECT: Bytes = Bytes::from_static(b"object");
const PARTITION: Partition = Partition { n: 3, index: 7 };

fn token() -> ContextToken {
    ContextToken::seal(CLUSTER, BUCKET, b"key", &Context::of(Dot(ACTOR, 3)))
}

fn write_request(change: Change, supersede: Supersede) -> WriteRequest {
    WriteRequest {
        epoch: EPOCH,
        bucket: BUCKET,
        key: KEY,
        change,
        supersede,
        op_id: OpId([9; 16]),
        hlc: Hlc(77),
        r: None,
        w: None,
        quorum: Some(QuorumKind::Strict),
        durability: Some(Durability::Async),
        deadline_ms: 5000,
    }
}

fn client_requests() -> Vec<ClientRequest> {
    let after = Some((BUCKET, KEY));
    let put = Change::Put { value: Bytes::from_static(b"value"), expires_ms: None };
    vec![
        ClientRequest::Hello(Hello { minor: 1, cluster: None }),
        ClientRequest::Write(write_request(put.clone(), Supersede::Latest)),
        ClientRequest::Write(write_request(put, Supersede::Local)),
        ClientRequest::Write(write_request(Change::Delete, Supersede::Nothing)),
        ClientRequest::Read(ReadRequest {
            epoch: EPOCH,
            bucket: BUCKET,
            key: KEY,
            r: Some(crate::topology::Count::All),
            quorum: None,
            blocking_repair: true,
            deadline_ms: 5000,
            request_id: None,
        }),
        ClientRequest::Read(ReadRequest {
            epoch: EPOCH,
            bucket: BUCKET,
            key: KEY,
            r: None,
            quorum: None,
            blocking_repair: false,
            deadline_ms: 5000,
            request_id: Some(OpId([8; 16])),
        }),
        ClientRequest::Scan(ScanRequest {
            epoch: EPOCH,
            partition: PARTITION,
            bucket: Some(BUCKET),
            prefix: b"k".to_vec(),
            after,
            bytes_max: 4096,
        }),
        ClientRequest::Status(StatusRequest {}),
        ClientRequest::Cancel(Cancel {}),
        ClientRequest::Log(LogRequest { epoch: EPOCH, partition: PARTITION, after: None, bytes_max: 4096 }),
        ClientRequest::Repair(RepairRequest { partition: Some(PARTITION) }),
    ]
}

fn receipt() -> Receipt {
    let ack = Ack {
        node: NodeId(1),
        standing: Standing::Owner,
        durability: Durability::Async,
        sent_us: 1,
        acked_us: 2,
        took_us: 3,
    };
    Receipt {
        epoch: EPOCH,
        coordinator: NodeId(1),
        dot: Dot(ACTOR, 4),
        hlc: Hlc(78),
        needed: 2,
        acks: vec![ack],
        context: token(),
        siblings: 1,
        repeated: true,
    }
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::Unavailable { needed: 2, got: 1 },
        Refusal::WrongCluster { yours: ClusterId([8; 16]), ours: CLUSTER },
        Refusal::StaleEpoch { yours: Epoch(2), ours: EPOCH },
        Refusal::UnknownBucket { bucket: BUCKET, epoch: EPOCH },
        Refusal::KeyLength { length: 5000, limit: 4096 },
        Refusal::ValueLength { length: 5000, limit: 4096 },
        Refusal::Count(CountError { asked: 4, n: 3 }),
        Refusal::Context(TokenError::Malformed("why".to_string())),
        Refusal::Context(TokenError::Elsewhere),
        Refusal::TooManySiblings { siblings: 64 },
        Refusal::ObjectLength { length: 9, limit: 8 },
        Refusal::NotReady,
        Refusal::NotOwner,
        Refusal::Overloaded { retry_after_ms: 100 },
        Refusal::DeadlinePassed,
        Refusal::DiskReserve,
        Refusal::HintsFull { target: NodeId(2) },
        Refusal::ShuttingDown,
        Refusal::Malformed("why".to_string()),
    ]
}

fn client_replies() -> Vec<ClientReply> {
    let sibling = Sibling {
        value: Bytes::from_static(b"value"),
        dot: Dot(ACTOR, 4),
        hlc: Hlc(78),
        expires_ms: Some(5),
        op_id: OpId([9; 16]),
    };
    let answered = Answered { node: NodeId(1), sent_us: 1, answered_us: 2, took_us: 3, siblings: 1 };
    let read = ReadAnswer {
        epoch: EPOCH,
        siblings: vec![sibling],
        context: token(),
        needed: 2,
        answered: vec![answered],
        set_aside: 1,
        repairing: vec![NodeId(2)],
        short: true,
    };
    let topology = "a topology".to_string();
    let record = ScanRecord { bucket: BUCKET, key: KEY, object: OBJECT };
    let peer = PeerStatus { node: 2, state: "up".to_string(), lag_dots: 6, ..PeerStatus::default() };
    let mut replies = vec![
        ClientReply::Hello(HelloReply { minor: 1, node: NodeId(1), cluster: CLUSTER, epoch: EPOCH, topology }),
        ClientReply::Written(receipt()),
        ClientReply::Read(read),
        ClientReply::Page(ScanPage { records: vec![record], done: true, base: Context::of(Dot(ACTOR, 3)) }),
        ClientReply::Status(Box::new(NodeStatus { node: 1, peers: vec![peer], ..NodeStatus::default() })),
    ];
    replies.extend(refusals().into_iter().map(ClientReply::Refused));
    let record = LogRecord { dot: Dot(ACTOR, 4), bucket: BUCKET, key: KEY };
    let base = Context::of(Dot(ACTOR, 3));
    replies.push(ClientReply::LogPage(LogPage { actor: ACTOR, base, records: vec![record], done: false }));
    let doubts = [Doubt::Deadline, Doubt::OwnersFailed, Doubt::LinkBroke, Doubt::ShutDown];
    replies.extend(doubts.map(|doubt| ClientReply::Unknown(Uncertain { doubt, needed: 2, acks: Vec::new() })));
    replies
}

fn replicate(purpose: Purpose) -> Replicate {
    Replicate {
        epoch: EPOCH,
        bucket: BUCKET,
        key: KEY,
        object: OBJECT,
        dots: vec![Dot(ACTOR, 4)],
        durability: Durability::Async,
        purpose,
        deadline_ms: 5000,
    }
}

fn fetch(context_for: Option<OpId>, request_id: Option<OpId>, held: Vec<Dot>) -> PeerRequest {
    let (epoch, bucket, key, deadline_ms) = (EPOCH, BUCKET, KEY, 5000);
    PeerRequest::Fetch(Fetch { epoch, bucket, key, context_for, deadline_ms, request_id, held })
}

fn peer_requests() -> Vec<PeerRequest> {
    let mut clock = Clock::new();
    clock.union_actor(ACTOR, &SeqSet::from((5, vec![(7, 9)])));
    let write = write_request(Change::Delete, Supersede::Latest);
    vec![
        PeerRequest::Greet(Greet { minor: 1, cluster: CLUSTER, epoch: EPOCH, actor: ACTOR, wall_ms: 2 }),
        PeerRequest::Ping(Ping { number: 1, wall_ms: 2, clocks: Vec::new() }),
        PeerRequest::Coordinate(Coordinate { write }),
        PeerRequest::Replicate(replicate(Purpose::Write)),
        PeerRequest::Replicate(replicate(Purpose::ReadRepair)),
        fetch(Some(OpId([9; 16])), None, Vec::new()),
        fetch(None, Some(OpId([8; 16])), Vec::new()),
        fetch(None, None, vec![Dot(ACTOR, 4), Dot(ACTOR, 5)]),
        PeerRequest::Pull(Pull { epoch: EPOCH, partition: PARTITION, clock, bytes_max: 4096 }),
        PeerRequest::Sync(SyncRequest { epoch: EPOCH, partition: PARTITION, after: None, bytes_max: 4096 }),
        PeerRequest::StoreHint(StoreHint { target: NodeId(2), replicate: replicate(Purpose::Handoff) }),
    ]
}

fn peer_replies() -> Vec<PeerReply> {
    let known = vec![(PARTITION, 9)];
    let pulled = PulledObject { bucket: BUCKET, key: KEY, object: OBJECT, dots: vec![Dot(ACTOR, 4)] };
    let record = ScanRecord { bucket: BUCKET, key: KEY, object: OBJECT };
    let base = Context::of(Dot(ACTOR, 3));
    vec![
        PeerReply::Greeted(Greeted { minor: 1, epoch: EPOCH, actor: ACTOR, wall_ms: 2, known }),
        PeerReply::Pong(Pong { number: 1, wall_ms: 2, rebuilding: true }),
        PeerReply::Written(receipt()),
        PeerReply::Replicated(Replicated { durability: Durability::Sync, took_us: 3 }),
        PeerReply::Fetched(Fetched { object: OBJECT, took_us: 3 }),
        PeerReply::Refused(Refusal::NotReady),
        PeerReply::Unknown(Uncertain { doubt: Doubt::LinkBroke, needed: 0, acks: Vec::new() }),
        PeerReply::Pulled(Pulled { partition: PARTITION, objects: vec![pulled], below_floor: true, more: false }),
        PeerReply::Synced(SyncPage { partition: PARTITION, actor: ACTOR, base, records: vec![record], done: true }),
    ]
}

/// A line for each message, and the kinds that are among them.
macro_rules! lines {
    ($plane:literal, $messages:expr, $of:ty) => {{
        let (mut lines, mut kinds) = (String::new(), BTreeSet::new());
        for message in $messages {
            let mut frame = Vec::new();
            message.write(42, &mut frame);
            assert_eq!(<$of>::decode(frame[5], &frame[HEADER_BYTES..]).unwrap(), message);
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            lines += &format!("{} {} {hex}\n", $plane, message.kind());
            kinds.insert(message.kind());
        }
        // Of a kind that is known an empty payload is no message; of another the kind itself is refused.
        let known: BTreeSet<u8> =
            (0..=255).filter(|kind| !matches!(<$of>::decode(*kind, b""), Err(DecodeError::Kind(_)))).collect();
        assert_eq!(kinds, known, "{}: every kind has golden bytes", $plane);
        lines
    }};
}

/// Changing any of these bytes cuts a cluster off from its peers and clients: raise the version instead.
#[test]
fn every_kind_of_message_has_golden_bytes() {
    let made = [
        lines!("client-request", client_requests(), ClientRequest),
        lines!("client-reply", client_replies(), ClientReply),
        lines!("peer-request", peer_requests(), PeerRequest),
        lines!("peer-reply", peer_replies(), PeerReply),
    ]
    .concat();
    assert_eq!(made, include_str!("../../golden/messages_v3.hex"), "messages made now:\n{made}");
}
