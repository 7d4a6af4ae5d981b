//! The fault verbs, in words to the person who typed them.

use crate::commands;
use anyhow::Result;
use clap::Subcommand;
use quorate_ops::cluster::Cluster;
use quorate_ops::process::Tie;
use quorate_ops::relay::{Account, Rules, RulesError, parse_late};
use std::time::Duration;

#[derive(Subcommand)]
pub enum Fault {
    /// Divide the cluster: nodes of different groups do not hear each other (`up --faults`).
    ///
    /// As in `quorate-lab partition n1,n2 n3,n4,n5`, or in quotes "n1,n2 | n3,n4,n5". A node may be in several groups;
    /// one that is not named hears all. Earlier cuts are over. Clients still reach all nodes: only what nodes say to
    /// each other is cut.
    Partition {
        #[arg(required = true, value_name = "GROUP")]
        groups: Vec<String>,
    },
    /// Cut a link one way: packets of the first node do not reach the second (`up --faults`).
    Cut {
        #[arg(value_name = "FROM")]
        from: String,
        #[arg(value_name = "TO")]
        to: String,
    },
    /// Cut a node off from all other nodes, both ways (`up --faults`).
    Isolate {
        #[arg(value_name = "NODE")]
        node: String,
    },
    /// Make all packets between a node and its peers late, each way: `slow n3 100ms`, `slow n3 off` (`up --faults`).
    Slow {
        #[arg(value_name = "NODE")]
        node: String,
        #[arg(value_name = "TIME|off")]
        late: String,
    },
    /// End every cut and slowness.
    Heal,
    /// Lose a node's disk: it is killed, its data folder goes, it starts under a new actor and rebuilds from the others.
    Wipe {
        #[arg(value_name = "NODE")]
        node: String,
        /// How long to wait until it has rebuilt, in seconds.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },
    /// Fill a node's disk (`up --disk`).
    FillDisk {
        #[arg(value_name = "NODE")]
        node: String,
        /// Bytes that stay free [default: half of what the node is told to leave free; 0 fills it to the last byte].
        #[arg(long, value_name = "BYTES")]
        leave: Option<u64>,
    },
    /// Make room on a node's disk again.
    FreeDisk {
        #[arg(value_name = "NODE")]
        node: String,
    },
}

pub fn run(fault: Fault, mut cluster: Cluster) -> Result<()> {
    match fault {
        Fault::Partition { groups } => links(&cluster, |rules, known| rules.partition(&groups, known)),
        Fault::Cut { from, to } => links(&cluster, |rules, known| rules.cut(&from, &to, known)),
        Fault::Isolate { node } => links(&cluster, |rules, known| rules.isolate(&node, known)),
        Fault::Slow { node, late } => {
            let late = parse_late(&late)?;
            links(&cluster, |rules, known| rules.slow(&node, late, known))
        }
        Fault::Heal => links(&cluster, |rules, _| {
            rules.heal();
            Ok(())
        }),
        Fault::Wipe { node, wait } => {
            let names = cluster.select(&[node])?;
            cluster.wipe(&names[0], Tie::OutlivesUs)?;
            println!(
                "wiped {}; it has a new actor, answers no reads, and copies what it owns from the others",
                names[0]
            );
            commands::wait(&cluster, &names, Duration::from_secs(wait))?;
            println!("{} has rebuilt, and takes part again", names[0]);
            Ok(())
        }
        Fault::FillDisk { node, leave } => {
            let names = cluster.select(&[node])?;
            let bytes = cluster.fill_disk(&names[0], leave)?;
            println!(
                "{} bytes of the disk of {} are taken; `quorate-lab free-disk {1}` gives them back",
                bytes, names[0]
            );
            Ok(())
        }
        Fault::FreeDisk { node } => {
            let names = cluster.select(&[node])?;
            cluster.free_disk(&names[0])?;
            println!("there is room on the disk of {} again", names[0]);
            Ok(())
        }
    }
}

fn links(cluster: &Cluster, change: impl FnOnce(&mut Rules, &[String]) -> Result<(), RulesError>) -> Result<()> {
    let Account { rules, .. } = cluster.change_rules(change)?;
    println!("{rules}");
    Ok(())
}
