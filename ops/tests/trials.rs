//! A short version of each trial, and the story. The long ones are in the README. `cargo build --release` has to have
//! built `quorate-node`.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One cluster at a time: several would fight for the machine, and for ports that are free while a node is down.
static ALONE: Mutex<()> = Mutex::new(());

/// Runs a trial in a folder of its own, which has to be gone afterwards.
fn trial(arguments: &[&str]) -> Value {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let scratch = dir.path().join("lab");
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-lab"));
    command.arg("trial").args(arguments).arg("--scratch").arg(&scratch).args(["-o", "json"]);
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out}{err}");
    assert!(!scratch.exists());
    serde_json::from_str(&out).unwrap()
}

fn number(receipt: &Value, fact: &str) -> u64 {
    receipt["facts"][fact].as_u64().unwrap_or_else(|| panic!("no {fact} in {receipt}"))
}

#[test]
fn a_node_that_was_down_catches_up_and_no_request_fails() {
    let receipt = trial(&["down", "--seconds", "3"]);
    assert!(number(&receipt, "dots_it_pulled") > 0 && number(&receipt, "writes_of_unknown_outcome") == 0, "{receipt}");
}

#[test]
fn a_wiped_disk_is_not_missed() {
    let receipt = trial(&["wipe", "--rounds", "1", "--records", "500"]);
    assert!(number(&receipt, "of_these_from_one_owner") > 0, "{receipt}");
}

#[test]
fn what_was_written_on_both_sides_of_a_cut_is_kept() {
    let receipt = trial(&["cut", "--seconds", "5"]);
    assert!(number(&receipt, "of_these_both_kept_as_siblings") > 0, "{receipt}");
}

#[test]
fn what_was_deleted_stays_deleted() {
    let receipt = trial(&["deletes", "--keys", "60"]);
    assert!(number(&receipt, "reads_of_deleted_keys") > 0, "{receipt}");
}

#[test]
fn hints_survive_a_crash_of_their_keeper() {
    let receipt = trial(&["hints", "--hints", "0"]);
    assert!(number(&receipt, "hints_before_their_keeper_was_killed") > 0, "{receipt}");
}

#[test]
fn the_story_ends_as_it_is_told() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate-lab"));
    let output = command.args(["story", "split-brain", "--scratch"]).arg(dir.path().join("lab")).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(
        out.contains("Nothing was written anywhere") && out.contains("both, 20 and 70") && out.contains("set aside"),
        "{out}"
    );
}
