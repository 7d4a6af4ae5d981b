//! Records that were not stored, in a file of their own, which can be loaded again as it is.

use crate::failure::Failure;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const HEAD: &[u8] = b"{\"rejected\":";
const RECORD: &[u8] = b",\"record\":";

/// Made when the first record is rejected.
pub struct Rejects {
    path: PathBuf,
    /// Go on behind what an earlier run left.
    keep: bool,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    /// Without `keep` an older file of this name goes.
    pub fn new(path: PathBuf, keep: bool) -> Result<Self, Failure> {
        if !keep && path.exists() {
            std::fs::remove_file(&path).map_err(|e| fault(&path, &e))?;
        }
        Ok(Self { path, keep, file: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn add(&mut self, line: &[u8]) -> Result<(), Failure> {
        let path = &self.path;
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let opened = OpenOptions::new().create(true).append(self.keep).write(true).open(path);
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
pub fn line(number: u64, outcome: &str, reason: &str, record: &[u8]) -> Vec<u8> {
    let why = json!({ "record": number, "outcome": outcome, "reason": reason });
    let is_object = serde_json::from_slice::<Value>(record).is_ok_and(|v| v.is_object());
    let text = Value::from(String::from_utf8_lossy(record)).to_string();
    let record = if is_object { record } else { text.as_bytes() };
    [HEAD, why.to_string().as_bytes(), RECORD, record, b"}\n"].concat()
}

/// The record of such a line, byte for byte.
pub fn unwrap(line: &[u8]) -> Option<&[u8]> {
    let rest = line.strip_prefix(HEAD)?;
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<Value>();
    values.next()?.ok()?;
    rest.get(values.byte_offset()..)?.strip_prefix(RECORD)?.strip_suffix(b"}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        for record in [&b"{\"id\": 1, \"s\": \",\\\"record\\\":\"}"[..], b"{ }"] {
            let line = line(3, "unknown", "a \"reason\"", record);
            assert!(serde_json::from_slice::<Value>(&line).is_ok());
            assert_eq!(unwrap(line.trim_ascii_end()), Some(record));
        }
        let text = line(3, "unreadable", "no", b"not json \xff");
        let parsed: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(parsed["record"], "not json \u{fffd}");
        assert_eq!(unwrap(b"{\"rejected\":1}"), None);
        assert_eq!(unwrap(b"{\"id\":1}"), None);
    }

    #[test]
    fn the_file_is_made_when_it_is_needed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("r");
        let write = |keep: bool, lines: &[&[u8]]| {
            let mut rejects = Rejects::new(path.clone(), keep).unwrap();
            lines.iter().for_each(|line| rejects.add(line).unwrap());
            rejects.flush().unwrap();
        };
        write(false, &[]);
        assert!(!path.exists());
        write(false, &[b"a\n"]);
        write(true, &[b"b\n"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"a\nb\n");
        write(false, &[b"c\n"]);
        assert_eq!(std::fs::read(&path).unwrap(), b"c\n");
    }
}
