//! Clients at work: they ask, wait, give up, try again, vanish.

use super::faults::Fault;
use super::load::{Kind, Pending};
use super::rare::Rare;
use super::routing::{Way, client_way};
use super::world::{Happening, ShardRef, World};
use crate::checks::{Property, ReadSeen, Violation};
use bytes::BytesMut;
use quorate_node::kernel::{Event, SessionId};
use quorate_ring::wire::client::{ClientReply, ClientRequest};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::{FRAME_BYTES_MAX, Frame, take_frame};

/// How often an operation is tried.
const ATTEMPTS_MAX: u32 = 4;
/// When all has healed, an operation must succeed within so many.
const LAST_ATTEMPTS_MAX: u32 = 8;
/// And so much time passes between two of them: as much as a node may take to notice that another one is back.
const LAST_RETRY_US: u64 = 250_000;

impl World {
    /// A client is done thinking, or waiting.
    pub fn client_turn(&mut self, client: usize, turn: u32) {
        if self.load.clients[client].turn != turn {
            return;
        }
        let timed_out = self.load.clients[client].waiting.take();
        if let Some(op) = timed_out.and_then(|request| self.load.pending.get(&request)).map(|pending| pending.op) {
            self.trace.rare(Rare::GivenUp);
            self.trace.say(self.now_us, Some(self.load.op(op).key), || format!("client {client} gives up on op {op}"));
            if self.load.rng.chance(7_000) {
                self.load.clients[client].again = Some(op);
            }
        }
        match self.load.clients[client].again.take() {
            Some(op) => self.attempt(client, op),
            None => self.next_op(client),
        }
    }

    fn next_op(&mut self, client: usize) {
        if let Some(key) = self.load.finale.pop() {
            let op = self.load.invent_last(client, key, self.now_us);
            return self.attempt(client, op);
        }
        if self.trace.figures.operations >= self.options.ops {
            return;
        }
        self.trace.figures.operations += 1;
        let op = self.load.invent(client, self.now_us, &self.options, &mut self.keys);
        self.attempt(client, op);
    }

    fn attempt(&mut self, client: usize, op: u32) {
        let key = self.keys.get(self.load.op(op).key);
        let count = self.nodes.len() as u64;
        let node = match self.load.rng.chance(6_000) {
            true => usize::from(self.load.rng.pick(&key.owners).0) - 1,
            false => self.load.rng.below(count) as usize,
        };
        let target = &self.nodes[node];
        if !target.running {
            self.load.clients[client].again = Some(op); // Nobody listens there: another node may do.
            return self.wait(client, 5_000);
        }
        let incarnation = target.incarnation;
        let session = match self.load.clients[client].sessions.get(&node) {
            Some((run, session)) if *run == incarnation => *session,
            Some(_) | None => self.load.new_session(),
        };
        self.load.clients[client].sessions.insert(node, (incarnation, session));
        let request = self.load.new_request();
        let asked = &mut self.load.ops[op as usize];
        asked.attempts += 1;
        let message = asked.request(&self.keys);
        let deadline_us = u64::from(asked.deadline_ms) * 1_000;
        self.say_op(op, node);
        let mut bytes = Vec::with_capacity(256);
        message.write(request, &mut bytes);
        let pending = Pending {
            op,
            client,
            node,
            incarnation,
            session,
            asked_us: self.now_us,
            arrived_wall_ms: None,
            replied_wall_ms: None,
            cancelled: false,
        };
        self.load.pending.insert(request, pending);
        let at = self.now_us + self.network.delay_us();
        self.heap.push(at, Happening::Asked { node, incarnation, session, request, bytes });
        self.load.clients[client].waiting = Some(request);
        self.wait(client, deadline_us + 100_000);
        self.perhaps_lose_interest(client, node, incarnation, session, request);
    }

    fn perhaps_lose_interest(
        &mut self,
        client: usize,
        node: usize,
        incarnation: u32,
        session: SessionId,
        request: u64,
    ) {
        let mask = self.options.mask;
        let (gone, cancel) = (self.load.rng.chance(100), self.load.rng.chance(100));
        let after = self.now_us + self.load.rng.span(100, 20_000);
        if gone && !mask.off(Fault::Gone) {
            self.trace.fault(Fault::Gone);
            self.heap.push(after, Happening::SessionGone { node, incarnation, session });
            self.load.clients[client].sessions.remove(&node);
        } else if cancel && !mask.off(Fault::Cancel) {
            self.trace.fault(Fault::Cancel);
            if let Some(pending) = self.load.pending.get_mut(&request) {
                pending.cancelled = true;
            }
        }
    }

    /// The client's next turn comes after this time, unless something happens before.
    fn wait(&mut self, client: usize, us: u64) {
        let state = &mut self.load.clients[client];
        state.turn += 1;
        self.heap.push(self.now_us + us, Happening::ClientTurn { client, turn: state.turn });
    }

