//! Hints survive a crash of the node that keeps them, and their delivery does not slow clients down.

use super::fill::fill;
use super::load::{Load, Route, owners};
use super::{Common, Receipt, SETTLE_LIMIT, WARM};
use crate::relay::Account;
use crate::stage::{Stage, StageError, note, progress};
use quorate_client::{Client, Count, ReadOptions, Via, WriteOptions};
use std::time::{Duration, Instant};

const BUCKET: &str = "sloppy";
/// Hints of the first act.
const FEW: u64 = 1_000;
const DRAIN_LIMIT: Duration = Duration::from_secs(600);
const VALUE: &str = "kept for an owner that cannot be reached";
/// Clients may take so many times as long as without hints.
const SLOWER_MAX: f64 = 2.0;
/// The stretches of the load that count, and that between them, in which the owner cannot be reached.
const BETWEEN: usize = 0;
const WITHOUT: usize = 1;
const WITH: usize = 2;

pub fn run(stage: &mut Stage<'_>, common: &Common, hints: u64, time: Duration) -> Result<Receipt, StageError> {
    let mut receipt = Receipt::new("hints");
    crash_of_a_keeper(stage, &mut receipt)?;
    if hints > 0 {
        drain_under_load(stage, common, hints, time, &mut receipt)?;
    }
    Ok(receipt)
}

/// A fallback is killed and comes back before the owner does.
fn crash_of_a_keeper(stage: &mut Stage<'_>, receipt: &mut Receipt) -> Result<(), StageError> {
    let target = stage.names[0].clone();
    isolate(stage, &target)?;
    make_hints(stage, "few", &target, FEW)?;
    let kept = stage.hints_pending();
    let keeper = stage.status().into_iter().max_by_key(|status| status.hints_pending);
    let keeper = keeper.ok_or_else(|| StageError::Unexpected("no node answers".to_string()))?;
    note(&format!(
        "{kept} hints are kept for {target}, {} of them by {}, which is killed now",
        keeper.hints_pending, keeper.name
    ));
    stage.kill(&keeper.name)?;
    stage.start(&keeper.name)?;
    // It cannot hear one of its peers, and is ready all the same.
    stage.wait_ready(&keeper.name)?;
    stage.wait_until("a node does not answer", SETTLE_LIMIT, |stage| stage.status().len() == stage.names.len())?;
    let found = stage.hints_pending();
    heal(stage)?;
    let took = stage.wait_until("the hints are not delivered", DRAIN_LIMIT, |stage| stage.hints_pending() == 0)?;
    let (findings, _) = stage.settle(true, SETTLE_LIMIT);
    let missing = missing(stage, "few", &target, FEW);
    receipt.fact("hints before their keeper was killed", kept);
    receipt.fact("after it was started again", found);
    receipt.seconds("delivered after seconds", took);
    if kept == 0 || found != kept {
        receipt.wrong(format!("{kept} hints were kept, and {found} were found again"));
    }
    if !findings.clean() || missing > 0 {
        receipt.wrong(format!("{missing} of {FEW} records are missing; {findings}"));
    }
    Ok(())
}

