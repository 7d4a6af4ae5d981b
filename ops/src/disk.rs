//! Small disks of the nodes' own, that can be filled: a tmpfs on `disk` in each node's folder.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where in a node's folder the disk is mounted, and where on it the data lies.
pub const MOUNT_POINT: &str = "disk";
pub const DATA: &str = "disk/data";
const FILLER: &str = "filler";

/// Why there is no such disk, or it is not full.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("small disks are file systems in memory, and mounting them needs root: {0}")]
    Mount(io::Error),
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error(
        "{0} has no disk of its own, and filling that of this machine would hurt others; make a lab with `quorate-lab up --disk 256`"
    )]
    Shared(String),
    #[error("the disk of {0} is not filled")]
    NotFilled(String),
}

/// What a node on a disk of this size leaves free.
pub fn reserve(disk_bytes: u64) -> u64 {
    disk_bytes / 4
}

/// Mounts a node's disk, unless that was done before.
pub fn mount(node: &Path, bytes: u64) -> Result<(), DiskError> {
    let path = node.join(MOUNT_POINT);
    let fault = |error| DiskError::File { path: path.clone(), error };
    fs::create_dir_all(&path).map_err(fault)?;
    if is_mounted(node).map_err(fault)? {
        return Ok(());
    }
    let (kind, options, target) = (text(b"tmpfs"), text(format!("size={bytes}").as_bytes()), c_path(&path));
    // SAFETY: every pointer is to a C string that lives longer than the call.
    let done = unsafe {
        libc::mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast::<libc::c_void>())
    };
    if done == 0 { Ok(()) } else { Err(DiskError::Mount(io::Error::last_os_error())) }
}

/// Takes a node's disk away, with all that is on it. Nobody may have a file of it open.
pub fn unmount(node: &Path) -> Result<(), DiskError> {
    let path = node.join(MOUNT_POINT);
    let fault = |error| DiskError::File { path: path.clone(), error };
    if !path.exists() || !is_mounted(node).map_err(fault)? {
        return Ok(());
    }
    // SAFETY: the pointer is to a C string that lives longer than the call.
    match unsafe { libc::umount(c_path(&path).as_ptr()) } {
        0 => Ok(()),
        _ => Err(fault(io::Error::last_os_error())),
    }
}

/// Fills a node's disk up to `leave` bytes. Returns how many the filler took.
pub fn fill(node: &Path, name: &str, leave: u64) -> Result<u64, DiskError> {
    let path = node.join(MOUNT_POINT).join(FILLER);
    let fault = |error| DiskError::File { path: path.clone(), error };
    if !node.join(MOUNT_POINT).exists() || !is_mounted(node).map_err(fault)? {
        return Err(DiskError::Shared(name.to_string()));
    }
    let held = fs::metadata(&path).map_or(0, |filler| filler.len());
    let wanted = (held + free(node).map_err(fault)?).saturating_sub(leave);
    let file = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(fault)?;
    let length = libc::off_t::try_from(wanted).unwrap_or(libc::off_t::MAX);
    // SAFETY: the descriptor is open.
    match unsafe { libc::posix_fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), 0, length.max(1)) } {
        0 => Ok(wanted),
        code => Err(fault(io::Error::from_raw_os_error(code))),
    }
}

/// Makes room again, and at once: the filler is cut to nothing before it is removed, as a process that was forked while it
/// was filled holds it open until it runs a program of its own, and a file that is open keeps its room.
pub fn release(node: &Path, name: &str) -> Result<(), DiskError> {
    let path = node.join(MOUNT_POINT).join(FILLER);
    let cut = fs::OpenOptions::new().write(true).truncate(true).open(&path);
    match cut.and_then(|_| fs::remove_file(&path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DiskError::NotFilled(name.to_string())),
        done => done.map_err(|error| DiskError::File { path, error }),
    }
}

/// Bytes that are free on a node's disk.
pub fn free(node: &Path) -> io::Result<u64> {
    // SAFETY: all-zero bytes are a valid statvfs, which the call fills in.
    let mut about: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers live longer than the call.
    match unsafe { libc::statvfs(c_path(&node.join(MOUNT_POINT)).as_ptr(), &mut about) } {
        0 => Ok(about.f_bavail * about.f_frsize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A mounted folder is on another device than the one above it.
fn is_mounted(node: &Path) -> io::Result<bool> {
    Ok(fs::metadata(node.join(MOUNT_POINT))?.dev() != fs::metadata(node)?.dev())
}

fn c_path(path: &Path) -> CString {
    text(path.as_os_str().as_bytes())
}

fn text(bytes: &[u8]) -> CString {
    CString::new(bytes).expect("a path that was opened holds no zero byte")
}
