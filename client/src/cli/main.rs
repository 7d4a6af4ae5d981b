//! The command line client `quorate`.

fn main() {}
