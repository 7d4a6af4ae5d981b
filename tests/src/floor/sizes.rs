//! How long the frames and rows of the store are, for a key and a value of given lengths: found by making one of each.

use bytes::Bytes;
use quorate_node::kernel::HELD_VALUE_BYTES;
use quorate_ring::id::{ActorId, BucketId, ClusterId, Epoch, NodeId, OpId};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Content, Context, ContextToken, Dot, Hlc, Object};
use quorate_ring::wire::client::{
    Ack, Answered, Change, ClientReply, ClientRequest, ReadAnswer, ReadRequest, Receipt, Sibling, Standing, Supersede,
    WriteRequest,
};
use quorate_ring::wire::peer::{Fetch, Fetched, PeerReply, PeerRequest, Purpose, Replicate, Replicated};

/// Of a key, as `quorate bench` makes them.
pub const KEY_BYTES: usize = 18;
const ACTOR: ActorId = ActorId(0x0001_7777_7777_7777);
const OP: OpId = OpId([7; 16]);
const CLUSTER: ClusterId = ClusterId([7; 16]);
const BUCKET: BucketId = BucketId(1);
const HLC: Hlc = Hlc(1 << 62);
const US: u64 = 5_000;
/// Names in front of what is stored: n, partition, bucket; and of a log entry: n, partition, actor, seq.
const OBJECT_KEY_BYTES: usize = 7 + KEY_BYTES;
const LOG_KEY_BYTES: usize = 19;
const LOG_ENTRY_BYTES: usize = 6 + KEY_BYTES;

/// In bytes; frames with their headers.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub object_key: usize,
    pub object: usize,
    pub log_key: usize,
    pub log_entry: usize,
    pub write: usize,
    pub written: usize,
    pub replicate: usize,
    pub replicated: usize,
    pub read: usize,
    pub found: usize,
    pub fetch: usize,
    pub fetched: usize,
}

fn key() -> Bytes {
    Bytes::from(vec![b'k'; KEY_BYTES])
}

fn token() -> ContextToken {
    ContextToken::seal(CLUSTER, BUCKET, &key(), &Context::of(Dot(ACTOR, 1_000)))
}

fn client_frame(request: &ClientRequest) -> usize {
    let mut frame = Vec::new();
    request.write(1, &mut frame);
    frame.len()
}

fn reply_frame(reply: &ClientReply) -> usize {
    let mut frame = Vec::new();
    reply.write(1, &mut frame);
    frame.len()
}

fn peer_frame(request: &PeerRequest) -> usize {
    let mut frame = Vec::new();
    request.write(1, &mut frame);
    frame.len()
}

fn peer_reply_frame(reply: &PeerReply) -> usize {
    let mut frame = Vec::new();
    reply.write(1, &mut frame);
    frame.len()
}

impl Sizes {
    pub fn of(value_bytes: usize) -> Self {
        let value = Bytes::from(vec![b'v'; value_bytes]);
        let dot = Dot(ACTOR, 1_000);
        let mut object = Object::default();
        let content = Content { value: value.clone(), hlc: HLC, expires_ms: None, op_id: OP };
        object.write(dot, (OP, HLC), &Context::new(), Some(content));
        let held: Vec<Dot> = object.long(HELD_VALUE_BYTES).collect();
        let object = object.encode();
        let answer = Object::unsettled_record(&object, &Context::new(), &held).expect("it was just written");
        Self {
            object_key: OBJECT_KEY_BYTES,
            object: object.len(),
            log_key: LOG_KEY_BYTES,
            log_entry: LOG_ENTRY_BYTES,
            write: client_frame(&ClientRequest::Write(write(value.clone()))),
            written: reply_frame(&ClientReply::Written(receipt(dot))),
            replicate: peer_frame(&PeerRequest::Replicate(replicate(dot, object.clone()))),
            replicated: peer_reply_frame(&PeerReply::Replicated(Replicated {
                durability: Durability::Sync,
                took_us: US,
            })),
            read: client_frame(&ClientRequest::Read(read())),
            found: reply_frame(&ClientReply::Read(found(dot, value))),
            fetch: peer_frame(&PeerRequest::Fetch(fetch(held))),
            fetched: peer_reply_frame(&PeerReply::Fetched(Fetched { object: answer, took_us: US })),
        }
    }
}

fn write(value: Bytes) -> WriteRequest {
    WriteRequest {
        epoch: Epoch(1),
        bucket: BUCKET,
        key: key(),
        change: Change::Put { value, expires_ms: None },
        supersede: Supersede::Local,
        op_id: OP,
        hlc: HLC,
        r: None,
        w: None,
        quorum: None,
        durability: None,
        deadline_ms: 4_500,
    }
}

fn receipt(dot: Dot) -> Receipt {
    let ack = |node| Ack {
        node: NodeId(node),
        standing: Standing::Owner,
        durability: Durability::Sync,
        sent_us: US,
        acked_us: US,
        took_us: US,
    };
    Receipt {
        epoch: Epoch(1),
        coordinator: NodeId(1),
        dot,
        hlc: HLC,
        needed: 2,
        acks: vec![ack(1), ack(2)],
        context: token(),
        siblings: 1,
        repeated: false,
    }
}

fn replicate(dot: Dot, object: Bytes) -> Replicate {
    Replicate {
        epoch: Epoch(1),
        bucket: BUCKET,
        key: key(),
        object,
        dots: vec![dot],
        durability: Durability::Sync,
        purpose: Purpose::Write,
        deadline_ms: 4_500,
    }
}

fn read() -> ReadRequest {
    let (r, quorum, blocking_repair) = (None, None, false);
    ReadRequest {
        epoch: Epoch(1),
        bucket: BUCKET,
        key: key(),
        r,
        quorum,
        blocking_repair,
        deadline_ms: 4_500,
        request_id: None,
    }
}

fn found(dot: Dot, value: Bytes) -> ReadAnswer {
    let answered = |node| Answered { node: NodeId(node), sent_us: US, answered_us: US, took_us: US, siblings: 1 };
    ReadAnswer {
        epoch: Epoch(1),
        siblings: vec![Sibling { value, dot, hlc: HLC, expires_ms: None, op_id: OP }],
        context: token(),
        needed: 2,
        answered: vec![answered(1), answered(2)],
        set_aside: 0,
        repairing: Vec::new(),
        short: false,
    }
}

fn fetch(held: Vec<Dot>) -> Fetch {
    Fetch { epoch: Epoch(1), bucket: BUCKET, key: key(), context_for: None, deadline_ms: 4_500, request_id: None, held }
}
