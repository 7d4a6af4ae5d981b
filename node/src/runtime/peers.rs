//! The peer plane: this node dials every other one, and answers those that dial it.

use super::close::{Close, CloseCode};
use super::endpoint::{PeerDialler, PeerLane, Plane};
use super::lane::{LaneReader, LaneSender, LaneWriter};
use super::machine;
use super::plane::{End, Exchange, carry, done, finish, lane};
use super::switchboard::PEER_QUEUE_BYTES;
use super::tls::peer_of;
use crate::kernel::{Event, RequestId};
use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;
use quorate_ring::id::NodeId;
use quorate_ring::topology::Node;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{PeerReply, PeerRequest};
use quorate_ring::wire::{ALPN_SYNC, FRAME_BYTES_MAX, Frame, server_name};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// A dial that is not answered in this time has failed.
const DIAL_TIME_MAX: Duration = Duration::from_secs(3);
/// Between two dials: from the first to the second, twice as long each time.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(2);
/// A link that stood for this long starts the back-off anew.
const STOOD: Duration = Duration::from_secs(5);

/// Answers a peer that connected, until the connection ends.
pub async fn serve(exchange: Arc<Exchange>, connection: Connection) {
    let end = match identify(&exchange, &connection) {
        Ok(peer) => answer(&exchange, peer, &connection).await.unwrap_or_else(|end| end),
        Err(close) => End::Closed(close),
    };
    finish(&exchange, Plane::Peer, &connection, &end);
}

/// Who the other side is, by the certificate that was verified.
fn identify(exchange: &Exchange, connection: &Connection) -> Result<NodeId, Close> {
    let shown = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let leaf = shown.as_deref().and_then(|chain| chain.first());
    let leaf = leaf.ok_or_else(|| Close::new(CloseCode::WrongNode, "no certificate was shown"))?;
    let topology = exchange.router.layout().topology();
    peer_of(leaf, topology, exchange.own).map_err(|e| Close::new(CloseCode::WrongNode, e.to_string()))
}

/// Which of its two lanes a peer opened, by what was agreed on in the handshake.
fn lane_of(connection: &Connection) -> PeerLane {
    let agreed = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    match agreed.and_then(|data| data.protocol) {
        Some(alpn) if alpn == ALPN_SYNC => PeerLane::Sync,
        Some(_) | None => PeerLane::Main,
    }
}

async fn answer(exchange: &Exchange, peer: NodeId, connection: &Connection) -> Result<End, End> {
    let which = lane_of(connection);
    let (send, receive) = match which {
        PeerLane::Main => lane(connection).await?,
        // The other side sees to it that it stands, and has nothing to say on it before there is something to repair.
        PeerLane::Sync => connection.accept_bi().await?,
    };
    let (sender, writer) = LaneSender::new(send, PEER_QUEUE_BYTES, exchange.board.peer_queues.clone());
    let reader = LaneReader::new(receive, FRAME_BYTES_MAX, exchange.budget.clone());
    exchange.board.peer_began(peer, which, sender.clone(), connection.clone());
    tracing::info!(%peer, lane = ?which, from = %connection.remote_address(), "peer connected");
    let end = carry(read_requests(exchange, peer, &sender, reader), writer).await;
    exchange.board.peer_ended(peer, which, &sender);
    Ok(end)
}

async fn read_requests(exchange: &Exchange, peer: NodeId, lane: &LaneSender, mut reader: LaneReader) -> End {
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return done(),
            Err(error) => return error.into(),
        };
        let arrived = exchange.clock.mono();
        let request = RequestId(frame.request);
        match PeerRequest::decode(frame.kind, &frame.payload) {
            Ok(message) => exchange.router.peer_request(peer, request, arrived, message).await,
            Err(error) => {
                tracing::warn!(%peer, %error, "a peer's request is not understood");
                let mut frames = Vec::new();
                PeerReply::Refused(Refusal::Malformed(error.to_string())).write(frame.request, &mut frames);
                // A full lane drops it, as it drops other replies.
                let _dropped = lane.send(frames);
            }
        }
    }
}

