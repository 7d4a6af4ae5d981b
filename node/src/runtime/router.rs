//! Which shard a message is for.

use super::inbox::{Class, Full, Inbox};
use super::switchboard::{OWN_SESSION, Switchboard};
use crate::kernel::{Event, RequestId, SessionId, shard_of};
use quorate_ring::id::{BucketId, NodeId};
use quorate_ring::placement::Layout;
use quorate_ring::wire::client::{ClientRequest, NodeStatus, StatusRequest};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A shard that does not answer for its status in this time is stuck.
const STATUS_TIME_MAX: Duration = Duration::from_secs(2);

/// Puts what arrives into the inbox of its shard.
pub struct Router {
    layout: Arc<Layout>,
    inboxes: Vec<Arc<Inbox>>,
    board: Arc<Switchboard>,
    next_status: AtomicU64,
}

/// A peer answered a request that no shard of this node made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("reply to request {0:x}: this node has no such shard")]
pub struct NoSuchShard(u64);

impl Router {
    /// One inbox for each shard.
    pub fn new(layout: Arc<Layout>, inboxes: Vec<Arc<Inbox>>, board: Arc<Switchboard>) -> Self {
        Self { layout, inboxes, board, next_status: AtomicU64::new(1) }
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Tells every shard.
    pub fn tell_all(&self, event: &Event) {
        self.inboxes.iter().for_each(|inbox| inbox.push(event.clone()));
    }

    /// What waits for the shards, by class: how many bytes, and for how long the oldest.
    pub fn waiting(&self) -> [(Class, usize, Duration); 3] {
        [Class::Urgent, Class::Work, Class::Repair].map(|class| {
            let bytes = self.inboxes.iter().map(|inbox| inbox.bytes(class)).sum();
            let oldest = self.inboxes.iter().map(|inbox| inbox.oldest(class)).max();
            (class, bytes, oldest.unwrap_or_default())
        })
    }

    /// Passes on what a client asks; `Hello` and `Cancel` are not for shards.
    pub fn client(&self, from: SessionId, request: u64, arrived: Duration, message: ClientRequest) -> Result<(), Full> {
        if let ClientRequest::Status(_) | ClientRequest::Repair(_) = message {
            return self.ask_all(from, request, arrived, &message);
        }
        let shard = self.shard_of_client(&message);
        self.inboxes[shard].offer(Event::Client { from, request, arrived, message })
    }

    /// Passes on that a client has no interest in a request any more. It is a courtesy: a full inbox drops it.
    pub fn cancelled(&self, from: SessionId, request: u64) {
        self.board.gatherings.abandon(from, request);
        for inbox in &self.inboxes {
            if inbox.offer(Event::ClientCancelled { from, request }).is_err() {
                tracing::debug!(request, "no room for a cancellation");
            }
        }
    }

    /// What every shard answers with its status.
    fn ask_all(&self, from: SessionId, request: u64, arrived: Duration, message: &ClientRequest) -> Result<(), Full> {
        self.board.gatherings.begin(from, request, self.inboxes.len() as u8);
        for inbox in &self.inboxes {
            let event = Event::Client { from, request, arrived, message: message.clone() };
            if from == OWN_SESSION {
                inbox.push(event);
            } else if let Err(full) = inbox.offer(event) {
                self.board.gatherings.abandon(from, request);
                return Err(full);
            }
        }
        Ok(())
    }

    /// Asks all shards for the node's account of itself; none if one of them does not answer.
    pub async fn status(&self, arrived: Duration) -> Option<NodeStatus> {
        let request = self.next_status.fetch_add(1, Ordering::Relaxed);
        let answer = self.board.ask_status(request);
        let asked = self.ask_all(OWN_SESSION, request, arrived, &ClientRequest::Status(StatusRequest {}));
        let status = match asked {
            Ok(()) => tokio::time::timeout(STATUS_TIME_MAX, answer).await.ok().and_then(Result::ok),
            Err(Full { .. }) => None,
        };
        self.board.abandon_status(request);
        status
    }

    /// Passes on what a peer asks; waits for room.
    pub async fn peer_request(&self, from: NodeId, request: RequestId, arrived: Duration, message: PeerRequest) {
        let shard = self.shard_of_peer(request, &message);
        self.inboxes[shard].deliver(Event::PeerRequest { from, request, arrived, message }).await;
    }

    /// Passes on what a peer answers; waits for room.
    pub async fn peer_reply(&self, from: NodeId, request: RequestId, message: PeerReply) -> Result<(), NoSuchShard> {
        let inbox = self.inboxes.get(usize::from(request.shard())).ok_or(NoSuchShard(request.0))?;
        inbox.deliver(Event::PeerReply { from, request, message }).await;
        Ok(())
    }

    fn shard_of_client(&self, message: &ClientRequest) -> usize {
        match message {
            ClientRequest::Write(write) => self.shard_of_key(write.bucket, &write.key),
            ClientRequest::Read(read) => self.shard_of_key(read.bucket, &read.key),
            ClientRequest::Scan(scan) => usize::from(shard_of(scan.partition, self.shards())),
            ClientRequest::Log(log) => usize::from(shard_of(log.partition, self.shards())),
            ClientRequest::Hello(_)
            | ClientRequest::Status(_)
            | ClientRequest::Repair(_)
            | ClientRequest::Cancel(_) => 0,
        }
    }

    /// A greeting or ping is for the shard of the same number as the one that sent it: they have the same partitions.
    fn shard_of_peer(&self, request: RequestId, message: &PeerRequest) -> usize {
        match message {
            PeerRequest::Greet(_) | PeerRequest::Ping(_) => usize::from(request.shard() % self.shards()),
            PeerRequest::Coordinate(coordinate) => self.shard_of_key(coordinate.write.bucket, &coordinate.write.key),
            PeerRequest::Replicate(replicate) => self.shard_of_key(replicate.bucket, &replicate.key),
            PeerRequest::StoreHint(hint) => self.shard_of_key(hint.replicate.bucket, &hint.replicate.key),
            PeerRequest::Fetch(fetch) => self.shard_of_key(fetch.bucket, &fetch.key),
            PeerRequest::Pull(pull) => usize::from(shard_of(pull.partition, self.shards())),
            PeerRequest::Sync(sync) => usize::from(shard_of(sync.partition, self.shards())),
        }
    }

    /// Any shard refuses a key of an unknown bucket; the first one does.
    fn shard_of_key(&self, bucket: BucketId, key: &[u8]) -> usize {
        if self.inboxes.len() == 1 {
            return 0;
        }
        let bucket = self.layout.topology().bucket(bucket);
        bucket.map_or(0, |bucket| usize::from(shard_of(self.layout.partition(bucket, key), self.shards())))
    }

    fn shards(&self) -> u8 {
        self.inboxes.len() as u8
    }
}
