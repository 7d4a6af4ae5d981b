//! `floor`: how fast three processes and a client can do the work that puts and gets cannot do without.

use clap::{Parser, Subcommand, ValueEnum, value_parser};
use quorate_tests::floor::{Credentials, Figures, Load, NODES, Processor, Work, client, node};
use serde_json::json;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// As the nodes of the store have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The unavoidable work of a quorum put or get, without a store: what the store is measured against.
#[derive(Parser)]
#[command(name = "floor", version)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Start three nodes, load them, measure, and end them. Prints one line of JSON for each workload.
    Run(Settings),
    /// One of the nodes; started by `run`.
    #[command(hide = true)]
    Node { me: usize, folder: PathBuf, value_bytes: usize, addresses: Vec<SocketAddr> },
}

#[derive(clap::Args)]
struct Settings {
    /// What to measure, one after the other
    #[arg(value_enum, default_values = ["puts", "gets"])]
    workloads: Vec<Workload>,
    /// Keys, loaded before
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=1_000_000_000))]
    records: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = value_parser!(u32).range(16..=8_388_608))]
    value_bytes: u32,
    /// Requests under way at once, in the closed loop
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Open loop: requests to begin a second
    #[arg(long, value_parser = value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Seconds before measuring
    #[arg(long, default_value = "2", value_parser = seconds)]
    warm_up: Duration,
    /// Seconds to measure
    #[arg(long, default_value = "10", value_parser = seconds)]
    time: Duration,
    /// Where the data goes while it runs [default: a temporary folder]
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "a number of seconds is expected")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[derive(ValueEnum, Clone, Copy)]
enum Workload {
    Puts,
    Gets,
}

type Fault = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        What::Run(settings) => run(&settings),
        What::Node { me, folder, value_bytes, addresses } => {
            std::thread::spawn(end_with_who_began_it);
            node::run(me, &addresses, &folder, value_bytes)
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("floor: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// A node ends when nobody holds the other end of its input any more.
fn end_with_who_began_it() {
    // Whatever it reads, or fails with, is the end.
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

/// The nodes; they end with this.
struct Nodes(Vec<Child>);

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take());
            // It may have ended by itself.
            let _ = child.wait();
        }
    }
}

fn run(settings: &Settings) -> Result<(), Fault> {
    let temporary = tempfile::tempdir()?;
    let folder = settings.folder.as_deref().unwrap_or(temporary.path());
    let credentials = Credentials::make()?;
    credentials.save(folder)?;
    let addresses = free_addresses()?;
    let nodes = start(settings, folder, &addresses)?;
    for workload in &settings.workloads {
        let load = Load {
            work: match workload {
                Workload::Puts => Work::Puts,
                Workload::Gets => Work::Gets,
            },
            records: settings.records,
            value_bytes: settings.value_bytes as usize,
            in_flight: settings.in_flight as usize,
            rate: settings.rate,
            warm_up: settings.warm_up,
            time: settings.time,
        };
        let figures = client::run(&addresses, &credentials, load, || processor(&nodes))?;
        print(load, &figures);
    }
    Ok(())
}

fn start(settings: &Settings, folder: &Path, addresses: &[SocketAddr]) -> Result<Nodes, Fault> {
    let mut nodes = Nodes(Vec::new());
    for me in 0..NODES {
        let child = Command::new(std::env::current_exe()?)
            .args(["node", &me.to_string()])
            .arg(folder)
            .arg(settings.value_bytes.to_string())
            .args(addresses.iter().map(ToString::to_string))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        nodes.0.push(child);
    }
    for child in &mut nodes.0 {
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is a pipe")).read_line(&mut line)?;
        if line.trim() != "ready" {
            return Err("a node of the floor did not start".into());
        }
    }
    Ok(nodes)
}

fn free_addresses() -> std::io::Result<Vec<SocketAddr>> {
    let sockets = (0..NODES).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    sockets.iter().map(UdpSocket::local_addr).collect()
}

fn processor(nodes: &Nodes) -> Processor {
    let thread = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        stat.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
    };
    let of = |pid: u32| -> f64 {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        threads.map(|entry| thread(entry.path())).sum()
    };
    Processor { nodes: nodes.0.iter().map(|child| of(child.id())).sum(), client: of(std::process::id()) }
}

fn print(load: Load, figures: &Figures) {
    let each = |seconds: f64| seconds * 1e6 / figures.done.max(1) as f64;
    let at = |percentile| figures.latency_us.value_at_percentile(percentile);
    let line = json!({
        "workload": match load.work { Work::Puts => "puts", Work::Gets => "gets" },
        "done_per_second": figures.done_per_second, "in_flight": load.in_flight, "rate": load.rate,
        "value_bytes": load.value_bytes, "p50_us": at(50.0), "p99_us": at(99.0), "p99_9_us": at(99.9),
        "max_us": figures.latency_us.max(), "done": figures.done, "nodes_us_each": each(figures.processor.nodes),
        "client_us_each": each(figures.processor.client),
    });
    println!("{line}");
}
