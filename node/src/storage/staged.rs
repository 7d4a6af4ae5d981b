//! A batch under construction: reads see its rows as if they were committed.

use super::{Batch, MetaKey, Range, Read, Row, Rows, Storage, StorageError, Table};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Rows to write, by key; `None` deletes.
type Stage = BTreeMap<Bytes, Option<Bytes>>;

/// A storage, and the rows that the current drain wants to write to it.
///
/// A shard stages while it handles its events, commits once, and only then lets anything out that it decided.
#[derive(Debug)]
pub struct Staged<S> {
    inner: S,
    /// What of the log goes, before the rows are written.
    cuts: Vec<Range>,
    stages: [Stage; Table::ALL.len()],
    /// Taken from here, and on their way to the disk. By table, then by key.
    under_way: Arc<Vec<Row>>,
    /// Whether anything was taken from here to be committed since the last fsync.
    unsynced: bool,
    /// Whether the meta table says, durably, that a power cut may take writes.
    noted: bool,
}

impl<S: Storage> Staged<S> {
    /// `inner` must hold nothing that a power cut could take: so it is when it was just opened.
    pub fn new(inner: S) -> Self {
        let (cuts, stages) = Default::default();
        Self { inner, cuts, stages, under_way: Arc::default(), unsynced: false, noted: false }
    }

    /// Adds a row to the batch, in place of an earlier one of the same key. `None` deletes. What it is made from was read, so
    /// nothing that was taken may still be on its way.
    pub fn stage(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        assert!(self.under_way.is_empty(), "the batch before has yet to land");
        self.stages[table as usize].insert(key, value);
    }

    /// Deletes a run of log entries, staged ones among them.
    pub fn cut(&mut self, (from, to): Range) {
        assert!(self.under_way.is_empty(), "the batch before has yet to land");
        let staged = self.staged_rows(Table::Log, Bound::Included(&from), Bound::Excluded(&to));
        let staged: Vec<Bytes> = staged.map(|(key, _)| key.clone()).collect();
        for key in staged {
            self.stages[Table::Log as usize].remove(&key);
        }
        self.cuts.push((from, to));
    }

    /// The cuts that take away anything between these keys.
    fn cuts_between(&self, table: Table, from: &[u8], to: &[u8]) -> Vec<&Range> {
        let cuts = if table == Table::Log { &self.cuts[..] } else { &[] };
        cuts.iter().filter(|cut| cut.0[..] < *to && *from < cut.1[..]).collect()
    }

