#![no_main]
//! Messages out of any kind and payload; what decodes also encodes, and comes back the same.

use libfuzzer_sys::fuzz_target;
use quorate_ring::wire::client::{ClientReply, ClientRequest};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use quorate_ring::wire::HEADER_BYTES;

macro_rules! round_trip {
    ($message:ty, $kind:expr, $payload:expr) => {
        if let Ok(message) = <$message>::decode($kind, $payload) {
            let mut frame = Vec::new();
            message.write(1, &mut frame);
            let again = <$message>::decode(frame[5], &frame[HEADER_BYTES..]).expect("what was encoded decodes");
            assert_eq!(again, message);
        }
    };
}

fuzz_target!(|input: (u8, &[u8])| {
    let (kind, payload) = input;
    round_trip!(ClientRequest, kind, payload);
    round_trip!(ClientReply, kind, payload);
    round_trip!(PeerRequest, kind, payload);
    round_trip!(PeerReply, kind, payload);
});
