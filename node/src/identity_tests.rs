use super::*;
use crate::storage::Staged;

const CLUSTER: ClusterId = ClusterId([7; 16]);

fn claim(random: u64) -> Claim<'static> {
    Claim { node: NodeId(1), cluster: CLUSTER, random, boot: "boot 1", memory: Memory::default() }
}

fn made() -> (tempfile::TempDir, PathBuf, Identity) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let identity = init(&folder, claim(1)).unwrap();
    (parent, folder, identity)
}

#[test]
fn a_folder_that_was_closed_or_killed_goes_on_under_its_actor() {
    let (_parent, folder, identity) = made();
    assert!(!identity.rebuilding && identity.actor.node() == NodeId(1));
    let opened = open(&folder, claim(2)).unwrap();
    assert_eq!((opened.identity, &opened.forgot), (identity, &None));
    opened.close().unwrap();
    let killed = open(&folder, claim(3)).unwrap();
    assert_eq!(killed.identity, identity);
    drop(killed); // No close: the process was killed.
    assert_eq!(open(&folder, claim(4)).unwrap().identity, identity);
}

#[test]
fn a_folder_is_made_once_and_only_explicitly() {
    let (parent, folder, _) = made();
    assert!(matches!(init(&folder, claim(2)), Err(IdentityError::NotEmpty { .. })));
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let error = open(&empty, claim(2)).unwrap_err();
    assert!(error.to_string().contains("quorate-node init"), "{error}");
}

#[test]
fn someone_elses_folder_is_refused_and_left_as_it_is() {
    let (_parent, folder, identity) = made();
    let other_node = Claim { node: NodeId(2), ..claim(2) };
    let other_cluster = Claim { cluster: ClusterId([8; 16]), ..claim(2) };
    for wrong in [other_node, other_cluster] {
        assert!(matches!(open(&folder, wrong), Err(IdentityError::Elsewhere { .. })));
    }
    assert_eq!(open(&folder, claim(3)).unwrap().identity, identity);
}

/// Breaks a folder, and expects a new actor that rebuilds until it is marked as joined.
fn forgets(break_it: impl FnOnce(&Path, &Path) -> PathBuf, reason: &str) {
    let (parent, folder, before) = made();
    let folder = break_it(parent.path(), &folder);
    let mut opened = open(&folder, claim(2)).unwrap();
    let why = opened.forgot.clone().expect("it may have forgotten");
    assert!(why.contains(reason), "{why}");
    assert!(opened.identity.rebuilding && opened.identity.actor != before.actor);
    let actor = opened.identity.actor;
    drop(opened);
    opened = open(&folder, claim(3)).unwrap();
    assert!(opened.identity.rebuilding && opened.identity.actor == actor, "rebuilding outlives a restart");
    opened.mark_joined().unwrap();
    drop(opened);
    let joined = open(&folder, claim(4)).unwrap();
    assert!(!joined.identity.rebuilding && joined.identity.actor == actor && joined.forgot.is_none());
}

#[test]
fn a_lost_identity_file() {
    forgets(
        |_, folder| {
            fs::remove_file(folder.join(FILE)).unwrap();
            folder.to_path_buf()
        },
        "missing",
    );
}

#[test]
fn a_lost_database() {
    forgets(
        |_, folder| {
            fs::remove_dir_all(folder.join(DATABASE)).unwrap();
            folder.to_path_buf()
        },
        "database is missing",
    );
}

#[test]
fn a_restored_copy() {
    forgets(
        |parent, folder| {
            let copy = parent.join("copy");
            let status = std::process::Command::new("cp").arg("-a").arg(folder).arg(&copy).status().unwrap();
            assert!(status.success());
            copy
        },
        "copy",
    );
}

#[test]
fn a_database_of_an_earlier_actor() {
    forgets(
        |parent, folder| {
            let old = parent.join("old");
            let status = std::process::Command::new("cp").arg("-a").arg(folder.join(DATABASE)).arg(&old).status();
            assert!(status.unwrap().success());
            forget(folder, claim(9)).unwrap();
            fs::remove_dir_all(folder.join(DATABASE)).unwrap();
            fs::rename(old, folder.join(DATABASE)).unwrap();
            folder.to_path_buf()
        },
        "do not belong together",
    );
}

