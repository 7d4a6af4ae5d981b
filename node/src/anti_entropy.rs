//! Bringing replicas together by their clocks: pull, full sync, and the collection of what is settled.
//!
//! A pull hands over the dots that a replica lacks, with their keys' present objects, from the log. Where the log was
//! cut a full sync hands over the whole partition, page by page. It is as if one copied a library while books come and
//! go: the catalogue of the first day (the first page's clock) is adopted only when the last shelf was copied, and what
//! is handed in late for a shelf already copied is checked against that catalogue. Which shelf it has come to is noted
//! with each page, in the same batch (`sync_row`): a copy that is broken off by a restart goes on there, under its first
//! catalogue.

use crate::planted::{self, Bug};
use crate::replica::{Place, Replica, Sync, corrupt, corrupt_record, decode_entry};
use crate::storage::{LogEntry, MetaKey, Read, Staged, Storage, StorageError, Table};
use crate::storage::{log_key, log_range_of, object_key, object_range, parse_log_key, parse_object_key};
use bytes::Bytes;
use quorate_ring::id::{ActorId, BucketId, NodeId, Partition};
use quorate_ring::version::{Clock, Context, Dot, Object};
use quorate_ring::wire::client::ScanRecord;
use quorate_ring::wire::peer::{Pulled, PulledObject, SyncPage};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

/// Log entries read for one page of a pull, in pages of objects: they take less room than these.
const LOG_PAGES: usize = 2;
/// Own objects read at a time, while a page of a full sync is compared with them.
const OBJECT_PAGE_BYTES: usize = 1024 * 1024;

/// What one call of `Replica::collect` did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Collected {
    /// Objects erased.
    pub erased: u32,
    /// Log entries below the new floor.
    pub cut: usize,
    /// Objects looked at.
    pub looked_at: usize,
    /// Objects of which the other owners have to be told: what a tombstone knew that is none any more.
    pub revived: Vec<Place>,
}

impl Replica {
    /// What a replica with `theirs` lacks of this one: from the log, read before the objects.
    pub fn pull_page<S: Storage>(
        &self,
        store: &Staged<S>,
        theirs: &Clock,
        bytes_max: usize,
    ) -> Result<Pulled, StorageError> {
        let mut gaps: BTreeMap<Place, Vec<Dot>> = BTreeMap::new();
        let (mut below_floor, mut more) = (false, false);
        let mut log_left = LOG_PAGES * bytes_max;
        for (actor, first, last) in self.clock.missing_in(theirs) {
            let floor = self.floor.seq(actor);
            below_floor |= first <= floor;
            let first = first.max(floor + 1);
            if first > last {
                continue;
            }
            if log_left == 0 {
                more = true;
                break;
            }
            let (from, to) = log_range_of(self.partition, actor, first, last);
            let rows = store.scan_uncut(&from, &to, log_left)?;
            log_left = log_left.saturating_sub(rows.iter().map(|(key, entry)| key.len() + entry.len()).sum());
            more |= (rows.len() as u64) < last - first + 1;
            for (key, entry) in &rows {
                let (_, dot) =
                    parse_log_key(key).ok_or_else(|| corrupt("read the log", "a key has the wrong length"))?;
                gaps.entry(Place::of(entry)?).or_default().push(dot);
            }
        }
        let (mut objects, mut bytes) = (Vec::new(), 0);
        for (place, dots) in gaps {
            if bytes >= bytes_max {
                more = true;
                break;
            }
            let object = self.known_record(store, &place)?;
            bytes += object.len() + place.key.len();
            objects.push(PulledObject { bucket: place.bucket, key: place.key, object, dots });
        }
        Ok(Pulled { partition: self.partition, objects, below_floor, more })
    }

    /// A page of all objects, in the order of their keys, with the base of the clock at this moment.
    pub fn sync_page<S: Storage>(
        &self,
        store: &Staged<S>,
        actor: ActorId,
        after: Option<&Place>,
        bytes_max: usize,
    ) -> Result<SyncPage, StorageError> {
        let rows = self.objects_behind(store, after, None, bytes_max)?;
        let done = rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() < bytes_max;
        let record = |(key, object): (Bytes, Bytes)| {
            let (_, bucket, key) = parse_object_key(&key)?;
            Some(ScanRecord { bucket, key, object })
        };
        let records = rows.into_iter().filter_map(record).collect();
        Ok(SyncPage { partition: self.partition, actor, base: self.clock.base(), records, done })
    }

