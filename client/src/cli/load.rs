//! `load`: every record of a file becomes a key.
//!
//! So many puts are under way at once, but never two of one key: a file that names a key twice leaves the later record.

mod exported;
pub mod feed;
pub mod progress;
pub mod records;
pub mod rejects;
mod state;

use crate::args::{Load, Writing};
use crate::failure::{Code, Failure};
use crate::output::{self, grouped};
use crate::session::Session;
use feed::{Feed, Item};
use progress::{Progress, rate};
use quorate_client::{Receipt, WriteError, WriteOptions};
use records::{Record, Source};
use rejects::{Outcome, Rejects};
use serde_json::json;
use state::{Job, State, Watermark};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Reasons that are shown as they come; the others are in the file of rejects.
const REASONS_SHOWN: u64 = 10;

/// One put's end.
type Ended = (Record, Result<Receipt, WriteError>);

#[derive(Default)]
struct Tally {
    stored: u64,
    /// Known to the nodes from before: sent again after a resume or a retry.
    repeated: u64,
    not_applied: u64,
    unknown: u64,
    unreadable: u64,
    /// Not stored, one after the other, up to now.
    in_a_row: u64,
}

impl Tally {
    /// One more record that is not known to be stored.
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::NotApplied => self.not_applied += 1,
            Outcome::Unknown => self.unknown += 1,
            Outcome::Unreadable => self.unreadable += 1,
        }
    }

    fn not_stored(&self) -> u64 {
        self.not_applied + self.unknown + self.unreadable
    }
}

struct Loading<'a> {
    session: &'a Session,
    load: &'a Load,
    state: State,
    state_path: PathBuf,
    options: WriteOptions,
    rejects: Rejects,
    tally: Tally,
    mark: Watermark,
    progress: Progress,
    puts: JoinSet<Ended>,
    /// Keys of the puts that are under way.
    busy: HashSet<Vec<u8>>,
    saved: Instant,
}

/// Why no more records are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    EndOfFile,
    Interrupted,
    TooManyInARow,
}

pub async fn run(session: &Session, load: Load) -> Result<(), Failure> {
    let job = Job::of(&load.records, &session.bucket)?;
    let source = Source::open(&load.records)?;
    session.bucket_of(&session.layout())?;
    let state_path = load.state.clone().unwrap_or_else(|| beside(&load.records.file, "load.json"));
    let rejects_path = load.rejects.clone().unwrap_or_else(|| beside(&load.records.file, "rejects.ndjson"));
    let bytes = job.bytes;
    let state = if load.resume { State::read(&state_path, &job)? } else { State::new(job) };
    let skip = state.done;
    let mut tally = Tally::default();
    let rejects = if load.resume {
        let (rejects, before) = Rejects::resume(rejects_path, skip)?;
        before.into_iter().for_each(|outcome| tally.count(outcome));
        rejects
    } else {
        Rejects::new(rejects_path)?
    };
    let writing = Writing { supersede: load.supersede, ..Writing::default() };
    let mut loading = Loading {
        session,
        options: session.write_options(&writing),
        rejects,
        tally,
        mark: Watermark::at(skip),
        progress: Progress::new("loaded", bytes),
        puts: JoinSet::new(),
        busy: HashSet::new(),
        saved: Instant::now(),
        state,
        state_path,
        load: &load,
    };
    loading.save()?;
    if skip > 0 {
        let before = grouped(loading.tally.not_stored());
        eprintln!("resuming behind record {}; {before} of those before it were not stored", grouped(skip));
    }
    let in_flight = usize::from(load.records.in_flight);
    let feed = Feed::start(source, skip, 2 * in_flight);
    let stop = loading.work(feed, in_flight).await;
    loading.progress.end();
    loading.conclude(stop?)
}

/// In the folder one works in, named after the file.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    PathBuf::from(format!("{name}.{suffix}"))
}

