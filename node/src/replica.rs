//! A replica of one partition: its clock, its log, and the two ways in which its objects change: mint and merge.
//!
//! C1: a dot in a replica's durable clock means that its durable state for the dot's key holds the dot's value, or a
//! state that causally supersedes it. C2: no seq is skipped, and a dot is never minted twice. Both hold because the
//! object, the log entry and the seq that it carries go into one batch, and because nothing leaves the node before
//! that batch is committed.

use crate::storage::{LogEntry, MetaKey, Read, Staged, Storage, StorageError, Table};
use crate::storage::{log_key, log_range, object_key, parse_log_key};
use bytes::Bytes;
use quorate_ring::id::{ActorId, BucketId, OpId, Partition};
use quorate_ring::version::{Clock, Content, Context, Dot, Hlc, Object, RecordError};

/// How much of the log is read at a time.
const LOG_PAGE_BYTES: usize = 1024 * 1024;

/// A key of a bucket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub bucket: BucketId,
    pub key: Bytes,
}

/// A write as its coordinator has worked it out.
#[derive(Clone, Debug)]
pub struct Mint {
    pub op_id: OpId,
    pub hlc: Hlc,
    /// What it supersedes.
    pub seen: Context,
    /// None for a delete.
    pub content: Option<Content>,
}

/// One node's copy of one partition.
#[derive(Debug)]
pub struct Replica {
    partition: Partition,
    clock: Clock,
    /// The log below is gone; never above the clock's own base.
    floor: Context,
}

impl Replica {
    /// Rebuilds the clock from the floor and the log.
    pub fn load<S: Storage>(store: &Staged<S>, partition: Partition) -> Result<Self, StorageError> {
        let floor = match store.get(Table::Meta, &MetaKey::Floor(partition).encode())? {
            Some(bytes) => decode_floor(&bytes)?,
            None => Context::new(),
        };
        let mut replica = Self { partition, clock: Clock::from_base(&floor), floor };
        let (mut from, to) = log_range(partition);
        loop {
            let rows = store.scan(Table::Log, &from, &to, LOG_PAGE_BYTES)?;
            let Some((last, _)) = rows.last() else { return Ok(replica) };
            from = last.to_vec();
            from.push(0);
            for (key, _) in &rows {
                let (_, dot) =
                    parse_log_key(key).ok_or_else(|| corrupt("read the log", "a key has the wrong length"))?;
                replica.clock.insert(dot);
            }
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn floor(&self) -> &Context {
        &self.floor
    }

    /// What is stored of a key, if anything.
    pub fn stored<S: Storage>(&self, store: &Staged<S>, place: &Place) -> Result<Option<Object>, StorageError> {
        let row = store.get(Table::Objects, &self.object_key(place))?;
        row.map(|bytes| Object::decode(&bytes).map_err(corrupt_record)).transpose()
    }

    /// What this replica knows of a key: "absent" is said with the base of its clock.
    pub fn known<S: Storage>(&self, store: &Staged<S>, place: &Place) -> Result<Object, StorageError> {
        Ok(self.stored(store, place)?.unwrap_or_else(|| Object::absent(self.clock.base())))
    }

    /// Mints the next dot of `actor` for a write, and stages object and log entry.
    pub fn mint<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        place: &Place,
        actor: ActorId,
        write: Mint,
    ) -> Result<(Dot, Object), StorageError> {
        let mut object = self.stored(store, place)?.unwrap_or_default();
        let dot = Dot(actor, self.clock.max(actor) + 1);
        assert!(!self.floor.covers(dot), "{dot} of {} is minted below the floor", self.partition);
        object.write(dot, (write.op_id, write.hlc), &write.seen, write.content);
        self.stage(store, place, &object);
        self.enter(store, place, dot);
        Ok((dot, object))
    }

    /// Merges what another replica sent, and stages the outcome. `dots` are events of this key that the object
    /// includes or supersedes. Returns how many dots were new.
    pub fn merge<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        place: &Place,
        incoming: &Object,
        dots: &[Dot],
    ) -> Result<u32, StorageError> {
        let stored = self.stored(store, place)?;
        let mut merged = stored.clone().unwrap_or_default();
        merged.merge(incoming, |dot| self.clock.contains(dot));
        let nothing_to_keep = stored.is_none() && merged.is_tombstone() && self.covers(&merged);
        if stored.as_ref() != Some(&merged) && !nothing_to_keep {
            self.stage(store, place, &merged);
        }
        let mut fresh = 0;
        for dot in incoming.siblings().iter().map(|(dot, _)| *dot).chain(dots.iter().copied()) {
            fresh += u32::from(self.enter(store, place, dot));
        }
        Ok(fresh)
    }

    /// Whether every event that a tombstone knows of was seen here: such a tombstone was collected before, or says
    /// nothing that the clock does not say.
    fn covers(&self, tombstone: &Object) -> bool {
        self.clock.base().covers_all(tombstone.context())
    }

    fn enter<S: Storage>(&mut self, store: &mut Staged<S>, place: &Place, dot: Dot) -> bool {
        if dot.seq() == 0 || self.clock.contains(dot) {
            return false;
        }
        self.clock.insert(dot);
        let entry = LogEntry { bucket: place.bucket, key: place.key.clone() };
        store.stage(Table::Log, log_key(self.partition, dot), Some(entry.encode()));
        true
    }

    fn stage<S: Storage>(&self, store: &mut Staged<S>, place: &Place, object: &Object) {
        store.stage(Table::Objects, self.object_key(place), Some(object.encode()));
    }

    fn object_key(&self, place: &Place) -> Bytes {
        object_key(self.partition, place.bucket, &place.key)
    }
}

fn decode_floor(bytes: &[u8]) -> Result<Context, StorageError> {
    let object = Object::decode(bytes).map_err(corrupt_record)?;
    Ok(object.context().clone())
}

fn corrupt_record(cause: RecordError) -> StorageError {
    corrupt("read a record", &cause.to_string())
}

fn corrupt(doing: &'static str, cause: &str) -> StorageError {
    StorageError { doing, cause: cause.to_string() }
}
