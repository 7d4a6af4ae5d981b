//! What is known of a key, and in which order: dots, contexts, clocks, objects, and the rules that unite them.

mod clock;
mod context;
mod hint;
mod hlc;
mod object;
mod past_ops;
mod record;
mod token;
mod view;

pub use clock::{Clock, SeqSet};
pub use context::Context;
pub use hint::HintRecord;
pub use hlc::Hlc;
pub use object::{Content, Object, RecordError, SIBLINGS_MAX};
pub use past_ops::{PAST_OPS_MAX, PastOp, PastOps};
pub use token::{ContextToken, TokenError};
pub use view::visible;

use crate::id::ActorId;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One event: the `seq`-th that `actor` minted in a partition. The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot(pub ActorId, pub u64);

impl Dot {
    pub fn actor(self) -> ActorId {
        self.0
    }

    pub fn seq(self) -> u64 {
        self.1
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.0, self.1)
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
