//! Every event that was ever committed, and what it supersedes.

use super::{Commit, Property, Violation};
use crate::sim::disk::{Batch, SimDisk};
use crate::sim::keys::Keys;
use crate::sim::load::{Kind, Load, Op, Stated};
use quorate_node::kernel::Kernel;
use quorate_node::replica::Replica;
use quorate_node::storage::{LogEntry, MetaKey, Table, parse_log_key, parse_object_key};
use quorate_ring::id::{ActorId, NodeId, OpId, Partition};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Clock, Context, Dot, Hlc, Object, PAST_OPS_MAX};
use quorate_ring::wire::client::{Ack, Receipt, Standing};
use std::collections::{BTreeMap, BTreeSet};

/// A key that a batch wrote to: its events that are new here, and its object if that changed.
pub struct Touched {
    pub key: u32,
    pub partition: Partition,
    pub dots: Vec<Dot>,
    /// None if the batch leaves it alone; `Some(None)` if it erases it.
    pub object: Option<Option<(bytes::Bytes, Object)>>,
}

/// An event that was just minted, for the story.
pub struct Said {
    pub key: u32,
    pub op: u32,
    pub dot: Dot,
}

/// What an event supersedes.
enum Past {
    Nothing,
    /// Exactly what the client stated.
    Seen(Context),
    /// What its coordinator's object covered and did not show any more: under `local` and `latest`.
    Hidden {
        context: Context,
        shown: Vec<Dot>,
    },
}

impl Past {
    fn covers(&self, dot: Dot) -> bool {
        match self {
            Past::Nothing => false,
            Past::Seen(context) => context.covers(dot),
            Past::Hidden { context, shown } => context.covers(dot) && !shown.contains(&dot),
        }
    }
}

pub struct Minted {
    pub dot: Dot,
    pub op: u32,
    pub delete: bool,
    pub hlc: Hlc,
    pub expires_ms: Option<u64>,
    /// Events of this key, by their place in the history.
    pub superseded_by: Vec<u32>,
    /// Since when every owner has seen it: an owner has erased the key.
    pub settled_us: Option<u64>,
    past: Past,
}

impl Minted {
    pub fn supersedes(&self, other: &Minted) -> bool {
        self.dot != other.dot && self.past.covers(other.dot)
    }
}

/// A node that acked a write.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    pub node: usize,
    pub durability: Durability,
    /// The owner for whom it keeps a hint.
    pub target: Option<usize>,
}

impl Holder {
    pub fn of(ack: &Ack) -> Self {
        let index = |node: NodeId| usize::from(node.0) - 1;
        let target = match ack.standing {
            Standing::Owner => None,
            Standing::Fallback { target } => Some(index(target)),
        };
        Self { node: index(ack.node), durability: ack.durability, target }
    }
}

/// A write that a client was told is applied.
pub struct Acked {
    pub event: u32,
    /// Distinct owners that acked.
    pub owners: usize,
    /// Nodes that hold it by their own word, and whose disk has not been lost since.
    pub holders: Vec<Holder>,
    pub at_us: u64,
}

impl Acked {
    /// Whether an owner that acked it still has its disk. A hint that outlived all of them is delivered, but until then
    /// no quorum of owners knows of the write.
    pub fn by_an_owner(&self) -> bool {
        self.holders.iter().any(|holder| holder.target.is_none())
    }
}

/// All that happened to a key.
#[derive(Default)]
pub struct History {
    pub events: Vec<Minted>,
    by_dot: BTreeMap<Dot, u32>,
    pub acked: Vec<Acked>,
}

impl History {
    pub fn event(&self, dot: Dot) -> Option<&Minted> {
        self.by_dot.get(&dot).map(|at| &self.events[*at as usize])
    }

    /// Whether something supersedes an event that `known` knows of.
    pub fn superseded(&self, event: &Minted, known: impl Fn(&Minted) -> bool) -> bool {
        event.superseded_by.iter().any(|at| known(&self.events[*at as usize]))
    }
}

