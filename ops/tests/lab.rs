//! A lab from `up` to `destroy`, with the real programs. `cargo build --release` has to have built `quorate-node`.
#![allow(clippy::unwrap_used)]

mod harness;

use harness::Lab;
use std::fs;
use std::net::UdpSocket;
use std::path::Path;

#[test]
fn a_lab_from_up_to_destroy() {
    let mut lab = Lab::new();
    let said = lab.up(&["--nodes", "3"]);
    assert!(said.contains("3 of 3 nodes are ready") && said.contains("quorate put hello world"), "{said}");
    assert_eq!(lab.states(), ["ready", "ready", "ready"]);
    assert_eq!(lab.processes().len(), 3);

    let idle: serde_json::Value = serde_json::from_str(&lab.ok(&["idle", "--seconds", "1", "-o", "json"])).unwrap();
    let costs = idle["nodes"].as_array().unwrap();
    let resident = |cost: &serde_json::Value| cost["resident_bytes"].as_u64().unwrap();
    assert!(costs.len() == 3 && costs.iter().all(|cost| resident(cost) > 1 << 20), "{idle}");

    lab.ok(&["kill", "n2"]);
    assert_eq!(lab.states()[1], "down");
    assert!(lab.fails(&["kill", "n2"]).contains("quorate-lab restart n2"));
    lab.ok(&["restart", "n2"]);
    lab.ok(&["pause", "n1"]);
    // On a busy machine a node that has just seen others come and go may need a moment.
    lab.wait_for("n1 is not paused, or another is not ready", |lab| lab.states() == ["paused", "ready", "ready"]);
    lab.ok(&["resume", "n1"]);
    // It has not heard from its peers for a moment, and so soon after its start that counts.
    lab.wait_for("n1 is not ready again", |lab| lab.states()[0] == "ready");
    assert!(!lab.ok(&["logs", "n1"]).trim().is_empty());

    // A frozen node ends when it is told to, like the others.
    lab.ok(&["pause", "n3"]);
    assert!(lab.ok(&["down"]).contains("3 nodes ended when asked"));
    assert_eq!(lab.processes(), []);
    lab.ok(&["up"]);
    assert_eq!(lab.states(), ["ready", "ready", "ready"]);
    lab.ok(&["destroy"]);
    assert_eq!(lab.processes(), []);
    assert!(!lab.folder.exists());
}

#[test]
fn nothing_outlives_a_command_in_the_foreground_even_if_it_is_killed() {
    let mut lab = Lab::new();
    lab.up(&["--nodes", "2", "--faults"]);
    assert_eq!(lab.processes().len(), 3, "two nodes and a relay");
    lab.kill_guard();
    lab.wait_for("processes go on", |lab| lab.processes().is_empty());
}

#[test]
fn processes_that_are_not_on_record_are_ended_too() {
    let mut lab = Lab::new();
    lab.up(&["--nodes", "1"]);
    let path = lab.folder.join("lab.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record["nodes"][0]["process"] = serde_json::Value::Null;
    fs::write(&path, record.to_string()).unwrap();
    assert_eq!(lab.processes().len(), 1);
    lab.ok(&["down"]);
    assert_eq!(lab.processes(), []);
}

#[test]
fn what_cannot_be_done_says_what_to_do() {
    let mut lab = Lab::new();
    assert!(lab.fails(&["status"]).contains("make one with `quorate-lab up`"));
    let nowhere = lab.folder.join("no-such-program").display().to_string();
    assert!(lab.fails(&["up", "--node-program", &nowhere]).contains("cargo build"));
    assert!(lab.fails(&["up", "--nodes", "2", "--n", "3"]).contains("3 copies need 3 nodes"));
    assert!(!lab.folder.exists());

    lab.up(&["--nodes", "1"]);
    assert!(lab.fails(&["up", "--nodes", "1"]).contains("quorate-lab destroy"));
    assert!(lab.fails(&["kill", "n7"]).contains("it has n1"));
    lab.ok(&["down"]);

    let record: serde_json::Value = serde_json::from_slice(&fs::read(lab.folder.join("lab.json")).unwrap()).unwrap();
    let address = record["nodes"][0]["peer_address"].as_str().unwrap();
    let held = UdpSocket::bind(address).unwrap();
    assert!(lab.fails(&["up"]).contains("in use by another program"));
    drop(held);

    fs::write(lab.folder.join("n1/node.toml"), "nonsense = true\n").unwrap();
    let said = lab.fails(&["up"]);
    assert!(said.contains("nonsense"), "the end of the log is shown: {said}");
    assert_eq!(lab.processes(), []);
}

#[test]
fn a_folder_that_is_no_lab_is_left_alone() {
    let lab = Lab::new();
    fs::create_dir(&lab.folder).unwrap();
    let mine: &Path = &lab.folder.join("thesis.txt");
    fs::write(mine, "three years of work").unwrap();
    assert!(lab.fails(&["up"]).contains("is not the folder of a lab"));
    assert!(lab.fails(&["destroy"]).contains("is not the folder of a lab"));
    assert_eq!(fs::read_to_string(mine).unwrap(), "three years of work");
}