    /// A request reaches its gateway.
    pub fn asked(
        &mut self,
        node: usize,
        incarnation: u32,
        session: SessionId,
        request: u64,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        let gateway = &self.nodes[node];
        if !gateway.running || gateway.incarnation != incarnation {
            self.heap.push(self.now_us + 1_000, Happening::Unanswered { request });
            return Ok(());
        }
        let now = gateway.clock.now(self.now_us);
        let Some(pending) = self.load.pending.get_mut(&request) else { return Ok(()) };
        pending.arrived_wall_ms = Some(now.wall_ms);
        let cancelled = pending.cancelled;
        let frame = frame(bytes)?;
        self.trace.note(self.now_us, node, u64::from(frame.kind), bytes);
        let message = ClientRequest::decode(frame.kind, &frame.payload).map_err(broken)?;
        let shards = gateway.shards.len() as u8;
        let way = client_way(&self.layout, &message, shards);
        let event = Event::Client { from: session, request, arrived: now.mono, message };
        self.checks.promised(node, now.mono, &event);
        let Way::One(shard) = way else { return self.tell_all(node, &event) };
        let at = ShardRef { node, incarnation, shard };
        self.tell(at, event)?;
        if cancelled {
            self.tell(at, Event::ClientCancelled { from: session, request })?;
        }
        Ok(())
    }

    /// A gateway answers.
    pub fn reply_to_client(
        &mut self,
        at: ShardRef,
        to: SessionId,
        request: u64,
        wall_ms: u64,
        message: &ClientReply,
    ) -> Result<(), Violation> {
        if self.load.abandoned.contains(&request) {
            return Ok(()); // The client is gone.
        }
        let Some(pending) = self.load.pending.get_mut(&request) else {
            let text = format!("request {request} was answered again");
            return Err(Violation::new(Property::AnsweredOnce, None, text));
        };
        if pending.replied_wall_ms.is_some() || pending.session != to || pending.node != at.node {
            let key = self.load.ops[pending.op as usize].key;
            let text = format!("request {request} of op {} was answered twice, or to another", pending.op);
            return Err(Violation::new(Property::AnsweredOnce, Some(key), text));
        }
        pending.replied_wall_ms = Some(wall_ms);
        if let ClientReply::Read(answer) = message {
            self.checks.told(&self.load.ops[pending.op as usize], answer, &self.keys)?;
        }
        let mut bytes = Vec::with_capacity(256);
        message.write(request, &mut bytes);
        let arrives = self.now_us + self.network.delay_us();
        self.heap.push(arrives, Happening::Answered { request, bytes });
        Ok(())
    }

    pub fn answered(&mut self, request: u64, bytes: &[u8]) -> Result<(), Violation> {
        let Some(pending) = self.load.pending.remove(&request) else { return Ok(()) };
        let frame = frame(bytes)?;
        self.trace.note(self.now_us, pending.client, u64::from(frame.kind), bytes);
        let reply = ClientReply::decode(frame.kind, &frame.payload).map_err(broken)?;
        let waits = self.load.clients[pending.client].waiting == Some(request);
        self.say_reply(&pending, &reply);
        let again = match self.judge(&pending, &reply)? {
            Verdict::Done => false,
            Verdict::Failed => self.load.rng.chance(5_000),
            Verdict::Doubtful => self.load.rng.chance(7_000),
            Verdict::Repeat => true,
        };
        if waits {
            self.go_on(pending.client, pending.op, again)?;
        }
        Ok(())
    }

    /// The connection broke before the answer came.
    pub fn unanswered(&mut self, request: u64) {
        let Some(pending) = self.load.pending.remove(&request) else { return };
        self.load.abandoned.insert(request);
        self.trace.rare(Rare::ConnectionBroken);
        if self.load.clients[pending.client].waiting == Some(request) {
            let again = self.load.rng.chance(7_000);
            let think = self.think(pending.client, pending.op, again);
            self.wait(pending.client, think);
        }
    }

    fn go_on(&mut self, client: usize, op: u32, again: bool) -> Result<(), Violation> {
        let asked = self.load.op(op);
        if asked.last && again && asked.attempts >= LAST_ATTEMPTS_MAX {
            let text = format!("all has healed, but a read of all owners failed {} times", asked.attempts);
            return Err(Violation::new(Property::Liveness, Some(asked.key), text));
        }
        let think = self.think(client, op, again);
        self.wait(client, think);
        Ok(())
    }

    fn think(&mut self, client: usize, op: u32, again: bool) -> u64 {
        let state = &mut self.load.clients[client];
        state.waiting = None;
        let asked = &self.load.ops[op as usize];
        if again && asked.attempts < if asked.last { LAST_ATTEMPTS_MAX } else { ATTEMPTS_MAX } {
            state.again = Some(op);
        }
        let think_us = 1 + self.load.rng.below(self.options.think_us_max);
        if again && asked.last { LAST_RETRY_US } else { think_us }
    }

