//! `check`: reads every record of a file back and compares bytes.

use crate::args::Check;
use crate::failure::{Code, Failure};
use crate::load::feed::Feed;
use crate::load::progress::{Progress, rate};
use crate::load::records::{Record, Source};
use crate::output::{self, grouped, shown_in_line};
use crate::session::Session;
use quorate_client::{Declined, ReadAnswer, ReadOptions, Via};
use serde_json::json;
use std::collections::HashMap;
use tokio::task::JoinSet;

/// Keys that are named; of the others only the number.
const NAMED_MAX: u64 = 20;

/// What reading one record back showed.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Found {
    Same,
    Missing,
    Different {
        bytes: usize,
    },
    /// More than one value.
    Conflict {
        siblings: usize,
    },
    Failed(Declined),
}

#[derive(Default)]
struct Tally {
    same: u64,
    missing: u64,
    different: u64,
    conflicts: u64,
    failed: u64,
    unreadable: u64,
    /// Replaced by a later record of the same key in the file.
    replaced: u64,
}

impl Tally {
    fn wrong(&self) -> u64 {
        self.missing + self.different + self.conflicts + self.failed
    }

    fn checked(&self) -> u64 {
        self.same + self.wrong()
    }
}

pub async fn run(session: &Session, check: Check) -> Result<(), Failure> {
    session.bucket_of(&session.layout())?;
    let last = last_of_each_key(&check)?;
    let source = Source::open(&check.records)?;
    let total = check.records.file.metadata().map_or(0, |m| m.len());
    let in_flight = usize::from(check.records.in_flight);
    let mut options = session.read_options();
    if check.avoid_owner {
        options.via = Via::NotFirstOwner;
    }
    let mut feed = Feed::start(source, 0, 2 * in_flight);
    let mut progress = Progress::new("checked", total);
    let mut tally = Tally::default();
    let mut reads: JoinSet<(Record, Found)> = JoinSet::new();
    let mut ended = false;
    while !ended || !reads.is_empty() {
        tokio::select! {
            Some(read) = reads.join_next(), if !reads.is_empty() => {
                let (record, found) = read.expect("a read does not panic");
                count(&mut tally, &record, found);
            }
            item = feed.next(), if !ended && reads.len() < in_flight => match item {
                None => ended = true,
                Some(Err(error)) => {
                    let file = check.records.file.display();
                    return Err(Failure::local(format!("{file} cannot be read any further: {error}")));
                }
                Some(Ok(Err(_))) => tally.unreadable += 1,
                Some(Ok(Ok(record))) if last.get(&record.key) != Some(&record.number) => tally.replaced += 1,
                Some(Ok(Ok(record))) => start(session, &mut reads, record, options.clone()),
            },
        }
        progress.show(tally.checked(), feed.bytes_read());
    }
    progress.end();
    conclude(session, &check, &tally, progress.seconds())
}

/// A file may name a key twice; then its later record is the one that counts.
fn last_of_each_key(check: &Check) -> Result<HashMap<Vec<u8>, u64>, Failure> {
    let mut source = Source::open(&check.records)?;
    let mut last = HashMap::new();
    let file = check.records.file.display();
    let next = |source: &mut Source| {
        source.next().map_err(|error| Failure::local(format!("{file} cannot be read to its end: {error}")))
    };
    while let Some(item) = next(&mut source)? {
        if let Ok(record) = item {
            last.insert(record.key, record.number);
        }
    }
    Ok(last)
}

fn start(session: &Session, reads: &mut JoinSet<(Record, Found)>, record: Record, options: ReadOptions) {
    let client = session.client.clone();
    let bucket = session.bucket.clone();
    reads.spawn(async move {
        let found = compare(client.get(&bucket, record.key.clone(), &options).await, &record.value);
        (record, found)
    });
}

fn compare(read: Result<ReadAnswer, Declined>, expected: &[u8]) -> Found {
    match read {
        Err(declined) => Found::Failed(declined),
        Ok(answer) => match answer.siblings.as_slice() {
            [] => Found::Missing,
            [one] if one.value == expected => Found::Same,
            [one] => Found::Different { bytes: one.value.len() },
            several => Found::Conflict { siblings: several.len() },
        },
    }
}

