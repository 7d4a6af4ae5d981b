//! A cluster of real processes, used as a person would: by typing commands.
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Five nodes on three racks. They end with the test, whichever way it ends.
struct Lab {
    folder: tempfile::TempDir,
}

/// Cargo puts programs beside the folder of the tests. `./ops/test` builds them first.
fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().and_then(Path::parent).unwrap().join(name);
    assert!(path.exists(), "{} is not there: cargo build --release --workspace --bins", path.display());
    path
}

impl Lab {
    fn up() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        lab.lab(&["up", "--nodes", "5", "--racks", "3"]);
        lab
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    fn lab(&self, arguments: &[&str]) -> String {
        let done = Command::new(program("quorate-lab")).arg("--dir").arg(self.dir()).args(arguments).output().unwrap();
        assert!(done.status.success(), "quorate-lab {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    fn quorate(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("quorate"));
        command.env("QUORATE_PROFILE", self.dir().join("client.toml")).args(arguments).output().unwrap()
    }

    /// What was printed, given that the exit code is this.
    fn exits(&self, code: i32, arguments: &[&str]) -> String {
        let done = self.quorate(arguments);
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.status.code(), Some(code), "quorate {arguments:?}\nstdout: {out}\nstderr: {err}");
        out.into_owned() + &err
    }

    fn json(&self, code: i32, arguments: &[&str]) -> Value {
        let mut arguments = arguments.to_vec();
        arguments.extend(["-o", "json"]);
        let done = self.quorate(&arguments);
        let out = String::from_utf8_lossy(&done.stdout);
        let err = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(code), "quorate {arguments:?}\nstdout: {out}\nstderr: {err}");
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("quorate {arguments:?} is not JSON: {e}\n{out}"))
    }

    fn owners(&self, key: &str) -> Vec<String> {
        let located = self.json(0, &["locate", key]);
        let nodes = located["nodes"].as_array().unwrap_or_else(|| panic!("no nodes: {located}"));
        let owners = nodes.iter().filter(|node| node["role"] == "owner");
        owners.map(|owner| owner["node"].as_str().unwrap().to_string()).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let destroy = Command::new(program("quorate-lab")).arg("--dir").arg(self.dir()).arg("destroy").status();
        if !std::thread::panicking() {
            assert!(destroy.unwrap().success());
        }
    }
}

#[test]
fn writes_conflicts_and_refusals_as_a_person_meets_them() {
    let lab = Lab::up();
    one_value_from_puts_through_different_nodes(&lab);
    siblings_from_one_context_until_they_are_resolved(&lab);
    an_lww_bucket_has_one_winner(&lab);
    bad_input_is_refused(&lab);
    owners_that_die_under_way_make_the_outcome_unknown(&lab);
    dead_owners_make_a_write_refused(&lab);
}

fn one_value_from_puts_through_different_nodes(lab: &Lab) {
    lab.exits(3, &["get", "city"]);
    lab.exits(0, &["put", "city", "Basel", "--node", "n1"]);
    lab.exits(0, &["put", "city", "Bern", "--node", "n2"]);
    for node in ["n1", "n2", "n3", "n4", "n5"] {
        assert_eq!(lab.exits(0, &["get", "city", "--node", node, "-o", "raw"]), "Bern");
    }
    lab.exits(0, &["del", "city"]);
    lab.exits(3, &["get", "city"]);
}

fn siblings_from_one_context_until_they_are_resolved(lab: &Lab) {
    lab.exits(0, &["put", "cart", "empty"]);
    let context = lab.json(0, &["get", "cart"])["context"].as_str().unwrap().to_string();
    lab.exits(0, &["put", "cart", "apples", "--context", &context, "--node", "n1"]);
    lab.exits(0, &["put", "cart", "pears", "--context", &context, "--node", "n2"]);
    let both = lab.exits(6, &["get", "cart"]);
    assert!(both.contains("apples") && both.contains("pears"), "{both}");
    lab.exits(0, &["resolve", "cart", "--value", "apples and pears"]);
    assert_eq!(lab.exits(0, &["get", "cart", "-o", "raw"]), "apples and pears");
    // A context is good for its own key only.
    let refused = lab.exits(4, &["put", "basket", "x", "--context", &context]);
    assert!(refused.contains("another key"), "{refused}");
}

fn an_lww_bucket_has_one_winner(lab: &Lab) {
    lab.exits(0, &["put", "-b", "lww", "cart", "first", "--supersede", "nothing", "--node", "n1"]);
    lab.exits(0, &["put", "-b", "lww", "cart", "second", "--supersede", "nothing", "--node", "n2"]);
    let mut shown: Vec<String> = Vec::new();
    for node in ["n1", "n2", "n3", "n4", "n5"] {
        let answer = lab.json(0, &["get", "-b", "lww", "cart", "--node", node]);
        assert_eq!(answer["set_aside"], 1, "{answer}");
        shown.push(lab.exits(0, &["get", "-b", "lww", "cart", "--node", node, "-o", "raw"]));
    }
    shown.dedup();
    assert_eq!(shown, ["second"]);
}

fn bad_input_is_refused(lab: &Lab) {
    let long = "k".repeat(5_000);
    let refused = lab.exits(4, &["put", &long, "v"]);
    assert!(refused.contains("4096"), "{refused}");
    lab.exits(2, &["put", "k", "v", "-w", "none"]);
    let refused = lab.exits(4, &["put", "k", "v", "-w", "4"]);
    assert!(refused.contains("ask for 1 to 3"), "{refused}");
    let refused = lab.quorate(&["get", "k", "-b", "nowhere"]);
    assert_ne!(refused.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nowhere"));
}

/// Frozen, not dead: for a moment nobody has noticed.
fn owners_that_die_under_way_make_the_outcome_unknown(lab: &Lab) {
    let owners = lab.owners("ledger");
    lab.lab(&["pause", &owners[1], &owners[2]]);
    let put = ["put", "ledger", "120", "--supersede", "local", "--node", &owners[0], "--deadline", "900ms"];
    let unknown = lab.exits(5, &put);
    assert!(unknown.to_lowercase().contains("unknown") || unknown.contains("may"), "{unknown}");
    lab.lab(&["resume", &owners[1], &owners[2]]);
}

fn dead_owners_make_a_write_refused(lab: &Lab) {
    let owners = lab.owners("account");
    lab.exits(0, &["put", "account", "120"]);
    lab.lab(&["kill", &owners[1], &owners[2]]);
    // Until the others have noticed the outcome is unknown; never is it success.
    let mut codes = Vec::new();
    for _ in 0..20 {
        let code = lab.quorate(&["put", "account", "20", "--supersede", "local", "--deadline", "2s"]).status.code();
        codes.push(code);
        assert!(code == Some(4) || code == Some(5), "{codes:?}");
        if code == Some(4) {
            break;
        }
    }
    assert_eq!(codes.last(), Some(&Some(4)), "{codes:?}");
    lab.lab(&["restart", &owners[1], &owners[2]]);
    let read = lab.exits(0, &["get", "account", "-r", "all", "-o", "raw"]);
    assert!(read == "120" || codes.contains(&Some(5)), "{read} after {codes:?}");
}
