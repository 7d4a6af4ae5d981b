//! One key at one replica: its siblings, what is known of it, and how two such states become one.

use super::record::{self, Parts, RECORD_VERSION};
use super::{Clock, Context, Dot, Hlc, PastOp, PastOps};
use crate::id::OpId;
use bytes::Bytes;

/// A client's put that would leave more siblings than this is refused; merges never are.
pub const SIBLINGS_MAX: usize = 64;
/// What a put wrote.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    pub value: Bytes,
    pub hlc: Hlc,
    /// Milliseconds since 1970 from which the value reads as deleted.
    pub expires_ms: Option<u64>,
    pub op_id: OpId,
}

impl Content {
    pub fn expired(&self, wall_ms: u64) -> bool {
        self.expires_ms.is_some_and(|at| at <= wall_ms)
    }
}

/// One key at one replica.
///
/// `context` covers the dot of every sibling. A dot that the context covers and that is not among the siblings was
/// superseded. An object without siblings is a tombstone.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Object {
    /// In the order of their dots.
    siblings: Vec<(Dot, Content)>,
    context: Context,
    past_ops: PastOps,
}

/// Why bytes are not an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is empty")]
    Empty,
    #[error("record version {0} is not known to this program; it knows version {RECORD_VERSION}")]
    Version(u8),
    #[error("the record is cut short")]
    Short,
    #[error("the record says {0} where it should say whether a value expires")]
    Expiry(u8),
    #[error("the record does not decode: {0}")]
    Malformed(String),
    #[error("the context does not cover sibling {0}")]
    Uncovered(Dot),
}

impl Object {
    /// "No such key", from a replica whose clock has this base: everything up to there was seen, and is not here.
    pub fn absent(base: Context) -> Self {
        Self { context: base, ..Self::default() }
    }

