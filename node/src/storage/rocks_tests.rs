use super::*;
use crate::storage::{MemoryStorage, Row, Staged};
use proptest::prelude::*;
use std::collections::BTreeMap;

const NODE: NodeId = NodeId(1);

/// With caches that are soon full.
fn memory() -> Memory {
    Memory { block_bytes: 1024 * 1024, object_bytes: 1024 * 1024, ..Memory::default() }
}

fn open(folder: &Path, mode: Mode) -> RocksStorage {
    RocksStorage::open(folder, mode, NODE, memory()).unwrap()
}

fn row(table: Table, key: &[u8], value: Option<&[u8]>) -> Row {
    let value = value.map(Bytes::copy_from_slice);
    Row { table, key: Bytes::copy_from_slice(key), value }
}

#[test]
fn what_was_committed_with_sync_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = open(folder.path(), Mode::Create);
    storage
        .commit(&Batch::of([row(Table::Objects, b"a", Some(b"1")), row(Table::Log, b"l", Some(b"2"))], true))
        .unwrap();
    storage.commit(&Batch::of([row(Table::Objects, b"a", None), row(Table::Objects, b"b", Some(b"3"))], true)).unwrap();
    drop(storage);
    let storage = open(folder.path(), Mode::Existing);
    assert_eq!(storage.get(Table::Objects, b"a").unwrap(), None);
    assert_eq!(storage.get(Table::Objects, b"b").unwrap(), Some(Bytes::from_static(b"3")));
    assert_eq!(storage.get(Table::Log, b"l").unwrap(), Some(Bytes::from_static(b"2")));
}

#[test]
fn neighbours_do_not_write_their_buffers_out_at_one_moment() {
    let mut lengths: Vec<usize> = (1..=5).map(|node| one_buffer_bytes(NodeId(node), &memory())).collect();
    lengths.sort_unstable();
    let usual = memory().buffer_bytes / BUFFER_PART;
    let apart = lengths.windows(2).map(|two| two[1] - two[0]).min().unwrap();
    assert!(apart > usual / 20, "{lengths:?}");
    assert!(lengths.iter().all(|length| length.abs_diff(usual) <= usual * 3 / 10));
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path(), Mode::Create));
    let options = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let options = options.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("OPTIONS"));
    let text: String = options.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let said = format!("  write_buffer_size={}\n", one_buffer_bytes(NODE, &memory()));
    assert!(text.matches(&said).count() >= Table::ALL.len(), "RocksDB has it for each table");
}

#[test]
fn opening_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let missing = RocksStorage::open(folder.path(), Mode::Existing, NODE, memory()).unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    let first = open(folder.path(), Mode::Create);
    let twice = RocksStorage::open(folder.path(), Mode::Existing, NODE, memory()).unwrap_err();
    assert!(matches!(twice, OpenError::InUse { .. }), "{twice}");
    drop(first);
    let again = RocksStorage::open(folder.path(), Mode::Create, NODE, memory()).unwrap_err();
    assert!(matches!(again, OpenError::Failed { .. }), "{again}");
    std::fs::write(folder.path().join("CURRENT"), b"MANIFEST-999999\n").unwrap();
    assert!(RocksStorage::open(folder.path(), Mode::Existing, NODE, memory()).is_err());
}

#[test]
fn tables_without_a_database_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = open(folder.path(), Mode::Create);
    storage.commit(&Batch::of([row(Table::Objects, b"a", Some(b"1"))], true)).unwrap();
    storage.flush().unwrap();
    drop(storage);
    std::fs::remove_file(folder.path().join("CURRENT")).unwrap();
    let error = RocksStorage::open(folder.path(), Mode::Create, NODE, memory()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }) && has_tables(folder.path()), "{error}");
}

#[test]
fn after_a_failed_write_no_shard_writes() {
    let folder = tempfile::tempdir().unwrap();
    let mut one = open(folder.path(), Mode::Create);
    let mut other = one.clone();
    one.commit(&Batch::of([row(Table::Objects, b"a", Some(b"1"))], true)).unwrap();
    let failure = StorageError { doing: "commit a batch", cause: "the disk is gone".to_string() };
    one.failed.set(failure.clone()).unwrap();
    assert_eq!(other.commit(&Batch::of([row(Table::Objects, b"b", Some(b"2"))], true)), Err(failure));
    assert_eq!(other.get(Table::Objects, b"b").unwrap(), None);
    assert!(other.get(Table::Objects, b"a").unwrap().is_some(), "reads go on");
}

