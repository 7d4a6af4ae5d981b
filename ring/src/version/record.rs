//! The record of an object, byte for byte: as it is stored, and as it travels. Every write encodes one and decodes a few,
//! so it is spelled out here rather than left to a general format.
//!
//! ```text
//! version(u8)
//! actors(n), in order, each: actor(u64) seq(n), which is 0 if the context has none of it
//! siblings(n), each: place(n) seq(n) hlc(u64) 0(u8), or 1(u8) expires(n); op id(16) length(n) value
//! past ops, up to the end, each: hlc(u64) actor(u64) seq(u64) op id(16)
//! ```
//!
//! A place is that of an actor among the actors. `u64` is big-endian; `n` has seven bits in each byte, the least first,
//! and the upper bit in all but the last (LEB128).

use super::{Content, Context, Dot, Hlc, Object, PastOps, RecordError};
use crate::id::{ActorId, OpId};
use bytes::Bytes;

/// Version of the layout, the first byte.
pub(super) const RECORD_VERSION: u8 = 3;
/// The least that they take.
const ACTOR_BYTES: usize = 8 + 1;
const SIBLING_BYTES: usize = 1 + 1 + 8 + 1 + 16 + 1;
/// What a sibling may take beyond that, seldom reached: a guess for the size of a buffer.
const NUMBER_BYTES: usize = 10;
/// Past ops are left out of what is no longer than this without them, or is copied anyway.
const COPIED_MAX: usize = 16 * 1024;

pub(super) fn encode(object: &Object) -> Bytes {
    let actors = actors(object);
    let values: usize = object.siblings().iter().map(|(_, c)| SIBLING_BYTES + NUMBER_BYTES + c.value.len()).sum();
    let past_ops = object.past_ops().as_bytes();
    let mut out = Vec::with_capacity(1 + 1 + actors.len() * (ACTOR_BYTES + 4) + values + 1 + past_ops.len());
    out.push(RECORD_VERSION);
    put_number(&mut out, actors.len() as u64);
    for (actor, seq) in &actors {
        out.extend_from_slice(&actor.0.to_be_bytes());
        put_number(&mut out, *seq);
    }
    put_number(&mut out, object.siblings().len() as u64);
    for (dot, content) in object.siblings() {
        put_dot(&mut out, &actors, *dot);
        out.extend_from_slice(&content.hlc.0.to_be_bytes());
        out.push(u8::from(content.expires_ms.is_some()));
        content.expires_ms.iter().for_each(|at| put_number(&mut out, *at));
        out.extend_from_slice(&content.op_id.0);
        put_number(&mut out, content.value.len() as u64);
        out.extend_from_slice(&content.value);
    }
    out.extend_from_slice(past_ops);
    Bytes::from(out)
}

/// The actors of context and siblings, in order, with what the context covers of it.
fn actors(object: &Object) -> Vec<(ActorId, u64)> {
    let mut actors: Vec<_> = object.context().iter().collect();
    for actor in object.siblings().iter().map(|(dot, _)| dot.actor()) {
        if let Err(place) = actors.binary_search_by_key(&actor, |(a, _)| *a) {
            actors.insert(place, (actor, 0));
        }
    }
    actors
}

