//! A replica of one partition: its clock, its log, and the two ways in which its objects change: mint and merge.
//!
//! C1: a dot in a replica's durable clock means that its durable state for the dot's key holds the dot's value, or a
//! state that causally supersedes it. C2: no seq is skipped, and a dot is never minted twice. Both hold because the
//! object, the log entry and the seq that it carries go into one batch, and because nothing leaves the node before
//! that batch is committed.

use crate::planted::{self, Bug};
use crate::storage::{LogEntry, MetaKey, Read, Staged, Storage, StorageError, Table};
use crate::storage::{log_key, log_range, object_key, parse_log_key};
use bytes::Bytes;
use quorate_ring::id::{ActorId, BucketId, NodeId, OpId, Partition};
use quorate_ring::version::{Clock, Content, Context, Dot, Hlc, Object, RecordError};
use std::collections::{BTreeMap, BTreeSet};

/// How much of the log is read at a time.
const LOG_PAGE_BYTES: usize = 1024 * 1024;
/// Reminders that a replica lists in memory, as it has some hundred neighbours: more than come until all owners have seen them.
/// While an owner is away they do not go, and the log keeps the rest of them.
const REMINDERS_MAX: usize = 128;
/// Of longer keys the log tells, too.
const REMINDER_KEY_BYTES_MAX: usize = 256;

/// A key of a bucket.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub bucket: BucketId,
    pub key: Bytes,
}

impl Place {
    /// The key that a log entry names.
    pub(crate) fn of(entry: &Bytes) -> Result<Self, StorageError> {
        let entry = decode_entry(entry)?;
        Ok(Self { bucket: entry.bucket, key: entry.key })
    }
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
    pub(crate) partition: Partition,
    pub(crate) clock: Clock,
    /// The log below is gone; never above the clock's own base.
    pub(crate) floor: Context,
    /// What every owner had seen when that was last looked at: once superseded, the op ids of such events need not be
    /// told.
    pub(crate) settled: Context,
    /// Full syncs under way, by source.
    pub(crate) syncs: BTreeMap<NodeId, Sync>,
    /// Sources that were copied to the end since this node may have forgotten.
    pub(crate) copied: BTreeSet<NodeId>,
    /// Under which actor this node copies: under another one it has forgotten, and starts afresh.
    pub(crate) own: ActorId,
    /// Log entries above the floor whose objects may be due for erasing: they stay as the floor rises over them, and the
    /// objects become `erasable`. Up to `REMINDERS_MAX`.
    pub(crate) reminders: BTreeMap<Dot, Place>,
    /// Up to here there may be more of them, which the log tells.
    pub(crate) unlisted: Context,
    pub(crate) erasable: BTreeMap<Place, Erasable>,
    /// Where the next look at them goes on.
    pub(crate) erase_from: Option<Place>,
}

/// An object that may be due for erasing.
#[derive(Debug, Default)]
pub(crate) struct Erasable {
    /// The log entries, at or below the floor, that are kept as reminders of it.
    pub(crate) dots: BTreeSet<Dot>,
    /// It was a tombstone, and whoever sent the value that it holds now did not know of all that it knew: they may have
    /// erased theirs before. It is not erased any more, so the other owners are told once all have seen the value.
    pub(crate) revived: bool,
    /// It need not be looked at before this time: there is something to be seen, and it expires no earlier.
    pub(crate) due_ms: u64,
}

impl Erasable {
    /// Something happened to the object: it is to be looked at.
    pub(crate) fn note(&mut self, dot: Dot) {
        self.dots.insert(dot);
        self.due_ms = 0;
    }
}

/// A full sync from one source: see `anti_entropy`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sync {
    /// Whose state it is: a source that took a new actor is synced from the start.
    pub(crate) actor: ActorId,
    /// The base of the source's clock at the first page; adopted after the last.
    pub(crate) base: Context,
    /// The last key passed.
    pub(crate) cursor: Option<Place>,
}

impl Sync {
    fn passed(&self, place: &Place) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| place <= cursor)
    }
}

