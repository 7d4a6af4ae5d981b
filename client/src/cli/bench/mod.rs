//! `bench`: how fast a cluster is.
//!
//! `args` is what can be typed, `draw` what is drawn at random, `values` how a value is known again, `work` the load,
//! `tally` what was measured, `report` how that is shown, `fleet` several client processes.

pub mod args;
mod draw;
mod fleet;
mod report;
mod tally;
mod values;
mod work;

use crate::args::Writing;
use crate::failure::Failure;
use crate::output::{self, Format, grouped};
use crate::session::{Session, load_profile};
use args::{Bench, Workload};
use quorate_client::{Client, WriteOptions};
use report::{Found, Loaded};
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use values::Ledger;
use work::Bed;

/// Refuses what is wrong whatever the cluster is.
pub fn refuse(bench: &Bench) -> Result<(), Failure> {
    if bench.workload == Workload::E {
        return Err(Failure::usage("workload e scans ranges of keys, and keys are listed by partition, in no order")
            .advise("the others are a, b, c, d and f"));
    }
    if let Some((option, count)) = bench.too_few() {
        return Err(Failure::usage(format!("{option} {count} is too little for {} processes", bench.processes))
            .advise("each process has a share of the records, of the operations under way and of the rate"));
    }
    Ok(())
}

pub async fn run(session: &Session, bench: Bench) -> Result<(), Failure> {
    session.bucket_of(&session.layout())?;
    match bench.part {
        None if bench.processes > 1 => fleet::run(&bench, shows(session, &bench))?.show(session, &bench),
        None => work_alone(session, &bench).await?.show(session, &bench),
        Some(part) => {
            let found = work_alone(session, &bench.share(part)).await?;
            output::document(&found.pack(), Format::Jsonl)
        }
    }
}

async fn work_alone(session: &Session, bench: &Bench) -> Result<Found, Failure> {
    let profile = load_profile(&session.common)?;
    let mut clients = vec![session.client.clone()];
    for _ in 1..bench.connections {
        clients.push(Client::connect(&profile).await?);
    }
    let writing = Writing { supersede: Some(bench.supersede), ..Writing::default() };
    let bed = Arc::new(Bed {
        bucket: session.bucket.clone(),
        clients,
        write: WriteOptions { op_id: None, ..session.write_options(&writing) },
        read: session.read_options(),
        ledger: Ledger::new(bench.check, bench.records, nanos_since_1970()),
        bench: bench.clone(),
        shows: shows(session, bench),
        failed: OnceLock::new(),
    });
    let loaded = if bench.skip_load { None } else { Some(load(&bed).await?) };
    if bench.part.is_some() {
        fleet::wait_for_others()?;
    }
    let measured = work::run(&bed).await;
    let checked = if bench.check > 0 { Some(bed.check().await) } else { None };
    for client in &bed.clients[1..] {
        client.clone().close().await;
    }
    Ok(Found { loaded, measured, checked })
}

/// Whether it is said now and then how far it is: to people, and by the process that they started.
fn shows(session: &Session, bench: &Bench) -> bool {
    bench.part.is_none() && (!session.common.output.is_json() || std::io::stderr().is_terminal())
}

async fn load(bed: &Arc<Bed>) -> Result<Loaded, Failure> {
    let records = bed.bench.records;
    let began = Instant::now();
    match bed.load().await {
        0 => Ok(Loaded { records, seconds: began.elapsed().as_secs_f64() }),
        failed => {
            let why = bed.failed.get().map(|why| format!("; the first of them: {why}")).unwrap_or_default();
            let failed = grouped(failed);
            Err(Failure::local(format!("{failed} of {} records were not loaded{why}", grouped(records)))
                .advise("`quorate status` shows how the nodes are"))
        }
    }
}

/// Stamps of a later run are above those of earlier ones.
fn nanos_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
