//! Disks that fail and disks that are full, under real nodes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod real;

use quorate_ring::wire::ALPN_CLIENT;
use real::dial::{Caller, endpoint};
use real::lane::{Lane, name_of};
use real::{CLUSTER, Cluster, RealNode};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

async fn client(cluster: &Cluster, node: &RealNode) -> Lane {
    let (identity, name) = (cluster.client_identity(), name_of(node.id));
    let trust = &cluster.node_ca.certificate;
    let caller = Caller { identity: Some(&identity), trust, alpn: ALPN_CLIENT, server_name: &name };
    let mut lane = caller.lane(&endpoint(), node.client_address).await.unwrap();
    lane.hello(Some(CLUSTER)).await.unwrap();
    lane
}

/// The library that makes an fsync fail, compiled here.
fn failing_fsync(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/fail_fsync.c");
    let library = folder.join("fail_fsync.so");
    let done = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").output();
    let done = done.expect("there is a C compiler, as RocksDB needs one too");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_fsync_that_failed_nothing_is_acknowledged_and_the_node_says_why() {
    for at in [1, 2, 7] {
        let cluster = Cluster::new(1, 1, "");
        cluster.init(1);
        let from_now_on = cluster.path().join("fail");
        let mut node = cluster.spawn_with(1, |command| {
            command.env("LD_PRELOAD", failing_fsync(cluster.path()));
            command.env("FAIL_FSYNC_FROM", &from_now_on).env("FAIL_FSYNC_AT", at.to_string());
        });
        node.wait_ready();
        let mut lane = client(&cluster, &node).await;
        lane.put("before", b"v").await.unwrap();
        fs::write(&from_now_on, "").unwrap();
        let mut kept = 0;
        while lane.put(&format!("k{kept}"), b"v").await.is_ok() {
            kept += 1;
            assert!(kept < 100, "fsync {at} did not fail");
        }
        for more in 0..20 {
            assert!(lane.put(&format!("more-{more}"), b"v").await.is_err(), "acknowledged after a failed fsync");
        }
        assert_eq!(node.wait_end().code(), Some(74), "{}", node.log());
        for word in ["the disk failed; nothing is acknowledged any more", "Input/output error", "Check the disk"] {
            assert!(node.log().contains(word), "{word} is not in {}", node.log());
        }
        let node = cluster.start(1);
        let mut lane = client(&cluster, &node).await;
        assert_eq!(lane.get("before").await.unwrap(), [b"v"]);
        for i in 0..kept {
            assert_eq!(lane.get(&format!("k{i}")).await.unwrap(), [b"v"], "k{i} was acknowledged");
        }
    }
}

/// A small file system of its own, as the data folder of a node. Unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None where the rights do not allow to mount.
    fn mount(folder: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let size = format!("size={bytes}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "quorate-test"]).arg(folder).output();
        let mounted = mounted.is_ok_and(|done| done.status.success());
        if !mounted {
            eprintln!("not shown: mounting a small disk needs more rights than this test has");
        }
        mounted.then(|| Self(folder.to_path_buf()))
    }

    /// Leaves so much room.
    fn fill(&self, left: u64) {
        let block = vec![b'x'; MIB as usize];
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while quorate_node::runtime::machine::disk_bytes_free(&self.0).unwrap() > left {
            if std::io::Write::write_all(&mut file, &block).is_err() {
                return;
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Puts until it ends as it should.
async fn put_until(lane: &mut Lane, refused_with: Option<&str>) {
    let until = Instant::now() + PATIENCE;
    loop {
        let put = lane.put("k", b"v").await;
        let as_it_should = match (&put, refused_with) {
            (Ok(_), None) => true,
            (Err(refused), Some(word)) => refused.contains(word),
            (Ok(_), Some(_)) | (Err(_), None) => false,
        };
        if as_it_should {
            return;
        }
        assert!(Instant::now() < until, "expected {refused_with:?}, got {put:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn below_the_reserve_writes_are_refused_reads_and_repair_go_on_and_room_brings_writes_back() {
    let cluster = Cluster::new(3, 3, &format!("disk_reserve_bytes = {}\n", 64 * MIB));
    let Some(disk) = SmallDisk::mount(&cluster.path().join("n1"), 256 * MIB) else { return };
    (1..=3).for_each(|id| cluster.init(id));
    let mut nodes: Vec<RealNode> = (1..=3).map(|id| cluster.spawn(id)).collect();
    nodes.iter_mut().for_each(RealNode::wait_ready);
    let (mut first, mut second) = (client(&cluster, &nodes[0]).await, client(&cluster, &nodes[1]).await);
    first.put("before", b"1").await.unwrap();
    disk.fill(48 * MIB);
    put_until(&mut first, Some("DiskReserve")).await;
    assert_eq!(first.get("before").await.unwrap(), [b"1"]);
    let merged = nodes[0].metric("quorate_merged_dots_total");
    second.put("meanwhile", b"2").await.unwrap();
    assert_eq!(first.get("meanwhile").await.unwrap(), [b"2"]);
    let until = Instant::now() + PATIENCE;
    while nodes[0].metric("quorate_merged_dots_total") <= merged {
        assert!(Instant::now() < until, "it takes nothing from the other owners");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(nodes[0].log().contains("the disk is nearly full"), "{}", nodes[0].log());
    disk.empty();
    put_until(&mut first, None).await;
    assert!(nodes[0].log().contains("there is room on the disk again"), "{}", nodes[0].log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_full_ends_the_node_with_a_word_and_with_room_it_serves_again() {
    let cluster = Cluster::new(1, 1, "disk_reserve_bytes = 0\n");
    let Some(disk) = SmallDisk::mount(&cluster.path().join("n1"), 256 * MIB) else { return };
    cluster.init(1);
    let mut node = cluster.start(1);
    let mut lane = client(&cluster, &node).await;
    disk.fill(0);
    let value = |i: i32| vec![i as u8; 900_000];
    let mut kept = 0;
    while lane.put(&format!("k{kept}"), &value(kept)).await.is_ok() {
        kept += 1;
        assert!(kept < 300, "a full disk of 256 MiB took {kept} values");
    }
    assert_eq!(node.wait_end().code(), Some(74), "{}", node.log());
    assert!(node.log().contains("No space left on device"), "{}", node.log());
    disk.empty();
    node = cluster.start(1);
    let mut lane = client(&cluster, &node).await;
    for i in 0..kept {
        assert!(lane.get(&format!("k{i}")).await.unwrap() == [value(i)], "k{i} was acknowledged");
    }
    put_until(&mut lane, None).await;
}