    pub fn siblings(&self) -> &[(Dot, Content)] {
        &self.siblings
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn past_ops(&self) -> &PastOps {
        &self.past_ops
    }

    pub fn is_tombstone(&self) -> bool {
        self.siblings.is_empty()
    }

    pub fn shows(&self, dot: Dot) -> bool {
        self.siblings.binary_search_by_key(&dot, |(d, _)| *d).is_ok()
    }

    /// The dot of the event with this op id, if it is still known here.
    pub fn event_of(&self, op_id: OpId) -> Option<Dot> {
        let live = self.siblings.iter().filter(|(_, c)| c.op_id == op_id).map(|(d, _)| *d).max();
        live.or_else(|| self.past_ops.event_of(op_id))
    }

    /// The newest timestamp of anything here; what a coordinator's next one has to be above.
    pub fn hlc_max(&self) -> Hlc {
        let live = self.siblings.iter().map(|(_, c)| c.hlc).max();
        live.max(self.past_ops.last().map(|p| p.hlc)).unwrap_or_default()
    }

    /// A new event: what `seen` covers goes, `content` (none for a delete) is added under `dot`.
    pub fn write(&mut self, dot: Dot, op: (OpId, Hlc), seen: &Context, content: Option<Content>) {
        let mut past = self.let_go(|dot, _| seen.covers(dot));
        match content {
            Some(content) => self.insert(dot, content),
            None => past.push(PastOp { hlc: op.1, dot, op_id: op.0 }),
        }
        self.past_ops.add(past);
        self.context.join(seen);
        self.context.raise(dot.actor(), dot.seq());
    }

    /// How many siblings a write that has seen `seen` would leave beside its own.
    pub fn left_by(&self, seen: &Context) -> usize {
        self.siblings.iter().filter(|(d, _)| !seen.covers(*d)).count()
    }

    /// Merges what another replica sent. `known` says whether the local replica has seen a dot (its clock, and the
    /// clock of a full sync that has passed this key): an incoming sibling that was seen and is no longer shown here
    /// was superseded, and does not come back.
    pub fn merge(&mut self, incoming: &Object, known: impl Fn(Dot) -> bool) {
        let mut past = Vec::new();
        let mut fresh = Vec::new();
        for (dot, content) in incoming.siblings.iter().filter(|(d, _)| !self.shows(*d)) {
            if self.context.covers(*dot) || known(*dot) {
                // It was superseded before it came, and may yet be tried again.
                past.push(PastOp { hlc: content.hlc, dot: *dot, op_id: content.op_id });
            } else {
                fresh.push((*dot, content.clone()));
            }
        }
        past.extend(self.let_go(|dot, _| incoming.context.covers(dot) && !incoming.shows(dot)));
        for (dot, content) in fresh {
            self.insert(dot, content);
        }
        self.context.join(&incoming.context);
        self.past_ops.unite(&incoming.past_ops);
        self.past_ops.add(past);
    }

    /// Two answers about one key as one: kept is what both show, or what one shows and the other has not seen.
    pub fn union(&mut self, other: &Object) {
        self.merge(other, |_| false);
    }

    /// Drops siblings that `clock` has seen and `shown` no longer shows: the source of a full sync let them go.
    pub fn drop_superseded(&mut self, clock: &Clock, shown: &Object) {
        let past = self.let_go(|dot, _| clock.contains(dot) && !shown.shows(dot));
        self.past_ops.add(past);
    }

    /// Drops expired siblings that every owner has seen, for good; they stay covered by the context. Returns whether
    /// any went.
    pub fn erase_expired(&mut self, wall_ms: u64, settled: &Context) -> bool {
        let past = self.let_go(|dot, content| content.expired(wall_ms) && settled.covers(dot));
        let erased = !past.is_empty();
        self.past_ops.add(past);
        erased
    }

    /// What this knows, without what it holds: answers "what would a write supersede?".
    pub fn context_only(&self) -> Self {
        Self { context: self.context.clone(), ..Self::default() }
    }

    /// The same values and op ids, knowing only as much as `context`, which has to cover the values.
    pub fn knowing(&self, context: Context) -> Self {
        assert!(self.siblings.iter().all(|(dot, _)| context.covers(*dot)), "a context covers the siblings beside it");
        Self { context, ..self.clone() }
    }

    /// Whether this tells of no event by itself: "absent", as a replica says it with the base of its clock.
    pub fn is_absent(&self) -> bool {
        self.siblings.is_empty() && self.past_ops.is_empty()
    }

    /// Whether this knows of every event that `other` knows of, by context and by op id, as far as these are kept.
    pub fn remembers_all_of(&self, other: &Object) -> bool {
        self.context.covers_all(&other.context) && self.past_ops.remember(&other.past_ops)
    }

    /// Whether `other` holds a sibling that this lacks, or lacks one that this shows: differences of value, not of
    /// context alone.
    pub fn shows_same_as(&self, other: &Object) -> bool {
        self.siblings.len() == other.siblings.len() && self.siblings.iter().all(|(d, _)| other.shows(*d))
    }

    /// Drops siblings. Returns their op ids, which are to be kept: a late retry of such a write is no new one.
    fn let_go(&mut self, gone: impl Fn(Dot, &Content) -> bool) -> Vec<PastOp> {
        let mut past = Vec::new();
        self.siblings.retain(|(dot, content)| {
            let goes = gone(*dot, content);
            if goes {
                past.push(PastOp { hlc: content.hlc, dot: *dot, op_id: content.op_id });
            }
            !goes
        });
        past
    }

    fn insert(&mut self, dot: Dot, content: Content) {
        match self.siblings.binary_search_by_key(&dot, |(d, _)| *d) {
            Ok(i) => self.siblings[i].1 = content,
            Err(i) => self.siblings.insert(i, (dot, content)),
        }
        self.context.raise(dot.actor(), dot.seq());
    }

    /// The record as it is stored.
    pub fn encode(&self) -> Bytes {
        record::encode(self)
    }

    /// A record as it goes to other owners with a write, or to a reader: without the op ids of superseded events that
    /// every owner has seen, and so had in its own copy. A tombstone keeps all: an owner may have erased its own.
    ///
    /// The siblings `held`, in order, go without their values: the reader has them (see [`Object::take_values`]).
    pub fn unsettled_record(record: &Bytes, settled: &Context, held: &[Dot]) -> Result<Bytes, RecordError> {
        record::unsettled(record, settled, held)
    }

    /// The siblings whose values have so many bytes or more.
    pub fn long(&self, bytes_min: usize) -> impl Iterator<Item = Dot> {
        self.siblings.iter().filter(move |(_, content)| content.value.len() >= bytes_min).map(|(dot, _)| *dot)
    }

    /// Values that were left out here are taken from `held`: one event has one value, wherever it is.
    pub fn take_values(&mut self, held: &Object) {
        for (dot, content) in self.siblings.iter_mut().filter(|(_, content)| content.value.is_empty()) {
            if let Ok(i) = held.siblings.binary_search_by_key(dot, |(d, _)| *d) {
                content.value = held.siblings[i].1.value.clone();
            }
        }
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        Self::decode_keeping(bytes, |_| true)
    }

    /// The object of a record, without the op ids that [`Object::unsettled_record`] leaves out, however long its values.
    pub fn decode_unsettled(bytes: &[u8], settled: &Context) -> Result<Self, RecordError> {
        Self::decode_keeping(bytes, |dot| !settled.covers(dot))
    }

    fn decode_keeping(bytes: &[u8], kept: impl Fn(Dot) -> bool) -> Result<Self, RecordError> {
        let Parts { mut siblings, context, past_ops } = record::decode(bytes, kept)?;
        siblings.sort_unstable_by_key(|(d, _)| *d);
        siblings.dedup_by_key(|(d, _)| *d);
        if let Some((dot, _)) = siblings.iter().find(|(d, _)| d.seq() == 0 || !context.covers(*d)) {
            return Err(RecordError::Uncovered(*dot));
        }
        Ok(Self { siblings, context, past_ops })
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
