//! One request, and every try at it: where it goes, and whether it may go again.
//!
//! The one retry layer. A refusal means that nothing was applied, so it may always be tried again. A write whose
//! outcome is not known is tried again under its op id, by which nodes know it; until one of them says `Written` its
//! outcome stays unknown, whatever the others refuse.

use crate::budget::{RetryBudget, backoff, fraction, random};
use crate::failure::{Causes, Declined, LinkError, Unknown, UnknownCause, WriteError};
use crate::lane::AskError;
use crate::link::unexpected;
use crate::links::Links;
use crate::options::Via;
use quorate_ring::id::{NodeId, OpId};
use quorate_ring::placement::Layout;
use quorate_ring::topology::Bucket;
use quorate_ring::wire::client::{ClientReply, ClientRequest};
use quorate_ring::wire::failure::Refusal;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Times one request is sent at the most.
const TRIES_MAX: u32 = 6;
/// Part of the time that is left to the node, so that its own word arrives before this side gives up.
const NODE_SHARE: f64 = 0.9;

/// A request, before it is known which node it goes to and under which epoch.
pub(crate) struct Call<'a> {
    pub links: &'a Links,
    pub budget: &'a RetryBudget,
    pub bucket: &'a str,
    pub key: &'a [u8],
    pub via: Via,
    pub deadline: Duration,
    /// Of a write.
    pub op_id: Option<OpId>,
}

/// What a message is made of, beside its own content.
pub(crate) struct Terms<'a> {
    pub layout: &'a Layout,
    pub bucket: &'a Bucket,
    pub deadline_ms: u32,
}

/// One try's result.
enum Tried {
    Answered(ClientReply),
    /// With the time that the node asks for, if it does.
    Declined(Declined, Duration),
    Doubt(Unknown),
}

