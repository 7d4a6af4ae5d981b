//! A node's own disk, mounted, filled and freed. Alone in its process: a process that another test starts holds this one's
//! files open for a moment, and no disk is unmounted meanwhile.
#![allow(clippy::unwrap_used)]

use quorate_ops::disk::{self, DATA, DiskError, MOUNT_POINT};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

#[test]
fn a_disk_is_filled_and_freed() {
    let dir = tempfile::tempdir().unwrap();
    let node = dir.path();
    assert!(matches!(disk::fill(node, "n1", 0), Err(DiskError::Shared(_))));
    const SIZE: u64 = 8 * 1024 * 1024;
    match disk::mount(node, SIZE) {
        Err(DiskError::Mount(lacking)) => return println!("not tried: {lacking}"),
        made => made.unwrap(),
    }
    disk::mount(node, SIZE).unwrap();
    let leave = SIZE / 4;
    disk::fill(node, "n1", leave).unwrap();
    assert!(disk::free(node).unwrap() <= leave && disk::free(node).unwrap() > 0);
    disk::fill(node, "n1", 0).unwrap();
    assert_eq!(disk::free(node).unwrap(), 0);
    assert!(fs::write(node.join(DATA), [0; 8192]).is_err());
    let held_open = File::open(node.join(MOUNT_POINT).join("filler")).unwrap();
    disk::release(node, "n1").unwrap();
    assert!(matches!(disk::release(node, "n1"), Err(DiskError::NotFilled(_))));
    assert!(disk::free(node).unwrap() > leave);
    drop(held_open);
    disk::unmount(node).unwrap();
    assert_eq!(fs::metadata(node.join(MOUNT_POINT)).unwrap().dev(), fs::metadata(node).unwrap().dev());
}
