//! What goes through while a batch is on its way to the disk.
//!
//! A commit takes longer than most of what else a shard does, and much of that has nothing to do with it: acks of puts that
//! are committed, and reads of keys that the batch does not write. These stage nothing, and what comes of them stems from
//! what is committed, so it may be carried out at once. All else waits for the end of the commit.

use super::operations::Operation;
use super::{Effect, Event, Kernel, Now, RequestId};
use crate::planted::{self, Bug};
use crate::storage::{Read, Storage, StorageError, Table, object_key};
use quorate_ring::id::{BucketId, NodeId};
use quorate_ring::version::Object;
use quorate_ring::wire::client::ClientRequest;
use quorate_ring::wire::peer::{Fetched, PeerReply, PeerRequest};
use std::collections::btree_map::Entry;

impl<S: Storage> Kernel<S> {
    /// Takes an event while a batch of this kernel is being committed. What the batch does not concern is handled, and
    /// what comes of it may be carried out at once; anything else is given back.
    pub fn meanwhile(
        &mut self,
        now: Now,
        event: Event,
        effects: &mut Vec<Effect>,
    ) -> Result<Option<Event>, StorageError> {
        let goes_through = match &event {
            Event::Client { message: ClientRequest::Read(read), .. } => self.is_at_rest(read.bucket, &read.key)?,
            Event::PeerRequest { message: PeerRequest::Fetch(fetch), .. } => {
                self.is_at_rest(fetch.bucket, &fetch.key)?
            }
            Event::PeerReply { from, request, message: PeerReply::Fetched(fetched) } => {
                let handled = self.fetched_meanwhile(now, *from, *request, fetched, effects)?;
                return Ok((!handled).then_some(event));
            }
            _ => return Ok(self.ack_meanwhile(now, event, effects)),
        };
        if !goes_through {
            return Ok(Some(event));
        }
        self.handle(now, event, effects)?;
        Ok(None)
    }

    /// Takes an ack. That of a put which is committed here is counted: this stages nothing, reads nothing that is stored,
    /// and what comes of it may be carried out at once. Whatever else it is is given back.
    pub fn ack_meanwhile(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) -> Option<Event> {
        let Event::PeerReply { from, request, message: message @ PeerReply::Replicated(_) } = event else {
            return Some(event);
        };
        let number = request.0 >> 8;
        let of_committed = self.asked(number) && self.minted.binary_search(&number).is_err();
        match self.operations.entry(number) {
            Entry::Occupied(put) if of_committed && matches!(put.get(), Operation::Put(_)) => {
                let operation = put.remove();
                self.put_replied(now, from, (number, operation), message, effects);
            }
            Entry::Vacant(_) if of_committed => self.late_reply(now, from, number, &message, effects),
            Entry::Occupied(_) | Entry::Vacant(_) => return Some(Event::PeerReply { from, request, message }),
        }
        None
    }

    /// Takes what an owner holds of a key, for a read of a client, if all that is known of the key by now is the same:
    /// else this node may be found behind, and have something to merge. Returns whether it did.
    fn fetched_meanwhile(
        &mut self,
        now: Now,
        from: NodeId,
        request: RequestId,
        fetched: &Fetched,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, StorageError> {
        let number = request.0 >> 8;
        let Entry::Occupied(read) = self.operations.entry(number) else { return Ok(false) };
        let Operation::Read { get, .. } = read.get() else { return Ok(false) };
        let object = match Object::decode(&fetched.object) {
            Ok(object) if get.agrees(&object) => object,
            Ok(_) | Err(_) => return Ok(false),
        };
        let operation = read.remove();
        self.get_replied(now, from, (number, operation), Ok((object, fetched.took_us)), effects)?;
        Ok(true)
    }

    /// Whether what this node has to say of a key is committed: it holds something, and the batch does not write it.
    /// "Absent" is said with the clock, which knows the batch already. Of a key that is none of its own it says nothing.
    fn is_at_rest(&self, bucket: BucketId, key: &[u8]) -> Result<bool, StorageError> {
        let Some(settings) = self.layout.topology().bucket(bucket) else { return Ok(true) };
        let partition = self.layout.partition(settings, key);
        if !self.replicas.contains_key(&partition) {
            return Ok(true);
        }
        let row = object_key(partition, bucket, key);
        if self.store.is_under_way(&row) && !planted::is(Bug::ReadUnderWay) {
            return Ok(false);
        }
        Ok(self.store.get(Table::Objects, &row)?.is_some() || planted::is(Bug::AbsentUnderWay))
    }
}
