//! A context as a client sees it: opaque bytes, good for one key of one bucket of one cluster.

use super::Context;
use crate::id::{BucketId, ClusterId};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use xxhash_rust::xxh3::Xxh3;

const TOKEN_VERSION: u8 = 1;
/// A context with more than 4,000 actors would be longer; none is.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What a client has seen of a key. It only hands it back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContextToken(#[serde(with = "serde_bytes")] Vec<u8>);

/// Why a context is refused. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum TokenError {
    #[error("the context is not one that this store gave out: {0}; take it from the answer of a get of this key")]
    Malformed(String),
    #[error("the context belongs to another key, bucket or cluster; take it from the answer of a get of this key")]
    Elsewhere,
}

impl ContextToken {
    pub fn seal(cluster: ClusterId, bucket: BucketId, key: &[u8], context: &Context) -> Self {
        let mut bytes = vec![TOKEN_VERSION];
        bytes.extend_from_slice(&binding(cluster, bucket, key).to_be_bytes());
        rmp_serde::encode::write(&mut bytes, context).expect("writing to memory does not fail");
        let sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_be_bytes());
        Self(bytes)
    }

    pub fn open(&self, cluster: ClusterId, bucket: BucketId, key: &[u8]) -> Result<Context, TokenError> {
        let malformed = |why: &str| TokenError::Malformed(why.to_string());
        if self.0.len() > TOKEN_BYTES_MAX {
            return Err(malformed("it is too long"));
        }
        let (body, sum) = self.0.split_last_chunk::<4>().ok_or_else(|| malformed("it is too short"))?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*sum) {
            return Err(malformed("its checksum is wrong"));
        }
        let (head, context) = body.split_first_chunk::<9>().ok_or_else(|| malformed("it is too short"))?;
        if head[0] != TOKEN_VERSION {
            return Err(malformed("its version is not known"));
        }
        if head[1..] != binding(cluster, bucket, key).to_be_bytes() {
            return Err(TokenError::Elsewhere);
        }
        crate::wire::decode(context).map_err(|_| malformed("it does not decode"))
    }

    /// Wire form; `open` checks it.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Ties a context to its key: a hash, to catch mistakes, not forgery (whoever may write may write any context).
fn binding(cluster: ClusterId, bucket: BucketId, key: &[u8]) -> u64 {
    let mut hash = Xxh3::new();
    hash.update(&cluster.0);
    hash.update(&bucket.0.to_be_bytes());
    hash.update(key);
    hash.digest()
}

impl fmt::Display for ContextToken {
    /// Hexadecimal: survives shells, URLs and JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for ContextToken {
    type Err = TokenError;
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let wrong = || TokenError::Malformed("it is not a string of hexadecimal digit pairs".to_string());
        if !text.len().is_multiple_of(2) || !text.is_ascii() || text.len() > 2 * TOKEN_BYTES_MAX {
            return Err(wrong());
        }
        let byte = |i: usize| u8::from_str_radix(&text[i..i + 2], 16).map_err(|_| wrong());
        (0..text.len()).step_by(2).map(byte).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ActorId;
    use proptest::prelude::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn context() -> Context {
        Context::from(vec![(ActorId(1), 5), (ActorId(2), 9)])
    }

    #[test]
    fn opens_for_its_own_key_only() {
        let token = ContextToken::seal(CLUSTER, BucketId(1), b"k", &context());
        let again: ContextToken = token.to_string().parse().unwrap();
        assert_eq!(again.open(CLUSTER, BucketId(1), b"k"), Ok(context()));
        assert_eq!(token.open(CLUSTER, BucketId(1), b"other"), Err(TokenError::Elsewhere));
        assert_eq!(token.open(CLUSTER, BucketId(2), b"k"), Err(TokenError::Elsewhere));
        assert_eq!(token.open(ClusterId([8; 16]), BucketId(1), b"k"), Err(TokenError::Elsewhere));
    }

    #[test]
    fn golden_bytes() {
        let token = ContextToken::seal(CLUSTER, BucketId(1), b"k", &context());
        assert_eq!(token.to_string(), include_str!("../../golden/token_v1.hex").trim());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let token = ContextToken::from_bytes(bytes);
            prop_assert!(token.open(CLUSTER, BucketId(1), b"k").is_err());
        }
    }
}
