//! A lane: one bidirectional stream to one node, on which requests and answers travel as frames.
//!
//! Requests of all callers go through one writer, which sends whatever has gathered in one go; answers come back in
//! any order and are matched by id. What is under way is bounded in number and bytes.

use crate::failure::LinkError;
use bytes::BytesMut;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use quorate_ring::wire::client::{Cancel, ClientReply, ClientRequest};
use quorate_ring::wire::{FRAME_BYTES_MAX, take_frame};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// Requests under way on one lane.
const IN_FLIGHT_MAX: usize = 1024;
const IN_FLIGHT_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Room for cancellations beside the requests.
const QUEUE_MAX: usize = IN_FLIGHT_MAX + 256;
/// Frames are gathered up to about this, then written.
const COALESCE_BYTES: usize = 256 * 1024;
const READ_BYTES: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AskError {
    /// Not one byte of the request was sent.
    Unsent(LinkError),
    /// It was sent, or may have been; whether the node acted on it is not known.
    Sent(LinkError),
}

type Answer = Result<ClientReply, AskError>;

enum Outgoing {
    Ask { id: u64, frame: Vec<u8>, reply: oneshot::Sender<Answer> },
    Cancel { id: u64 },
}

/// What was sent and not answered, and, once the lane is broken, why.
#[derive(Default)]
struct Waiting {
    replies: HashMap<u64, oneshot::Sender<Answer>>,
    broken: Option<LinkError>,
}

#[derive(Default)]
struct Shared(Mutex<Waiting>);

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// The first cause stays.
    fn break_off(&self, cause: LinkError) {
        let mut waiting = self.waiting();
        let cause = waiting.broken.get_or_insert(cause).clone();
        for (_, reply) in waiting.replies.drain() {
            // A caller that no longer waits does not need to know.
            let _ = reply.send(Err(AskError::Sent(cause.clone())));
        }
    }
}

pub(crate) struct Lane {
    connection: Connection,
    queue: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    requests: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    next_id: AtomicU64,
    /// Writer and reader; they end with the lane.
    _tasks: JoinSet<()>,
}

impl Lane {
    pub async fn open(connection: Connection) -> Result<Arc<Self>, LinkError> {
        let (send, receive) = connection.open_bi().await.map_err(|e| link_error(&e))?;
        let (queue, outgoing) = mpsc::channel(QUEUE_MAX);
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(write(send, outgoing, Arc::clone(&shared), connection.clone()));
        tasks.spawn(read(receive, Arc::clone(&shared), connection.clone()));
        Ok(Arc::new(Self {
            connection,
            queue,
            shared,
            requests: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            bytes: Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX as usize)),
            next_id: AtomicU64::new(1),
            _tasks: tasks,
        }))
    }

    /// Why it is of no use any more, if it is so.
    pub fn broken(&self) -> Option<LinkError> {
        self.shared.waiting().broken.clone()
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) -> LinkError {
        let cause = link_error(&self.connection.closed().await);
        self.shared.break_off(cause.clone());
        self.broken().unwrap_or(cause)
    }

    /// Hands a request to the writer, as soon as there is room. Dropping what this returns cancels the request.
    pub async fn submit(self: &Arc<Self>, request: &ClientRequest) -> Result<Pending, AskError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut frame = Vec::with_capacity(256);
        request.write(id, &mut frame);
        let length = u32::try_from(frame.len()).unwrap_or(u32::MAX).min(IN_FLIGHT_BYTES_MAX);
        const OPEN: &str = "the semaphores of a lane are never closed";
        let permits = [
            Arc::clone(&self.requests).acquire_owned().await.expect(OPEN),
            Arc::clone(&self.bytes).acquire_many_owned(length).await.expect(OPEN),
        ];
        if let Some(cause) = self.broken() {
            return Err(AskError::Unsent(cause));
        }
        let (reply, answer) = oneshot::channel();
        let queued = self.queue.send(Outgoing::Ask { id, frame, reply }).await;
        queued.map_err(|_| AskError::Unsent(self.broken().unwrap_or_else(ended)))?;
        Ok(Pending { lane: Arc::clone(self), id, answer, answered: false, _permits: permits })
    }

    /// Asks, and waits for the answer, but not beyond `until`.
    pub async fn ask(self: &Arc<Self>, request: &ClientRequest, until: Instant) -> Answer {
        match timeout_at(until, self.submit(request)).await {
            Ok(pending) => pending?.answer(until).await,
            Err(_) => Err(AskError::Unsent(overdue())),
        }
    }
}

/// A request that was handed to the writer.
pub(crate) struct Pending {
    lane: Arc<Lane>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
    answered: bool,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Pending {
    /// Waits for the answer, but not beyond `until`.
    pub async fn answer(mut self, until: Instant) -> Answer {
        match timeout_at(until, &mut self.answer).await {
            Ok(answer) => {
                self.answered = true;
                answer.unwrap_or_else(|_| Err(AskError::Sent(self.lane.broken().unwrap_or_else(ended))))
            }
            Err(_) => self.give_up(),
        }
    }

    /// Cancels the request. An answer that came just now still counts.
    fn give_up(&mut self) -> Answer {
        self.answered = true;
        // Under the lock, neither the writer nor the reader can be half way through this request.
        let mut waiting = self.lane.shared.waiting();
        self.answer.close();
        if let Ok(answer) = self.answer.try_recv() {
            return answer;
        }
        if waiting.replies.remove(&self.id).is_none() {
            return Err(AskError::Unsent(overdue()));
        }
        // With a full queue the cancellation is left out: it only saves work.
        let _ = self.lane.queue.try_send(Outgoing::Cancel { id: self.id });
        Err(AskError::Sent(overdue()))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            // Whoever dropped it does not want to know what became of it.
            let _ = self.give_up();
        }
    }
}

