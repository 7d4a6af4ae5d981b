//! Why this node closes a connection: a code for programs, a text for people.

use quinn::{Connection, VarInt};

/// Application close codes. They are part of the protocol: never renumbered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseCode {
    /// Nothing more to say.
    Done = 0,
    /// What was sent is not the protocol.
    Malformed = 1,
    /// Not a node of this topology, or not the one it should be.
    WrongNode = 2,
    /// The node is shutting down.
    ShuttingDown = 3,
    /// Too slow: to say hello, to finish a frame, or to take its replies.
    TooSlow = 4,
    /// A newer connection of the same peer took its place.
    Superseded = 5,
}

/// A close that this node decided on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    pub code: CloseCode,
    pub reason: String,
}

/// Of a reason, so many bytes are sent.
const REASON_BYTES_MAX: usize = 512;

impl Close {
    pub fn new(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    pub fn send(&self, connection: &Connection) {
        let most = self.reason.len().min(REASON_BYTES_MAX);
        let end = (0..=most).rev().find(|at| self.reason.is_char_boundary(*at)).unwrap_or(0);
        connection.close(VarInt::from_u32(self.code as u32), &self.reason.as_bytes()[..end]);
    }
}
