//! A lane: one long-lived stream of frames, and the two ends of it in this process.
//!
//! The writing end is a queue bounded in bytes, emptied by one task that writes all that is queued at once: frames of
//! one drain travel together. The reading end takes no memory for a frame before its length is checked, and none
//! beyond a budget that all connections of the node share.

use super::close::{Close, CloseCode};
use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream};
use quorate_ring::wire::{Frame, HEADER_BYTES, take_frame};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Read from the stream at a time.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// A frame that was begun has to be whole after this.
const FRAME_TIME_MAX: Duration = Duration::from_secs(30);
/// Replies that a connection took nothing of for this long are not waited for any more.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// What a frame costs of the budget.
const BUDGET_UNIT_BYTES: usize = 1024;
/// Frames up to this are read without asking the budget.
const SMALL_FRAME_BYTES: usize = CHUNK_BYTES_MAX;

/// Memory for large frames that are still being read, over all connections of a node.
#[derive(Clone, Debug)]
pub struct ReadBudget(Arc<Semaphore>);

impl ReadBudget {
    /// `bytes` is at least the longest frame.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / BUDGET_UNIT_BYTES)))
    }

    async fn take(&self, bytes: usize) -> OwnedSemaphorePermit {
        let units = bytes.div_ceil(BUDGET_UNIT_BYTES) as u32;
        self.0.clone().acquire_many_owned(units).await.expect("the budget is never closed")
    }
}

/// Takes frames off a stream.
pub struct LaneReader {
    stream: RecvStream,
    buffer: BytesMut,
    /// Of a frame's payload.
    limit: usize,
    budget: ReadBudget,
    /// Since when a part of a frame is in the buffer.
    begun: Option<Instant>,
    /// Held from when a large frame is announced until it was handed out.
    permit: Option<OwnedSemaphorePermit>,
}

impl LaneReader {
    pub fn new(stream: RecvStream, limit: usize, budget: ReadBudget) -> Self {
        Self { stream, buffer: BytesMut::new(), limit, budget, begun: None, permit: None }
    }

    /// The next frame; none when the other side ended the lane between two frames. An error is a reason to close the
    /// connection; the other side is told.
    pub async fn next(&mut self) -> Result<Option<Frame>, LaneError> {
        self.permit = None;
        loop {
            let frame = take_frame(&mut self.buffer, self.limit);
            if let Some(frame) = frame.map_err(|e| LaneError::Close(Close::new(CloseCode::Malformed, e.to_string())))? {
                self.begun = None;
                return Ok(Some(frame));
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            } else {
                self.begun.get_or_insert_with(Instant::now);
            }
            self.reserve().await?;
            if !self.fill().await? {
                return match self.buffer.len() {
                    0 => Ok(None),
                    left => Err(truncated(left)),
                };
            }
        }
    }

    /// Waits for a share of the budget, once the header of a large frame is there.
    async fn reserve(&mut self) -> Result<(), LaneError> {
        if self.buffer.len() < HEADER_BYTES || self.permit.is_some() {
            return Ok(());
        }
        let length = u32::from_be_bytes(self.buffer[..4].try_into().expect("four bytes of the header")) as usize;
        if length > SMALL_FRAME_BYTES {
            let permit = timeout_at(self.deadline(), self.budget.take(length)).await.map_err(|_| slow())?;
            self.permit = Some(permit);
        }
        Ok(())
    }

    /// Reads what there is; false at the end of the stream.
    async fn fill(&mut self) -> Result<bool, LaneError> {
        let read = self.stream.read_chunk(CHUNK_BYTES_MAX, true);
        let chunk = match self.begun {
            None => read.await,
            Some(begun) => timeout_at(begun + FRAME_TIME_MAX, read).await.map_err(|_| slow())?,
        };
        match chunk {
            Ok(Some(chunk)) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(cause) => Err(LaneError::Broken(cause)),
        }
    }

    fn deadline(&self) -> Instant {
        self.begun.unwrap_or_else(Instant::now) + FRAME_TIME_MAX
    }
}

/// Why a lane cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// What came is not the protocol: the connection is to be closed.
    #[error("{}", .0.reason)]
    Close(Close),
    /// The connection is gone already.
    #[error(transparent)]
    Broken(ReadError),
}

fn slow() -> LaneError {
    let reason = format!("a frame was begun and not finished in {} s", FRAME_TIME_MAX.as_secs());
    LaneError::Close(Close::new(CloseCode::TooSlow, reason))
}

fn truncated(left: usize) -> LaneError {
    let reason = format!("the stream ended within a frame: {left} bytes of it had come");
    LaneError::Close(Close::new(CloseCode::Malformed, reason))
}

