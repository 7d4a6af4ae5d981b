//! `quorate-lab`: a cluster of real processes on one machine.

mod commands;
mod fault_verbs;
mod interrupt;
mod runs;

use clap::{Parser, Subcommand, ValueEnum};
use quorate_ops::crash;
use quorate_ops::trial::Trial;
use std::path::PathBuf;
use std::process::ExitCode;

/// A Quorate cluster of real processes on this machine, all of it in one folder.
#[derive(Parser)]
#[command(name = "quorate-lab", version)]
struct Arguments {
    /// Folder of the lab.
    #[arg(long, global = true, env = "QUORATE_LAB", default_value = ".lab", value_name = "FOLDER")]
    dir: PathBuf,
    /// The node program; by default `quorate-node` beside this one.
    #[arg(long, global = true, env = "QUORATE_NODE_PROGRAM", value_name = "FILE")]
    node_program: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a cluster and start it, or start again what is in the folder.
    Up {
        /// Nodes of a new cluster.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
        nodes: Option<u16>,
        /// Racks that they are spread over.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
        racks: Option<u16>,
        /// Copies of each key [default: 3, or as many as there are nodes].
        #[arg(long)]
        n: Option<u8>,
        /// Partitions of the key space, a power of two.
        #[arg(long)]
        partitions: Option<u16>,
        /// Let the nodes talk through a relay, so that links can be cut and slowed down; up to 16 nodes.
        #[arg(long)]
        faults: bool,
        /// Give each node a disk of its own of so many MiB, in memory, that can be filled (needs root).
        #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..=4096))]
        disk: Option<u64>,
        /// Start Prometheus beside the nodes (installed if it is missing), and Grafana if it is on the machine. A new
        /// cluster gets a canary.
        #[arg(long)]
        observe: bool,
        /// Stay, and end the nodes when this command is ended.
        #[arg(long)]
        foreground: bool,
        /// With --foreground: end also when whatever started this command ends, even if it was killed. For tests.
        #[arg(long, requires = "foreground")]
        with_parent: bool,
        /// How long to wait for the nodes to be ready, in seconds.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
    /// Show how each node is doing.
    Status {
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Watch the nodes that run for a while, and say what each costs: processor time and memory.
    Idle {
        /// For how long.
        #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: u64,
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// End nodes at once, as a crash would (SIGKILL).
    Kill {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Start nodes; those that run are ended first, gracefully.
    Restart {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
        /// How long to wait for them to be ready, in seconds.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
    /// Freeze nodes: they keep their connections and answer nothing (SIGSTOP).
    Pause {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Let frozen nodes go on.
    Resume {
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Make faults on purpose: in the network, on disks.
    #[command(flatten)]
    Fault(fault_verbs::Fault),
    /// End every node gracefully, and keep their data.
    Down,
    /// End every node and remove the folder.
    Destroy,
    /// Show the end of a node's log.
    Logs {
        #[arg(value_name = "NODE")]
        node: String,
        /// Go on showing what is added.
        #[arg(short, long)]
        follow: bool,
        /// How many lines of what is there.
        #[arg(short, long, default_value_t = 40)]
        lines: usize,
    },
    /// Make the certificates of a cluster: authorities where they are missing, new ones for each node and a client.
    Certs {
        /// The cluster they are for.
        #[arg(long, value_name = "FILE")]
        topology: PathBuf,
        /// Folder to put them in.
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
    },
    /// Write the Grafana dashboards into a folder.
    Dashboards {
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// Write pages instead that draw them from this Prometheus, as a preview without Grafana.
        #[arg(long, value_name = "URL")]
        preview: Option<String>,
        /// How far back the preview goes.
        #[arg(long, default_value_t = 5, value_name = "MINUTES")]
        minutes: u32,
    },
    /// Kill all nodes in the middle of a load, again and again, and check that all that was acknowledged is kept.
    CrashRounds(crash::Settings),
    /// Read every owner of every partition directly, and say byte for byte where they differ.
    Verify {
        /// Count tombstones and log entries that are left, too.
        #[arg(long)]
        residue: bool,
        /// Look again until all is well, for so many seconds at the most.
        #[arg(long, default_value_t = 0, value_name = "SECONDS")]
        within: u64,
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Tell, and play with real processes, what happens when a cluster is cut in two.
    Story {
        #[arg(value_enum)]
        name: StoryName,
        /// Folder for the cluster, removed afterwards [default: one in the system's folder for such things].
        #[arg(long, value_name = "FOLDER")]
        scratch: Option<PathBuf>,
    },
    /// Make faults under load, and check what must hold then: `trial down`, `wipe`, `cut`, `deletes`, `hints`.
    Trial {
        #[command(subcommand)]
        trial: Trial,
        #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
        output: Output,
    },
    /// Forward packets between nodes, by a plan. `up --faults` starts it.
    #[command(hide = true)]
    Relay {
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum StoryName {
    SplitBrain,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

fn main() -> ExitCode {
    let Arguments { dir, node_program, command } = Arguments::parse();
    let done = commands::Commands::new(&dir, node_program).and_then(|commands| commands.run(command));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("quorate-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