fn put_dot(out: &mut Vec<u8>, actors: &[(ActorId, u64)], Dot(actor, seq): Dot) {
    let place = actors.binary_search_by_key(&actor, |(a, _)| *a).expect("every actor is among them, in order");
    put_number(out, place as u64);
    put_number(out, seq);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The parts of a record. The siblings are as they were written: nothing about them is checked but that they are whole.
pub(super) struct Parts {
    pub siblings: Vec<(Dot, Content)>,
    pub context: Context,
    pub past_ops: PastOps,
}

/// Of the past ops, those whose dots are to be `kept`; of a tombstone all.
pub(super) fn decode(bytes: &[u8], kept: impl Fn(Dot) -> bool) -> Result<Parts, RecordError> {
    let mut reader = Reader::new(bytes)?;
    let actors = reader.actors()?;
    let count = reader.count(SIBLING_BYTES)?;
    let mut siblings = Vec::with_capacity(count);
    for _ in 0..count {
        let (dot, content) = reader.sibling(&actors)?;
        let value = Bytes::copy_from_slice(content.value);
        let Raw { hlc, expires_ms, op_id, .. } = content;
        siblings.push((dot, Content { value, hlc, expires_ms, op_id }));
    }
    let tombstone = siblings.is_empty();
    let past_ops = PastOps::from_bytes(reader.0, |dot| tombstone || kept(dot)).ok_or(RecordError::Short)?;
    Ok(Parts { siblings, context: Context::from(actors), past_ops })
}

/// The same record without the past ops that `settled` covers, and with nothing in place of the values of the siblings that are
/// `held`, in order. The same bytes, if there is none of either, if it is a tombstone, or if none is held and the values are so
/// long that the copy would cost more than the past ops.
pub(super) fn unsettled(bytes: &Bytes, settled: &Context, held: &[Dot]) -> Result<Bytes, RecordError> {
    let mut reader = Reader::new(bytes)?;
    let actors = reader.actors()?;
    let siblings = reader.count(SIBLING_BYTES)?;
    // What there is in place of what lies before `copied`, if values are left out.
    let (mut head, mut copied) = (Vec::new(), 0);
    for _ in 0..siblings {
        let (dot, Raw { value, left, .. }) = reader.sibling(&actors)?;
        if !value.is_empty() && held.binary_search(&dot).is_ok() {
            head.extend_from_slice(&bytes[copied..bytes.len() - left]);
            put_number(&mut head, 0);
            copied = bytes.len() - reader.0.len();
        }
    }
    let end = bytes.len() - reader.0.len();
    if siblings == 0 || (copied == 0 && end > COPIED_MAX) {
        return Ok(bytes.clone());
    }
    let mut all = 0;
    let unsettled = |dot| {
        all += 1;
        !settled.covers(dot)
    };
    let past_ops = PastOps::from_bytes(reader.0, unsettled).ok_or(RecordError::Short)?;
    if copied == 0 && past_ops.len() == all {
        return Ok(bytes.clone());
    }
    head.extend_from_slice(&bytes[copied..end]);
    head.extend_from_slice(past_ops.as_bytes());
    Ok(Bytes::from(head))
}

/// A sibling as it lies in a record.
struct Raw<'a> {
    value: &'a [u8],
    hlc: Hlc,
    expires_ms: Option<u64>,
    op_id: OpId,
    /// Bytes of the record from the length of the value on.
    left: usize,
}

/// What is left of a record.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let (version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
        if *version == RECORD_VERSION { Ok(Self(rest)) } else { Err(RecordError::Version(*version)) }
    }

    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        if let [byte @ 0..=0x7f, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let [byte] = *self.take()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if number >> shift != bits {
                break;
            }
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(RecordError::Malformed("a number has more than 64 bits".to_string()))
    }

    fn u64(&mut self) -> Result<u64, RecordError> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// How many items follow. No more than there are bytes for: memory is taken for so many.
    fn count(&mut self, item_bytes: usize) -> Result<usize, RecordError> {
        let count = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        if count > self.0.len() / item_bytes { Err(RecordError::Short) } else { Ok(count) }
    }

    fn actors(&mut self) -> Result<Vec<(ActorId, u64)>, RecordError> {
        let count = self.count(ACTOR_BYTES)?;
        let mut actors = Vec::with_capacity(count);
        for _ in 0..count {
            actors.push((ActorId(self.u64()?), self.number()?));
        }
        Ok(actors)
    }

    fn dot(&mut self, actors: &[(ActorId, u64)]) -> Result<Dot, RecordError> {
        let place = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        let unknown = || RecordError::Malformed(format!("it names actor {place} of {}", actors.len()));
        let (actor, _) = actors.get(place).ok_or_else(unknown)?;
        Ok(Dot(*actor, self.number()?))
    }

    fn op_id(&mut self) -> Result<OpId, RecordError> {
        self.take().map(|bytes| OpId(*bytes))
    }

    fn sibling(&mut self, actors: &[(ActorId, u64)]) -> Result<(Dot, Raw<'a>), RecordError> {
        let (dot, hlc) = (self.dot(actors)?, Hlc(self.u64()?));
        let expires_ms = match self.take::<1>()? {
            [0] => None,
            [1] => Some(self.number()?),
            [other] => return Err(RecordError::Expiry(*other)),
        };
        let op_id = self.op_id()?;
        let left = self.0.len();
        let length = self.count(1)?;
        let (value, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok((dot, Raw { value, hlc, expires_ms, op_id, left }))
    }
}
