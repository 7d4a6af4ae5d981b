use super::*;
use crate::load::rejects::Outcome;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::path::PathBuf;
use tempfile::TempDir;

fn records(folder: &TempDir, name: &str, content: &[u8], field: &str) -> Records {
    let file: PathBuf = folder.path().join(name);
    std::fs::write(&file, content).unwrap();
    let key_field = Some(field.to_string());
    Records { file, key_field, exported: false, key_prefix: "p/".to_string(), format: None, in_flight: 1 }
}

fn all(records: &Records) -> Vec<Result<(String, String), String>> {
    let mut source = Source::open(records).unwrap();
    let mut found = Vec::new();
    while let Some(next) = source.next().unwrap() {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        found.push(next.map(|r| (text(r.key), text(r.value))).map_err(|u| format!("{}: {}", u.number, u.reason)));
    }
    found
}

fn ok(key: &str, value: &str) -> Result<(String, String), String> {
    Ok((key.to_string(), value.to_string()))
}

#[test]
fn ndjson_keeps_the_bytes_of_each_record() {
    let folder = TempDir::new().unwrap();
    let text = "\u{feff}{\"id\": 7, \"b\":1.50}\r\n\n  {\"id\":\"x y\",\"a\":\"\\u00e9\"}\nno\n[1]\n{\"b\":2}\n{\"id\":null}\n{\"id\":\"\"}\n{\"id\":-3}";
    let found = all(&records(&folder, "f.ndjson", text.as_bytes(), "id"));
    assert_eq!(found[0], ok("p/7", "{\"id\": 7, \"b\":1.50}"));
    assert_eq!(found[1], ok("p/x y", "{\"id\":\"x y\",\"a\":\"\\u00e9\"}"));
    let reasons = [
        "3: it is not JSON",
        "4: it is not a JSON object",
        "5: it has no field",
        "6: field \"id\" is neither",
        "7: field \"id\" is empty",
    ];
    for (found, reason) in found[2..7].iter().zip(reasons) {
        assert!(found.as_ref().unwrap_err().starts_with(reason), "{found:?}");
    }
    assert_eq!(found[7], ok("p/-3", "{\"id\":-3}"));
    assert_eq!(found.len(), 8);
}

#[test]
fn csv_becomes_json_in_the_order_of_its_columns() {
    let folder = TempDir::new().unwrap();
    let text = b"name,id,note\nAda,1,\"a \"\"b\"\"\nc\"\nshort,2\nx,3,\xff\nBob,4,\n";
    let found = all(&records(&folder, "f.CSV", text, "id"));
    assert_eq!(found[0], ok("p/1", "{\"name\":\"Ada\",\"id\":\"1\",\"note\":\"a \\\"b\\\"\\nc\"}"));
    assert_eq!(found[1], Err("2: it has 2 fields, the header has 3".to_string()));
    assert_eq!(found[2], Err("3: field \"note\" is not UTF-8".to_string()));
    assert_eq!(found[3], ok("p/4", "{\"name\":\"Bob\",\"id\":\"4\",\"note\":\"\"}"));
}

#[test]
fn gzip_is_known_by_its_bytes_and_may_have_members() {
    let folder = TempDir::new().unwrap();
    let member = |text: &[u8]| {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(text).unwrap();
        packed.finish().unwrap()
    };
    let packed = [member(b"{\"id\":1}\n"), member(b"{\"id\":2}\n")].concat();
    let from = records(&folder, "f.ndjson", &packed, "id");
    assert_eq!(all(&from), [ok("p/1", "{\"id\":1}"), ok("p/2", "{\"id\":2}")]);
    let mut source = Source::open(&from).unwrap();
    let read = source.read_so_far();
    while source.next().unwrap().is_some() {}
    assert_eq!(read.load(Ordering::Relaxed), packed.len() as u64);
    let cut = records(&folder, "cut.ndjson.gz", &packed[..packed.len() - 9], "id");
    let mut source = Source::open(&cut).unwrap();
    assert!((0..3).any(|_| source.next().is_err()), "a file that ends too early is no whole file");
}

#[test]
fn what_is_no_file_of_records_is_refused_at_once() {
    let folder = TempDir::new().unwrap();
    let refused = |name: &str, content: &[u8]| {
        Source::open(&records(&folder, name, content, "id")).err().map(|f| f.message).unwrap_or_default()
    };
    assert!(refused("f.txt", b"{}").contains("--format"));
    assert!(refused("f.csv", b"a,b\n1,2\n").contains("no column \"id\"; it has a, b"));
    assert!(refused("f.csv", b"id,b,b\n1,2,3\n").contains("two columns are named \"b\""));
    let mut missing = records(&folder, "f.csv", b"", "id");
    missing.file.push("not-there");
    assert!(Source::open(&missing).is_err());
}

#[test]
fn a_line_without_end_is_passed_over() {
    let folder = TempDir::new().unwrap();
    let mut text = vec![b'x'; RECORD_BYTES_MAX + 10];
    text.extend_from_slice(b"\n{\"id\":1}\n");
    let found = all(&records(&folder, "f.ndjson", &text, "id"));
    assert!(found[0].as_ref().unwrap_err().starts_with("1: it is longer than"));
    assert_eq!(found[1..], [ok("p/1", "{\"id\":1}")]);
}

#[test]
fn an_export_is_read_as_it_was_printed() {
    let folder = TempDir::new().unwrap();
    let line = "{\"bucket\":\"b\",\"expires_ms\":9,\"key\":\"k\",\"value\":\"v\",\"version\":\"1.0:1\"}";
    let exported = Records { key_field: None, exported: true, ..records(&folder, "dump", line.as_bytes(), "") };
    let record = Source::open(&exported).unwrap().next().unwrap().unwrap().unwrap();
    assert_eq!((&record.key[..], &record.value[..], record.expires_ms), (&b"k"[..], &b"v"[..], Some(9)));
    // What is rejected of it is a line of an export again.
    assert_eq!(record.text(), line.as_bytes());
}

#[test]
fn what_was_rejected_can_be_loaded_again() {
    let folder = TempDir::new().unwrap();
    let record = b"{\"id\":5,  \"x\":\"}\"}";
    let line = crate::load::rejects::line(9, Outcome::Unknown, "the deadline passed", record);
    let found = all(&records(&folder, "f.rejects.ndjson", &line, "id"));
    assert_eq!(found, [ok("p/5", "{\"id\":5,  \"x\":\"}\"}")]);
}
