//! The promises, and what it takes to catch the store breaking them. One file for each.
//!
//! The checks know the whole truth: they see every batch that a node commits, so they know each event, what it says
//! that it supersedes, and where it lies. They judge what clients are told against that.

mod acked;
mod bounds;
mod convergence;
mod deadlines;
mod fresh;
mod lww;
mod reads;
mod receipts;
mod replica;
mod truth;

pub use reads::ReadSeen;
pub use truth::Said;

use crate::sim::clock::Walls;
use crate::sim::disk::{Batch, SimDisk};
use crate::sim::keys::Keys;
use crate::sim::load::{Load, Op};
use crate::sim::node::{AtMint, SimNode};
use crate::sim::options::Options;
use deadlines::Deadlines;
use quorate_node::kernel::{Event, Kernel};
use quorate_ring::id::NodeId;
use quorate_ring::topology::Durability;
use quorate_ring::version::{Context, Dot};
use quorate_ring::wire::client::{Receipt, Uncertain};
use std::fmt;
use std::time::Duration;
use truth::{Holder, Truth};

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A promise that was broken.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Property {
            $($(#[$doc])* $name,)*
        }

        impl fmt::Display for Property {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Property::$name => $text,)*
                })
            }
        }
    };
}

properties! {
    AckedKept = "what was acknowledged is kept",
    SiblingsKept = "no sibling is dropped",
    NothingReturns = "nothing superseded or deleted returns",
    Fresh = "strict reads are fresh",
    Receipts = "receipts tell the truth",
    NotApplied = "not applied means nothing was written",
    OneWrite = "an op id is one write",
    C1 = "C1: a dot in a clock means its value, or what supersedes it",
    C2 = "C2: no seq is skipped, no dot is minted twice",
    Released = "nothing leaves before its batch is committed",
    Lww = "lww readers agree",
    Deadlines = "nothing is done after its deadline",
    Repairs = "a blocking read leaves W owners with what it found",
    AnsweredOnce = "each request is answered once",
    Bounds = "queues are bounded",
    Convergence = "after faults all owners hold the same",
    Residue = "what is settled is forgotten",
    Amnesia = "no node forgets while it keeps its disk",
    Liveness = "after faults everything is served",
    Refusals = "what is asked rightly is refused for want of nodes, time or room only",
    Wire = "messages are understood",
}

/// The node at a position.
fn node_id(index: usize) -> NodeId {
    NodeId(index as u16 + 1)
}

/// A promise broken, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub property: Property,
    pub key: Option<u32>,
    pub text: String,
}

