#![no_main]
//! Records out of any bytes; merging two that decode keeps what an object promises.

use libfuzzer_sys::fuzz_target;
use quorate_ring::version::{HintRecord, Object};

fuzz_target!(|input: (&[u8], &[u8])| {
    let _ = HintRecord::decode(input.0);
    let (Ok(mut left), Ok(right)) = (Object::decode(input.0), Object::decode(input.1)) else { return };
    left.union(&right);
    assert!(left.siblings().iter().all(|(dot, _)| left.context().covers(*dot)));
    assert_eq!(Object::decode(&left.encode()), Ok(left));
});
