//! A small disk of a node's own, that can lose its power: an ext4 file system in a file, mounted over a loop device.
//!
//! `cut` is FS_IOC_SHUTDOWN without a flush of the journal, which file system developers use for the same end: from
//! that moment on nothing more gets to the disk, and every write and fsync fails. What was not fsynced is in memory
//! only, and is gone once the file system is mounted anew; then its journal is replayed, as after a real power cut.
//! Device and inodes stay the same, so a node finds the folder that it knows.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE_BYTES: u64 = 1024 * 1024 * 1024;
/// `_IOR('X', 125, u32)`.
const FS_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
const SHUTDOWN_WITHOUT_JOURNAL_FLUSH: u32 = 2;
const PROGRAMS: [&str; 4] = ["mkfs.ext4", "losetup", "mount", "umount"];

/// Why there is no such disk. What was mounted is unmounted again.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("power cuts need {0}; `--mode kill` does without")]
    Lacking(&'static str),
    #[error("{program} {}: {error}", arguments.join(" "))]
    Program { program: &'static str, arguments: Vec<String>, error: String },
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
}

pub struct Volume {
    mount_point: PathBuf,
    device: String,
}

/// Whether this machine has what it takes.
pub fn check() -> Result<(), VolumeError> {
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        return Err(VolumeError::Lacking("root (file systems are mounted)"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Err(VolumeError::Lacking("loop devices, and there is no /dev/loop-control here"));
    }
    let is_there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    match PROGRAMS.iter().find(|program| !is_there(program)) {
        Some(_) => Err(VolumeError::Lacking("mkfs.ext4 (e2fsprogs), losetup, mount and umount (util-linux, mount)")),
        None => Ok(()),
    }
}

impl Volume {
    /// Makes `volume.img` in a node's folder, and mounts it on `disk` beside it.
    pub fn make(node: &Path) -> Result<Self, VolumeError> {
        let image = node.join("volume.img");
        let mount_point = node.join("disk");
        let fault = |path: &Path| {
            let path = path.to_path_buf();
            move |error| VolumeError::File { path, error }
        };
        fs::create_dir_all(&mount_point).map_err(fault(&mount_point))?;
        let file = fs::File::create(&image).map_err(fault(&image))?;
        file.set_len(IMAGE_BYTES).map_err(fault(&image))?;
        let image = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &image])?;
        let device = run("losetup", &["--find", "--show", &image])?.trim().to_string();
        let volume = Self { mount_point, device };
        volume.mount()?;
        Ok(volume)
    }

    /// The power goes.
    pub fn cut(&self) -> Result<(), VolumeError> {
        let fault = |error| VolumeError::File { path: self.mount_point.clone(), error };
        let root = fs::File::open(&self.mount_point).map_err(fault)?;
        // SAFETY: the descriptor is open, and the call reads one u32.
        match unsafe { libc::ioctl(root.as_raw_fd(), FS_IOC_SHUTDOWN, &SHUTDOWN_WITHOUT_JOURNAL_FLUSH) } {
            0 => Ok(()),
            _ => Err(fault(io::Error::last_os_error())),
        }
    }

    /// The power is back. Nobody may have a file of the volume open.
    pub fn restore(&self) -> Result<(), VolumeError> {
        run("umount", &[&self.mount_point.display().to_string()])?;
        self.mount()
    }

    fn mount(&self) -> Result<(), VolumeError> {
        run("mount", &[&self.device, &self.mount_point.display().to_string()]).map(drop)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let mount_point = self.mount_point.display().to_string();
        // A fresh volume may not be mounted yet, so only the device has to come free.
        let _ = run("umount", &[&mount_point]);
        if let Err(error) = run("losetup", &["--detach", &self.device]) {
            eprintln!("{} stays in use: {error}", self.device);
        }
    }
}

fn run(program: &'static str, arguments: &[&str]) -> Result<String, VolumeError> {
    let fault = |error: String| {
        let arguments = arguments.iter().map(|argument| argument.to_string()).collect();
        VolumeError::Program { program, arguments, error }
    };
    let output = Command::new(program).args(arguments).output().map_err(|error| fault(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(fault(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_cut_loses_what_was_not_fsynced_and_nothing_else() {
        if let Err(lacking) = check() {
            println!("not tried: {lacking}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::make(dir.path()).unwrap();
        let disk = dir.path().join("disk");
        let mut kept = fs::File::create(disk.join("kept")).unwrap();
        kept.write_all(b"fsynced").unwrap();
        kept.sync_all().unwrap();
        fs::File::open(&disk).unwrap().sync_all().unwrap();
        let inode = kept.metadata().unwrap().ino();
        kept.write_all(b", and more").unwrap();
        fs::write(disk.join("lost"), "not fsynced").unwrap();
        volume.cut().unwrap();
        assert!(kept.sync_all().is_err(), "an fsync after the cut must fail");
        drop(kept);
        volume.restore().unwrap();
        assert_eq!(fs::read(disk.join("kept")).unwrap(), b"fsynced");
        assert_eq!(fs::metadata(disk.join("kept")).unwrap().ino(), inode);
        assert!(!disk.join("lost").exists());
    }
}
