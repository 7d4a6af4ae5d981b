#![no_main]
//! Frames out of any bytes, however they are cut: never a panic, never more than what came in.

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quorate_ring::wire::{FRAME_BYTES_MAX, HEADER_BYTES, take_frame};

fuzz_target!(|parts: Vec<&[u8]>| {
    let (mut buffer, mut came, mut taken) = (BytesMut::new(), 0, 0);
    for part in parts {
        came += part.len();
        buffer.extend_from_slice(part);
        loop {
            match take_frame(&mut buffer, FRAME_BYTES_MAX) {
                Ok(Some(frame)) => taken += HEADER_BYTES + frame.payload.len(),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(taken <= came);
    }
});
