//! Who may connect to which plane, and what bad bytes do: a real node, and everything thrown at it.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::type_complexity)]

mod hostile;
mod real;

use quorate_ring::id::{ClusterId, NodeId};
use quorate_ring::wire::client::ClientReply;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{Greet, PeerReply, PeerRequest};
use quorate_ring::wire::{ALPN_CLIENT, ALPN_PEER, ALPN_SYNC, PROTOCOL_MINOR, server_name};
use real::certs::{Authority, Identity, Validity};
use real::dial::{Caller, endpoint};
use real::lane::name_of;
use real::{CLUSTER, Cluster, RealNode};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plane {
    Client,
    Peer,
}

impl Plane {
    fn alpn(self) -> &'static [u8] {
        match self {
            Plane::Client => ALPN_CLIENT,
            Plane::Peer => ALPN_PEER,
        }
    }
}

/// A node that is alone in a cluster of two: node 2 is played by the tests.
struct Alone {
    cluster: Cluster,
    node: RealNode,
}

impl Alone {
    /// Each key has `n` owners.
    fn start(n: u8) -> Self {
        let cluster = Cluster::new(2, n, "");
        cluster.init(1);
        let node = cluster.start(1);
        Self { cluster, node }
    }

    /// Connects to a plane and says what one says there first; the reason, if that is not answered.
    async fn attempt(&self, plane: Plane, identity: Option<&Identity>, alpn: &[u8]) -> Result<(), String> {
        let socket = endpoint();
        let caller = Caller { identity, trust: &self.cluster.node_ca.certificate, alpn, server_name: &name_of(1) };
        match plane {
            Plane::Client => {
                let mut lane = caller.lane(&socket, self.node.client_address).await?;
                lane.hello(Some(CLUSTER))
                    .await
                    .map(|reply| assert!(matches!(reply, ClientReply::Hello(_)), "{reply:?}"))
            }
            Plane::Peer => {
                let mut lane = caller.lane(&socket, self.node.peer_address).await?;
                let reply = lane.ask_peer(0x100, &greet()).await?;
                assert!(matches!(reply, PeerReply::Greeted(_)), "{reply:?}");
                Ok(())
            }
        }
    }
}

