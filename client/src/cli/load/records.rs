//! Files of records: NDJSON or CSV, also gzipped, one record at a time.

use super::exported;
use crate::args::{RecordFormat, Records};
use crate::failure::Failure;
use flate2::read::MultiGzDecoder;
use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A record is not longer than this; longer lines are passed over.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What is stored: the record itself, as JSON, under its key; or what a line of an export says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Counted from 1, unreadable ones too.
    pub number: u64,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
    /// Milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// What stands in the file, where that is not the value.
    line: Option<Vec<u8>>,
}

impl Record {
    /// As it stands in the file.
    pub fn text(&self) -> &[u8] {
        self.line.as_deref().unwrap_or(&self.value)
    }
}

/// A record without which the file goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unreadable {
    pub number: u64,
    pub text: String,
    pub reason: String,
}

/// The records of one file, in order. An `io::Error` ends it.
pub struct Source {
    lines: Lines,
    rule: Rule,
    number: u64,
    read: Arc<AtomicU64>,
}

enum Lines {
    Ndjson(Box<dyn BufRead + Send>),
    Csv { rows: Box<csv::Reader<Box<dyn BufRead + Send>>>, header: Vec<String> },
}

/// How a key and a value are made of a record.
enum Rule {
    /// The key is a field; the value is the whole record.
    Field {
        field: String,
        prefix: String,
    },
    Exported,
}

/// Counts the bytes of the file itself, packed or not: of those the total is known.
struct Counting {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

impl Source {
    pub fn open(records: &Records) -> Result<Self, Failure> {
        let path = &records.file;
        let fault = |reason: String| Failure::usage(format!("{}: {reason}", path.display()));
        let file = File::open(path).map_err(|e| fault(e.to_string()))?;
        let read = Arc::new(AtomicU64::new(0));
        let mut plain = BufReader::with_capacity(1 << 16, Counting { file, read: Arc::clone(&read) });
        let packed = plain.fill_buf().map_err(|e| fault(e.to_string()))?.starts_with(&GZIP_MAGIC);
        let text: Box<dyn BufRead + Send> = match packed {
            true => Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(plain))),
            false => Box::new(plain),
        };
        let (lines, rule) = match &records.key_field {
            None => (Lines::Ndjson(text), Rule::Exported),
            Some(field) => {
                let lines = match format_of(path, records.format).map_err(fault)? {
                    RecordFormat::Ndjson => Lines::Ndjson(text),
                    RecordFormat::Csv => csv_lines(text, field).map_err(fault)?,
                };
                (lines, Rule::Field { field: field.clone(), prefix: records.key_prefix.clone() })
            }
        };
        Ok(Self { lines, rule, number: 0, read })
    }

    /// Bytes of the file that were read so far.
    pub fn read_so_far(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.read)
    }

    pub fn next(&mut self) -> io::Result<Option<Result<Record, Unreadable>>> {
        let found = match &mut self.lines {
            Lines::Ndjson(lines) => next_line(lines)?,
            Lines::Csv { rows, header } => next_row(rows, header)?,
        };
        let Some(found) = found else { return Ok(None) };
        self.number += 1;
        let number = self.number;
        Ok(Some(match found.and_then(|text| self.rule.record(number, text)) {
            Ok(record) => Ok(record),
            Err((text, reason)) => Err(Unreadable { number, text, reason }),
        }))
    }
}

/// The text of a record, or what could be read of it and why that is not enough.
type Found = Result<Vec<u8>, (String, String)>;

fn format_of(path: &Path, given: Option<RecordFormat>) -> Result<RecordFormat, String> {
    if let Some(given) = given {
        return Ok(given);
    }
    let name = path.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit('.').next() {
        Some("ndjson" | "jsonl" | "json") => Ok(RecordFormat::Ndjson),
        Some("csv") => Ok(RecordFormat::Csv),
        _ => Err("its name does not say what it is; give --format ndjson or --format csv".to_string()),
    }
}

