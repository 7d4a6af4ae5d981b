//! What the metrics cost: the CPU time of all nodes per put, with metrics and without, in pairs of blocks.
//!
//! Two clusters of three nodes run side by side, the same but for `metrics = false` in one. Blocks of puts go to the one
//! and to the other in turn, so that whatever else the machine does falls on both.
//! With every block the nodes are scraped once. Printed are the CPU times, and the mean of the quotients of all pairs.
//!
//! A machine that does other things makes these scatter by more than metrics cost. So the calls themselves are timed too:
//! all those that the three nodes make for one put, and the folding of their samples, again and again in one thread.

use clap::Parser;
use quorate_client::{Client, Count, Durability, NodeId, Profile, WriteOptions};
use quorate_node::kernel::{Asked, Consistency, Measure, Outcome, WriteOp};
use quorate_node::metrics::Metrics;
use quorate_ops::cluster::Cluster;
use quorate_ops::folder::Folder;
use quorate_ops::plan::Shape;
use quorate_ops::probe;
use quorate_ops::process::Tie;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const NODES: u16 = 3;
const READY_LIMIT: Duration = Duration::from_secs(60);
const KEYS: usize = 10_000;

/// Measures what metrics cost in CPU time.
#[derive(Parser)]
struct Arguments {
    /// Pairs of blocks.
    #[arg(long, default_value_t = 30)]
    pairs: usize,
    /// Puts in a block.
    #[arg(long, default_value_t = 3_000)]
    puts: usize,
    /// Puts under way at one time.
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
}

/// Puts whose calls are timed.
const TIMED: u32 = 500_000;
/// Between two foldings of samples, which nodes do every second.
const FOLDED_EVERY: u32 = 1_000;

/// What the metrics calls of one put take on its coordinator and two other owners, in ns, with no two events in one
/// commit: nodes under load have fewer commits per put.
fn calls_ns() -> f64 {
    let peers = (2..=NODES).map(|id| (NodeId(id), format!("n{id}")));
    let metrics = Metrics::new(peers, 0).expect("metrics");
    let took = Duration::from_micros(1_500);
    let ended = Measure::Written { op: WriteOp::Put, consistency: Consistency::Quorum, outcome: Outcome::Ok, took };
    let began = Instant::now();
    for put in 1..=TIMED {
        for owners in 2..=3 {
            metrics.measure(Measure::Replied { kind: Asked::Replicate, took });
            metrics.measure(Measure::AckSpread { owners, took });
            metrics.measure(Measure::Merged { dots: 1 });
        }
        metrics.measure(ended);
        for _commit in 0..3 {
            metrics.committed(3, true, took);
        }
        // The request and two acks at the coordinator, the object at the others.
        for _batch in 0..5 {
            metrics.drained(1);
        }
        if put % FOLDED_EVERY == 0 {
            metrics.upkeep();
        }
    }
    began.elapsed().as_nanos() as f64 / f64::from(TIMED)
}

/// A cluster, and a client of it. It ends with the program.
struct Side {
    cluster: Cluster,
    client: Client,
    names: Vec<String>,
}

impl Side {
    async fn start(folder: &Path, settings: &str) -> Self {
        let shape = Shape { nodes: NODES, node_settings: settings.to_string(), ..Shape::default() };
        let own = std::env::current_exe().expect("a program knows where it lies");
        let folder = Folder::at(folder).expect("a path");
        let mut cluster = Cluster::make(folder.clone(), &shape, own.with_file_name("quorate-node")).expect("a cluster");
        let names = cluster.select(&[]).expect("all nodes");
        cluster.start(&names, Tie::EndsWithUs).expect("the nodes start");
        cluster.wait_ready(&names, READY_LIMIT, |_| ControlFlow::Continue(())).expect("the nodes get ready");
        let profile = Profile::load(&folder.client_profile()).expect("a profile");
        let client = Client::connect(&profile).await.expect("the nodes are up");
        Self { cluster, client, names }
    }

    /// CPU time of all threads of all nodes so far, in ns.
    fn cpu_ns(&self) -> u64 {
        let pids = self.names.iter().map(|name| self.cluster.process(name).expect("it runs").pid);
        pids.flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten())
            .filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// CPU time per put, in µs.
    async fn block(&self, arguments: &Arguments) -> f64 {
        let before = self.cpu_ns();
        let mut writers = JoinSet::new();
        for writer in 0..arguments.concurrency {
            let (client, step, puts) = (self.client.clone(), arguments.concurrency, arguments.puts);
            writers.spawn(async move {
                let (w, durability) = (Some(Count::Quorum), Some(Durability::Async));
                let options = WriteOptions { w, durability, ..WriteOptions::default() };
                for number in (writer..puts).step_by(step) {
                    let key = format!("key-{}", number % KEYS);
                    client.put("default", key, vec![b'v'; 100], &options).await.expect("the cluster is well");
                }
            });
        }
        writers.join_all().await;
        for node in &self.cluster.record().nodes {
            probe::get(node.admin_address, "/metrics").expect("the node answers");
        }
        (self.cpu_ns() - before) as f64 / 1000.0 / arguments.puts as f64
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let on = Side::start(&folder.path().join("on"), "metrics = true\n").await;
    let off = Side::start(&folder.path().join("off"), "metrics = false\n").await;
    for side in [&on, &off] {
        side.block(&arguments).await; // Warm.
    }
    let (mut with, mut without, mut quotients) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..arguments.pairs {
        let (a, b) = if pair % 2 == 0 {
            let a = on.block(&arguments).await;
            (a, off.block(&arguments).await)
        } else {
            let b = off.block(&arguments).await;
            (on.block(&arguments).await, b)
        };
        with.push(a);
        without.push(b);
        quotients.push(a / b);
    }
    let (mean_on, _) = mean(&with);
    let (mean_off, _) = mean(&without);
    let (quotient, error) = mean(&quotients);
    println!("{} pairs of {} puts (3 nodes, n = 3, w = quorum, async, 100 B)", arguments.pairs, arguments.puts);
    println!("CPU per put, all nodes: {mean_on:.1} us with metrics, {mean_off:.1} us without");
    let calls = calls_ns();
    println!("the metrics calls of one put, timed alone: {calls:.0} ns, {:.2}% of that", calls / 10.0 / mean_off);
    println!("quotient of the pairs: {quotient:.4}, standard error {error:.4}");
    for side in [on, off] {
        side.client.close().await;
        side.cluster.destroy().expect("the nodes end");
    }
}

/// The mean, and its standard error.
fn mean(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0).max(1.0) / count).sqrt())
}
