//! One process of the operating system (Linux: it reads /proc), told apart from others that later get its number.

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FREEZE_LIMIT: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A process that was started here. Numbers are used again, so it is known by number, start and boot together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// When it started, in ticks since the machine did.
    pub started_ticks: u64,
    /// Of the machine: another after each boot.
    pub boot: String,
}

/// How a process is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    Running,
    /// Stopped by a signal, and can go on.
    Paused,
    Gone,
}

/// How a process came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    WasGone,
    WhenAsked,
    Killed,
}

/// Whether a process goes on when whoever started it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tie {
    /// It is told to end with the thread that started it.
    EndsWithUs,
    OutlivesUs,
}

/// The fields of /proc/PID/stat that are of use here.
struct Stat {
    state: char,
    /// On the processor, in the program itself and in the kernel for it.
    cpu_ticks: u64,
    /// Those that have not ended yet, the first among them even if it has.
    threads: u64,
    started_ticks: u64,
}

/// From now on this process is told to end (SIGTERM) when the thread that started it does.
pub fn end_with_parent() -> io::Result<()> {
    // SAFETY: plain system calls.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a plain question.
    match unsafe { libc::getppid() } {
        1 => Err(io::Error::other("it has ended already")),
        _ => Ok(()),
    }
}

impl Process {
    /// The process that now has this number.
    pub fn with_pid(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, started_ticks: stat(pid)?.started_ticks, boot: boot()? })
    }

    /// Starts a program in a session of its own, so that no terminal takes it along; its output is added to a file.
    pub fn start(program: &Path, arguments: &[&str], output: &Path, tie: Tie) -> io::Result<Self> {
        let output = fs::OpenOptions::new().create(true).append(true).open(output)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        // SAFETY: between fork and exec only setsid and prctl are called, which are async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                if libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                if tie == Tie::EndsWithUs && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        // Nobody waits for it here: it is meant to outlive us, and `doing` reaps it if it does not.
        #[allow(clippy::zombie_processes)]
        let child = command.spawn()?;
        Self::with_pid(child.id() as i32)
    }

    pub fn doing(&self) -> Doing {
        // If it is a child of ours and has ended, this takes it out of the table; if not, it does nothing.
        // SAFETY: no status is asked for.
        unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
        match stat(self.pid) {
            Ok(stat) if stat.started_ticks != self.started_ticks => Doing::Gone,
            Ok(_) if boot().ok().as_ref() != Some(&self.boot) => Doing::Gone,
            Ok(stat) => stat.doing(),
            Err(_) => Doing::Gone,
        }
    }

    /// Sends a signal, unless the process is gone.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        if self.doing() == Doing::Gone {
            return Ok(());
        }
        // SAFETY: a plain system call; the process was ours a moment ago, by number, start and boot.
        match unsafe { libc::kill(self.pid, signal) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Whether it was gone before the time was up.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.doing() != Doing::Gone {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(LOOK_EVERY);
        }
        true
    }

    /// Asks it to end, wakes it if it is paused, so that it can, and kills it when `grace` is over.
    pub fn end(&self, grace: Duration) -> io::Result<Ended> {
        if self.doing() == Doing::Gone {
            return Ok(Ended::WasGone);
        }
        self.signal(libc::SIGTERM)?;
        self.signal(libc::SIGCONT)?;
        if self.wait_gone(grace) {
            return Ok(Ended::WhenAsked);
        }
        self.kill().map(|()| Ended::Killed)
    }

    /// Ends it at once: it gets no chance to do anything.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(libc::SIGKILL)?;
        match self.wait_gone(Duration::from_secs(10)) {
            true => Ok(()),
            false => Err(io::Error::other(format!("process {} does not end, even killed", self.pid))),
        }
    }

    /// Freezes it, and returns once none of its threads can do anything more: each is stopped, or inside a system call
    /// from which it will not come back before it is woken.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal(libc::SIGSTOP)?;
        let end = Instant::now() + FREEZE_LIMIT;
        while self.doing() != Doing::Gone && !self.is_frozen()? {
            if Instant::now() >= end {
                return Err(io::Error::other(format!("process {} does not stop", self.pid)));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn is_frozen(&self) -> io::Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            // A thread that is gone by now is quiet enough.
            let text = fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            if parse_stat(&text).is_some_and(|stat| !matches!(stat.state, 'T' | 'D' | 'Z' | 'X')) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Bytes of memory that it holds.
    pub fn resident_bytes(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.pid)).ok()?;
        let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
        // SAFETY: a plain question.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Some(pages * u64::try_from(page).ok()?)
    }

    /// Time that it has spent on a processor since its start, all of its threads; none if it is gone.
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = stat(self.pid).ok().filter(|stat| stat.started_ticks == self.started_ticks)?;
        // SAFETY: a plain question.
        let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|ticks| *ticks > 0)?;
        Some(Duration::from_micros(stat.cpu_ticks * 1_000_000 / per_second))
    }

    /// Every process that runs with this text as one of its arguments.
    pub fn with_argument(argument: &str) -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // A process may end while we look.
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|byte| *byte == 0).any(|given| given == argument.as_bytes())
                && let Ok(process) = Self::with_pid(pid)
            {
                found.push(process);
            }
        }
        Ok(found)
    }
}