    /// Whether nothing is staged.
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.stages.iter().all(Stage::is_empty)
    }

    /// Writes all staged rows, or none, and begins an empty batch. After an error the batch is gone and the node has to
    /// stop.
    pub fn commit(&mut self, sync: bool) -> Result<(), StorageError> {
        if let Some(batch) = self.take(sync) {
            self.write(&batch)?;
        }
        self.landed();
        Ok(())
    }

    /// Writes what was taken to the storage below.
    pub fn write(&mut self, batch: &Batch) -> Result<(), StorageError> {
        self.inner.commit(batch)
    }

    /// Takes all staged rows, to be committed to the storage below; if that fails, the node has to stop. Until they have
    /// `landed`, nothing may be staged, and rows that are on their way may not be read. None if there is nothing to do.
    ///
    /// With `sync` everything that ever went through here is to be fsynced, also when nothing is staged: a retry at
    /// `sync` of a write that was made at `async` has no rows of its own.
    ///
    /// The first rows that go without fsync are fsynced all the same, together with `MetaKey::Unsynced`: a machine that
    /// went down has forgotten something only if that row is there. What is deleted counts for nothing, as what deletes
    /// it (collection, handoff) does it again.
    pub fn take(&mut self, sync: bool) -> Option<Batch> {
        // Room for the note, too.
        let mut rows = Vec::with_capacity(self.stages.iter().map(Stage::len).sum::<usize>() + 1);
        for table in Table::ALL {
            let stage = std::mem::take(&mut self.stages[table as usize]);
            rows.extend(stage.into_iter().map(|(key, value)| Row { table, key, value }));
        }
        let cuts = std::mem::take(&mut self.cuts);
        if rows.is_empty() && cuts.is_empty() && !(sync && self.unsynced) {
            return None;
        }
        let told = |row: &Row| row.value.is_some() && row.table != Table::Meta;
        let note = !sync && !self.noted && rows.iter().any(told);
        if note {
            rows.push(Row { table: Table::Meta, key: MetaKey::Unsynced.encode().into(), value: Some(Bytes::new()) });
        }
        let sync = sync || note;
        self.noted |= note;
        self.unsynced = !sync;
        self.under_way = Arc::new(rows);
        Some(Batch { cuts, rows: self.under_way.clone(), sync })
    }

    /// What was taken is committed.
    pub fn landed(&mut self) {
        self.under_way = Arc::default();
    }

    /// Whether the object of this key is on its way to the disk.
    pub fn is_under_way(&self, key: &[u8]) -> bool {
        // Objects come before all other rows.
        let before = |row: &Row| row.table == Table::Objects && row.key[..] < *key;
        let next = self.under_way.get(self.under_way.partition_point(before));
        next.is_some_and(|row| row.table == Table::Objects && row.key[..] == *key)
    }

    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// The storage without the staged rows, which are forgotten.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// What `below` finds in the storage, with the cuts and rows of the batch.
    fn merged(
        &self,
        table: Table,
        (from, to): (&[u8], &[u8]),
        bytes_max: usize,
        below: impl Fn(&[u8]) -> Result<Rows, StorageError>,
    ) -> Result<Rows, StorageError> {
        if from >= to {
            return Ok(Rows::new());
        }
        let cuts = self.cuts_between(table, from, to);
        if cuts.is_empty() && self.staged_rows(table, Bound::Included(from), Bound::Excluded(to)).next().is_none() {
            return below(from);
        }
        let mut merged = Merged { rows: Rows::new(), bytes: 0, bytes_max };
        let mut from = Bound::Included(Bytes::copy_from_slice(from));
        loop {
            // A page may lose all its rows to staged deletes, so one page is not always enough.
            let mut page = below(&first_of(&from))?;
            let page_bytes: usize = page.iter().map(|(key, value)| key.len() + value.len()).sum();
            let last = page.last().filter(|_| page_bytes >= bytes_max).map(|(key, _)| key.clone());
            page.retain(|(key, _)| !is_cut(cuts.iter().copied(), key));
            let end = last.as_ref().map_or(Bound::Excluded(to), |key| Bound::Included(&key[..]));
            let full = merged.extend(page, self.staged_rows(table, from.as_ref().map(|key| &key[..]), end));
            match last {
                Some(last) if !full => from = Bound::Excluded(last),
                Some(_) | None => return Ok(merged.rows),
            }
        }
    }

    fn staged_rows(
        &self,
        table: Table,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.stages[table as usize].range::<[u8], _>((from, to)).map(|(key, value)| (key, value.as_ref()))
    }
}

impl<S: Storage> Read for Staged<S> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        match self.stages[table as usize].get(key) {
            Some(staged) => Ok(staged.clone()),
            None if table == Table::Log && is_cut(&self.cuts, key) => Ok(None),
            None => self.inner.get(table, key),
        }
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        self.merged(table, (from, to), bytes_max, |from| self.inner.scan(table, from, to, bytes_max))
    }

    fn scan_uncut(&self, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
        self.merged(Table::Log, (from, to), bytes_max, |from| self.inner.scan_uncut(from, to, bytes_max))
    }
}

