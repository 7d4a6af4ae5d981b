//! The client: puts, gets and deletes, each sent to the node that is best placed for it.

use crate::atlas::Atlas;
use crate::budget::RetryBudget;
use crate::call::{Call, Terms, bucket_named};
use crate::failure::{Causes, ConnectError, Declined, LinkError, Unknown, UnknownCause, WriteError};
use crate::lane::AskError;
use crate::link::{DIAL_MAX, Dialer, unexpected};
use crate::links::Links;
use crate::options::{ReadOptions, ScanOptions, WriteOptions};
use crate::profile::Profile;
use crate::scan::Scan;
use crate::tls::client_config;
use bytes::Bytes;
use quorate_ring::id::{NodeId, OpId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::topology::{Bucket, Count, KEY_BYTES_MAX};
use quorate_ring::version::Hlc;
use quorate_ring::wire::client::{
    Change, ClientReply, ClientRequest, NodeStatus, ReadAnswer, ReadRequest, Receipt, RepairRequest, StatusRequest,
    Supersede, WriteRequest,
};
use quorate_ring::wire::failure::Refusal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// A node that does not greet within this is joined by the next, at the start.
const STAGGER: Duration = Duration::from_millis(100);

/// A client of one cluster. Clones share connections, the retry budget and the clock.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub links: Links,
    pub budget: RetryBudget,
    /// The newest timestamp seen.
    hlc: AtomicU64,
}

impl Client {
    /// Reads the certificates of a profile and connects to the first node of it that answers.
    ///
    /// Runs on a tokio runtime, and so does everything else here. Takes as long as the nodes do, 3 s at the most.
    pub async fn connect(profile: &Profile) -> Result<Self, ConnectError> {
        let config = client_config(profile)?;
        let dialer = Dialer::new(profile.cluster, config, Arc::new(Atlas::default()));
        let links = Links::new(Arc::new(dialer), profile.nodes.clone());
        let client = Self { inner: Arc::new(Inner { links, budget: RetryBudget::new(), hlc: AtomicU64::new(0) }) };
        client.greet_any().await?;
        Ok(client)
    }

    async fn greet_any(&self) -> Result<(), ConnectError> {
        let mut dials = JoinSet::new();
        for (turn, node) in self.inner.links.given().enumerate() {
            let inner = Arc::clone(&self.inner);
            dials.spawn(async move {
                sleep(STAGGER * turn.min(15) as u32).await;
                let link = inner.links.link(node).expect("nodes of the profile have addresses");
                (node, link.lane(DIAL_MAX, true).await.err())
            });
        }
        let mut causes = Causes::default();
        while let Some(dialled) = dials.join_next().await {
            match dialled.expect("a dial does not panic") {
                (_, None) => return Ok(()),
                (node, Some(cause)) => causes.0.push((node, cause)),
            }
        }
        causes.0.sort_by_key(|(node, _)| *node);
        Err(ConnectError::Unreachable(causes))
    }

    /// The topology that requests are routed by, and its placement.
    pub fn layout(&self) -> Arc<Layout> {
        self.inner.links.layout().expect("a connected client has a topology")
    }

    /// The newest timestamp seen in any answer; it goes along with each write.
    pub fn hlc(&self) -> Hlc {
        Hlc(self.inner.hlc.load(Ordering::Relaxed))
    }

    /// Writes a value. Over the limits of key and value it is refused before anything is sent.
    pub async fn put(
        &self,
        bucket: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<Receipt, WriteError> {
        let change = Change::Put { value: value.into(), expires_ms: options.expires_ms };
        self.write(bucket, key.into(), change, Supersede::Local, options).await
    }

    /// Deletes a key: everything that the options say it supersedes.
    pub async fn delete(
        &self,
        bucket: &str,
        key: impl Into<Bytes>,
        options: &WriteOptions,
    ) -> Result<Receipt, WriteError> {
        self.write(bucket, key.into(), Change::Delete, Supersede::Latest, options).await
    }

    async fn write(
        &self,
        bucket: &str,
        key: Bytes,
        change: Change,
        supersede: Supersede,
        options: &WriteOptions,
    ) -> Result<Receipt, WriteError> {
        let supersede = options.supersede.clone().unwrap_or(supersede);
        let op_id = options.op_id.unwrap_or_else(new_op_id);
        let links = &self.inner.links;
        let call = Call {
            links,
            budget: &self.inner.budget,
            bucket,
            key: &key,
            via: options.via,
            deadline: options.deadline,
            op_id: Some(op_id),
        };
        let message = |terms: &Terms<'_>| {
            check_key(&key)?;
            check_counts(terms.bucket, [options.r, options.w])?;
            check_value(terms.bucket, &change)?;
            if let Supersede::Seen(token) = &supersede {
                token.open(terms.layout.topology().cluster, terms.bucket.id, &key)?;
            }
            Ok(ClientRequest::Write(WriteRequest {
                epoch: terms.layout.epoch(),
                bucket: terms.bucket.id,
                key: key.clone(),
                change: change.clone(),
                supersede: supersede.clone(),
                op_id,
                hlc: self.hlc(),
                r: options.r,
                w: options.w,
                quorum: options.quorum,
                durability: options.durability,
                deadline_ms: terms.deadline_ms,
            }))
        };
        let began = Instant::now();
        match call.make(message).await {
            Ok((_, ClientReply::Written(receipt))) => {
                self.saw(receipt.hlc);
                Ok(receipt)
            }
            Ok((node, other)) => {
                let cause = UnknownCause::Link(unexpected(&other));
                let (waited, needed, acks) = (began.elapsed(), None, Vec::new());
                Err(WriteError::Unknown(Box::new(Unknown { op_id, cause, node, waited, needed, acks })))
            }
            Err(failed) => Err(failed),
        }
    }

