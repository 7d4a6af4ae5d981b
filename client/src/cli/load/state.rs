//! How far a load has come, in a file: enough to go on where it was broken off.

use crate::args::Records;
use crate::failure::Failure;
use quorate_client::{OpId, new_op_id};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Which load this is: of the same file, with the same keys, into the same bucket.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    pub file: PathBuf,
    pub bytes: u64,
    pub modified_ms: u64,
    /// None for an export.
    pub key_field: Option<String>,
    pub key_prefix: String,
    pub bucket: String,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u8,
    job: Job,
    /// Makes the op ids: a record that is sent again after a resume is known as the same write.
    run: OpIdText,
    /// All records up to this number are stored, or among the rejects.
    pub done: u64,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct OpIdText(OpId);

impl TryFrom<String> for OpIdText {
    type Error = quorate_ring::id::HexError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

impl From<OpIdText> for String {
    fn from(id: OpIdText) -> Self {
        id.0.to_string()
    }
}

const VERSION: u8 = 1;

impl Job {
    pub fn of(records: &Records, bucket: &str) -> Result<Self, Failure> {
        let path = &records.file;
        let fault = |e: std::io::Error| Failure::usage(format!("{}: {e}", path.display()));
        let metadata = path.metadata().map_err(fault)?;
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            file: path.canonicalize().map_err(fault)?,
            bytes: metadata.len(),
            modified_ms: modified.map_or(0, |m| u64::try_from(m.as_millis()).unwrap_or(u64::MAX)),
            key_field: records.key_field.clone(),
            key_prefix: records.key_prefix.clone(),
            bucket: bucket.to_string(),
        })
    }
}

impl State {
    pub fn new(job: Job) -> Self {
        Self { version: VERSION, job, run: OpIdText(new_op_id()), done: 0 }
    }

    /// Reads the state of an earlier run, and makes sure that it is of this load.
    pub fn read(path: &Path, job: &Job) -> Result<Self, Failure> {
        let fault = |reason: String| Failure::usage(format!("{}: {reason}", path.display()));
        let advice = "without --resume the load starts from the beginning, which does no harm";
        let text = std::fs::read(path).map_err(|e| fault(format!("there is nothing to resume: {e}")).advise(advice))?;
        let state: Self =
            serde_json::from_slice(&text).map_err(|e| fault(format!("it is not the state of a load: {e}")))?;
        if state.version != VERSION || state.job != *job {
            let other = "it belongs to another load, or the file has changed since";
            return Err(fault(other.to_string()).advise(advice));
        }
        Ok(state)
    }

    /// Whole or not at all: written beside, then renamed.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let fault = |e: std::io::Error| Failure::local(format!("cannot write {}: {e}", path.display()));
        let text = serde_json::to_vec_pretty(self).expect("a state is plain data");
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, text).map_err(fault)?;
        std::fs::rename(&beside, path).map_err(fault)
    }

    /// The op id of a record: of this load, and the same after a resume.
    pub fn op_id(&self, number: u64) -> OpId {
        let mut id = self.run.0;
        id.0[8..].copy_from_slice(&number.to_be_bytes());
        id
    }
}

/// Which records are done, of those that end in any order.
#[derive(Default)]
pub struct Watermark {
    upto: u64,
    beyond: BTreeSet<u64>,
}

impl Watermark {
    pub fn at(upto: u64) -> Self {
        Self { upto, beyond: BTreeSet::new() }
    }

    pub fn done(&mut self, number: u64) {
        self.beyond.insert(number);
        while self.beyond.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }

    /// All up to here are done.
    pub fn upto(&self) -> u64 {
        self.upto
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: u64) -> Job {
        let file = PathBuf::from("/f");
        let key_field = Some("id".to_string());
        let [key_prefix, bucket] = ["", "default"].map(str::to_string);
        Job { file, bytes, modified_ms: 5, key_field, key_prefix, bucket }
    }

    #[test]
    fn a_state_comes_back_and_only_for_its_own_load() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("f.load.json");
        assert!(State::read(&path, &job(1)).unwrap_err().message.contains("nothing to resume"));
        let state = State { done: 7, ..State::new(job(1)) };
        state.write(&path).unwrap();
        assert_eq!(State::read(&path, &job(1)).unwrap(), state);
        assert!(State::read(&path, &job(2)).unwrap_err().message.contains("another load"));
        std::fs::write(&path, "{}").unwrap();
        assert!(State::read(&path, &job(1)).unwrap_err().message.contains("not the state of a load"));
    }

    #[test]
    fn op_ids_differ_by_record_and_by_run_and_not_by_resume() {
        let (first, second) = (State::new(job(1)), State::new(job(1)));
        assert_eq!(first.op_id(3), first.clone().op_id(3));
        assert_ne!(first.op_id(3), first.op_id(4));
        assert_ne!(first.op_id(3), second.op_id(3));
    }

    #[test]
    fn the_watermark_waits_for_the_slowest() {
        let mut mark = Watermark::at(10);
        for number in [12, 13, 15] {
            mark.done(number);
        }
        assert_eq!(mark.upto(), 10);
        mark.done(11);
        assert_eq!(mark.upto(), 13);
        mark.done(14);
        assert_eq!(mark.upto(), 15);
    }
}
