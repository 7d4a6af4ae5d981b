//! What a put and a get cost inside the kernels: three of them over memory, in one thread, with every message between
//! them, and to and from the client, encoded and decoded. No disk, no network, no time: the same work each run, so that
//! its instructions can be counted on a machine whose clock says little.

use bytes::{Bytes, BytesMut};
use quorate_node::kernel::{Effect, Event, Kernel, Now, RequestId, SessionId, ShardConfig};
use quorate_node::storage::MemoryStorage;
use quorate_ring::id::{ActorId, BucketId, Epoch, NodeId, OpId};
use quorate_ring::placement::Layout;
use quorate_ring::topology::Topology;
use quorate_ring::version::Hlc;
use quorate_ring::wire::client::{Change, ClientReply, ClientRequest, ReadRequest, Supersede, WriteRequest};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use quorate_ring::wire::{FRAME_BYTES_MAX, Frame, take_frame};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

const NODES: u16 = 3;
const VALUE_BYTES: usize = 100;

/// A layout of so many nodes, each in a rack of its own, with one bucket of three copies.
pub fn layout(nodes: u16) -> Arc<Layout> {
    let mut text = format!("cluster = \"{}\"\nepoch = 1\npartitions = 64\n", "07".repeat(16));
    for id in 1..=nodes {
        let [client, peer] = [7000, 8000].map(|port| format!("127.0.0.1:{}", port + id));
        text += &format!(
            "[[node]]\nid = {id}\nname = \"n{id}\"\nrack = \"r{id}\"\nclient_address = \"{client}\"\n\
             peer_address = \"{peer}\"\n"
        );
    }
    text += "[[bucket]]\nid = 1\nname = \"default\"\nn = 3\n";
    let topology = Topology::parse(&text).expect("the text above is a topology");
    Arc::new(Layout::new(Arc::new(topology)).expect("no two tokens are the same"))
}

/// The bytes of a message, as a frame that came over the network.
fn frame(bytes: Vec<u8>) -> Frame {
    let mut buffer = BytesMut::from(Bytes::from(bytes));
    take_frame(&mut buffer, FRAME_BYTES_MAX).ok().flatten().expect("a whole frame was written")
}

/// Three kernels that serve one client.
pub struct Kernels {
    layout: Arc<Layout>,
    kernels: Vec<Kernel<MemoryStorage>>,
    waiting: VecDeque<(usize, Event)>,
    effects: Vec<Effect>,
    request: u64,
    replies: Vec<ClientReply>,
}

impl Default for Kernels {
    fn default() -> Self {
        let layout = layout(NODES);
        let kernel = |id: u16| {
            let config = ShardConfig::new(NodeId(id), ActorId::new(NodeId(id), 1), 0);
            Kernel::open(config, layout.clone(), MemoryStorage::new()).expect("memory can be read")
        };
        let kernels = (1..=NODES).map(kernel).collect();
        let (waiting, effects, replies) = (VecDeque::new(), Vec::new(), Vec::new());
        let mut all = Self { layout: layout.clone(), kernels, waiting, effects, request: 0, replies };
        for (node, peer) in (1..=NODES).flat_map(|node| (1..=NODES).map(move |peer| (node, peer))) {
            if node != peer {
                all.waiting.push_back((usize::from(node) - 1, Event::LinkUp { peer: NodeId(peer) }));
            }
        }
        all.run();
        all
    }
}

impl Kernels {
    fn now(&self) -> Now {
        Now { mono: Duration::from_micros(1_000_000 + self.request), wall_ms: 1_700_000_000_000 + self.request }
    }

    fn run(&mut self) {
        while let Some((node, event)) = self.waiting.pop_front() {
            let now = self.now();
            let mut effects = std::mem::take(&mut self.effects);
            let kernel = &mut self.kernels[node];
            kernel.handle(now, event, &mut effects).expect("memory can be read");
            kernel.commit(&mut || now, &mut effects).expect("memory can be written");
            effects.drain(..).for_each(|effect| self.carry_out(node, effect));
            self.effects = effects;
        }
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        let from = NodeId(node as u16 + 1);
        let mut bytes = Vec::with_capacity(256);
        match effect {
            Effect::ClientReply { request, message, .. } => {
                message.write(request, &mut bytes);
                let frame = frame(bytes);
                self.replies.push(ClientReply::decode(frame.kind, &frame.payload).expect("it was just written"));
            }
            Effect::PeerRequest { to, request, message } => {
                message.write(request.0, &mut bytes);
                let (arrived, frame) = (self.now().mono, frame(bytes));
                let message = PeerRequest::decode(frame.kind, &frame.payload).expect("it was just written");
                let event = Event::PeerRequest { from, request: RequestId(frame.request), arrived, message };
                self.waiting.push_back((usize::from(to.0) - 1, event));
            }
            Effect::PeerReply { to, request, message } => {
                message.write(request.0, &mut bytes);
                let frame = frame(bytes);
                let message = PeerReply::decode(frame.kind, &frame.payload).expect("it was just written");
                let event = Event::PeerReply { from, request: RequestId(frame.request), message };
                self.waiting.push_back((usize::from(to.0) - 1, event));
            }
            Effect::Arm { .. } | Effect::Measure(_) | Effect::Joined | Effect::Amnesia { .. } => {}
        }
    }

    fn ask(&mut self, key: &[u8], message: &ClientRequest) -> ClientReply {
        self.request += 1;
        let partition = self.layout.partition(&self.layout.topology().buckets[0], key);
        let owner = self.layout.preference(partition).expect("every partition has owners").owners()[0];
        let mut bytes = Vec::with_capacity(256);
        message.write(self.request, &mut bytes);
        let frame = frame(bytes);
        let message = ClientRequest::decode(frame.kind, &frame.payload).expect("it was just written");
        let arrived = self.now().mono;
        let event = Event::Client { from: SessionId(1), request: frame.request, arrived, message };
        self.waiting.push_back((usize::from(owner.0) - 1, event));
        self.run();
        self.replies.pop().expect("with every node up each request is answered")
    }

    /// A put of 100 bytes that supersedes nothing it was not told of, at an owner: N=3, W=2.
    pub fn put(&mut self, number: u64) {
        let key = key(number);
        let write = WriteRequest {
            epoch: Epoch(1),
            bucket: BucketId(1),
            key: key.clone(),
            change: Change::Put { value: Bytes::from_static(&[7; VALUE_BYTES]), expires_ms: None },
            supersede: Supersede::Local,
            op_id: OpId(u128::from(self.request).to_be_bytes()),
            hlc: Hlc::default(),
            r: None,
            w: None,
            quorum: None,
            durability: None,
            deadline_ms: 1_000,
        };
        let reply = self.ask(&key, &ClientRequest::Write(write));
        assert!(matches!(reply, ClientReply::Written(_)), "{reply:?}");
    }

    /// A get at an owner: N=3, R=2.
    pub fn get(&mut self, number: u64) {
        let key = key(number);
        let read = ReadRequest {
            epoch: Epoch(1),
            bucket: BucketId(1),
            key: key.clone(),
            r: None,
            quorum: None,
            blocking_repair: false,
            deadline_ms: 1_000,
            request_id: None,
        };
        let reply = self.ask(&key, &ClientRequest::Read(read));
        assert!(matches!(&reply, ClientReply::Read(answer) if answer.siblings.len() == 1), "{reply:?}");
    }
}

fn key(number: u64) -> Bytes {
    format!("key-{number:08}").into()
}
