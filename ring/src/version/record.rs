//! The record of an object, byte for byte: as it is stored, and as it travels. Every write encodes one and decodes a few,
//! so it is spelled out here rather than left to a general format. Numbers are big-endian.
//!
//! ```text
//! version(u8)
//! siblings(u32), each: actor(u64) seq(u64) hlc(u64) 0(u8), or 1(u8) expires(u64); op id(16) length(u32) value
//! context(u32), each: actor(u64) seq(u64)
//! past ops, up to the end, each: hlc(u64) actor(u64) seq(u64) op id(16)
//! ```

use super::{Content, Context, Dot, Hlc, Object, PastOp, RecordError};
use crate::id::{ActorId, OpId};
use bytes::{BufMut, Bytes};

/// Version of the layout, the first byte.
pub(super) const RECORD_VERSION: u8 = 1;
/// Of a sibling, without its expiry and its value.
const SIBLING_BYTES: usize = 8 + 8 + 8 + 1 + 16 + 4;
const ENTRY_BYTES: usize = 8 + 8;
const PAST_OP_BYTES: usize = 8 + 8 + 8 + 16;

pub(super) fn encode(object: &Object) -> Bytes {
    let values: usize = object.siblings().iter().map(|(_, c)| SIBLING_BYTES + 8 + c.value.len()).sum();
    let rest = object.context().len() * ENTRY_BYTES + object.past_ops().len() * PAST_OP_BYTES;
    let mut out = Vec::with_capacity(1 + 4 + values + 4 + rest);
    out.put_u8(RECORD_VERSION);
    out.put_u32(object.siblings().len() as u32);
    for (dot, content) in object.siblings() {
        put_dot(&mut out, *dot);
        out.put_u64(content.hlc.0);
        out.put_u8(u8::from(content.expires_ms.is_some()));
        content.expires_ms.iter().for_each(|at| out.put_u64(*at));
        out.put_slice(&content.op_id.0);
        out.put_u32(content.value.len() as u32);
        out.put_slice(&content.value);
    }
    out.put_u32(object.context().len() as u32);
    object.context().iter().for_each(|(actor, seq)| put_dot(&mut out, Dot(actor, seq)));
    for past in object.past_ops() {
        out.put_u64(past.hlc.0);
        put_dot(&mut out, past.dot);
        out.put_slice(&past.op_id.0);
    }
    Bytes::from(out)
}

fn put_dot(out: &mut Vec<u8>, Dot(actor, seq): Dot) {
    out.put_u64(actor.0);
    out.put_u64(seq);
}

/// The parts of a record, as they were written: nothing about them is checked but that they are whole.
pub(super) struct Parts {
    pub siblings: Vec<(Dot, Content)>,
    pub context: Context,
    pub past_ops: Vec<PastOp>,
}

pub(super) fn decode(bytes: &[u8]) -> Result<Parts, RecordError> {
    let (version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
    if *version != RECORD_VERSION {
        return Err(RecordError::Version(*version));
    }
    let mut reader = Reader(rest);
    let count = reader.count(SIBLING_BYTES)?;
    let mut siblings = Vec::with_capacity(count);
    for _ in 0..count {
        siblings.push(reader.sibling()?);
    }
    let count = reader.count(ENTRY_BYTES)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let Dot(actor, seq) = reader.dot()?;
        entries.push((actor, seq));
    }
    let mut past_ops = Vec::with_capacity(reader.0.len() / PAST_OP_BYTES);
    while !reader.0.is_empty() {
        let hlc = Hlc(reader.number()?);
        past_ops.push(PastOp { hlc, dot: reader.dot()?, op_id: reader.op_id()? });
    }
    Ok(Parts { siblings, context: Context::from(entries), past_ops })
}

/// What is left of a record.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], RecordError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// How many items follow. No more than there are bytes for: memory is taken for so many.
    fn count(&mut self, item_bytes: usize) -> Result<usize, RecordError> {
        let count = u32::from_be_bytes(*self.take()?) as usize;
        if count > self.0.len() / item_bytes { Err(RecordError::Short) } else { Ok(count) }
    }

    fn dot(&mut self) -> Result<Dot, RecordError> {
        Ok(Dot(ActorId(self.number()?), self.number()?))
    }

    fn op_id(&mut self) -> Result<OpId, RecordError> {
        self.take().map(|bytes| OpId(*bytes))
    }

    fn sibling(&mut self) -> Result<(Dot, Content), RecordError> {
        let (dot, hlc) = (self.dot()?, Hlc(self.number()?));
        let expires_ms = match self.take::<1>()? {
            [0] => None,
            [1] => Some(self.number()?),
            [other] => return Err(RecordError::Expiry(*other)),
        };
        let op_id = self.op_id()?;
        let length = u32::from_be_bytes(*self.take()?) as usize;
        let (value, rest) = self.0.split_at_checked(length).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok((dot, Content { value: Bytes::copy_from_slice(value), hlc, expires_ms, op_id }))
    }
}
