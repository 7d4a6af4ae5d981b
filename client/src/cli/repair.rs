//! `repair`: what each node lacks, and how fast it is getting it.

use crate::args::Repair;
use crate::failure::{Code, Failure};
use crate::output::{self, grouped, table};
use crate::place::PATIENCE;
use crate::session::Session;
use crate::status::{bytes, copied, span};
use quorate_client::{Layout, LinkError, NodeId, NodeStatus, Partition};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Answers = Vec<(NodeId, Result<NodeStatus, LinkError>)>;

pub async fn run(session: &Session, repair: &Repair) -> Result<(), Failure> {
    let layout = session.layout();
    let partition = repair.partition.map(|index| partition(session, &layout, index)).transpose()?;
    let until = repair.timeout.map(|timeout| Instant::now() + timeout);
    let mut pace = Paces::default();
    loop {
        let answers = session.client.repair(partition, PATIENCE).await;
        pace.look(Instant::now(), &answers);
        let open = open(&layout, &answers);
        let last = !repair.wait || open.is_empty() || until.is_some_and(|until| Instant::now() >= until);
        print(session, &layout, &answers, &pace, &open, last)?;
        if answers.iter().all(|(_, status)| status.is_err()) && !repair.wait {
            return Err(Failure::new(Code::NotApplied, "no node answers").state("nothing was started"));
        }
        match (last, repair.wait && !open.is_empty()) {
            (false, _) => sleep(LOOK_EVERY).await,
            (true, false) => return Ok(()),
            (true, true) => {
                return Err(Failure::new(Code::Local, format!("after this time {}", open.join("; ")))
                    .state("repair goes on by itself")
                    .advise("`quorate status` says how the nodes are; wait longer with --timeout"));
            }
        }
    }
}

fn partition(session: &Session, layout: &Layout, index: u16) -> Result<Partition, Failure> {
    let bucket = session.bucket_of(layout)?;
    let count = layout.topology().partitions;
    if u64::from(index) < u64::from(count) {
        return Ok(Partition { n: bucket.n, index });
    }
    Err(Failure::usage(format!("there are partitions 0 to {}, not {index}", u64::from(count) - 1)))
}

/// What keeps the end from being reached, a sentence each.
fn open(layout: &Layout, answers: &Answers) -> Vec<String> {
    let mut open = Vec::new();
    for (id, status) in answers {
        let name = output::node_name(layout, *id);
        match status {
            Err(cause) => open.push(format!("{name} does not answer ({cause})")),
            Ok(status) if status.state == "rebuilding" => open.push(format!("{name} rebuilds")),
            Ok(status) if status.repair.dots_missing > 0 => {
                open.push(format!("{name} lacks {} writes", grouped(status.repair.dots_missing)));
            }
            Ok(status) if !status.repair.unheard.is_empty() => {
                let unheard = output::names(layout, status.repair.unheard.iter().map(|node| NodeId(*node)));
                open.push(format!("{name} has not heard yet what {unheard} may have"));
            }
            Ok(status) if status.hints_pending > 0 => {
                open.push(format!("{name} keeps {} hints for others", grouped(status.hints_pending)));
            }
            Ok(_) => {}
        }
    }
    open
}

/// How fast each node gets on, since the first look.
#[derive(Default)]
struct Paces(BTreeMap<NodeId, Pace>);

struct Pace {
    began: Instant,
    first: NodeStatus,
    seconds: f64,
    /// Bytes a second, and seconds left if that can be said.
    rate: u64,
    left: Option<u64>,
}

impl Paces {
    fn look(&mut self, now: Instant, answers: &Answers) {
        for (id, status) in answers.iter().filter_map(|(id, status)| Some((id, status.as_ref().ok()?))) {
            let fresh = || Pace { began: now, first: status.clone(), seconds: 0.0, rate: 0, left: None };
            let pace = self.0.entry(*id).or_insert_with(fresh);
            if status.repair.bytes_taken < pace.first.repair.bytes_taken {
                *pace = fresh(); // It was started again.
            }
            pace.seconds = now.saturating_duration_since(pace.began).as_secs_f64();
            let taken = status.repair.bytes_taken - pace.first.repair.bytes_taken;
            pace.rate = if pace.seconds > 0.0 { (taken as f64 / pace.seconds) as u64 } else { 0 };
            pace.left = seconds_left(pace.seconds, to_do(&pace.first), to_do(status));
        }
    }
}

/// Partitions to copy of a node that rebuilds, else dots to pull.
fn to_do(status: &NodeStatus) -> u64 {
    let sources = &status.repair.sources;
    match sources.is_empty() {
        true => status.repair.dots_missing,
        false => sources.iter().map(|s| u64::from(s.partitions - s.partitions_copied.min(s.partitions))).sum(),
    }
}

