//! A link: one node, and the lane to it, dialled when it is first wanted and again whenever it breaks.

use crate::atlas::Atlas;
use crate::budget::{fraction, random};
use crate::failure::LinkError;
use crate::lane::{AskError, Lane, link_error};
use quinn::{ClientConfig, Endpoint, EndpointConfig, TokioRuntime};
use quorate_ring::id::{ClusterId, NodeId};
use quorate_ring::wire::client::{ClientReply, ClientRequest, Hello};
use quorate_ring::wire::{PROTOCOL_MINOR, SOCKET_BYTES, server_name};
use socket2::SockRef;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Time for a connection to stand: handshake, stream and greeting.
pub(crate) const DIAL_MAX: Duration = Duration::from_millis(1_500);
/// How long to wait for a node's handshake before looking at another as well.
pub(crate) const PATIENCE: Duration = Duration::from_millis(250);
const REDIAL_MIN: Duration = Duration::from_millis(100);
const REDIAL_MAX: Duration = Duration::from_secs(5);

/// Makes connections: the sockets, the certificates, and the cluster that nodes must belong to.
pub(crate) struct Dialer {
    pub cluster: ClusterId,
    pub config: ClientConfig,
    pub atlas: Arc<Atlas>,
    /// One socket for IPv4 and one for IPv6, bound when first needed.
    sockets: Mutex<[Option<Endpoint>; 2]>,
}

impl Dialer {
    pub fn new(cluster: ClusterId, config: ClientConfig, atlas: Arc<Atlas>) -> Self {
        Self { cluster, config, atlas, sockets: Mutex::new([None, None]) }
    }

    /// Connects, greets, and takes over the node's topology if it is newer.
    pub async fn dial(&self, node: NodeId, address: SocketAddr) -> Result<Arc<Lane>, LinkError> {
        timeout(DIAL_MAX, self.greet(node, address)).await.unwrap_or(Err(LinkError::Silent(DIAL_MAX)))
    }

    async fn greet(&self, node: NodeId, address: SocketAddr) -> Result<Arc<Lane>, LinkError> {
        let name = server_name(self.cluster, node);
        let endpoint = self.endpoint(address)?;
        let connecting = endpoint
            .connect_with(self.config.clone(), address, &name)
            .map_err(|e| LinkError::Socket(format!("{address}: {e}")))?;
        let lane = Lane::open(connecting.await.map_err(|e| link_error(&e))?).await?;
        let hello = ClientRequest::Hello(Hello { minor: PROTOCOL_MINOR, cluster: Some(self.cluster) });
        let reply = match lane.ask(&hello, Instant::now() + DIAL_MAX).await {
            Ok(ClientReply::Hello(reply)) => reply,
            Ok(ClientReply::Refused(refusal)) => return Err(LinkError::Refused(refusal)),
            Ok(other) => return Err(unexpected(&other)),
            Err(AskError::Unsent(cause) | AskError::Sent(cause)) => return Err(cause),
        };
        if reply.cluster != self.cluster || reply.node != node {
            let who = server_name(reply.cluster, reply.node);
            return Err(LinkError::Protocol(format!("{name} was meant, but {who} answers")));
        }
        self.atlas.offer(&reply).map_err(|e| LinkError::Protocol(e.to_string()))?;
        Ok(lane)
    }

    fn endpoint(&self, to: SocketAddr) -> Result<Endpoint, LinkError> {
        let mut sockets = self.sockets.lock().expect("nothing panics while it holds this lock");
        let socket = &mut sockets[usize::from(to.is_ipv6())];
        if let Some(endpoint) = socket {
            return Ok(endpoint.clone());
        }
        let local: IpAddr = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let bound = UdpSocket::bind((local, 0)).and_then(|bound| {
            let _as_many_as_the_system_allows = SockRef::from(&bound).set_recv_buffer_size(SOCKET_BYTES);
            Endpoint::new(EndpointConfig::default(), None, bound, Arc::new(TokioRuntime))
        });
        let made = bound.map_err(|e| LinkError::Socket(e.to_string()))?;
        Ok(socket.insert(made).clone())
    }