#[test]
fn a_log_that_is_damaged_in_the_middle_is_refused_and_one_cut_off_at_its_end_is_not() {
    let wal = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|e| e == "log")).max().unwrap()
    };
    for (cut, opens) in [(true, true), (false, false)] {
        let folder = tempfile::tempdir().unwrap();
        let mut storage = open(folder.path(), Mode::Create);
        for key in 0..200u8 {
            storage.commit(&Batch::of([row(Table::Objects, &[key], Some(&[key; 1000]))], true)).unwrap();
        }
        drop(storage);
        let path = wal(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        if cut {
            bytes.truncate(bytes.len() - 500);
        } else {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
        }
        std::fs::write(&path, bytes).unwrap();
        match RocksStorage::open(folder.path(), Mode::Existing, NODE, memory()) {
            Ok(storage) => {
                assert!(opens, "a log damaged in the middle was accepted");
                assert!(storage.get(Table::Objects, &[198]).unwrap().is_some());
            }
            Err(error) => assert!(!opens && matches!(error, OpenError::Damaged { .. }), "{error}"),
        }
    }
}

/// As an object is whose key is written over and over: what is new in its head, one op id more at its end.
fn overwritten(times: usize) -> Vec<u8> {
    let op_ids = (times..times + 60).flat_map(|op| (op as u64 * 7).to_be_bytes().repeat(5));
    format!("value {times}").into_bytes().into_iter().chain(op_ids).collect()
}

#[test]
fn a_row_that_is_written_over_and_over_takes_little_of_the_log_and_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut storage = open(folder.path(), Mode::Create);
    let write = |storage: &mut RocksStorage, times: std::ops::Range<usize>| {
        for times in times {
            storage.commit(&Batch::of([row(Table::Objects, b"a", Some(&overwritten(times)))], true)).unwrap();
        }
    };
    let read = |storage: &RocksStorage| {
        let rows = storage.scan(Table::Objects, b"a", b"b", usize::MAX).unwrap();
        assert_eq!(
            rows.iter().map(|(_, row)| Some(row.clone())).collect::<Vec<_>>(),
            [storage.get(Table::Objects, b"a").unwrap()]
        );
        rows[0].1.to_vec()
    };
    write(&mut storage, 0..90);
    let logs = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
    let log_bytes: u64 =
        logs.filter(|f| f.path().extension().is_some_and(|e| e == "log")).map(|f| f.metadata().unwrap().len()).sum();
    let whole_bytes: usize = (0..90).map(|times| overwritten(times).len()).sum();
    assert!(log_bytes < whole_bytes as u64 / 4, "{log_bytes} of {whole_bytes}");
    assert_eq!(read(&storage), overwritten(89));
    for times in (90..190).step_by(10) {
        if times % 20 == 0 {
            storage.flush().unwrap();
        }
        drop(storage);
        storage = open(folder.path(), Mode::Existing);
        assert_eq!(read(&storage), overwritten(times - 1));
        write(&mut storage, times..times + 10);
    }
    // Changes in other files than what they change, which is in memory.
    for times in (190..330).step_by(7) {
        write(&mut storage, times..times + 7);
        storage.flush().unwrap();
        assert_eq!(read(&storage), overwritten(times + 6));
        if times % 5 == 0 {
            storage.db.compact_range_cf(&storage.family(Table::Objects), None::<&[u8]>, None::<&[u8]>);
            assert_eq!(read(&storage), overwritten(times + 6));
        }
    }
    drop(storage);
    assert_eq!(read(&open(folder.path(), Mode::Existing)), overwritten(329));
}

#[test]
fn shards_that_write_at_once_each_find_what_they_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(folder.path(), Mode::Create);
    let places = |shard: u8| (0..5u8).map(move |key| [3, 0, shard, 0, 0, 0, 0, 0, 0, 0, 1, key]);
    std::thread::scope(|scope| {
        for shard in 0..3 {
            let mut storage = storage.clone();
            scope.spawn(move || {
                for times in 0..60 {
                    let objects = places(shard).map(|key| row(Table::Objects, &key, Some(&overwritten(times))));
                    let log =
                        places(shard).map(|key| row(Table::Log, &[&key[..], &[times as u8]].concat(), Some(b"entry")));
                    let rows: Vec<Row> = objects.chain(log).collect();
                    storage.commit(&Batch::of(rows, times % 4 > 0)).unwrap();
                }
            });
        }
    });
    drop(storage);
    let storage = open(folder.path(), Mode::Existing);
    for key in (0..3).flat_map(places) {
        assert_eq!(storage.get(Table::Objects, &key).unwrap(), Some(Bytes::from(overwritten(59))));
        assert!(storage.get(Table::Log, &[&key[..], &[59]].concat()).unwrap().is_some());
    }
    assert_eq!(storage.scan(Table::Log, &[3], &[4], usize::MAX).unwrap().len(), 3 * 5 * 60);
}

#[derive(Clone, Debug)]
enum Step {
    Stage(Table, u8, Option<u8>),
    /// Of the log.
    Cut(u8, u8),
    Commit {
        sync: bool,
    },
    Get(Table, u8),
    Scan(Table, u8, u8, usize),
    /// Of what is above all cuts.
    ScanUncut(u8, u8, usize),
    /// Moves all rows to table files, where filters are asked.
    Flush,
    Reopen,
}

/// Keys of four prefixes, as the filters know them, and as long as the keys of the log need to be for its own.
fn key_of(number: u8) -> Vec<u8> {
    vec![3, 0, number / 6, 0, 0, 0, 0, 0, 0, 0, 1, number % 6]
}