/// Keeps a connection to a peer, for as long as the node runs.
pub async fn keep_dialling(exchange: Arc<Exchange>, dialler: PeerDialler, peer: Node) {
    let connects = exchange.board.peer_connects(peer.id);
    let mut back_off = BACK_OFF_MIN;
    let mut last_failure = String::new();
    loop {
        let begun = Instant::now();
        let connected = dial(&exchange, &dialler, &peer, PeerLane::Main).await;
        match connected {
            Ok(connection) => {
                last_failure.clear();
                let end = link(&exchange, &dialler, &peer, &connection).await;
                finish(&exchange, Plane::Peer, &connection, &end);
                tracing::warn!(peer = peer.name, why = end.why(), "link down");
            }
            Err(failure) if failure == last_failure => tracing::debug!(peer = peer.name, failure, "still no link"),
            Err(failure) => {
                tracing::warn!(peer = peer.name, address = %peer.peer_address, failure, "no link; dialling on");
                last_failure = failure;
            }
        }
        if begun.elapsed() > STOOD {
            back_off = BACK_OFF_MIN;
        }
        tokio::select! {
            () = sleep(jittered(back_off)) => {}
            () = connects.notified() => {} // It is there: it has connected to us.
        }
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

async fn dial(exchange: &Exchange, dialler: &PeerDialler, peer: &Node, lane: PeerLane) -> Result<Connection, String> {
    let name = server_name(exchange.router.layout().topology().cluster, peer.id);
    let connecting = dialler.dial(lane, peer.peer_address, &name).map_err(|e| e.to_string())?;
    match timeout(DIAL_TIME_MAX, connecting).await {
        Ok(connected) => connected.map_err(|e| e.to_string()),
        Err(_) => Err("no answer".to_string()),
    }
}

/// Sends requests and takes replies, until the connection ends; and keeps the sync lane beside it for as long.
async fn link(exchange: &Arc<Exchange>, dialler: &PeerDialler, peer: &Node, connection: &Connection) -> End {
    let mut beside = JoinSet::new();
    beside.spawn(keep_sync_lane(exchange.clone(), dialler.clone(), peer.clone()));
    let end = match open(exchange, peer.id, PeerLane::Main, connection).await {
        Ok((reader, writer)) => {
            exchange.router.tell_all(&Event::LinkUp { peer: peer.id });
            tracing::info!(peer = peer.name, address = %peer.peer_address, "link up");
            let end = carry(read_replies(exchange, peer.id, reader), writer).await;
            exchange.board.link_down(peer.id, PeerLane::Main);
            exchange.router.tell_all(&Event::LinkDown { peer: peer.id });
            end
        }
        Err(end) => end,
    };
    beside.shutdown().await;
    exchange.board.link_down(peer.id, PeerLane::Sync);
    end
}

/// Dials the sync lane again and again. The shards are not told: what belongs on it goes on the main lane meanwhile.
async fn keep_sync_lane(exchange: Arc<Exchange>, dialler: PeerDialler, peer: Node) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let begun = Instant::now();
        match dial(&exchange, &dialler, &peer, PeerLane::Sync).await {
            Ok(connection) => {
                let end = match open(&exchange, peer.id, PeerLane::Sync, &connection).await {
                    Ok((reader, writer)) => carry(read_replies(&exchange, peer.id, reader), writer).await,
                    Err(end) => end,
                };
                exchange.board.link_down(peer.id, PeerLane::Sync);
                finish(&exchange, Plane::Peer, &connection, &end);
                tracing::debug!(peer = peer.name, why = end.why(), "sync lane down");
            }
            Err(failure) => tracing::debug!(peer = peer.name, failure, "no sync lane"),
        }
        if begun.elapsed() > STOOD {
            back_off = BACK_OFF_MIN;
        }
        sleep(jittered(back_off)).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// Opens the one lane of a connection that this node made.
async fn open(
    exchange: &Exchange,
    peer: NodeId,
    which: PeerLane,
    connection: &Connection,
) -> Result<(LaneReader, LaneWriter), End> {
    let (send, receive) = connection.open_bi().await.map_err(End::from)?;
    let (sender, writer) = LaneSender::new(send, PEER_QUEUE_BYTES, exchange.board.peer_queues.clone());
    exchange.board.link_up(peer, which, sender);
    Ok((LaneReader::new(receive, FRAME_BYTES_MAX, exchange.budget.clone()), writer))
}

async fn read_replies(exchange: &Exchange, peer: NodeId, mut reader: LaneReader) -> End {
    let malformed = |cause: String| End::Closed(Close::new(CloseCode::Malformed, cause));
    loop {
        let Frame { kind, request, payload } = match reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return done(),
            Err(error) => return error.into(),
        };
        let message = match PeerReply::decode(kind, &payload) {
            Ok(message) => message,
            Err(error) => return malformed(format!("reply to request {request:x}: {error}")),
        };
        if let Err(error) = exchange.router.peer_reply(peer, RequestId(request), message).await {
            return malformed(error.to_string());
        }
    }
}

/// Between half of it and all of it, so that peers that lost each other at once do not all come back at once.
fn jittered(back_off: Duration) -> Duration {
    let share = machine::random().map_or(0, |random| random % 1000) as u32;
    back_off / 2 + back_off / 2 * share / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_is_jittered_within_its_half() {
        let all: Vec<Duration> = (0..100).map(|_| jittered(BACK_OFF_MAX)).collect();
        assert!(all.iter().all(|wait| (BACK_OFF_MAX / 2..=BACK_OFF_MAX).contains(wait)));
        assert!(all.iter().any(|wait| *wait != all[0]));
    }
}
