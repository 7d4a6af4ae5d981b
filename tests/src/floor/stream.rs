//! Frames: length, kind, id, key, and filling. Whatever is queued for one side is written in one go.

use bytes::{Buf, BytesMut};
use quinn::{RecvStream, SendStream};
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::Notify;

/// Length (4), kind (1), id (8), key (4).
pub const HEADER_BYTES: usize = 17;
const READ_BYTES: usize = 256 * 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Write,
    Written,
    Read,
    Found,
    Replicate,
    Replicated,
    Fetch,
    Fetched,
}

const KINDS: [Kind; 8] = [
    Kind::Write,
    Kind::Written,
    Kind::Read,
    Kind::Found,
    Kind::Replicate,
    Kind::Replicated,
    Kind::Fetch,
    Kind::Fetched,
];

#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub kind: Kind,
    pub id: u64,
    pub key: u32,
}

/// What goes out to one side.
#[derive(Clone, Default)]
pub struct Out(Rc<Outbound>);

#[derive(Default)]
struct Outbound {
    queued: RefCell<Vec<u8>>,
    changed: Notify,
}

impl Out {
    /// Queues a frame of `length` bytes in all.
    pub fn add(&self, frame: Frame, length: usize) {
        let mut queued = self.0.queued.borrow_mut();
        let end = queued.len() + length;
        queued.extend_from_slice(&(length as u32).to_be_bytes());
        queued.push(frame.kind as u8);
        queued.extend_from_slice(&frame.id.to_be_bytes());
        queued.extend_from_slice(&frame.key.to_be_bytes());
        queued.resize(end, b'f');
    }

    /// Lets the writer have what is queued.
    pub fn flush(&self) {
        if !self.0.queued.borrow().is_empty() {
            self.0.changed.notify_one();
        }
    }

    /// Writes until the connection is gone.
    pub async fn write(self, mut stream: SendStream) {
        let mut writing = Vec::new();
        loop {
            std::mem::swap(&mut *self.0.queued.borrow_mut(), &mut writing);
            if writing.is_empty() {
                self.0.changed.notified().await;
                continue;
            }
            if stream.write_all(&writing).await.is_err() {
                return;
            }
            writing.clear();
        }
    }
}

/// Hands every frame on, and says when all that was there is handed on, until the connection is gone.
pub async fn read(mut stream: RecvStream, mut take: impl FnMut(Frame), mut pause: impl FnMut()) {
    let mut buffer = BytesMut::new();
    while let Ok(Some(chunk)) = stream.read_chunk(READ_BYTES, true).await {
        buffer.extend_from_slice(&chunk.bytes);
        while buffer.len() >= HEADER_BYTES {
            let mut header = &buffer[..HEADER_BYTES];
            let length = header.get_u32() as usize;
            if buffer.len() < length {
                break;
            }
            let kind = KINDS[usize::from(header.get_u8()) % KINDS.len()];
            take(Frame { kind, id: header.get_u64(), key: header.get_u32() });
            buffer.advance(length);
        }
        pause();
    }
}