fn is_cut<'a>(cuts: impl IntoIterator<Item = &'a Range>, key: &[u8]) -> bool {
    cuts.into_iter().any(|(from, to)| (&from[..]..&to[..]).contains(&key))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    /// Remembers how many rows each commit had, and whether it was fsynced.
    #[derive(Default)]
    struct Recorder {
        memory: MemoryStorage,
        commits: Vec<(usize, bool)>,
    }

    impl Read for Recorder {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
            self.memory.get(table, key)
        }

        fn scan(&self, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Result<Rows, StorageError> {
            self.memory.scan(table, from, to, bytes_max)
        }
    }

    impl Storage for Recorder {
        fn commit(&mut self, batch: &Batch) -> Result<(), StorageError> {
            self.commits.push((batch.rows.len(), batch.sync));
            self.memory.commit(batch)
        }
    }

    #[test]
    fn the_first_rows_without_fsync_are_fsynced_with_a_note_and_a_later_sync_covers_all() {
        let mut store = Staged::new(Recorder::default());
        let put = |store: &mut Staged<Recorder>, value: Option<Bytes>, sync| {
            store.stage(Table::Objects, Bytes::from_static(b"k"), value);
            store.commit(sync).unwrap();
        };
        let noted = |store: &Staged<Recorder>| store.get(Table::Meta, &MetaKey::Unsynced.encode()).unwrap().is_some();
        store.commit(true).unwrap();
        store.commit(false).unwrap();
        put(&mut store, Some(Bytes::from_static(b"1")), true);
        put(&mut store, None, false);
        assert!(!noted(&store), "nothing was told to anyone before it was fsynced");
        put(&mut store, Some(Bytes::from_static(b"2")), false);
        assert!(noted(&store));
        put(&mut store, Some(Bytes::from_static(b"3")), false);
        store.commit(true).unwrap();
        store.commit(true).unwrap();
        let expected = [(1, true), (1, false), (2, true), (1, false), (0, true)];
        assert_eq!(store.inner().commits, expected);
    }

    #[test]
    fn an_object_is_under_way_from_when_it_is_taken_until_it_has_landed() {
        let mut store = Staged::new(MemoryStorage::new());
        let under_way = |store: &Staged<MemoryStorage>| ["a", "b", "c"].map(|key| store.is_under_way(key.as_bytes()));
        for (table, key) in [(Table::Log, "a"), (Table::Objects, "b"), (Table::Meta, "c")] {
            store.stage(table, Bytes::from_static(key.as_bytes()), Some(Bytes::new()));
        }
        assert_eq!(under_way(&store), [false; 3]);
        let batch = store.take(true).unwrap();
        assert_eq!((under_way(&store), store.is_empty()), ([false, true, false], true));
        store.write(&batch).unwrap();
        store.landed();
        assert_eq!(under_way(&store), [false; 3]);
        assert!(store.get(Table::Objects, b"b").unwrap().is_some());
    }

    #[test]
    fn a_cut_takes_what_is_there_and_what_is_staged_but_not_what_is_staged_after_it() {
        let mut store = Staged::new(MemoryStorage::new());
        let key = |number: u8| Bytes::from(vec![number]);
        let put = |store: &mut Staged<MemoryStorage>, number| store.stage(Table::Log, key(number), Some(key(number)));
        let left = |store: &Staged<MemoryStorage>| -> Vec<u8> {
            let rows = store.scan(Table::Log, &[0], &[20], 1).unwrap();
            let all = store.scan(Table::Log, &[0], &[20], 1000).unwrap();
            assert_eq!(rows.first(), all.first(), "a scan goes on behind a page that is cut");
            let found = |number: &u8| store.get(Table::Log, &[*number]).unwrap().is_some();
            assert_eq!((0..20).filter(found).count(), all.len());
            all.iter().map(|(key, _)| key[0]).collect()
        };
        (0..6).for_each(|number| put(&mut store, number));
        store.stage(Table::Objects, key(2), Some(key(2)));
        store.commit(true).unwrap();
        put(&mut store, 6);
        put(&mut store, 8);
        store.cut((vec![0], vec![5]));
        store.cut((vec![6], vec![7]));
        put(&mut store, 3);
        assert_eq!((left(&store), store.is_empty()), (vec![3, 5, 8], false));
        store.commit(true).unwrap();
        assert_eq!(left(&store), [3, 5, 8]);
        assert!(store.get(Table::Objects, &[2]).unwrap().is_some(), "only the log is cut");
        store.cut((vec![8], vec![9]));
        assert!(!store.is_empty());
        let batch = store.take(false).unwrap();
        assert_eq!((batch.rows.len(), batch.sync), (0, false), "a cut is nothing to remember");
        store.write(&batch).unwrap();
        store.landed();
        assert_eq!(left(&store), [3, 5]);
    }

    #[test]
    fn a_scan_goes_on_where_a_page_was_deleted_by_the_batch() {
        let mut store = Staged::new(MemoryStorage::new());
        let key = |number: u8| Bytes::from(vec![number]);
        for number in 0..10 {
            store.stage(Table::Objects, key(number), Some(Bytes::from_static(b"old")));
        }
        store.commit(true).unwrap();
        for number in 0..8 {
            store.stage(Table::Objects, key(number), None);
        }
        store.stage(Table::Objects, key(9), Some(Bytes::from_static(b"new")));
        let rows = store.scan(Table::Objects, &[0], &[20], 5).unwrap();
        assert_eq!(rows, [(key(8), Bytes::from_static(b"old")), (key(9), Bytes::from_static(b"new"))]);
        assert!(store.inner().scan(Table::Objects, &[9], &[20], 100).unwrap()[0].1 == "old", "not committed yet");
    }
}
