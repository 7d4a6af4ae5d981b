//! What a node is to take of memory in all, and which part of it gets how much.

use std::ops::RangeInclusive;

const MIB: u64 = 1024 * 1024;
/// What a node takes that holds nothing and serves nobody, about: code, threads, connections to its peers, clocks.
const OWN_BYTES: u64 = 32 * MIB;
/// More for what waits or is on its way to files does not make anything quicker.
const WAITING_BYTES_MAX: u64 = 64 * MIB;

/// The parts of a node's memory, in bytes. They and [`OWN_BYTES`] are the whole. Beside them is what is under way: messages of
/// peers that wait, and copies of long values. For these each queue has its own bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// In all.
    pub bytes: usize,
    /// For requests of clients that wait for a shard.
    pub inbox_bytes: usize,
    /// For rows that are not yet in a file, over all tables.
    pub buffer_bytes: usize,
    /// For blocks of files, filters and indexes among them.
    pub block_bytes: usize,
    /// For objects that were read or written not long ago.
    pub object_bytes: usize,
}

impl Memory {
    /// What a node has where nothing is said.
    pub const BYTES_USUAL: u64 = 256 * MIB;
    /// The cache of blocks takes a table at once that is as long as some hundredths of it.
    pub const BYTES_MAX: u64 = 1024 * 1024 * MIB;

    /// Shares `bytes` out: so many to requests that wait, or else a quarter and at most 64 MiB; a quarter and at most 64
    /// MiB to rows on their way to files; and what is left to the caches, two parts to blocks and one to objects.
    ///
    /// # Errors
    /// How many bytes it has to be: with the least of them the caches have a quarter.
    pub fn shared_out(bytes: u64, inbox_bytes: Option<u64>) -> Result<Self, RangeInclusive<u64>> {
        let least = (4 * OWN_BYTES).max(2 * (OWN_BYTES + inbox_bytes.unwrap_or(0)));
        let possible = least..=Self::BYTES_MAX;
        if !possible.contains(&bytes) {
            return Err(possible);
        }
        let buffer_bytes = (bytes / 4).min(WAITING_BYTES_MAX);
        let inbox_bytes = inbox_bytes.unwrap_or(buffer_bytes);
        let cache_bytes = bytes - OWN_BYTES - inbox_bytes - buffer_bytes;
        let object_bytes = cache_bytes / 3;
        Ok(Self {
            bytes: bytes as usize,
            inbox_bytes: inbox_bytes as usize,
            buffer_bytes: buffer_bytes as usize,
            block_bytes: (cache_bytes - object_bytes) as usize,
            object_bytes: object_bytes as usize,
        })
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::shared_out(Self::BYTES_USUAL, None).expect("the usual is enough")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_whole_and_the_caches_have_a_quarter_and_more() {
        let given = [None, Some(MIB), Some(64 * MIB), Some(16 * 1024 * MIB)];
        for inbox_bytes in given {
            let possible = Memory::shared_out(0, inbox_bytes).unwrap_err();
            let (least, most) = (*possible.start(), *possible.end());
            assert_eq!(Memory::shared_out(least - 1, inbox_bytes), Err(possible.clone()));
            assert_eq!(Memory::shared_out(most + 1, inbox_bytes), Err(possible));
            for bytes in [least, least + 1, 3 * least, most] {
                let memory = Memory::shared_out(bytes, inbox_bytes).unwrap();
                let caches = memory.block_bytes + memory.object_bytes;
                let parts = OWN_BYTES as usize + memory.inbox_bytes + memory.buffer_bytes + caches;
                assert_eq!((parts, memory.bytes), (bytes as usize, bytes as usize));
                assert!(4 * caches >= memory.bytes, "{inbox_bytes:?} {memory:?}");
                assert!(inbox_bytes.is_none_or(|inbox_bytes| inbox_bytes as usize == memory.inbox_bytes));
            }
        }
    }

    #[test]
    fn the_usual_is_as_the_configuration_says() {
        let mib = |bytes: usize| bytes as u64 / MIB;
        let usual = Memory::default();
        assert_eq!((mib(usual.inbox_bytes), mib(usual.buffer_bytes)), (64, 64));
        assert_eq!((mib(usual.block_bytes), mib(usual.object_bytes)), (64, 32));
    }
}
