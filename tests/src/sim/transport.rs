//! Frames under way between nodes, and the links that carry them.

use super::network::{Flight, LinkId};
use super::rare::Rare;
use super::routing::{Way, way};
use super::world::{Happening, ShardRef, World};
use crate::checks::{Property, Violation};
use bytes::{Bytes, BytesMut};
use quorate_node::kernel::{Event, RequestId};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use quorate_ring::wire::{FRAME_BYTES_MAX, Frame, take_frame};

/// How often a frame on a cut link is tried again.
const RETRY_US: u64 = 20_000;
/// The shortest time in which the death of a process is noticed: its machine says so.
const RESET_US: u64 = 5_000;

/// What a frame carries.
enum Message {
    Request(PeerRequest),
    Reply(PeerReply),
}

impl World {
    pub fn send_request(&mut self, from: usize, to: usize, request: RequestId, message: &PeerRequest) {
        let mut bytes = Vec::with_capacity(256);
        message.write(request.0, &mut bytes);
        // QUIC never repeats a frame. Stores stand it but for this one: a copy that is refused after the first was
        // carried out would make "not applied" a lie.
        let may_repeat = !matches!(message, PeerRequest::Coordinate(_));
        self.send(LinkId { dialler: from, target: to }, false, may_repeat, bytes);
    }

    pub fn send_reply(&mut self, from: usize, to: usize, request: RequestId, message: &PeerReply) {
        let mut bytes = Vec::with_capacity(256);
        message.write(request.0, &mut bytes);
        self.send(LinkId { dialler: to, target: from }, true, true, bytes);
    }

    fn send(&mut self, link: LinkId, reply: bool, may_repeat: bool, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        if !self.network.link(link).up {
            return;
        }
        let generation = self.network.link(link).generation;
        let [first, second] = self.network.send(self.now_us, link, reply, may_repeat);
        if let Some(at) = second {
            self.heap.push(at, Happening::Arrives(Flight { link, generation, reply, bytes: bytes.clone() }));
        }
        if let Some(at) = first {
            self.heap.push(at, Happening::Arrives(Flight { link, generation, reply, bytes }));
        }
    }

    pub fn arrives(&mut self, flight: Flight) -> Result<(), Violation> {
        let (from, to) = flight.link.ends(flight.reply);
        let link = self.network.link(flight.link);
        if !link.up || link.generation != flight.generation || !self.nodes[to].running {
            return Ok(());
        }
        if self.network.is_cut(from, to) {
            if self.network.ordered() {
                // The sender goes on trying until the link breaks.
                self.heap.push(self.now_us + RETRY_US, Happening::Arrives(flight));
            }
            return Ok(());
        }
        self.trace.note(self.now_us, to, u64::from(flight.reply), &flight.bytes);
        let mut buffer = BytesMut::from(flight.bytes);
        if self.network.damages() {
            let at = self.network.jitter_us(buffer.len() as u64) as usize - 1;
            buffer[at] ^= 1 << (at % 8);
        }
        let frame = match take_frame(&mut buffer, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => frame,
            // Damaged, or cut short: the rest of the stream cannot be read.
            Ok(None) | Err(_) => {
                self.trace.rare(Rare::Damaged);
                return self.break_link(flight.link);
            }
        };
        self.hand_over(from, to, &frame, flight.reply)
    }

    fn hand_over(&mut self, from: usize, to: usize, frame: &Frame, reply: bool) -> Result<(), Violation> {
        let decoded = if reply {
            PeerReply::decode(frame.kind, &frame.payload).map(Message::Reply)
        } else {
            PeerRequest::decode(frame.kind, &frame.payload).map(Message::Request)
        };
        let message = decoded.map_err(|why| Violation::new(Property::Wire, None, format!("a frame: {why}")))?;
        let (sender, request) = (self.nodes[from].id, RequestId(frame.request));
        match &message {
            Message::Request(message) => self.say_request(from, to, frame.request, message),
            Message::Reply(message) => self.say_answer(from, to, frame.request, message),
        }
        self.count_frame(from, &message);
        let shards = self.nodes[to].shards.len() as u8;
        let incarnation = self.nodes[to].incarnation;
        let at = |shard: u8| ShardRef { node: to, incarnation, shard };
        match message {
            Message::Reply(message) => {
                self.checks.check_page(&message)?;
                let shard = request.shard();
                if shard < shards {
                    return self.tell(at(shard), Event::PeerReply { from: sender, request, message });
                }
            }
            Message::Request(message) => {
                let arrived = self.nodes[to].clock.now(self.now_us).mono;
                let way = way(&self.layout, &message, shards);
                let event = Event::PeerRequest { from: sender, request, arrived, message };
                match way {
                    Way::All => self.tell_all(to, &event)?,
                    Way::One(shard) => {
                        self.checks.promised(to, arrived, &event);
                        return self.tell(at(shard), event);
                    }
                }
            }
        }
        Ok(())
    }