/// A shard writes an object, and the process is killed.
fn write_and_die(opened: Opened, sync: bool) {
    let mut store = Staged::new(opened.storage.clone());
    store.stage(Table::Objects, Bytes::from_static(b"\x03\x00\x00key"), Some(Bytes::from_static(b"value")));
    store.commit(sync).unwrap();
}

#[test]
fn a_machine_that_went_down_counts_only_where_writes_were_not_fsynced() {
    for (sync, forgets) in [(true, false), (false, true)] {
        let (_parent, folder, before) = made();
        write_and_die(open(&folder, claim(2)).unwrap(), sync);
        let same_boot = open(&folder, claim(3)).unwrap();
        assert_eq!(same_boot.identity, before, "a killed process has forgotten nothing");
        write_and_die(same_boot, sync);
        let opened = open(&folder, Claim { boot: "boot 2", ..claim(4) }).unwrap();
        assert_eq!(opened.forgot.is_some(), forgets);
        drop(opened);
        let nothing_written_since = open(&folder, Claim { boot: "boot 3", ..claim(5) }).unwrap();
        assert_eq!(nothing_written_since.forgot, None);
    }
}

#[test]
fn an_end_in_order_forgets_nothing_whatever_was_written() {
    let (_parent, folder, before) = made();
    let opened = open(&folder, claim(2)).unwrap();
    let mut store = Staged::new(opened.storage.clone());
    store.stage(Table::Objects, Bytes::from_static(b"\x03\x00\x00key"), Some(Bytes::from_static(b"value")));
    store.commit(false).unwrap();
    drop(store);
    opened.close().unwrap();
    let opened = open(&folder, Claim { boot: "boot 2", ..claim(4) }).unwrap();
    assert_eq!((opened.identity, opened.forgot), (before, None));
}

#[test]
fn forgetting_on_purpose() {
    let (_parent, folder, before) = made();
    let after = forget(&folder, claim(5)).unwrap();
    assert!(after.rebuilding && after.actor != before.actor);
    assert_eq!(open(&folder, claim(6)).unwrap().identity, after);
}

/// A folder whose record was changed, as it is found in another boot.
fn found_with(change: impl FnOnce(&mut Record)) -> Option<String> {
    let (_parent, folder, before) = made();
    let mut opened = open(&folder, claim(2)).unwrap();
    let mut record = record(&folder, before, "boot 1").unwrap();
    change(&mut record);
    write_record(&folder, &mut opened.storage, &record).unwrap();
    opened.close().unwrap();
    let opened = open(&folder, Claim { boot: "boot 2", ..claim(3) }).unwrap();
    assert_eq!(opened.forgot.is_none(), opened.identity == before);
    opened.forgot
}

#[test]
fn devices_may_be_numbered_anew_by_another_boot_and_only_then() {
    assert_eq!(found_with(|record| record.device = "another".to_string()), None);
    let in_this_boot = |record: &mut Record| {
        (record.device, record.boot) = ("another".to_string(), "boot 2".to_string());
    };
    assert!(found_with(in_this_boot).unwrap().contains("copy"));
    let birth_unknown = |record: &mut Record| (record.device, record.born) = ("another".to_string(), String::new());
    assert!(found_with(birth_unknown).unwrap().contains("copy"));
    assert!(found_with(|record| record.born = "1".to_string()).unwrap().contains("copy"), "of another birth");
    assert!(found_with(|record| record.inode = "1".to_string()).unwrap().contains("copy"), "of another inode");
}

#[test]
fn the_number_of_the_device_is_noted_anew_in_each_boot() {
    let (_parent, folder, _) = made();
    open(&folder, Claim { boot: "boot 2", ..claim(2) }).unwrap().close().unwrap();
    assert_eq!(read_file(&folder).unwrap().unwrap().boot, "boot 2");
}
