//! Where the effects of the shards go out: the lanes of clients and of peers, by whom they lead to.

use super::close::{Close, CloseCode};
use super::endpoint::{PeerLane, Plane};
use super::lane::{LaneSender, NotQueued, QueuedTotal};
use super::status::{Facts, Gatherings};
use crate::kernel::{RequestId, SessionId};
use crate::metrics::Metrics;
use quinn::Connection;
use quorate_ring::id::NodeId;
use quorate_ring::wire::client::{ClientReply, NodeStatus};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Purpose};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

/// The node itself, asking for its own status.
pub const OWN_SESSION: SessionId = SessionId(0);

/// Replies that a client may let wait; large ones beyond it are turned into "overloaded".
pub const CLIENT_QUEUE_BYTES: usize = 16 * 1024 * 1024;
/// Replies that all clients together may let wait.
const CLIENT_QUEUES_BYTES: usize = 256 * 1024 * 1024;
/// Replies up to this are always queued.
const SMALL_REPLY_BYTES: usize = 16 * 1024;
/// Frames that may wait for a peer; those beyond it are dropped, and the kernel's timers see to it.
pub const PEER_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// What one drain says to one destination, often.
const FRAMES_BYTES_USUAL: usize = 256;

const UNPOISONED: &str = "nothing panics while it holds the switchboard";

struct Session {
    lane: LaneSender,
    connection: Connection,
}

/// Shared by the shards, which send, and the connections, which come and go.
pub struct Switchboard {
    sessions: RwLock<HashMap<SessionId, Session>>,
    /// The connections that this node made: its requests go out on them.
    dialled: RwLock<BTreeMap<(NodeId, PeerLane), LaneSender>>,
    /// The connections that peers made: replies to them go out on the latest of each.
    accepted: RwLock<BTreeMap<(NodeId, PeerLane), (LaneSender, Connection)>>,
    /// Told when a peer connects: whoever dials it need not wait any longer.
    connected: Mutex<BTreeMap<NodeId, Arc<Notify>>>,
    pub gatherings: Gatherings,
    /// Who waits within this node for its status.
    asked: Mutex<HashMap<u64, oneshot::Sender<NodeStatus>>>,
    pub client_queues: QueuedTotal,
    pub peer_queues: QueuedTotal,
    facts: Arc<Facts>,
    metrics: Arc<Metrics>,
}

impl Switchboard {
    pub fn new(facts: Arc<Facts>, metrics: Arc<Metrics>) -> Self {
        Self {
            sessions: RwLock::default(),
            dialled: RwLock::default(),
            accepted: RwLock::default(),
            connected: Mutex::default(),
            gatherings: Gatherings::default(),
            asked: Mutex::default(),
            client_queues: QueuedTotal::default(),
            peer_queues: QueuedTotal::default(),
            facts,
            metrics,
        }
    }

    pub fn session_began(&self, session: SessionId, lane: LaneSender, connection: Connection) {
        self.sessions.write().expect(UNPOISONED).insert(session, Session { lane, connection });
    }

    pub fn session_ended(&self, session: SessionId) {
        self.sessions.write().expect(UNPOISONED).remove(&session);
        self.gatherings.abandon_all(session);
    }

    pub fn link_up(&self, peer: NodeId, which: PeerLane, lane: LaneSender) {
        self.dialled.write().expect(UNPOISONED).insert((peer, which), lane);
    }

    pub fn link_down(&self, peer: NodeId, which: PeerLane) {
        self.dialled.write().expect(UNPOISONED).remove(&(peer, which));
    }

    /// Takes the connection that a peer made, and closes the one that it had before.
    pub fn peer_began(&self, peer: NodeId, which: PeerLane, lane: LaneSender, connection: Connection) {
        let before = self.accepted.write().expect(UNPOISONED).insert((peer, which), (lane, connection));
        if let Some((_, connection)) = before {
            Close::new(CloseCode::Superseded, "this peer connected anew").send(&connection);
        }
        self.peer_connects(peer).notify_one();
    }

    pub fn peer_ended(&self, peer: NodeId, which: PeerLane, lane: &LaneSender) {
        let mut accepted = self.accepted.write().expect(UNPOISONED);
        if accepted.get(&(peer, which)).is_some_and(|(current, _)| current.is_same(lane)) {
            accepted.remove(&(peer, which));
        }
    }

    /// Notified each time that a peer connects to this node.
    pub fn peer_connects(&self, peer: NodeId) -> Arc<Notify> {
        self.connected.lock().expect(UNPOISONED).entry(peer).or_default().clone()
    }

    /// Waits for the answer to a status request of [`OWN_SESSION`].
    pub fn ask_status(&self, request: u64) -> oneshot::Receiver<NodeStatus> {
        let (answer, receiver) = oneshot::channel();
        self.asked.lock().expect(UNPOISONED).insert(request, answer);
        receiver
    }

    pub fn abandon_status(&self, request: u64) {
        self.asked.lock().expect(UNPOISONED).remove(&request);
        self.gatherings.abandon(OWN_SESSION, request);
    }

    /// Bytes that wait to be written to anyone.
    pub fn queued(&self) -> usize {
        self.client_queues.bytes() + self.peer_queues.bytes()
    }