/// The end of a scan: within a prefix, or a whole one.
fn end_of(number: u8) -> Vec<u8> {
    if number.is_multiple_of(6) { vec![3, 0, number / 6] } else { key_of(number) }
}

fn step() -> impl Strategy<Value = Step> {
    let table = prop::sample::select(&Table::ALL[..]);
    prop_oneof![
        6 => (table.clone(), 0..24u8, prop::option::of(0..200u8)).prop_map(|(t, k, v)| Step::Stage(t, k, v)),
        1 => (0..24u8, 0..30u8).prop_map(|(from, to)| Step::Cut(from, to)),
        2 => any::<bool>().prop_map(|sync| Step::Commit { sync }),
        3 => (table.clone(), 0..24u8).prop_map(|(t, k)| Step::Get(t, k)),
        3 => (table, 0..24u8, 0..30u8, 1..200usize).prop_map(|(t, a, b, max)| Step::Scan(t, a, b, max)),
        2 => (0..24u8, 0..30u8, 1..200usize).prop_map(|(a, b, max)| Step::ScanUncut(a, b, max)),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// What both storages ought to hold, staged rows included.
type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

fn naive_scan(model: &Model, table: Table, from: &[u8], to: &[u8], bytes_max: usize) -> Rows {
    let (mut rows, mut bytes) = (Rows::new(), 0);
    for ((t, key), value) in model {
        if *t == table && &key[..] >= from && &key[..] < to {
            bytes += key.len() + value.len();
            rows.push((Bytes::from(key.clone()), Bytes::from(value.clone())));
            if bytes >= bytes_max {
                break;
            }
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// The same steps on RocksDB, on memory and on a map give the same answers.
    #[test]
    fn rocks_memory_and_a_map_agree(steps in prop::collection::vec(step(), 1..80)) {
        let folder = tempfile::tempdir().unwrap();
        let mut rocks = Some(Staged::new(open(folder.path(), Mode::Create)));
        let mut memory = Staged::new(MemoryStorage::new());
        let (mut model, mut committed) = (Model::new(), Model::new());
        let mut above = 0;
        for step in steps {
            let on_disk = rocks.as_mut().unwrap();
            match step {
                Step::Stage(table, key, value) => {
                    let bytes = value.map(|length| vec![key; usize::from(length)]);
                    match &bytes {
                        Some(bytes) => model.insert((table, key_of(key)), bytes.clone()),
                        None => model.remove(&(table, key_of(key))),
                    };
                    let (key, value) = (Bytes::from(key_of(key)), bytes.map(Bytes::from));
                    on_disk.stage(table, key.clone(), value.clone());
                    memory.stage(table, key, value);
                }
                Step::Cut(from, to) => {
                    above = above.max(to);
                    let (from, to) = (key_of(from), end_of(to));
                    model.retain(|(table, key), _| *table != Table::Log || *key < from || *key >= to);
                    if from < to {
                        on_disk.cut((from.clone(), to.clone()));
                        memory.cut((from, to));
                    }
                }
                Step::Commit { sync } => {
                    on_disk.commit(sync).unwrap();
                    memory.commit(sync).unwrap();
                    committed = model.clone();
                }
                Step::Get(table, key) => {
                    let key = key_of(key);
                    let want = model.get(&(table, key.clone())).map(|value| Bytes::from(value.clone()));
                    prop_assert_eq!(on_disk.get(table, &key).unwrap(), want.clone());
                    prop_assert_eq!(memory.get(table, &key).unwrap(), want);
                    // What RocksDB itself says, from its buffers and files.
                    let uncached = RocksStorage { recent: Arc::new(Recent::new(0)), ..on_disk.inner().clone() };
                    let want = committed.get(&(table, key.clone())).map(|value| Bytes::from(value.clone()));
                    prop_assert_eq!(uncached.get(table, &key).unwrap(), want);
                }
                Step::Scan(table, from, to, max) => {
                    let (from, to) = (key_of(from), end_of(to));
                    let want = naive_scan(&model, table, &from, &to, max);
                    prop_assert_eq!(on_disk.scan(table, &from, &to, max).unwrap(), want.clone());
                    prop_assert_eq!(memory.scan(table, &from, &to, max).unwrap(), want);
                }
                Step::ScanUncut(from, to, max) => {
                    let (from, to) = (key_of(from.max(above)), end_of(to));
                    let want = naive_scan(&model, Table::Log, &from, &to, max);
                    prop_assert_eq!(on_disk.scan_uncut(&from, &to, max).unwrap(), want.clone());
                    prop_assert_eq!(memory.scan_uncut(&from, &to, max).unwrap(), want);
                }
                Step::Flush => on_disk.inner().flush().unwrap(),
                Step::Reopen => {
                    drop(rocks.take());
                    rocks = Some(Staged::new(open(folder.path(), Mode::Existing)));
                    memory = Staged::new(memory.into_inner());
                    model = committed.clone();
                }
            }
        }
    }
}
