//! All links of a client, made as they are wanted, at the addresses that hold now.

use crate::failure::{Causes, Declined, LinkError};
use crate::lane::Lane;
use crate::link::{DIAL_MAX, Dialer, Link, PATIENCE};
use quorate_ring::id::{Epoch, NodeId};
use quorate_ring::placement::Layout;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

pub(crate) struct Links {
    dialer: Arc<Dialer>,
    /// From the profile: they go before those of the topology.
    given: BTreeMap<NodeId, SocketAddr>,
    links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    /// Held while the topology is fetched, so that many requests fetch it once.
    fetching: tokio::sync::Mutex<()>,
}

impl Links {
    pub fn new(dialer: Arc<Dialer>, given: BTreeMap<NodeId, SocketAddr>) -> Self {
        Self { dialer, given, links: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    pub fn layout(&self) -> Option<Arc<Layout>> {
        self.dialer.atlas.layout()
    }

    /// Nodes of the profile, for as long as there is no topology.
    pub fn given(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.given.keys().copied()
    }

    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        let in_topology = || self.layout()?.topology().node(node).map(|n| n.client_address);
        self.given.get(&node).copied().or_else(in_topology)
    }

    pub fn link(&self, node: NodeId) -> Result<Arc<Link>, Declined> {
        let address = self.address(node).ok_or(Declined::NoNode(node))?;
        let mut links = self.links.lock().expect("nothing panics while it holds this lock");
        match links.get(&node) {
            Some(link) if link.address == address => Ok(Arc::clone(link)),
            Some(_) | None => {
                let link = Arc::new(Link::new(Arc::clone(&self.dialer), node, address));
                links.insert(node, Arc::clone(&link));
                Ok(link)
            }
        }
    }

    pub fn is_down(&self, node: NodeId) -> bool {
        let links = self.links.lock().expect("nothing panics while it holds this lock");
        links.get(&node).is_some_and(|link| link.is_down())
    }

    /// A lane to the first of `nodes` that has one. Their order is the order of preference; a node that does not
    /// answer at once is left for later, and nodes that are down are dialled only if there is no other.
    pub async fn reach(&self, nodes: &[NodeId], until: Instant) -> Result<(NodeId, Arc<Lane>), Declined> {
        let mut causes = Causes::default();
        for insist in [false, true] {
            causes.0.clear();
            for node in nodes {
                let left = until.saturating_duration_since(Instant::now());
                let patience = if insist { DIAL_MAX } else { PATIENCE }.min(left);
                match self.link(*node)?.lane(patience, insist).await {
                    Ok(lane) => return Ok((*node, lane)),
                    Err(cause) => causes.0.push((*node, cause)),
                }
            }
        }
        Err(Declined::Unreachable(causes))
    }

    /// Asks `node` for its topology again, unless the one at hand is of that epoch by now.
    pub async fn fetch_topology(&self, node: NodeId, epoch: Epoch) -> Result<(), LinkError> {
        let _alone = self.fetching.lock().await;
        if self.layout().is_some_and(|layout| layout.epoch() >= epoch) {
            return Ok(());
        }
        let Some(address) = self.address(node) else { return Ok(()) };
        // A connection of its own: the greeting is the first on a stream.
        self.dialer.dial(node, address).await.map(|_| ())
    }

    pub async fn close(&self) {
        self.links.lock().expect("nothing panics while it holds this lock").clear();
        self.dialer.close().await;
    }
}
