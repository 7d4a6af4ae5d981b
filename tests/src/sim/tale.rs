//! What happens, in words: the lines of a story.

use super::keys::Keys;
use super::load::{Kind, Pending, Stated};
use super::trace::Trace;
use super::world::World;
use quorate_node::kernel::Measure;
use quorate_ring::wire::client::{ClientReply, ReadAnswer, Receipt};
use quorate_ring::wire::peer::{PeerReply, PeerRequest};

/// What a request between nodes says, and of which key; nothing of heartbeats.
pub fn request(message: &PeerRequest, keys: &Keys) -> (Option<u32>, Option<String>) {
    match message {
        PeerRequest::Greet(_) | PeerRequest::Ping(_) => (None, None),
        PeerRequest::Coordinate(m) => {
            let op = super::load::Op::number_of(m.write.op_id);
            (keys.number(m.write.bucket, &m.write.key), Some(format!("coordinate op {op}")))
        }
        PeerRequest::Replicate(m) => (
            keys.number(m.bucket, &m.key),
            Some(format!("replicate {:?} ({:?}, {:?})", m.dots, m.purpose, m.durability)),
        ),
        PeerRequest::StoreHint(m) => {
            let replicate = &m.replicate;
            let text = format!("keep a hint of {:?} for {}", replicate.dots, m.target);
            (keys.number(replicate.bucket, &replicate.key), Some(text))
        }
        PeerRequest::Fetch(m) => (keys.number(m.bucket, &m.key), Some("fetch".to_string())),
        PeerRequest::Pull(m) => (None, Some(format!("pull {}", m.partition))),
        PeerRequest::Sync(m) => (None, Some(format!("full sync of {}, after {:?}", m.partition, m.after))),
    }
}

pub fn reply(message: &PeerReply) -> (Option<u32>, Option<String>) {
    let text = match message {
        PeerReply::Greeted(_) | PeerReply::Pong(_) | PeerReply::Replicated(_) | PeerReply::Fetched(_) => {
            return (None, None);
        }
        PeerReply::Written(receipt) => format!("written {}", receipt.dot),
        PeerReply::Refused(refusal) => format!("refused: {refusal}"),
        PeerReply::Unknown(uncertain) => format!("unknown: {}", uncertain.doubt),
        PeerReply::Pulled(page) => format!("pulled {} objects of {}", page.objects.len(), page.partition),
        PeerReply::Synced(page) => format!("{} objects of {}, done: {}", page.records.len(), page.partition, page.done),
    };
    (None, Some(text))
}

impl World {
    pub fn say_op(&mut self, op: u32, node: usize) {
        if !self.trace.tells() {
            return;
        }
        let op = self.load.op(op).clone();
        let stated = match &op.stated {
            Stated::Nothing => "superseding nothing".to_string(),
            Stated::Local => "superseding what is there".to_string(),
            Stated::Latest => "superseding the latest".to_string(),
            Stated::Seen(_, context) => format!("superseding {:?}", context.iter().collect::<Vec<_>>()),
        };
        let what = match op.kind {
            Kind::Put => format!("puts, {stated}"),
            Kind::Delete => format!("deletes, {stated}"),
            Kind::Read => "reads".to_string(),
        };
        let (node, key) = (self.nodes[node].id, self.keys.get(op.key));
        let owners: Vec<_> = key.owners.iter().map(|owner| owner.0).collect();
        self.trace.say(self.now_us, Some(op.key), || {
            format!(
                "client {} {what} (op {}, attempt {}, {}, owners {owners:?}, r {:?}, w {:?}, {:?}, {} ms) via {node}",
                op.client, op.number, op.attempts, key.bucket.name, op.r, op.w, op.durability, op.deadline_ms
            )
        });
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
                let acks: Vec<_> = uncertain.acks.iter().map(|ack| ack.node.0).collect();
                format!("unknown: {}; acked by {acks:?}", uncertain.doubt)
            }
            ClientReply::Hello(_) | ClientReply::Page(_) | ClientReply::LogPage(_) | ClientReply::Status(_) => {
                "something else".to_string()
            }
        };
        self.trace.say(self.now_us, Some(key), || format!("op {op}: {text}"));
    }

    pub fn count_read(&mut self, answer: &ReadAnswer) {
        let rare = [
            (answer.siblings.len() > 1, "reads with siblings"),
            (answer.set_aside > 0, "reads that set writes aside"),
            (answer.short, "short reads"),
            (!answer.repairing.is_empty(), "reads that repair"),
        ];
        rare.into_iter().filter(|(happened, _)| *happened).for_each(|(_, name)| self.trace.rare(name));
    }
}

fn written(receipt: &Receipt) -> String {
    let acks: Vec<_> = receipt.acks.iter().map(|ack| (ack.node.0, ack.standing, ack.durability)).collect();
    let repeated = if receipt.repeated { " (known already)" } else { "" };
    format!("written as {}{repeated} by {acks:?}, {} siblings", receipt.dot, receipt.siblings)
}

fn read(answer: &ReadAnswer) -> String {
    let nodes: Vec<_> = answer.answered.iter().map(|a| a.node.0).collect();
    let shown: Vec<_> = answer.siblings.iter().map(|s| s.dot).collect();
    format!("read {shown:?} from {nodes:?}, repairing {:?}", answer.repairing)
}

impl Trace {
    pub fn measure(&mut self, measure: &Measure) {
        match measure {
            Measure::ReadRepair => self.rare("read repairs"),
            Measure::HandedOff => self.rare("hints handed off"),
            Measure::Pulled { dots } if *dots > 0 => self.rare("pulls that brought something"),
            Measure::FullSync => self.rare("full syncs"),
            Measure::Erased { .. } => self.rare("erasures"),
            Measure::ClockAhead => self.rare("timestamps too far ahead"),
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
