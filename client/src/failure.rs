//! Why something was not done, and what state that leaves things in.

use quorate_ring::id::{NodeId, OpId, Partition};
use quorate_ring::placement::PlacementError;
use quorate_ring::topology::TopologyError;
use quorate_ring::version::RecordError;
use quorate_ring::wire::client::Ack;
use quorate_ring::wire::failure::{Doubt, Refusal};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What is wrong with the connection to one node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    /// One side did not accept the other's certificate, or the protocol. Asking again will not help.
    #[error("{0}")]
    Tls(String),
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The node sent what this program does not understand.
    #[error("{0}")]
    Protocol(String),
    #[error("{0}")]
    Refused(Refusal),
    #[error("the local socket failed: {0}")]
    Socket(String),
}

/// Different causes that are written out; a topology may have a thousand nodes.
const CAUSES_SHOWN: usize = 3;

/// Nodes that were tried, and why none would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Causes(pub Vec<(NodeId, LinkError)>);

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_cause: Vec<(String, Vec<String>)> = Vec::new();
        for (node, cause) in &self.0 {
            let cause = cause.to_string();
            match by_cause.iter_mut().find(|(text, _)| *text == cause) {
                Some((_, nodes)) => nodes.push(node.to_string()),
                None => by_cause.push((cause, vec![node.to_string()])),
            }
        }
        let shown = by_cause.iter().take(CAUSES_SHOWN).map(|(cause, nodes)| format!("{}: {cause}", nodes.join(", ")));
        let mut parts: Vec<String> = shown.collect();
        match by_cause.len() {
            0 => parts.push("there is none".to_string()),
            all if all > CAUSES_SHOWN => parts.push(format!("and {} more causes", all - CAUSES_SHOWN)),
            _ => {}
        }
        f.write_str(&parts.join("; "))
    }
}

impl Causes {
    /// Every node refused the certificate: a matter of who the client is, not of which nodes are up.
    pub fn all_tls(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(_, cause)| matches!(cause, LinkError::Tls(_)))
    }
}

/// Nothing was written anywhere, and nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Declined {
    /// By a node, or, without one, by this library before anything was sent.
    #[error("{refusal}")]
    Refused { node: Option<NodeId>, refusal: Refusal },
    #[error("there is no bucket {name:?}; there are {}", known.join(", "))]
    NoBucket { name: String, known: Vec<String> },
    #[error("there is no node {0} in the topology")]
    NoNode(NodeId),
    #[error("no node could be asked: {0}")]
    Unreachable(Causes),
    #[error("the deadline of {} ms passed first", .0.as_millis())]
    DeadlinePassed(Duration),
}

impl Declined {
    pub(crate) fn here(refusal: Refusal) -> Self {
        Self::Refused { node: None, refusal }
    }
}

/// Why the outcome of a write is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownCause {
    #[error("{0}")]
    Reported(Doubt),
    #[error("the connection to the node that was asked failed: {0}")]
    Link(LinkError),
    #[error("the deadline passed before the node answered")]
    Deadline,
}

/// A write that may have taken effect, or may yet. Writing again with the same op id is safe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the outcome is not known: {cause}")]
pub struct Unknown {
    pub op_id: OpId,
    pub cause: UnknownCause,
    /// The node that was asked.
    pub node: NodeId,
    /// How long after the request had been sent to that node it was given up.
    pub waited: Duration,
    /// How many acks were waited for, if the node said so.
    pub needed: Option<u8>,
    /// Those that had come in, the coordinator's own first.
    pub acks: Vec<Ack>,
}

/// A write that is not known to have been applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written anywhere.
    #[error(transparent)]
    NotApplied(#[from] Declined),
    /// It may have taken effect, or may yet.
    #[error(transparent)]
    Unknown(Box<Unknown>),
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{}: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    #[error("no node of the cluster could be reached: {0}")]
    Unreachable(Causes),
}

/// Why a node's topology was not taken over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    #[error("the topology that the node sent does not parse: {0}")]
    Topology(#[from] TopologyError),
    #[error("the topology that the node sent cannot be placed: {0}")]
    Placement(#[from] PlacementError),
}

/// A listing ends here. What came before it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    #[error(transparent)]
    Declined(#[from] Declined),
    #[error("partition {partition} needs {needed} of its owners, {got} answer: {causes}")]
    TooFewOwners { partition: Partition, needed: u8, got: u8, causes: Causes },
    #[error("{node} sent a record that cannot be read: {cause}")]
    Record { node: NodeId, cause: RecordError },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_with_the_same_cause_are_named_together() {
        let silent = || LinkError::Silent(Duration::from_millis(5));
        let broken = LinkError::Broken("reset".to_string());
        let causes = Causes(vec![(NodeId(1), silent()), (NodeId(2), broken), (NodeId(3), silent())]);
        assert_eq!(causes.to_string(), "node 1, node 3: no answer within 5 ms; node 2: the connection broke: reset");
        let many = (1..=9).map(|i| (NodeId(i), LinkError::Silent(Duration::from_millis(u64::from(i)))));
        assert!(Causes(many.collect()).to_string().ends_with("; and 6 more causes"));
    }
}