    /// Tells the nodes that this client is gone, and gives that a moment to leave.
    pub async fn close(&self) {
        const FAREWELL: Duration = Duration::from_millis(5);
        let sockets = self.sockets.lock().expect("nothing panics while it holds this lock").clone();
        for endpoint in sockets.iter().flatten() {
            endpoint.close(quinn::VarInt::from_u32(0), b"");
            // The nodes notice silence too, only later.
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }
}

/// An answer of the wrong kind.
pub(crate) fn unexpected(reply: &ClientReply) -> LinkError {
    LinkError::Protocol(format!("the node's answer is of kind {}, which does not fit the question", reply.kind()))
}

#[derive(Clone)]
enum State {
    /// Not wanted so far.
    Fresh,
    /// Dialled for the first time, since then.
    Dialling(Instant),
    Up(Arc<Lane>),
    /// Why the last connection broke, or was not made. Dialled again in the background.
    Down(LinkError),
}

pub(crate) struct Link {
    pub address: SocketAddr,
    state: watch::Receiver<State>,
    wanted: Arc<Notify>,
    /// The keeper; it ends with the link.
    _task: JoinSet<()>,
}

impl Link {
    pub fn new(dialer: Arc<Dialer>, node: NodeId, address: SocketAddr) -> Self {
        let (publish, state) = watch::channel(State::Fresh);
        let wanted = Arc::new(Notify::new());
        let mut task = JoinSet::new();
        task.spawn(keep(dialer, node, address, publish, Arc::clone(&wanted)));
        Self { address, state, wanted, _task: task }
    }

    /// There is no connection: the last one broke, or could not be made, or is long in coming.
    pub fn is_down(&self) -> bool {
        match &*self.state.borrow() {
            State::Fresh => false,
            State::Dialling(since) => since.elapsed() > PATIENCE,
            State::Up(lane) => lane.broken().is_some(),
            State::Down(_) => true,
        }
    }

    /// The lane, waiting up to `patience` for a dial under way. A link that is down is an error at once, unless the
    /// caller insists: then it is dialled now.
    pub async fn lane(&self, patience: Duration, insist: bool) -> Result<Arc<Lane>, LinkError> {
        // The usual case first: what follows it costs more than a small request.
        if let State::Up(lane) = &*self.state.borrow()
            && lane.broken().is_none()
        {
            return Ok(Arc::clone(lane));
        }
        let mut state = self.state.clone();
        match state.borrow_and_update().clone() {
            State::Up(lane) => match lane.broken() {
                None => return Ok(lane),
                Some(cause) if !insist => return Err(cause),
                Some(_) => {}
            },
            State::Down(cause) if !insist => return Err(cause),
            State::Down(_) | State::Fresh => self.wanted.notify_one(),
            State::Dialling(since) if !insist && since.elapsed() > PATIENCE => {
                return Err(LinkError::Silent(since.elapsed()));
            }
            State::Dialling(_) => {}
        }
        let settled = async {
            loop {
                if state.changed().await.is_err() {
                    return Err(LinkError::Broken("the client was closed".to_string()));
                }
                match state.borrow_and_update().clone() {
                    State::Fresh | State::Dialling(_) => {}
                    State::Up(lane) => return Ok(lane),
                    State::Down(cause) => return Err(cause),
                }
            }
        };
        timeout(patience, settled).await.unwrap_or(Err(LinkError::Silent(patience)))
    }
}

async fn keep(
    dialer: Arc<Dialer>,
    node: NodeId,
    address: SocketAddr,
    state: watch::Sender<State>,
    wanted: Arc<Notify>,
) {
    wanted.notified().await;
    state.send_replace(State::Dialling(Instant::now()));
    let mut pause = REDIAL_MIN;
    loop {
        let cause = match dialer.dial(node, address).await {
            Ok(lane) => {
                tracing::debug!(%node, %address, "link up");
                pause = REDIAL_MIN;
                state.send_replace(State::Up(Arc::clone(&lane)));
                lane.closed().await
            }
            Err(cause) => cause,
        };
        tracing::debug!(%node, %address, %cause, "link down");
        state.send_replace(State::Down(cause));
        tokio::select! {
            () = sleep(pause / 2 + fraction(pause / 2, random())) => {}
            () = wanted.notified() => {}
        }
        pause = (pause * 2).min(REDIAL_MAX);
    }
}
