//! The command line as scripts use it: loads that break off, exports, errors as JSON, certificates that do not fit.
#![allow(clippy::unwrap_used)]

mod lab;

use lab::Lab;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const RECORDS: usize = 12_000;

#[test]
fn loads_exports_and_errors_as_scripts_meet_them() {
    let lab = Lab::up();
    a_killed_load_goes_on_and_says_what_was_not_stored(&lab);
    what_is_exported_can_be_loaded(&lab);
    errors_are_json_where_json_is_asked_for(&lab);
    certificates_that_do_not_fit_are_told_apart(&lab);
    the_shell_understands_the_completions(&lab);
    a_benchmark_of_two_processes_adds_up_and_reads_back(&lab);
}

/// So many records, and one line among the first that is none.
fn records(lab: &Lab) -> PathBuf {
    let path = lab.folder.path().join("records.ndjson");
    let mut file = std::io::BufWriter::new(fs::File::create(&path).unwrap());
    for id in 0..RECORDS {
        writeln!(file, "{{\"id\":{id},\"text\":\"{}\"}}", "x".repeat(id % 200)).unwrap();
        if id == 1 {
            writeln!(file, "this is no record").unwrap();
        }
    }
    file.flush().unwrap();
    path
}

fn a_killed_load_goes_on_and_says_what_was_not_stored(lab: &Lab) {
    records(lab);
    let load = ["load", "records.ndjson", "--key", "id", "--key-prefix", "r/"];
    let mut first = lab.command(&load).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let state = lab.folder.path().join("records.ndjson.load.json");
    // It is killed once it has noted that it has come somewhere.
    let done = || serde_json::from_slice::<Value>(&fs::read(&state).ok()?).ok()?["done"].as_u64();
    while done().is_none_or(|done| done < 100) {
        assert!(first.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    first.kill().unwrap();
    first.wait().unwrap();

    let resumed = lab.quorate(&[&load[..], &["--resume", "-o", "json"]].concat());
    let said = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert_eq!(resumed.status.code(), Some(4), "one line is no record: {said}");
    assert!(said.contains("resuming behind record") && said.contains("1 unreadable"), "{said}");
    let told: Value = serde_json::from_slice(&resumed.stdout).unwrap();
    assert!(told["unreadable"] == 1 && told["not_applied"] == 0 && told["unknown"] == 0, "{told}");
    assert!(told["stored"].as_u64().unwrap() < RECORDS as u64, "what was stored before is not stored again: {told}");
    let rejects = fs::read_to_string(lab.folder.path().join("records.ndjson.rejects.ndjson")).unwrap();
    assert_eq!(rejects.lines().count(), 1, "{rejects}");
    assert!(rejects.contains("\"record\":3") && rejects.contains("this is no record"), "{rejects}");
    assert!(!state.exists(), "nothing is left to resume");

    let check = ["check", "records.ndjson", "--key", "id", "--key-prefix", "r/"];
    let checked = lab.json(0, &check);
    assert_eq!((&checked["same"], &checked["unreadable"]), (&Value::from(RECORDS), &Value::from(1)), "{checked}");
}

fn what_is_exported_can_be_loaded(lab: &Lab) {
    let binary = lab.folder.path().join("binary");
    fs::write(&binary, [0xff, 0, 0xfe]).unwrap();
    lab.exits(0, &["put", "r/binary", "@binary", "--ttl", "1h"]);
    let context = lab.json(0, &["get", "r/0"])["context"].as_str().unwrap().to_string();
    lab.exits(0, &["put", "r/0", "left", "--context", &context]);
    lab.exits(0, &["put", "r/0", "right", "--context", &context]);
    let exported = lab.quorate(&["export", "r/"]);
    assert!(exported.status.success());
    fs::write(lab.folder.path().join("dump"), &exported.stdout).unwrap();

    let into = ["load", "dump", "--exported", "-b", "lww"];
    let refused = lab.exits(4, &into);
    assert!(refused.contains("1 unreadable") && refused.contains("2 concurrent values"), "{refused}");
    let checked = lab.json(0, &["check", "dump", "--exported", "-b", "lww"]);
    assert_eq!((&checked["same"], &checked["unreadable"]), (&Value::from(RECORDS), &Value::from(1)), "{checked}");
    let there = lab.json(0, &["get", "-b", "lww", "r/binary"]);
    let here = lab.json(0, &["get", "r/binary"]);
    assert_eq!((&there["value"], &there["expires_ms"]), (&here["value"], &here["expires_ms"]));
    assert!(there["expires_ms"].is_u64() && there["encoding"] == "base64", "{there}");
}

fn errors_are_json_where_json_is_asked_for(lab: &Lab) {
    let cases: [(&[&str], i32, &str); 6] = [
        (&["get", "no-such-key"], 3, "not_found"),
        (&["put", "k", "v", "-w", "9"], 4, "not_applied"),
        (&["get", "k", "-b", "nowhere"], 4, "not_applied"),
        (&["get", "r/0"], 6, "conflict"),
        (&["frobnicate"], 2, "usage"),
        (&["put", "k", "v", "--node", "n77"], 2, "usage"),
    ];
    for (arguments, exit, code) in cases {
        let done = lab.quorate(&[arguments, &["-o", "json"]].concat());
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        let told: Value = serde_json::from_str(&error).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {error}"));
        assert_eq!(done.status.code(), Some(exit), "{arguments:?}: {error}");
        assert_eq!(
            (&told["error"]["code"], &told["error"]["exit"]),
            (&Value::from(code), &Value::from(exit)),
            "{error}"
        );
        for part in ["message", "state", "to_do"] {
            assert!(
                told["error"][part].as_str().is_some_and(|text| !text.is_empty()),
                "{arguments:?}: no {part}: {error}"
            );
        }
    }
}

fn certificates_that_do_not_fit_are_told_apart(lab: &Lab) {
    let profile = fs::read_to_string(lab.dir().join("client.toml")).unwrap();
    let cluster = profile.lines().next().unwrap();
    let another = format!("cluster = \"{}\"", "0b".repeat(16));
    let cases = [
        // What is wrong, the exit code, and what is said.
        ("client.pem\"", "n1.pem\"", "client-key", "n1-key", 7, "authority that the node does not trust"),
        ("node-ca.pem", "client-ca.pem", "", "", 7, "another authority than the node CA of this client"),
        (cluster, another.as_str(), "", "", 7, "of another cluster or node"),
        ("client-key.pem", "n1-key.pem", "", "", 2, "is not the key of this certificate"),
        ("client.pem\"", "gone.pem\"", "", "", 2, "No such file"),
        ("bucket = ", "buckett = ", "", "", 2, "unknown field"),
    ];
    for (from, to, from_also, to_also, code, word) in cases {
        let changed = profile.replacen(from, to, 1);
        let changed = if from_also.is_empty() { changed } else { changed.replacen(from_also, to_also, 1) };
        assert_ne!(changed, profile, "{from}");
        let path = lab.dir().join("changed.toml");
        fs::write(&path, changed).unwrap();
        let said = lab.exits(code, &["get", "r/1", "--profile", &path.display().to_string()]);
        assert!(said.contains(word) && said.contains("state: ") && said.contains("to do: "), "{from} -> {to}: {said}");
    }
}

fn the_shell_understands_the_completions(lab: &Lab) {
    let script = lab.exits(0, &["completions", "bash"]);
    let path: &Path = &lab.folder.path().join("completions.bash");
    fs::write(path, script).unwrap();
    let ask = "source ./completions.bash; COMP_WORDS=(quorate lo); COMP_CWORD=1; _quorate quorate lo quorate; \
               echo \"${COMPREPLY[@]}\"";
    let asked = Command::new("bash").current_dir(lab.folder.path()).args(["-c", ask]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "locate load", "{asked:?}");
}

fn a_benchmark_of_two_processes_adds_up_and_reads_back(lab: &Lab) {
    let bench = |more: &[&str]| {
        let short = ["bench", "a", "--records", "500", "--warm-up", "0s", "--time", "1s", "--processes", "2"];
        lab.quorate(&[&short[..], more, &["-o", "json"]].concat())
    };
    let run = bench(&[]);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(0), "{said}");
    let told: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!((told["loaded"]["records"].as_u64(), told["processes"].as_u64()), (Some(500), Some(2)), "{told}");
    let count = |operation: &str| told["operations"][operation]["done"]["count"].as_u64().unwrap();
    assert!(count("get") > 0 && count("put") > 0, "{told}");
    assert_eq!(told["done_per_second"].as_f64(), Some((count("get") + count("put")) as f64), "{told}");
    // Every key was written when it was loaded, so all of them are read back.
    let checked = &told["checked"];
    assert!(checked["held"] == 500 && checked["missing"] == 0 && checked["stale"] == 0, "{told}");

    // What was loaded under another name is missing, and said to be.
    let nothing_there = bench(&["--skip-load", "--key-prefix", "elsewhere/"]);
    assert_eq!(nothing_there.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing_there.stderr).contains("showed nothing or a wrong value"));
    let too_many = bench(&["--in-flight", "1"]);
    assert_eq!(too_many.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&too_many.stderr).contains("--in-flight 1 is too little for 2 processes"));
    // What no cluster has is refused before one is looked for.
    let scans = lab.command(&["bench", "e"]).env("QUORATE_PROFILE", "no-such-file.toml").output().unwrap();
    assert_eq!(scans.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&scans.stderr).contains("workload e scans ranges of keys"), "{scans:?}");
}
