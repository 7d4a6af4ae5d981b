//! The keys that clients write to, by number, with where they lie.

use super::options::Options;
use bytes::Bytes;
use quorate_ring::id::{BucketId, NodeId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::topology::{Bucket, Topology};
use std::sync::Arc;

/// A key of a bucket.
#[derive(Clone, Debug)]
pub struct Key {
    pub bucket: Bucket,
    pub bytes: Bytes,
    pub partition: Partition,
    pub owners: Vec<NodeId>,
}

/// Keys are taken up in the order of their numbers, one bucket after the other.
pub struct Keys {
    pub layout: Arc<Layout>,
    keys: Vec<Key>,
}

const PREFIX: &str = "key-";

impl Keys {
    pub fn new(layout: Arc<Layout>) -> Self {
        Self { layout, keys: Vec::new() }
    }

    /// Takes up the next key.
    pub fn add(&mut self) -> u32 {
        let number = self.keys.len() as u32;
        let buckets = &self.layout.topology().buckets;
        let bucket = buckets[number as usize % buckets.len()].clone();
        let bytes = Bytes::from(format!("{PREFIX}{number:05}"));
        let partition = self.layout.partition(&bucket, &bytes);
        let list = self.layout.preference(partition).expect("the partition is of this layout");
        self.keys.push(Key { owners: list.owners().to_vec(), bucket, bytes, partition });
        number
    }

    pub fn get(&self, number: u32) -> &Key {
        &self.keys[number as usize]
    }

    pub fn len(&self) -> u32 {
        self.keys.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The number of a key, by what it is called in its bucket.
    pub fn number(&self, bucket: BucketId, bytes: &[u8]) -> Option<u32> {
        let digits = std::str::from_utf8(bytes).ok()?.strip_prefix(PREFIX)?;
        let number: u32 = digits.parse().ok()?;
        self.keys.get(number as usize).filter(|key| key.bucket.id == bucket).map(|_| number)
    }
}

/// The cluster of a seed: two buckets with siblings, one lww, one of two copies, and one of as many as there are
/// nodes, up to five.
pub fn topology(options: &Options) -> Topology {
    let mut text = format!("cluster = \"{}\"\nepoch = 1\npartitions = {}\n", "07".repeat(16), options.partitions);
    for id in 1..=options.nodes {
        text += &format!(
            "[[node]]\nid = {id}\nname = \"n{id}\"\nrack = \"r{}\"\n\
             client_address = \"127.0.0.1:{}\"\npeer_address = \"127.0.0.1:{}\"\n",
            id % options.racks,
            7_000 + id,
            8_000 + id
        );
    }
    text += "[[bucket]]\nid = 1\nname = \"siblings\"\n";
    text += "[[bucket]]\nid = 2\nname = \"lww\"\nconflict = \"lww\"\n";
    text += "[[bucket]]\nid = 3\nname = \"two\"\nn = 2\n";
    text += "[[bucket]]\nid = 4\nname = \"sloppy\"\nquorum = \"sloppy\"\n";
    text += &format!("[[bucket]]\nid = 5\nname = \"many\"\nn = {}\n", options.nodes.min(5));
    Topology::parse(&text).expect("the topology of a seed is valid")
}
