//! A cluster of real processes, used as a person would: by typing commands.
#![allow(clippy::unwrap_used)]

mod lab;

use lab::Lab;

#[test]
fn writes_conflicts_and_refusals_as_a_person_meets_them() {
    let lab = Lab::up_with(&[("QUORATE_LOG", "info,quorate::request=debug")]);
    a_request_is_followed_through_the_logs(&lab);
    one_value_from_puts_through_different_nodes(&lab);
    siblings_from_one_context_until_they_are_resolved(&lab);
    an_lww_bucket_has_one_winner(&lab);
    bad_input_is_refused(&lab);
    owners_that_die_under_way_make_the_outcome_unknown(&lab);
    dead_owners_make_a_write_refused(&lab);
    a_sloppy_bucket_says_what_it_still_takes(&lab);
}

/// From the client by its gateway to the owners, under one id.
fn a_request_is_followed_through_the_logs(lab: &Lab) {
    let logged = |id: &str| -> Vec<String> {
        let nodes = ["n1", "n2", "n3", "n4", "n5"];
        nodes
            .into_iter()
            .filter(|node| lab.lab(&["logs", node, "--lines", "1000"]).contains(id))
            .map(str::to_string)
            .collect()
    };
    let id_behind =
        |what: &str, said: &str| said.split(what).nth(1).unwrap_or_else(|| panic!("{said}"))[..32].to_string();
    let owners = lab.owners("parcel");
    let gateway = ["n1", "n2", "n3", "n4", "n5"].into_iter().find(|node| !owners.contains(&node.to_string())).unwrap();
    let put = lab.exits(0, &["put", "parcel", "sent", "--node", gateway, "-w", "all", "--trace"]);
    let got = lab.exits(0, &["get", "parcel", "--node", gateway, "-r", "all", "--trace"]);
    let mut expected: Vec<String> = owners.iter().cloned().chain([gateway.to_string()]).collect();
    expected.sort();
    assert_eq!(logged(&id_behind("op id ", &put)), expected, "{put}");
    assert_eq!(logged(&id_behind("request id ", &got)), expected, "{got}");
    let plain = lab.exits(0, &["get", "parcel", "-o", "json"]);
    assert!(!plain.contains("request id"), "{plain}");
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

/// Two of three owners are frozen; the default of the command line needs R of them.
fn a_sloppy_bucket_says_what_it_still_takes(lab: &Lab) {
    let owners = lab.owners_in("sloppy", "hat");
    lab.exits(0, &["put", "-b", "sloppy", "hat", "felt"]);
    lab.lab(&["pause", &owners[1], &owners[2]]);
    let put = ["put", "-b", "sloppy", "hat", "straw", "--node", &owners[0], "--deadline", "2s"];
    let refused = lab.exits(4, &put);
    assert!(refused.contains("--supersede local"), "{refused}");
    let local = lab.json(0, &[&put[..], &["--supersede", "local", "--trace"]].concat());
    let acks = local["receipt"]["acks"].as_array().unwrap();
    assert!(acks.iter().any(|ack| ack["hint_for"].is_string()), "{local}");
    lab.lab(&["resume", &owners[1], &owners[2]]);
}

/// Frozen, not dead: for a moment nobody has noticed.
fn owners_that_die_under_way_make_the_outcome_unknown(lab: &Lab) {
    let owners = lab.owners("ledger");
    lab.lab(&["pause", &owners[1], &owners[2]]);
    let put = ["put", "ledger", "120", "--supersede", "local", "--node", &owners[0], "--deadline", "900ms"];
    let unknown = lab.exits(5, &[&put[..], &["--trace"]].concat());
    assert!(unknown.contains("may have taken effect") && unknown.contains("1 of 2 acks had come in"), "{unknown}");
    assert_eq!(unknown.matches("not heard of").count(), 2, "the owners that are frozen: {unknown}");
    // The error says how to do it again without doing it twice.
    let op_id = unknown.split("--op-id ").nth(1).unwrap()[..32].to_string();
    lab.lab(&["resume", &owners[1], &owners[2]]);
    let again = lab.json(0, &["put", "ledger", "120", "--supersede", "local", "--op-id", &op_id]);
    assert!(again["receipt"]["repeated"] == true && again["receipt"]["siblings"] == 1, "{again}");
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
