//! What a trial did, what it found, and whether that will do.

use super::load::{Shared, Tally};
use crate::verify::Findings;
use serde_json::{Value, json};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The receipt of a trial. It passed if nothing is wrong.
#[derive(Clone, PartialEq, Debug)]
pub struct Receipt {
    trial: &'static str,
    /// In the order in which they are told.
    facts: Vec<(String, Value)>,
    wrong: Vec<String>,
    pub kept: Option<PathBuf>,
}

impl Receipt {
    pub fn new(trial: &'static str) -> Self {
        Self { trial, facts: Vec::new(), wrong: Vec::new(), kept: None }
    }

    pub fn fact(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.facts.push((name.into(), value.into()));
    }

    pub fn seconds(&mut self, name: impl Into<String>, time: Duration) {
        self.fact(name, (time.as_secs_f64() * 100.0).round() / 100.0);
    }

    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub fn passed(&self) -> bool {
        self.wrong.is_empty()
    }

    /// What a load did; `of` tells it from another one. Breaches are always wrong; requests that were not done are so if `none_may_fail`.
    pub fn load(&mut self, of: &str, shared: &Shared, none_may_fail: bool) {
        let Tally { requests, applied, not_applied, unknown, reads, reads_of_one, reads_declined, twins, breaches } =
            &shared.tally;
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.fact(format!("{of}requests"), get(requests));
        self.fact(format!("{of}writes acknowledged"), get(applied));
        self.fact(format!("{of}writes refused, nothing applied"), get(not_applied));
        self.fact(format!("{of}writes of unknown outcome"), get(unknown));
        self.fact(format!("{of}reads answered"), get(reads));
        self.fact(format!("{of}of these from one owner"), get(reads_of_one));
        self.fact(format!("{of}reads not answered"), get(reads_declined));
        self.fact(format!("{of}values kept twice by a retry"), get(twins));
        self.fact(format!("{of}lost, come back or foreign"), get(breaches));
        if get(breaches) > 0 {
            self.wrong(format!("{} answers were wrong", get(breaches)));
            self.wrong.extend(shared.breaches());
        }
        if get(applied) == 0 || get(reads) == 0 {
            self.wrong("there was no load to speak of");
        }
        if none_may_fail && shared.failed_requests() > 0 {
            self.wrong(format!("{} requests failed", shared.failed_requests()));
            self.wrong.extend(shared.failures().iter().map(|(why, count)| format!("{count} times: {why}")));
        } else if !shared.failures().is_empty() {
            self.fact(format!("{of}why requests were not done"), json!(shared.failures()));
        }
    }

    /// How long requests took in one stretch of a load and in another. Returns how many times as long their p99 was in the
    /// second; none if one of them had no requests.
    pub fn slower(&mut self, load: &Shared, before: (usize, &str), then: (usize, &str)) -> Option<f64> {
        for (stretch, name) in [before, then] {
            self.fact(format!("requests {name}"), load.percentile(stretch, 99.0).0);
            for percent in [50.0, 99.0, 99.9] {
                let took = load.percentile(stretch, percent).1.as_micros() as u64;
                self.fact(format!("p{percent} {name}, us"), took);
            }
        }
        let [(count, p99), (count_then, p99_then)] = [before.0, then.0].map(|stretch| load.percentile(stretch, 99.0));
        let times = p99_then.as_secs_f64() / p99.as_secs_f64();
        let times = (count > 0 && count_then > 0).then_some((times * 100.0).round() / 100.0);
        self.fact("p99, times as long", times);
        times
    }

    /// What reading every owner showed.
    pub fn verify(&mut self, findings: &Findings, took: Duration) {
        self.fact("keys at the owners", findings.keys);
        self.fact("identical byte for byte", findings.identical);
        self.fact("same values, other knowledge", findings.same_values);
        if let Some(residue) = findings.residue {
            self.fact("residue", json!(residue));
        }
        self.seconds("verified after seconds", took);
        if !findings.clean() {
            self.wrong(format!("the owners are not as they should be:\n{findings}"));
        }
    }

    pub fn json(&self) -> Value {
        let facts: serde_json::Map<String, Value> = self
            .facts
            .iter()
            .map(|(name, value)| (name.replace([' ', ',', ':'], "_").replace("__", "_"), value.clone()))
            .collect();
        json!({ "trial": self.trial, "passed": self.passed(), "facts": facts, "wrong": self.wrong, "kept": self.kept })
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "trial {}", self.trial)?;
        let width = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in &self.facts {
            match value {
                Value::String(text) => writeln!(f, "  {name:width$}  {text}")?,
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                    writeln!(f, "  {name:width$}  {value}")?;
                }
            }
        }
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "WRONG: {wrong}"))?;
        if let Some(folder) = &self.kept {
            writeln!(f, "the folder is kept: {}", folder.display())?;
        }
        write!(f, "{}", if self.passed() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_passes_only_if_there_was_one_and_nothing_was_wrong() {
        let passes = |change: fn(&Tally), none_may_fail| {
            let shared = Shared::default();
            shared.tally.applied.store(5, Ordering::Relaxed);
            shared.tally.reads.store(5, Ordering::Relaxed);
            change(&shared.tally);
            let mut receipt = Receipt::new("one");
            receipt.load("", &shared, none_may_fail);
            receipt.passed()
        };
        assert!(passes(|_| {}, true));
        assert!(!passes(|tally| tally.breaches.store(1, Ordering::Relaxed), false));
        assert!(!passes(|tally| tally.applied.store(0, Ordering::Relaxed), false));
        assert!(!passes(|tally| tally.unknown.store(1, Ordering::Relaxed), true));
        assert!(passes(|tally| tally.unknown.store(1, Ordering::Relaxed), false));
    }

    #[test]
    fn what_is_wrong_is_in_both_forms() {
        let mut receipt = Receipt::new("one");
        receipt.fact("writes refused, nothing applied", 3);
        assert!(receipt.passed() && receipt.to_string().ends_with("passed"));
        receipt.wrong("it is on fire");
        assert!(receipt.to_string().contains("WRONG: it is on fire") && receipt.to_string().ends_with("FAILED"));
        let json = receipt.json();
        assert_eq!((&json["passed"], &json["facts"]["writes_refused_nothing_applied"]), (&json!(false), &json!(3)));
    }
}
