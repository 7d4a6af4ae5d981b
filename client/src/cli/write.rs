//! `put` and `del`.

use crate::args::{Del, Put};
use crate::failure::Failure;
use crate::output::{self, node_name, put_bytes, when};
use crate::session::Session;
use crate::{trace, value};
use quorate_client::{Declined, Layout, OpId, QuorumKind, Receipt, Refusal, Supersede, WriteError, WriteOptions};
use quorate_ring::topology::{Bucket, Durability};
use quorate_ring::wire::client::{Ack, Standing};
use serde_json::{Map, Value, json};
use std::time::Duration;

pub async fn put(session: &Session, put: Put) -> Result<(), Failure> {
    let key = value::key(&put.key);
    let value = value::value(put.value, put.literal)?;
    let mut options = session.write_options(&put.writing);
    options.expires_ms = put.ttl.map(expiry);
    store(session, key, value, options).await
}

fn expiry(ttl: Duration) -> u64 {
    value::now_ms().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

/// Puts, and prints the receipt.
pub async fn store(session: &Session, key: Vec<u8>, value: Vec<u8>, options: WriteOptions) -> Result<(), Failure> {
    let result = session.client.put(&session.bucket, key.clone(), value, &options).await;
    let receipt = result.map_err(|error| not_known_applied(session, &key, &options, &error))?;
    print(session, "put", &key, &receipt, &options)
}

pub async fn del(session: &Session, del: Del) -> Result<(), Failure> {
    let key = value::key(&del.key);
    let options = session.write_options(&del.writing);
    let result = session.client.delete(&session.bucket, key.clone(), &options).await;
    let receipt = result.map_err(|error| not_known_applied(session, &key, &options, &error))?;
    print(session, "delete", &key, &receipt, &options)
}

fn not_known_applied(session: &Session, key: &[u8], options: &WriteOptions, error: &WriteError) -> Failure {
    let layout = session.layout();
    let bucket = layout.topology().bucket_named(&session.bucket);
    if let (WriteError::Unknown(unknown), Some(bucket)) = (error, bucket)
        && session.common.trace
        && !session.common.output.is_json()
    {
        let list = layout.preference(layout.partition(bucket, key));
        let owners = list.expect("a layout has the partitions of its own buckets").owners();
        eprint!("{}{}", trace::of_doubt(&layout, owners, unknown), trace::in_logs("op id", unknown.op_id));
    }
    let failure = Failure::write(error, &layout);
    let quorum = options.quorum.or(bucket.map(|bucket| bucket.quorum));
    if quorum == Some(QuorumKind::Sloppy) && options.supersede == Some(Supersede::Latest) && lacks_owners(error) {
        return failure.advise(LATEST_IN_SLOPPY);
    }
    failure
}

/// What people run into who expect a sloppy quorum to serve every write.
const LATEST_IN_SLOPPY: &str = "`--supersede latest`, the default here, asks R owners what the write replaces, and \
                                fallbacks cannot tell; with `--supersede local` one owner and its fallbacks will do, \
                                and what the other owners hold may become a sibling. `quorate status` shows which \
                                nodes are down";

fn lacks_owners(error: &WriteError) -> bool {
    match error {
        WriteError::NotApplied(Declined::Refused { refusal, .. }) => {
            matches!(refusal, Refusal::Unavailable { .. } | Refusal::DeadlinePassed)
        }
        WriteError::NotApplied(Declined::DeadlinePassed(_)) => true,
        WriteError::NotApplied(Declined::NoBucket { .. } | Declined::NoNode(_) | Declined::Unreachable(_))
        | WriteError::Unknown(_) => false,
    }
}

fn print(session: &Session, what: &str, key: &[u8], receipt: &Receipt, options: &WriteOptions) -> Result<(), Failure> {
    let layout = session.layout();
    let format = session.common.output;
    if format.is_json() {
        let mut fields = Map::new();
        fields.insert("outcome".to_string(), json!("applied"));
        fields.insert("request".to_string(), json!(what));
        fields.insert("bucket".to_string(), json!(session.bucket));
        put_bytes(&mut fields, "key", key);
        fields.insert("op_id".to_string(), json!(options.op_id.map(|id: OpId| id.to_string())));
        fields.insert("expires_ms".to_string(), json!(options.expires_ms));
        fields.insert("receipt".to_string(), receipt_json(&layout, receipt));
        return output::document(&Value::Object(fields), format);
    }
    if format == output::Format::Table {
        output::line(&sentence(&layout, session.bucket_of(&layout)?, receipt))?;
        if receipt.siblings > 1 {
            output::line(&format!("  the key has {} siblings now; `quorate resolve` ends that", receipt.siblings))?;
        }
        if let Some(ms) = options.expires_ms {
            output::line(&format!("  expires {}", when(ms)))?;
        }
        output::line(&format!("  context {}", receipt.context))?;
    }
    if session.common.trace {
        eprint!("{}", trace::of_write(&layout, receipt));
        if let Some(op_id) = options.op_id {
            eprint!("{}", trace::in_logs("op id", op_id));
        }
    }
    Ok(())
}

/// Who holds the write, and how.
fn sentence(layout: &Layout, bucket: &Bucket, receipt: &Receipt) -> String {
    let owners = receipt.acks.iter().filter(|ack| ack.standing == Standing::Owner);
    let (count, names) = (owners.clone().count(), output::names(layout, owners.map(|ack| ack.node)));
    let hint = |ack: &Ack| match ack.standing {
        Standing::Owner => None,
        Standing::Fallback { target } => {
            Some(format!(", {} keeps a hint for {}", node_name(layout, ack.node), node_name(layout, target)))
        }
    };
    let hints: String = receipt.acks.iter().filter_map(hint).collect();
    let all_synced = receipt.acks.iter().all(|ack| ack.durability == Durability::Sync);
    let how = if all_synced { "fsynced" } else { "written, not yet fsynced" };
    let again = if receipt.repeated { " (it was applied before: nothing new was written)" } else { "" };
    format!(
        "applied{again}: {count} of {} owners ({names}) hold it{hints}, {how}; {} needed; version {}, epoch {}",
        bucket.n, receipt.needed, receipt.dot, receipt.epoch
    )
}

fn receipt_json(layout: &Layout, receipt: &Receipt) -> Value {
    let ack = |ack: &Ack| {
        let hint_for = match ack.standing {
            Standing::Owner => None,
            Standing::Fallback { target } => Some(node_name(layout, target)),
        };
        json!({
            "node": node_name(layout, ack.node),
            "hint_for": hint_for,
            "durability": ack.durability,
            "sent_us": ack.sent_us,
            "took_us": ack.took_us,
            "acked_us": ack.acked_us,
        })
    };
    json!({
        "epoch": receipt.epoch,
        "coordinator": node_name(layout, receipt.coordinator),
        "version": receipt.dot.to_string(),
        "written": when(receipt.hlc.wall_ms()),
        "needed": receipt.needed,
        "acks": receipt.acks.iter().map(ack).collect::<Vec<_>>(),
        "context": receipt.context.to_string(),
        "siblings": receipt.siblings,
        "repeated": receipt.repeated,
    })
}
