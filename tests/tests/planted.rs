//! Each bug on purpose is found: the checks can fail, and they say which promise was broken.
//!
//! Built with the feature `planted` only: `cargo test --release -p quorate-tests --features planted --test planted`.

use quorate_node::planted::{Bug, plant};
use quorate_tests::sim::faults::Mask;
use quorate_tests::sim::{Asked, Telling, run};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A bug is looked for in so many worlds.
const SEEDS: u64 = 1_000;

/// Most are found within a few seeds. These took more: a seed that found them once is tried first.
const FOUND_LATE: &[(Bug, u64)] = &[(Bug::SyncGap, 410), (Bug::GcOwnDot, 167)];

/// What a world with this bug breaks, or without any.
fn broken(seed: u64, bug: Option<Bug>) -> Option<String> {
    plant(bug);
    let report = run(&Asked { seed, ..Asked::default() }, Telling::Nothing);
    plant(None);
    report.violation.map(|violation| violation.property.to_string())
}

/// The first seed that finds a bug, and the promise that it broke. What breaks without the bug, too, is no find.
fn find(bug: Bug) -> Option<(u64, String)> {
    let known = FOUND_LATE.iter().filter(|(late, _)| *late == bug).map(|(_, seed)| *seed);
    let found = known.chain(1..=SEEDS).find_map(|seed| Some((seed, broken(seed, Some(bug))?)));
    found.filter(|(seed, _)| broken(*seed, None).is_none())
}

#[test]
fn every_planted_bug_is_found() {
    let next = AtomicUsize::new(0);
    let search = || {
        let mut missed = Vec::new();
        while let Some(bug) = Bug::ALL.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            match find(bug) {
                Some((seed, property)) => println!("{:28} seed {seed:4}: {property}", bug.name()),
                None => missed.push(bug.name()),
            }
        }
        missed
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let missed: Vec<&str> = std::thread::scope(|scope| {
        let searches: Vec<_> = (0..cores).map(|_| scope.spawn(search)).collect();
        searches.into_iter().flat_map(|search| search.join().expect("a search ends")).collect()
    });
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

/// The failure of a planted bug, cut down, reads as a story that fits on a page.
#[test]
fn a_failure_is_cut_down_to_a_page() {
    plant(Some(Bug::AckAtWMinusOne));
    let story = (1..=50).find_map(|seed| {
        let report = run(&Asked { seed, mask: Mask::all(), max_ops: Some(60) }, Telling::OfFailure);
        report.violation.map(|_| report.story)
    });
    plant(None);
    let story = story.expect("the bug shows without any fault");
    assert!(story.len() < 100, "{} lines", story.len());
    assert!(story.iter().any(|line| line.contains("written as")), "{story:?}");
}

/// What `ops/test` looks for in the programs that are shipped is there to be found in one that has the bugs.
#[test]
fn a_program_with_bugs_on_purpose_can_be_told_from_others() {
    let program = std::fs::read(env!("CARGO_BIN_EXE_sim")).expect("the program is built with this test");
    let name = Bug::AckBeforeCommit.name().as_bytes();
    assert!(program.windows(name.len()).any(|bytes| bytes == name));
}