fn csv_lines(text: Box<dyn BufRead + Send>, key_field: &str) -> Result<Lines, String> {
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_reader(text);
    let header: Vec<String> = rows.headers().map_err(|e| e.to_string())?.iter().map(str::to_string).collect();
    if let Some(twice) = header.iter().enumerate().find(|(i, name)| header[..*i].contains(name)) {
        return Err(format!("two columns are named {:?}", twice.1));
    }
    if !header.iter().any(|name| name == key_field) {
        return Err(format!("it has no column {key_field:?}; it has {}", header.join(", ")));
    }
    Ok(Lines::Csv { rows: Box::new(rows), header })
}

fn next_line(lines: &mut Box<dyn BufRead + Send>) -> io::Result<Option<Found>> {
    loop {
        let mut line = Vec::new();
        let length = lines.as_mut().take(RECORD_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(None);
        }
        if length > RECORD_BYTES_MAX {
            skip_line(lines)?;
            let start = String::from_utf8_lossy(&line[..100]).into_owned();
            return Ok(Some(Err((start, format!("it is longer than {RECORD_BYTES_MAX} bytes")))));
        }
        let text = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if !text.is_empty() {
            return Ok(Some(Ok(text.to_vec())));
        }
    }
}

fn skip_line(lines: &mut Box<dyn BufRead + Send>) -> io::Result<()> {
    loop {
        let buffer = lines.fill_buf()?;
        let (length, ended) = match buffer.iter().position(|b| *b == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        lines.consume(length);
        if ended {
            return Ok(());
        }
    }
}

/// A row as a JSON object, its fields in the order of the columns, all of them text.
fn next_row(rows: &mut csv::Reader<Box<dyn BufRead + Send>>, header: &[String]) -> io::Result<Option<Found>> {
    let mut row = csv::ByteRecord::new();
    match rows.read_byte_record(&mut row) {
        Ok(false) => return Ok(None),
        Ok(true) => {}
        Err(error) => return Err(io::Error::other(error.to_string())),
    }
    let whole = || String::from_utf8_lossy(row.as_slice()).into_owned();
    if row.len() != header.len() {
        return Ok(Some(Err((whole(), format!("it has {} fields, the header has {}", row.len(), header.len())))));
    }
    let mut json = String::from("{");
    for (name, field) in header.iter().zip(row.iter()) {
        let Ok(text) = std::str::from_utf8(field) else {
            return Ok(Some(Err((whole(), format!("field {name:?} is not UTF-8")))));
        };
        let comma = if json.len() > 1 { "," } else { "" };
        json += &format!("{comma}{}:{}", Value::from(name.as_str()), Value::from(text));
    }
    json.push('}');
    Ok(Some(Ok(json.into_bytes())))
}

impl Rule {
    fn record(&self, number: u64, text: Vec<u8>) -> Result<Record, (String, String)> {
        let text = super::rejects::unwrap(&text).map(<[u8]>::to_vec).unwrap_or(text);
        let made = match self {
            // The value is the text as it stands, not as a parser would write it again.
            Rule::Field { field, prefix } => key_of(&text, field, prefix).map(|key| (key, None, None)),
            Rule::Exported => exported::parse(&text).map(|line| (line.key, Some(line.value), line.expires_ms)),
        };
        match made {
            Ok((key, None, expires_ms)) => Ok(Record { number, key, value: text, expires_ms, line: None }),
            Ok((key, Some(value), expires_ms)) => Ok(Record { number, key, value, expires_ms, line: Some(text) }),
            Err(reason) => Err((String::from_utf8_lossy(&text).into_owned(), reason)),
        }
    }
}

fn key_of(text: &[u8], name: &str, prefix: &str) -> Result<Vec<u8>, String> {
    let parsed: Value = serde_json::from_slice(text).map_err(|e| format!("it is not JSON: {e}"))?;
    let fields = parsed.as_object().ok_or("it is not a JSON object")?;
    let field = fields.get(name).ok_or_else(|| format!("it has no field {name:?}"))?;
    let key = match field {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            return Err(format!("field {name:?} is neither text nor a number"));
        }
    };
    if key.is_empty() {
        return Err(format!("field {name:?} is empty"));
    }
    Ok(format!("{prefix}{key}").into_bytes())
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
