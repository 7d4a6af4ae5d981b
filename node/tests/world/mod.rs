//! A small world for stories: real kernels over memory, every message delivered in order and at once.

#![allow(dead_code)] // Each file of stories is a program of its own, and uses a part.

use bytes::Bytes;
use quorate_node::kernel::{Effect, Event, Kernel, Measure, Now, RequestId, SessionId, ShardConfig, Timer};
use quorate_node::storage::{MemoryStorage, Read, Table};
use quorate_ring::id::{ActorId, NodeId, OpId};
use quorate_ring::placement::Layout;
use quorate_ring::topology::{Count, QuorumKind, Topology};
use quorate_ring::version::Hlc;
use quorate_ring::wire::client::*;
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub fn layout(nodes: u16) -> Arc<Layout> {
    let mut text = format!("cluster = \"{}\"\nepoch = 1\npartitions = 8\n", "07".repeat(16));
    for id in 1..=nodes {
        text += &format!(
            "[[node]]\nid = {id}\nname = \"n{id}\"\nrack = \"r{id}\"\n\
             client_address = \"127.0.0.1:{}\"\npeer_address = \"127.0.0.1:{}\"\n",
            7000 + id,
            7100 + id
        );
    }
    let n = nodes.min(3);
    text += &format!("[[bucket]]\nid = 1\nname = \"default\"\nn = {n}\n");
    text += &format!("[[bucket]]\nid = 2\nname = \"lww\"\nconflict = \"lww\"\nn = {n}\n");
    text += "[[bucket]]\nid = 3\nname = \"single\"\nn = 1\n[[bucket]]\nid = 4\nname = \"pair\"\nn = 2\n";
    text += &format!("[[bucket]]\nid = 5\nname = \"all\"\nn = {nodes}\n");
    Arc::new(Layout::new(Arc::new(Topology::parse(&text).unwrap())).unwrap())
}

/// No kernel counts its requests from here.
const ASKED_AS_PEER: RequestId = RequestId(u64::MAX);

/// Kernels that talk to each other; nodes in `down` neither hear nor speak.
pub struct World {
    pub layout: Arc<Layout>,
    pub kernels: BTreeMap<NodeId, Kernel<MemoryStorage>>,
    pub down: BTreeSet<NodeId>,
    pub ms: u64,
    pub inbox: VecDeque<(NodeId, Event)>,
    pub replies: BTreeMap<u64, ClientReply>,
    pub next: u64,
    pub joined: Vec<NodeId>,
    /// How far a node's wall clock is ahead, in ms.
    pub wall_ahead: BTreeMap<NodeId, u64>,
    /// What was sent, by whom and to whom.
    pub sent: Vec<(NodeId, NodeId, PeerRequest)>,
    /// Events for a node that this picks wait in `held`.
    pub hold: fn(NodeId, &Event) -> bool,
    pub held: VecDeque<(NodeId, Event)>,
    /// What was measured, and by whom.
    pub measured: Vec<(NodeId, Measure)>,
    /// Under which actor each node runs.
    pub actors: BTreeMap<NodeId, ActorId>,
    /// How nodes that start from now on are set up.
    pub tune: fn(&mut ShardConfig),
    /// Timers of operations, and when they go off.
    timers: BTreeSet<(u64, NodeId, Timer)>,
}

impl World {
    pub fn new(nodes: u16) -> Self {
        Self::with(nodes, |_| {})
    }

    /// With other tunables than the usual ones.
    pub fn with(nodes: u16, tune: impl Fn(&mut ShardConfig)) -> Self {
        let layout = layout(nodes);
        let kernel = |id: u16| {
            let mut config = ShardConfig::new(NodeId(id), ActorId::new(NodeId(id), 1), 0);
            tune(&mut config);
            (NodeId(id), Kernel::open(config, layout.clone(), MemoryStorage::new()).unwrap())
        };
        let kernels = (1..=nodes).map(kernel).collect();
        let mut world = Self {
            layout: layout.clone(),
            kernels,
            down: BTreeSet::new(),
            ms: 1_000,
            inbox: VecDeque::new(),
            replies: BTreeMap::new(),
            next: 0,
            joined: Vec::new(),
            wall_ahead: BTreeMap::new(),
            sent: Vec::new(),
            hold: |_, _| false,
            held: VecDeque::new(),
            measured: Vec::new(),
            actors: (1..=nodes).map(|id| (NodeId(id), ActorId::new(NodeId(id), 1))).collect(),
            tune: |_| {},
            timers: BTreeSet::new(),
        };
        let ids: Vec<NodeId> = world.kernels.keys().copied().collect();
        for node in &ids {
            for peer in ids.iter().filter(|peer| *peer != node) {
                world.inbox.push_back((*node, Event::LinkUp { peer: *peer }));
            }
        }
        world.run();
        world
    }

