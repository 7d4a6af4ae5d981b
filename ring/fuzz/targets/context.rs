#![no_main]
//! Contexts out of any bytes: refused, or good for this very key.

use libfuzzer_sys::fuzz_target;
use quorate_ring::id::{BucketId, ClusterId};
use quorate_ring::version::ContextToken;

fuzz_target!(|bytes: Vec<u8>| {
    let (cluster, bucket) = (ClusterId([7; 16]), BucketId(1));
    if let Ok(context) = ContextToken::from_bytes(bytes).open(cluster, bucket, b"key") {
        let again = ContextToken::seal(cluster, bucket, b"key", &context);
        assert_eq!(again.open(cluster, bucket, b"key"), Ok(context));
    }
});
