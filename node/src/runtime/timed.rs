//! Storage whose commits are timed for the metrics.

use crate::metrics::Metrics;
use crate::storage::{Batch, Read, Rows, Storage, StorageError, Table};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Instant;

#[derive(Clone)]
pub struct Timed<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Timed<S> {
    pub fn new(inner: S, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }
}

impl<S: Read> Read for Timed<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        self.inner.scan(table, from, to, bytes_max)
    }

    fn scan_uncut(&self, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        self.inner.scan_uncut(from, to, bytes_max)
    }
}

impl<S: Storage> Storage for Timed<S> {
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let begun = Instant::now();
        self.inner.commit(batch)?;
        self.metrics.committed(batch.cuts.len() + batch.rows.len(), batch.sync, begun.elapsed());
        Ok(())
    }
}
