//! What a caller is told when nodes refuse, fall silent, or break off: stories with scripted nodes.

use crate::fake::{CLUSTER, FakeCluster, Play, answer, receipt};
use quorate_client::*;
use quorate_ring::id::{BucketId, Epoch};
use quorate_ring::version::Context;
use quorate_ring::wire::client::{ClientReply, ClientRequest, Uncertain};
use std::time::{Duration, Instant};

const BUCKET: &str = "n = 3\nr = 2\nw = 2\nvalue_bytes_max = 1000";

fn owners(client: &Client, key: &str) -> Vec<NodeId> {
    let layout = client.layout();
    let bucket = layout.topology().bucket_named("default").unwrap();
    layout.preference(layout.partition(bucket, key.as_bytes())).unwrap().owners().to_vec()
}

fn short() -> WriteOptions {
    WriteOptions { deadline: Duration::from_millis(400), ..WriteOptions::default() }
}

fn unavailable() -> Play {
    Play::Answer(ClientReply::Refused(Refusal::Unavailable { needed: 2, got: 1 }))
}

fn uncertain() -> Play {
    let doubt = Uncertain { doubt: Doubt::OwnersFailed, needed: 2, acks: Vec::new() };
    Play::Answer(ClientReply::Unknown(doubt))
}

#[tokio::test]
async fn a_put_goes_straight_to_the_first_owner() {
    let cluster = FakeCluster::start(5, BUCKET);
    let client = cluster.client().await;
    for key in ["a", "b", "c", "d", "e", "f"] {
        let first = owners(&client, key)[0];
        let receipt = client.put("default", key, "v", &WriteOptions::default()).await.unwrap();
        assert_eq!(receipt.coordinator, first);
        let (node, write) = cluster.writes().pop().unwrap();
        assert_eq!((node, write.epoch, &write.supersede), (first, Epoch(1), &Supersede::Local));
        assert!((1..5_000).contains(&write.deadline_ms), "{}", write.deadline_ms);
    }
    client.delete("default", "a", &WriteOptions::default()).await.unwrap();
    assert_eq!(cluster.writes().pop().unwrap().1.supersede, Supersede::Latest);
    assert_eq!(cluster.writes().len(), 7);
}

#[tokio::test]
async fn the_newest_timestamp_seen_goes_along_with_each_write() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let first = owners(&client, "k")[0];
    cluster.play(first, Play::Answer(ClientReply::Written(receipt(first, 900, false))));
    cluster.play(first, Play::Answer(ClientReply::Read(answer(&[("x", 1_500), ("y", 40)]))));
    client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert_eq!(client.hlc(), Hlc(900));
    client.get("default", "k", &ReadOptions::default()).await.unwrap();
    client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert_eq!(cluster.writes().pop().unwrap().1.hlc, Hlc(1_500));
}

#[tokio::test]
async fn a_refusal_is_tried_again_elsewhere_under_the_same_op_id() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let owners = owners(&client, "k");
    cluster.play(owners[0], unavailable());
    cluster.play(owners[1], Play::Answer(ClientReply::Refused(Refusal::ShuttingDown)));
    let receipt = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert_eq!(receipt.coordinator, owners[2]);
    let writes = cluster.writes();
    assert_eq!(writes.iter().map(|(node, _)| *node).collect::<Vec<_>>(), owners);
    assert!(writes.iter().all(|(_, write)| write.op_id == writes[0].1.op_id));
}

#[tokio::test]
async fn refused_everywhere_is_not_applied() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    for _ in 0..6 {
        cluster.play_everywhere(unavailable);
    }
    let error = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap_err();
    let WriteError::NotApplied(Declined::Refused { node: Some(_), refusal }) = error else { panic!("{error:?}") };
    assert_eq!(refusal, Refusal::Unavailable { needed: 2, got: 1 });
    assert!((3..=6).contains(&cluster.writes().len()), "{}", cluster.writes().len());
}

#[tokio::test]
async fn what_cannot_succeed_is_not_tried_again() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let first = owners(&client, "k")[0];
    cluster.play(first, Play::Answer(ClientReply::Refused(Refusal::TooManySiblings { siblings: 64 })));
    let error = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap_err();
    assert!(matches!(
        error,
        WriteError::NotApplied(Declined::Refused { refusal: Refusal::TooManySiblings { .. }, .. })
    ));
    assert_eq!(cluster.writes().len(), 1);
}

