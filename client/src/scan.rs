//! A listing: every key of a bucket, from R owners of each partition, united here.
//!
//! Pages of several owners are merged like sorted files; what is held is one page of each. An owner that fails is
//! replaced by another of the partition, which goes on behind the last key that was given out.

mod owner;
mod unite;

use crate::budget::{backoff, random};
use crate::client::Client;
use crate::failure::{Causes, LinkError, ScanError};
use crate::lane::AskError;
use crate::link::{PATIENCE, unexpected};
use crate::options::ScanOptions;
use bytes::Bytes;
use quorate_ring::id::{BucketId, NodeId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::topology::Bucket;
use quorate_ring::version::Object;
use quorate_ring::wire::client::{ClientReply, ClientRequest, ScanPage, ScanRequest};
use quorate_ring::wire::failure::Refusal;
use std::collections::VecDeque;
use tokio::time::{Instant, sleep};
use unite::{Cursor, Step};

/// Times all owners of a partition are gone through before a listing gives up.
const ROUNDS_MAX: u32 = 4;

/// A key, and what its owners hold of it, united. See [`crate::visible`] for what of it a reader is shown; a key that
/// was deleted may still come, without siblings.
#[derive(Clone, PartialEq, Debug)]
pub struct ScanItem {
    pub bucket: BucketId,
    pub key: Bytes,
    pub object: Object,
}

/// A listing under way. In the order of partitions, and of keys within a partition: all keys, but not sorted as a whole.
pub struct Scan {
    client: Client,
    bucket: Bucket,
    r: u8,
    options: ScanOptions,
    /// The partition under way.
    index: u16,
    cursors: Vec<Cursor>,
    /// Of this partition, the last key that was given out.
    last: Option<(BucketId, Bytes)>,
    /// Owners of this partition that failed in this round.
    failed: Causes,
    round: u32,
}

impl Scan {
    pub(crate) fn new(client: Client, bucket: Bucket, r: u8, options: ScanOptions) -> Self {
        let failed = Causes::default();
        Self { client, bucket, r, options, index: 0, cursors: Vec::new(), last: None, failed, round: 0 }
    }

    /// The bucket that is listed.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Partitions done, and partitions altogether.
    pub fn progress(&self) -> (u16, u16) {
        (self.index, self.client.layout().topology().partitions)
    }

    /// The next key; nothing after the last.
    pub async fn next(&mut self) -> Option<Result<ScanItem, ScanError>> {
        loop {
            let layout = self.client.layout();
            if self.index >= layout.topology().partitions {
                return None;
            }
            if self.cursors.len() < usize::from(self.r)
                && let Err(error) = self.add_owner(&layout).await
            {
                self.index = u16::MAX;
                return Some(Err(error));
            }
            if self.cursors.len() < usize::from(self.r) {
                continue;
            }
            match unite::step(&mut self.cursors) {
                Step::Item(item) => {
                    item.object.siblings().iter().for_each(|(_, content)| self.client.saw(content.hlc));
                    self.last = Some((item.bucket, item.key.clone()));
                    return Some(Ok(item));
                }
                Step::Fault { owner, cause } => {
                    self.index = u16::MAX;
                    return Some(Err(ScanError::Record { node: owner, cause }));
                }
                Step::NeedPages => self.turn_pages(&layout).await,
                Step::End => {
                    self.index += 1;
                    self.cursors.clear();
                    self.last = None;
                    self.failed.0.clear();
                    self.round = 0;
                }
            }
        }
    }

    fn partition(&self) -> Partition {
        Partition { n: self.bucket.n, index: self.index }
    }

    /// One more owner that is not in use and did not fail in this round.
    async fn add_owner(&mut self, layout: &Layout) -> Result<(), ScanError> {
        let partition = self.partition();
        let list = layout.preference(partition).expect("a layout has the partitions of its own buckets");
        let busy = |node: &NodeId| self.cursors.iter().any(|c| c.owner == *node);
        let failed = |node: &NodeId| self.failed.0.iter().any(|(f, _)| f == node);
        let links = &self.client.inner().links;
        let mut free: Vec<NodeId> = list.owners().iter().copied().filter(|n| !busy(n) && !failed(n)).collect();
        free.sort_by_key(|node| links.is_down(*node));
        if let Some(owner) = free.first() {
            self.cursors.push(Cursor::new(*owner, self.last.clone()));
            return Ok(());
        }
        self.round += 1;
        if self.round >= ROUNDS_MAX || !self.client.inner().budget.spend() {
            let (needed, got) = (self.r, self.cursors.len() as u8);
            return Err(ScanError::TooFewOwners { partition, needed, got, causes: self.failed.clone() });
        }
        sleep(backoff(self.round + 2, random())).await;
        self.failed.0.clear();
        Ok(())
    }

    /// Asks every owner whose page is used up for its next one, all at once.
    async fn turn_pages(&mut self, layout: &Layout) {
        let until = Instant::now() + self.options.deadline;
        let mut asked: VecDeque<(NodeId, Result<crate::lane::Pending, LinkError>)> = VecDeque::new();
        for cursor in self.cursors.iter().filter(|c| c.needs_page()) {
            let request = ClientRequest::Scan(ScanRequest {
                epoch: layout.epoch(),
                partition: self.partition(),
                bucket: Some(self.bucket.id),
                prefix: self.options.prefix.clone(),
                after: cursor.after.clone(),
                bytes_max: self.options.page_bytes,
            });
            asked.push_back((cursor.owner, self.submit(cursor.owner, &request, until).await));
        }
        for (owner, pending) in asked {
            let page = match pending {
                Ok(pending) => read_page(pending.answer(until).await),
                Err(cause) => Err(cause),
            };
            let cursor = self.cursors.iter_mut().find(|c| c.owner == owner).expect("asked for this cursor");
            let taken = page.and_then(|page| cursor.take(page).map_err(LinkError::Protocol));
            if let Err(cause) = taken {
                self.let_go(owner, cause).await;
            }
        }
    }

    async fn submit(
        &self,
        owner: NodeId,
        request: &ClientRequest,
        until: Instant,
    ) -> Result<crate::lane::Pending, LinkError> {
        let link = self.client.inner().links.link(owner).map_err(|e| LinkError::Socket(e.to_string()))?;
        let lane = link.lane(PATIENCE, self.round > 0).await?;
        let submitted = tokio::time::timeout_at(until, lane.submit(request)).await;
        match submitted {
            Ok(Ok(pending)) => Ok(pending),
            Ok(Err(AskError::Unsent(cause) | AskError::Sent(cause))) => Err(cause),
            Err(_) => Err(LinkError::Silent(self.options.deadline)),
        }
    }

    async fn let_go(&mut self, owner: NodeId, cause: LinkError) {
        tracing::debug!(%owner, %cause, "an owner is left out of the listing");
        if let LinkError::Refused(Refusal::StaleEpoch { ours, .. }) = &cause
            && let Err(cause) = self.client.inner().links.fetch_topology(owner, *ours).await
        {
            tracing::debug!(%owner, %cause, "the topology was not fetched");
        }
        self.cursors.retain(|c| c.owner != owner);
        self.failed.0.push((owner, cause));
    }
}

fn read_page(answer: Result<ClientReply, AskError>) -> Result<ScanPage, LinkError> {
    match answer {
        Ok(ClientReply::Page(page)) => Ok(page),
        Ok(ClientReply::Refused(refusal)) => Err(LinkError::Refused(refusal)),
        Ok(other) => Err(unexpected(&other)),
        Err(AskError::Unsent(cause) | AskError::Sent(cause)) => Err(cause),
    }
}
