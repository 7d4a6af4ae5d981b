//! Three real nodes: what a client sees of them, and how they start and end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::type_complexity)]

mod real;

use quorate_ring::id::NodeId;
use quorate_ring::wire::client::ClientRequest;
use quorate_ring::wire::{ALPN_CLIENT, HEADER_BYTES};
use real::certs::{Validity, write_identity};
use real::dial::{Caller, endpoint};
use real::lane::{Lane, get, name_of};
use real::{CLUSTER, Cluster, RealNode, program};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

async fn client(cluster: &Cluster, node: &RealNode) -> Lane {
    let (identity, name) = (cluster.client_identity(), name_of(node.id));
    let trust = &cluster.node_ca.certificate;
    let caller = Caller { identity: Some(&identity), trust, alpn: ALPN_CLIENT, server_name: &name };
    let mut lane = caller.lane(&endpoint(), node.client_address).await.unwrap();
    lane.hello(Some(CLUSTER)).await.unwrap();
    lane
}

fn three(extra_config: &str) -> (Cluster, Vec<RealNode>) {
    let cluster = Cluster::new(3, 3, extra_config);
    (1..=3).for_each(|id| cluster.init(id));
    let mut nodes: Vec<RealNode> = (1..=3).map(|id| cluster.spawn(id)).collect();
    nodes.iter_mut().for_each(RealNode::wait_ready);
    (cluster, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_put_at_one_node_is_got_from_another_whatever_the_number_of_shards() {
    let (cluster, nodes) = three("shards = 2\n");
    let mut writer = client(&cluster, &nodes[0]).await;
    let keys: Vec<String> = (0..40).map(|i| format!("key-{i}")).collect();
    for key in &keys {
        writer.put(key, key.as_bytes()).await.unwrap();
    }
    for node in &nodes[1..] {
        let mut reader = client(&cluster, node).await;
        for key in &keys {
            assert_eq!(reader.get(key).await.unwrap(), [key.as_bytes()]);
        }
    }
    let status = writer.status().await.unwrap();
    assert_eq!((status.name.as_str(), status.state.as_str()), ("n1", "serving"));
    assert_eq!((status.partitions_owned, status.writes), (32, 40), "both shards are counted: {status:?}");
    assert!(status.peers.iter().all(|peer| peer.state == "up"), "{status:?}");
    assert!(status.resident_bytes > 1 << 20 && status.disk_bytes_free > 0 && !status.version.is_empty());
    let written = nodes[0].metric("quorate_requests_total{op=\"put\",consistency=\"quorum\",outcome=\"ok\"}");
    assert_eq!(written, 40.0);
    assert!(nodes[0].metric("quorate_commit_duration_seconds_count{durability=\"sync\"}") >= 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_of_a_mebibyte_travels_and_one_over_the_limit_is_refused() {
    let (cluster, nodes) = three("");
    let mut lane = client(&cluster, &nodes[2]).await;
    let large = vec![7; 1 << 20];
    lane.put("large", &large).await.unwrap();
    assert!(client(&cluster, &nodes[0]).await.get("large").await.unwrap() == [large]);
    let refused = lane.put("larger", &vec![7; (1 << 20) + 1]).await.unwrap_err();
    assert!(refused.contains("ValueLength"), "{refused}");
    assert!(lane.get("larger").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_says_so_and_comes_back_with_its_data() {
    let (cluster, mut nodes) = three("");
    let mut lane = client(&cluster, &nodes[0]).await;
    lane.put("before", b"1").await.unwrap();
    let mut gone = client(&cluster, &nodes[2]).await;
    let status = nodes[2].terminate();
    assert_eq!(status.code(), Some(0), "{}", nodes[2].log());
    assert!(nodes[2].log().contains("stopped; everything is written out"), "{}", nodes[2].log());
    let reason = gone.frame().await.unwrap_err();
    assert!(reason.contains("the node is shutting down; ask another"), "{reason}");
    lane.put("meanwhile", b"2").await.unwrap();
    nodes[2] = cluster.start(3);
    assert!(!nodes[2].log().contains("may have forgotten"), "{}", nodes[2].log());
    let mut again = client(&cluster, &nodes[2]).await;
    assert_eq!(again.get("before").await.unwrap(), [b"1"]);
    assert_eq!(again.get("meanwhile").await.unwrap(), [b"2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_a_broken_lane_never_took_are_not_waited_for_at_the_end() {
    let cluster = Cluster::new(1, 1, "");
    cluster.init(1);
    let mut node = cluster.start(1);
    let mut lane = client(&cluster, &node).await;
    lane.put("large", &[7; 500_000]).await.unwrap();
    // More than is sent ahead of what is read; and then what is no frame.
    let mut asked = Vec::new();
    (100..109).for_each(|request| ClientRequest::Read(get("large")).write(request, &mut asked));
    lane.write(&asked).await.unwrap();
    assert_eq!(lane.frame().await.unwrap().request, 100);
    lane.write(&[0xff; HEADER_BYTES]).await.unwrap();
    while lane.frame().await.is_ok() {}
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
    assert!(!node.log().contains("something is still under way"), "{}", node.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_killed_at_once_come_back_with_what_was_acknowledged() {
    let (cluster, mut nodes) = three("");
    let mut lane = client(&cluster, &nodes[1]).await;
    for i in 0..20 {
        lane.put(&format!("k{i}"), b"kept").await.unwrap();
    }
    nodes.iter_mut().for_each(RealNode::kill);
    nodes = (1..=3).map(|id| cluster.spawn(id)).collect();
    nodes.iter_mut().for_each(RealNode::wait_ready);
    let mut lane = client(&cluster, &nodes[0]).await;
    for i in 0..20 {
        assert_eq!(lane.get(&format!("k{i}")).await.unwrap(), [b"kept"]);
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_database_went_back_in_time_takes_a_new_actor_and_rebuilds() {
    let (cluster, mut nodes) = three("");
    let (database, earlier) = (cluster.path().join("n1/db"), cluster.path().join("earlier"));
    client(&cluster, &nodes[0]).await.put("first", b"1").await.unwrap();
    assert!(nodes[0].terminate().success());
    copy_folder(&database, &earlier);
    nodes[0] = cluster.start(1);
    let mut lane = client(&cluster, &nodes[0]).await;
    for i in 0..20 {
        lane.put(&format!("later-{i}"), b"2").await.unwrap();
    }
    assert!(nodes[0].terminate().success());
    fs::remove_dir_all(&database).unwrap();
    fs::rename(&earlier, &database).unwrap();
    nodes[0] = cluster.spawn(1);
    assert_eq!(nodes[0].wait_end().code(), Some(75), "{}", nodes[0].log());
    assert!(nodes[0].log().contains("this node has forgotten"), "{}", nodes[0].log());
    nodes[0] = cluster.start(1);
    let mut lane = client(&cluster, &nodes[0]).await;
    for i in 0..20 {
        assert_eq!(lane.get(&format!("later-{i}")).await.unwrap(), [b"2"]);
    }
    lane.put("after", b"3").await.unwrap();
    let log = nodes[0].log();
    assert!(log.contains("rebuilt: every partition was copied"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_nearly_full_refuses_writes_and_keeps_reading() {
    let (cluster, nodes) = three(&format!("disk_reserve_bytes = {}\n", i64::MAX));
    let mut lane = client(&cluster, &nodes[0]).await;
    let until = Instant::now() + Duration::from_secs(5);
    while !lane.put("k", b"v").await.is_err_and(|refused| refused.contains("DiskReserve")) {
        assert!(Instant::now() < until, "writes are not refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lane.get("k").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_acknowledges_nothing_more_and_says_so() {
    let cluster = Cluster::new(1, 1, "");
    cluster.init(1);
    let mut node = cluster.spawn_on_a_small_disk(1, 4 * 1024);
    node.wait_ready();
    let mut lane = client(&cluster, &node).await;
    let value = |i: i32| vec![i as u8; 300_000];
    let mut kept = 0;
    while lane.put(&format!("k{kept}"), &value(kept)).await.is_ok() {
        kept += 1;
        assert!(kept < 100, "a disk of 4 MiB took {kept} values");
    }
    assert!(kept > 3, "{}", node.log());
    assert_eq!(node.wait_end().code(), Some(74), "{}", node.log());
    assert!(node.log().contains("the disk failed; nothing is acknowledged any more"), "{}", node.log());
    let node = cluster.start(1);
    let mut lane = client(&cluster, &node).await;
    for i in 0..kept {
        assert!(lane.get(&format!("k{i}")).await.unwrap() == [value(i)], "k{i} was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_come_back_after_a_peer_was_away() {
    let (cluster, mut nodes) = three("");
    nodes[1].kill();
    let until = Instant::now() + Duration::from_secs(20);
    while nodes[0].metric("quorate_peer_up{peer=\"n2\"}") == 1.0 {
        assert!(Instant::now() < until, "n1 does not notice that n2 is gone");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nodes[1] = cluster.start(2);
    while nodes[0].metric("quorate_peer_up{peer=\"n2\"}") == 0.0 {
        assert!(Instant::now() < until, "n1 does not notice that n2 is back:\n{}", nodes[0].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_back_after_it_was_killed_resets_what_its_earlier_run_had() {
    let (cluster, mut nodes) = three("");
    nodes[1].kill();
    nodes[1] = cluster.start(2);
    // Without a reset the old connection would end by its silence.
    let until = Instant::now() + Duration::from_secs(20);
    while !nodes[0].log().contains("reset by peer") {
        assert!(Instant::now() < until && !nodes[0].log().contains("timed out"), "{}", nodes[0].log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    while nodes[0].metric("quorate_peer_up{peer=\"n2\"}") == 0.0 {
        assert!(Instant::now() < until, "n1 does not notice that n2 is back:\n{}", nodes[0].log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_put_whose_owners_are_killed_does_not_wait_for_its_deadline() {
    let (cluster, mut nodes) = three("");
    let mut lane = client(&cluster, &nodes[0]).await;
    lane.put("before", b"v").await.unwrap();
    nodes[1].kill();
    nodes[2].kill();
    let told = lane.put("k", b"v").await.unwrap_err();
    assert!(told.contains("OwnersFailed"), "{told}");
    let told = lane.put("l", b"v").await.unwrap_err();
    assert!(told.contains("Unavailable"), "{told}");
}

/// What `quorate-node run` says of a folder whose file was spoilt, and its exit status.
fn refusal(spoil: impl FnOnce(&Cluster)) -> (Option<i32>, String) {
    let cluster = Cluster::new(3, 3, "");
    cluster.init(1);
    spoil(&cluster);
    let out = program().arg("run").arg("--config").arg(cluster.config(1)).output().unwrap();
    (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
}

#[test]
fn what_is_wrong_with_a_node_is_said_at_its_start() {
    let name = quorate_ring::wire::server_name(CLUSTER, NodeId(1));
    let identity =
        |validity| move |c: &Cluster| write_identity(c.path(), "n1", &c.node_ca.issue(&name_of(1), validity));
    let write =
        |file: &'static str, text: &'static str| move |c: &Cluster| fs::write(c.path().join(file), text).unwrap();
    let cases: Vec<(Box<dyn FnOnce(&Cluster)>, &str)> = vec![
        (Box::new(identity(Validity::Expired)), "expired on"),
        (Box::new(identity(Validity::NotYet)), "not valid before"),
        (Box::new(|c| write_identity(c.path(), "n1", &c.node_identity(2))), name.as_str()),
        (Box::new(|c| write_identity(c.path(), "n1", &c.client_identity())), "not signed by node_ca"),
        (Box::new(write("n1.pem", "no PEM")), "there is no certificate in this file"),
        (Box::new(write("n1-key.pem", "no PEM")), "n1-key.pem"),
        (
            Box::new(|c| {
                fs::copy(c.path().join("n2-key.pem"), c.path().join("n1-key.pem")).unwrap();
            }),
            "does not belong to certificate",
        ),
        (Box::new(|c| fs::remove_file(c.path().join("node-ca.pem")).unwrap()), "node-ca.pem"),
        (Box::new(write("topology.toml", "cluster = 5\n")), "topology.toml, line 1"),
        (Box::new(write("n1.toml", "nod = \"n1\"\n")), "line 1: unknown field `nod`"),
        (Box::new(|c| fs::remove_dir_all(c.path().join("n1")).unwrap()), "quorate-node init"),
    ];
    for (spoil, word) in cases {
        let (code, said) = refusal(spoil);
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains(word), "expected {word:?}, got: {said}");
    }
}

#[test]
fn the_configuration_can_be_checked_and_printed() {
    let cluster = Cluster::new(3, 3, "");
    let checked = program().args(["config", "check", "--config"]).arg(cluster.config(2)).output().unwrap();
    assert!(checked.status.success());
    assert!(String::from_utf8_lossy(&checked.stdout).contains("n2 is node 2 of 3"), "{checked:?}");
    let printed = program().args(["config", "default"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&printed.stdout), quorate_node::config::DEFAULT_FILE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_node_of_one_identity_does_not_start_and_the_first_serves_on() {
    let (cluster, nodes) = three("");
    client(&cluster, &nodes[0]).await.put("k", b"v").await.unwrap();
    // The folder of node 1 as it is now, and its configuration, elsewhere on the machine.
    let twin = cluster.path().join("twin");
    let copied = std::process::Command::new("cp").arg("-a").arg(cluster.path().join("n1")).arg(&twin).status();
    assert!(copied.unwrap().success());
    let twin = |admin: &str| {
        let mut command = program();
        command.args(["run", "--admin-address", admin, "--data"]).arg(&twin).arg("--config").arg(cluster.config(1));
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (code, said) = twin("127.0.0.1:0");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("is another node running there?"), "{said}");
    assert!(said.contains("new actor"), "a copy goes on under the actor of the first: {said}");
    let mut lane = client(&cluster, &nodes[0]).await;
    assert_eq!(lane.get("k").await.unwrap(), [b"v"]);
    lane.put("k", b"w").await.unwrap();
    // Somebody else's folder is refused as it is.
    let mut command = program();
    command.args(["run", "--data"]).arg(cluster.path().join("n2")).arg("--config").arg(cluster.config(1));
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(78), "{said}");
    assert!(said.contains("is the data of node 2") && said.contains("and this is"), "{said}");
}

#[test]
fn two_nodes_do_not_use_one_address_or_one_folder() {
    let cluster = Cluster::new(3, 3, "");
    cluster.init(1);
    let first = cluster.start(1);
    let second = program().arg("run").arg("--config").arg(cluster.config(1)).output().unwrap();
    assert_eq!(second.status.code(), Some(78));
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("another quorate-node uses"), "{said}");
    drop(first);
}