    /// Where a full sync from `source` goes on, if it is under way.
    pub fn sync_cursor(&self, source: NodeId) -> Option<(BucketId, Bytes)> {
        let cursor = self.syncs.get(&source)?.cursor.as_ref()?;
        Some((cursor.bucket, cursor.key.clone()))
    }

    /// Takes a page of a full sync. Returns whether it was the last; then the source's first clock is adopted.
    pub fn take_sync_page<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        source: NodeId,
        page: &SyncPage,
    ) -> Result<bool, StorageError> {
        if self.syncs.get(&source).is_none_or(|sync| sync.actor != page.actor) {
            let sync = Sync { actor: page.actor, base: page.base.clone(), cursor: None };
            if self.syncs.insert(source, sync).is_some() {
                self.stage_sync(store, source);
                return Ok(false); // It took a new actor under way: what this page follows is not its any more.
            }
        }
        if planted::is(Bug::ClockBeforeData) {
            self.adopt(store, &page.base)?;
        }
        if let (true, Some(sync)) = (planted::is(Bug::ResumeNewClock), self.syncs.get_mut(&source)) {
            sync.base = page.base.clone();
        }
        let (base, from) = (self.syncs[&source].base.clone(), self.syncs[&source].cursor.clone());
        let clock = Clock::from_base(&base);
        let last = page.records.last().map(|record| Place { bucket: record.bucket, key: record.key.clone() });
        let upto = if page.done { None } else { last.clone() };
        let mut theirs: BTreeMap<Place, Object> = BTreeMap::new();
        for record in &page.records {
            let object = Object::decode(&record.object).map_err(corrupt_record)?;
            theirs.insert(Place { bucket: record.bucket, key: record.key.clone() }, object);
        }
        for (place, object) in &theirs {
            self.merge(store, place, object, &[])?;
        }
        self.drop_superseded(store, (from, upto), &clock, &theirs)?;
        if !page.done {
            self.syncs.get_mut(&source).expect("it was put there above").cursor = last;
            self.stage_sync(store, source);
            return Ok(false);
        }
        self.syncs.remove(&source);
        self.stage_sync(store, source);
        self.adopt(store, &base)?;
        Ok(true)
    }

    /// Behind the first place, up to the second: drops own siblings that the source of a full sync has seen and no
    /// longer shows.
    fn drop_superseded<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        (mut from, upto): (Option<Place>, Option<Place>),
        clock: &Clock,
        theirs: &BTreeMap<Place, Object>,
    ) -> Result<(), StorageError> {
        let absent = Object::default();
        loop {
            let rows = self.objects_behind(store, from.as_ref(), upto.as_ref(), OBJECT_PAGE_BYTES)?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, record) in rows {
                let named = parse_object_key(&key).map(|(_, bucket, key)| Place { bucket, key });
                let place = named.ok_or_else(|| corrupt("read an object", "its key is short"))?;
                let mut mine = Object::decode(&record).map_err(corrupt_record)?;
                let before = mine.siblings().len();
                if !planted::is(Bug::SyncKeepsStale) {
                    mine.drop_superseded(clock, theirs.get(&place).unwrap_or(&absent));
                }
                let dropped = mine.siblings().len() != before;
                if dropped {
                    self.stage(store, &place, &mine);
                }
                // Also one of a sync that a restart broke off, before anything in the log could bring it to mind.
                if mine.is_tombstone() && (dropped || !self.erasable.contains_key(&place)) {
                    self.remind(store, &place, &mine);
                }
                from = Some(place);
            }
        }
    }

    /// After a restart in the middle of a copy: what was copied of tombstones, and is in no log yet, is brought to mind.
    pub(crate) fn remind_of_copied<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        upto: &Place,
    ) -> Result<(), StorageError> {
        let mut from = None;
        loop {
            let rows = self.objects_behind(store, from.as_ref(), Some(upto), OBJECT_PAGE_BYTES)?;
            if rows.is_empty() {
                return Ok(());
            }
            for (key, record) in rows {
                let named = parse_object_key(&key).map(|(_, bucket, key)| Place { bucket, key });
                let place = named.ok_or_else(|| corrupt("read an object", "its key is short"))?;
                let object = Object::decode(&record).map_err(corrupt_record)?;
                if object.is_tombstone() && !self.erasable.contains_key(&place) {
                    self.remind(store, &place, &object);
                }
                from = Some(place);
            }
        }
    }

    /// Everything up to `base` is here now, or superseded: the clock says so, and the log below is no more.
    fn adopt<S: Storage>(&mut self, store: &mut Staged<S>, base: &Context) -> Result<(), StorageError> {
        self.clock.union(&Clock::from_base(base));
        let floor: Vec<_> = self.floor.iter().collect();
        self.floor.join(base);
        for (actor, seq) in base.iter() {
            let before = floor.iter().find(|(a, _)| *a == actor).map_or(0, |(_, seq)| *seq);
            if seq > before {
                self.cut(store, actor, before + 1, seq, usize::MAX)?;
            }
        }
        self.stage_floor(store);
        // What no log entry brings to mind after a restart can now have one: its dots are in the clock.
        let unnoted = self.erasable.iter().filter(|(_, erasable)| erasable.dots.is_empty());
        for place in unnoted.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            if let Some(object) = self.stored(store, &place)? {
                self.remind(store, &place, &object);
            }
        }
        Ok(())
    }

    /// Whether there is nothing to collect, whatever is settled: the log is cut up to the clock's own base, and nothing
    /// waits to be erased.
    pub fn is_collected(&self) -> bool {
        self.erasable.is_empty() && self.clock.iter().all(|(actor, seqs)| seqs.base() == self.floor.seq(actor))
    }

    /// Cuts the log at the settled base, and erases what is settled there: tombstones whose whole context is settled,
    /// and content that has expired by every owner's clock. At most so many log entries are cut, and so many objects
    /// looked at; the next call goes on behind.
    pub fn collect<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        settled: &Context,
        expired_ms: u64,
        (cut_max, looks_max): (usize, usize),
    ) -> Result<Collected, StorageError> {
        let mut left = cut_max;
        let mut moved = false;
        self.settled.clone_from(settled);
        for (actor, seq) in settled.iter() {
            let floor = self.floor.seq(actor);
            if seq > floor && left > 0 {
                let upto = self.cut(store, actor, floor + 1, seq, left)?;
                left = left.saturating_sub((upto - floor) as usize);
                self.floor.raise(actor, upto);
                moved = true;
            }
        }
        if moved {
            self.stage_floor(store);
        }
        let collected = self.erase(store, settled, expired_ms, looks_max)?;
        Ok(Collected { cut: cut_max - left, ..collected })
    }

    /// Deletes the log entries `first..=last` of an actor, but keeps those of objects that may be due for erasing.
    /// Returns the seq up to which it came.
    fn cut<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        actor: ActorId,
        first: u64,
        last: u64,
        seqs_max: usize,
    ) -> Result<u64, StorageError> {
        let last = last.min(first.saturating_add(seqs_max as u64 - 1));
        let mut from = first;
        for (dot, place) in self.take_reminders(store, actor, (first, last))? {
            cut_run(store, self.partition, actor, (from, dot.seq() - 1));
            self.erasable.entry(place).or_default().note(dot);
            from = dot.seq().saturating_add(1);
        }
        cut_run(store, self.partition, actor, (from, last));
        Ok(last)
    }

    /// The log entries `first..=last` of an actor that stay as reminders, in order.
    fn take_reminders<S: Storage>(
        &mut self,
        store: &Staged<S>,
        actor: ActorId,
        (first, last): (u64, u64),
    ) -> Result<BTreeMap<Dot, Place>, StorageError> {
        let mut found = BTreeMap::new();
        let unlisted = last.min(self.unlisted.seq(actor));
        if first <= unlisted {
            let (from, to) = log_range_of(self.partition, actor, first, unlisted);
            for (key, entry) in store.scan_uncut(&from, &to, usize::MAX)? {
                let LogEntry { erasable, bucket, key: named } = decode_entry(&entry)?;
                let (_, dot) =
                    parse_log_key(&key).ok_or_else(|| corrupt("read the log", "a key has the wrong length"))?;
                if erasable {
                    found.insert(dot, Place { bucket, key: named });
                }
            }
        }
        let listed: Vec<Dot> =
            self.reminders.range(Dot(actor, first)..=Dot(actor, last)).map(|(dot, _)| *dot).collect();
        found.extend(listed.iter().filter_map(|dot| self.reminders.remove_entry(dot)));
        Ok(found)
    }

    fn erase<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        settled: &Context,
        expired_ms: u64,
        looks_max: usize,
    ) -> Result<Collected, StorageError> {
        let (mut collected, base) = (Collected::default(), self.clock.base());
        let from = self.erase_from.take().map_or(Bound::Unbounded, Bound::Included);
        let due = self.erasable.range((from, Bound::Unbounded)).filter(|(_, erasable)| erasable.due_ms <= expired_ms);
        let mut places = due.map(|(place, _)| place.clone());
        let now: Vec<Place> = places.by_ref().take(looks_max).collect();
        self.erase_from = places.next();
        collected.looked_at = now.len();
        for place in now {
            let mut object = self.stored(store, &place)?.unwrap_or_default();
            let own_dot = || object.past_ops().last().is_some_and(|past| settled.covers(past.dot));
            let whole = object.context().iter().all(|(actor, seq)| seq <= settled.seq(actor))
                || (planted::is(Bug::GcOwnDot) && own_dot());
            // Each sibling by itself: what else the context covers differs from owner to owner, and an event that a lost
            // disk took along would have some of them keep for ever what the others let go.
            if object.erase_expired(expired_ms, settled) {
                self.stage(store, &place, &object);
            }
            let expires = object.siblings().iter().filter_map(|(_, content)| content.expires_ms).min();
            if object.is_tombstone() && whole {
                store.stage(Table::Objects, self.object_key(&place), None);
                collected.erased += 1;
            } else {
                // What lies behind a hole in the clock, that a lost disk left, is never settled, and not waited for.
                let seen = |dot| settled.covers(dot) || !base.covers(dot);
                let seen = object.siblings().iter().all(|(dot, _)| seen(*dot));
                let erasable = self.erasable.entry(place.clone()).or_default();
                if seen && std::mem::take(&mut erasable.revived) && !object.is_tombstone() {
                    collected.revived.push(place.clone());
                }
                if object.is_tombstone() || expires.is_some() || erasable.revived {
                    erasable.due_ms = expires.filter(|_| !erasable.revived).unwrap_or(0);
                    continue;
                }
            }
            for dot in self.erasable.remove(&place).unwrap_or_default().dots {
                store.stage(Table::Log, log_key(self.partition, dot), None);
            }
        }
        Ok(collected)
    }

    fn stage_floor<S: Storage>(&self, store: &mut Staged<S>) {
        let row = Object::absent(self.floor.clone()).encode();
        store.stage(Table::Meta, MetaKey::Floor(self.partition).encode().into(), Some(row));
    }

    /// Stored objects behind `after`, up to and with `upto`.
    fn objects_behind<S: Storage>(
        &self,
        store: &Staged<S>,
        after: Option<&Place>,
        upto: Option<&Place>,
        bytes_max: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StorageError> {
        let behind = |place: &Place| {
            let mut key = object_key(self.partition, place.bucket, &place.key).to_vec();
            key.push(0);
            key
        };
        let (from, to) = object_range(self.partition);
        let from = after.map_or(from, behind);
        let to = upto.map_or(to, behind);
        store.scan(Table::Objects, &from, &to, bytes_max)
    }
}

/// Deletes log entries of an actor, from the first seq to the last.
fn cut_run<S: Storage>(store: &mut Staged<S>, partition: Partition, actor: ActorId, (first, last): (u64, u64)) {
    match first.cmp(&last) {
        Ordering::Less => store.cut(log_range_of(partition, actor, first, last)),
        Ordering::Equal => store.stage(Table::Log, log_key(partition, Dot(actor, first)), None),
        Ordering::Greater => {}
    }
}
