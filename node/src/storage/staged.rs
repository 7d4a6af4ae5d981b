//! A batch under construction: reads see its rows as if they were committed.

use super::{Read, Row, Rows, Storage, StorageError, Table};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Rows to write, by key; `None` deletes.
type Batch = BTreeMap<Bytes, Option<Bytes>>;

/// A storage, and the rows that the current drain wants to write to it.
///
/// A shard stages while it handles its events, commits once, and only then lets anything out that it decided.
#[derive(Debug)]
pub struct Staged<S> {
    inner: S,
    batches: [Batch; Table::ALL.len()],
    /// Whether anything was committed through here since the last fsync.
    unsynced: bool,
}

impl<S: Storage> Staged<S> {
    /// `inner` must hold nothing that a power cut could take: so it is when it was just opened.
    pub fn new(inner: S) -> Self {
        Self { inner, batches: Default::default(), unsynced: false }
    }

    /// Adds a row to the batch, in place of an earlier one of the same key. `None` deletes.
    pub fn stage(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        self.batches[table as usize].insert(key, value);
    }

    /// Whether nothing is staged.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(Batch::is_empty)
    }

    /// Writes all staged rows, or none, and begins an empty batch.
    ///
    /// With `sync` everything that was ever committed through here is fsynced when this returns, also when nothing
    /// is staged: a retry at `sync` of a write that was made at `async` has no rows of its own. Costs nothing when
    /// there is nothing to do. After an error the batch is gone and the node has to stop.
    pub fn commit(&mut self, sync: bool) -> Result<(), StorageError> {
        let rows: Vec<Row> = Table::ALL
            .into_iter()
            .flat_map(|table| {
                let batch = std::mem::take(&mut self.batches[table as usize]);
                batch.into_iter().map(move |(key, value)| Row { table, key, value })
            })
            .collect();
        if rows.is_empty() && !(sync && self.unsynced) {
            return Ok(());
        }
        self.unsynced = true;
        self.inner.commit(&rows, sync)?;
        self.unsynced = !sync;
        Ok(())
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The storage without the staged rows, which are forgotten.
    pub fn into_inner(self) -> S {
        self.inner
    }

    fn staged_rows(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.batches[table as usize].range::<[u8], _>((from, to)).map(|(key, value)| (key, value.as_ref()))
    }
}

impl<S: Storage> Read for Staged<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.batches[table as usize].get(key) {
            Some(staged) => Ok(staged.clone()),
            None => self.inner.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        if from >= to {
            return Ok(Rows::new());
        }
        if self.staged_rows(table, Bound::Included(from), Bound::Excluded(to)).next().is_none() {
            return self.inner.scan(table, from, to, bytes_max);
        }
        let mut merged = Merged { rows: Rows::new(), bytes: 0, bytes_max };
        let mut from = Bound::Included(Bytes::copy_from_slice(from));
        loop {
            // A page may lose all its rows to staged deletes, so one page is not always enough.
            let page = self.inner.scan(table, &first_of(&from), to, bytes_max)?;
            let page_bytes: usize = page.iter().map(|(key, value)| key.len() + value.len()).sum();
            let last = page.last().filter(|_| page_bytes >= bytes_max).map(|(key, _)| key.clone());
            let end = last.as_ref().map_or(Bound::Excluded(to), |key| Bound::Included(&key[..]));
            let full = merged.extend(page, self.staged_rows(table, from.as_ref().map(|key| &key[..]), end));
            match last {
                Some(last) if !full => from = Bound::Excluded(last),
                Some(_) | None => return Ok(merged.rows),
            }
        }
    }
}

/// The first key that a scan from this bound can meet.
fn first_of(from: &Bound<Bytes>) -> Vec<u8> {
    match from {
        Bound::Included(key) => key.to_vec(),
        Bound::Excluded(key) => [&key[..], &[0]].concat(),
        Bound::Unbounded => Vec::new(),
    }
}

/// Rows on their way to the caller of a scan.
struct Merged {
    rows: Rows,
    bytes: usize,
    bytes_max: usize,
}

impl Merged {
    /// Adds both kinds of rows in order, staged ones before committed ones of the same key, until the limit of bytes
    /// is reached. Returns whether it is.
    fn extend<'a>(&mut self, page: Rows, staged: impl Iterator<Item = (&'a Bytes, Option<&'a Bytes>)>) -> bool {
        let mut committed = page.into_iter().peekable();
        for (key, value) in staged {
            while let Some(row) = committed.next_if(|(committed, _)| committed < key) {
                if self.push(row) {
                    return true;
                }
            }
            committed.next_if(|(committed, _)| committed == key);
            if let Some(value) = value
                && self.push((key.clone(), value.clone()))
            {
                return true;
            }
        }
        committed.any(|row| self.push(row))
    }

    fn push(&mut self, row: (Bytes, Bytes)) -> bool {
        self.bytes += row.0.len() + row.1.len();
        self.rows.push(row);
        self.bytes >= self.bytes_max
    }
}