impl Loading<'_> {
    async fn work(&mut self, mut feed: Feed, in_flight: usize) -> Result<Stop, Failure> {
        let interrupt = tokio::signal::ctrl_c();
        tokio::pin!(interrupt);
        let mut stop = None;
        let mut next: Option<Record> = None;
        loop {
            if let Some(record) = next.take_if(|record| stop.is_none() && !self.busy.contains(&record.key)) {
                self.put(record);
            }
            let room = stop.is_none() && next.is_none() && self.puts.len() < in_flight;
            if let Some(stop) = stop.take_if(|_| self.puts.is_empty()) {
                return Ok(stop);
            }
            tokio::select! {
                biased;
                _ = &mut interrupt, if stop.is_none() => stop = Some(Stop::Interrupted),
                Some(ended) = self.puts.join_next(), if !self.puts.is_empty() => {
                    self.ended(ended.expect("a put does not panic"))?;
                }
                item = feed.next(), if room => match self.taken(item)? {
                    Taken::Put(record) => next = Some(record),
                    Taken::Rejected => {}
                    Taken::End => stop = Some(Stop::EndOfFile),
                },
            }
            if self.tally.in_a_row >= self.load.stop_after && stop.is_none() {
                stop = Some(Stop::TooManyInARow);
            }
            self.progress.show(self.tally.stored + self.tally.not_stored(), feed.bytes_read());
            if self.saved.elapsed() >= SAVE_EVERY {
                self.save()?;
            }
        }
    }

    fn taken(&mut self, item: Option<Item>) -> Result<Taken, Failure> {
        match item {
            None => Ok(Taken::End),
            Some(Ok(Ok(record))) => Ok(Taken::Put(record)),
            Some(Ok(Err(unreadable))) => {
                let why = (Outcome::Unreadable, unreadable.reason.as_str());
                self.reject(unreadable.number, why, unreadable.text.as_bytes())?;
                Ok(Taken::Rejected)
            }
            Some(Err(error)) => {
                self.save()?;
                let file = self.load.records.file.display();
                Err(Failure::local(format!("{file} cannot be read any further: {error}"))
                    .state(format!("records up to {} are done", self.mark.upto()))
                    .advise("mend the file and load it again"))
            }
        }
    }

    fn put(&mut self, record: Record) {
        self.busy.insert(record.key.clone());
        let client = self.session.client.clone();
        let bucket = self.session.bucket.clone();
        let (op_id, expires_ms) = (Some(self.state.op_id(record.number)), record.expires_ms);
        let options = WriteOptions { op_id, expires_ms, ..self.options.clone() };
        self.puts.spawn(async move {
            let result = client.put(&bucket, record.key.clone(), record.value.clone(), &options).await;
            (record, result)
        });
    }

    fn ended(&mut self, (record, result): Ended) -> Result<(), Failure> {
        self.busy.remove(&record.key);
        match result {
            Ok(receipt) => {
                self.tally.stored += 1;
                self.tally.repeated += u64::from(receipt.repeated);
                self.tally.in_a_row = 0;
                self.mark.done(record.number);
                Ok(())
            }
            Err(error) => {
                let outcome = match &error {
                    WriteError::NotApplied(_) => Outcome::NotApplied,
                    WriteError::Unknown(_) => Outcome::Unknown,
                };
                self.tally.in_a_row += 1;
                self.reject(record.number, (outcome, &error.to_string()), record.text())
            }
        }
    }

    fn reject(&mut self, number: u64, (outcome, reason): (Outcome, &str), record: &[u8]) -> Result<(), Failure> {
        self.tally.count(outcome);
        self.rejects.add(&rejects::line(number, outcome, reason, record))?;
        self.mark.done(number);
        if self.tally.not_stored() <= REASONS_SHOWN && !self.session.common.output.is_json() {
            let ended = match outcome {
                Outcome::NotApplied => "not applied",
                Outcome::Unknown => "unknown",
                Outcome::Unreadable => "unreadable",
            };
            eprintln!("record {number}: {ended}: {reason}");
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Failure> {
        self.saved = Instant::now();
        self.rejects.flush()?;
        self.state.done = self.mark.upto();
        self.state.write(&self.state_path)
    }

    fn conclude(mut self, stop: Stop) -> Result<(), Failure> {
        self.save()?;
        let whole = stop == Stop::EndOfFile;
        if whole {
            std::fs::remove_file(&self.state_path)
                .map_err(|e| Failure::local(format!("cannot remove {}: {e}", self.state_path.display())))?;
        }
        let seconds = self.progress.seconds();
        let Tally { stored, repeated, not_applied, unknown, unreadable, .. } = self.tally;
        let not_stored = self.tally.not_stored();
        let rejects = (not_stored > 0).then(|| self.rejects.path().display().to_string());
        let format = self.session.common.output;
        if format.is_json() {
            let value = json!({
                "stored": stored, "repeated": repeated, "not_applied": not_applied, "unknown": unknown,
                "unreadable": unreadable, "rejects": rejects, "whole_file": whole, "seconds": seconds,
            });
            output::document(&value, format)?;
        } else {
            let per_second = grouped(rate(stored, seconds));
            let again =
                if repeated > 0 { format!(", {} of them known from before", grouped(repeated)) } else { String::new() };
            output::line(&format!("stored {} records in {seconds:.1} s ({per_second}/s){again}", grouped(stored)))?;
        }
        self.verdict(stop, rejects)
    }

    /// Nothing to say if all went well.
    fn verdict(&self, stop: Stop, rejects: Option<String>) -> Result<(), Failure> {
        let Tally { not_applied, unknown, unreadable, .. } = self.tally;
        let code = match (stop, unknown, not_applied + unreadable) {
            (_, 1.., _) => Code::Unknown,
            (Stop::Interrupted, _, _) => Code::Interrupted,
            (_, 0, 1..) | (Stop::TooManyInARow, _, _) => Code::NotApplied,
            (Stop::EndOfFile, 0, 0) => return Ok(()),
        };
        let mut parts = Vec::new();
        for (count, what) in [(not_applied, "refused"), (unknown, "of unknown outcome"), (unreadable, "unreadable")] {
            if count > 0 {
                parts.push(format!("{} {what}", grouped(count)));
            }
        }
        let counted = if parts.is_empty() { "none was refused".to_string() } else { parts.join(", ") };
        let message = match stop {
            Stop::EndOfFile => format!("not all records were stored: {counted}"),
            Stop::Interrupted => format!("interrupted; {counted}"),
            Stop::TooManyInARow => format!("stopped, as {} in a row were not stored: {counted}", self.tally.in_a_row),
        };
        let listed =
            rejects.map(|path| format!("; those that were not stored are in {path}, which can be loaded as it is"));
        let state = format!("records up to {} are done{}", grouped(self.mark.upto()), listed.unwrap_or_default());
        let advice = match stop {
            Stop::EndOfFile => "load the file of rejects once the reasons in it are mended",
            Stop::Interrupted | Stop::TooManyInARow => "run the same command with --resume to go on",
        };
        Err(Failure::new(code, message).state(state).advise(advice))
    }
}

enum Taken {
    Put(Record),
    Rejected,
    End,
}
