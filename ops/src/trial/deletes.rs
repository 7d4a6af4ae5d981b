//! Deletes at the worst moments: while an owner is down, while hints for the key are under way, before a disk is wiped.

use super::load::owners;
use super::{Common, Receipt, SETTLE_LIMIT};
use crate::process::Tie;
use crate::sequence::Sequence;
use crate::stage::{Stage, StageError, note};
use quorate_client::{Client, NodeId, ReadOptions, Supersede, Via, WriteOptions};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

const BUCKETS: [&str; 2] = ["default", "sloppy"];
/// Requests under way at the same time.
const AT_ONCE: usize = 16;
/// How late the packets of an owner are, while hints for it are under way.
const LATE: Duration = Duration::from_millis(100);
const BREATH: Duration = Duration::from_millis(20);

/// Keys that were deleted, in one bucket each.
type Keys = Arc<Vec<(&'static str, String)>>;

/// Reads deleted keys again and again: each is gone from the moment that its delete was acknowledged.
struct Watch {
    stop: Arc<AtomicBool>,
    seen: Arc<Seen>,
    readers: JoinSet<()>,
}

#[derive(Default)]
struct Seen {
    reads: AtomicU64,
    back: AtomicU64,
}

pub fn run(stage: &mut Stage<'_>, common: &Common, keys: usize) -> Result<Receipt, StageError> {
    let mut receipt = Receipt::new("deletes");
    let mut sequence = Sequence::new(common.seed);
    let mut seen = [0, 0];
    for act in [Act::OwnerDown, Act::HintsUnderWay, Act::BeforeWipe] {
        let name = stage.names[(sequence.draw() % stage.names.len() as u64) as usize].clone();
        note(&format!("{}: {name}", act.text()));
        let watch = act.play(stage, &name, keys, &mut receipt)?;
        let (findings, took) = stage.settle(true, SETTLE_LIMIT);
        let [reads, back] = watch.end(stage);
        seen = [seen[0] + reads, seen[1] + back];
        if !findings.clean() || findings.keys > held_back(&findings) {
            receipt.wrong(format!("{}: {findings}", act.text()));
        }
        receipt.fact(act.text(), json!({ "settled_after_seconds": took.as_secs_f64(), "left": findings.residue }));
    }
    receipt.fact("reads of deleted keys", seen[0]);
    receipt.fact("of these not gone", seen[1]);
    if seen[0] == 0 || seen[1] > 0 {
        receipt.wrong(format!("{} of {} reads showed a deleted key", seen[1], seen[0]));
    }
    Ok(receipt)
}

/// Every key was deleted, so what is there are tombstones that a lost disk holds back.
fn held_back(findings: &crate::verify::Findings) -> u64 {
    findings.residue.map_or(0, |residue| residue.tombstones_held_back)
}

#[derive(Clone, Copy)]
enum Act {
    OwnerDown,
    HintsUnderWay,
    BeforeWipe,
}

impl Act {
    fn text(self) -> &'static str {
        match self {
            Act::OwnerDown => "deleted while an owner is down",
            Act::HintsUnderWay => "deleted while hints are under way",
            Act::BeforeWipe => "deleted before a disk is wiped",
        }
    }

    fn play(self, stage: &mut Stage<'_>, name: &str, count: usize, receipt: &mut Receipt) -> Result<Watch, StageError> {
        let keys: Keys = Arc::new(
            (0..count).map(|number| (BUCKETS[number % 2], format!("{}/{name}/{number}", self.text()))).collect(),
        );
        let others = |stage: &Stage<'_>| -> Vec<NodeId> {
            stage.names.iter().filter(|other| *other != name).map(|other| stage.node(other)).collect()
        };
        let all = |stage: &Stage<'_>| -> Vec<NodeId> { stage.names.iter().map(|name| stage.node(name)).collect() };
        match self {
            Act::OwnerDown => {
                write(stage, &keys, Some("here"), &all(stage))?;
                stage.kill(name)?;
                stage.wait_until("the others do not notice", SETTLE_LIMIT, |stage| sees_down(stage, name))?;
                write(stage, &keys, None, &others(stage))?;
                let watch = Watch::start(stage, &keys);
                stage.start(name)?;
                stage.wait_ready(name)?;
                Ok(watch)
            }
            Act::HintsUnderWay => {
                stage.cluster.change_rules(|rules, known| rules.isolate(name, known))?;
                stage.wait_noticed(|a, b| a == name || b == name)?;
                write(stage, &keys, Some("hinted"), &others(stage))?;
                receipt.fact("hints when the deletes began", stage.hints_pending());
                stage.cluster.change_rules(|rules, known| {
                    rules.heal();
                    rules.slow(name, LATE, known)
                })?;
                stage.wait_until("the owner is not heard again", SETTLE_LIMIT, |stage| !sees_down(stage, name))?;
                write(stage, &keys, None, &others(stage))?;
                let watch = Watch::start(stage, &keys);
                receipt.fact("hints when the deletes had ended", stage.hints_pending());
                stage.cluster.change_rules(|rules, _| {
                    rules.heal();
                    Ok(())
                })?;
                Ok(watch)
            }
            Act::BeforeWipe => {
                write(stage, &keys, Some("here"), &all(stage))?;
                write(stage, &keys, None, &all(stage))?;
                let watch = Watch::start(stage, &keys);
                stage.cluster.wipe(name, Tie::EndsWithUs)?;
                stage.wait_ready(name)?;
                Ok(watch)
            }
        }
    }
}

