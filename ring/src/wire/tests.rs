use super::client::*;
use super::failure::*;
use super::peer::*;
use super::*;
use crate::id::{ActorId, BucketId, ClusterId, Epoch, NodeId, OpId, Partition};
use crate::topology::{Count, Durability, QuorumKind};
use crate::version::{Context, ContextToken, Dot, Hlc, SeqSet};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

const ACTOR: ActorId = ActorId((1 << 48) | 0xabcd);

fn write_request() -> WriteRequest {
    WriteRequest {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(b"key"),
        change: Change::Put { value: Bytes::from_static(b"value"), expires_ms: Some(5) },
        supersede: Supersede::Seen(ContextToken::seal(
            ClusterId([7; 16]),
            BucketId(1),
            b"key",
            &Context::of(Dot(ACTOR, 3)),
        )),
        op_id: OpId([9; 16]),
        hlc: Hlc(77),
        r: Some(Count::Quorum),
        w: Some(Count::Exactly(2)),
        quorum: Some(QuorumKind::Sloppy),
        durability: None,
        deadline_ms: 5000,
    }
}

fn ack() -> Ack {
    Ack {
        node: NodeId(1),
        standing: Standing::Fallback { target: NodeId(2) },
        durability: Durability::Sync,
        sent_us: 1,
        acked_us: 2,
        took_us: 3,
    }
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let mut made = Vec::new();
    let mut client_request = |name, message: ClientRequest| {
        let mut out = Vec::new();
        message.write(42, &mut out);
        made.push((name, out));
    };
    client_request("hello", ClientRequest::Hello(Hello { minor: 1, cluster: Some(ClusterId([7; 16])) }));
    client_request("write", ClientRequest::Write(write_request()));
    let read = ReadRequest {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(b"key"),
        r: None,
        quorum: None,
        blocking_repair: false,
        deadline_ms: 5000,
        request_id: None,
    };
    client_request("read", ClientRequest::Read(read));
    let partition = Partition { n: 3, index: 7 };
    let log = LogRequest { epoch: Epoch(1), partition, after: Some(Dot(ACTOR, 2)), bytes_max: 4096 };
    client_request("log", ClientRequest::Log(log));
    let mut client_reply = |name, message: ClientReply| {
        let mut out = Vec::new();
        message.write(42, &mut out);
        made.push((name, out));
    };
    client_reply("refused", ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 }));
    let uncertain = Uncertain { doubt: Doubt::Deadline, needed: 2, acks: vec![ack()] };
    client_reply("unknown", ClientReply::Unknown(uncertain));
    let record = LogRecord { dot: Dot(ACTOR, 9), bucket: BucketId(1), key: Bytes::from_static(b"key") };
    let base = Context::of(Dot(ACTOR, 3));
    client_reply("log-page", ClientReply::LogPage(LogPage { actor: ACTOR, base, records: vec![record], done: true }));
    let mut peer_request = |name, message: PeerRequest| {
        let mut out = Vec::new();
        message.write(42, &mut out);
        made.push((name, out));
    };
    let replicate = Replicate {
        epoch: Epoch(1),
        bucket: BucketId(1),
        key: Bytes::from_static(b"key"),
        object: Bytes::from_static(b"object"),
        dots: vec![Dot(ACTOR, 4)],
        durability: Durability::Sync,
        purpose: Purpose::Write,
        deadline_ms: 5000,
    };
    peer_request("replicate", PeerRequest::Replicate(replicate));
    let news =
        ClockNews { partition: Partition { n: 3, index: 7 }, actor: ACTOR, seqs: SeqSet::from((5, vec![(7, 9)])) };
    peer_request("ping", PeerRequest::Ping(Ping { number: 1, wall_ms: 2, clocks: vec![news] }));
    let mut repair = Vec::new();
    ClientRequest::Repair(RepairRequest { partition: Some(Partition { n: 3, index: 7 }) }).write(42, &mut repair);
    made.push(("repair", repair));
    made
}

/// Changing any of these bytes cuts the cluster off from its peers and clients: raise the version instead.
#[test]
fn golden_frames() {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let made: String = frames().iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    assert_eq!(made, include_str!("../../golden/frames_v3.hex"), "frames made now:\n{made}");
}

#[test]
fn frames_come_back_whole_however_they_are_cut() {
    let all: Vec<u8> = frames().into_iter().flat_map(|(_, bytes)| bytes).collect();
    for step in [1, 7, 19, 100, all.len()] {
        let (mut buffer, mut count) = (BytesMut::new(), 0);
        for part in all.chunks(step) {
            buffer.extend_from_slice(part);
            while let Some(frame) = take_frame(&mut buffer, FRAME_BYTES_MAX).unwrap() {
                assert_eq!(frame.request, 42);
                count += 1;
            }
        }
        assert_eq!((count, buffer.len()), (frames().len(), 0));
    }
}

#[test]
fn a_newer_peer_may_add_fields() {
    #[derive(serde::Serialize)]
    struct Newer {
        minor: u16,
        cluster: Option<ClusterId>,
        colour: &'static str,
    }
    let bytes = rmp_serde::to_vec_named(&Newer { minor: 2, cluster: None, colour: "green" }).unwrap();
    assert_eq!(ClientRequest::decode(1, &bytes).unwrap(), ClientRequest::Hello(Hello { minor: 2, cluster: None }));
}

#[test]
fn an_oversized_frame_is_refused_by_its_header_alone() {
    let mut buffer = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]);
    let got = take_frame(&mut buffer, FRAME_BYTES_MAX);
    assert_eq!(got, Err(FrameError::TooLong { length: 0xffff_ffff, limit: FRAME_BYTES_MAX }));
}

#[test]
fn deep_nesting_is_refused() {
    let mut bytes = vec![0x91; 100_000];
    bytes.push(0xc0);
    for kind in 0..=255 {
        assert!(ClientRequest::decode(kind, &bytes).is_err());
        assert!(PeerRequest::decode(kind, &bytes).is_err());
    }
}

#[test]
fn server_names_name_nodes_of_this_cluster_only() {
    let (ours, theirs) = (ClusterId([7; 16]), ClusterId([8; 16]));
    let name = server_name(ours, NodeId(12));
    assert_eq!(node_of_server_name(ours, &name), Some(NodeId(12)));
    assert_eq!(node_of_server_name(theirs, &name), None);
    assert_eq!(node_of_server_name(ours, "node-x.y"), None);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(kind in any::<u8>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ClientRequest::decode(kind, &bytes);
        let _ = ClientReply::decode(kind, &bytes);
        let _ = PeerRequest::decode(kind, &bytes);
        let _ = PeerReply::decode(kind, &bytes);
        let _ = take_frame(&mut BytesMut::from(&bytes[..]), FRAME_BYTES_MAX);
    }

    /// One flipped bit is never read as a good frame with the same length.
    #[test]
    fn a_flipped_bit_is_noticed(which in 0usize..10, bit in any::<prop::sample::Index>()) {
        let (_, good) = &frames()[which];
        let mut bad = good.clone();
        let bit = bit.index(bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        let taken = take_frame(&mut BytesMut::from(&bad[..]), FRAME_BYTES_MAX);
        prop_assert!(!matches!(taken, Ok(Some(_))));
    }

    #[test]
    fn mutated_payloads_never_panic(which in 0usize..10, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (_, frame) = &frames()[which];
        let kind = frame[5];
        let mut payload = frame[HEADER_BYTES..].to_vec();
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = ClientRequest::decode(kind, &payload);
        let _ = ClientReply::decode(kind, &payload);
        let _ = PeerRequest::decode(kind, &payload);
    }
}
