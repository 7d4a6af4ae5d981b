//! Coordinating a request: whom to ask, when it is enough, what to answer.
//!
//! `put` and `get` share one shape: `begin`, `on_reply`, `on_silence`, `on_link_down`, each returning a [`Step`]. They
//! hold no store and send nothing; the kernel carries out what they decide.

pub mod behind;
pub mod get;
pub mod late;
pub mod plan;
pub mod put;

use crate::kernel::{RequestId, SessionId};
use quorate_ring::id::NodeId;
use quorate_ring::wire::peer::PeerRequest;

/// Who waits for the answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    Client {
        session: SessionId,
        request: u64,
    },
    /// A gateway that is no owner.
    Peer {
        node: NodeId,
        request: RequestId,
    },
    /// This node itself, for its canary: nobody waits.
    Own,
}

/// What a coordinator decides after each event.
#[derive(Debug)]
pub struct Step<Answer> {
    pub send: Vec<(NodeId, PeerRequest)>,
    /// At most once in the life of an operation.
    pub answer: Option<Answer>,
    /// Nothing more is expected: the operation is over.
    pub done: bool,
}

impl<Answer> Step<Answer> {
    pub fn wait() -> Self {
        Self { send: Vec::new(), answer: None, done: false }
    }

    pub fn done() -> Self {
        Self { send: Vec::new(), answer: None, done: true }
    }
}
