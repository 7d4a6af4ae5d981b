//! The same seeds in two processes: the same hash for each, or what happens does not follow from the seed alone.

use super::Arguments;
use std::collections::BTreeMap;
use std::io;
use std::process::{Child, Command, ExitCode, Stdio};

pub fn compare(arguments: &Arguments) -> ExitCode {
    let hashes = start(arguments).and_then(|first| Ok([first, start(arguments)?])).and_then(|both| {
        let [first, second] = both.map(hashes);
        Ok((first?, second?))
    });
    let (first, second) = match hashes {
        Ok(hashes) => hashes,
        Err(why) => {
            eprintln!("sim: cannot run itself: {why}");
            return ExitCode::from(2);
        }
    };
    let equal = first.iter().filter(|(seed, hash)| second.get(*seed) == Some(hash)).count();
    for (seed, hash) in first.iter().filter(|(seed, hash)| second.get(*seed) != Some(hash)) {
        println!("seed {seed}: {hash} and {:?}", second.get(seed));
    }
    println!("{} pairs of runs, {equal} equal hashes", first.len());
    let all = equal as u64 == arguments.seeds && second.len() == first.len();
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn start(arguments: &Arguments) -> io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--hash").args(["--seed", &arguments.seed.to_string(), "--seeds", &arguments.seeds.to_string()]);
    command.args(["--jobs", &arguments.jobs.to_string()]).args(arguments.changes());
    command.stdout(Stdio::piped()).spawn()
}

/// By seed.
fn hashes(child: Child) -> io::Result<BTreeMap<String, String>> {
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    Ok(pairs.map(|(seed, hash)| (seed.to_string(), hash.to_string())).collect())
}
