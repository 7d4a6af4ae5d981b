//! What happens, in words: the lines of a story.

use super::clock::EPOCH_MS;
use super::keys::Keys;
use super::load::{Kind, Op, Pending, Stated};
use super::rare::Rare;
use super::trace::{About, Trace};
use super::world::World;
use crate::checks::Said;
use bytes::Bytes;
use quorate_node::kernel::Measure;
use quorate_ring::id::NodeId;
use quorate_ring::version::{Dot, Object};
use quorate_ring::wire::client::{Ack, ClientReply, ReadAnswer, Receipt, Standing};
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Purpose};

/// What a request between nodes says; nothing of heartbeats.
fn request(message: &PeerRequest) -> Option<String> {
    let text = match message {
        PeerRequest::Greet(_) | PeerRequest::Ping(_) => return None,
        PeerRequest::Coordinate(m) => format!("coordinate op {}", Op::number_of(m.write.op_id)),
        PeerRequest::Replicate(m) => match m.purpose {
            Purpose::Write => format!("write {}", list(&m.dots)),
            Purpose::ReadRepair => format!("repair: {}", held(&m.object)),
            Purpose::Handoff => format!("a hint that I kept for you: {}", list(&m.dots)),
        },
        PeerRequest::StoreHint(m) => format!("keep a hint of {} for {}", list(&m.replicate.dots), m.target),
        PeerRequest::Fetch(m) if m.context_for.is_some() => "what would a write supersede?".to_string(),
        PeerRequest::Fetch(_) => "what do you hold?".to_string(),
        PeerRequest::Pull(m) => format!("what do I lack of partition {}?", m.partition),
        PeerRequest::Sync(m) => match &m.after {
            None => format!("all of partition {}, please", m.partition),
            Some((_, key)) => format!("partition {} behind {}, please", m.partition, String::from_utf8_lossy(key)),
        },
    };
    Some(text)
}

fn reply(message: &PeerReply) -> Option<String> {
    let text = match message {
        PeerReply::Greeted(_) | PeerReply::Pong(_) => return None,
        PeerReply::Replicated(_) => "ack".to_string(),
        PeerReply::Fetched(m) => held(&m.object),
        PeerReply::Written(receipt) => format!("written as {}", receipt.dot),
        PeerReply::Refused(refusal) => format!("refused: {refusal}"),
        PeerReply::Unknown(uncertain) => format!("unknown: {}", uncertain.doubt),
        PeerReply::Pulled(m) if m.below_floor => {
            format!("my log of partition {} does not reach back so far", m.partition)
        }
        PeerReply::Pulled(m) => format!("{} objects of partition {}", m.objects.len(), m.partition),
        PeerReply::Synced(m) => {
            let rest = if m.done { "that is all" } else { "there is more" };
            format!("{} objects of partition {}, {rest}", m.records.len(), m.partition)
        }
    };
    Some(text)
}

/// The key of a request, if it is about one.
fn key_of(message: &PeerRequest, keys: &Keys) -> Option<u32> {
    match message {
        PeerRequest::Coordinate(m) => keys.number(m.write.bucket, &m.write.key),
        PeerRequest::Replicate(m) => keys.number(m.bucket, &m.key),
        PeerRequest::StoreHint(m) => keys.number(m.replicate.bucket, &m.replicate.key),
        PeerRequest::Fetch(m) => keys.number(m.bucket, &m.key),
        PeerRequest::Greet(_) | PeerRequest::Ping(_) | PeerRequest::Pull(_) | PeerRequest::Sync(_) => None,
    }
}

/// What a page of a pull or of a full sync says of each of its keys.
fn page(message: &PeerReply, keys: &Keys) -> Vec<(u32, String)> {
    let line = |bucket, key: &[u8], object: &Bytes| Some((keys.number(bucket, key)?, held(object)));
    match message {
        PeerReply::Pulled(m) => m.objects.iter().filter_map(|o| line(o.bucket, &o.key, &o.object)).collect(),
        PeerReply::Synced(m) => m.records.iter().filter_map(|r| line(r.bucket, &r.key, &r.object)).collect(),
        PeerReply::Greeted(_)
        | PeerReply::Pong(_)
        | PeerReply::Written(_)
        | PeerReply::Replicated(_)
        | PeerReply::Fetched(_)
        | PeerReply::Refused(_)
        | PeerReply::Unknown(_) => Vec::new(),
    }
}

