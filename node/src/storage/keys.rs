//! The keys of the tables, byte for byte: big-endian, so that the order of bytes is the order of what they name.
//!
//! ```text
//! objects  n(u8) partition(u16) bucket(u32) key                 -> object
//! log      n(u8) partition(u16) actor(u64) seq(u64)             -> version(u8) bucket(u32) key
//! hints    target(u16) n(u8) partition(u16) bucket(u32) key     -> object and dots
//! meta     tag(u8) and what the tag says
//! ```
//!
//! Ranges are `(from, to)` with `from <= key < to`, as `Read::scan` takes them.

use bytes::{BufMut, Bytes};
use quorate_ring::id::{ActorId, BucketId, NodeId, Partition};
use quorate_ring::version::Dot;

/// Bytes of a partition in a key: the prefix that RocksDB's filters know of objects and log.
pub(super) const PARTITION_BYTES: usize = 3;
/// Bytes of a target in the key of a hint.
pub(super) const TARGET_BYTES: usize = 2;
const BUCKET_BYTES: usize = 4;
/// Where the actor ends in the key of a log entry: behind it they are in the order in which they are written.
pub(super) const ACTOR_BYTES_END: usize = PARTITION_BYTES + 8;
const LOG_KEY_BYTES: usize = ACTOR_BYTES_END + 8;
/// Version of the layout of a log entry, its first byte.
const LOG_ENTRY_VERSION: u8 = 1;

/// Both ends of a scan: the first key, and the first key behind it.
pub type Range = (Vec<u8>, Vec<u8>);

fn put_partition(bytes: &mut impl BufMut, partition: Partition) {
    bytes.put_u8(partition.n);
    bytes.put_u16(partition.index);
}

fn parse_partition(bytes: &[u8; PARTITION_BYTES]) -> Partition {
    let [n, high, low] = *bytes;
    Partition { n, index: u16::from_be_bytes([high, low]) }
}

/// All keys that begin with `prefix`.
fn prefix_range(prefix: Vec<u8>) -> Range {
    let mut end = prefix.clone();
    while end.last() == Some(&0xff) {
        end.pop();
    }
    match end.last_mut() {
        Some(last) => *last += 1,
        // Only target 65,535 is all 0xff, and no n is: what follows a target begins with one.
        None => end = [&prefix[..], &[0xff]].concat(),
    }
    (prefix, end)
}

/// Whether all keys of `from..to` begin with the same `length` bytes, 7 at the most.
pub(super) fn share_prefix(from: &[u8], to: &[u8], length: usize) -> bool {
    let number = |bytes: &[u8]| {
        let padded = bytes.iter().copied().chain(std::iter::repeat(0)).take(length);
        padded.fold(0_u64, |number, byte| (number << 8) | u64::from(byte))
    };
    let within = number(from) == number(to) && to.len() >= length;
    // The end of the ranges here is the next prefix itself, or what is left of it without its zeros.
    let up_to_next = number(from) + 1 == number(to) && to.len() <= length;
    from.len() >= length && (within || up_to_next)
}

fn partition_prefix(partition: Partition) -> Vec<u8> {
    let mut prefix = Vec::with_capacity(LOG_KEY_BYTES);
    put_partition(&mut prefix, partition);
    prefix
}

/// Where an object lies.
pub fn object_key(partition: Partition, bucket: BucketId, key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(PARTITION_BYTES + BUCKET_BYTES + key.len());
    put_partition(&mut bytes, partition);
    bytes.put_u32(bucket.0);
    bytes.put_slice(key);
    Bytes::from(bytes)
}

/// What an object's key names; `None` if it is too short to be one.
pub fn parse_object_key(bytes: &Bytes) -> Option<(Partition, BucketId, Bytes)> {
    let (partition, rest) = bytes.split_first_chunk::<PARTITION_BYTES>()?;
    let (bucket, key) = rest.split_first_chunk::<BUCKET_BYTES>()?;
    Some((parse_partition(partition), BucketId(u32::from_be_bytes(*bucket)), bytes.slice_ref(key)))
}

/// All objects of a partition, by bucket and key.
pub fn object_range(partition: Partition) -> Range {
    prefix_range(partition_prefix(partition))
}

/// All objects of one bucket in a partition, by key.
pub fn bucket_range(partition: Partition, bucket: BucketId) -> Range {
    let mut prefix = partition_prefix(partition);
    prefix.put_u32(bucket.0);
    prefix_range(prefix)
}

