//! What was measured: a histogram of latencies for each operation, and how those ended that did not succeed.

use super::draw::Operation;
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Three digits of each latency are kept, up to two minutes; in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;
const PERCENTILES: [(&str, f64); 5] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99_9", 99.9), ("p99_99", 99.99)];

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum End {
    Done,
    /// Refused for now: the node has too much to do.
    Overloaded,
    /// Nothing was written, or nothing read, for another reason.
    Refused,
    /// A write that may have taken effect.
    Unknown,
    /// A read showed nothing, or a value that does not belong to its key.
    Wrong,
}

impl End {
    pub fn name(self) -> &'static str {
        match self {
            End::Done => "done",
            End::Overloaded => "overloaded",
            End::Refused => "refused",
            End::Unknown => "unknown",
            End::Wrong => "wrong",
        }
    }

    const ALL: [End; 5] = [End::Done, End::Overloaded, End::Refused, End::Unknown, End::Wrong];
}

type Key = (Operation, End);

#[derive(Clone, Default)]
pub struct Tally(BTreeMap<Key, Histogram<u64>>);

impl Tally {
    pub fn record(&mut self, operation: Operation, end: End, took: Duration) {
        self.histogram((operation, end)).saturating_record(took.as_micros() as u64);
    }

    fn histogram(&mut self, key: Key) -> &mut Histogram<u64> {
        self.0.entry(key).or_insert_with(|| {
            Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds of the histogram are sound")
        })
    }

    pub fn count(&self, end: End) -> u64 {
        self.0.iter().filter(|((_, ended), _)| *ended == end).map(|(_, histogram)| histogram.len()).sum()
    }

    pub fn all(&self) -> u64 {
        self.0.values().map(Histogram::len).sum()
    }

    pub fn add(&mut self, other: &Tally) {
        for (key, histogram) in &other.0 {
            self.histogram(*key).add(histogram).expect("all histograms have the same bounds");
        }
    }

    /// By operation and end.
    pub fn rows(&self) -> impl Iterator<Item = (Operation, End, &Histogram<u64>)> {
        self.0.iter().map(|((operation, end), histogram)| (*operation, *end, histogram))
    }

    /// For programs: every operation, and each of its ends.
    pub fn json(&self, seconds: f64) -> Value {
        let mut operations: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        for (operation, end, histogram) in self.rows() {
            let mut fields = Map::new();
            fields.insert("count".to_string(), json!(histogram.len()));
            fields.insert("per_second".to_string(), json!(histogram.len() as f64 / seconds));
            fields.insert("mean_us".to_string(), json!(histogram.mean()));
            for (name, percentile) in PERCENTILES {
                fields.insert(format!("{name}_us"), json!(histogram.value_at_percentile(percentile)));
            }
            fields.insert("max_us".to_string(), json!(histogram.max()));
            operations.entry(operation.name()).or_default().insert(end.name().to_string(), Value::Object(fields));
        }
        json!(operations)
    }

    /// All that was recorded, for another process to add up.
    pub fn pack(&self) -> Value {
        let packed = self.rows().map(|(operation, end, histogram)| {
            let counts: Vec<(u64, u64)> =
                histogram.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
            json!([operation.name(), end.name(), counts])
        });
        Value::Array(packed.collect())
    }

    /// `None` if these are not the words of [`Tally::pack`].
    pub fn unpack(packed: &Value) -> Option<Self> {
        let mut tally = Self::default();
        for row in packed.as_array()? {
            let operation = Operation::ALL.into_iter().find(|o| Some(o.name()) == row[0].as_str())?;
            let end = End::ALL.into_iter().find(|e| Some(e.name()) == row[1].as_str())?;
            for pair in row[2].as_array()? {
                tally.histogram((operation, end)).saturating_record_n(pair[0].as_u64()?, pair[1].as_u64()?);
            }
        }
        Some(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Tally {
        let mut tally = Tally::default();
        for us in 1..=10_000 {
            tally.record(Operation::Get, End::Done, Duration::from_micros(us));
        }
        tally.record(Operation::Put, End::Unknown, Duration::from_secs(600));
        tally
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let json = some().json(2.0);
        let done = &json["get"]["done"];
        assert_eq!((done["count"].as_u64(), done["per_second"].as_f64()), (Some(10_000), Some(5_000.0)));
        let near = |name: &str, expected: f64| (done[name].as_f64().unwrap() / expected - 1.0).abs() < 0.002;
        assert!(near("p50_us", 5_000.0) && near("p99_us", 9_900.0) && near("max_us", 10_000.0), "{done}");
        assert_eq!(json["put"]["unknown"]["count"], 1);
    }

    #[test]
    fn what_is_packed_adds_up_elsewhere() {
        let tally = some();
        let mut both = Tally::unpack(&tally.pack()).unwrap();
        assert_eq!(both.json(1.0), tally.json(1.0));
        both.add(&tally);
        assert_eq!((both.count(End::Done), both.all()), (20_000, 20_002));
        assert!(Tally::unpack(&json!([["get", "nonsense", []]])).is_none());
    }
}