#[derive(Default)]
pub struct Truth {
    keys: Vec<History>,
    /// The last seq of each actor.
    seqs: BTreeMap<(Partition, ActorId), u64>,
    /// Nodes and keys: what the node holds of the key it does not erase by itself, as not all of it expires.
    lasting: BTreeSet<(NodeId, u32)>,
}

static NO_HISTORY: History = History { events: Vec::new(), by_dot: BTreeMap::new(), acked: Vec::new() };

/// The keys that a batch is about.
pub fn touched(batch: &Batch, keys: &Keys) -> Result<Vec<Touched>, Violation> {
    let mut touched: BTreeMap<u32, Touched> = BTreeMap::new();
    let broken = |what: &str| Violation::new(Property::Wire, None, format!("a row of {what} cannot be read"));
    for row in &batch.rows {
        match (row.table, &row.value) {
            (Table::Objects, value) => {
                let (partition, bucket, bytes) = parse_object_key(&row.key).ok_or_else(|| broken("objects"))?;
                let key = keys.number(bucket, &bytes).ok_or_else(|| broken("objects"))?;
                let object = match value {
                    Some(value) => {
                        let object = Object::decode(value).map_err(|_| broken("objects"))?;
                        Some((value.clone(), object))
                    }
                    None => None,
                };
                let entry = touched.entry(key);
                entry.or_insert_with(|| Touched::new(key, partition)).object = Some(object);
            }
            (Table::Log, Some(value)) => {
                let (partition, dot) = parse_log_key(&row.key).ok_or_else(|| broken("the log"))?;
                let entry = LogEntry::decode(value).map_err(|_| broken("the log"))?;
                let key = keys.number(entry.bucket, &entry.key).ok_or_else(|| broken("the log"))?;
                touched.entry(key).or_insert_with(|| Touched::new(key, partition)).dots.push(dot);
            }
            (Table::Log, None) | (Table::Hints | Table::Meta, _) => {}
        }
    }
    Ok(touched.into_values().collect())
}

impl Touched {
    pub fn new(key: u32, partition: Partition) -> Self {
        Self { key, partition, dots: Vec::new(), object: None }
    }
}

impl Truth {
    pub fn history(&self, key: u32) -> &History {
        self.keys.get(key as usize).unwrap_or(&NO_HISTORY)
    }

    pub fn histories(&self) -> impl Iterator<Item = (u32, &History)> {
        self.keys.iter().enumerate().map(|(key, history)| (key as u32, history))
    }

    fn history_mut(&mut self, key: u32) -> &mut History {
        let at = key as usize;
        if self.keys.len() <= at {
            self.keys.resize_with(at + 1, History::default);
        }
        &mut self.keys[at]
    }

    /// Enters the events that a batch minted.
    pub fn enter(&mut self, commit: &Commit, touched: &[Touched], load: &Load) -> Result<Vec<Said>, Violation> {
        let actor = commit.node.actor;
        let own = |t: &Touched| t.dots.clone().into_iter().filter(move |dot| dot.actor() == actor);
        let mut minted: Vec<(Dot, &Touched)> = touched.iter().flat_map(|t| own(t).map(move |dot| (dot, t))).collect();
        minted.sort_by_key(|(dot, touched)| (touched.partition, *dot));
        minted.retain(|(dot, touched)| !self.reminds(touched, *dot));
        minted.into_iter().map(|(dot, touched)| self.mint(commit, touched, dot, load)).collect()
    }

    /// Whether an entry of the log only brings to mind an event that was minted before.
    fn reminds(&self, touched: &Touched, dot: Dot) -> bool {
        let Some(event) = self.history(touched.key).event(dot) else { return false };
        let written = touched.object.as_ref().and_then(Option::as_ref).and_then(|(_, object)| find(object, dot));
        written.is_none_or(|(op_id, _)| Op::number_of(op_id) == event.op)
    }

