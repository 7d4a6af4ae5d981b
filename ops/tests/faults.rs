//! The fault verbs and `verify`, with the real programs. `cargo build --release` has to have built `quorate-node`.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::Lab;
use quorate_client::{Client, Profile, ReadOptions, WriteOptions};
use std::time::Duration;

/// The peers that a node takes for down.
fn down_at(lab: &Lab, runtime: &tokio::runtime::Runtime, client: &Client, name: &str) -> Vec<u16> {
    let answers = runtime.block_on(client.status(Duration::from_secs(1)));
    let status = answers.into_iter().filter_map(|(_, status)| status.ok()).find(|status| status.name == name);
    let status = status.unwrap_or_else(|| panic!("{name} does not answer: {:?}", lab.states()));
    status.peers.iter().filter(|peer| peer.state == "down").map(|peer| peer.node).collect()
}

#[test]
fn links_are_cut_and_healed_and_a_wiped_node_comes_back_whole() {
    let mut lab = Lab::new();
    lab.up(&["--nodes", "4", "--faults"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let profile = Profile::load(&lab.folder.join("client.toml")).unwrap();
    let client = runtime.block_on(Client::connect(&profile)).unwrap();
    let put = |key: &str| runtime.block_on(client.put("default", key.to_string(), "v", &WriteOptions::default()));
    (0..50).for_each(|number| drop(put(&format!("k{number}")).unwrap()));
    assert!(lab.ok(&["verify", "--residue", "--within", "30"]).contains("50 identical byte for byte"));

    let said = lab.ok(&["partition", "n1 | n2,n3,n4"]);
    assert!(said.contains("n1 is cut off from n2, n3, n4"), "{said}");
    assert!(lab.ok(&["status"]).contains("links: n1 is cut off"));
    lab.wait_for("n1 does not notice", |_| down_at(&lab, &runtime, &client, "n1") == [2, 3, 4]);
    lab.wait_for("n2 does not notice", |_| down_at(&lab, &runtime, &client, "n2") == [1]);
    (0..8).for_each(|number| drop(put(&format!("cut/{number}")).unwrap()));
    let found = lab.run(&["verify"]);
    let said = String::from_utf8_lossy(&found.stdout);
    assert!(!found.status.success() && said.contains("node 1: bucket 1, key \"cut/"), "{said}");
    assert!(said.contains("is missing") && said.ends_with("NOT the same everywhere\n"), "{said}");
    assert!(lab.ok(&["heal"]).contains("every link is whole"));
    lab.wait_for("n1 is not heard again", |_| down_at(&lab, &runtime, &client, "n2").is_empty());

    // A cut one way is noticed by both ends: a pong needs both directions.
    assert!(lab.ok(&["cut", "n2", "n3"]).contains("n3 does not hear n2"));
    lab.wait_for("n2 does not notice", |_| down_at(&lab, &runtime, &client, "n2") == [3]);
    lab.wait_for("n3 does not notice", |_| down_at(&lab, &runtime, &client, "n3") == [2]);
    lab.ok(&["heal"]);
    assert!(lab.ok(&["slow", "n4", "30ms"]).contains("packets of n4 are 30 ms late, each way"));
    assert!(lab.ok(&["slow", "n4", "off"]).contains("every link is whole"));
    assert!(lab.fails(&["isolate", "n9"]).contains("it has n1"));

    assert!(lab.ok(&["wipe", "n2"]).contains("takes part again"));
    assert_eq!(lab.states(), ["ready"; 4]);
    let findings = lab.json(&["verify", "--residue", "--within", "30"]);
    assert_eq!((&findings["keys"], &findings["identical"]), (&58.into(), &58.into()), "{findings}");
    lab.ok(&["kill", "n4"]);
    let unread = lab.run(&["verify"]);
    let said = String::from_utf8_lossy(&unread.stdout);
    assert!(!unread.status.success() && said.contains("node 4 did not show"), "{said}");
    lab.ok(&["destroy"]);
    assert_eq!(lab.processes(), []);
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let mut lab = Lab::new();
    let shared = lab.fails(&["fill-disk", "n1"]);
    assert!(shared.contains("there is no lab"), "{shared}");
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        return println!("not tried: small disks need root");
    }
    lab.up(&["--nodes", "3", "--disk", "256"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let profile = Profile::load(&lab.folder.join("client.toml")).unwrap();
    let client = runtime.block_on(Client::connect(&profile)).unwrap();
    let options = WriteOptions { deadline: Duration::from_secs(1), ..WriteOptions::default() };
    let put = || runtime.block_on(client.put("default", "key", "v", &options));
    put().unwrap();
    ["n1", "n2", "n3"].iter().for_each(|node| drop(lab.ok(&["fill-disk", node])));
    lab.wait_for("writes are not refused", |_| put().is_err_and(|error| error.to_string().contains("free space")));
    let read = runtime.block_on(client.get("default", "key", &ReadOptions::default())).unwrap();
    assert_eq!(read.siblings.len(), 1);
    ["n1", "n2", "n3"].iter().for_each(|node| drop(lab.ok(&["free-disk", node])));
    lab.wait_for("writes do not go on", |_| put().is_ok());
    lab.ok(&["destroy"]);
    assert!(!lab.folder.exists());
}
