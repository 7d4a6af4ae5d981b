#![no_main]
//! Topologies out of any text: an error that names a line, or a valid one.

use libfuzzer_sys::fuzz_target;
use quorate_ring::topology::Topology;

fuzz_target!(|text: &str| match Topology::parse(text) {
    Ok(topology) => assert!(!topology.nodes.is_empty() && topology.partitions.is_power_of_two()),
    Err(error) => assert!(error.line >= 1),
});
