//! A node is down for a while, and returns.

use super::load::{Load, Route};
use super::{Common, Receipt, SETTLE_LIMIT, WARM};
use crate::sequence::Sequence;
use crate::stage::{Stage, StageError, progress};
use std::time::{Duration, Instant};

/// What the metrics of a node call the dots that it pulled.
const PULLED_DOTS: &str = "quorate_pulled_dots_total";
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

pub fn run(stage: &mut Stage<'_>, common: &Common, time: Duration) -> Result<Receipt, StageError> {
    let mut receipt = Receipt::new("down");
    let mut sequence = Sequence::new(common.seed);
    let name = stage.names[(sequence.draw() % stage.names.len() as u64) as usize].clone();
    let load = start(stage, common);
    let tally = load.shared.clone();
    stage.pause(WARM, |_| {})?;
    // Under load something is always on its way.
    let mut usual = 0;
    for _ in 0..20 {
        usual = usual.max(lag_of(stage, &name));
        stage.pause(Duration::from_millis(50), |_| {})?;
    }
    stage.kill(&name)?;
    stage.pause(time, |since| {
        let failed = tally.failed_requests();
        progress(&format!(
            "{name} is down for {:.0} of {} s, {failed} requests failed",
            since.as_secs_f64(),
            time.as_secs()
        ));
    })?;
    let behind = lag_of(stage, &name);
    let back = Instant::now();
    stage.start(&name)?;
    stage.wait_ready(&name)?;
    let ready = back.elapsed();
    stage.wait_until(&format!("{name} is still behind"), CATCH_UP_LIMIT, |stage| lag_of(stage, &name) <= usual)?;
    let caught_up = back.elapsed();
    stage.pause(WARM, |_| progress(&format!("{name} has caught up; the load goes on for a moment")))?;
    let done = stage.threads.block_on(load.stop());
    let (findings, took) = stage.settle(true, SETTLE_LIMIT);
    let pulled = stage.counter(&name, PULLED_DOTS);
    stage.threads.block_on(done.read_all());
    receipt.fact("node", name.as_str());
    receipt.seconds("down for seconds", time);
    receipt.fact("dots it lacked on its return", behind);
    receipt.fact("dots it pulled", pulled);
    receipt.seconds("ready after seconds", ready);
    receipt.seconds("caught up after seconds", caught_up);
    receipt.load("", &done.shared, true);
    receipt.verify(&findings, took);
    if behind == 0 || pulled.unwrap_or(0) == 0 {
        receipt.wrong("it missed nothing, so nothing was shown");
    }
    Ok(receipt)
}

fn start(stage: &Stage<'_>, common: &Common) -> Load {
    let _inside = stage.threads.enter();
    Load::start(&stage.client, &common.mix("default", Route::Library))
}

/// Dots that a node lacks of what another has, by the account of the one that says most.
fn lag_of(stage: &Stage<'_>, name: &str) -> u64 {
    let node = stage.node(name).0;
    let statuses = stage.status();
    let lags = statuses.iter().flat_map(|status| &status.peers).filter(|peer| peer.node == node);
    lags.map(|peer| peer.lag_dots).max().unwrap_or(0)
}
