//! Bugs on purpose, if the program was built with them.

#[cfg(feature = "planted")]
pub use on::{all, plant};

#[cfg(feature = "planted")]
mod on {
    use crate::Arguments;
    use quorate_node::planted::{Bug, plant as plant_in_node};
    use quorate_tests::sim::{Telling, run};
    use std::process::ExitCode;

    pub fn plant(name: Option<&str>) -> Result<(), String> {
        let Some(name) = name else {
            plant_in_node(None);
            return Ok(());
        };
        let names = || Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(", ");
        let bug = Bug::ALL.iter().find(|bug| bug.name() == name);
        let bug = bug.ok_or_else(|| format!("{name:?} is none of {}", names()))?;
        plant_in_node(Some(*bug));
        Ok(())
    }

    /// Each bug, until it is found.
    pub fn all(arguments: &Arguments) -> ExitCode {
        let mut missed = 0;
        for bug in Bug::ALL {
            plant_in_node(Some(bug));
            let found = (0..arguments.seeds).find_map(|i| {
                let seed = arguments.seed + i;
                run(&arguments.asked(seed), Telling::Nothing).violation.map(|violation| (seed, violation))
            });
            match found {
                Some((seed, violation)) => println!("{:28} seed {seed}: {violation}", bug.name()),
                None => {
                    println!("{:28} NOT FOUND in {} seeds", bug.name(), arguments.seeds);
                    missed += 1;
                }
            }
        }
        if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

#[cfg(not(feature = "planted"))]
pub use off::{all, plant};

#[cfg(not(feature = "planted"))]
mod off {
    use crate::Arguments;
    use std::process::ExitCode;

    const WITHOUT: &str = "this program was built without bugs on purpose; build it with --features planted";

    pub fn plant(name: Option<&str>) -> Result<(), String> {
        name.map_or(Ok(()), |_| Err(WITHOUT.to_string()))
    }

    pub fn all(_: &Arguments) -> ExitCode {
        eprintln!("sim: {WITHOUT}");
        ExitCode::from(2)
    }
}
