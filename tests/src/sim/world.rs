//! The world of a seed: virtual time, and everything that happens in it, one thing after the other.

use super::clock::Walls;
use super::heap::Heap;
use super::keys::{Keys, topology};
use super::load::Load;
use super::nemesis::Nemesis;
use super::network::{Flight, LinkId, Network};
use super::node::SimNode;
use super::options::{Asked, Options, stream};
use super::rng::Rng;
use super::trace::Trace;
use crate::checks::{Checks, Property, Violation};
use quorate_node::kernel::{Event, SessionId, Timer, weight};
use quorate_ring::placement::Layout;
use std::sync::Arc;

/// Memory for what waits at a shard: no run comes near it while every queue has its bound.
const INBOX_BYTES_MAX: usize = 64 << 20;

/// A shard in one run of its node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardRef {
    pub node: usize,
    pub incarnation: u32,
    pub shard: u8,
}

/// Everything that can happen.
pub enum Happening {
    Drain(ShardRef),
    Committed(ShardRef),
    Fired(ShardRef, Timer),
    Arrives(Flight),
    CheckLink(LinkId),
    /// A request of a client reaches its gateway.
    Asked {
        node: usize,
        incarnation: u32,
        session: SessionId,
        request: u64,
        bytes: Vec<u8>,
    },
    /// What the gateway answered reaches the client.
    Answered {
        request: u64,
        bytes: Vec<u8>,
    },
    /// The connection of a client broke before its request was answered.
    Unanswered {
        request: u64,
    },
    ClientTurn {
        client: usize,
        turn: u32,
    },
    SessionGone {
        node: usize,
        incarnation: u32,
        session: SessionId,
    },
    Fault,
    FaultOver(usize),
    Start {
        node: usize,
        incarnation: u32,
    },
}

pub struct World {
    pub options: Options,
    pub layout: Arc<Layout>,
    pub now_us: u64,
    pub heap: Heap<Happening>,
    pub nodes: Vec<SimNode>,
    pub network: Network,
    pub keys: Keys,
    pub load: Load,
    pub nemesis: Nemesis,
    pub checks: Checks,
    pub trace: Trace,
    /// For nodes and their disks.
    pub rng: Rng,
    pub walls: Walls,
}

impl World {
    pub fn new(asked: &Asked, story: bool) -> Self {
        let options = Options::derive(asked);
        let layout = Arc::new(Layout::new(Arc::new(topology(&options))).expect("no two tokens are the same"));
        let mut rng = Rng::new(options.seed, stream::NODES);
        let nodes = (0..usize::from(options.nodes)).map(|index| SimNode::new(index, &options, &mut rng)).collect();
        let mut world = Self {
            heap: Heap::new(Rng::new(options.seed, stream::TIES)),
            network: Network::new(&options),
            keys: Keys::new(layout.clone()),
            load: Load::new(&options),
            nemesis: Nemesis::new(&options),
            checks: Checks::new(&options),
            trace: Trace::new(story),
            rng: Rng::new(options.seed, stream::DISKS),
            walls: Walls::new(usize::from(options.nodes), options.clock_drift_max_ms),
            now_us: 0,
            nodes,
            layout,
            options,
        };
        for node in 0..world.nodes.len() {
            world.heap.push(0, Happening::Start { node, incarnation: 0 });
        }
        for client in 0..world.options.clients as usize {
            world.heap.push(500_000 + client as u64, Happening::ClientTurn { client, turn: 0 });
        }
        world.heap.push(600_000, Happening::Fault);
        world
    }

    /// The next thing happens.
    pub fn step(&mut self) -> Result<(), Violation> {
        let Some((at_us, happening)) = self.heap.pop() else {
            return Err(Violation::new(Property::Liveness, None, "nothing will ever happen again".to_string()));
        };
        self.now_us = self.now_us.max(at_us);
        self.trace.figures.events += 1;
        match happening {
            Happening::Drain(at) => self.drain(at),
            Happening::Committed(at) => self.committed(at),
            Happening::Fired(at, timer) => self.tell(at, Event::Fired { timer }),
            Happening::Arrives(flight) => self.arrives(flight),
            Happening::CheckLink(link) => self.check_link(link),
            Happening::Asked { node, incarnation, session, request, bytes } => {
                self.asked(node, incarnation, session, request, &bytes)
            }
            Happening::Answered { request, bytes } => self.answered(request, &bytes),
            Happening::Unanswered { request } => {
                self.unanswered(request);
                Ok(())
            }
            Happening::ClientTurn { client, turn } => {
                self.client_turn(client, turn);
                Ok(())
            }
            Happening::SessionGone { node, incarnation, session } => self.session_gone(node, incarnation, session),
            Happening::Fault => self.fault(),
            Happening::FaultOver(number) => self.fault_over(number),
            Happening::Start { node, incarnation } => self.start(node, incarnation),
        }
    }

    /// An event for a shard. One that is gone hears nothing.
    pub fn tell(&mut self, at: ShardRef, event: Event) -> Result<(), Violation> {
        let node = &self.nodes[at.node];
        if !node.running || node.incarnation != at.incarnation {
            return Ok(());
        }
        let Some(event) = self.meanwhile(at, event)? else { return Ok(()) };
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[usize::from(at.shard)];
        let bytes = weight(&event);
        shard.inbox.push_back((bytes, event));
        shard.inbox_bytes += bytes;
        if shard.inbox_bytes > INBOX_BYTES_MAX {
            let text = format!("{} bytes wait at {}", shard.inbox_bytes, node.id);
            return Err(Violation::new(Property::Bounds, None, text));
        }
        self.call(at);
        Ok(())
    }

    pub fn tell_all(&mut self, node: usize, event: &Event) -> Result<(), Violation> {
        for at in self.shards_of(node) {
            self.tell(at, event.clone())?;
        }
        Ok(())
    }

    pub fn shards_of(&self, node: usize) -> impl Iterator<Item = ShardRef> + use<> {
        let (incarnation, count) = (self.nodes[node].incarnation, self.nodes[node].shards.len() as u8);
        (0..count).map(move |shard| ShardRef { node, incarnation, shard })
    }

    /// Sees to it that a shard drains its inbox.
    pub fn call(&mut self, at: ShardRef) {
        let shard = &mut self.nodes[at.node].shards[usize::from(at.shard)];
        if shard.called || shard.committing.is_some() || shard.inbox.is_empty() {
            return;
        }
        shard.called = true;
        let soon = self.now_us + self.rng.between(1, 20);
        self.heap.push(soon.max(self.nodes[at.node].paused_until_us), Happening::Drain(at));
    }

    fn start(&mut self, index: usize, incarnation: u32) -> Result<(), Violation> {
        let node = &mut self.nodes[index];
        if node.running || node.incarnation != incarnation {
            return Ok(());
        }
        if let Err(error) = node.start(&self.layout, &self.options, &mut self.rng) {
            let id = node.id;
            self.trace.say(self.now_us, None, || format!("{id} cannot start: {error}"));
            self.heap.push(self.now_us + 1_000, Happening::Start { node: index, incarnation });
            return self.replace_disk(index, None);
        }
        let (id, actor, rebuilding) = (node.id, node.actor, node.is_rebuilding());
        self.trace.say(self.now_us, None, || {
            format!("{id} starts as actor {actor}{}", if rebuilding { ", and rebuilds" } else { "" })
        });
        self.checks.opened(index, &self.nodes[index], &self.keys, &self.walls)?;
        self.tell_all(index, &Event::Started)?;
        self.links_of_started(index);
        Ok(())
    }
}