impl Call<'_> {
    /// Tries until there is an answer, or no sense in another try. `message` may refuse before anything is sent.
    pub async fn make(
        &self,
        message: impl Fn(&Terms<'_>) -> Result<ClientRequest, Refusal>,
    ) -> Result<(NodeId, ClientReply), WriteError> {
        let until = Instant::now() + self.deadline;
        self.budget.earn();
        let mut doubt: Option<Box<Unknown>> = None;
        let mut asked: Vec<NodeId> = Vec::new();
        let end = |declined: Declined, doubt: Option<Box<Unknown>>| match doubt {
            Some(unknown) => Err(WriteError::Unknown(unknown)),
            None => Err(WriteError::NotApplied(declined)),
        };
        loop {
            let (node, tried) = match self.one_try(&message, &mut asked, until).await {
                Ok(done) => done,
                Err(declined) => return end(declined, doubt),
            };
            let (declined, asked_for) = match tried {
                Tried::Answered(reply) => return Ok((node, reply)),
                Tried::Declined(declined, _) if !worth_a_retry(&declined) => return end(declined, doubt),
                Tried::Declined(declined, pause) => (Some(declined), pause),
                Tried::Doubt(unknown) => {
                    doubt = Some(Box::new(unknown));
                    (None, Duration::ZERO)
                }
            };
            let tries = asked.len() as u32;
            let pause = asked_for + backoff(tries - 1, random());
            let in_time = Instant::now() + pause < until;
            if tries >= TRIES_MAX || !in_time || !self.budget.spend() {
                return end(declined.unwrap_or(Declined::DeadlinePassed(self.deadline)), doubt);
            }
            tracing::debug!(%node, tries, ?pause, "trying again");
            sleep(pause).await;
        }
    }

    /// Sends it to one node. `Err` is final: there is nothing else to try.
    async fn one_try(
        &self,
        message: &impl Fn(&Terms<'_>) -> Result<ClientRequest, Refusal>,
        asked: &mut Vec<NodeId>,
        until: Instant,
    ) -> Result<(NodeId, Tried), Declined> {
        let layout = self.links.layout().expect("a client has a topology");
        let bucket = bucket_named(&layout, self.bucket)?;
        loop {
            let nodes = self.candidates(&layout, bucket, asked)?;
            let (node, lane) = self.links.reach(&nodes, until).await?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Declined::DeadlinePassed(self.deadline));
            }
            let deadline_ms = u32::try_from(left.mul_f64(NODE_SHARE).as_millis()).unwrap_or(u32::MAX).max(1);
            let request = message(&Terms { layout: &layout, bucket, deadline_ms }).map_err(Declined::here)?;
            let sent = Instant::now();
            match lane.ask(&request, until).await {
                // Nothing was sent, so this was no try; the lane is broken, so the next look finds another.
                Err(AskError::Unsent(_)) if Instant::now() < until => {}
                Err(AskError::Unsent(_)) => return Err(Declined::DeadlinePassed(self.deadline)),
                Err(AskError::Sent(cause)) => {
                    asked.push(node);
                    return Ok((node, self.lost(node, cause, sent, until)));
                }
                Ok(reply) => {
                    asked.push(node);
                    return Ok((node, self.judge(node, reply, sent).await));
                }
            }
        }
    }

    fn lost(&self, node: NodeId, cause: LinkError, sent: Instant, until: Instant) -> Tried {
        let overdue = Instant::now() >= until;
        match self.op_id {
            Some(op_id) => {
                let cause = if overdue { UnknownCause::Deadline } else { UnknownCause::Link(cause) };
                Tried::Doubt(Unknown { op_id, cause, node, waited: sent.elapsed(), needed: None, acks: Vec::new() })
            }
            None if overdue => Tried::Declined(Declined::DeadlinePassed(self.deadline), Duration::ZERO),
            None => Tried::Declined(Declined::Unreachable(Causes(vec![(node, cause)])), Duration::ZERO),
        }
    }

    async fn judge(&self, node: NodeId, reply: ClientReply, sent: Instant) -> Tried {
        match reply {
            ClientReply::Refused(refusal) => {
                if let Refusal::StaleEpoch { ours, .. } = &refusal
                    && let Err(cause) = self.links.fetch_topology(node, *ours).await
                {
                    // The next try is then refused again, and the number of tries ends it.
                    tracing::debug!(%node, %cause, "the topology was not fetched");
                }
                let mut pause = Duration::ZERO;
                if let Refusal::Overloaded { retry_after_ms } = &refusal {
                    let asked_for = Duration::from_millis(u64::from(*retry_after_ms));
                    pause = asked_for + fraction(asked_for / 2, random());
                }
                Tried::Declined(Declined::Refused { node: Some(node), refusal }, pause)
            }
            ClientReply::Unknown(uncertain) => match self.op_id {
                Some(op_id) => Tried::Doubt(Unknown {
                    op_id,
                    cause: UnknownCause::Reported(uncertain.doubt),
                    node,
                    waited: sent.elapsed(),
                    // A gateway that lost its coordinator does not know.
                    needed: Some(uncertain.needed).filter(|needed| *needed > 0),
                    acks: uncertain.acks,
                }),
                None => {
                    let cause = unexpected(&ClientReply::Unknown(uncertain));
                    Tried::Declined(Declined::Unreachable(Causes(vec![(node, cause)])), Duration::ZERO)
                }
            },
            reply => Tried::Answered(reply),
        }
    }

    /// The nodes to try, best first: those that were not asked yet, owners before fallbacks, in the order of the walk.
    fn candidates(&self, layout: &Layout, bucket: &Bucket, asked: &[NodeId]) -> Result<Vec<NodeId>, Declined> {
        let partition = layout.partition(bucket, self.key);
        let list = layout.preference(partition).expect("a layout has the partitions of its own buckets");
        let mut nodes: Vec<NodeId> = list.owners().iter().chain(list.fallbacks()).copied().collect();
        match self.via {
            Via::Owner => {}
            Via::Node(node) if nodes.contains(&node) => nodes = vec![node],
            Via::Node(node) => return Err(Declined::NoNode(node)),
            Via::NotFirstOwner => {
                nodes.remove(0);
                let turn =
                    self.key.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
                let others = nodes.len().max(1);
                nodes.rotate_left(turn % others);
            }
        }
        let times = |node: &NodeId| asked.iter().filter(|a| *a == node).count();
        nodes.sort_by_cached_key(|node| (self.links.is_down(*node), times(node)));
        Ok(nodes)
    }
}

pub(crate) fn bucket_named<'a>(layout: &'a Layout, name: &str) -> Result<&'a Bucket, Declined> {
    layout.topology().bucket_named(name).ok_or_else(|| Declined::NoBucket {
        name: name.to_string(),
        known: layout.topology().buckets.iter().map(|b| b.name.clone()).collect(),
    })
}

fn worth_a_retry(declined: &Declined) -> bool {
    match declined {
        Declined::Refused { refusal, .. } => refusal.worth_a_retry(),
        Declined::Unreachable(causes) => !causes.all_tls(),
        Declined::DeadlinePassed(_) | Declined::NoBucket { .. } | Declined::NoNode(_) => false,
    }
}
