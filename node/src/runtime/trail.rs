//! The trail of a request through the logs, at the client's node, at the coordinator, at each replica: of a write its op
//! id, of a read the request id, if it has one.
//!
//! At level debug, under the target `quorate::request`, so that `log = "info,quorate::request=debug"` shows it and
//! nothing else. When it is off it costs one look at a flag per batch.

use crate::kernel::{Effect, Event};
use quorate_ring::id::OpId;
use quorate_ring::version::{Dot, Object};
use quorate_ring::wire::client::{ClientReply, ClientRequest};
use quorate_ring::wire::peer::{PeerReply, PeerRequest, Replicate, StoreHint};

const TARGET: &str = "quorate::request";

/// Whether anyone wants to read it.
pub fn wanted() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// What comes in.
pub fn event(event: &Event) {
    match event {
        Event::Client { from, request, message: ClientRequest::Write(write), .. } => {
            tracing::debug!(target: TARGET, op_id = %write.op_id, session = from.0, request, "write taken from a client");
        }
        Event::Client { from, request, message: ClientRequest::Read(read), .. } => {
            if let Some(request_id) = read.request_id {
                tracing::debug!(target: TARGET, %request_id, session = from.0, request, "read taken from a client");
            }
        }
        Event::PeerRequest { from, request, message, .. } => match message {
            PeerRequest::Coordinate(coordinate) => {
                let op_id = coordinate.write.op_id;
                tracing::debug!(target: TARGET, %op_id, %from, request = request.0, "write handed on to this coordinator");
            }
            PeerRequest::Replicate(replicate) => replicated(replicate, |dot, op_id| {
                tracing::debug!(target: TARGET, %op_id, %dot, %from, request = request.0, "write replicated here");
            }),
            PeerRequest::StoreHint(StoreHint { target, replicate }) => replicated(replicate, |dot, op_id| {
                tracing::debug!(target: TARGET, %op_id, %dot, %from, %target, request = request.0, "hint kept here");
            }),
            PeerRequest::Fetch(fetch) => {
                if let Some(request_id) = fetch.request_id {
                    tracing::debug!(target: TARGET, %request_id, %from, request = request.0, "read asked of this owner");
                }
                if let Some(op_id) = fetch.context_for {
                    tracing::debug!(target: TARGET, %op_id, %from, request = request.0, "context asked of this owner");
                }
            }
            PeerRequest::Greet(_) | PeerRequest::Ping(_) | PeerRequest::Pull(_) | PeerRequest::Sync(_) => {}
        },
        Event::Started
        | Event::Client { .. }
        | Event::ClientCancelled { .. }
        | Event::ClientGone { .. }
        | Event::PeerReply { .. }
        | Event::LinkUp { .. }
        | Event::LinkDown { .. }
        | Event::Fired { .. }
        | Event::Layout(_)
        | Event::DiskReserve { .. }
        | Event::Drain => {}
    }
}

/// What goes out.
pub fn effect(effect: &Effect) {
    match effect {
        Effect::PeerRequest { to, request, message: PeerRequest::Replicate(replicate) } => {
            replicated(replicate, |dot, op_id| {
                tracing::debug!(target: TARGET, %op_id, %dot, %to, request = request.0, "write sent to an owner");
            });
        }
        Effect::PeerRequest { to, request, message: PeerRequest::Fetch(fetch) } => {
            if let Some(request_id) = fetch.request_id {
                tracing::debug!(target: TARGET, %request_id, %to, request = request.0, "read sent to an owner");
            }
        }
        Effect::PeerReply { to, request, message: PeerReply::Replicated(_) } => {
            tracing::debug!(target: TARGET, %to, request = request.0, "write held here: acked");
        }
        Effect::ClientReply { to, request, message: ClientReply::Written(receipt) } => {
            let acks = receipt.acks.len();
            tracing::debug!(target: TARGET, dot = %receipt.dot, session = to.0, request, acks, "write answered: applied");
        }
        Effect::ClientReply { to, request, message: ClientReply::Read(answer) } => {
            let answers = answer.answered.len();
            tracing::debug!(target: TARGET, session = to.0, request, answers, "read answered");
        }
        Effect::ClientReply { to, request, message: ClientReply::Refused(refusal) } => {
            tracing::debug!(target: TARGET, session = to.0, request, %refusal, "refused");
        }
        Effect::ClientReply { to, request, message: ClientReply::Unknown(uncertain) } => {
            let (acks, needed) = (uncertain.acks.len(), uncertain.needed);
            tracing::debug!(target: TARGET, session = to.0, request, acks, needed, "write answered: unknown");
        }
        Effect::ClientReply { .. }
        | Effect::PeerRequest { .. }
        | Effect::PeerReply { .. }
        | Effect::Arm { .. }
        | Effect::Amnesia { .. }
        | Effect::Joined
        | Effect::Measure(_) => {}
    }
}

/// Calls `say` for each event of a message whose op id its object knows.
fn replicated(replicate: &Replicate, say: impl Fn(Dot, OpId)) {
    let Ok(object) = Object::decode(&replicate.object) else { return };
    let live = object.siblings().iter().map(|(dot, content)| (*dot, content.op_id));
    let past = object.past_ops().iter().map(|past| (past.dot, past.op_id));
    live.chain(past).filter(|(dot, _)| replicate.dots.contains(dot)).for_each(|(dot, op_id)| say(dot, op_id));
}
