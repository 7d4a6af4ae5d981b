//! Listings over scripted nodes: owners that refuse or vanish half way.

use crate::fake::{ACTOR, FakeCluster, Play};
use bytes::Bytes;
use quorate_client::*;
use quorate_ring::version::{Content, Context, Dot, Object};
use quorate_ring::wire::client::{ClientReply, ClientRequest, ScanPage, ScanRecord};

/// One partition's worth of keys would need 16 scripts; these nodes serve every key in partition 0 only.
fn page(keys: &[&str], done: bool) -> Play {
    let record = |key: &&str| {
        let mut object = Object::default();
        let content =
            Content { value: Bytes::from(key.to_string()), hlc: Hlc(9), expires_ms: None, op_id: OpId([1; 16]) };
        object.write(Dot(ACTOR, 1), (OpId([1; 16]), Hlc(9)), &Context::new(), Some(content));
        ScanRecord { bucket: BucketId(1), key: Bytes::from(key.to_string()), object: object.encode() }
    };
    let records = keys.iter().map(record).collect();
    Play::Answer(ClientReply::Page(ScanPage { records, done, base: Context::new() }))
}

async fn list(client: &Client) -> Result<Vec<String>, ScanError> {
    let mut scan = client.scan("default", ScanOptions::default()).unwrap();
    let mut keys = Vec::new();
    while let Some(item) = scan.next().await {
        keys.push(String::from_utf8(item?.key.to_vec()).unwrap());
    }
    Ok(keys)
}

#[tokio::test]
async fn keys_of_two_owners_are_one_listing() {
    let cluster = FakeCluster::start(2, "n = 2\nr = 2\nw = 1");
    let client = cluster.client().await;
    cluster.play(NodeId(1), page(&["a", "c"], false));
    cluster.play(NodeId(1), page(&["e"], true));
    cluster.play(NodeId(2), page(&["a", "b", "f"], true));
    assert_eq!(list(&client).await.unwrap(), ["a", "b", "c", "e", "f"]);
    assert_eq!(client.hlc(), Hlc(9));
}

#[tokio::test]
async fn an_owner_that_fails_half_way_is_replaced_behind_the_last_key() {
    let cluster = FakeCluster::start(3, "n = 3\nr = 1\nw = 2");
    let client = cluster.client().await;
    let first = client.layout().partitions().next().unwrap().1.owners().to_vec();
    cluster.play(first[0], page(&["a", "b"], false));
    cluster.play(first[0], Play::Break);
    cluster.play(first[1], page(&["c"], true));
    assert_eq!(list(&client).await.unwrap(), ["a", "b", "c"]);
    let after: Vec<_> = cluster
        .heard()
        .into_iter()
        .filter_map(|(_, request)| match request {
            ClientRequest::Scan(scan) if scan.partition.index == 0 => Some(scan.after.map(|(_, key)| key)),
            _ => None,
        })
        .collect();
    assert_eq!(after, [None, Some(Bytes::from_static(b"b")), Some(Bytes::from_static(b"b"))]);
}

#[tokio::test]
async fn too_few_owners_end_it_with_the_reasons() {
    let cluster = FakeCluster::start(3, "n = 3\nr = 3\nw = 2");
    let client = cluster.client().await;
    for _ in 0..20 {
        cluster.play(NodeId(2), Play::Answer(ClientReply::Refused(Refusal::NotReady)));
    }
    let error = list(&client).await.unwrap_err();
    let ScanError::TooFewOwners { needed: 3, causes, .. } = &error else { panic!("{error:?}") };
    assert_eq!(causes.0, [(NodeId(2), LinkError::Refused(Refusal::NotReady))]);
}