    pub fn now(&self) -> Now {
        Now { mono: Duration::from_millis(self.ms), wall_ms: 1_700_000_000_000 + self.ms }
    }

    pub fn run(&mut self) {
        while let Some((node, event)) = self.inbox.pop_front() {
            if self.down.contains(&node) {
                continue;
            }
            if (self.hold)(node, &event) {
                self.held.push_back((node, event));
                continue;
            }
            self.deliver(node, event);
        }
    }

    /// One event reaches a node, held or not; what follows from it waits in the inbox.
    pub fn deliver(&mut self, node: NodeId, event: Event) {
        let mut now = self.now();
        now.wall_ms += self.wall_ahead.get(&node).copied().unwrap_or(0);
        let kernel = self.kernels.get_mut(&node).unwrap();
        let mut effects = Vec::new();
        kernel.handle(now, event, &mut effects).unwrap();
        kernel.commit(&mut || now, &mut effects).unwrap();
        for effect in effects {
            self.carry_out(node, effect);
        }
    }

    pub fn carry_out(&mut self, node: NodeId, effect: Effect) {
        let arrived = self.now().mono;
        match effect {
            Effect::ClientReply { request, message, .. } => {
                assert!(self.replies.insert(request, message).is_none(), "request {request} was answered twice");
            }
            Effect::PeerRequest { to, request, message } => {
                self.sent.push((node, to, message.clone()));
                self.inbox.push_back((to, Event::PeerRequest { from: node, request, arrived, message }));
            }
            Effect::PeerReply { to, request, message } => {
                self.inbox.push_back((to, Event::PeerReply { from: node, request, message }));
            }
            Effect::Arm { timer: Timer::Tick, .. } => {} // `pass` ticks.
            Effect::Measure(measure) => self.measured.push((node, measure)),
            Effect::Arm { timer, after } => {
                self.timers.insert((self.ms + after.as_millis() as u64, node, timer));
            }
            Effect::Joined => self.joined.push(node),
            Effect::Amnesia { .. } => panic!("{node} has forgotten nothing"),
        }
    }

    /// What was held back arrives, and nothing more is held.
    pub fn release(&mut self) {
        self.hold = |_, _| false;
        self.inbox.append(&mut self.held);
        self.run();
    }

    /// What was held back is lost, and nothing more is held.
    pub fn lose(&mut self) {
        self.hold = |_, _| false;
        self.held.clear();
    }

    pub fn ask(&mut self, via: u16, message: ClientRequest) -> Option<ClientReply> {
        self.next += 1;
        let arrived = self.now().mono;
        let event = Event::Client { from: SessionId(1), request: self.next, arrived, message };
        self.inbox.push_back((NodeId(via), event));
        self.run();
        self.replies.remove(&self.next)
    }

    /// Others notice that a node is gone.
    pub fn kill(&mut self, node: u16) {
        self.down.insert(NodeId(node));
        let others: Vec<NodeId> = self.kernels.keys().copied().filter(|id| id.0 != node).collect();
        for other in others {
            self.inbox.push_back((other, Event::LinkDown { peer: NodeId(node) }));
        }
        self.run();
    }