impl Replica {
    /// Rebuilds the clock from the floor and the log.
    pub fn load<S: Storage>(store: &Staged<S>, partition: Partition) -> Result<Self, StorageError> {
        let floor = match store.get(Table::Meta, &MetaKey::Floor(partition).encode())? {
            Some(bytes) => decode_floor(&bytes)?,
            None => Context::new(),
        };
        let mut replica = Self {
            partition,
            clock: Clock::from_base(&floor),
            floor,
            settled: Context::new(),
            syncs: BTreeMap::new(),
            copied: BTreeSet::new(),
            own: ActorId(0),
            reminders: BTreeMap::new(),
            unlisted: Context::new(),
            erasable: BTreeMap::new(),
            erase_from: None,
        };
        let (mut from, to) = log_range(partition);
        loop {
            let rows = store.scan(Table::Log, &from, &to, LOG_PAGE_BYTES)?;
            let Some((last, _)) = rows.last() else { return Ok(replica) };
            from = last.to_vec();
            from.push(0);
            let remembered = rows.len() - usize::from(planted::is(Bug::DotReuse));
            for (key, entry) in &rows[..remembered] {
                let (_, dot) =
                    parse_log_key(key).ok_or_else(|| corrupt("read the log", "a key has the wrong length"))?;
                replica.clock.insert(dot);
                let LogEntry { erasable, bucket, key } = decode_entry(entry)?;
                if replica.floor.covers(dot) {
                    replica.erasable.entry(Place { bucket, key }).or_default().note(dot);
                } else if erasable {
                    replica.note_reminder(dot, &Place { bucket, key });
                }
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

    /// All that this replica knows of a key, encoded: "absent" is said with the base of its clock.
    pub fn known_record<S: Storage>(&self, store: &Staged<S>, place: &Place) -> Result<Bytes, StorageError> {
        let row = store.get(Table::Objects, &self.object_key(place))?;
        Ok(row.unwrap_or_else(|| Object::absent(self.clock.base()).encode()))
    }

    /// What this replica answers to a reader of a key, encoded: without op ids that every owner has seen, and without the
    /// values of the siblings `held`, which are in order.
    pub fn answer_record<S: Storage>(
        &self,
        store: &Staged<S>,
        place: &Place,
        held: &[Dot],
    ) -> Result<Bytes, StorageError> {
        let record = self.known_record(store, place)?;
        let all: Vec<Dot> = match planted::is(Bug::ValueNotHeld) {
            true => Object::decode(&record).map_err(corrupt_record)?.long(0).collect(),
            false => Vec::new(),
        };
        let held = if all.is_empty() { held } else { &all };
        Object::unsettled_record(&record, &self.settled, held).map_err(corrupt_record)
    }

    /// The same, decoded.
    pub fn answer<S: Storage>(&self, store: &Staged<S>, place: &Place) -> Result<Object, StorageError> {
        let row = store.get(Table::Objects, &self.object_key(place))?;
        let object = row.map(|bytes| Object::decode_unsettled(&bytes, &self.settled)).transpose();
        Ok(object.map_err(corrupt_record)?.unwrap_or_else(|| Object::absent(self.clock.base())))
    }

    /// Mints the next dot of `actor` for a write to `object`, which is what is stored of the key; stages object and log
    /// entry. Returns the dot, and the record that the other owners are to get.
    pub fn mint<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        place: &Place,
        object: &mut Object,
        actor: ActorId,
        write: Mint,
    ) -> (Dot, Bytes) {
        let dot = Dot(actor, self.clock.max(actor) + 1);
        assert!(!self.floor.covers(dot), "{dot} of {} is minted below the floor", self.partition);
        // Some owner may have erased it by now. So all that it knew is told, and once more when all have seen the write.
        let buried = object.siblings().iter().all(|(_, content)| content.expired(write.hlc.wall_ms()));
        if buried && write.content.is_some() && !object.past_ops().is_empty() {
            self.erasable.entry(place.clone()).or_default().revived = true;
        }
        object.write(dot, (write.op_id, write.hlc), &write.seen, write.content);
        if planted::is(Bug::SettledOpForgotten) {
            *object = Object::decode_unsettled(&object.encode(), &self.settled).expect("it was just written");
        }
        let record = self.stage(store, place, object);
        self.enter(store, place, object, dot);
        let settled = if buried { &Context::new() } else { &self.settled };
        let told = Object::unsettled_record(&record, settled, &[]).expect("the record was made right here");
        (dot, told)
    }

    /// Merges what another replica sent, and stages the outcome. `dots` are events of this key that the object
    /// includes or supersedes, beside those that it tells of itself. Returns how many dots were new.
    pub fn merge<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        place: &Place,
        incoming: &Object,
        dots: &[Dot],
    ) -> Result<u32, StorageError> {
        let row = self.object_key(place);
        let stored = store.get(Table::Objects, &row)?;
        let mut merged = match &stored {
            Some(record) => Object::decode(record).map_err(corrupt_record)?,
            None => Object::default(),
        };
        let buried = stored.is_some() && merged.is_tombstone() && !incoming.remembers_all_of(&merged);
        let passed: Vec<&Sync> = self.syncs.values().filter(|sync| sync.passed(place)).collect();
        let in_sync = |dot| !planted::is(Bug::SyncGap) && passed.iter().any(|sync| sync.base.covers(dot));
        let seen = |dot| !planted::is(Bug::IgnoreClock) && self.clock.contains(dot);
        merged.merge(incoming, |dot| seen(dot) || in_sync(dot));
        if planted::is(Bug::DroppedSibling) {
            merged.drop_superseded(&self.clock, incoming);
        } else if planted::is(Bug::OverwriteInsteadOfMerge) {
            merged = incoming.clone();
        }
        let nothing_to_keep = stored.is_none() && merged.is_tombstone() && self.covers(&merged);
        let record = merged.encode();
        let changed = stored.as_ref() != Some(&record) && !nothing_to_keep;
        if changed {
            store.stage(Table::Objects, row, Some(record));
        }
        let mut fresh = 0;
        for dot in told(incoming, dots) {
            fresh += u32::from(self.enter(store, place, &merged, dot));
        }
        if changed && fresh == 0 && merged.is_tombstone() {
            self.remind(store, place, &merged); // No new log entry will bring it to mind.
        }
        if buried && !merged.is_tombstone() {
            self.erasable.entry(place.clone()).or_default().revived = true;
        }
        Ok(fresh)
    }

    /// Makes sure that a tombstone is looked at until it is erased, also after a restart: by the log entry of an event
    /// of its key, if one that is known was seen here.
    pub(crate) fn remind<S: Storage>(&mut self, store: &mut Staged<S>, place: &Place, tombstone: &Object) {
        let erasable = self.erasable.entry(place.clone()).or_default();
        erasable.due_ms = 0;
        let seen = tombstone.past_ops().iter().map(|past| past.dot).rfind(|dot| self.clock.contains(*dot));
        let Some(dot) = seen else { return };
        let entry = LogEntry { erasable: true, bucket: place.bucket, key: place.key.clone() };
        store.stage(Table::Log, log_key(self.partition, dot), Some(entry.encode()));
        if self.floor.covers(dot) {
            erasable.note(dot);
        } else {
            self.note_reminder(dot, place);
        }
    }

    /// Whether every event that a tombstone knows of was seen here: such a tombstone was collected before, or says
    /// nothing that the clock does not say.
    fn covers(&self, tombstone: &Object) -> bool {
        self.clock.base().covers_all(tombstone.context())
    }

    fn enter<S: Storage>(&mut self, store: &mut Staged<S>, place: &Place, object: &Object, dot: Dot) -> bool {
        if dot.seq() == 0 || self.clock.contains(dot) {
            return false;
        }
        self.clock.insert(dot);
        let expires = object.siblings().iter().any(|(_, content)| content.expires_ms.is_some());
        let erasable = expires || object.is_tombstone();
        if erasable {
            self.note_reminder(dot, place);
        }
        let entry = LogEntry { erasable, bucket: place.bucket, key: place.key.clone() };
        store.stage(Table::Log, log_key(self.partition, dot), Some(entry.encode()));
        true
    }

    /// The log entry of this event, above the floor, is to stay when the log is cut.
    fn note_reminder(&mut self, dot: Dot, place: &Place) {
        if self.reminders.len() < REMINDERS_MAX && place.key.len() <= REMINDER_KEY_BYTES_MAX {
            // A copy, which holds on to no message that the key is a part of.
            let key = Bytes::copy_from_slice(&place.key);
            self.reminders.insert(dot, Place { bucket: place.bucket, key });
        } else {
            self.unlisted.raise(dot.actor(), dot.seq());
        }
    }

    pub(crate) fn stage<S: Storage>(&self, store: &mut Staged<S>, place: &Place, object: &Object) -> Bytes {
        let record = object.encode();
        store.stage(Table::Objects, self.object_key(place), Some(record.clone()));
        record
    }

    pub(crate) fn object_key(&self, place: &Place) -> Bytes {
        object_key(self.partition, place.bucket, &place.key)
    }
}

/// The events that a message tells of: those whose values it carries, those that it says it covers, and those that the
/// object remembers. Without the last a delete would take effect here by its context alone, and if the disk of whoever
/// minted it were lost then, no clock would ever tell the other owners.
pub(crate) fn told<'a>(incoming: &'a Object, dots: &'a [Dot]) -> impl Iterator<Item = Dot> + 'a {
    let shown = incoming.siblings().iter().map(|(dot, _)| *dot);
    let past = incoming.past_ops().iter().map(|past| past.dot).filter(|dot| incoming.context().covers(*dot));
    shown.chain(dots.iter().copied()).chain(past)
}

fn decode_floor(bytes: &[u8]) -> Result<Context, StorageError> {
    let object = Object::decode(bytes).map_err(corrupt_record)?;
    Ok(object.context().clone())
}

pub(crate) fn decode_entry(bytes: &Bytes) -> Result<LogEntry, StorageError> {
    LogEntry::decode(bytes).map_err(|why| corrupt("read the log", &why.to_string()))
}

pub(crate) fn corrupt_record(cause: RecordError) -> StorageError {
    corrupt("read a record", &cause.to_string())
}

pub(crate) fn corrupt(doing: &'static str, cause: &str) -> StorageError {
    StorageError { doing, cause: cause.to_string() }
}
