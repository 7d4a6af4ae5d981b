//! The tables in memory, for tests and the simulator.

use super::{Batch, Read, Rows, Storage, StorageError, Table};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Tables = [BTreeMap<Bytes, Bytes>; Table::ALL.len()];

/// A disk that never fails. A clone is a copy: what is committed to one is not seen by the other.
#[derive(Clone, Default, Debug)]
pub struct MemoryStorage {
    /// Shared with clones until the next commit.
    tables: Arc<Tables>,
}

impl MemoryStorage {
    pub fn new() -> Self {
        Self::default()
    }
}

impl Read for MemoryStorage {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.tables[table as usize].get(key).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        Ok(scan(&self.tables, table, from, to, bytes_max))
    }
}

fn scan(tables: &Tables, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Rows {
    let mut rows = Rows::new();
    if from >= to {
        return rows;
    }
    let mut bytes = 0;
    for (key, value) in tables[table as usize].range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
        bytes += key.len() + value.len();
        rows.push((key.clone(), value.clone()));
        if bytes >= bytes_max {
            break;
        }
    }
    rows
}

impl Storage for MemoryStorage {
    fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
        if batch.is_empty() {
            return Ok(());
        }
        let tables = Arc::make_mut(&mut self.tables);
        for (from, to) in &batch.cuts {
            tables[Table::Log as usize].retain(|key, _| key[..] < from[..] || key[..] >= to[..]);
        }
        for row in batch.rows.iter() {
            let table = &mut tables[row.table as usize];
            match &row.value {
                Some(value) => table.insert(row.key.clone(), value.clone()),
                None => table.remove(&row.key),
            };
        }
        Ok(())
    }
}