#[tokio::test]
async fn a_link_that_breaks_under_a_write_is_tried_again_under_its_op_id() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let owners = owners(&client, "k");
    cluster.play(owners[0], Play::Break);
    cluster.play(owners[1], Play::Answer(ClientReply::Written(receipt(owners[1], 5, true))));
    let receipt = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert!(receipt.repeated);
    let writes = cluster.writes();
    assert_eq!(writes.len(), 2);
    assert_eq!(writes[0].1.op_id, writes[1].1.op_id);
}

#[tokio::test]
async fn once_in_doubt_a_later_refusal_does_not_make_it_not_applied() {
    for doubtful in [|| Play::Break, uncertain] {
        let cluster = FakeCluster::start(3, BUCKET);
        let client = cluster.client().await;
        let first = owners(&client, "k")[0];
        cluster.play(first, doubtful());
        for _ in 0..6 {
            cluster.play_everywhere(unavailable);
        }
        let error = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap_err();
        let WriteError::Unknown(unknown) = error else { panic!("{error:?}") };
        assert_eq!(unknown.node, first);
        assert_eq!(unknown.op_id, cluster.writes()[0].1.op_id);
        assert!(cluster.writes().len() > 1);
    }
}

#[tokio::test]
async fn silence_is_unknown_for_a_write_and_nothing_for_a_read() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    cluster.play_everywhere(|| Play::Silence);
    let began = Instant::now();
    let error = client.put("default", "k", "v", &short()).await.unwrap_err();
    let WriteError::Unknown(unknown) = error else { panic!("{error:?}") };
    assert_eq!(unknown.cause, UnknownCause::Deadline);
    assert!((380..700).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    cluster.cancellations(1).await;
    assert_eq!(cluster.writes().len(), 1, "there was no time for another try");

    cluster.play_everywhere(|| Play::Silence);
    let options = ReadOptions { deadline: Duration::from_millis(200), ..ReadOptions::default() };
    let error = client.get("default", "k", &options).await.unwrap_err();
    assert_eq!(error, Declined::DeadlinePassed(Duration::from_millis(200)));
    cluster.cancellations(2).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    cluster.play_everywhere(|| Play::Silence);
    let options = WriteOptions::default();
    let put = client.put("default", "k", "v", &options);
    assert!(tokio::time::timeout(Duration::from_millis(100), put).await.is_err());
    cluster.cancellations(1).await;
}

#[tokio::test]
async fn a_newer_topology_is_fetched_and_the_request_made_again() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    cluster.set_topology(2, BUCKET);
    let stale = || Play::Answer(ClientReply::Refused(Refusal::StaleEpoch { yours: Epoch(1), ours: Epoch(2) }));
    cluster.play_everywhere(stale);
    client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert_eq!(client.layout().epoch(), Epoch(2));
    assert_eq!(cluster.writes().pop().unwrap().1.epoch, Epoch(2));
}

#[tokio::test]
async fn overload_is_waited_for() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let first = owners(&client, "k")[0];
    cluster.play(first, Play::Answer(ClientReply::Refused(Refusal::Overloaded { retry_after_ms: 150 })));
    let began = Instant::now();
    client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn what_is_over_a_limit_is_never_sent() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let plain = WriteOptions::default();
    let four = WriteOptions { w: Some(Count::Exactly(4)), ..plain.clone() };
    let elsewhere = ContextToken::seal(CLUSTER, BucketId(1), b"other", &Context::new());
    let foreign = WriteOptions { supersede: Some(Supersede::Seen(elsewhere)), ..plain.clone() };
    let long_key = vec![b'k'; 4097];
    let errors = [
        client.put("default", "", "v", &plain).await.unwrap_err(),
        client.put("default", long_key.clone(), "v", &plain).await.unwrap_err(),
        client.put("default", "k", vec![0; 1001], &plain).await.unwrap_err(),
        client.put("default", "k", "v", &four).await.unwrap_err(),
        client.put("default", "k", "v", &foreign).await.unwrap_err(),
        client.put("nowhere", "k", "v", &plain).await.unwrap_err(),
        client.get("default", long_key, &ReadOptions::default()).await.map(|_| ()).unwrap_err().into(),
    ];
    let said = [
        "1 to 4096 bytes, this one has 0",
        "1 to 4096 bytes, this one has 4097",
        "up to 1000 bytes, this one has 1001",
        "4 owners were asked for",
        "belongs to another key",
        "there is no bucket \"nowhere\"; there are default",
        "this one has 4097",
    ];
    for (error, said) in errors.iter().zip(said) {
        assert!(matches!(error, WriteError::NotApplied(_)) && error.to_string().contains(said), "{said}: {error}");
    }
    assert_eq!(cluster.heard(), Vec::new());
}

