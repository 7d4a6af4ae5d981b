//! Printing: to stdout what was asked for, in the format that was asked for.

use crate::failure::{Code, Failure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use comfy_table::{Table, presets};
use quorate_client::{Layout, NodeId};
use serde_json::{Map, Value, json};
use std::io::{self, IsTerminal, Write};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// For people
    Table,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
    /// The bytes, and nothing else
    Raw,
}

impl Format {
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl)
    }
}

/// Writes to stdout. A closed pipe ends the program without a word.
pub fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::new(Code::Closed, ""),
        _ => Failure::local(format!("cannot write to stdout: {error}")),
    })
}

pub fn line(text: &str) -> Result<(), Failure> {
    bytes(format!("{text}\n").as_bytes())
}

/// Begins anew what is shown again and again: on a terminal in place of what was there, else below it.
pub fn anew() -> Result<(), Failure> {
    if io::stdout().is_terminal() { bytes(b"\x1b[H\x1b[2J") } else { line("") }
}

/// One document: on many lines for `json`, on one for `jsonl`.
pub fn document(value: &Value, format: Format) -> Result<(), Failure> {
    if format == Format::Json { line(&format!("{value:#}")) } else { line(&value.to_string()) }
}

/// A table as the other programs of Quorate print them.
pub fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Bytes as JSON: text where they are text, else base64, which `<name>_encoding` then says. The value itself is
/// `value` and `encoding`.
pub fn put_bytes(into: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            into.insert(name.to_string(), json!(text));
        }
        Err(_) => {
            let label = if name == "value" { "encoding".to_string() } else { format!("{name}_encoding") };
            into.insert(name.to_string(), json!(STANDARD.encode(bytes)));
            into.insert(label, json!("base64"));
        }
    }
}

/// Bytes for people: text, or base64 that says so.
pub fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => format!("base64:{}", STANDARD.encode(bytes)),
    }
}

/// On one line and without control characters, so that no value can play with the terminal.
pub fn shown_in_line(bytes: &[u8], chars_max: usize) -> String {
    let text = shown(bytes);
    let mut line: String = text.chars().take(chars_max).flat_map(|c| c.escape_debug_if_control()).collect();
    if text.chars().nth(chars_max).is_some() {
        line += "...";
    }
    line
}

trait EscapeIfControl {
    fn escape_debug_if_control(self) -> Vec<char>;
}

impl EscapeIfControl for char {
    fn escape_debug_if_control(self) -> Vec<char> {
        if self.is_control() { self.escape_debug().collect() } else { vec![self] }
    }
}

pub fn node_name(layout: &Layout, node: NodeId) -> String {
    layout.topology().node(node).map_or_else(|| node.to_string(), |n| n.name.clone())
}

pub fn names(layout: &Layout, nodes: impl IntoIterator<Item = NodeId>) -> String {
    nodes.into_iter().map(|node| node_name(layout, node)).collect::<Vec<_>>().join(", ")
}

/// Milliseconds since 1970 as UTC.
pub fn when(ms: u64) -> String {
    let nanos = i128::from(ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|t| t.format(&Rfc3339).ok());
    time.unwrap_or_else(|| format!("{ms} ms after 1970"))
}

/// 1234567 as 1,234,567.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let mut fields = Map::new();
        put_bytes(&mut fields, "value", "grün".as_bytes());
        put_bytes(&mut fields, "key", b"k");
        assert_eq!(Value::Object(fields), json!({"value": "grün", "key": "k"}));
        let mut fields = Map::new();
        put_bytes(&mut fields, "value", &[0xff, 0]);
        put_bytes(&mut fields, "key", &[0xfe]);
        let expected = json!({"value": "/wA=", "encoding": "base64", "key": "/g==", "key_encoding": "base64"});
        assert_eq!(Value::Object(fields), expected);
        assert_eq!(shown_in_line(b"a\x1b[2Jb", 10), "a\\u{1b}[2Jb");
        assert_eq!(shown_in_line(b"abcdef", 3), "abc...");
    }

    #[test]
    fn numbers_and_times() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(when(1_000), "1970-01-01T00:00:01Z");
        assert_eq!(when(u64::MAX), format!("{} ms after 1970", u64::MAX));
    }
}
