//! What operators see, end to end: real nodes, a real Prometheus, the very expressions of the dashboards.
#![allow(clippy::unwrap_used)]

use quorate_client::{Client, Count, Durability, NodeId, Via, WriteOptions};
use quorate_node::metrics::names::{ALL, Kind};
use quorate_ops::observe::boards;
use quorate_ops::observe::prometheus::{CLUSTER, Sample};
use quorate_tests::watched::{Load, Watched, installed};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const WRITES: usize = 5_000;
const WRITERS: usize = 64;
/// Of the rates on the dashboards; nodes are scraped every second.
const RATE_WINDOW: &str = "10s";

fn all_zero(samples: &[Sample]) -> bool {
    !samples.is_empty() && samples.iter().all(|sample| sample.value == 0.0)
}

fn through_n1() -> WriteOptions {
    let via = Via::Node(NodeId(1));
    WriteOptions { w: Some(Count::Exactly(2)), durability: Some(Durability::Async), via, ..WriteOptions::default() }
}

/// `WRITES` puts of as many keys, all through the same node. Each has to be applied.
async fn write_all(client: &Client) {
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = client.clone();
        writers.spawn(async move {
            for number in (writer..WRITES).step_by(WRITERS) {
                client.put("default", format!("key-{number}"), "value", &through_n1()).await.unwrap();
            }
        });
    }
    writers.join_all().await;
}

/// With three nodes each of them owns every key.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_lag_of_a_paused_replica_is_exact() {
    if !installed() {
        return;
    }
    // Started without a canary, then watched: nothing writes but this test.
    let cluster = Watched::up(&[&["--nodes", "3", "--racks", "3"], &["--observe"]]);
    let limit = Duration::from_secs(20);
    let client = cluster.client().await;
    client.put("default", "first", "value", &through_n1()).await.unwrap();
    cluster.wait_for("quorate_peer_clock_known", limit, |all| all.len() == 6 && all.iter().all(|s| s.value == 1.0));
    cluster.wait_for("quorate_lag_dots", limit, |all| all.len() == 6 && all_zero(all));

    cluster.lab(&["pause", "n3"]);
    let paused = Instant::now();
    write_all(&client).await;
    let written = paused.elapsed();
    let behind_n3 = "quorate_lag_dots{peer=\"n3\", node!=\"n3\"}";
    cluster.wait_for(behind_n3, limit, |all| all.len() == 2 && all.iter().all(|s| s.value == WRITES as f64));
    // Two scrapes later it is still so: a number that passes by would not do.
    std::thread::sleep(Duration::from_secs(2));
    let lag = cluster.query(behind_n3);
    assert!(lag.len() == 2 && lag.iter().all(|s| s.value == WRITES as f64), "{lag:?}");
    assert!(all_zero(&cluster.query("quorate_lag_dots{peer!=\"n3\", node!=\"n3\"}")), "nobody else lags");
    // The oldest is one of the first: its age is at most the time since the pause, and the time since the last write
    // at least. The age is as of the last scrape, a second ago at the most.
    let ages = cluster.query("quorate_lag_oldest_seconds{peer=\"n3\", node!=\"n3\"}");
    let (most, least) = (paused.elapsed().as_secs_f64(), (paused.elapsed() - written).as_secs_f64() - 2.0);
    assert!(ages.len() == 2 && ages.iter().all(|s| s.value <= most && s.value >= least), "{least} to {most}: {ages:?}");
    let first_written = cluster.query("quorate_lag_oldest_seconds{peer=\"n3\", node=\"n1\"}")[0].value;
    assert!(first_written >= most - 3.5, "the first write was made {most} s ago at the most, not {first_written}");

    cluster.lab(&["resume", "n3"]);
    cluster.wait_for("quorate_lag_dots", Duration::from_secs(60), |all| all.len() == 6 && all_zero(all));
    let caught_up = cluster.wait_for("quorate_lag_oldest_seconds", limit, |all| all.len() == 6 && all_zero(all));
    assert_eq!(caught_up.len(), 6);
    client.close().await;
}

fn as_of_now(expression: &str) -> String {
    let expression = expression.replace("$cluster", CLUSTER).replace("$node", ".+");
    expression.replace("$__rate_interval", RATE_WINDOW)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_panel_shows_something_under_load() {
    if !installed() {
        return;
    }
    let cluster = Watched::up(&[&["--nodes", "5", "--racks", "3", "--observe"]]);
    let client = cluster.client().await;
    let load = Load::start(&client, 4);
    // For hints, and for lag.
    cluster.lab(&["kill", "n5"]);
    cluster.wait_for("sum(quorate_hints_pending)", Duration::from_secs(30), |all| all.iter().any(|s| s.value > 0.0));
    // Until the rates over 5 minutes, and those of the latest scrapes, have enough to go by.
    let slow = as_of_now("quorate:requests_slow:ratio_rate5m{cluster=\"$cluster\"}");
    cluster.wait_for(&slow, Duration::from_secs(30), |all| all.iter().any(|sample| sample.value.is_finite()));
    std::thread::sleep(Duration::from_secs(5));

    let mut silent = Vec::new();
    for board in boards::all() {
        for panel in board.panels() {
            for query in &panel.queries {
                let samples = cluster.query(&as_of_now(&query.expression));
                if !samples.iter().any(|sample| sample.value.is_finite()) {
                    silent.push(format!("{}: {}: {} {samples:?}", board.title, panel.title, query.expression));
                }
            }
        }
    }
    assert!(silent.is_empty(), "no finite series:\n{}", silent.join("\n"));
    for metric in ALL {
        let name = match metric.kind {
            Kind::Counter | Kind::Gauge => metric.name.to_string(),
            Kind::Histogram => format!("{}_bucket", metric.name),
        };
        assert!(!cluster.query(&format!("count({name})")).is_empty(), "{name} does not exist");
    }
    let down = cluster.query("up == 0");
    assert!(down.len() == 1 && down[0].labels["node"] == "n5", "{down:?}");

    load.stop().await;
    client.close().await;
}
