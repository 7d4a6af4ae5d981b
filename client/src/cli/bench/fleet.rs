//! Several client processes: the first one starts the others, lets them begin together, and adds up what they found.
//!
//! Each writes "ready" once its records are loaded, waits for a line, and writes what it found as one line of JSON.

use super::args::Bench;
use super::report::Found;
use crate::failure::Failure;
use crate::output::grouped;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const READY: &str = "ready";

struct Part {
    child: Child,
    input: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Part {
    fn start(part: u16) -> Result<Self, Failure> {
        let fault = |error| Failure::local(format!("client process {part} does not start: {error}"));
        let program = std::env::current_exe().map_err(fault)?;
        let mut child = Command::new(program)
            .args(std::env::args_os().skip(1))
            .args(["--part", &part.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(fault)?;
        let input = child.stdin.take().expect("stdin is a pipe");
        let lines = BufReader::new(child.stdout.take().expect("stdout is a pipe")).lines();
        Ok(Self { child, input, lines })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let ended = || Failure::local("a client process ended early; its own words are above");
        self.lines.next().ok_or_else(ended)?.map_err(|_| ended())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // It has ended already, unless another one failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs all parts, and waits for them.
pub fn run(bench: &Bench, show: bool) -> Result<Found, Failure> {
    let say = |what: String| {
        if show {
            eprintln!("{} processes {what}", bench.processes);
        }
    };
    let mut parts = (0..bench.processes).map(Part::start).collect::<Result<Vec<Part>, Failure>>()?;
    if !bench.skip_load {
        say(format!("load {} records", grouped(bench.records)));
    }
    for part in &mut parts {
        let line = part.line()?;
        if line != READY {
            return Err(Failure::local(format!("a client process said {line:?} and not that it is ready")));
        }
    }
    for part in &mut parts {
        writeln!(part.input).map_err(|e| Failure::local(format!("a client process cannot be told to begin: {e}")))?;
    }
    say(format!("run for {} s, and read back what was acknowledged", (bench.warm_up + bench.time).as_secs_f64()));
    let mut all: Option<Found> = None;
    for part in &mut parts {
        let line = part.line()?;
        let found = serde_json::from_str(&line).ok().and_then(|packed| Found::unpack(&packed));
        let found = found.ok_or_else(|| Failure::local(format!("a client process said {line:.200?}")))?;
        all = Some(match all {
            Some(before) => before.and(found),
            None => found,
        });
    }
    all.ok_or_else(|| Failure::usage("there has to be a client process"))
}

/// In a part: waits until all others are ready, too.
pub fn wait_for_others() -> Result<(), Failure> {
    crate::output::line(READY)?;
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(1..) => Ok(()),
        Ok(0) | Err(_) => Err(Failure::local("the process that began this benchmark is gone")),
    }
}