    fn client_is_slow(&self, session: SessionId, more: usize) -> bool {
        let sessions = self.sessions.read().expect(UNPOISONED);
        let queued = sessions.get(&session).map_or(0, |session| session.lane.queued());
        queued + more > CLIENT_QUEUE_BYTES || self.client_queues.bytes() + more > CLIENT_QUEUES_BYTES
    }

    fn send(&self, to: Destination, frames: Vec<u8>) {
        match to {
            Destination::Client(session) => self.send_to_client(session, frames),
            Destination::Request(peer, which) => {
                let dialled = self.dialled.read().expect(UNPOISONED);
                let lane = dialled.get(&(peer, which)).or_else(|| dialled.get(&(peer, which.other())));
                self.send_to_peer(lane, frames);
            }
            Destination::Reply(peer, which) => {
                let accepted = self.accepted.read().expect(UNPOISONED);
                let lane = accepted.get(&(peer, which)).or_else(|| accepted.get(&(peer, which.other())));
                self.send_to_peer(lane.map(|(lane, _)| lane), frames);
            }
        }
    }

    fn send_to_client(&self, session: SessionId, frames: Vec<u8>) {
        let sessions = self.sessions.read().expect(UNPOISONED);
        let Some(Session { lane, connection }) = sessions.get(&session) else { return };
        match lane.send(frames) {
            Ok(()) | Err(NotQueued::Closed) => {}
            Err(full @ NotQueued::Full) => {
                self.metrics.lane_dropped(Plane::Client.name());
                Close::new(CloseCode::TooSlow, full.to_string()).send(connection);
            }
        }
    }

    /// What belongs on the one lane goes on the other for as long as that one does not stand.
    fn send_to_peer(&self, lane: Option<&LaneSender>, frames: Vec<u8>) {
        let Some(lane) = lane else { return };
        if lane.send(frames) == Err(NotQueued::Full) {
            self.metrics.lane_dropped(Plane::Peer.name());
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Destination {
    Client(SessionId),
    Request(NodeId, PeerLane),
    Reply(NodeId, PeerLane),
}

fn lane_of_request(message: &PeerRequest) -> PeerLane {
    match message {
        PeerRequest::Pull(_) | PeerRequest::Sync(_) => PeerLane::Sync,
        PeerRequest::Replicate(replicate) => match replicate.purpose {
            Purpose::Write | Purpose::ReadRepair => PeerLane::Main,
            Purpose::Handoff => PeerLane::Sync,
        },
        PeerRequest::Greet(_)
        | PeerRequest::Ping(_)
        | PeerRequest::Coordinate(_)
        | PeerRequest::Fetch(_)
        | PeerRequest::StoreHint(_) => PeerLane::Main,
    }
}

fn lane_of_reply(message: &PeerReply) -> PeerLane {
    match message {
        PeerReply::Pulled(_) | PeerReply::Synced(_) => PeerLane::Sync,
        PeerReply::Greeted(_)
        | PeerReply::Pong(_)
        | PeerReply::Written(_)
        | PeerReply::Replicated(_)
        | PeerReply::Fetched(_)
        | PeerReply::Refused(_)
        | PeerReply::Unknown(_) => PeerLane::Main,
    }
}

/// What one drain of a shard says, collected so that all of it to one destination is written together.
pub struct Outgoing {
    board: Arc<Switchboard>,
    frames: BTreeMap<Destination, Vec<u8>>,
}

impl Outgoing {
    pub fn new(board: Arc<Switchboard>) -> Self {
        Self { board, frames: BTreeMap::new() }
    }

    pub fn client_reply(&mut self, to: SessionId, request: u64, message: ClientReply) {
        let message = match message {
            ClientReply::Status(part) => match self.board.gatherings.add(to, request, *part) {
                Some(whole) => ClientReply::Status(Box::new(self.board.facts.complete(whole))),
                None => return,
            },
            other => other,
        };
        if to == OWN_SESSION {
            return self.own_reply(request, message);
        }
        let frames = frames_to(&mut self.frames, Destination::Client(to));
        let start = frames.len();
        message.write(request, frames);
        let added = frames.len() - start;
        if added > SMALL_REPLY_BYTES && self.board.client_is_slow(to, frames.len()) {
            frames.truncate(start);
            ClientReply::Refused(Refusal::Overloaded { retry_after_ms: 100 }).write(request, frames);
        }
    }

    fn own_reply(&self, request: u64, message: ClientReply) {
        let waiting = self.board.asked.lock().expect(UNPOISONED).remove(&request);
        if let (Some(waiting), ClientReply::Status(status)) = (waiting, message) {
            let _gave_up = waiting.send(*status);
        }
    }

    pub fn peer_request(&mut self, to: NodeId, request: RequestId, message: &PeerRequest) {
        let to = Destination::Request(to, lane_of_request(message));
        message.write(request.0, frames_to(&mut self.frames, to));
    }

    pub fn peer_reply(&mut self, to: NodeId, request: RequestId, message: &PeerReply) {
        let to = Destination::Reply(to, lane_of_reply(message));
        message.write(request.0, frames_to(&mut self.frames, to));
    }

    /// Hands everything over to the lanes.
    pub fn send(&mut self) {
        while let Some((to, frames)) = self.frames.pop_first() {
            self.board.send(to, frames);
        }
    }
}

fn frames_to(frames: &mut BTreeMap<Destination, Vec<u8>>, to: Destination) -> &mut Vec<u8> {
    frames.entry(to).or_insert_with(|| Vec::with_capacity(FRAMES_BYTES_USUAL))
}
