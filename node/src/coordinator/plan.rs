//! The plan of a request: every option settled and every limit checked, once, before anything is done.

use crate::kernel::{Consistency, Now, WriteOp};
use crate::planted::{self, Bug};
use crate::replica::Place;
use quorate_ring::id::{BucketId, Epoch, OpId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::topology::{Bucket, Durability, KEY_BYTES_MAX, QuorumKind};
use quorate_ring::version::Context;
use quorate_ring::wire::client::{Change, ReadRequest, Supersede, WriteRequest};
use quorate_ring::wire::failure::Refusal;
use std::time::Duration;

/// No request may keep a coordinator busy for longer than this.
const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// Where a request goes and when it is over.
#[derive(Clone, Debug)]
pub struct Route {
    pub place: Place,
    pub partition: Partition,
    /// On the scale of `Now::mono`.
    pub began: Duration,
    pub deadline: Duration,
    /// Of a read that is to be followed through the logs.
    pub request_id: Option<OpId>,
}

#[derive(Clone, Debug)]
pub struct WritePlan {
    pub route: Route,
    pub op: WriteOp,
    /// Owners that have to hold it before it is acknowledged, 1 to n.
    pub w: u8,
    /// Owners that are asked what is to be superseded, under `latest`.
    pub r: u8,
    pub quorum: QuorumKind,
    pub durability: Durability,
    /// The context, under `seen`.
    pub seen: Option<Context>,
}

#[derive(Clone, Debug)]
pub struct ReadPlan {
    pub route: Route,
    pub r: u8,
    pub w: u8,
    pub quorum: QuorumKind,
    pub blocking_repair: bool,
}

/// Which of the two writes a change is.
pub fn write_op(change: &Change) -> WriteOp {
    match change {
        Change::Put { .. } => WriteOp::Put,
        Change::Delete => WriteOp::Delete,
    }
}

impl Route {
    /// What waiting for `count` owners amounts to.
    pub fn consistency(&self, count: u8) -> Consistency {
        Consistency::of(count, self.partition.n)
    }
}

impl WritePlan {
    pub fn new(layout: &Layout, now: Now, arrived: Duration, request: &WriteRequest) -> Result<Self, Refusal> {
        let bucket = bucket(layout, request.epoch, request.bucket)?;
        let route = route(layout, bucket, now, arrived, &request.key, request.deadline_ms)?;
        if let Change::Put { value, .. } = &request.change
            && value.len() > bucket.value_bytes_max
        {
            let limit = bucket.value_bytes_max as u64;
            return Err(Refusal::ValueLength { length: value.len() as u64, limit });
        }
        let seen = match &request.supersede {
            Supersede::Seen(token) => Some(token.open(layout.topology().cluster, request.bucket, &request.key)?),
            Supersede::Latest | Supersede::Local | Supersede::Nothing => None,
        };
        Ok(Self {
            route,
            op: write_op(&request.change),
            w: request.w.map_or(Ok(bucket.w), |w| w.of(bucket.n))?,
            r: request.r.map_or(Ok(bucket.r), |r| r.of(bucket.n))?,
            quorum: request.quorum.unwrap_or(bucket.quorum),
            durability: request.durability.unwrap_or(bucket.durability),
            seen,
        })
    }
}

impl ReadPlan {
    pub fn new(layout: &Layout, now: Now, arrived: Duration, request: &ReadRequest) -> Result<Self, Refusal> {
        let bucket = bucket(layout, request.epoch, request.bucket)?;
        Ok(Self {
            route: Route {
                request_id: request.request_id,
                ..route(layout, bucket, now, arrived, &request.key, request.deadline_ms)?
            },
            r: request.r.map_or(Ok(bucket.r), |r| r.of(bucket.n))?,
            w: bucket.w,
            quorum: request.quorum.unwrap_or(bucket.quorum),
            blocking_repair: request.blocking_repair,
        })
    }
}

/// Refuses a request that was made under another epoch.
pub fn check_epoch(layout: &Layout, yours: Epoch) -> Result<(), Refusal> {
    let ours = layout.epoch();
    if yours == ours { Ok(()) } else { Err(Refusal::StaleEpoch { yours, ours }) }
}

pub fn bucket(layout: &Layout, epoch: Epoch, id: BucketId) -> Result<&Bucket, Refusal> {
    check_epoch(layout, epoch)?;
    layout.topology().bucket(id).ok_or(Refusal::UnknownBucket { bucket: id, epoch: layout.epoch() })
}

fn route(
    layout: &Layout,
    bucket: &Bucket,
    now: Now,
    arrived: Duration,
    key: &bytes::Bytes,
    deadline_ms: u32,
) -> Result<Route, Refusal> {
    check_key(key)?;
    let began = arrived.min(now.mono);
    let deadline = began + Duration::from_millis(u64::from(deadline_ms)).min(DEADLINE_MAX);
    if deadline <= now.mono && !planted::is(Bug::ExpiredDeadlineExecuted) {
        return Err(Refusal::DeadlinePassed);
    }
    let place = Place { bucket: bucket.id, key: key.clone() };
    Ok(Route { partition: layout.partition(bucket, key), place, began, deadline, request_id: None })
}

pub fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if (1..=KEY_BYTES_MAX).contains(&key.len()) {
        return Ok(());
    }
    Err(Refusal::KeyLength { length: key.len() as u64, limit: KEY_BYTES_MAX as u64 })
}
