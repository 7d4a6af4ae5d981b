//! Each bug on purpose is found: the checks can fail, and they say which promise was broken.
//!
//! Built with the feature `planted` only: `cargo test --release -p quorate-tests --features planted --test planted`.

use quorate_node::planted::{Bug, plant};
use quorate_tests::sim::{Asked, Telling, run};

/// A bug is looked for in so many worlds.
const SEEDS: u64 = 1_000;

/// The first seed that finds a bug, and the promise that it broke.
fn find(bug: Bug) -> Option<(u64, String)> {
    plant(Some(bug));
    let found = (1..=SEEDS).find_map(|seed| {
        let asked = Asked { seed, ..Asked::default() };
        run(&asked, Telling::Nothing).violation.map(|violation| (seed, violation.property.to_string()))
    });
    plant(None);
    found
}

#[test]
fn every_planted_bug_is_found() {
    let threads: Vec<_> = Bug::ALL.chunks(Bug::ALL.len().div_ceil(2)).map(<[Bug]>::to_vec).collect();
    let missed: Vec<&str> = std::thread::scope(|scope| {
        let searches: Vec<_> = threads
            .into_iter()
            .map(|bugs| {
                scope.spawn(move || {
                    let mut missed = Vec::new();
                    for bug in bugs {
                        match find(bug) {
                            Some((seed, property)) => println!("{:28} seed {seed:4}: {property}", bug.name()),
                            None => missed.push(bug.name()),
                        }
                    }
                    missed
                })
            })
            .collect();
        searches.into_iter().flat_map(|search| search.join().expect("a search ends")).collect()
    });
    assert!(missed.is_empty(), "not found in {SEEDS} seeds: {missed:?}");
}

/// The failure of a planted bug, cut down, reads as a story that fits on a page.
#[test]
fn a_failure_is_cut_down_to_a_page() {
    plant(Some(Bug::AckAtWMinusOne));
    let mask = quorate_tests::sim::faults::Mask::all();
    let story = (1..=50).find_map(|seed| {
        let report = run(&Asked { seed, mask, max_ops: Some(60) }, Telling::OfFailure);
        report.violation.map(|_| report.story)
    });
    plant(None);
    let story = story.expect("the bug shows without any fault");
    assert!(story.len() < 100, "{} lines", story.len());
    assert!(story.iter().any(|line| line.contains("written as")), "{story:?}");
}
