//! The client library of Quorate: puts, gets and deletes, with honest outcomes.
//!
//! A client knows the topology, so it sends each request straight to the first live owner of its key. Every write ends
//! in one of three ways, and they are types: a [`Receipt`] says that it was applied, by whom and how durably;
//! [`WriteError::NotApplied`] that nothing was written anywhere; [`WriteError::Unknown`] that it may have taken effect,
//! or may yet. The last is tried again under the same op id, which nodes recognise, within the deadline and a budget.
//!
//! ```no_run
//! use quorate_client::{Client, Count, Profile, ReadOptions, WriteError, WriteOptions};
//! use std::path::Path;
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // `quorate-lab up` writes this profile.
//!     let profile = Profile::load(Path::new(".lab/client.toml"))?;
//!     let client = Client::connect(&profile).await?;
//!
//!     let all = WriteOptions { w: Some(Count::All), ..WriteOptions::default() };
//!     match client.put("default", "ada", "1815-12-10", &all).await {
//!         Ok(receipt) => println!("held by {} nodes, by {} first", receipt.acks.len(), receipt.coordinator),
//!         Err(WriteError::NotApplied(why)) => println!("nothing was written: {why}"),
//!         Err(WriteError::Unknown(doubt)) => println!("perhaps: {doubt}; again with op id {}", doubt.op_id),
//!     }
//!
//!     let answer = client.get("default", "ada", &ReadOptions::default()).await?;
//!     match answer.siblings.as_slice() {
//!         [] => println!("there is no such key"),
//!         [one] => println!("{}", String::from_utf8_lossy(&one.value)),
//!         several => println!("{} writes were concurrent; resolve them with a put", several.len()),
//!     }
//!     client.close().await;
//!     Ok(())
//! }
//! ```
//!
//! Rooms: `profile` and `tls` say as whom to connect; `lane` is one stream to one node, `link` keeps it up, `links` has
//! all of them; `call` is a request with its retries, `budget` limits those; `client` is what others call; `scan` lists
//! keys; `verdict` says how many nodes can be lost. Not inside: coordination of quorums, which nodes do, and any output.

mod atlas;
mod budget;
mod call;
mod client;
mod failure;
mod lane;
mod link;
mod links;
mod options;
mod profile;
mod scan;
mod tls;
mod verdict;

pub use client::{Client, new_op_id};
pub use failure::{Causes, ConnectError, Declined, LinkError, ScanError, Unknown, UnknownCause, WriteError};
pub use options::{DEADLINE_DEFAULT, ReadOptions, ScanOptions, Via, WriteOptions};
pub use profile::{Profile, ProfileError};
pub use quorate_ring::id::{BucketId, NodeId, OpId, Partition};
pub use quorate_ring::placement::Layout;
pub use quorate_ring::topology::{Conflict, Count, Durability, QuorumKind};
pub use quorate_ring::version::{ContextToken, Dot, Hlc, visible};
pub use quorate_ring::wire::client::{
    LogPage, NodeStatus, PeerStatus, ReadAnswer, Receipt, RepairStatus, ScanPage, Sibling, Supersede,
};
pub use quorate_ring::wire::failure::{Doubt, Refusal};
pub use scan::{Scan, ScanItem};
pub use verdict::{BucketVerdict, Verdict, verdict};
