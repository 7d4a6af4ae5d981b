//! `status`: one sentence, then a line for each node. Within a second, whoever does not answer.

use crate::args::Common;
use crate::failure::{Code, Failure};
use crate::output::{self, grouped, names, table};
use crate::place::PATIENCE;
use crate::session::load_profile;
use quorate_client::{
    BucketVerdict, Client, ConnectError, Layout, LinkError, NodeId, NodeStatus, PeerStatus, Profile, verdict,
};
use quorate_ring::wire::client::SourceStatus;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// For the first node to greet; with `PATIENCE` less than a second.
const CONNECT_MAX: Duration = Duration::from_millis(250);
/// If none did, for a second look: only then is it said that no node is up.
const CONNECT_AGAIN_MAX: Duration = Duration::from_millis(650);

/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(1);

type Answers = Vec<(NodeId, Result<NodeStatus, LinkError>)>;

/// Looks again and again, until it is ended. That no node answers is no reason to end.
pub async fn watch(common: &Common) -> Result<(), Failure> {
    let mut again = interval(WATCH_EVERY);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        again.tick().await;
        match look(common, true).await {
            Err(failure) if failure.code == Code::NotApplied => {
                let _goes_on = failure.report(common.output);
            }
            looked => looked?,
        }
    }
}

pub async fn run(common: &Common) -> Result<(), Failure> {
    look(common, false).await
}

async fn look(common: &Common, anew: bool) -> Result<(), Failure> {
    let profile = load_profile(common)?;
    let connecting = Client::connect(&profile);
    tokio::pin!(connecting);
    let client = match timeout(CONNECT_MAX, &mut connecting).await {
        Ok(result) => result,
        Err(_) => match timeout(CONNECT_AGAIN_MAX, &mut connecting).await {
            Ok(result) => result,
            Err(_) => return Err(nobody(common, &profile, anew)),
        },
    };
    let client = match client {
        Ok(client) => client,
        Err(ConnectError::Unreachable(causes)) if !causes.all_tls() => return Err(nobody(common, &profile, anew)),
        Err(error) => return Err(error.into()),
    };
    let answers = client.status(PATIENCE).await;
    let layout = client.layout();
    if anew && !common.output.is_json() {
        output::anew()?;
    }
    let printed = print(common, &layout, &answers);
    client.close().await;
    printed
}

/// All question marks: there is not even a topology to judge by.
fn nobody(common: &Common, profile: &Profile, anew: bool) -> Failure {
    if common.output == output::Format::Table {
        if anew {
            let _ = output::anew();
        }
        let row = |(id, address): (&NodeId, &std::net::SocketAddr)| {
            vec![id.to_string(), "?".to_string(), address.to_string()]
        };
        // The failure below says the same, should stdout be gone.
        let _ = output::bytes(table(&["NODE", "STATE", "ADDRESS"], profile.nodes.iter().map(row).collect()).as_bytes());
    }
    Failure::new(Code::NotApplied, format!("none of the {} nodes of the profile answers", profile.nodes.len()))
        .state("no request can be served from here")
        .advise("check that the nodes run (on this machine: `quorate-lab status`) and the addresses in the profile")
}

/// Those that take requests.
fn serving(answers: &Answers) -> Vec<NodeId> {
    let is = |status: &Result<NodeStatus, LinkError>| matches!(status, Ok(s) if s.state == "serving");
    answers.iter().filter(|(_, status)| is(status)).map(|(node, _)| *node).collect()
}

fn print(common: &Common, layout: &Layout, answers: &Answers) -> Result<(), Failure> {
    let verdict = verdict(layout, &serving(answers));
    if common.output.is_json() {
        let node = |(id, status): &(NodeId, Result<NodeStatus, LinkError>)| node_json(layout, *id, status);
        let value = json!({
            "verdict": verdict.to_string(),
            "nodes_up": verdict.live,
            "nodes": verdict.nodes,
            "can_lose": verdict.spare(),
            "partitions": verdict.partitions,
            "buckets": verdict.buckets.iter().map(bucket_json).collect::<Vec<_>>(),
            "epoch": layout.epoch(),
            "members": answers.iter().map(node).collect::<Vec<_>>(),
        });
        return output::document(&value, common.output);
    }
    output::line(&format!("{verdict}\n"))?;
    let rows = answers.iter().map(|(id, status)| row(layout, answers, *id, status)).collect();
    let header = [
        "NODE",
        "RACK",
        "STATE",
        "UP FOR",
        "KEYS",
        "PARTITIONS",
        "LACKS WRITES",
        "HINTS FOR IT",
        "MEMORY",
        "DISK FREE",
        "SEES DOWN",
    ];
    output::bytes(table(&header, rows).as_bytes())?;
    let other = |s: &NodeStatus| s.epoch != layout.epoch().0;
    for (id, status) in answers {
        if let Some(copied) = status.as_ref().ok().and_then(|status| copied(layout, status)) {
            output::line(&format!("{} rebuilds: {copied}", output::node_name(layout, *id)))?;
        }
        match status {
            Ok(status) if other(status) => {
                let name = output::node_name(layout, *id);
                output::line(&format!(
                    "{name} is at epoch {} of the topology, others at {}",
                    status.epoch,
                    layout.epoch()
                ))?;
            }
            Ok(_) => {}
            Err(cause) => output::line(&format!("{}: {cause}", output::node_name(layout, *id)))?,
        }
    }
    Ok(())
}

