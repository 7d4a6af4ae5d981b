//! What a benchmark found, for people and for programs.

use super::args::Bench;
use super::tally::{End, Tally};
use super::work::{Checked, Measured};
use crate::failure::{Code, Failure};
use crate::output::{self, grouped};
use crate::session::Session;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Loading the records.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Loaded {
    pub records: u64,
    pub seconds: f64,
}

pub struct Found {
    pub loaded: Option<Loaded>,
    pub measured: Measured,
    pub checked: Option<Checked>,
}

impl Found {
    /// For the process that gathers the parts.
    pub fn pack(&self) -> Value {
        let checked = self.checked.unwrap_or_default();
        let loaded = self.loaded.unwrap_or_default();
        json!({
            "tally": self.measured.tally.pack(), "late": self.measured.late, "failed": self.measured.failed,
            "loaded": [loaded.records, loaded.seconds],
            "checked": [checked.held, checked.missing, checked.stale, checked.wrong, checked.failed],
        })
    }

    /// `None` if these are not the words of [`Found::pack`].
    pub fn unpack(packed: &Value) -> Option<Self> {
        let checked: Vec<u64> = serde_json::from_value(packed["checked"].clone()).ok()?;
        let [held, missing, stale, wrong, failed] = checked[..] else { return None };
        let loaded = Loaded { records: packed["loaded"][0].as_u64()?, seconds: packed["loaded"][1].as_f64()? };
        Some(Self {
            loaded: (loaded.records > 0).then_some(loaded),
            measured: Measured {
                tally: Tally::unpack(&packed["tally"])?,
                late: packed["late"].as_u64()?,
                failed: packed["failed"].as_str().map(str::to_string),
            },
            checked: Some(Checked { held, missing, stale, wrong, failed }).filter(|checked| checked.all() > 0),
        })
    }

    /// Parts that ran at the same time, as one.
    pub fn and(mut self, other: Self) -> Self {
        self.measured.tally.add(&other.measured.tally);
        self.measured.late += other.measured.late;
        self.measured.failed = self.measured.failed.or(other.measured.failed);
        self.loaded = match (self.loaded, other.loaded) {
            (Some(a), Some(b)) => Some(Loaded { records: a.records + b.records, seconds: a.seconds.max(b.seconds) }),
            (one, None) | (None, one) => one,
        };
        self.checked = match (self.checked, other.checked) {
            (Some(a), Some(b)) => Some(Checked {
                held: a.held + b.held,
                missing: a.missing + b.missing,
                stale: a.stale + b.stale,
                wrong: a.wrong + b.wrong,
                failed: a.failed + b.failed,
            }),
            (one, None) | (None, one) => one,
        };
        self
    }

    pub fn show(&self, session: &Session, bench: &Bench) -> Result<(), Failure> {
        let format = session.common.output;
        if format.is_json() {
            output::document(&self.json(session, bench), format)?;
        } else {
            output::bytes(self.text(bench).as_bytes())?;
        }
        self.verdict()
    }

    fn json(&self, session: &Session, bench: &Bench) -> Value {
        let seconds = bench.time.as_secs_f64();
        let Measured { tally, late, failed } = &self.measured;
        let supersede = bench.supersede.to_possible_value().map(|value| value.get_name().to_string());
        let loaded = self.loaded.map(|l| json!({"records": l.records, "seconds": l.seconds}));
        let checked = self.checked.map(
            |c| json!({"held": c.held, "missing": c.missing, "stale": c.stale, "wrong": c.wrong, "failed": c.failed}),
        );
        json!({
            "workload": bench.workload.name(), "keys": bench.keys().name(), "records": bench.records,
            "value_bytes": bench.value_bytes, "bucket": session.bucket, "in_flight": bench.in_flight(),
            "rate": bench.rate, "connections": bench.connections, "processes": bench.processes, "seed": bench.seed,
            "key_prefix": bench.key_prefix, "supersede": supersede, "warm_up_seconds": bench.warm_up.as_secs_f64(),
            "r": session.common.r(), "w": session.common.w(), "durability": session.common.durability(),
            "version": env!("CARGO_PKG_VERSION"), "seconds": seconds, "done_per_second": tally.count(End::Done) as f64 / seconds,
            "operations": tally.json(seconds), "late": late, "first_failure": failed, "loaded": loaded,
            "checked": checked,
        })
    }