    fn mint(&mut self, commit: &Commit, touched: &Touched, dot: Dot, load: &Load) -> Result<Said, Violation> {
        let key = touched.key;
        let broken = |property, text: String| Violation::new(property, Some(key), text);
        let last = self.seqs.entry((touched.partition, dot.actor())).or_default();
        if dot.seq() != *last + 1 {
            return Err(broken(Property::C2, format!("{} minted {dot}, the last was {last}", commit.node.id)));
        }
        *last = dot.seq();
        let Some(Some((row, object))) = &touched.object else {
            return Err(broken(Property::C1, format!("{dot} was logged without its object")));
        };
        let (op_id, hlc) = find(object, dot)
            .ok_or_else(|| broken(Property::C1, format!("{dot} was logged, its object does not know it")))?;
        let op = load.op(Op::number_of(op_id));
        let past = match &op.stated {
            Stated::Nothing => Past::Nothing,
            Stated::Seen(_, context) => Past::Seen(context.clone()),
            Stated::Local | Stated::Latest => {
                let at_mint = commit.minted.get(&(touched.partition, dot)).filter(|minted| *minted != row);
                let at_mint = at_mint.and_then(|minted| Object::decode(minted).ok());
                hidden(at_mint.as_ref().unwrap_or(object))
            }
        };
        let history = self.history_mut(key);
        if let Some(twice) = history.events.iter().find(|e| e.op == op.number && e.dot.actor() == dot.actor()) {
            let text = format!("op {} was minted twice by one coordinator, as {} and {dot}", op.number, twice.dot);
            if twice.settled_us.is_none() {
                return Err(broken(Property::OneWrite, text));
            }
        }
        let delete = op.kind == Kind::Delete;
        let at = history.events.len() as u32;
        let event = Minted {
            dot,
            op: op.number,
            delete,
            hlc,
            expires_ms: op.expires_ms,
            superseded_by: Vec::new(),
            settled_us: None,
            past,
        };
        let before = history.events.iter_mut().filter(|earlier| event.supersedes(earlier));
        before.for_each(|earlier| earlier.superseded_by.push(at));
        history.events.push(event);
        if history.by_dot.insert(dot, at).is_some() {
            return Err(broken(Property::C2, format!("{dot} was minted twice")));
        }
        Ok(Said { key, op: op.number, dot })
    }

    /// An owner erases a key when every owner has seen all that it has seen of it itself. It may write the key anew in
    /// the same batch: what it has seen and the new object does not know of was erased. A context knows of all earlier
    /// events of the same node; those of them that were not erased the object remembers.
    pub fn settle(&mut self, commit: &Commit, touched: &[Touched]) {
        for touched in touched {
            let anew = || touched.dots.iter().any(|dot| dot.actor() == commit.node.actor);
            let nothing = Object::default();
            let left = match &touched.object {
                Some(None) => &nothing,
                Some(Some((_, object))) if anew() => object,
                Some(Some(_)) | None => continue,
            };
            let knows = |dot: Dot| {
                let own = dot.actor() == commit.node.actor && left.past_ops().len() < PAST_OPS_MAX;
                left.context().covers(dot) && (!own || find(left, dot).is_some())
            };
            let clock = clock_after(commit, touched.partition);
            let events = self.history_mut(touched.key).events.iter_mut();
            let erased = events.filter(|event| clock.contains(event.dot) && !knows(event.dot));
            erased.for_each(|event| {
                event.settled_us.get_or_insert(commit.at_us);
            });
        }
    }

    /// An owner knows the op id of each event that its clock has, as far as so many are kept: a retry of it mints nothing.
    /// It may have erased what did not last, and hold it anew, in one batch: what it has forgotten then, it may forget.
    pub fn remembered(&mut self, commit: &Commit, touched: &[Touched]) -> Result<(), Violation> {
        for touched in touched {
            let (at, key) = ((commit.node.id, touched.key), touched.key);
            let Some(written) = &touched.object else { continue };
            let lasts = |(_, object): &(_, Object)| object.siblings().iter().any(|(_, c)| c.expires_ms.is_none());
            let lasted = match written.as_ref().is_some_and(lasts) {
                true => !self.lasting.insert(at),
                false => self.lasting.remove(&at),
            };
            let Some((_, object)) = written.as_ref().filter(|(_, object)| object.past_ops().len() < PAST_OPS_MAX)
            else {
                continue;
            };
            let clock = clock_after(commit, touched.partition);
            let seen = self.history_mut(key).events.iter_mut().filter(|event| event.settled_us.is_none());
            for event in seen.filter(|event| clock.contains(event.dot) && find(object, event.dot).is_none()) {
                if lasted {
                    let text = format!("{} has seen {}, and does not know its op {}", at.0, event.dot, event.op);
                    return Err(Violation::new(Property::OneWrite, Some(key), text));
                }
                event.settled_us = Some(commit.at_us);
            }
        }
        Ok(())
    }

