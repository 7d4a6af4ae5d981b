//! What one owner holds of a partition, page by page.

use bytes::Bytes;
use quorate_client::{BucketId, Client, LinkError, NodeId, Partition};
use quorate_ring::version::Context;
use quorate_ring::wire::client::{LogRecord, ScanRecord};
use std::collections::VecDeque;
use std::time::Duration;

const PAGE_BYTES: u32 = 256 * 1024;
const PAGE_PATIENCE: Duration = Duration::from_secs(5);
/// Times that a page is asked for: a connection may have broken since the last.
const TRIES: u32 = 3;
const BREATH: Duration = Duration::from_millis(100);

pub type Place = (BucketId, Bytes);

/// What an owner has of one key.
pub struct Held {
    pub node: NodeId,
    /// As it is stored; none if there is nothing.
    pub record: Option<Bytes>,
    /// What "nothing" means: all of this was seen.
    pub base: Context,
}

/// One owner, and how far it has been read.
pub struct Owner {
    pub node: NodeId,
    partition: Partition,
    records: VecDeque<ScanRecord>,
    after: Option<Place>,
    done: bool,
    pub base: Context,
}

impl Owner {
    pub fn new(node: NodeId, partition: Partition) -> Self {
        Self { node, partition, records: VecDeque::new(), after: None, done: false, base: Context::new() }
    }

    /// Sees to it that the next record is at hand, if there is one.
    pub async fn turn_page(&mut self, client: &Client) -> Result<(), LinkError> {
        if !self.records.is_empty() || self.done {
            return Ok(());
        }
        let mut tries = 0;
        let page = loop {
            let asked = client.page_of_owner(self.node, self.partition, self.after.clone(), PAGE_BYTES, PAGE_PATIENCE);
            match asked.await {
                Ok(page) => break page,
                Err(cause) if tries + 1 == TRIES => return Err(cause),
                Err(_) => tokio::time::sleep(BREATH).await,
            }
            tries += 1;
        };
        let in_order = page.records.windows(2).all(|two| place(&two[0]) < place(&two[1]));
        let goes_on = page.records.first().is_none_or(|first| self.after.as_ref().is_none_or(|a| *a < place(first)));
        if !in_order || !goes_on || (page.records.is_empty() && !page.done) {
            return Err(LinkError::Protocol("a page is not in order, or is empty and not the last".to_string()));
        }
        self.after = page.records.last().map(place);
        (self.records, self.done, self.base) = (page.records.into(), page.done, page.base);
        Ok(())
    }

    pub fn head(&self) -> Option<Place> {
        self.records.front().map(place)
    }

    pub fn take(&mut self, wanted: &Place) -> Held {
        let next = if self.head().as_ref() == Some(wanted) { self.records.pop_front() } else { None };
        Held { node: self.node, record: next.map(|record| record.object), base: self.base.clone() }
    }

    /// All of its log of this partition. What is settled is cut, so it is short where all is well.
    pub async fn log(&mut self, client: &Client) -> Result<Vec<LogRecord>, LinkError> {
        let mut records: Vec<LogRecord> = Vec::new();
        loop {
            let after = records.last().map(|record| record.dot);
            let page = client.log_of_owner(self.node, self.partition, after, PAGE_BYTES, PAGE_PATIENCE).await?;
            if page.records.is_empty() && !page.done {
                return Err(LinkError::Protocol("a page of the log is empty and yet not the last".to_string()));
            }
            records.extend(page.records);
            self.base = page.base;
            if page.done {
                return Ok(records);
            }
        }
    }
}

fn place(record: &ScanRecord) -> Place {
    (record.bucket, record.key.clone())
}
