//! The client plane: a session per connection, its requests to the shards, its replies back.

use super::close::{Close, CloseCode};
use super::endpoint::Plane;
use super::lane::{LaneReader, LaneSender, NotQueued};
use super::plane::{End, Exchange, carry, done, finish, lane};
use super::switchboard::CLIENT_QUEUE_BYTES;
use crate::kernel::{Event, SessionId};
use crate::metrics::Op;
use quinn::Connection;
use quorate_ring::topology::VALUE_BYTES_MAX;
use quorate_ring::wire::client::{Change, ClientReply, ClientRequest, Hello, HelloReply, WriteRequest};
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::{Frame, PROTOCOL_MINOR};
use std::sync::Arc;

/// The longest request: a value, its key and a context, with room to spare.
pub const CLIENT_FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + 256 * 1024;
/// While this much waits to be taken by the client, its next request is not read.
const PAUSE_BYTES: usize = CLIENT_QUEUE_BYTES / 4;
/// Replies up to this much over the bound are still queued: they are small ones.
const QUEUE_SLACK_BYTES: usize = 4 * 1024 * 1024;

/// Serves one connection until it ends.
pub async fn serve(exchange: Arc<Exchange>, connection: Connection) {
    let end = match lane(&connection).await {
        Ok((send, receive)) => {
            let total = exchange.board.client_queues.clone();
            let (sender, writer) = LaneSender::new(send, CLIENT_QUEUE_BYTES + QUEUE_SLACK_BYTES, total);
            let reader = LaneReader::new(receive, CLIENT_FRAME_BYTES_MAX, exchange.budget.clone());
            let id = SessionId(exchange.new_session());
            exchange.board.session_began(id, sender.clone(), connection.clone());
            let mut session = Session { id, exchange: &exchange, lane: sender, greeted: false };
            let end = carry(session.read(reader), writer).await;
            exchange.board.session_ended(id);
            exchange.router.tell_all(&Event::ClientGone { from: id });
            end
        }
        Err(end) => end,
    };
    finish(&exchange, Plane::Client, &connection, &end);
}

/// As the metrics name it, if it is a request that they count.
fn op_of(message: &ClientRequest) -> Option<Op> {
    match message {
        ClientRequest::Write(WriteRequest { change: Change::Put { .. }, .. }) => Some(Op::Put),
        ClientRequest::Write(WriteRequest { change: Change::Delete, .. }) => Some(Op::Delete),
        ClientRequest::Read(_) => Some(Op::Get),
        ClientRequest::Hello(_)
        | ClientRequest::Scan(_)
        | ClientRequest::Log(_)
        | ClientRequest::Status(_)
        | ClientRequest::Repair(_)
        | ClientRequest::Cancel(_) => None,
    }
}

struct Session<'a> {
    id: SessionId,
    exchange: &'a Exchange,
    lane: LaneSender,
    greeted: bool,
}

impl Session<'_> {
    async fn read(&mut self, mut reader: LaneReader) -> End {
        loop {
            match reader.next().await {
                Ok(Some(frame)) => {
                    if let Err(end) = self.take(&frame) {
                        return end;
                    }
                }
                Ok(None) => return done(),
                Err(error) => return error.into(),
            }
            self.lane.below(PAUSE_BYTES).await;
        }
    }

    fn take(&mut self, frame: &Frame) -> Result<(), End> {
        let arrived = self.exchange.clock.mono();
        let request = frame.request;
        let message = match ClientRequest::decode(frame.kind, &frame.payload) {
            Ok(message) => message,
            Err(error) => return self.refuse(request, Refusal::Malformed(error.to_string())),
        };
        if !self.greeted && !matches!(message, ClientRequest::Hello(_)) {
            let reason = "the first message on a connection is Hello".to_string();
            return self.refuse(request, Refusal::Malformed(reason));
        }
        match message {
            ClientRequest::Hello(hello) => match self.hello(&hello) {
                Ok(reply) => self.reply(request, &reply),
                Err(refusal) => self.refuse(request, refusal),
            },
            ClientRequest::Cancel(_) => {
                self.exchange.router.cancelled(self.id, request);
                Ok(())
            }
            ClientRequest::Write(_)
            | ClientRequest::Read(_)
            | ClientRequest::Scan(_)
            | ClientRequest::Log(_)
            | ClientRequest::Status(_)
            | ClientRequest::Repair(_) => {
                let op = op_of(&message);
                let passed = self.exchange.router.client(self.id, request, arrived, message);
                passed.or_else(|full| {
                    self.exchange.metrics.inbox_refused(op);
                    self.refuse(request, Refusal::Overloaded { retry_after_ms: full.retry_after_ms })
                })
            }
        }
    }

    fn hello(&mut self, hello: &Hello) -> Result<ClientReply, Refusal> {
        let topology = self.exchange.router.layout().topology();
        let ours = topology.cluster;
        if let Some(yours) = hello.cluster.filter(|yours| *yours != ours) {
            return Err(Refusal::WrongCluster { yours, ours });
        }
        if hello.minor.abs_diff(PROTOCOL_MINOR) > 1 {
            let (theirs, ours) = (hello.minor, PROTOCOL_MINOR);
            let reason = format!("protocol minor {theirs}; this node speaks {ours}, and understands one more or less");
            return Err(Refusal::Malformed(reason));
        }
        self.greeted = true;
        Ok(ClientReply::Hello(HelloReply {
            minor: PROTOCOL_MINOR,
            node: self.exchange.own,
            cluster: ours,
            epoch: topology.epoch,
            topology: topology.source().to_string(),
        }))
    }

    fn refuse(&self, request: u64, refusal: Refusal) -> Result<(), End> {
        self.reply(request, &ClientReply::Refused(refusal))
    }

    fn reply(&self, request: u64, reply: &ClientReply) -> Result<(), End> {
        let mut frames = Vec::new();
        reply.write(request, &mut frames);
        match self.lane.send(frames) {
            Ok(()) | Err(NotQueued::Closed) => Ok(()),
            Err(full @ NotQueued::Full) => Err(End::Closed(Close::new(CloseCode::TooSlow, full.to_string()))),
        }
    }
}