fn held(object: &Bytes) -> String {
    let Ok(object) = Object::decode(object) else { return "something that does not decode".to_string() };
    let context: Vec<_> = object.context().iter().map(|(actor, seq)| format!("{actor}:{seq}")).collect();
    let known = if context.is_empty() { "nothing".to_string() } else { context.join(" ") };
    let shown: Vec<Dot> = object.siblings().iter().map(|(dot, _)| *dot).collect();
    format!("holds {}, knows up to {known}", list(&shown))
}

fn list(dots: &[Dot]) -> String {
    let each: Vec<_> = dots.iter().map(Dot::to_string).collect();
    if each.is_empty() { "nothing".to_string() } else { each.join(" and ") }
}

fn nodes(ids: impl Iterator<Item = NodeId>) -> String {
    let each: Vec<_> = ids.map(|id| id.to_string()).collect();
    if each.is_empty() { "nobody".to_string() } else { each.join(", ") }
}

impl World {
    /// The first line of the story of a key.
    pub fn title(&self, key: u32) -> String {
        let key = self.keys.get(key);
        let owners = nodes(key.owners.iter().copied());
        format!("{} of bucket {:?}, owners {owners}", String::from_utf8_lossy(&key.bytes), key.bucket.name)
    }

    pub fn say_request(&mut self, from: usize, to: usize, number: u64, message: &PeerRequest) {
        let Some(text) = self.trace.tells().then(|| request(message)).flatten() else { return };
        let key = key_of(message, &self.keys);
        if let Some(key) = key {
            self.trace.asked.insert((from, to, number), key);
        }
        self.say_frame(from, to, key, &text);
    }

    pub fn say_answer(&mut self, from: usize, to: usize, number: u64, message: &PeerReply) {
        let Some(text) = self.trace.tells().then(|| reply(message)).flatten() else { return };
        let key = self.trace.asked.get(&(to, from, number)).copied();
        self.say_frame(from, to, key, &text);
        for (key, text) in page(message, &self.keys) {
            self.say_frame(from, to, Some(key), &text);
        }
    }

    fn say_frame(&mut self, from: usize, to: usize, key: Option<u32>, text: &str) {
        let about = key.map_or(About::Traffic, About::Key);
        let (from, to) = (self.nodes[from].id, self.nodes[to].id);
        self.trace.tell(self.now_us, about, || format!("{from} to {to}: {text}"));
    }

    pub fn say_op(&mut self, op: u32, node: usize) {
        if !self.trace.tells() {
            return;
        }
        let op = self.load.op(op).clone();
        let stated = match &op.stated {
            Stated::Nothing => "supersedes nothing".to_string(),
            Stated::Local => "supersedes what is there".to_string(),
            Stated::Latest => "supersedes the latest".to_string(),
            Stated::Seen(_, context) => {
                let seen: Vec<_> = context.iter().map(|(actor, seq)| format!("{actor}:{seq}")).collect();
                format!("supersedes what was seen, up to {}", seen.join(" "))
            }
        };
        let (node, key) = (self.nodes[node].id, self.keys.get(op.key));
        let n = key.bucket.n;
        let what = match op.kind {
            Kind::Put => {
                let after = op.expires_ms.map(|at| at.saturating_sub(EPOCH_MS + op.invoked_us / 1_000));
                let expires = after.map_or(String::new(), |ms| format!(", expires after {ms} ms"));
                format!("puts: it {stated}{expires}, W is {} of {n}, {:?}", op.w_of(key), op.durability_of(key))
            }
            Kind::Delete => format!("deletes: it {stated}, W is {} of {n}, {:?}", op.w_of(key), op.durability_of(key)),
            Kind::Read => format!("reads: R is {} of {n}", op.r_of(key)),
        };
        let again = if op.attempts > 1 { format!(", attempt {}", op.attempts) } else { String::new() };
        self.trace.say(self.now_us, Some(op.key), || {
            let (client, number, quorum) = (op.client, op.number, op.quorum_of(key));
            format!("client {client}, op {number}{again}, through {node}, {what}, {quorum:?}, {} ms", op.deadline_ms)
        });
    }