/// Whether any of the others takes this one for down.
fn sees_down(stage: &Stage<'_>, name: &str) -> bool {
    let node = stage.node(name).0;
    let statuses = stage.status();
    statuses.iter().filter(|s| s.node != node).any(|s| s.peers.iter().any(|p| p.node == node && p.state == "down"))
}

/// Puts or deletes every key, each through the first of its owners that is among `through`: a write has one
/// coordinator, so that nothing of it can take effect twice.
fn write(stage: &Stage<'_>, keys: &Keys, value: Option<&'static str>, through: &[NodeId]) -> Result<(), StageError> {
    stage.threads.block_on(async {
        let mut writing = JoinSet::new();
        for (bucket, key) in keys.iter() {
            while writing.len() >= AT_ONCE {
                if let Some(written) = writing.join_next().await {
                    written.expect("a write does not panic")?;
                }
            }
            let client = stage.client.clone();
            let owner = owners(&client, bucket, key.as_bytes()).into_iter().find(|owner| through.contains(owner));
            let via = owner.map_or(Via::Owner, Via::Node);
            writing.spawn(write_one(client, bucket, key.clone(), value, via));
        }
        while let Some(written) = writing.join_next().await {
            written.expect("a write does not panic")?;
        }
        Ok(())
    })
}

async fn write_one(
    client: Client,
    bucket: &'static str,
    key: String,
    value: Option<&'static str>,
    via: Via,
) -> Result<(), StageError> {
    let options = WriteOptions { via, supersede: Some(Supersede::Latest), ..WriteOptions::default() };
    match value {
        Some(value) => client.put(bucket, key, value, &options).await?,
        None => client.delete(bucket, key, &options).await?,
    };
    Ok(())
}

impl Watch {
    fn start(stage: &Stage<'_>, keys: &Keys) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Seen::default()));
        let mut readers = JoinSet::new();
        let reading = read_on(stage.client.clone(), Arc::clone(keys), Arc::clone(&stop), Arc::clone(&seen));
        readers.spawn_on(reading, stage.threads.handle());
        Self { stop, seen, readers }
    }

    /// How many reads were answered, and how many of them showed something.
    fn end(mut self, stage: &Stage<'_>) -> [u64; 2] {
        self.stop.store(true, Ordering::Relaxed);
        stage.threads.block_on(async { while self.readers.join_next().await.is_some() {} });
        [&self.seen.reads, &self.seen.back].map(|count| count.load(Ordering::Relaxed))
    }
}

async fn read_on(client: Client, keys: Keys, stop: Arc<AtomicBool>, seen: Arc<Seen>) {
    loop {
        for (bucket, key) in keys.iter() {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            match client.get(bucket, key.clone(), &ReadOptions::default()).await {
                Ok(answer) => {
                    seen.reads.fetch_add(1, Ordering::Relaxed);
                    seen.back.fetch_add(u64::from(!answer.siblings.is_empty()), Ordering::Relaxed);
                }
                // A node is away; what cannot be read shows nothing.
                Err(_) => tokio::time::sleep(BREATH).await,
            }
        }
    }
}