    /// Reads a key. An answer without siblings means that there is no such key.
    pub async fn get(
        &self,
        bucket: &str,
        key: impl Into<Bytes>,
        options: &ReadOptions,
    ) -> Result<ReadAnswer, Declined> {
        let key = key.into();
        let call = Call {
            links: &self.inner.links,
            budget: &self.inner.budget,
            bucket,
            key: &key,
            via: options.via,
            deadline: options.deadline,
            op_id: None,
        };
        let message = |terms: &Terms<'_>| {
            check_key(&key)?;
            check_counts(terms.bucket, [options.r, None])?;
            Ok(ClientRequest::Read(ReadRequest {
                epoch: terms.layout.epoch(),
                bucket: terms.bucket.id,
                key: key.clone(),
                r: options.r,
                quorum: options.quorum,
                blocking_repair: options.blocking_repair,
                deadline_ms: terms.deadline_ms,
                request_id: options.request_id,
            }))
        };
        match call.make(message).await {
            Ok((_, ClientReply::Read(answer))) => {
                answer.siblings.iter().for_each(|sibling| self.saw(sibling.hlc));
                Ok(answer)
            }
            Ok((node, other)) => Err(Declined::Unreachable(Causes(vec![(node, unexpected(&other))]))),
            Err(WriteError::NotApplied(declined)) => Err(declined),
            Err(WriteError::Unknown(unknown)) => {
                let cause = LinkError::Protocol(unknown.to_string());
                Err(Declined::Unreachable(Causes(vec![(unknown.node, cause)])))
            }
        }
    }

    /// Every key of a bucket, partition by partition, as R of its owners hold it.
    pub fn scan(&self, bucket: &str, options: ScanOptions) -> Result<Scan, Declined> {
        let layout = self.layout();
        let of = bucket_named(&layout, bucket)?;
        check_counts(of, [options.r, None]).map_err(Declined::here)?;
        if options.prefix.len() > KEY_BYTES_MAX {
            return Err(Declined::here(key_length(options.prefix.len())));
        }
        let r = options.r.map_or(Ok(of.r), |r| r.of(of.n)).map_err(|e| Declined::here(e.into()))?;
        Ok(Scan::new(self.clone(), of.clone(), r, options))
    }

    /// What each node of the topology says of itself, in the order of their ids; answers that take longer than
    /// `patience` are left out.
    pub async fn status(&self, patience: Duration) -> Vec<(NodeId, Result<NodeStatus, LinkError>)> {
        self.status_by(&ClientRequest::Status(StatusRequest {}), patience).await
    }

    /// Has every node pull and copy at once what it lacks, of all partitions or of one, and returns what each says of
    /// itself. It is under way then, not done: `NodeStatus::repair` says how far it is, and to ask again does no harm.
    pub async fn repair(
        &self,
        partition: Option<Partition>,
        patience: Duration,
    ) -> Vec<(NodeId, Result<NodeStatus, LinkError>)> {
        self.status_by(&ClientRequest::Repair(RepairRequest { partition }), patience).await
    }

    async fn status_by(
        &self,
        request: &ClientRequest,
        patience: Duration,
    ) -> Vec<(NodeId, Result<NodeStatus, LinkError>)> {
        let until = Instant::now() + patience;
        let mut asked = JoinSet::new();
        for node in &self.layout().topology().nodes {
            let (inner, node, request) = (Arc::clone(&self.inner), node.id, request.clone());
            asked.spawn(async move { (node, inner.status_of(node, &request, until).await) });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(node, _)| *node);
        answers
    }

    /// Takes leave of the nodes. Without it they notice by the silence, a second or two later.
    pub async fn close(self) {
        self.inner.links.close().await;
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }

    pub(crate) fn saw(&self, hlc: Hlc) {
        self.inner.hlc.fetch_max(hlc.0, Ordering::Relaxed);
    }
}

impl Inner {
    async fn status_of(&self, node: NodeId, request: &ClientRequest, until: Instant) -> Result<NodeStatus, LinkError> {
        let left = until.saturating_duration_since(Instant::now());
        let link = self.links.link(node).map_err(|e| LinkError::Socket(e.to_string()))?;
        let lane = link.lane(left, true).await?;
        match lane.ask(request, until).await {
            Ok(ClientReply::Status(status)) => Ok(*status),
            Ok(ClientReply::Refused(refusal)) => Err(LinkError::Refused(refusal)),
            Ok(other) => Err(unexpected(&other)),
            Err(AskError::Unsent(cause) | AskError::Sent(cause)) => Err(cause),
        }
    }
}

/// A new op id: 16 random bytes.
pub fn new_op_id() -> OpId {
    // None is drawn ahead: a copy of this process, or of its machine, would give the same ones to other writes.
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
    OpId(bytes)
}

fn key_length(length: usize) -> Refusal {
    Refusal::KeyLength { length: length as u64, limit: KEY_BYTES_MAX as u64 }
}

fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) { Ok(()) } else { Err(key_length(key.len())) }
}

fn check_counts(bucket: &Bucket, counts: [Option<Count>; 2]) -> Result<(), Refusal> {
    counts.into_iter().flatten().try_for_each(|count| count.of(bucket.n).map(|_| ()).map_err(Refusal::from))
}

fn check_value(bucket: &Bucket, change: &Change) -> Result<(), Refusal> {
    match change {
        Change::Put { value, .. } if value.len() > bucket.value_bytes_max => {
            Err(Refusal::ValueLength { length: value.len() as u64, limit: bucket.value_bytes_max as u64 })
        }
        Change::Put { .. } | Change::Delete => Ok(()),
    }
}