/// The same load, without hints and while they are delivered.
fn drain_under_load(
    stage: &mut Stage<'_>,
    common: &Common,
    hints: u64,
    time: Duration,
    receipt: &mut Receipt,
) -> Result<(), StageError> {
    let target = stage.names[0].clone();
    let load = {
        let _inside = stage.threads.enter();
        Load::start(&stage.client, &common.mix("default", Route::Library))
    };
    stage.pause(WARM, |_| {})?;
    load.stretch(WITHOUT);
    let tell = |since: Duration| format!("load without hints for {:.0} of {} s", since.as_secs_f64(), time.as_secs());
    stage.pause(time, |since| progress(&tell(since)))?;
    load.stretch(BETWEEN);
    isolate(stage, &target)?;
    let began = Instant::now();
    make_hints(stage, "many", &target, hints)?;
    let kept = stage.hints_pending();
    let rate = kept as f64 / began.elapsed().as_secs_f64();
    note(&format!("{kept} hints are kept for {target}, made at {rate:.0} per second"));
    heal(stage)?;
    // Before that the owner refuses what it cannot do alone, and is no measure of anything.
    stage.wait_noticed(|_, _| false)?;
    load.stretch(WITH);
    let mut last = Instant::now();
    // A look asks much of every node: no more often than a dashboard would.
    let took = stage.wait_until("the hints are not delivered", DRAIN_LIMIT, |stage| {
        if last.elapsed() < Duration::from_secs(1) {
            return false;
        }
        last = Instant::now();
        let pending = stage.hints_pending();
        progress(&format!("{pending} hints to go"));
        pending == 0
    })?;
    let done = stage.threads.block_on(load.stop());
    let (findings, settled) = stage.settle(true, SETTLE_LIMIT);
    let missing = missing(stage, "many", &target, hints);
    stage.threads.block_on(done.read_all());
    receipt.fact("hints delivered under load", kept);
    receipt.seconds("delivered in seconds", took);
    let slower = receipt.slower(&done.shared, (WITHOUT, "without hints"), (WITH, "while they were delivered"));
    receipt.load("", &done.shared, false);
    receipt.verify(&findings, settled);
    if kept < hints || missing > 0 {
        receipt.wrong(format!("{kept} hints were made of {hints}, {missing} records are missing"));
    }
    if slower.is_none_or(|slower| slower >= SLOWER_MAX) {
        let times = slower.unwrap_or(f64::NAN);
        receipt.wrong(format!("p99 is {times:.2} times as long while hints are delivered, {SLOWER_MAX} at the most"));
    }
    Ok(())
}

fn isolate(stage: &Stage<'_>, target: &str) -> Result<(), StageError> {
    let Account { rules, .. } = stage.cluster.change_rules(|rules, known| rules.isolate(target, known))?;
    note(&rules.to_string());
    stage.wait_noticed(|a, b| a == target || b == target)?;
    Ok(())
}

fn heal(stage: &Stage<'_>) -> Result<(), StageError> {
    stage.cluster.change_rules(|rules, _| {
        rules.heal();
        Ok(())
    })?;
    Ok(())
}

/// The keys of a set that a node owns: a write of each makes a hint when that node cannot be reached.
fn keys<'a>(
    client: &'a Client,
    set: &'a str,
    target: quorate_client::NodeId,
    count: u64,
) -> impl Iterator<Item = String> + 'a {
    let all = (0..).map(move |number: u64| format!("{set}/{number}"));
    all.filter(move |key| owners(client, BUCKET, key.as_bytes()).contains(&target)).take(count as usize)
}

fn make_hints(stage: &Stage<'_>, set: &str, target: &str, count: u64) -> Result<(), StageError> {
    let target = stage.node(target);
    // All acks: that of the hint too.
    let options = WriteOptions { w: Some(Count::All), ..WriteOptions::default() };
    let coordinator =
        |key: &str| owners(&stage.client, BUCKET, key.as_bytes()).into_iter().find(|owner| *owner != target);
    fill(stage, (BUCKET, VALUE), keys(&stage.client, set, target, count), &options, coordinator)
}

/// How many of the records that the target should hold by now it does not show by itself, of a few hundred of them.
fn missing(stage: &Stage<'_>, set: &str, target: &str, count: u64) -> u64 {
    const LOOKED_AT: u64 = 500;
    let target = stage.node(target);
    let step = (count / LOOKED_AT).max(1) as usize;
    let options = ReadOptions { r: Some(Count::Exactly(1)), via: Via::Node(target), ..ReadOptions::default() };
    stage.threads.block_on(async {
        let mut missing = 0;
        for key in keys(&stage.client, set, target, count).step_by(step) {
            let answer = stage.client.get(BUCKET, key, &options).await;
            let is_there = answer.is_ok_and(|answer| answer.siblings.iter().any(|sibling| sibling.value == VALUE));
            missing += u64::from(!is_there);
        }
        missing
    })
}
