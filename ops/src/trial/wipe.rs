//! Disks are wiped, one after the other.

use super::load::{Load, Route};
use super::{Common, Receipt, SETTLE_LIMIT, WARM};
use crate::process::Tie;
use crate::sequence::Sequence;
use crate::stage::{Stage, StageError, note, progress};
use std::time::{Duration, Instant};

pub fn run(stage: &mut Stage<'_>, common: &Common, rounds: u32) -> Result<Receipt, StageError> {
    let mut receipt = Receipt::new("wipe");
    let mut sequence = Sequence::new(common.seed);
    let mut mix = common.mix("default", Route::Library);
    // Some writes wait for all owners; these are then read from one alone.
    mix.all_percent = 20;
    let load = {
        let _inside = stage.threads.enter();
        Load::start(&stage.client, &mix)
    };
    let tally = load.shared.clone();
    stage.pause(WARM, |_| {})?;
    let mut rebuilt = Vec::new();
    for round in 1..=rounds {
        let name = stage.names[(sequence.draw() % stage.names.len() as u64) as usize].clone();
        let began = Instant::now();
        stage.cluster.wipe(&name, Tie::EndsWithUs)?;
        progress(&format!("round {round} of {rounds}: {name} rebuilds"));
        stage.wait_ready(&name)?;
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
    receipt.load("", &done.shared, false);
    receipt.verify(&findings, took);
    Ok(receipt)
}
