//! `ls` and `export`: everything there is, as it comes, in the order of partitions.

use crate::failure::Failure;
use crate::output::{self, Format, grouped, put_bytes, shown_in_line};
use crate::read::sibling_json;
use crate::session::Session;
use crate::value;
use quorate_client::{ScanItem, Sibling, visible};
use serde_json::{Map, Value, json};
use std::ffi::OsString;

const NOT_SORTED: &str = "in the order of partitions, not sorted";

/// What a listing came to.
#[derive(Default)]
struct Tally {
    keys: u64,
    conflicts: u64,
}

pub async fn ls(session: &Session, prefix: Option<OsString>) -> Result<(), Failure> {
    let format = session.common.output;
    let mut first = true;
    let tally = walk(session, prefix, |item, siblings| match format {
        Format::Table => output::line(&shown_in_line(&item.key, usize::MAX)),
        Format::Raw => output::bytes(&item.key).and_then(|()| output::bytes(b"\n")),
        Format::Jsonl => output::line(&key_json(&item, siblings).to_string()),
        Format::Json => {
            let lead = if std::mem::take(&mut first) { "[\n" } else { ",\n" };
            output::bytes(format!("{lead}{}", key_json(&item, siblings)).as_bytes())
        }
    })
    .await?;
    if format == Format::Json {
        output::line(if first { "[]" } else { "\n]" })?;
    }
    conclude(session, "listed", &tally);
    Ok(())
}

pub async fn export(session: &Session, prefix: Option<OsString>) -> Result<(), Failure> {
    let tally = walk(session, prefix, |item, siblings| {
        let mut fields = match siblings.as_slice() {
            [one] => sibling_json(one),
            several => {
                let all: Vec<Value> = several.iter().map(|s| Value::Object(sibling_json(s))).collect();
                Map::from_iter([("siblings".to_string(), Value::Array(all))])
            }
        };
        put_bytes(&mut fields, "key", &item.key);
        fields.insert("bucket".to_string(), json!(session.bucket));
        output::line(&Value::Object(fields).to_string())
    })
    .await?;
    conclude(session, "exported", &tally);
    Ok(())
}

/// Gives each key that a reader would find to `each`.
async fn walk(
    session: &Session,
    prefix: Option<OsString>,
    mut each: impl FnMut(ScanItem, Vec<Sibling>) -> Result<(), Failure>,
) -> Result<Tally, Failure> {
    let prefix = prefix.map(|p| value::key(&p)).unwrap_or_default();
    let scan = session.client.scan(&session.bucket, session.scan_options(prefix));
    let mut scan = scan.map_err(|declined| Failure::read(&declined))?;
    let conflict = scan.bucket().conflict;
    let now_ms = value::now_ms();
    let mut tally = Tally::default();
    while let Some(item) = scan.next().await {
        let item = item?;
        let (siblings, _) = visible(&item.object, conflict, now_ms);
        if siblings.is_empty() {
            continue;
        }
        tally.keys += 1;
        tally.conflicts += u64::from(siblings.len() > 1);
        each(item, siblings)?;
    }
    Ok(tally)
}

fn key_json(item: &ScanItem, siblings: Vec<Sibling>) -> Value {
    let mut fields = Map::new();
    put_bytes(&mut fields, "key", &item.key);
    fields.insert("siblings".to_string(), json!(siblings.len()));
    fields.insert("bytes".to_string(), json!(siblings.iter().map(|s| s.value.len()).sum::<usize>()));
    Value::Object(fields)
}

fn conclude(session: &Session, done: &str, tally: &Tally) {
    if session.common.output.is_json() {
        return;
    }
    let conflicts = match tally.conflicts {
        0 => String::new(),
        some => format!("; {} of them have more than one value", grouped(some)),
    };
    let keys = if tally.keys == 1 { "key" } else { "keys" };
    eprintln!("{} {keys} of bucket {} {done}, {NOT_SORTED}{conflicts}", grouped(tally.keys), session.bucket);
}