    /// A write is applied, by the word of `holders` and perhaps of others that have lost it since.
    pub fn acknowledge(&mut self, op: &Op, receipt: &Receipt, holders: Vec<Holder>, at_us: u64) {
        let owners = receipt.acks.iter().filter(|ack| ack.standing == Standing::Owner).count();
        let history = self.history_mut(op.key);
        if let Some(event) = history.by_dot.get(&receipt.dot).copied() {
            history.acked.push(Acked { event, owners, holders, at_us });
        }
    }

    /// A node lost its disk, or what it had acked at `async`. What a fallback has handed to it is lost, too: `hinted`
    /// says whether the fallback still keeps a hint of an event.
    pub fn forget_holder(&mut self, node: usize, up_to: Durability, hinted: impl Fn(u32, Dot, Holder) -> bool) {
        self.lasting.retain(|(id, _)| *id != super::node_id(node));
        for (key, history) in self.keys.iter_mut().enumerate() {
            for acked in &mut history.acked {
                let dot = history.events[acked.event as usize].dot;
                acked.holders.retain(|holder| {
                    let own = holder.node == node && holder.durability <= up_to;
                    let handed = holder.target == Some(node) && !hinted(key as u32, dot, *holder);
                    !own && !handed
                });
            }
        }
    }

    /// The last event of an actor that was committed in a partition; 0 if none was.
    pub fn last_seq(&self, partition: Partition, actor: ActorId) -> u64 {
        self.seqs.get(&(partition, actor)).copied().unwrap_or(0)
    }

    /// The greatest seq that an actor has minted in a partition.
    pub fn minted(&self) -> impl Iterator<Item = (Partition, ActorId, u64)> {
        self.seqs.iter().map(|((partition, actor), seq)| (*partition, *actor, *seq))
    }
}

/// The clock of a node's replica.
pub fn clock_of(kernel: &Kernel<SimDisk>, partition: Partition) -> Option<&Clock> {
    kernel.replica(partition).map(Replica::clock)
}

/// The clock of a replica as its disk has it: floor and log.
pub fn clock_on(disk: &SimDisk, partition: Partition) -> Clock {
    let mut clock = Clock::new();
    let floor = MetaKey::Floor(partition).encode();
    disk.each_row(|table, key, value| match table {
        Table::Meta if key[..] == floor[..] => {
            if let Ok(floor) = Object::decode(value) {
                clock.union(&Clock::from_base(floor.context()));
            }
        }
        Table::Log => {
            if let Some((_, dot)) = parse_log_key(key).filter(|(p, _)| *p == partition) {
                clock.insert(dot);
            }
        }
        Table::Meta | Table::Objects | Table::Hints => {}
    });
    clock
}

/// The op id and the time of an event that an object shows or remembers.
fn find(object: &Object, dot: Dot) -> Option<(OpId, Hlc)> {
    let live = object.siblings().iter().find(|(d, _)| *d == dot).map(|(_, c)| (c.op_id, c.hlc));
    live.or_else(|| object.past_ops().iter().find(|p| p.dot == dot).map(|p| (p.op_id, p.hlc)))
}

/// What the replica has seen, with the batch.
fn clock_after(commit: &Commit, partition: Partition) -> Clock {
    match commit.kernel {
        Some(kernel) => clock_of(kernel, partition).cloned().unwrap_or_default(),
        None => clock_on(&commit.node.disk, partition),
    }
}

fn hidden(object: &Object) -> Past {
    let shown = object.siblings().iter().map(|(dot, _)| *dot).collect();
    Past::Hidden { context: object.context().clone(), shown }
}
