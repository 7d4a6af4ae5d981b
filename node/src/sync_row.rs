//! How far a full sync has come, as a row of the meta table: written in the batch of each page, read at the start.
//!
//! ```text
//! version(u8) state(u8) own(u64) actor(u64) [bucket(u32) length(u16) key] base
//! ```
//! The place is there in state 1 only; the base is an encoded object that is absent, as the floor's is.

use crate::replica::{Place, Replica, Sync, corrupt};
use crate::storage::{MetaKey, Read, Staged, Storage, StorageError, Table};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_ring::id::{ActorId, BucketId, NodeId};
use quorate_ring::version::{Context, Object};

const VERSION: u8 = 1;
/// No page was taken yet; it goes on behind a place; everything was copied.
const BEGUN: u8 = 0;
const BEHIND: u8 = 1;
const COPIED: u8 = 2;

/// What the row says.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Progress {
    UnderWay(Sync),
    Copied,
}

impl Replica {
    /// Finds the full syncs again that were under way, and, for a node that still rebuilds, those that were finished.
    /// What another actor of this node had begun is of no use: it has forgotten since.
    pub(crate) fn load_syncs<S: Storage>(
        &mut self,
        store: &mut Staged<S>,
        own: ActorId,
        rebuilding: bool,
    ) -> Result<(), StorageError> {
        self.own = own;
        let (from, to) = MetaKey::syncs(self.partition);
        for (key, row) in store.scan(Table::Meta, &from, &to, usize::MAX)? {
            let broken = || corrupt("read how far a full sync has come", "the row is broken");
            let source = MetaKey::parse_sync_source(&key).ok_or_else(broken)?;
            let (owner, progress) = decode(&row).ok_or_else(broken)?;
            match progress {
                Progress::UnderWay(sync) if owner == own => {
                    self.syncs.insert(source, sync);
                }
                Progress::Copied if owner == own && rebuilding => {
                    self.copied.insert(source);
                }
                Progress::UnderWay(_) | Progress::Copied => store.stage(Table::Meta, key, None),
            }
        }
        match self.syncs.values().filter_map(|sync| sync.cursor.clone()).max() {
            Some(upto) => self.remind_of_copied(store, &upto),
            None => Ok(()),
        }
    }

    /// Whether everything was copied from another owner since this node may have forgotten.
    pub fn has_copied(&self, source: NodeId) -> bool {
        self.copied.contains(&source)
    }

    /// A rebuilding node need not copy from this owner again.
    pub(crate) fn mark_copied<S: Storage>(&mut self, store: &mut Staged<S>, source: NodeId) {
        self.copied.insert(source);
        let key = MetaKey::Sync { partition: self.partition, source }.encode();
        store.stage(Table::Meta, key.into(), Some(encode(self.own, &Progress::Copied)));
    }

    /// Notes how far the sync from a source has come, or that there is none.
    pub(crate) fn stage_sync<S: Storage>(&self, store: &mut Staged<S>, source: NodeId) {
        let row = self.syncs.get(&source).map(|sync| encode(self.own, &Progress::UnderWay(sync.clone())));
        store.stage(Table::Meta, MetaKey::Sync { partition: self.partition, source }.encode().into(), row);
    }
}

fn encode(own: ActorId, progress: &Progress) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(VERSION);
    let (state, actor, cursor, base) = match progress {
        Progress::UnderWay(sync) => {
            let state = if sync.cursor.is_some() { BEHIND } else { BEGUN };
            (state, sync.actor, sync.cursor.as_ref(), sync.base.clone())
        }
        Progress::Copied => (COPIED, ActorId(0), None, Context::new()),
    };
    bytes.put_u8(state);
    bytes.put_u64(own.0);
    bytes.put_u64(actor.0);
    if let Some(place) = cursor {
        bytes.put_u32(place.bucket.0);
        bytes.put_u16(u16::try_from(place.key.len()).expect("a key has 4,096 bytes at the most"));
        bytes.put_slice(&place.key);
    }
    bytes.put_slice(&Object::absent(base).encode());
    bytes.freeze()
}

fn decode(row: &Bytes) -> Option<(ActorId, Progress)> {
    let mut rest = row.clone();
    if rest.try_get_u8().ok()? != VERSION {
        return None;
    }
    let state = rest.try_get_u8().ok()?;
    let own = ActorId(rest.try_get_u64().ok()?);
    let actor = ActorId(rest.try_get_u64().ok()?);
    let mut cursor = None;
    if state == BEHIND {
        let bucket = BucketId(rest.try_get_u32().ok()?);
        let length = usize::from(rest.try_get_u16().ok()?);
        if rest.len() < length {
            return None;
        }
        cursor = Some(Place { bucket, key: rest.split_to(length) });
    }
    let base = Object::decode(&rest).ok()?.context().clone();
    let progress = match state {
        BEGUN | BEHIND => Progress::UnderWay(Sync { actor, base, cursor }),
        COPIED => Progress::Copied,
        _ => return None,
    };
    Some((own, progress))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_ring::version::Dot;

    const OWN: ActorId = ActorId(7);

    fn sync(key: Option<&'static [u8]>) -> Sync {
        let cursor = key.map(|key| Place { bucket: BucketId(2), key: Bytes::from_static(key) });
        Sync { actor: ActorId(0x0102), base: Context::of(Dot(ActorId(3), 4)), cursor }
    }

    #[test]
    fn a_row_reads_as_it_was_written_and_nothing_cut_short_does() {
        for progress in [Progress::UnderWay(sync(None)), Progress::UnderWay(sync(Some(b"key"))), Progress::Copied] {
            let row = encode(OWN, &progress);
            assert_eq!(decode(&row), Some((OWN, progress)));
            assert!((0..row.len()).all(|length| decode(&row.slice(..length)).is_none()));
        }
        assert_eq!(decode(&Bytes::from_static(b"\x02")), None);
    }

    #[test]
    fn the_layout_is_golden() {
        let row = encode(OWN, &Progress::UnderWay(sync(Some(b"k"))));
        let head = b"\x01\x01\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x02\x00\x01k";
        assert_eq!(row[..head.len()], *head);
        assert_eq!(row[head.len()..], Object::absent(Context::of(Dot(ActorId(3), 4))).encode()[..]);
    }
}
