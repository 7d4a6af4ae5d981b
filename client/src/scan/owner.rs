//! What one owner holds, as it is stored: for whoever compares owners. A listing unites them; this does not.

use super::read_page;
use crate::client::Client;
use crate::failure::LinkError;
use crate::lane::AskError;
use crate::link::{DIAL_MAX, unexpected};
use bytes::Bytes;
use quorate_ring::id::{BucketId, NodeId, Partition};
use quorate_ring::version::Dot;
use quorate_ring::wire::client::{ClientReply, ClientRequest, LogPage, LogRequest, ScanPage, ScanRequest};
use std::time::Duration;
use tokio::time::Instant;

impl Client {
    /// One page of the objects that this very node holds of a partition, tombstones and all, of all buckets of that n.
    ///
    /// A node that is no owner, or that rebuilds, refuses. `deadline` is for the whole of it.
    pub async fn page_of_owner(
        &self,
        owner: NodeId,
        partition: Partition,
        after: Option<(BucketId, Bytes)>,
        bytes_max: u32,
        deadline: Duration,
    ) -> Result<ScanPage, LinkError> {
        let epoch = self.layout().epoch();
        let scan = ScanRequest { epoch, partition, bucket: None, prefix: Vec::new(), after, bytes_max };
        read_page(self.ask_owner(owner, &ClientRequest::Scan(scan), deadline).await?)
    }

    /// One page of the log that this very node keeps of a partition.
    pub async fn log_of_owner(
        &self,
        owner: NodeId,
        partition: Partition,
        after: Option<Dot>,
        bytes_max: u32,
        deadline: Duration,
    ) -> Result<LogPage, LinkError> {
        let epoch = self.layout().epoch();
        let log = LogRequest { epoch, partition, after, bytes_max };
        match self.ask_owner(owner, &ClientRequest::Log(log), deadline).await? {
            Ok(ClientReply::LogPage(page)) => Ok(page),
            Ok(ClientReply::Refused(refusal)) => Err(LinkError::Refused(refusal)),
            Ok(other) => Err(unexpected(&other)),
            Err(AskError::Unsent(cause) | AskError::Sent(cause)) => Err(cause),
        }
    }

    async fn ask_owner(
        &self,
        owner: NodeId,
        request: &ClientRequest,
        deadline: Duration,
    ) -> Result<Result<ClientReply, AskError>, LinkError> {
        let until = Instant::now() + deadline;
        let link = self.inner().links.link(owner).map_err(|e| LinkError::Socket(e.to_string()))?;
        let lane = link.lane(DIAL_MAX.min(deadline), true).await?;
        Ok(lane.ask(request, until).await)
    }
}