fn count(tally: &mut Tally, record: &Record, found: Found) {
    let what = match found {
        Found::Same => {
            tally.same += 1;
            return;
        }
        Found::Missing => {
            tally.missing += 1;
            "missing".to_string()
        }
        Found::Different { bytes } => {
            tally.different += 1;
            format!("different: {bytes} bytes instead of {}", record.value.len())
        }
        Found::Conflict { siblings } => {
            tally.conflicts += 1;
            format!("{siblings} values")
        }
        Found::Failed(declined) => {
            tally.failed += 1;
            format!("not read: {declined}")
        }
    };
    if tally.wrong() <= NAMED_MAX {
        eprintln!("record {}, key {:?}: {what}", record.number, shown_in_line(&record.key, 80));
    }
}

fn conclude(session: &Session, check: &Check, tally: &Tally, seconds: f64) -> Result<(), Failure> {
    let format = session.common.output;
    let Tally { same, missing, different, conflicts, failed, unreadable, replaced } = *tally;
    if format.is_json() {
        let value = json!({
            "checked": tally.checked(), "same": same, "missing": missing, "different": different,
            "conflicts": conflicts, "failed": failed, "unreadable": unreadable, "replaced": replaced,
            "avoid_owner": check.avoid_owner, "seconds": seconds,
        });
        output::document(&value, format)?;
    } else {
        let through = if check.avoid_owner { ", each through a node other than its first owner" } else { "" };
        output::line(&format!(
            "checked {} records in {seconds:.1} s ({}/s){through}: {} the same, {missing} missing, {different} \
             different, {conflicts} with several values, {failed} not read",
            grouped(tally.checked()),
            grouped(rate(tally.checked(), seconds)),
            grouped(same),
        ))?;
        for (count, what) in [(unreadable, "are unreadable"), (replaced, "have a later one of the same key")] {
            if count > 0 {
                eprintln!("{} records of the file {what}, and were not checked", grouped(count));
            }
        }
    }
    let code = match (missing + different + conflicts, failed) {
        (0, 0) => return Ok(()),
        (0, _) => Code::NotApplied,
        _ => Code::Local,
    };
    Err(Failure::new(code, format!("{} of {} records are not as the file has them", tally.wrong(), tally.checked()))
        .state("nothing was changed")
        .advise("`quorate get KEY --trace` shows what each owner holds; `quorate status` how the nodes are"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::{BucketId, ContextToken, Hlc, OpId, Sibling};
    use quorate_ring::id::{ActorId, ClusterId, Epoch};
    use quorate_ring::version::{Context, Dot};
    use std::time::Duration;

    fn answer(values: &[&'static str]) -> Result<ReadAnswer, Declined> {
        let sibling = |value: &&'static str| Sibling {
            value: value.as_bytes().into(),
            dot: Dot(ActorId(1), 1),
            hlc: Hlc(1),
            expires_ms: None,
            op_id: OpId([0; 16]),
        };
        Ok(ReadAnswer {
            epoch: Epoch(1),
            siblings: values.iter().map(sibling).collect(),
            context: ContextToken::seal(ClusterId([0; 16]), BucketId(1), b"k", &Context::new()),
            needed: 1,
            answered: Vec::new(),
            set_aside: 0,
            repairing: Vec::new(),
            short: false,
        })
    }

    #[test]
    fn only_the_same_bytes_are_the_same() {
        assert_eq!(compare(answer(&["abc"]), b"abc"), Found::Same);
        assert_eq!(compare(answer(&["abd"]), b"abc"), Found::Different { bytes: 3 });
        assert_eq!(compare(answer(&[]), b"abc"), Found::Missing);
        assert_eq!(compare(answer(&["abc", "abc"]), b"abc"), Found::Conflict { siblings: 2 });
        let late = Declined::DeadlinePassed(Duration::from_secs(1));
        assert_eq!(compare(Err(late.clone()), b"abc"), Found::Failed(late));
    }
}