fn greet() -> PeerRequest {
    let actor = quorate_ring::id::ActorId::new(NodeId(2), 7);
    let epoch = quorate_ring::id::Epoch(1);
    PeerRequest::Greet(Greet { minor: PROTOCOL_MINOR, cluster: CLUSTER, epoch, actor, wall_ms: 1 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cell_of_the_matrix_of_connections() {
    let alone = Alone::start(1);
    let (nodes, clients) = (&alone.cluster.node_ca, &alone.cluster.client_ca);
    let (false_nodes, false_clients) = (Authority::new("node CA"), Authority::new("client CA"));
    let node = |authority: &Authority, validity| authority.issue(&name_of(2), validity);
    let client = |authority: &Authority, validity| authority.issue("client-test.quorate", validity);
    let (good_node, good_client) = (node(nodes, Validity::Now), client(clients, Validity::Now));
    let (forged_node, forged_client) = (node(&false_nodes, Validity::Now), client(&false_clients, Validity::Now));
    let (old_node, old_client) = (node(nodes, Validity::Expired), client(clients, Validity::Expired));
    let (early_node, early_client) = (node(nodes, Validity::NotYet), client(clients, Validity::NotYet));
    let stranger = nodes.issue(&name_of(9), Validity::Now);
    let other_cluster = nodes.issue(&server_name(ClusterId([9; 16]), NodeId(2)), Validity::Now);
    let itself = nodes.issue(&name_of(1), Validity::Now);
    // What is shown, on which plane, with which ALPN, and a word of what the caller is told; none: it is let in.
    let matrix: [(&str, Plane, Option<&Identity>, &[u8], Option<&str>); 24] = [
        ("a node, to copy", Plane::Peer, Some(&good_node), ALPN_SYNC, None),
        ("a client", Plane::Client, Some(&good_client), ALPN_CLIENT, None),
        ("a node", Plane::Peer, Some(&good_node), ALPN_PEER, None),
        ("a client, to copy", Plane::Peer, Some(&good_client), ALPN_SYNC, Some("UnknownIssuer")),
        ("no certificate", Plane::Client, None, ALPN_CLIENT, Some("no certificates")),
        ("no certificate", Plane::Peer, None, ALPN_PEER, Some("no certificates")),
        ("forged CA", Plane::Client, Some(&forged_client), ALPN_CLIENT, Some("BadSignature")),
        ("forged CA", Plane::Peer, Some(&forged_node), ALPN_PEER, Some("BadSignature")),
        ("expired", Plane::Client, Some(&old_client), ALPN_CLIENT, Some("expired")),
        ("expired", Plane::Peer, Some(&old_node), ALPN_PEER, Some("expired")),
        ("not valid yet", Plane::Client, Some(&early_client), ALPN_CLIENT, Some("not valid yet")),
        ("not valid yet", Plane::Peer, Some(&early_node), ALPN_PEER, Some("not valid yet")),
        ("client on the peer plane", Plane::Peer, Some(&good_client), ALPN_PEER, Some("UnknownIssuer")),
        ("node on the client plane", Plane::Client, Some(&good_node), ALPN_CLIENT, Some("UnknownIssuer")),
        ("ALPN of peers, to clients", Plane::Client, Some(&good_client), ALPN_PEER, Some("known protocol")),
        ("ALPN of clients, to peers", Plane::Peer, Some(&good_node), ALPN_CLIENT, Some("known protocol")),
        ("unknown ALPN", Plane::Client, Some(&good_client), b"h3", Some("known protocol")),
        ("unknown ALPN", Plane::Peer, Some(&good_node), b"h3", Some("known protocol")),
        ("no ALPN", Plane::Client, Some(&good_client), b"", Some("known protocol")),
        ("no ALPN", Plane::Peer, Some(&good_node), b"", Some("known protocol")),
        ("client, as to clients", Plane::Peer, Some(&good_client), ALPN_CLIENT, Some("known protocol")),
        ("a node not in the topology", Plane::Peer, Some(&stranger), ALPN_PEER, Some("in topology epoch 1")),
        ("a node of another cluster", Plane::Peer, Some(&other_cluster), ALPN_PEER, Some("in topology epoch 1")),
        ("the node itself", Plane::Peer, Some(&itself), ALPN_PEER, Some("no other node of cluster")),
    ];
    for (what, plane, identity, alpn, expected) in matrix {
        let got = alone.attempt(plane, identity, alpn).await;
        match expected {
            None => assert_eq!(got, Ok(()), "{what} on {plane:?}"),
            Some(word) => {
                let reason = got.expect_err(&format!("{what} on {plane:?} was let in"));
                assert!(reason.contains(word), "{what} on {plane:?}: {reason}");
                assert_ne!(reason, "no answer", "{what} on {plane:?}");
            }
        }
    }
    let refused =
        |plane| alone.node.metric(&format!("quorate_connections_refused_total{{plane=\"{plane}\",reason=\"tls\"}}"));
    assert_eq!((refused("client"), refused("peer")), (8.0, 10.0));
    assert_eq!(alone.attempt(Plane::Client, Some(&good_client), Plane::Client.alpn()).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_does_not_talk_to_a_node_that_it_does_not_trust() {
    let alone = Alone::start(1);
    let (socket, identity) = (endpoint(), alone.cluster.client_identity());
    let false_ca = Authority::new("node CA");
    for (trust, name, word) in [
        (&false_ca.certificate, name_of(1), "invalid peer certificate"),
        (&alone.cluster.node_ca.certificate, name_of(2), "not valid for name"),
    ] {
        let caller = Caller { identity: Some(&identity), trust, alpn: ALPN_CLIENT, server_name: &name };
        let refused = caller.connect(&socket, alone.node.client_address).await.unwrap_err();
        assert!(refused.contains(word), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_of_another_cluster_or_protocol_is_refused_and_nothing_goes_before_it() {
    let alone = Alone::start(1);
    let (socket, identity) = (endpoint(), alone.cluster.client_identity());
    let caller = Caller {
        identity: Some(&identity),
        trust: &alone.cluster.node_ca.certificate,
        alpn: ALPN_CLIENT,
        server_name: &name_of(1),
    };
    let mut lane = caller.lane(&socket, alone.node.client_address).await.unwrap();
    let early = lane.put("k", b"v").await.unwrap_err();
    assert!(early.contains("first message on a connection is Hello"), "{early}");
    let yours = ClusterId([1; 16]);
    let wrong = lane.hello(Some(yours)).await.unwrap();
    assert_eq!(wrong, ClientReply::Refused(Refusal::WrongCluster { yours, ours: CLUSTER }));
    assert!(lane.put("k", b"v").await.is_err(), "a refused hello lets nothing in");
    let ClientReply::Hello(hello) = lane.hello(None).await.unwrap() else { panic!("no hello") };
    assert_eq!(hello.topology, alone.cluster.layout.topology().source());
}

/// How long to throw things at the node: a few seconds, or as many as `QUORATE_PLANES_SECONDS` says.
fn hostile_time() -> Duration {
    let seconds = std::env::var("QUORATE_PLANES_SECONDS").map_or(4, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

/// Keys of which the node has the only copy.
fn own_keys(cluster: &Cluster, count: usize) -> Vec<String> {
    let bucket = &cluster.layout.topology().buckets[0];
    let own = |key: &String| {
        let partition = cluster.layout.partition(bucket, key.as_bytes());
        cluster.layout.preference(partition).unwrap().owners() == [NodeId(1)]
    };
    (0..).map(|i| format!("kept-{i}")).filter(own).take(count).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_and_mutated_datagrams_and_frames_leave_the_node_serving() {
    const RESIDENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
    let mut alone = Alone::start(1);
    let (socket, identity) = (endpoint(), alone.cluster.client_identity());
    let caller = Caller {
        identity: Some(&identity),
        trust: &alone.cluster.node_ca.certificate,
        alpn: ALPN_CLIENT,
        server_name: &name_of(1),
    };
    let mut lane = caller.lane(&socket, alone.node.client_address).await.unwrap();
    lane.hello(None).await.unwrap();
    let keys = own_keys(&alone.cluster, 50);
    for key in &keys {
        lane.put(key, key.as_bytes()).await.unwrap();
    }
    let storm = hostile::Storm::begin(&alone.cluster, &alone.node, Instant::now() + hostile_time());
    let (mut asked, mut resident) = (0, 0);
    while !storm.is_over() {
        let key = &keys[asked % keys.len()];
        assert_eq!(lane.get(key).await.unwrap(), [key.as_bytes()], "in the middle of it");
        asked += 1;
        if asked % 64 == 0 {
            resident = resident.max(alone.node.resident_bytes());
        }
    }
    let thrown = storm.end().await;
    assert!(alone.node.is_running(), "{}", alone.node.log());
    for key in &keys {
        assert_eq!(lane.get(key).await.unwrap(), [key.as_bytes()], "nothing stored is lost");
    }
    assert!(resident < RESIDENT_BYTES_MAX, "{resident} bytes resident");
    println!("{asked} reads in the middle of {thrown:?}; {} MiB resident at the most", resident >> 20);
    assert!(thrown.datagrams > 500 && thrown.mutated_datagrams > 100, "{thrown:?}");
    assert!(thrown.closed_with_reason > 20 && thrown.refused_as_malformed > 20, "{thrown:?}");
    assert_eq!(alone.node.admin("/readyz").unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_of_bad_frame_is_answered_with_what_is_wrong() {
    let alone = Alone::start(1);
    let (client, peer) = (alone.cluster.client_identity(), alone.cluster.node_identity(2));
    // A map with a field that is not known, and that nests.
    let nested = [b"\x81\xa1x".to_vec(), vec![0x91; 60_000], vec![0xc0]].concat();
    let mut oversized = hostile::frame(1, 1, b"");
    oversized[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut damaged = hostile::frame(5, 1, b"\x80");
    *damaged.last_mut().unwrap() ^= 1;
    let mut versioned = hostile::frame(5, 1, b"\x80");
    versioned[4] = 9;
    let whole = hostile::frame(5, 1, b"\x80");
    // Bytes, whether the lane is ended behind them, and what is said to them.
    let cases: [(&[u8], bool, &str); 7] = [
        (&oversized, false, "over the limit"),
        (&damaged, false, "checksum"),
        (&versioned, false, "frame version 9"),
        (&whole[..whole.len() - 1], true, "ended within a frame"),
        (&hostile::frame(1, 7, &nested), false, "depth limit exceeded"),
        (&hostile::frame(200, 7, b"\x80"), false, "message kind 200 is not known"),
        (&hostile::frame(1, 7, b"\x80\x80"), false, "does not decode"),
    ];
    for (plane, identity, address) in
        [(Plane::Client, &client, alone.node.client_address), (Plane::Peer, &peer, alone.node.peer_address)]
    {
        for (bytes, ended, word) in cases {
            let caller = Caller {
                identity: Some(identity),
                trust: &alone.cluster.node_ca.certificate,
                alpn: plane.alpn(),
                server_name: &name_of(1),
            };
            let socket = endpoint();
            let mut lane = caller.lane(&socket, address).await.unwrap();
            lane.write(bytes).await.unwrap();
            if ended {
                lane.send.finish().unwrap();
            }
            let said = match lane.frame().await {
                Ok(frame) => String::from_utf8_lossy(&frame.payload).into_owned(),
                Err(reason) => reason,
            };
            assert!(said.contains(word), "{plane:?}: expected {word:?}, got {said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_clock_and_timestamps_out_of_this_world_are_survived() {
    let mut alone = Alone::start(2);
    let identity = alone.cluster.node_identity(2);
    let caller = Caller {
        identity: Some(&identity),
        trust: &alone.cluster.node_ca.certificate,
        alpn: ALPN_PEER,
        server_name: &name_of(1),
    };
    let socket = endpoint();
    let mut lane = caller.lane(&socket, alone.node.peer_address).await.unwrap();
    for message in hostile::extreme_requests(&alone.cluster) {
        let reply = lane.ask_peer(0x300, &message).await;
        assert!(alone.node.is_running(), "{message:?} ended the node:\n{}", alone.node.log());
        reply.unwrap_or_else(|reason| panic!("{message:?}: {reason}"));
    }
    let (_, body) = alone.node.admin("/status").unwrap();
    assert!(body.contains("\"state\":\"serving\""), "{body}");
}
