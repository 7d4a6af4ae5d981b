//! Whether all owners of each partition hold the same: every owner is read directly, and compared byte for byte.
//!
//! A reader of the store never sees this: gets and listings unite what several owners hold. Here each is taken at its
//! word. What is read while clients write, or while a node comes back, differs for a moment; `settle` looks again.
//!
//! - [`owner`]: what one owner holds of a partition, page by page.
//! - [`compare`]: what differs at a key, and what should not be there.
//! - [`residue`]: tombstones and log entries that are left.
//! - [`report`]: all of it, for people and as JSON.

mod compare;
mod owner;
mod report;
mod residue;

pub use compare::{Difference, Wrong};
pub use report::Findings;
pub use residue::Residue;

use compare::Comparison;
use owner::Owner;
use quorate_client::{Client, Layout, LinkError, NodeId, Partition};
use residue::{Actors, Left};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Partitions that are read at the same time.
const AT_ONCE: usize = 8;
/// Between two looks at a cluster that is not the same everywhere yet.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// For the nodes' own account of themselves.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// How far a look has come: partitions read, and partitions altogether.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    pub done: usize,
    pub all: usize,
}

/// Reads everything once. With `residue` the logs too.
pub async fn look(client: &Client, residue: bool, mut show: impl FnMut(Progress)) -> Findings {
    let layout = client.layout();
    let answers = client.status(STATUS_PATIENCE).await;
    let actors = if residue { Some(Actors::ask(client, &layout).await) } else { None };
    let mut findings = Findings::default();
    if residue {
        let hints = answers.iter().filter_map(|(_, status)| status.as_ref().ok()).map(|status| status.hints_pending);
        findings.residue = Some(Residue { hints: hints.sum(), ..Residue::default() });
    }
    let silent = answers.into_iter().filter_map(|(node, status)| Some((node, status.err()?))).collect();
    let known = Arc::new(Known { layout: Arc::clone(&layout), silent, actors });
    let partitions: Vec<Partition> = layout.partitions().map(|(partition, _)| partition).collect();
    let all = partitions.len();
    let mut next = partitions.into_iter();
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < AT_ONCE
            && let Some(partition) = next.next()
        {
            reading.spawn(read(client.clone(), partition, Arc::clone(&known)));
        }
        let Some(read) = reading.join_next().await else { return findings };
        findings.add(read.expect("reading a partition does not panic"));
        show(Progress { done: findings.partitions, all });
    }
}

/// Looks again and again until all is the same everywhere (with `residue`: and nothing is left that should go), or the
/// time is up. Returns the last findings, and how long it took.
pub async fn settle(
    client: &Client,
    residue: bool,
    within: Duration,
    mut show: impl FnMut(Progress),
) -> (Findings, Duration) {
    let began = Instant::now();
    loop {
        let findings = look(client, residue, &mut show).await;
        if findings.clean() || began.elapsed() >= within {
            return (findings, began.elapsed());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What all readers of partitions know.
struct Known {
    layout: Arc<Layout>,
    /// Nodes that do not answer. The others are held against each other without them.
    silent: BTreeMap<NodeId, LinkError>,
    actors: Option<Actors>,
}

/// One partition of all its owners.
async fn read(client: Client, partition: Partition, known: Arc<Known>) -> Findings {
    let Known { layout, silent, actors } = &*known;
    let mut findings = Findings { partitions: 1, ..Findings::default() };
    let nodes = layout.preference(partition).map_or(&[][..], |list| list.owners());
    nodes
        .iter()
        .filter_map(|node| Some((node, silent.get(node)?)))
        .for_each(|(node, why)| findings.not_read(*node, why));
    let answering = nodes.iter().filter(|node| !silent.contains_key(node));
    let mut owners: Vec<Owner> = answering.map(|node| Owner::new(*node, partition)).collect();
    let mut left = Left::default();
    if let Err((node, cause)) = walk(&client, layout, &mut owners, &mut findings, &mut left).await {
        findings.not_read(node, &cause);
        return findings;
    }
    if let Some(actors) = actors {
        match left.read_logs(&client, &mut owners, actors).await {
            Ok(residue) => findings.residue = Some(residue),
            Err((node, cause)) => findings.not_read(node, &cause),
        }
    }
    findings
}

/// Goes through all keys in their order, and through all owners at each.
async fn walk(
    client: &Client,
    layout: &Layout,
    owners: &mut [Owner],
    findings: &mut Findings,
    left: &mut Left,
) -> Result<(), (NodeId, LinkError)> {
    loop {
        for owner in owners.iter_mut() {
            owner.turn_page(client).await.map_err(|cause| (owner.node, cause))?;
        }
        let Some(place) = owners.iter().filter_map(Owner::head).min() else { return Ok(()) };
        let held: Vec<_> = owners.iter_mut().map(|owner| owner.take(&place)).collect();
        let comparison = Comparison::of(layout, &place, &held);
        left.note(&place, &comparison.united);
        findings.count(&place, comparison);
    }
}