impl Stat {
    /// The first thread has often ended before the others: one that waits for the disk ends only after that, even if it was
    /// killed, and until then the process holds its ports and files.
    fn doing(&self) -> Doing {
        match self.state {
            'Z' | 'X' if self.threads <= 1 => Doing::Gone,
            'T' => Doing::Paused,
            _ => Doing::Running,
        }
    }
}

fn stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not as expected: {text:?}")))
}

/// The name of the program stands in brackets and may itself hold brackets and blanks: what counts follows the last.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // Fields 14, 15, 20 and 22 of the line; the state is field 3.
    let (user, system): (u64, u64) = (fields.nth(10)?.parse().ok()?, fields.next()?.parse().ok()?);
    let threads = fields.nth(4)?.parse().ok()?;
    let started_ticks = fields.nth(1)?.parse().ok()?;
    Some(Stat { state, cpu_ticks: user + system, threads, started_ticks })
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(script: &str) -> (tempfile::TempDir, Process) {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let process = Process::start(Path::new("/bin/sh"), &["-c", script], &output, Tie::EndsWithUs).unwrap();
        // The shell says when it listens to signals.
        while !fs::read_to_string(&output).unwrap().contains("up") {
            std::thread::sleep(LOOK_EVERY);
        }
        (folder, process)
    }

    #[test]
    fn a_program_name_with_brackets_and_blanks() {
        let text = "12 (a) b (c) T 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.state, stat.cpu_ticks, stat.threads, stat.started_ticks), ('T', 11 + 12, 17, 777));
        assert!(parse_stat("12 (a) R 1").is_none());
    }

    #[test]
    fn one_of_which_threads_are_left_is_not_gone() {
        let of = |threads: u64| format!("12 (a) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 {threads} 18 777 20");
        assert_eq!(parse_stat(&of(2)).unwrap().doing(), Doing::Running);
        assert_eq!(parse_stat(&of(1)).unwrap().doing(), Doing::Gone);
        assert_eq!(parse_stat(&of(0)).unwrap().doing(), Doing::Gone);
    }

    #[test]
    fn it_ends_when_asked_even_if_paused() {
        let (_folder, process) = sleeper("echo up; exec sleep 60");
        assert_eq!(process.doing(), Doing::Running);
        process.signal(libc::SIGSTOP).unwrap();
        while process.doing() != Doing::Paused {
            std::thread::sleep(LOOK_EVERY);
        }
        assert_eq!(process.end(Duration::from_secs(10)).unwrap(), Ended::WhenAsked);
        assert_eq!(process.doing(), Doing::Gone);
        assert_eq!(process.end(Duration::from_secs(10)).unwrap(), Ended::WasGone);
    }

    #[test]
    fn a_frozen_one_does_nothing_more() {
        let (folder, process) = sleeper("while :; do echo up; done");
        process.freeze().unwrap();
        let length = || fs::metadata(folder.path().join("out")).unwrap().len();
        let before = length();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(length(), before);
        process.kill().unwrap();
    }

    #[test]
    fn one_that_will_not_listen_is_killed() {
        let (_folder, process) = sleeper("trap '' TERM; echo up; while :; do sleep 0.1; done");
        assert_eq!(process.end(Duration::from_millis(200)).unwrap(), Ended::Killed);
        assert_eq!(process.doing(), Doing::Gone);
    }

    #[test]
    fn another_process_with_the_same_number_is_left_alone() {
        let (_folder, process) = sleeper("echo up; exec sleep 60");
        for other in [
            Process { started_ticks: process.started_ticks + 1, ..process.clone() },
            Process { boot: "another".to_string(), ..process.clone() },
        ] {
            assert_eq!(other.doing(), Doing::Gone);
            assert_eq!(other.end(Duration::ZERO).unwrap(), Ended::WasGone);
        }
        assert_eq!(process.doing(), Doing::Running);
        process.kill().unwrap();
    }

    #[test]
    fn it_is_found_by_an_argument() {
        let mark = format!("mark-{}", std::process::id());
        // Nothing that forks: for a moment a child of the shell has its arguments, too.
        let script = format!("echo up; while :; do :; done # {mark}");
        assert!(Process::with_argument(&script).unwrap().is_empty());
        let (_folder, process) = sleeper(&script);
        assert_eq!(Process::with_argument(&script).unwrap(), std::slice::from_ref(&process));
        process.kill().unwrap();
    }
}