    fn text(&self, bench: &Bench) -> String {
        let seconds = bench.time.as_secs_f64();
        let tally = &self.measured.tally;
        let header =
            ["operation", "ended", "count", "per second", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let rows = tally.rows().map(|(operation, end, histogram)| {
            let mut row = vec![operation.name().to_string(), end.name().to_string()];
            row.push(grouped(histogram.len()));
            row.push(grouped((histogram.len() as f64 / seconds) as u64));
            row.extend(latencies(histogram));
            row
        });
        let mut text = output::table(&header, rows.collect());
        let done = (tally.count(End::Done) as f64 / seconds) as u64;
        let how = match bench.rate {
            None => format!("{} in flight", grouped(u64::from(bench.in_flight()))),
            Some(rate) => format!("{}/s asked for, latency from when each was due", grouped(rate)),
        };
        text += &format!("\n{} operations/s, {how}, {} B values\n", grouped(done), bench.value_bytes);
        if let Some(why) = &self.measured.failed {
            text += &format!("the first that was not done: {why}\n");
        }
        if self.measured.late > 0 {
            text += &format!("{} were due and not begun by the end\n", grouped(self.measured.late));
        }
        if let Some(Loaded { records, seconds }) = self.loaded {
            let rate = grouped((records as f64 / seconds) as u64);
            text += &format!("loaded {} records before, {rate}/s\n", grouped(records));
        }
        if let Some(checked) = self.checked.filter(Checked::all_held) {
            text += &format!("read back {} keys: all show what was acknowledged\n", grouped(checked.held));
        }
        text
    }

    /// Nothing to say if all went well.
    fn verdict(&self) -> Result<(), Failure> {
        if let Some(c) = self.checked.filter(|checked| !checked.all_held()) {
            let message = format!(
                "of {} keys with acknowledged writes {} are missing, {} show an older value, {} a wrong one, {} could \
                 not be read",
                grouped(c.all()),
                c.missing,
                c.stale,
                c.wrong,
                c.failed
            );
            return Err(Failure::new(Code::Local, message).advise(
                "with -r and -w of which the sum is at most N, or \
                with nodes down, old values are to be expected; otherwise this should not be: please report it",
            ));
        }
        match self.measured.tally.count(End::Wrong) {
            0 => Ok(()),
            wrong => Err(Failure::local(format!("{} gets showed nothing or a wrong value", grouped(wrong)))
                .advise("with --skip-load the records have to be there already, of the same --records and prefix")),
        }
    }
}

fn latencies(histogram: &Histogram<u64>) -> Vec<String> {
    let mut values = vec![histogram.mean() as u64];
    values.extend([50.0, 90.0, 99.0, 99.9, 99.99].map(|percentile| histogram.value_at_percentile(percentile)));
    values.push(histogram.max());
    values.into_iter().map(millis).collect()
}

fn millis(us: u64) -> String {
    format!("{:.2} ms", us as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::super::draw::Operation;
    use super::*;
    use std::time::Duration;

    fn found(held: u64, stale: u64) -> Found {
        let mut measured = Measured { late: 3, ..Measured::default() };
        measured.tally.record(Operation::Put, End::Done, Duration::from_millis(2));
        let checked = Checked { held, stale, ..Checked::default() };
        Found { loaded: Some(Loaded { records: 5, seconds: 1.0 }), measured, checked: Some(checked) }
    }

    #[test]
    fn parts_add_up() {
        let part = || Found::unpack(&found(4, 0).pack()).unwrap();
        let both = part().and(part());
        assert_eq!((both.measured.late, both.measured.tally.all()), (6, 2));
        assert_eq!(both.loaded, Some(Loaded { records: 10, seconds: 1.0 }));
        assert_eq!(both.checked.map(|checked| checked.held), Some(8));
    }

    #[test]
    fn what_is_not_held_is_a_failure() {
        assert!(found(4, 0).verdict().is_ok());
        let failure = found(4, 1).verdict().unwrap_err();
        assert!(failure.code == Code::Local && failure.message.contains("1 show an older value"), "{failure:?}");
    }
}
