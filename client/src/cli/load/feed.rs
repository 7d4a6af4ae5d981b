//! Reads a file on a thread of its own, so many records ahead of those who work on them.

use super::records::{Record, Source, Unreadable};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub type Item = io::Result<Result<Record, Unreadable>>;

pub struct Feed {
    items: mpsc::Receiver<Item>,
    read: Arc<AtomicU64>,
    /// Ends when the file does, or when nobody takes its records any more.
    _reader: JoinHandle<()>,
}

impl Feed {
    /// Records up to number `skip` are passed over.
    pub fn start(mut source: Source, skip: u64, ahead: usize) -> Self {
        let (sender, items) = mpsc::channel(ahead);
        let read = source.read_so_far();
        let reader = tokio::task::spawn_blocking(move || {
            while let Some(item) = source.next().transpose() {
                let number = match &item {
                    Ok(Ok(record)) => record.number,
                    Ok(Err(unreadable)) => unreadable.number,
                    Err(_) => u64::MAX,
                };
                let failed = item.is_err();
                if number > skip && sender.blocking_send(item).is_err() || failed {
                    return;
                }
            }
        });
        Self { items, read, _reader: reader }
    }

    /// Nothing after the last record, or after an error.
    pub async fn next(&mut self) -> Option<Item> {
        self.items.recv().await
    }

    pub fn bytes_read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}