fn seconds_left(seconds: f64, first: u64, now: u64) -> Option<u64> {
    match first.checked_sub(now) {
        _ if now == 0 => Some(0),
        Some(done) if done > 0 => Some((seconds * now as f64 / done as f64).ceil() as u64),
        Some(_) | None => None,
    }
}

fn print(
    session: &Session,
    layout: &Layout,
    answers: &Answers,
    paces: &Paces,
    open: &[String],
    last: bool,
) -> Result<(), Failure> {
    let format = session.common.output;
    if format.is_json() {
        // `json` is one document: the last. `jsonl` is one for each look.
        if last || format == output::Format::Jsonl {
            output::document(&document(layout, answers, paces, open), format)?;
        }
        return Ok(());
    }
    if !last {
        eprintln!("{}", open.join("; "));
        return Ok(());
    }
    output::line(&if open.is_empty() { "nothing is missing\n".to_string() } else { format!("{}\n", open.join("\n")) })?;
    let header = ["NODE", "STATE", "MISSING", "PARTITIONS", "UNDER WAY", "TAKEN", "RATE", "LEFT", "HINTS"];
    let rows = answers.iter().map(|(id, status)| row(layout, *id, status, paces)).collect();
    output::bytes(table(&header, rows).as_bytes())?;
    for (id, status) in answers {
        if let Some(copied) = status.as_ref().ok().and_then(|status| copied(layout, status)) {
            output::line(&format!("{} rebuilds: {copied}", output::node_name(layout, *id)))?;
        }
    }
    Ok(())
}

fn row(layout: &Layout, id: NodeId, status: &Result<NodeStatus, LinkError>, paces: &Paces) -> Vec<String> {
    let mut row = vec![output::node_name(layout, id)];
    match (status, paces.0.get(&id)) {
        (Ok(status), Some(pace)) => row.extend([
            status.state.clone(),
            grouped(status.repair.dots_missing),
            grouped(u64::from(status.repair.partitions_behind)),
            grouped(u64::from(status.repair.under_way)),
            bytes(status.repair.bytes_taken),
            if pace.seconds > 0.0 { format!("{}/s", bytes(pace.rate)) } else { "-".to_string() }, // One look tells no rate.
            pace.left.map_or("?".to_string(), span),
            grouped(status.hints_pending),
        ]),
        (Ok(_) | Err(_), _) => row.extend(["?"; 8].map(str::to_string)),
    }
    row
}

fn document(layout: &Layout, answers: &Answers, paces: &Paces, open: &[String]) -> Value {
    let node = |(id, status): &(NodeId, Result<NodeStatus, LinkError>)| {
        let name = output::node_name(layout, *id);
        match status {
            Err(cause) => json!({ "name": name, "state": "?", "reason": cause.to_string() }),
            Ok(status) => {
                let pace = paces.0.get(id);
                let names = |ids: &[u16]| ids.iter().map(|n| output::node_name(layout, NodeId(*n))).collect::<Vec<_>>();
                json!({
                    "name": name,
                    "state": status.state,
                    "dots_missing": status.repair.dots_missing,
                    "hints_pending": status.hints_pending,
                    "partitions_behind": status.repair.partitions_behind,
                    "under_way": status.repair.under_way,
                    "bytes_taken": status.repair.bytes_taken,
                    "bytes_per_second": pace.map(|pace| pace.rate),
                    "seconds_left": pace.and_then(|pace| pace.left),
                    "unheard": names(&status.repair.unheard),
                    "sources": status.repair.sources.iter().map(|source| json!({
                        "name": output::node_name(layout, NodeId(source.node)),
                        "partitions_copied": source.partitions_copied,
                        "partitions": source.partitions,
                    })).collect::<Vec<_>>(),
                })
            }
        }
    };
    json!({
        "nothing_missing": open.is_empty(),
        "open": open,
        "nodes": answers.iter().map(node).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_ring::wire::client::{RepairStatus, SourceStatus};

    #[test]
    fn the_time_left_follows_from_what_was_done() {
        assert_eq!(seconds_left(2.0, 100, 50), Some(2));
        assert_eq!(seconds_left(2.0, 100, 100), None, "nothing was done yet");
        assert_eq!(seconds_left(2.0, 100, 150), None, "it grows");
        assert_eq!(seconds_left(2.0, 100, 0), Some(0));
    }

    #[test]
    fn a_node_that_rebuilds_has_partitions_to_copy_and_others_have_dots() {
        let repair = RepairStatus { dots_missing: 7, ..RepairStatus::default() };
        let mut status = NodeStatus { repair, ..NodeStatus::default() };
        assert_eq!(to_do(&status), 7);
        status.repair.sources = vec![SourceStatus { node: 2, partitions_copied: 3, partitions: 10 }];
        assert_eq!(to_do(&status), 7);
        status.repair.sources.push(SourceStatus { node: 3, partitions_copied: 0, partitions: 4 });
        assert_eq!(to_do(&status), 11);
    }
}