fn overdue() -> LinkError {
    LinkError::Broken("no answer came in time".to_string())
}

fn ended() -> LinkError {
    LinkError::Broken("the client was closed".to_string())
}

async fn write(mut send: SendStream, mut queue: mpsc::Receiver<Outgoing>, shared: Arc<Shared>, connection: Connection) {
    let mut buffer = Vec::new();
    // Goes on after the lane broke, to tell whoever comes that nothing was sent.
    while let Some(first) = queue.recv().await {
        buffer.clear();
        gather(first, &shared, &mut buffer);
        while buffer.len() < COALESCE_BYTES
            && let Ok(next) = queue.try_recv()
        {
            gather(next, &shared, &mut buffer);
        }
        if let Err(error) = send.write_all(&buffer).await {
            let reason = connection.close_reason();
            shared.break_off(reason.map_or_else(|| LinkError::Broken(error.to_string()), |r| link_error(&r)));
        }
        buffer.shrink_to(4 * COALESCE_BYTES);
    }
}

/// Counts a request as sent from here on, before its first byte is.
fn gather(message: Outgoing, shared: &Shared, buffer: &mut Vec<u8>) {
    match message {
        Outgoing::Ask { id, frame, reply } => {
            let mut waiting = shared.waiting();
            if reply.is_closed() {
                return;
            }
            if let Some(cause) = &waiting.broken {
                let _ = reply.send(Err(AskError::Unsent(cause.clone())));
                return;
            }
            waiting.replies.insert(id, reply);
            buffer.extend_from_slice(&frame);
        }
        Outgoing::Cancel { id } => ClientRequest::Cancel(Cancel {}).write(id, buffer),
    }
}

async fn read(mut receive: RecvStream, shared: Arc<Shared>, connection: Connection) {
    let mut buffer = BytesMut::new();
    let cause = loop {
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk.bytes),
            Ok(None) => break LinkError::Broken("the node ended the stream".to_string()),
            Err(quinn::ReadError::ConnectionLost(error)) => break link_error(&error),
            Err(error) => break LinkError::Broken(error.to_string()),
        }
        if let Err(cause) = deliver(&mut buffer, &shared) {
            break cause;
        }
    };
    shared.break_off(cause.clone());
    connection.close(VarInt::from_u32(1), cause.to_string().as_bytes());
}

fn deliver(buffer: &mut BytesMut, shared: &Shared) -> Result<(), LinkError> {
    let wrong = |e: &dyn std::fmt::Display| LinkError::Protocol(format!("the node's answer is not understood: {e}"));
    while let Some(frame) = take_frame(buffer, FRAME_BYTES_MAX).map_err(|e| wrong(&e))? {
        let reply = ClientReply::decode(frame.kind, &frame.payload).map_err(|e| wrong(&e))?;
        let mut waiting = shared.waiting();
        // Cancelled requests may be answered all the same.
        if let Some(asker) = waiting.replies.remove(&frame.request) {
            let _ = asker.send(Ok(reply));
        }
    }
    Ok(())
}

/// TLS alerts arrive as transport errors from 0x100 on (RFC 9001, 4.8): in a close of the node's, if it was the node that
/// refused, else as an error of this side.
pub(crate) fn link_error(error: &ConnectionError) -> LinkError {
    let (code, by_node) = match error {
        ConnectionError::TransportError(e) => (u64::from(e.code), false),
        ConnectionError::ConnectionClosed(c) => (u64::from(c.error_code), true),
        ConnectionError::VersionMismatch
        | ConnectionError::ApplicationClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => (0, false),
    };
    let reason = error.to_string();
    let alert = (code & 0xff) as u8;
    match code {
        0x100..0x200 if by_node => LinkError::Tls(refused_by_node(alert, &reason)),
        0x100..0x200 => LinkError::Tls(refused_here(alert, &reason)),
        _ => LinkError::Broken(reason),
    }
}

/// The node's own words hold the time of its look, which is another on each node: they are left out where the alert
/// says enough.
fn refused_by_node(alert: u8, reason: &str) -> String {
    let why = match alert {
        44 => "it was revoked",
        45 => "it has expired, or is not valid yet",
        48 => "it was issued by an authority that the node does not trust",
        116 => "none was shown",
        120 => return NO_COMMON_PROTOCOL.to_string(),
        _ => return format!("the node refused the TLS handshake ({reason})"),
    };
    format!("the node refused the certificate of this client: {why}")
}

fn refused_here(alert: u8, reason: &str) -> String {
    let why = match alert {
        44 => "it was revoked",
        45 => "it has expired, or is not valid yet",
        48 => "it was issued by another authority than the node CA of this client",
        120 => return NO_COMMON_PROTOCOL.to_string(),
        // The words of rustls-webpki; a test holds them.
        _ if reason.contains("not valid for name") => "it is of another cluster or node than the profile says",
        _ => return format!("this client refused the TLS handshake ({reason})"),
    };
    format!("this client refused the certificate of the node: {why}")
}

const NO_COMMON_PROTOCOL: &str = "the other side does not speak the client protocol, or not this version of it; is this the \
    client address, and are both programs of one release?";
