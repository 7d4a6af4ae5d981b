//! What both planes share: the parts of the node that a connection needs, and the way in.

use super::clock::Clock;
use super::close::{Close, CloseCode};
use super::door::{Door, Ticket, Verdict};
use super::endpoint::Plane;
use super::lane::{LaneError, LaneWriter, ReadBudget};
use super::router::Router;
use super::switchboard::Switchboard;
use crate::metrics::Metrics;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, ReadError, RecvStream, SendStream};
use quorate_ring::id::NodeId;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

/// From the first datagram of a connection to the end of its handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// From there to the first frame.
const LANE_TIME_MAX: Duration = Duration::from_secs(10);
/// Between two lines of the log about refused connections.
const REFUSALS_LOGGED_EVERY: Duration = Duration::from_secs(1);

/// What connections work with. One per node, shared by all of them.
pub struct Exchange {
    pub own: NodeId,
    pub clock: Clock,
    pub router: Router,
    pub board: Arc<Switchboard>,
    pub metrics: Arc<Metrics>,
    pub budget: ReadBudget,
    next_session: AtomicU64,
    refusals: Sparing,
}

impl Exchange {
    pub fn new(own: NodeId, clock: Clock, router: Router, board: Arc<Switchboard>, metrics: Arc<Metrics>) -> Self {
        let budget = ReadBudget::new(READ_BUDGET_BYTES);
        let (next_session, refusals) = (AtomicU64::new(1), Sparing::default());
        Self { own, clock, router, board, metrics, budget, next_session, refusals }
    }

    /// A number that no other session of this run has; 0 is the node's own.
    pub fn new_session(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }
}

/// Memory for large frames that are being read, over all connections.
const READ_BUDGET_BYTES: usize = 256 * 1024 * 1024;

/// Lets a line of the log through now and then, so that whoever is refused cannot fill the disk.
#[derive(Default)]
struct Sparing {
    /// Milliseconds on the node's clock, plus one; 0 at first.
    last: AtomicU64,
}

impl Sparing {
    fn may(&self, now: Duration) -> bool {
        let now = now.as_millis() as u64 + 1;
        let last = self.last.load(Ordering::Relaxed);
        (last == 0 || now - last.min(now) >= REFUSALS_LOGGED_EVERY.as_millis() as u64)
            && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Accepts connections and serves each until it ends, until the endpoint is closed.
pub async fn accept<F, Fut>(endpoint: Endpoint, plane: Plane, door: Arc<Door>, exchange: Arc<Exchange>, serve: F)
where
    F: Fn(Arc<Exchange>, Connection) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
    F: Clone + Send + 'static,
{
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        while connections.try_join_next().is_some() {}
        match door.judge(&incoming) {
            Verdict::Enter(ticket) => {
                connections.spawn(enter(incoming, ticket, plane, exchange.clone(), serve.clone()));
            }
            Verdict::Prove => {
                let _proven_already = incoming.retry();
            }
            Verdict::Refuse(reason) => {
                refused(&exchange, plane, reason, &incoming.remote_address(), &"too many");
                incoming.refuse();
            }
        }
    }
}

async fn enter<F, Fut>(incoming: Incoming, mut ticket: Ticket, plane: Plane, exchange: Arc<Exchange>, serve: F)
where
    F: Fn(Arc<Exchange>, Connection) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let from = incoming.remote_address();
    let handshake = async { incoming.accept()?.await };
    let connection = match tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refused(&exchange, plane, "tls", &from, &error),
        Err(_) => return refused(&exchange, plane, "tls", &from, &"the handshake took too long"),
    };
    ticket.shaken();
    serve(exchange, connection).await;
}

/// Counts a connection that was refused or closed by this node, and logs it if the last line was not just now.
pub fn refused(
    exchange: &Exchange,
    plane: Plane,
    reason: &'static str,
    from: &dyn std::fmt::Display,
    cause: &dyn std::fmt::Display,
) {
    exchange.metrics.connection_refused(plane.name(), reason);
    let plane = plane.name();
    if exchange.refusals.may(exchange.clock.mono()) {
        tracing::warn!(plane, reason, %from, %cause, "connection refused");
    } else {
        tracing::debug!(plane, reason, %from, %cause, "connection refused");
    }
}

/// Waits for the one lane that the other side opens.
pub async fn lane(connection: &Connection) -> Result<(SendStream, RecvStream), End> {
    match tokio::time::timeout(LANE_TIME_MAX, connection.accept_bi()).await {
        Ok(Ok(streams)) => Ok(streams),
        Ok(Err(error)) => Err(End::Gone(error.to_string())),
        Err(_) => {
            let reason = format!("no lane was opened in {} s", LANE_TIME_MAX.as_secs());
            Err(End::Closed(Close::new(CloseCode::TooSlow, reason)))
        }
    }
}

/// Reads and writes a lane until one of the two has ended. The writer is a task of its own, so that what wakes the one does
/// not have the other look whether there is something for it.
pub async fn carry(read: impl Future<Output = End>, writer: LaneWriter) -> End {
    let mut writing = JoinSet::new();
    writing.spawn(writer.run());
    tokio::select! {
        biased;
        end = read => end,
        Some(written) = writing.join_next() => {
            written.expect("a writer is not called off before this ends, and does not panic").map_or_else(End::Closed, |()| done())
        }
    }
}

/// The end of a lane that is nobody's fault.
pub fn done() -> End {
    End::Closed(Close::new(CloseCode::Done, ""))
}

/// How a connection ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum End {
    /// By this node, for a reason that the other side is told.
    Closed(Close),
    /// By the other side, or by the network.
    Gone(String),
}

impl End {
    pub fn why(&self) -> &str {
        match self {
            End::Closed(close) => &close.reason,
            End::Gone(cause) => cause,
        }
    }
}

impl From<LaneError> for End {
    fn from(error: LaneError) -> Self {
        match error {
            LaneError::Close(close) => End::Closed(close),
            LaneError::Broken(ReadError::ConnectionLost(cause)) => cause.into(),
            LaneError::Broken(cause) => End::Gone(cause.to_string()),
        }
    }
}

impl From<ConnectionError> for End {
    fn from(error: ConnectionError) -> Self {
        End::Gone(error.to_string())
    }
}

/// Closes the connection if this node decided so, and accounts for it.
pub fn finish(exchange: &Exchange, plane: Plane, connection: &Connection, end: &End) {
    let from = connection.remote_address();
    match end {
        End::Closed(close) => {
            close.send(connection);
            if close.code == CloseCode::Done {
                tracing::debug!(plane = plane.name(), %from, "connection ended");
            } else {
                refused(exchange, plane, "protocol", &from, &close.reason);
            }
        }
        End::Gone(cause) => {
            // Nothing more comes of it; whoever still waits on it learns that now.
            Close::new(CloseCode::Done, "").send(connection);
            tracing::debug!(plane = plane.name(), %from, cause, "connection gone");
        }
    }
}
