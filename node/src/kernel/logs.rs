//! The log of a partition, page by page, for whoever verifies that everything has settled.

use super::Kernel;
use crate::coordinator::plan::check_epoch;
use crate::replica::{Place, corrupt};
use crate::storage::{Read, Storage, StorageError, Table, log_key, log_range, parse_log_key};
use bytes::Bytes;
use quorate_ring::wire::client::{LogPage, LogRecord, LogRequest};
use quorate_ring::wire::failure::Refusal;

/// A page carries about this at the most.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

impl<S: Storage> Kernel<S> {
    /// One page of the log that this very node keeps.
    pub(super) fn log_page(&self, request: &LogRequest) -> Result<Result<LogPage, Refusal>, StorageError> {
        if let Err(refusal) = check_epoch(&self.layout, request.epoch) {
            return Ok(Err(refusal));
        }
        let Some(replica) = self.replicas.get(&request.partition) else { return Ok(Err(Refusal::NotOwner)) };
        if self.config.rebuilding {
            return Ok(Err(Refusal::NotReady));
        }
        let (mut from, to) = log_range(request.partition);
        if let Some(after) = request.after {
            let behind = [&log_key(request.partition, after)[..], &[0]].concat();
            from = from.max(behind);
        }
        let bytes_max = (request.bytes_max as usize).clamp(1, PAGE_BYTES_MAX);
        let rows = if from < to { self.store.scan(Table::Log, &from, &to, bytes_max)? } else { Vec::new() };
        let done = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() < bytes_max;
        let record = |(key, entry): &(Bytes, Bytes)| {
            let (_, dot) = parse_log_key(key).ok_or_else(|| corrupt("read the log", "a key has the wrong length"))?;
            let Place { bucket, key } = Place::of(entry)?;
            Ok(LogRecord { dot, bucket, key })
        };
        let records = rows.iter().map(record).collect::<Result<Vec<_>, StorageError>>()?;
        Ok(Ok(LogPage { actor: self.config.actor, base: replica.clock().base(), records, done }))
    }
}
