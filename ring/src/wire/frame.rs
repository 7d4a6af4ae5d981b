//! A frame: u32 length of the payload, version, kind, request id, CRC32C, payload. Numbers are big-endian.

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;

/// Layout of the header; a peer with another one is refused.
pub const FRAME_VERSION: u8 = 1;
/// Length (4), version (1), kind (1), request id (8), checksum (4).
pub const HEADER_BYTES: usize = 18;
/// Payloads are up to this; checked before any memory is taken for one.
pub const FRAME_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A frame whose checksum held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    pub kind: u8,
    /// Chosen by whoever asks; the answer carries the same.
    pub request: u64,
    pub payload: Bytes,
}

/// Why the rest of a stream cannot be read. The connection is closed; what came before was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame version {0} is not known to this program; it knows version {FRAME_VERSION}")]
    Version(u8),
    #[error("a frame of {length} bytes is over the limit of {limit}")]
    TooLong { length: usize, limit: usize },
    #[error("a frame arrived damaged: its checksum is wrong")]
    Checksum,
}

/// Appends a frame that carries `message`.
pub fn write_frame<T: Serialize>(kind: u8, request: u64, message: &T, out: &mut Vec<u8>) {
    let start = out.len();
    let mut header = [0; HEADER_BYTES];
    (header[4], header[5]) = (FRAME_VERSION, kind);
    header[6..14].copy_from_slice(&request.to_be_bytes());
    out.extend_from_slice(&header);
    rmp_serde::encode::write_named(out, message).expect("writing to memory does not fail");
    let length = out.len() - start - HEADER_BYTES;
    assert!(length <= FRAME_BYTES_MAX, "a message of {length} bytes was made, over the limit of frames");
    let sum = checksum(&out[start + 4..start + 14], &out[start + HEADER_BYTES..]);
    out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
    out[start + 14..start + HEADER_BYTES].copy_from_slice(&sum.to_be_bytes());
}

/// Takes the first frame off `buffer`, or nothing if it is not all there yet. `limit` is at most `FRAME_BYTES_MAX`.
pub fn take_frame(buffer: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    if buffer.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = &buffer[..HEADER_BYTES];
    let length = header.get_u32() as usize;
    let version = header.get_u8();
    let kind = header.get_u8();
    let request = header.get_u64();
    let sum = header.get_u32();
    if version != FRAME_VERSION {
        return Err(FrameError::Version(version));
    }
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if buffer.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    let head: [u8; 10] = buffer[4..14].try_into().expect("ten bytes of the header");
    buffer.advance(HEADER_BYTES);
    let payload = buffer.split_to(length).freeze();
    if checksum(&head, &payload) != sum {
        return Err(FrameError::Checksum);
    }
    Ok(Some(Frame { kind, request, payload }))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(head), payload)
}