impl Violation {
    pub fn new(property: Property, key: Option<u32>, text: String) -> Self {
        Self { property, key, text }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {}", self.property)?;
        if let Some(key) = self.key {
            write!(f, " (key {key})")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// A batch that a shard committed, and is about to let out.
pub struct Commit<'a> {
    /// Of the node, among all.
    pub index: usize,
    pub node: &'a SimNode,
    /// None if the process died before it could go on.
    pub kernel: Option<&'a Kernel<SimDisk>>,
    pub batch: Option<&'a Batch>,
    pub minted: &'a AtMint,
    /// When the events of the drain were handled, on the node's monotonic clock.
    pub handled: Duration,
    pub at_us: u64,
    pub walls: &'a Walls,
}

pub struct Checks {
    truth: Truth,
    deadlines: Deadlines,
    asynchronous: bool,
    hint_bytes_max: u64,
    page_bytes: u32,
    /// Per node, when it last lost what its disk held, or some of it.
    lost_us: Vec<Option<u64>>,
}

impl Checks {
    pub fn new(options: &Options) -> Self {
        Self {
            truth: Truth::default(),
            deadlines: Deadlines::default(),
            asynchronous: options.asynchronous,
            hint_bytes_max: options.hint_bytes_max,
            page_bytes: options.page_bytes,
            lost_us: vec![None; usize::from(options.nodes)],
        }
    }

    /// A batch is as durable as it was to be, and its effects are about to be let out. Returns what was minted.
    pub fn committed(&mut self, commit: &Commit, keys: &Keys, load: &Load) -> Result<Vec<Said>, Violation> {
        let Some(batch) = commit.batch else { return Ok(Vec::new()) };
        self.released(batch, commit)?;
        let touched = truth::touched(batch, keys)?;
        self.truth.settle(commit, &touched);
        let minted = self.truth.enter(commit, &touched, load)?;
        self.truth.remembered(commit, &touched)?;
        for event in &minted {
            self.deadlines.check(commit, event)?;
        }
        if let Some(kernel) = commit.kernel {
            for touched in &touched {
                self.check_replica(kernel, commit, touched, keys)?;
            }
            self.check_hints(batch, commit)?;
        }
        Ok(minted)
    }

    /// A request reached the node that is going to carry it out.
    pub fn promised(&mut self, node: usize, arrived: Duration, event: &Event) {
        self.deadlines.promised(node, arrived, event);
    }

    /// A node lost its disk.
    pub fn disk_lost(&mut self, node: usize, now_us: u64, nodes: &[SimNode], keys: &Keys) {
        self.lost_us[node] = Some(now_us);
        self.truth.forget_holder(node, Durability::Sync, |key, dot, holder| {
            let key = keys.get(key);
            let hint = |target| receipts::hint_holds(&nodes[holder.node].disk, node_id(target), key, dot);
            // Its ack may be under way, upon which the hint is forgotten.
            let handed = receipts::owner_holds(&nodes[node].disk, Durability::Sync, key, dot);
            holder.target.is_some_and(hint) && !handed
        });
    }

    /// A node lost what it had acked at `async`.
    pub fn async_lost(&mut self, node: usize, now_us: u64) {
        self.lost_us[node] = Some(now_us);
        self.truth.forget_holder(node, Durability::Async, |_, _, _| true);
    }

    /// A write was answered "applied". Returns the context that the client got.
    pub fn written(
        &mut self,
        op: &Op,
        receipt: &Receipt,
        now_us: u64,
        nodes: &[SimNode],
        keys: &Keys,
    ) -> Result<Context, Violation> {
        let context = self.check_receipt(op, receipt, nodes, keys)?;
        self.check_latest(op, receipt, &context, keys)?;
        let kept = |holder: &Holder| self.keeps(op, receipt.dot, holder, nodes, keys);
        let holders = receipt.acks.iter().map(Holder::of).filter(kept).collect();
        self.truth.acknowledge(op, receipt, holders, now_us);
        Ok(context)
    }

    /// Whether whoever acked a write has lost nothing since it was asked for: neither its own disk, nor what it handed
    /// on to an owner.
    fn keeps(&self, op: &Op, dot: Dot, holder: &Holder, nodes: &[SimNode], keys: &Keys) -> bool {
        let lost = |node: usize| self.lost_us[node].is_some_and(|at| at >= op.invoked_us);
        let handed_on = holder.target.is_some_and(|target| {
            lost(target) && !receipts::hint_holds(&nodes[holder.node].disk, node_id(target), keys.get(op.key), dot)
        });
        !lost(holder.node) && !handed_on
    }

    /// A write was answered "unknown".
    pub fn uncertain(&self, op: &Op, uncertain: &Uncertain, keys: &Keys) -> Result<(), Violation> {
        self.check_uncertain(op, uncertain, keys)
    }

    /// A read was answered. Returns the context that the client got.
    pub fn read(&mut self, seen: &ReadSeen, load: &Load, nodes: &[SimNode], keys: &Keys) -> Result<Context, Violation> {
        let context = self.check_read(seen, load, keys)?;
        self.check_fresh(seen, &context, keys)?;
        self.check_blocking_repair(seen, nodes, keys)?;
        Ok(context)
    }
}