fn row(layout: &Layout, answers: &Answers, id: NodeId, status: &Result<NodeStatus, LinkError>) -> Vec<String> {
    let node = layout.topology().node(id).expect("answers come from nodes of the topology");
    let mut row = vec![node.name.clone(), node.rack.clone()];
    let unknown = || "?".to_string();
    // Of a node that does not answer the others know at least this.
    let (lag, hints) =
        (lag(answers, id).map_or_else(unknown, shown_lag), hints(answers, id).map_or_else(unknown, grouped));
    match status {
        Err(_) => row.extend([unknown(), unknown(), unknown(), unknown(), lag, hints, unknown(), unknown(), unknown()]),
        Ok(status) => {
            let down = status.peers.iter().filter(|p| p.state != "up").map(|p| NodeId(p.node));
            let down = names(layout, down);
            row.extend([
                shown_state(status),
                span(status.uptime_s),
                grouped(status.keys_estimate),
                status.partitions_owned.to_string(),
                lag,
                hints,
                bytes(status.resident_bytes),
                bytes(status.disk_bytes_free),
                if down.is_empty() { "-".to_string() } else { down },
            ]);
        }
    }
    row
}

/// What the nodes that answer say of one of them.
fn told_of(answers: &Answers, id: NodeId) -> impl Iterator<Item = &PeerStatus> {
    let peers = answers.iter().filter_map(|(_, status)| status.as_ref().ok()).flat_map(|s| &s.peers);
    peers.filter(move |peer| peer.node == id.0)
}

/// Writes that a node is known to lack, and how old the oldest is, in ms: as the peer that knows of most sees it. None
/// before it has told any of them what it has.
fn lag(answers: &Answers, id: NodeId) -> Option<(u64, u64)> {
    told_of(answers, id).filter(|peer| peer.clock_known).map(|peer| (peer.lag_dots, peer.lag_oldest_ms)).max()
}

/// Writes that others keep for a node.
fn hints(answers: &Answers, id: NodeId) -> Option<u64> {
    let mut all = told_of(answers, id).map(|peer| peer.hints_pending).peekable();
    all.peek()?;
    Some(all.sum())
}

fn shown_lag((dots, oldest_ms): (u64, u64)) -> String {
    match (dots, oldest_ms) {
        (0, _) => "0".to_string(),
        (dots, 0..=999) => grouped(dots),
        (dots, ms) => format!("{} for {}", grouped(dots), span(ms / 1000)),
    }
}

fn shown_state(status: &NodeStatus) -> String {
    match status.copies_needed {
        0 => status.state.clone(),
        needed => format!("{}, {}%", status.state, 100 * status.copies_made.min(needed) / needed),
    }
}

fn bucket_json(bucket: &BucketVerdict) -> Value {
    json!({
        "name": bucket.name,
        "can_lose": bucket.spare,
        "can_lose_a_rack": bucket.rack,
        "partitions_failing": bucket.failing,
    })
}

fn node_json(layout: &Layout, id: NodeId, status: &Result<NodeStatus, LinkError>) -> Value {
    let node = layout.topology().node(id).expect("answers come from nodes of the topology");
    let mut value = match status {
        Ok(status) => serde_json::to_value(status).unwrap_or_else(|_| json!({})),
        Err(cause) => json!({ "state": "?", "reason": cause.to_string() }),
    };
    value["id"] = json!(id.0);
    value["name"] = json!(node.name);
    value["rack"] = json!(node.rack);
    value["address"] = json!(node.client_address);
    if let Some(fields) = value.as_object_mut() {
        fields.remove("node");
    }
    value
}

/// How much a node that rebuilds has copied, and from whom.
pub fn copied(layout: &Layout, status: &NodeStatus) -> Option<String> {
    let source = |source: &SourceStatus| {
        let name = output::node_name(layout, NodeId(source.node));
        format!("{} of {} partitions from {name}", source.partitions_copied, source.partitions)
    };
    let sources: Vec<String> = status.repair.sources.iter().map(source).collect();
    (!sources.is_empty()).then(|| sources.join(", "))
}

pub fn span(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

pub fn bytes(count: u64) -> String {
    match count {
        0..=1_048_575 => format!("{} KiB", count >> 10),
        1_048_576..=10_737_418_239 => format!("{} MiB", count >> 20),
        _ => format!("{} GiB", count >> 30),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: u16, peers: Vec<PeerStatus>) -> (NodeId, Result<NodeStatus, LinkError>) {
        (NodeId(node), Ok(NodeStatus { node, peers, ..NodeStatus::default() }))
    }

    #[test]
    fn a_node_that_does_not_answer_is_known_by_its_peers() {
        let peer = |lag_dots, clock_known, hints_pending| PeerStatus {
            node: 3,
            lag_dots,
            lag_oldest_ms: 12_345,
            clock_known,
            hints_pending,
            ..PeerStatus::default()
        };
        let silent = (NodeId(3), Err(LinkError::Socket("gone".to_string())));
        let answers = vec![answer(1, vec![peer(5_000, true, 2)]), answer(2, vec![peer(4_000, true, 5)]), silent];
        assert_eq!(lag(&answers, NodeId(3)), Some((5_000, 12_345)));
        assert_eq!(hints(&answers, NodeId(3)), Some(7));
        assert_eq!(shown_lag((5_000, 12_345)), "5,000 for 12 s");
        assert_eq!((lag(&answers, NodeId(1)), hints(&answers, NodeId(1))), (None, None));
        let untold = vec![answer(1, vec![peer(0, false, 0)])];
        assert_eq!(lag(&untold, NodeId(3)), None, "0 would be a lie");
    }

    #[test]
    fn a_rebuilding_node_says_how_far_it_has_come() {
        let state = "rebuilding".to_string();
        let status = NodeStatus { state, copies_needed: 300, copies_made: 100, ..NodeStatus::default() };
        assert_eq!(shown_state(&status), "rebuilding, 33%");
    }
}