/// Where the log keeps the key that a dot wrote.
pub fn log_key(partition: Partition, dot: Dot) -> Bytes {
    let mut bytes = Vec::with_capacity(LOG_KEY_BYTES);
    put_partition(&mut bytes, partition);
    bytes.put_u64(dot.actor().0);
    bytes.put_u64(dot.seq());
    Bytes::from(bytes)
}

/// The dot that a key of the log names; `None` if it has another length.
pub fn parse_log_key(bytes: &[u8]) -> Option<(Partition, Dot)> {
    let (partition, rest) = bytes.split_first_chunk::<PARTITION_BYTES>()?;
    let (actor, seq) = rest.split_first_chunk::<8>()?;
    let seq: [u8; 8] = seq.try_into().ok()?;
    Some((parse_partition(partition), Dot(ActorId(u64::from_be_bytes(*actor)), u64::from_be_bytes(seq))))
}

/// The whole log of a partition, by actor and seq.
pub fn log_range(partition: Partition) -> Range {
    prefix_range(partition_prefix(partition))
}

/// The log of one actor, seqs `first..=last`.
pub fn log_range_of(partition: Partition, actor: ActorId, first: u64, last: u64) -> Range {
    let mut end = log_key(partition, Dot(actor, last)).to_vec();
    end.push(0);
    (log_key(partition, Dot(actor, first)).to_vec(), end)
}

/// Where a hint for `target` lies.
pub fn hint_key(target: NodeId, partition: Partition, bucket: BucketId, key: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(TARGET_BYTES + PARTITION_BYTES + BUCKET_BYTES + key.len());
    bytes.put_u16(target.0);
    put_partition(&mut bytes, partition);
    bytes.put_u32(bucket.0);
    bytes.put_slice(key);
    Bytes::from(bytes)
}

/// What a hint's key names; `None` if it is too short to be one.
pub fn parse_hint_key(bytes: &Bytes) -> Option<(NodeId, Partition, BucketId, Bytes)> {
    let (target, _) = bytes.split_first_chunk::<TARGET_BYTES>()?;
    let (partition, bucket, key) = parse_object_key(&bytes.slice(TARGET_BYTES..))?;
    Some((NodeId(u16::from_be_bytes(*target)), partition, bucket, key))
}

/// All hints for a node, by partition, bucket and key.
pub fn hint_range(target: NodeId) -> Range {
    prefix_range(target.0.to_be_bytes().to_vec())
}

/// What the log says of a dot: the key that it wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogEntry {
    /// The event left no sibling, or one that expires: the object may be due for erasing once it is settled.
    pub erasable: bool,
    pub bucket: BucketId,
    pub key: Bytes,
}

/// Why bytes are not a log entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogEntryError {
    #[error("log entry version {0} is not known to this program; it knows version {LOG_ENTRY_VERSION}")]
    Version(u8),
    #[error("a log entry of {0} bytes is too short")]
    Short(usize),
}

impl LogEntry {
    pub fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(2 + BUCKET_BYTES + self.key.len());
        bytes.put_u8(LOG_ENTRY_VERSION);
        bytes.put_u8(u8::from(self.erasable));
        bytes.put_u32(self.bucket.0);
        bytes.put_slice(&self.key);
        Bytes::from(bytes)
    }

    /// Never panics, whatever the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, LogEntryError> {
        let (version, rest) = bytes.split_first().ok_or(LogEntryError::Short(0))?;
        if *version != LOG_ENTRY_VERSION {
            return Err(LogEntryError::Version(*version));
        }
        let (erasable, rest) = rest.split_first().ok_or(LogEntryError::Short(bytes.len()))?;
        let (bucket, key) = rest.split_first_chunk::<BUCKET_BYTES>().ok_or(LogEntryError::Short(bytes.len()))?;
        Ok(Self { erasable: *erasable != 0, bucket: BucketId(u32::from_be_bytes(*bucket)), key: bytes.slice_ref(key) })
    }
}

/// The rows of the meta table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MetaKey {
    /// Who this node is, the database's copy.
    Identity,
    /// Above every HLC that a shard has given out. One row per shard, since each shard commits by itself; how many
    /// shards there are may change, so a start takes the greatest of `MetaKey::hlc_marks`.
    HlcMark { shard: u8 },
    /// The newest topology that this node has met.
    Topology,
    /// There once writes were committed without fsync, until the next start finds that none were lost.
    Unsynced,
    /// Below it the log of a partition is cut.
    Floor(Partition),
    /// How far a full sync of a partition from another owner has come.
    Sync { partition: Partition, source: NodeId },
}

