//! Records that were not stored, in a file of their own, which can be loaded again as it is.

use crate::failure::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

const HEAD: &[u8] = b"{\"rejected\":";
const RECORD: &[u8] = b",\"record\":";

/// How it ended for a record that is not known to be stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    NotApplied,
    Unknown,
    Unreadable,
}

/// What is said of a rejected record, beside the record itself.
#[derive(Serialize, Deserialize)]
struct Why {
    record: u64,
    outcome: Outcome,
    reason: String,
}

/// Made when the first record is rejected.
pub struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    /// An older file of this name goes.
    pub fn new(path: PathBuf) -> Result<Self, Failure> {
        if path.exists() {
            std::fs::remove_file(&path).map_err(|e| fault(&path, &e))?;
        }
        Ok(Self { path, file: None })
    }

    /// Goes on behind what an earlier run left, and says how those records ended. What was rejected of records after
    /// number `done` goes: they are tried again.
    pub fn resume(path: PathBuf, done: u64) -> Result<(Self, Vec<Outcome>), Failure> {
        let mut outcomes = Vec::new();
        if path.exists() {
            let beside = path.with_extension("ndjson.new");
            let io = |e: std::io::Error| fault(&path, &e);
            let mut kept = BufWriter::new(File::create(&beside).map_err(io)?);
            for line in BufReader::new(File::open(&path).map_err(io)?).split(b'\n') {
                let line = line.map_err(io)?;
                // The last line may be half a one, of a run that was killed.
                let Some((why, _)) = parts(&line).filter(|(why, _)| why.record <= done) else { continue };
                outcomes.push(why.outcome);
                kept.write_all(&line).and_then(|()| kept.write_all(b"\n")).map_err(io)?;
            }
            kept.flush().map_err(io)?;
            std::fs::rename(&beside, &path).map_err(io)?;
        }
        Ok((Self { path, file: None }, outcomes))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn add(&mut self, line: &[u8]) -> Result<(), Failure> {
        let path = &self.path;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = OpenOptions::new().create(true).append(true).open(path);
                self.file.insert(BufWriter::new(opened.map_err(|e| fault(path, &e))?))
            }
        };
        file.write_all(line).map_err(|e| fault(path, &e))
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.file {
            Some(file) => file.flush().map_err(|e| fault(&self.path, &e)),
            None => Ok(()),
        }
    }
}

fn fault(path: &Path, error: &std::io::Error) -> Failure {
    Failure::local(format!("cannot write rejected records to {}: {error}", path.display()))
}

/// `{"rejected":{...},"record":...}`: the record as it was, or, where it is no JSON, its text.
pub fn line(number: u64, outcome: Outcome, reason: &str, record: &[u8]) -> Vec<u8> {
    let why = Why { record: number, outcome, reason: reason.to_string() };
    let why = serde_json::to_vec(&why).expect("it is plain data");
    let is_object = serde_json::from_slice::<Value>(record).is_ok_and(|v| v.is_object());
    let text = Value::from(String::from_utf8_lossy(record)).to_string();
    let record = if is_object { record } else { text.as_bytes() };
    [HEAD, &why, RECORD, record, b"}\n"].concat()
}

/// The record of such a line, byte for byte.
pub fn unwrap(line: &[u8]) -> Option<&[u8]> {
    parts(line).map(|(_, record)| record)
}

fn parts(line: &[u8]) -> Option<(Why, &[u8])> {
    let rest = line.strip_prefix(HEAD)?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Why>();
    let why = values.next()?.ok()?;
    let record = rest.get(values.byte_offset()..)?.strip_prefix(RECORD)?.strip_suffix(b"}")?;
    Some((why, record))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        for record in [&b"{\"id\": 1, \"s\": \",\\\"record\\\":\"}"[..], b"{ }"] {
            let line = line(3, Outcome::Unknown, "a \"reason\"", record);
            assert!(serde_json::from_slice::<Value>(&line).is_ok());
            assert_eq!(unwrap(line.trim_ascii_end()), Some(record));
        }
        let text = line(3, Outcome::Unreadable, "no", b"not json \xff");
        let parsed: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(parsed["record"], "not json \u{fffd}");
        assert_eq!(unwrap(b"{\"rejected\":1}"), None);
        assert_eq!(unwrap(b"{\"id\":1}"), None);
    }

    #[test]
    fn the_file_is_made_when_it_is_needed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("r");
        let write = |mut rejects: Rejects, lines: &[&[u8]]| {
            lines.iter().for_each(|line| rejects.add(line).unwrap());
            rejects.flush().unwrap();
        };
        write(Rejects::new(path.clone()).unwrap(), &[]);
        assert!(!path.exists());
        write(Rejects::new(path.clone()).unwrap(), &[b"a\n"]);
        write(Rejects::new(path.clone()).unwrap(), &[b"c\n"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"c\n");
    }

    #[test]
    fn a_resumed_load_knows_what_was_rejected_and_forgets_what_is_tried_again() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("r");
        let kept = [line(2, Outcome::Unknown, "?", b"{}"), line(4, Outcome::NotApplied, "no", b"{}")].concat();
        let after = line(5, Outcome::Unreadable, "no", b"x");
        std::fs::write(&path, [&kept[..], &after, &after[..20]].concat()).unwrap();
        let (mut rejects, outcomes) = Rejects::resume(path.clone(), 4).unwrap();
        assert_eq!(outcomes, [Outcome::Unknown, Outcome::NotApplied]);
        assert_eq!(std::fs::read(&path).unwrap(), kept);
        rejects.add(&after).unwrap();
        rejects.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [kept, after].concat());
        let (_, none) = Rejects::resume(folder.path().join("not there"), 4).unwrap();
        assert!(none.is_empty());
    }
}