#[tokio::test]
async fn a_node_that_is_gone_is_passed_over() {
    let mut cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let owners = owners(&client, "k");
    client.get("default", "k", &ReadOptions::default()).await.unwrap();
    cluster.stop(owners[0]);
    let began = Instant::now();
    let receipt = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert_eq!(receipt.coordinator, owners[1]);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let began = Instant::now();
    client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(300), "it is known to be down: {:?}", began.elapsed());
    let only = WriteOptions { via: Via::Node(owners[0]), ..WriteOptions::default() };
    let error = client.put("default", "k", "v", &only).await.unwrap_err();
    assert!(matches!(error, WriteError::NotApplied(Declined::Unreachable(_))), "{error:?}");
    let fresh = cluster.client().await;
    assert_eq!(fresh.put("default", "k", "v", &WriteOptions::default()).await.unwrap().coordinator, owners[1]);
}

#[tokio::test]
async fn many_at_once_on_one_lane_each_get_their_own_answer() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let first = owners(&client, "k")[0];
    for i in 0..200 {
        cluster.play(
            first,
            if i % 3 == 0 { Play::Late } else { Play::Answer(ClientReply::Written(receipt(first, 7, true))) },
        );
    }
    let puts = (0..200).map(|_| {
        let client = client.clone();
        async move { client.put("default", "k", "v", &WriteOptions::default()).await.unwrap().repeated }
    });
    let answers = puts.collect::<tokio::task::JoinSet<_>>().join_all().await;
    assert_eq!(answers.iter().filter(|repeated| !**repeated).count(), 67);
    assert_eq!(cluster.writes().len(), 200);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_apart_from_nodes_that_are_down() {
    let cluster = FakeCluster::start(2, "n = 1");
    cluster.swap_client_certificate();
    let Err(error) = Client::connect(&cluster.profile).await else { panic!("connected") };
    let ConnectError::Unreachable(causes) = error else { panic!("{error}") };
    assert!(causes.all_tls() && causes.0.len() == 2, "{causes}");

    let mut nowhere = cluster.profile.clone();
    nowhere.nodes = [(NodeId(1), "127.0.0.1:9".parse().unwrap())].into();
    let began = Instant::now();
    let Err(ConnectError::Unreachable(causes)) = Client::connect(&nowhere).await else { panic!("connected") };
    assert!(!causes.all_tls(), "{causes}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_node_that_talks_nonsense_loses_its_connection_only() {
    let cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    let owners = owners(&client, "k");
    cluster.play(owners[0], Play::Answer(ClientReply::Read(answer(&[]))));
    let error = client.put("default", "k", "v", &WriteOptions::default()).await.unwrap_err();
    let WriteError::Unknown(unknown) = error else { panic!("{error:?}") };
    assert!(unknown.cause.to_string().contains("does not fit the question"), "{unknown}");
    client.put("default", "k", "v", &WriteOptions::default()).await.unwrap();
}

#[tokio::test]
async fn reading_around_the_first_owner_spreads_over_the_others() {
    let cluster = FakeCluster::start(5, BUCKET);
    let client = cluster.client().await;
    let around = ReadOptions { via: Via::NotFirstOwner, ..ReadOptions::default() };
    for i in 0..40 {
        client.get("default", format!("key {i}"), &around).await.unwrap();
    }
    let mut used: Vec<NodeId> = Vec::new();
    for (node, request) in cluster.heard() {
        let ClientRequest::Read(read) = request else { panic!("{request:?}") };
        assert_ne!(node, owners(&client, std::str::from_utf8(&read.key).unwrap())[0]);
        used.push(node);
    }
    used.sort_unstable();
    used.dedup();
    assert_eq!(used.len(), 5);
}

#[tokio::test]
async fn status_does_not_wait_for_those_that_do_not_answer() {
    let mut cluster = FakeCluster::start(3, BUCKET);
    let client = cluster.client().await;
    cluster.stop(NodeId(2));
    let began = Instant::now();
    let answers = client.status(Duration::from_millis(500)).await;
    assert!(began.elapsed() < Duration::from_millis(900));
    let up: Vec<_> = answers.iter().map(|(node, answer)| (node.0, answer.is_ok())).collect();
    assert_eq!(up, [(1, true), (2, false), (3, true)]);
}