    /// Checks an answer. What is right about it, the client remembers.
    fn judge(&mut self, pending: &Pending, reply: &ClientReply) -> Result<Verdict, Violation> {
        let op = self.load.op(pending.op).clone();
        let (client, late) = (pending.client, self.load.rng.chance(100) && !self.options.mask.off(Fault::Late));
        match (op.kind, reply) {
            (Kind::Put | Kind::Delete, ClientReply::Written(receipt)) => {
                let context = self.checks.written(&op, receipt, self.now_us, &self.nodes, &self.keys)?;
                let state = &mut self.load.clients[client];
                state.hlc = state.hlc.max(receipt.hlc);
                state.remember(op.key, &receipt.context, context);
                self.load.ops[pending.op as usize].applied = true;
                if receipt.repeated {
                    self.trace.rare(Rare::RetryKnown);
                }
                if late {
                    self.trace.fault(Fault::Late);
                    return Ok(Verdict::Repeat);
                }
                Ok(Verdict::Done)
            }
            (Kind::Put | Kind::Delete, ClientReply::Unknown(uncertain)) => {
                self.trace.rare(Rare::Unknown);
                self.checks.uncertain(&op, uncertain, &self.keys)?;
                Ok(Verdict::Doubtful)
            }
            (Kind::Read, ClientReply::Read(answer)) => {
                let seen = ReadSeen {
                    op: &op,
                    answer,
                    asked_us: pending.asked_us,
                    wall_ms: (pending.arrived_wall_ms, pending.replied_wall_ms),
                    walls: &self.walls,
                    now_us: self.now_us,
                };
                let context = self.checks.read(&seen, &self.load, &self.nodes, &self.keys)?;
                self.count_read(answer);
                let state = &mut self.load.clients[client];
                state.hlc = answer.siblings.iter().map(|s| s.hlc).fold(state.hlc, Ord::max);
                state.remember(op.key, &answer.context, context);
                Ok(Verdict::Done)
            }
            (_, ClientReply::Refused(refusal)) => {
                self.load.ops[pending.op as usize].refused += 1;
                let Some(rare) = kind_of(refusal) else {
                    let text = format!("op {} was refused: {refusal}", op.number);
                    return Err(Violation::new(Property::Refusals, Some(op.key), text));
                };
                self.trace.rare(rare);
                Ok(if op.last { Verdict::Repeat } else { Verdict::Failed })
            }
            (_, other) => {
                let text = format!("op {} was answered by {other:?}", op.number);
                Err(Violation::new(Property::Wire, Some(op.key), text))
            }
        }
    }

    /// A client has vanished.
    pub fn session_gone(&mut self, node: usize, incarnation: u32, session: SessionId) -> Result<(), Violation> {
        let lost: Vec<u64> =
            self.load.pending.iter().filter(|(_, p)| p.session == session).map(|(request, _)| *request).collect();
        for request in lost {
            self.unanswered(request);
        }
        if self.nodes[node].incarnation == incarnation {
            self.tell_all(node, &Event::ClientGone { from: session })?;
        }
        Ok(())
    }

    /// A node died: whoever waited for it learns of it.
    pub fn connections_of_stopped(&mut self, node: usize) {
        let incarnation = self.nodes[node].incarnation;
        let lost: Vec<u64> = self
            .load
            .pending
            .iter()
            .filter(|(_, pending)| pending.node == node && pending.incarnation < incarnation)
            .map(|(request, _)| *request)
            .collect();
        for request in lost {
            let at = self.now_us + self.network.delay_us() + 1;
            self.heap.push(at, Happening::Unanswered { request });
        }
    }
}

/// What an answer means to the client.
enum Verdict {
    Done,
    /// Nothing was done.
    Failed,
    Doubtful,
    /// It is sent again, whatever the answer was.
    Repeat,
}

fn frame(bytes: &[u8]) -> Result<Frame, Violation> {
    let taken = take_frame(&mut BytesMut::from(bytes), FRAME_BYTES_MAX).map_err(broken)?;
    taken.ok_or_else(|| Violation::new(Property::Wire, None, "a frame is cut short".to_string()))
}

fn broken(why: impl std::fmt::Display) -> Violation {
    Violation::new(Property::Wire, None, format!("a message: {why}"))
}

/// How a refusal counts. None: nothing that these clients ask should be refused so.
fn kind_of(refusal: &Refusal) -> Option<Rare> {
    match refusal {
        Refusal::Unavailable { .. } => Some(Rare::RefusedUnavailable),
        Refusal::Overloaded { .. } => Some(Rare::RefusedOverloaded),
        Refusal::DeadlinePassed => Some(Rare::RefusedDeadline),
        Refusal::DiskReserve => Some(Rare::RefusedDiskReserve),
        Refusal::ShuttingDown => Some(Rare::RefusedShuttingDown),
        Refusal::NotReady
        | Refusal::NotOwner
        | Refusal::HintsFull { .. }
        | Refusal::TooManySiblings { .. }
        | Refusal::WrongCluster { .. }
        | Refusal::StaleEpoch { .. }
        | Refusal::UnknownBucket { .. }
        | Refusal::KeyLength { .. }
        | Refusal::ValueLength { .. }
        | Refusal::Count(_)
        | Refusal::Context(_)
        | Refusal::ObjectLength { .. }
        | Refusal::Malformed(_) => None,
    }
}