impl MetaKey {
    const IDENTITY: u8 = 1;
    const HLC_MARK: u8 = 2;
    const TOPOLOGY: u8 = 3;
    const FLOOR: u8 = 4;
    const UNSYNCED: u8 = 5;
    const SYNC: u8 = 6;

    pub fn encode(self) -> Vec<u8> {
        match self {
            MetaKey::Identity => vec![Self::IDENTITY],
            MetaKey::HlcMark { shard } => vec![Self::HLC_MARK, shard],
            MetaKey::Topology => vec![Self::TOPOLOGY],
            MetaKey::Unsynced => vec![Self::UNSYNCED],
            MetaKey::Floor(partition) => {
                let mut bytes = vec![Self::FLOOR];
                put_partition(&mut bytes, partition);
                bytes
            }
            MetaKey::Sync { partition, source } => {
                let mut bytes = vec![Self::SYNC];
                put_partition(&mut bytes, partition);
                bytes.put_u16(source.0);
                bytes
            }
        }
    }

    /// The full syncs of a partition, from all owners.
    pub fn syncs(partition: Partition) -> Range {
        let mut prefix = vec![Self::SYNC];
        put_partition(&mut prefix, partition);
        prefix_range(prefix)
    }

    /// The source of a full sync, by the key of its row; `None` if it has another length.
    pub fn parse_sync_source(bytes: &[u8]) -> Option<NodeId> {
        let (_, source) = bytes.split_first_chunk::<{ 1 + PARTITION_BYTES }>()?;
        Some(NodeId(u16::from_be_bytes(source.try_into().ok()?)))
    }

