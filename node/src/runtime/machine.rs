//! What the node asks of the machine: its disk, its memory, its limits, its boot.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that this process may still write to the disk of a folder.
pub fn disk_bytes_free(folder: &Path) -> io::Result<u64> {
    Ok(disk_bytes(folder)?.0)
}

/// Bytes that this process may still write to the disk of a folder, and the size of the disk.
pub fn disk_bytes(folder: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(folder.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero byte, and `stat` has room for the answer.
    let result = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statvfs filled it in, as it said so.
    let stat = unsafe { stat.assume_init() };
    Ok((stat.f_bavail.saturating_mul(stat.f_frsize), stat.f_blocks.saturating_mul(stat.f_frsize)))
}

/// Bytes of this process in memory; 0 where the system does not say.
pub fn resident_bytes() -> u64 {
    let pages = |text: String| text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(pages).unwrap_or(0);
    // SAFETY: sysconf takes a number and gives one back.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages * u64::try_from(page).unwrap_or(0)
}

/// Raises the number of files that may be open to the most that this process may ask for; says how many.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` has room for the answer.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is what getrlimit gave, with the soft limit at the hard one.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Keeps the allocator from holding on to memory per thread; to be called before there are threads.
#[cfg(target_env = "gnu")]
pub fn share_memory_between_threads() {
    /// Regions of memory that threads allocate from; by default there may be eight for each core.
    const ARENAS_MAX: libc::c_int = 2;
    // SAFETY: it takes two numbers and sets a parameter of malloc; there are no other threads yet.
    let _taken = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
}

/// Gives memory back that was freed but is still held.
#[cfg(target_env = "gnu")]
pub fn return_free_memory() {
    // SAFETY: malloc_trim may be called at any time, from any thread.
    let _returned = unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub fn share_memory_between_threads() {}

#[cfg(not(target_env = "gnu"))]
pub fn return_free_memory() {}

/// Which boot of the machine this is.
pub fn boot() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_string())
}

/// From the entropy of the system.
pub fn random() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers() {
        assert!(disk_bytes_free(Path::new("/")).unwrap() > 0);
        assert!(disk_bytes_free(Path::new("/no/such/folder")).is_err());
        assert!(resident_bytes() > 100_000);
        assert!(raise_open_files().unwrap() >= 64);
        assert_eq!(boot().unwrap().len(), 36);
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
