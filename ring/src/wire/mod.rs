//! Frames and messages.
//!
//! Messages are MessagePack maps with field names, so that a peer of the next minor version may add fields: unknown
//! ones are passed over, missing ones take their default. Objects travel as the records that are stored. What goes with
//! every put and get has names of one or two letters, and leaves out what has its usual value: to write, copy and compare
//! whole words was a good part of what a get cost.

pub mod client;
pub mod failure;
mod frame;
pub mod peer;

pub use frame::{FRAME_BYTES_MAX, FRAME_VERSION, Frame, FrameError, HEADER_BYTES, take_frame, write_frame};

use rmp_serde::decode::Error as MessagePackError;
use serde::Deserialize;

/// An object that a client's put would make is refused over this size. A merge of several such objects still fits
/// into a frame.
pub const OBJECT_BYTES_MAX: usize = 10 * 1024 * 1024;
/// The minor version of the protocol that this program speaks. Peers of one minor version apart understand each other. The
/// major one is in the ALPNs: with a program of another there is no connection.
pub const PROTOCOL_MINOR: u16 = 0;
/// ALPN of the plane on which nodes talk to each other.
pub const ALPN_PEER: &[u8] = b"quorate-peer/3";
/// ALPN of a second connection between nodes, for what nobody waits for: pulls, full syncs and handoffs.
pub const ALPN_SYNC: &[u8] = b"quorate-sync/3";
/// ALPN of the plane on which clients talk to nodes.
pub const ALPN_CLIENT: &[u8] = b"quorate-client/3";

/// Bytes that the system may hold for a UDP socket until they are read, if it allows that many: what finds no room is lost,
/// and has to be sent again. The usual 208 KiB are gone with one large value.
pub const SOCKET_BYTES: usize = 2 * 1024 * 1024;

/// Datagrams that either side of a connection takes without acknowledging them at once: acks then mostly travel with an
/// answer, and not in datagrams of their own. No more, as a sender that has lost much goes on with two, and would wait for
/// 25 ms after each few.
pub const DATAGRAMS_UNACKED_MAX: u32 = 3;

/// No message nests deeper; what does is refused before it costs stack.
const DEPTH_MAX: usize = 16;

/// Why bytes are not the message they are said to be.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("message kind {0} is not known to this program (protocol minor {PROTOCOL_MINOR})")]
    Kind(u8),
    #[error("the message does not decode: {0}")]
    Malformed(#[from] rmp_serde::decode::Error),
    #[error("more bytes follow the message")]
    Trailing,
}

/// Decodes one value from a slice that was length-checked before, and that it may borrow from. All of it must be used.
pub(crate) fn decode<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    decoder.set_max_depth(DEPTH_MAX);
    let value = T::deserialize(&mut decoder)?;
    // The decoder does not tell how much is left. At the end there is not even a marker to be read.
    match <()>::deserialize(&mut decoder) {
        Err(MessagePackError::InvalidMarkerRead(_)) => Ok(value),
        Ok(()) | Err(_) => Err(DecodeError::Trailing),
    }
}

/// From here on values are long: a buffer that grows is copied, so it takes room for them, and for what follows, at once.
const LONG_BYTES: usize = 1024;
/// What a message brings beside long values is short, about this.
const REST_BYTES: usize = 256;

/// Whether a field has the value that it takes where it is missing.
fn usual<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The DNS name in a node's certificate: who it is, and in which cluster.
pub fn server_name(cluster: crate::id::ClusterId, node: crate::id::NodeId) -> String {
    format!("node-{}.{cluster}.quorate", node.0)
}

/// The node that a server name names, if it is one of this cluster.
pub fn node_of_server_name(cluster: crate::id::ClusterId, name: &str) -> Option<crate::id::NodeId> {
    let (node, rest) = name.strip_prefix("node-")?.split_once('.')?;
    (rest == format!("{cluster}.quorate")).then(|| node.parse().ok().map(crate::id::NodeId))?
}

/// Declares a closed set of messages: an enum with one struct per kind, and its two directions of code. How long the values in
/// one are says its `value_bytes`.
macro_rules! messages {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $kind:literal => $variant:ident($body:ty),)* }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug)]
        pub enum $name {
            $($(#[$doc])* $variant($body),)*
        }

        impl $name {
            /// The number that stands for the kind of message in a frame.
            pub fn kind(&self) -> u8 {
                match self {
                    $(Self::$variant(_) => $kind,)*
                }
            }

            /// Appends a whole frame.
            pub fn write(&self, request: u64, out: &mut Vec<u8>) {
                let values = self.value_bytes();
                if values >= $crate::wire::LONG_BYTES {
                    out.reserve(values + $crate::wire::REST_BYTES);
                }
                match self {
                    $(Self::$variant(body) => $crate::wire::write_frame($kind, request, body, out),)*
                }
            }

            /// From the kind and payload of a frame.
            pub fn decode(kind: u8, payload: &[u8]) -> Result<Self, $crate::wire::DecodeError> {
                match kind {
                    $($kind => Ok(Self::$variant($crate::wire::decode(payload)?)),)*
                    other => Err($crate::wire::DecodeError::Kind(other)),
                }
            }
        }
    };
}
pub(crate) use messages;

#[cfg(test)]
mod golden_tests;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
