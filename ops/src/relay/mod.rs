//! A relay of packets between nodes: where links are cut and slowed down.
//!
//! Each node is given a topology of its own, in which the peer address of each other node is a port of the relay. The
//! port that n1 knows as n2 takes the packets that n1 sends to n2; they leave from the port that n2 knows as n1, so
//! either side sees the other at one address, whoever dialled. One direction of one pair is one [`link`], with a rule
//! of its own: pass, drop, or pass later. Only the peer plane goes through here; clients reach all nodes, always.
//!
//! - [`rules`]: what is done to which link, in the words of the fault verbs.
//! - [`link`]: one direction of one pair of nodes.
//! - [`control`]: how a command tells a relay that runs what to do.

mod control;
mod link;
mod rules;

pub use control::{Account, ControlError, ask, tell};
pub use rules::{Rules, RulesError, parse_late};

use control::Desk;
use link::{Link, Valve};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What a relay is made of (`relay.json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Where commands talk to it.
    pub control: SocketAddr,
    /// Peer addresses of the nodes, by name.
    pub nodes: BTreeMap<String, SocketAddr>,
    pub ports: Vec<Port>,
}

/// Where one node finds another.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Port {
    /// The node that sends its packets there.
    pub of: String,
    /// The node that it takes to be there.
    pub as_if: String,
    pub address: SocketAddr,
}

/// Why a relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    #[error("{path}: {error}", path = path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not the plan of a relay: {error}", path = path.display())]
    Plan { path: PathBuf, error: serde_json::Error },
    #[error("the relay cannot use {address}: {error}")]
    Bind { address: SocketAddr, error: io::Error },
    #[error("the plan of the relay names no port for packets from {of} to {to}")]
    NoPort { of: String, to: String },
    #[error("the relay cannot be run here: {0}")]
    Threads(io::Error),
}

impl Plan {
    pub fn load(path: &Path) -> Result<Self, RelayError> {
        let text = std::fs::read(path).map_err(|error| RelayError::File { path: path.to_path_buf(), error })?;
        serde_json::from_slice(&text).map_err(|error| RelayError::Plan { path: path.to_path_buf(), error })
    }

    /// The port at which `of` finds `as_if`.
    pub fn port(&self, of: &str, as_if: &str) -> Option<SocketAddr> {
        self.ports.iter().find(|port| port.of == of && port.as_if == as_if).map(|port| port.address)
    }
}

/// Forwards packets until the process is ended.
pub fn run(path: &Path) -> Result<(), RelayError> {
    let plan = Plan::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RelayError::Threads)?;
    runtime.block_on(serve(plan))
}

async fn serve(plan: Plan) -> Result<(), RelayError> {
    let mut sockets = BTreeMap::new();
    for Port { of, as_if, address } in &plan.ports {
        let bound = UdpSocket::bind(address).await;
        let socket = bound.map_err(|error| RelayError::Bind { address: *address, error })?;
        sockets.insert((of.clone(), as_if.clone()), Arc::new(socket));
    }
    let mut valves = BTreeMap::new();
    let mut forwarding = JoinSet::new();
    for ((from, to), inlet) in &sockets {
        let missing = || RelayError::NoPort { of: to.clone(), to: from.clone() };
        let outlet = sockets.get(&(to.clone(), from.clone())).ok_or_else(missing)?;
        let (Some(source), Some(target)) = (plan.nodes.get(from), plan.nodes.get(to)) else { return Err(missing()) };
        let valve = Arc::new(Valve::default());
        let link = Link {
            inlet: Arc::clone(inlet),
            source: *source,
            outlet: Arc::clone(outlet),
            target: *target,
            valve: Arc::clone(&valve),
        };
        forwarding.spawn(link.forward());
        valves.insert((from.clone(), to.clone()), valve);
    }
    let address = plan.control;
    let listener = TcpListener::bind(address).await.map_err(|error| RelayError::Bind { address, error })?;
    Desk::new(plan.nodes.into_keys().collect(), valves).serve(listener).await;
    Ok(())
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