/// What the lanes that share it have queued, in bytes.
#[derive(Clone, Debug, Default)]
pub struct QueuedTotal(Arc<AtomicUsize>);

impl QueuedTotal {
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Queues frames for the other side of a lane. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LaneSender(Arc<Outbound>);

#[derive(Debug)]
struct Outbound {
    queue: Mutex<Queue>,
    /// There is something to write, or the lane was closed.
    changed: Notify,
    /// Something was written.
    room: Notify,
    /// What all lanes of this kind have queued.
    total: QueuedTotal,
    /// Frames that would make the queue longer than this are not taken.
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: Vec<Bytes>,
    /// Of the chunks, and of those that are being written.
    bytes: usize,
    closed: bool,
}

/// The frames were not queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotQueued {
    #[error("the other side does not take its frames fast enough")]
    Full,
    #[error("the lane is closed")]
    Closed,
}

impl LaneSender {
    /// The sending half, and the task that writes `stream`.
    pub fn new(stream: SendStream, bytes_max: usize, total: QueuedTotal) -> (Self, LaneWriter) {
        let (queue, changed, room) = (Mutex::default(), Notify::new(), Notify::new());
        let outbound = Arc::new(Outbound { queue, changed, room, total, bytes_max });
        (Self(outbound.clone()), LaneWriter { stream, outbound })
    }

    /// Queues whole frames. A single send over the limit is taken when nothing else waits.
    pub fn send(&self, frames: Vec<u8>) -> Result<(), NotQueued> {
        let mut queue = self.0.lock();
        if queue.closed {
            return Err(NotQueued::Closed);
        }
        if queue.bytes > 0 && queue.bytes + frames.len() > self.0.bytes_max {
            return Err(NotQueued::Full);
        }
        queue.bytes += frames.len();
        self.0.total.add(frames.len());
        queue.chunks.push(frames.into());
        drop(queue);
        self.0.changed.notify_one();
        Ok(())
    }

    /// Takes no more; what is queued is still written.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
    }

    /// Bytes that were not written yet.
    pub fn queued(&self) -> usize {
        self.0.lock().bytes
    }

    /// Waits until less than `bytes` are queued.
    pub async fn below(&self, bytes: usize) {
        while self.queued() >= bytes {
            let room = self.0.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            // It may have become so just now.
            if self.queued() >= bytes {
                room.await;
            }
        }
    }

    pub fn is_same(&self, other: &LaneSender) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Outbound {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("nothing panics while it holds a lane's queue")
    }
}

/// Writes what is queued, until the lane is closed or breaks, or until it is dropped: then the lane takes no more.
pub struct LaneWriter {
    stream: SendStream,
    outbound: Arc<Outbound>,
}

impl Drop for LaneWriter {
    fn drop(&mut self) {
        let mut queue = self.outbound.lock();
        queue.closed = true;
        queue.chunks = Vec::new();
        self.outbound.total.subtract(std::mem::take(&mut queue.bytes));
        drop(queue);
        self.outbound.room.notify_waiters();
    }
}

impl LaneWriter {
    /// Ends without an error once the lane is closed and all is written; with one when the connection is to be closed,
    /// or is gone.
    pub async fn run(mut self) -> Result<(), Close> {
        loop {
            let (mut chunks, closed) = self.take();
            if chunks.is_empty() {
                if closed {
                    let _already_gone = self.stream.finish();
                    return Ok(());
                }
                self.outbound.changed.notified().await;
                continue;
            }
            let bytes: usize = chunks.iter().map(Bytes::len).sum();
            self.write(&mut chunks).await?;
            self.outbound.lock().bytes -= bytes;
            self.outbound.total.subtract(bytes);
            self.outbound.room.notify_waiters();
        }
    }

    /// Writes all chunks; each stretch of progress has its own time limit.
    async fn write(&mut self, chunks: &mut [Bytes]) -> Result<(), Close> {
        let mut rest = chunks;
        while !rest.is_empty() {
            let written = tokio::time::timeout(WRITE_TIME_MAX, self.stream.write_chunks(rest)).await;
            let written = written
                .map_err(|_| Close::new(CloseCode::TooSlow, "replies were not taken in time"))?
                .map_err(|e| Close::new(CloseCode::Done, e.to_string()))?;
            rest = &mut rest[written.chunks..];
        }
        Ok(())
    }

    fn take(&self) -> (Vec<Bytes>, bool) {
        let mut queue = self.outbound.lock();
        (std::mem::take(&mut queue.chunks), queue.closed)
    }
}