    /// Time goes by, in ticks.
    pub fn pass(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.ms += 250;
            while let Some((_, node, timer)) = self.timers.first().copied().filter(|(at, ..)| *at <= self.ms) {
                self.timers.pop_first();
                self.inbox.push_back((node, Event::Fired { timer }));
            }
            for id in self.kernels.keys().copied().collect::<Vec<_>>() {
                self.inbox.push_back((id, Event::Fired { timer: Timer::Tick }));
            }
            self.run();
        }
    }

    /// A node is there again, and everybody links up with it.
    pub fn revive(&mut self, node: u16) {
        let node = NodeId(node);
        self.down.remove(&node);
        for other in self.kernels.keys().copied().filter(|id| *id != node).collect::<Vec<_>>() {
            self.inbox.push_back((node, Event::LinkDown { peer: other }));
            self.inbox.push_back((node, Event::LinkUp { peer: other }));
            self.inbox.push_back((other, Event::LinkUp { peer: node }));
        }
        self.run();
    }

    /// A node loses its disk, and comes back empty under a new actor.
    pub fn wipe(&mut self, node: u16) {
        self.kill(node);
        self.actors.insert(NodeId(node), ActorId::new(NodeId(node), self.ms));
        self.joined.retain(|joined| joined.0 != node);
        self.start(node, true, MemoryStorage::new());
    }

    fn start(&mut self, node: u16, rebuilding: bool, storage: MemoryStorage) {
        let id = NodeId(node);
        let mut config = ShardConfig { rebuilding, ..ShardConfig::new(id, self.actors[&id], self.ms) };
        (self.tune)(&mut config);
        self.kernels.insert(id, Kernel::open(config, self.layout.clone(), storage).unwrap());
        self.revive(node);
    }

    /// A node starts again on what it had committed.
    pub fn restart(&mut self, node: u16) {
        self.kill(node);
        let storage = self.kernels[&NodeId(node)].store().inner().clone();
        let wiped = self.actors[&NodeId(node)] != ActorId::new(NodeId(node), 1);
        let rebuilding = wiped && !self.joined.contains(&NodeId(node));
        self.start(node, rebuilding, storage);
    }

    /// What a node says of itself, asked to repair at once.
    pub fn repair(&mut self, node: u16) -> NodeStatus {
        match self.ask(node, ClientRequest::Repair(RepairRequest { partition: None })) {
            Some(ClientReply::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// What a node answers to a peer that asks this of it.
    pub fn ask_as_peer(&mut self, from: u16, node: u16, message: PeerRequest) -> PeerReply {
        let arrived = self.now().mono;
        self.hold = |_, event| matches!(event, Event::PeerReply { request: ASKED_AS_PEER, .. });
        let event = Event::PeerRequest { from: NodeId(from), request: ASKED_AS_PEER, arrived, message };
        self.inbox.push_back((NodeId(node), event));
        self.run();
        self.hold = |_, _| false;
        match self.held.pop_front() {
            Some((_, Event::PeerReply { message, .. })) => message,
            other => panic!("{other:?}"),
        }
    }

    pub fn rows(&self, node: u16, table: Table) -> usize {
        self.kernels[&NodeId(node)].store().scan(table, &[], &[0xff; 32], usize::MAX).unwrap().len()
    }

    pub fn alone(&mut self, via: u16, key: &'static str) -> Option<ClientReply> {
        self.ask(via, ClientRequest::Read(ReadRequest { r: Some(Count::One), ..read(1, key) }))
    }

    pub fn put(&mut self, via: u16, write: WriteRequest) -> Receipt {
        match self.ask(via, ClientRequest::Write(write)) {
            Some(ClientReply::Written(receipt)) => receipt,
            other => panic!("not written: {other:?}"),
        }
    }

    pub fn get(&mut self, via: u16, bucket: u32, key: &'static str) -> ReadAnswer {
        match self.ask(via, ClientRequest::Read(read(bucket, key))) {
            Some(ClientReply::Read(answer)) => answer,
            other => panic!("not read: {other:?}"),
        }
    }

    pub fn values(&mut self, via: u16, bucket: u32, key: &'static str) -> Vec<String> {
        let answer = self.get(via, bucket, key);
        answer.siblings.iter().map(|s| String::from_utf8(s.value.to_vec()).unwrap()).collect()
    }

    /// What a node says of itself.
    pub fn status(&mut self, of: u16) -> NodeStatus {
        match self.ask(of, ClientRequest::Status(StatusRequest {})) {
            Some(ClientReply::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    pub fn owners(&self, key: &str) -> Vec<u16> {
        let partition = self.layout.partition(&self.layout.topology().buckets[0], key.as_bytes());
        self.layout.preference(partition).unwrap().owners().iter().map(|id| id.0).collect()
    }

    pub fn non_owner(&self, key: &str) -> u16 {
        self.kernels.keys().map(|id| id.0).find(|id| !self.owners(key).contains(id)).unwrap()
    }
}

pub fn write(bucket: u32, key: &'static str, value: &'static str, supersede: Supersede, op: u8) -> WriteRequest {
    WriteRequest {
        epoch: quorate_ring::id::Epoch(1),
        bucket: quorate_ring::id::BucketId(bucket),
        key: Bytes::from_static(key.as_bytes()),
        change: Change::Put { value: Bytes::from_static(value.as_bytes()), expires_ms: None },
        supersede,
        op_id: OpId([op; 16]),
        hlc: Hlc::default(),
        r: None,
        w: None,
        quorum: None,
        durability: None,
        deadline_ms: 1_000,
    }
}

pub fn read(bucket: u32, key: &'static str) -> ReadRequest {
    ReadRequest {
        epoch: quorate_ring::id::Epoch(1),
        bucket: quorate_ring::id::BucketId(bucket),
        key: Bytes::from_static(key.as_bytes()),
        r: None,
        quorum: None,
        blocking_repair: false,
        deadline_ms: 1_000,
        request_id: None,
    }
}

pub fn delete(key: &'static str, op: u8) -> WriteRequest {
    WriteRequest { change: Change::Delete, ..write(1, key, "", Supersede::Latest, op) }
}

pub fn sloppy(key: &'static str, op: u8) -> WriteRequest {
    WriteRequest { quorum: Some(QuorumKind::Sloppy), ..write(1, key, "v", Supersede::Nothing, op) }
}