    /// The marks of all shards that ever were.
    pub fn hlc_marks() -> Range {
        prefix_range(vec![Self::HLC_MARK])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PARTITION: Partition = Partition { n: 3, index: 0x0102 };

    #[test]
    fn layouts_are_golden() {
        let bucket = BucketId(0x0a0b_0c0d);
        assert_eq!(object_key(PARTITION, bucket, b"k\xff")[..], *b"\x03\x01\x02\x0a\x0b\x0c\x0dk\xff");
        let actor = ActorId(0x1122_3344_5566_7788);
        let log = b"\x03\x01\x02\x11\x22\x33\x44\x55\x66\x77\x88\x00\x00\x00\x00\x00\x00\x01\x00";
        assert_eq!(log_key(PARTITION, Dot(actor, 256))[..], *log);
        let hint = b"\x00\x09\x03\x01\x02\x0a\x0b\x0c\x0dk";
        assert_eq!(hint_key(NodeId(9), PARTITION, bucket, b"k")[..], *hint);
        let entry = LogEntry { erasable: false, bucket, key: Bytes::from_static(b"k") };
        assert_eq!(entry.encode()[..], *b"\x01\x00\x0a\x0b\x0c\x0dk");
        assert_eq!(MetaKey::Identity.encode(), [1]);
        assert_eq!(MetaKey::HlcMark { shard: 7 }.encode(), [2, 7]);
        assert_eq!(MetaKey::Topology.encode(), [3]);
        assert_eq!(MetaKey::Unsynced.encode(), [5]);
        assert_eq!(MetaKey::Floor(PARTITION).encode(), [4, 3, 1, 2]);
        let sync = MetaKey::Sync { partition: PARTITION, source: NodeId(9) }.encode();
        assert_eq!(sync, [6, 3, 1, 2, 0, 9]);
        assert_eq!(
            (MetaKey::parse_sync_source(&sync), MetaKey::parse_sync_source(&sync[1..])),
            (Some(NodeId(9)), None)
        );
        assert_eq!(MetaKey::syncs(PARTITION), (vec![6, 3, 1, 2], vec![6, 3, 1, 3]));
    }

    #[test]
    fn ranges_end_behind_the_last_key_and_before_the_next_neighbour() {
        let edge = Partition { n: 2, index: 0xffff };
        assert_eq!(object_range(edge), (vec![2, 0xff, 0xff], vec![3]));
        assert_eq!(bucket_range(edge, BucketId(u32::MAX)).1, [3]);
        assert_eq!(hint_range(NodeId(0x00ff)), (vec![0, 0xff], vec![1]));
        let (from, to) = hint_range(NodeId(u16::MAX));
        let last = hint_key(NodeId(u16::MAX), Partition { n: 15, index: u16::MAX }, BucketId(u32::MAX), b"\xff");
        assert!(from[..] < last[..] && last[..] < to[..] && share_prefix(&from, &to, TARGET_BYTES));
        assert_eq!(MetaKey::hlc_marks(), (vec![2], vec![3]));
        let (from, to) = log_range_of(edge, ActorId(u64::MAX), 5, u64::MAX);
        let inside = |seq| (&from[..]..&to[..]).contains(&&log_key(edge, Dot(ActorId(u64::MAX), seq))[..]);
        assert!(!inside(4) && inside(5) && inside(u64::MAX));
    }

    #[test]
    fn a_range_knows_whether_it_stays_within_a_prefix() {
        assert!(share_prefix(&[2, 0xff, 0xff], &[3], 3));
        assert!(share_prefix(&[2, 0, 1, 7], &[2, 0, 1, 9], 3));
        assert!(share_prefix(&[2, 0, 1], &[2, 0, 2], 3));
        assert!(!share_prefix(&[2, 0, 1], &[2, 0, 2, 0], 3));
        assert!(!share_prefix(&[2, 0, 1], &[2, 0, 3], 3));
        assert!(!share_prefix(&[2, 0], &[2, 0, 1], 3));
    }

    #[test]
    fn broken_rows_are_refused() {
        assert_eq!(parse_object_key(&Bytes::from_static(b"\x03\x01\x02\x0a\x0b\x0c")), None);
        assert_eq!(parse_log_key(&[0; LOG_KEY_BYTES - 1]), None);
        assert_eq!(parse_log_key(&[0; LOG_KEY_BYTES + 1]), None);
        assert_eq!(parse_hint_key(&Bytes::from_static(b"\x03")), None);
        assert_eq!(LogEntry::decode(&Bytes::new()), Err(LogEntryError::Short(0)));
        assert_eq!(LogEntry::decode(&Bytes::from_static(b"\x01\x00")), Err(LogEntryError::Short(2)));
        assert_eq!(LogEntry::decode(&Bytes::from_static(b"\x02\x00\x00\x00\x01k")), Err(LogEntryError::Version(2)));
    }

    fn partition() -> impl Strategy<Value = Partition> {
        (1u8..=15, any::<u16>()).prop_map(|(n, index)| Partition { n, index })
    }

    proptest! {
        #[test]
        fn keys_parse_back_and_keep_their_order(
            mut objects in prop::collection::vec((partition(), any::<u32>().prop_map(BucketId), any::<Vec<u8>>()), 2..20),
            mut dots in prop::collection::vec((partition(), any::<u64>(), any::<u64>()), 2..20),
            target in 1u16..,
        ) {
            objects.sort_by_key(|(p, b, k)| (p.n, p.index, *b, k.clone()));
            let keys: Vec<Bytes> = objects.iter().map(|(p, b, k)| object_key(*p, *b, k)).collect();
            prop_assert!(keys.is_sorted());
            for ((p, b, k), key) in objects.iter().zip(&keys) {
                let k = Bytes::copy_from_slice(k);
                prop_assert_eq!(parse_object_key(key), Some((*p, *b, k.clone())));
                let hint = hint_key(NodeId(target), *p, *b, &k);
                prop_assert_eq!(parse_hint_key(&hint), Some((NodeId(target), *p, *b, k.clone())));
                let entry = LogEntry { erasable: b.0.is_multiple_of(2), bucket: *b, key: k };
                prop_assert_eq!(LogEntry::decode(&entry.encode()), Ok(entry));
                for (from, to) in [object_range(*p), bucket_range(*p, *b)] {
                    prop_assert!(from[..] <= key[..] && key[..] < to[..]);
                }
                let (from, to) = hint_range(NodeId(target));
                prop_assert!(from[..] <= hint[..] && hint[..] < to[..]);
            }
            dots.sort_by_key(|(p, actor, seq)| (p.n, p.index, *actor, *seq));
            let keys: Vec<Bytes> = dots.iter().map(|(p, a, s)| log_key(*p, Dot(ActorId(*a), *s))).collect();
            prop_assert!(keys.is_sorted());
            for ((p, a, s), key) in dots.iter().zip(&keys) {
                prop_assert_eq!(parse_log_key(key), Some((*p, Dot(ActorId(*a), *s))));
            }
        }
    }
}
