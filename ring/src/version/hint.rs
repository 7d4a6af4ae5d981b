//! What a fallback keeps for an owner: an object, and every dot that was folded into it.

use super::{Dot, Object, RecordError};
use bytes::Bytes;
use std::collections::BTreeSet;

const HINT_VERSION: u8 = 1;

#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct HintRecord {
    pub object: Object,
    /// Events that the object includes or supersedes, and that the owner has yet to ack.
    pub dots: BTreeSet<Dot>,
}

impl HintRecord {
    pub fn fold(&mut self, object: &Object, dots: &[Dot]) {
        self.object.union(object);
        self.dots.extend(dots);
    }

    /// The record as stored: a version byte, then MessagePack.
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![HINT_VERSION];
        rmp_serde::encode::write(&mut bytes, &(self.object.encode(), &self.dots))
            .expect("writing to memory does not fail");
        Bytes::from(bytes)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (version, rest) = bytes.split_first().ok_or(RecordError::Empty)?;
        if *version != HINT_VERSION {
            return Err(RecordError::Version(*version));
        }
        let (object, dots): (Bytes, BTreeSet<Dot>) =
            crate::wire::decode(rest).map_err(|e| RecordError::Malformed(e.to_string()))?;
        Ok(Self { object: Object::decode(&object)?, dots })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;
    use crate::version::Context;

    #[test]
    fn comes_back_as_it_was() {
        let dot = Dot(ActorId(1 << 48), 3);
        let record = HintRecord { object: Object::absent(Context::of(dot)), dots: BTreeSet::from([dot]) };
        assert_eq!(HintRecord::decode(&record.encode()), Ok(record));
        assert!(HintRecord::decode(&[1, 0x93]).is_err() && HintRecord::decode(&[]).is_err());
    }
}
