//! Many records, written as fast as they are acknowledged.

use crate::stage::{Stage, StageError, progress};
use quorate_client::{NodeId, Via, WriteOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::task::JoinSet;

/// Puts under way at the same time.
const AT_ONCE: usize = 64;

/// Puts a value under each key, through the owner that `via` picks of them, and waits for every answer.
pub fn fill(
    stage: &Stage<'_>,
    (bucket, value): (&'static str, &'static str),
    keys: impl Iterator<Item = String>,
    options: &WriteOptions,
    via: impl Fn(&str) -> Option<NodeId>,
) -> Result<(), StageError> {
    let made = Arc::new(AtomicU64::new(0));
    stage.threads.block_on(async {
        let mut writing = JoinSet::new();
        for key in keys {
            stage.check_stop()?;
            while writing.len() >= AT_ONCE {
                if let Some(written) = writing.join_next().await {
                    written.expect("a write does not panic")?;
                }
            }
            let (client, made) = (stage.client.clone(), Arc::clone(&made));
            let options = WriteOptions { via: via(&key).map_or(Via::Owner, Via::Node), ..options.clone() };
            writing.spawn(async move {
                client.put(bucket, key, value, &options).await?;
                let made = made.fetch_add(1, Ordering::Relaxed) + 1;
                if made % 1_000 == 0 {
                    progress(&format!("{made} records written"));
                }
                Ok::<(), StageError>(())
            });
        }
        while let Some(written) = writing.join_next().await {
            written.expect("a write does not panic")?;
        }
        Ok(())
    })
}