    fn count_frame(&mut self, from: usize, message: &Message) {
        let rare = match message {
            Message::Request(PeerRequest::Coordinate(_)) => Rare::Forwarded,
            Message::Reply(PeerReply::Refused(Refusal::HintsFull { .. })) => Rare::HintsFull,
            Message::Reply(PeerReply::Refused(Refusal::NotReady)) => Rare::NotReady,
            Message::Reply(PeerReply::Pulled(page)) if page.below_floor => Rare::BelowFloor,
            Message::Reply(PeerReply::Pulled(page)) if page.more => Rare::PullPages,
            Message::Reply(PeerReply::Synced(_)) if self.nodes[from].is_rebuilding() => Rare::SyncFromRebuilding,
            Message::Reply(PeerReply::Synced(page)) if !page.done => Rare::SyncPages,
            Message::Request(_) | Message::Reply(_) => return,
        };
        self.trace.rare(rare);
    }

    /// Looks at a link, and comes back when there may be something new to see.
    pub fn check_link(&mut self, id: LinkId) -> Result<(), Violation> {
        let now = self.now_us;
        if self.network.link(id).check_at_us != Some(now) {
            return Ok(()); // An earlier look has taken its place.
        }
        self.network.link_mut(id).check_at_us = None;
        if !self.nodes[id.dialler].running {
            return Ok(());
        }
        let target = &self.nodes[id.target];
        let (alive, incarnation) = (target.running, target.incarnation);
        let dead_since = self.network.dead_since_us(id);
        let link = self.network.link(id);
        if link.up {
            let stale = !alive || link.incarnation != incarnation;
            let idle = dead_since.map(|since| since + self.options.idle_timeout_us);
            if stale || idle.is_some_and(|at| at <= now) {
                return self.break_link(id);
            }
            if let Some(at) = idle {
                self.look_at(id, at);
            }
            return Ok(());
        }
        if !alive || dead_since.is_some() {
            self.look_at(id, now + self.options.redial_us);
            return Ok(());
        }
        let link = self.network.link_mut(id);
        (link.up, link.incarnation) = (true, incarnation);
        link.generation += 1;
        let peer = self.nodes[id.target].id;
        self.tell_all(id.dialler, &Event::LinkUp { peer })
    }

    /// A link breaks. Its dialler hears of it, and dials again.
    pub fn break_link(&mut self, id: LinkId) -> Result<(), Violation> {
        if !self.network.link(id).up {
            return Ok(());
        }
        let link = self.network.link_mut(id);
        link.up = false;
        link.generation += 1;
        self.look_at(id, self.now_us + self.options.redial_us);
        let (dialler, peer) = (self.nodes[id.dialler].id, self.nodes[id.target].id);
        self.trace.rare(Rare::LinkBroken);
        self.trace.say(self.now_us, None, || format!("the link of {dialler} to {peer} breaks"));
        self.tell_all(id.dialler, &Event::LinkDown { peer })
    }

    /// A link will be looked at, at this time at the latest.
    pub fn look_at(&mut self, id: LinkId, at_us: u64) {
        let link = self.network.link_mut(id);
        if link.check_at_us.is_none_or(|planned| planned > at_us || planned < self.now_us) {
            link.check_at_us = Some(at_us);
            self.heap.push(at_us, Happening::CheckLink(id));
        }
    }

    /// A direction is cut, or mended: connections that need it die after a while without a sign of life.
    pub fn links_of_cut(&mut self, from: usize, to: usize) {
        let at = self.now_us + self.options.idle_timeout_us;
        self.look_at(LinkId { dialler: from, target: to }, at);
        self.look_at(LinkId { dialler: to, target: from }, at);
    }

    /// A node died: its own links are gone, its peers notice now or after the idle time-out.
    pub fn links_of_stopped(&mut self, node: usize) {
        for id in self.network.each_link().filter(|id| id.dialler == node || id.target == node) {
            if id.dialler == node {
                let link = self.network.link_mut(id);
                link.generation += u32::from(link.up);
                link.up = false;
            } else {
                let quick = self.network.jitter_us(2) == 1;
                let wait = if quick { RESET_US } else { self.options.idle_timeout_us };
                self.look_at(id, self.now_us + wait);
            }
        }
    }

    pub fn links_of_started(&mut self, node: usize) {
        for id in self.network.each_link().filter(|id| id.dialler == node || id.target == node) {
            let soon = self.now_us + self.network.jitter_us(50_000);
            self.look_at(id, soon);
        }
    }
}
