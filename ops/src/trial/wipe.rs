//! Disks are wiped, one after the other.

use super::fill::fill;
use super::load::{Load, Route};
use super::{Common, Receipt, SETTLE_LIMIT, WARM};
use crate::process::Tie;
use crate::sequence::Sequence;
use crate::stage::{Stage, StageError, note, progress};
use quorate_client::{PeerStatus, WriteOptions};
use std::time::{Duration, Instant};

const BUCKET: &str = "default";
const VALUE: &str = "one of many records that a node without a disk has to copy from the others";
/// How long the load is measured before anything is wiped.
const QUIET: Duration = Duration::from_secs(10);
/// The stretches of the load that count: while nothing is wrong, and while a node copies what it lost. What clients
/// notice of a node that is killed is neither.
const BETWEEN: usize = 0;
const WITHOUT: usize = 1;
const COPYING: usize = 2;

pub fn run(stage: &mut Stage<'_>, common: &Common, rounds: u32, records: u64) -> Result<Receipt, StageError> {
    let mut receipt = Receipt::new("wipe");
    let keys = (0..records).map(|number| format!("record/{number}"));
    fill(stage, (BUCKET, VALUE), keys, &WriteOptions::default(), |_| None)?;
    let mut sequence = Sequence::new(common.seed);
    let mut mix = common.mix(BUCKET, Route::Library);
    // Some writes wait for all owners; these are then read from one alone.
    mix.all_percent = 20;
    let load = {
        let _inside = stage.threads.enter();
        Load::start(&stage.client, &mix)
    };
    let tally = load.shared.clone();
    stage.pause(WARM, |_| {})?;
    load.stretch(WITHOUT);
    stage.pause(QUIET, |_| {})?;
    load.stretch(BETWEEN);
    let mut rebuilt = Vec::new();
    for round in 1..=rounds {
        let name = stage.names[(sequence.draw() % stage.names.len() as u64) as usize].clone();
        let began = Instant::now();
        stage.cluster.wipe(&name, Tie::EndsWithUs)?;
        progress(&format!("round {round} of {rounds}: {name} rebuilds"));
        let node = stage.node(&name).0;
        let is_back = |stage: &Stage<'_>| {
            let statuses = stage.status();
            let sees = |peer: &PeerStatus| peer.node != node || peer.state == "up";
            statuses.len() == stage.names.len() && statuses.iter().all(|status| status.peers.iter().all(sees))
        };
        stage.wait_until("the others do not hear the wiped node", SETTLE_LIMIT, is_back)?;
        load.stretch(COPYING);
        stage.wait_ready(&name)?;
        load.stretch(BETWEEN);
        rebuilt.push(began.elapsed());
        let wrong = tally.tally.breaches.load(std::sync::atomic::Ordering::Relaxed);
        note(&format!(
            "round {round} of {rounds}: {name} was wiped and takes part again after {:.1} s; {wrong} answers wrong so far",
            began.elapsed().as_secs_f64()
        ));
        stage.pause(Duration::from_millis(500 + sequence.draw() % 1500), |_| {})?;
    }
    let done = stage.threads.block_on(load.stop());
    let (findings, took) = stage.settle(true, SETTLE_LIMIT);
    stage.threads.block_on(done.read_all());
    rebuilt.sort_unstable();
    receipt.fact("rounds", rounds);
    receipt.seconds("rebuilt, median, seconds", rebuilt.get(rebuilt.len() / 2).copied().unwrap_or_default());
    receipt.seconds("rebuilt, slowest, seconds", rebuilt.last().copied().unwrap_or_default());
    receipt.fact("records beside those of the load", records);
    receipt.slower(&done.shared, (WITHOUT, "before"), (COPYING, "while a node copied"));
    receipt.load("", &done.shared, false);
    receipt.verify(&findings, took);
    Ok(receipt)
}