    pub fn say_minted(&mut self, node: usize, minted: &[Said]) {
        let id = self.nodes[node].id;
        for Said { key, op, dot } in minted {
            self.trace.say(self.now_us, Some(*key), || format!("{id} mints {dot} for op {op}"));
        }
    }

    pub fn say_reply(&mut self, pending: &Pending, reply: &ClientReply) {
        if !self.trace.tells() {
            return;
        }
        let (op, key) = (pending.op, self.load.op(pending.op).key);
        let text = match reply {
            ClientReply::Written(receipt) => written(receipt),
            ClientReply::Read(answer) => read(answer),
            ClientReply::Refused(refusal) => format!("refused: {refusal}"),
            ClientReply::Unknown(uncertain) => {
                let acks = nodes(uncertain.acks.iter().map(|ack| ack.node));
                format!("unknown: {}; acked by {acks}", uncertain.doubt)
            }
            ClientReply::Hello(_) | ClientReply::Page(_) | ClientReply::LogPage(_) | ClientReply::Status(_) => {
                "something else".to_string()
            }
        };
        self.trace.say(self.now_us, Some(key), || format!("client {} hears of op {op}: {text}", pending.client));
    }

    pub fn count_read(&mut self, answer: &ReadAnswer) {
        let rare = [
            (answer.siblings.len() > 1, Rare::Siblings),
            (answer.set_aside > 0, Rare::SetAside),
            (answer.short, Rare::ShortRead),
            (!answer.repairing.is_empty(), Rare::RepairingRead),
        ];
        rare.into_iter().filter(|(happened, _)| *happened).for_each(|(_, name)| self.trace.rare(name));
    }
}

fn written(receipt: &Receipt) -> String {
    let ack = |ack: &Ack| match ack.standing {
        Standing::Owner => format!("{} ({:?})", ack.node, ack.durability),
        Standing::Fallback { target } => format!("{} with a hint for {target} ({:?})", ack.node, ack.durability),
    };
    let acks: Vec<_> = receipt.acks.iter().map(ack).collect();
    let repeated = if receipt.repeated { ", known already," } else { "" };
    format!("written as {}{repeated} by {}, {} siblings", receipt.dot, acks.join(", "), receipt.siblings)
}

fn read(answer: &ReadAnswer) -> String {
    let shown: Vec<_> = answer.siblings.iter().map(|s| s.dot).collect();
    let mut text = format!("it is {}, says {}", list(&shown), nodes(answer.answered.iter().map(|a| a.node)));
    if !answer.repairing.is_empty() {
        text += &format!("; being repaired: {}", nodes(answer.repairing.iter().copied()));
    }
    text
}

impl Trace {
    pub fn measure(&mut self, measure: &Measure) {
        match measure {
            Measure::ReadRepair => self.rare(Rare::ReadRepair),
            Measure::HandedOff => self.rare(Rare::HandedOff),
            Measure::Pulled { dots } if *dots > 0 => self.rare(Rare::Pulled),
            Measure::FullSync => self.rare(Rare::FullSync),
            Measure::Erased { .. } => self.rare(Rare::Erased),
            Measure::ClockAhead => self.rare(Rare::ClockAhead),
            Measure::Misplaced { .. } => self.rare(Rare::Misplaced),
            Measure::Written { .. }
            | Measure::Read { .. }
            | Measure::Replied { .. }
            | Measure::AckSpread { .. }
            | Measure::CanaryWritten
            | Measure::CanarySeen { .. }
            | Measure::SetAside { .. }
            | Measure::Merged { .. }
            | Measure::Pulled { .. }
            | Measure::ClockOffset { .. } => {}
        }
    }
}
