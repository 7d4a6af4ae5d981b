//! Which shard of a node a message is for, as the runtime routes it.

use bytes::Bytes;
use quorate_node::kernel::shard_of;
use quorate_ring::id::{BucketId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::wire::client::ClientRequest;
use quorate_ring::wire::peer::PeerRequest;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// Every shard, and each answers for itself.
    All,
    One(u8),
}

pub fn way(layout: &Layout, message: &PeerRequest, shards: u8) -> Way {
    match message {
        PeerRequest::Greet(_) | PeerRequest::Ping(_) => Way::All,
        PeerRequest::Coordinate(m) => of_key(layout, m.write.bucket, &m.write.key, shards),
        PeerRequest::Replicate(m) => of_key(layout, m.bucket, &m.key, shards),
        PeerRequest::StoreHint(m) => of_key(layout, m.replicate.bucket, &m.replicate.key, shards),
        PeerRequest::Fetch(m) => of_key(layout, m.bucket, &m.key, shards),
        PeerRequest::Pull(m) => of_partition(m.partition, shards),
        PeerRequest::Sync(m) => of_partition(m.partition, shards),
    }
}

pub fn client_way(layout: &Layout, message: &ClientRequest, shards: u8) -> Way {
    match message {
        ClientRequest::Write(m) => of_key(layout, m.bucket, &m.key, shards),
        ClientRequest::Read(m) => of_key(layout, m.bucket, &m.key, shards),
        ClientRequest::Scan(m) => of_partition(m.partition, shards),
        ClientRequest::Log(m) => of_partition(m.partition, shards),
        ClientRequest::Hello(_) | ClientRequest::Status(_) | ClientRequest::Repair(_) | ClientRequest::Cancel(_) => {
            Way::All
        }
    }
}

fn of_key(layout: &Layout, bucket: BucketId, key: &Bytes, shards: u8) -> Way {
    match layout.topology().bucket(bucket) {
        Some(bucket) => of_partition(layout.partition(bucket, key), shards),
        None => Way::One(0),
    }
}

fn of_partition(partition: Partition, shards: u8) -> Way {
    Way::One(shard_of(partition, shards))
}
