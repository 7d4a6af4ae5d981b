//! What nodes cost while nobody asks anything of them: processor time and memory, as the operating system counts them.

use crate::cluster;
use crate::folder::{Folder, FolderError};
use crate::process::{Doing, Process};
use comfy_table::{Table, presets};
use serde_json::json;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum IdleError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("no node runs in {0}; `quorate-lab up` starts them")]
    NoneRuns(String),
    #[error("{0} ended while it was watched; `quorate-lab logs {0}` shows why")]
    Ended(String),
}

/// Of one node, over the time that it was watched.
#[derive(Clone, PartialEq, Debug)]
pub struct Cost {
    pub node: String,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// At the end.
    pub resident_bytes: u64,
}

/// Watches every node that runs, for so long or until `stop` says so; with how long it was.
pub fn watch(
    folder: &Folder,
    time: Duration,
    mut stop: impl FnMut() -> ControlFlow<()>,
) -> Result<(Duration, Vec<Cost>), IdleError> {
    let running = cluster::view(folder)?.into_iter().filter(|node| node.doing == Doing::Running);
    let nodes: Vec<(String, Process)> = running.filter_map(|n| Some((n.record.name, n.record.process?))).collect();
    if nodes.is_empty() {
        return Err(IdleError::NoneRuns(folder.path().display().to_string()));
    }
    let began = Instant::now();
    let used = |(name, process): &(String, Process)| {
        process.cpu_time().map(|time| (time, Instant::now())).ok_or_else(|| IdleError::Ended(name.clone()))
    };
    let before: Vec<(Duration, Instant)> = nodes.iter().map(used).collect::<Result<_, _>>()?;
    while began.elapsed() < time && stop().is_continue() {
        std::thread::sleep(LOOK_EVERY.min(time));
    }
    let cost = |(node, (cpu_before, since)): (&(String, Process), (Duration, Instant))| {
        let (cpu, now) = used(node)?;
        let resident_bytes = node.1.resident_bytes().ok_or_else(|| IdleError::Ended(node.0.clone()))?;
        let cpu_percent = 100.0 * (cpu - cpu_before).as_secs_f64() / (now - since).as_secs_f64();
        Ok(Cost { node: node.0.clone(), cpu_percent, resident_bytes })
    };
    let costs = nodes.iter().zip(before).map(cost).collect::<Result<_, IdleError>>()?;
    Ok((began.elapsed(), costs))
}

pub fn table(time: Duration, costs: &[Cost]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NODE", "CPU", "MEMORY"]);
    for cost in costs {
        let cpu = format!("{:.2} % of a core", cost.cpu_percent);
        table.add_row([cost.node.clone(), cpu, format!("{:.1} MiB", mib(cost.resident_bytes))]);
    }
    let busiest = costs.iter().map(|cost| cost.cpu_percent).fold(0.0, f64::max);
    let largest = costs.iter().map(|cost| cost.resident_bytes).max().unwrap_or(0);
    format!(
        "{} nodes over {:.1} s: the busiest used {busiest:.2} % of a core, the largest holds {:.1} MiB\n\n{table}",
        costs.len(),
        time.as_secs_f64(),
        mib(largest)
    )
}

pub fn json(time: Duration, costs: &[Cost]) -> String {
    let entry = |cost: &Cost| json!({ "name": cost.node, "cpu_percent": cost.cpu_percent, "resident_bytes": cost.resident_bytes });
    json!({ "seconds": time.as_secs_f64(), "nodes": costs.iter().map(entry).collect::<Vec<_>>() }).to_string()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
