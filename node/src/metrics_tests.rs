use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

fn metrics() -> Metrics {
    Metrics::new([(NodeId(2), "n2".to_string())].into_iter(), 1_500).unwrap()
}

/// Per metric, the sets of labels that it is shown with.
fn series(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = line.split_once(['{', ' ']).unwrap();
        let kinds = ["_bucket", "_sum", "_count"];
        let base =
            kinds.iter().find_map(|kind| name.strip_suffix(kind)).filter(|base| ALL.iter().any(|m| m.name == *base));
        found.entry(base.unwrap_or(name).to_string()).or_default().insert(labels.to_string());
    }
    found
}

#[test]
fn what_is_named_is_shown_and_what_is_shown_is_named_with_help() {
    let text = metrics().render();
    let shown: BTreeSet<String> = series(&text).into_keys().collect();
    let named: BTreeSet<String> = ALL.iter().map(|metric| metric.name.to_string()).collect();
    assert_eq!(shown, named);
    for Metric { name, kind, labels, help } in ALL {
        assert!(text.contains(&format!("# HELP {name} {help}\n")), "{name} has no help");
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
        for line in text.lines().filter(|line| line.starts_with(&format!("{name}{{"))) {
            let label = |label: &&str| line.contains(&format!("{label}=\""));
            assert!(labels.iter().all(label), "{line} should have {labels:?}");
        }
    }
}

#[test]
fn every_set_of_labels_stands_at_zero_from_the_start() {
    let text = metrics().render();
    for line in [
        "quorate_requests_total{op=\"put\",consistency=\"all\",outcome=\"unknown\"} 0",
        "quorate_request_duration_seconds_count{op=\"get\",consistency=\"quorum\"} 0",
        "quorate_replica_rpc_duration_seconds_bucket{kind=\"hint\",le=\"0.004\"} 0",
        "quorate_ack_spread_seconds_count{owners=\"3\"} 0",
        "quorate_peer_up{peer=\"n2\"} 0",
        "quorate_lag_dots{peer=\"n2\"} 0",
        "quorate_partitions{op=\"write\",state=\"no_quorum\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let most = series(&text).into_iter().map(|(name, labels)| (labels.len(), name)).max().unwrap();
    assert!(most.0 < 400, "{most:?}: labels are to be bounded");
}

#[test]
fn measures_arrive_as_buckets_and_counts() {
    let metrics = metrics();
    let (consistency, outcome) = (Consistency::Quorum, Outcome::Ok);
    let took = Duration::from_millis(3);
    metrics.measure(Measure::Written { op: WriteOp::Put, consistency, outcome, took });
    metrics.measure(Measure::AckSpread { owners: 3, took });
    metrics.measure(Measure::AckSpread { owners: 9, took });
    metrics.measure(Measure::ClockOffset { peer: NodeId(2), ms: -1500 });
    metrics.committed(4, true, Duration::from_millis(1));
    metrics.connection_refused("peer", "tls");
    metrics.inbox_refused(Some(Op::Get));
    let text = metrics.render();
    for line in [
        "quorate_requests_total{op=\"put\",consistency=\"quorum\",outcome=\"ok\"} 1",
        "quorate_requests_total{op=\"get\",consistency=\"other\",outcome=\"overloaded\"} 1",
        "quorate_request_duration_seconds_bucket{op=\"put\",consistency=\"quorum\",le=\"0.004\"} 1",
        "quorate_request_duration_seconds_bucket{op=\"put\",consistency=\"quorum\",le=\"0.002\"} 0",
        "quorate_ack_spread_seconds_count{owners=\"3\"} 1",
        "quorate_ack_spread_seconds_count{owners=\"7\"} 1",
        "quorate_clock_offset_seconds{peer=\"n2\"} -1.5",
        "quorate_commit_duration_seconds_bucket{durability=\"sync\",le=\"0.001\"} 1",
        "quorate_commit_rows_bucket{le=\"4\"} 1",
        "quorate_connections_refused_total{plane=\"peer\",reason=\"tls\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_account_of_the_node_arrives_as_gauges() {
    let metrics = metrics();
    let state = "up".to_string();
    let peer = PeerStatus { node: 2, state, lag_dots: 5_000, lag_oldest_ms: 1_500, ..PeerStatus::default() };
    let states = PartitionStates { all: 3, quorum: 2, no_quorum: 1 };
    let state = "serving".to_string();
    metrics.status(&NodeStatus { state, peers: vec![peer], partitions_to_read: states, ..NodeStatus::default() });
    metrics.storage(&Health { files: [9; LEVELS], delayed_write_rate: 1, ..Health::default() });
    let text = metrics.render();
    for line in [
        "quorate_lag_dots{peer=\"n2\"} 5000",
        "quorate_lag_oldest_seconds{peer=\"n2\"} 1.5",
        "quorate_partitions{op=\"read\",state=\"quorum\"} 2",
        "quorate_nodes{state=\"up\"} 2",
        "quorate_state{state=\"serving\"} 1",
        "quorate_storage_files{level=\"0\"} 9",
        "quorate_storage_slowed 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn off_is_off() {
    let metrics = Metrics::off();
    metrics.measure(Measure::ReadRepair);
    metrics.upkeep();
    assert_eq!(metrics.render(), "");
}

/// Prometheus' own opinion of the names, kinds and help texts.
#[test]
fn promtool_finds_nothing_to_complain_about() {
    let checked =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).output_of(&metrics().render());
    match checked {
        Some(said) => assert_eq!(said, "", "promtool check metrics"),
        None => println!("skipped: promtool is not installed (apt-get install prometheus)"),
    }
}

trait OutputOf {
    /// What the program says about a text, or none if there is no such program.
    fn output_of(&mut self, text: &str) -> Option<String>;
}

impl OutputOf for Command {
    fn output_of(&mut self, text: &str) -> Option<String> {
        let mut child = match self.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{error}"),
        };
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        Some(String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }
}
