//! `get` and `siblings`.

use crate::failure::{Code, Failure};
use crate::output::{self, Format, node_name, put_bytes, shown_in_line, when};
use crate::session::Session;
use crate::{trace, value};
use quorate_client::{Layout, ReadAnswer, Sibling};
use serde_json::{Map, Value, json};
use std::ffi::OsStr;

/// Characters of a value in a table of siblings.
const SHOWN_CHARS: usize = 60;

pub async fn get(session: &Session, key: &OsStr) -> Result<(), Failure> {
    let key = value::key(key);
    let answer = read(session, &key).await?;
    let layout = session.layout();
    let format = session.common.output;
    match (answer.siblings.as_slice(), format) {
        ([], _) => return Err(not_found(session, &key, &answer)),
        (_, Format::Json | Format::Jsonl) => output::document(&answer_json(session, &layout, &key, &answer), format)?,
        (siblings, Format::Raw) => {
            for (i, sibling) in siblings.iter().enumerate() {
                output::bytes(if i > 0 { b"\n" } else { b"" })?;
                output::bytes(&sibling.value)?;
            }
        }
        ([one], Format::Table) => {
            output::line(&output::shown(&one.value))?;
            eprintln!("{}", note(session, &layout, &answer, one));
        }
        (several, Format::Table) => output::bytes(sibling_table(several).as_bytes())?,
    }
    if answer.siblings.len() > 1 { Err(conflict(&key, &answer)) } else { Ok(()) }
}

pub async fn siblings(session: &Session, key: &OsStr) -> Result<(), Failure> {
    let key = value::key(key);
    let answer = read(session, &key).await?;
    if answer.siblings.is_empty() {
        return Err(not_found(session, &key, &answer));
    }
    match session.common.output {
        format @ (Format::Json | Format::Jsonl) => {
            output::document(&answer_json(session, &session.layout(), &key, &answer), format)
        }
        Format::Table | Format::Raw => {
            output::bytes(sibling_table(&answer.siblings).as_bytes())?;
            output::line(&format!("context {}", answer.context))
        }
    }
}

/// Reads, and with `--trace` says on stderr what was done for it, and under which id nodes log it.
pub async fn read(session: &Session, key: &[u8]) -> Result<ReadAnswer, Failure> {
    let options = session.read_options();
    let result = session.client.get(&session.bucket, key.to_vec(), &options).await;
    if let Some(id) = options.request_id {
        let steps = result.as_ref().map(|answer| trace::of_read(&session.layout(), answer)).unwrap_or_default();
        eprint!("{steps}{}", trace::in_logs("request id", id));
    }
    result.map_err(|declined| Failure::read(&declined))
}

pub fn not_found(session: &Session, key: &[u8], answer: &ReadAnswer) -> Failure {
    let needed = answer.needed;
    Failure::new(Code::NotFound, format!("there is no key {:?} in bucket {}", shown_in_line(key, 80), session.bucket))
        .state(format!("{} owners answered, {needed} were needed", answer.answered.len()))
        .advise("`quorate ls` lists the keys of a bucket; -b names another one")
        .detail("context", answer.context.to_string())
}

fn conflict(key: &[u8], answer: &ReadAnswer) -> Failure {
    let shown = shown_in_line(key, 80);
    Failure::new(Code::Conflict, format!("{} writes of {shown:?} were concurrent", answer.siblings.len()))
        .state("all of them are kept, and all are shown")
        .advise(format!(
            "`quorate resolve {shown:?} --pick NUMBER` keeps one of them, `quorate resolve {shown:?} --value V` writes \
             another"
        ))
        .detail("context", answer.context.to_string())
}

/// Below a value: where it comes from, and what a later write has to say.
fn note(session: &Session, layout: &Layout, answer: &ReadAnswer, sibling: &Sibling) -> String {
    let from = output::names(layout, answer.answered.iter().map(|a| a.node));
    let mut note = format!(
        "  {} of {} owners answered ({from}), {} needed; written {} by {}",
        answer.answered.len(),
        session.bucket_of(layout).map_or(0, |b| b.n),
        answer.needed,
        when(sibling.hlc.wall_ms()),
        node_name(layout, sibling.dot.actor().node()),
    );
    if let Some(ms) = sibling.expires_ms {
        note += &format!("; expires {}", when(ms));
    }
    if answer.short {
        note += "; FEWER OWNERS ANSWERED THAN NEEDED (sloppy)";
    }
    if answer.set_aside > 0 {
        note += &format!("; {} concurrent writes were set aside", answer.set_aside);
    }
    if !answer.repairing.is_empty() {
        note += &format!("; {} being repaired", output::names(layout, answer.repairing.iter().copied()));
    }
    note + &format!("\n  context {}", answer.context)
}

fn sibling_table(siblings: &[Sibling]) -> String {
    let row = |(i, sibling): (usize, &Sibling)| {
        vec![
            (i + 1).to_string(),
            sibling.dot.to_string(),
            when(sibling.hlc.wall_ms()),
            sibling.expires_ms.map_or("-".to_string(), when),
            sibling.value.len().to_string(),
            shown_in_line(&sibling.value, SHOWN_CHARS),
        ]
    };
    let header = ["NUMBER", "VERSION", "WRITTEN", "EXPIRES", "BYTES", "VALUE"];
    output::table(&header, siblings.iter().enumerate().map(row).collect())
}

pub fn sibling_json(sibling: &Sibling) -> Map<String, Value> {
    let mut fields = Map::new();
    put_bytes(&mut fields, "value", &sibling.value);
    fields.insert("version".to_string(), json!(sibling.dot.to_string()));
    fields.insert("written".to_string(), json!(when(sibling.hlc.wall_ms())));
    if let Some(ms) = sibling.expires_ms {
        fields.insert("expires_ms".to_string(), json!(ms));
    }
    fields
}

/// A single value stands on top, several as `siblings`.
fn answer_json(session: &Session, layout: &Layout, key: &[u8], answer: &ReadAnswer) -> Value {
    let mut fields = match answer.siblings.as_slice() {
        [one] => sibling_json(one),
        several => {
            let all: Vec<Value> = several.iter().map(|s| Value::Object(sibling_json(s))).collect();
            Map::from_iter([("siblings".to_string(), Value::Array(all))])
        }
    };
    put_bytes(&mut fields, "key", key);
    let answered = |a: &quorate_ring::wire::client::Answered| {
        json!({
            "node": node_name(layout, a.node),
            "siblings": a.siblings,
            "sent_us": a.sent_us,
            "took_us": a.took_us,
            "answered_us": a.answered_us,
        })
    };
    let more = json!({
        "bucket": session.bucket,
        "epoch": answer.epoch,
        "context": answer.context.to_string(),
        "needed": answer.needed,
        "answered": answer.answered.iter().map(answered).collect::<Vec<_>>(),
        "set_aside": answer.set_aside,
        "repairing": answer.repairing.iter().map(|n| node_name(layout, *n)).collect::<Vec<_>>(),
        "short": answer.short,
    });
    if let Value::Object(more) = more {
        fields.extend(more);
    }
    Value::Object(fields)
}
