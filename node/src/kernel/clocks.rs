//! Clocks told and heard: which parts of our clocks each peer has yet to be told, and what peers said of theirs.

use crate::replica::Replica;
use quorate_ring::id::{ActorId, NodeId, Partition};
use quorate_ring::placement::Layout;
use quorate_ring::version::{Clock, Context, SeqSet};
use quorate_ring::wire::peer::ClockNews;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of clocks in one ping; the rest go with the next.
const NEWS_MAX: usize = 4096;
/// And their runs, about: the clock of a replica that catches up has many, and is news with each ping.
const NEWS_RUNS_MAX: usize = 4096;
/// Pings remembered per peer; older ones were lost.
const PINGS_MAX: usize = 64;

/// Changes are numbered. Each (partition, actor) stands once, under the number of its first change since anyone was told of
/// it.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    changes: u64,
    by_number: BTreeMap<u64, (Partition, ActorId)>,
    by_part: BTreeMap<(Partition, ActorId), u64>,
    /// What changed behind this one no one was told of yet.
    told_upto: u64,
    /// Per peer, the change up to which it has acknowledged what concerns it. Starts afresh with each link.
    acknowledged: BTreeMap<NodeId, u64>,
    /// Per peer, the pings under way and the change up to which each told: an answer may take longer than it takes
    /// until the next ping.
    told: BTreeMap<NodeId, BTreeMap<u64, u64>>,
    pings: u64,
    /// Under which actor each peer last greeted.
    actors: BTreeMap<NodeId, ActorId>,
    /// The wall clock of each peer, as last reported, in ms.
    walls: BTreeMap<NodeId, u64>,
    /// Peers that last said that they are rebuilding.
    rebuilding: BTreeSet<NodeId>,
    heard: BTreeMap<(NodeId, Partition), Clock>,
    /// Peers that have told all of their clocks since they last greeted.
    told_all: BTreeSet<NodeId>,
}

impl Clocks {
    /// A replica was loaded: all of its clock is news.
    pub(super) fn track(&mut self, partition: Partition, clock: &Clock) {
        for (actor, _) in clock.iter() {
            self.changed(partition, actor);
        }
    }

    pub(super) fn changed(&mut self, partition: Partition, actor: ActorId) {
        let number = self.by_part.entry((partition, actor)).or_default();
        if *number > self.told_upto {
            return;
        }
        self.by_number.remove(number);
        self.changes += 1;
        *number = self.changes;
        self.by_number.insert(self.changes, (partition, actor));
    }

    pub(super) fn link_up(&mut self, peer: NodeId) {
        self.acknowledged.remove(&peer);
        self.told.remove(&peer);
    }

    /// The next ping's number, and what changed in clocks of partitions that the peer owns, too, and that it has not
    /// acknowledged.
    pub(super) fn news(
        &mut self,
        peer: NodeId,
        replicas: &BTreeMap<Partition, Replica>,
        layout: &Layout,
    ) -> (u64, Vec<ClockNews>) {
        let from = self.acknowledged.get(&peer).copied().unwrap_or(0);
        let (mut news, mut runs) = (Vec::new(), 0);
        let mut upto = from;
        for (number, (partition, actor)) in self.by_number.range(from + 1..) {
            upto = *number;
            let shared = layout.preference(*partition).is_some_and(|list| list.is_owner(peer));
            let seqs = replicas.get(partition).and_then(|replica| replica.clock().seqs(*actor));
            if let (true, Some(seqs)) = (shared, seqs) {
                runs += seqs.all_runs().count();
                news.push(ClockNews { partition: *partition, actor: *actor, seqs: seqs.clone() });
            }
            if is_full(news.len(), runs) {
                break;
            }
        }
        self.told_upto = self.told_upto.max(upto);
        self.pings += 1;
        let told = self.told.entry(peer).or_default();
        told.insert(self.pings, upto);
        if told.len() > PINGS_MAX {
            told.pop_first();
        }
        (self.pings, news)
    }

    /// A ping was answered: it told everything from what was acknowledged before on. Earlier ones are of no interest.
    pub(super) fn pong(&mut self, peer: NodeId, number: u64) {
        let Some(told) = self.told.get_mut(&peer) else { return };
        if let Some(upto) = told.get(&number).copied() {
            *told = told.split_off(&(number + 1));
            let acknowledged = self.acknowledged.entry(peer).or_default();
            *acknowledged = upto.max(*acknowledged);
        }
    }

    /// A peer greets, before its first ping. Under a new actor it has forgotten what its earlier one had seen; returns
    /// whether that is so.
    pub(super) fn greeted_by(&mut self, peer: NodeId, actor: ActorId) -> bool {
        self.told_all.remove(&peer);
        let renewed = self.actors.insert(peer, actor).is_some_and(|before| before != actor);
        if renewed {
            self.heard.retain(|(other, _), _| *other != peer);
        }
        renewed
    }

    pub(super) fn hear_rebuilding(&mut self, peer: NodeId, rebuilding: bool) {
        if rebuilding {
            self.rebuilding.insert(peer);
        } else {
            self.rebuilding.remove(&peer);
        }
    }

    /// Whether a peer last said that it is rebuilding.
    pub(super) fn is_rebuilding(&self, peer: NodeId) -> bool {
        self.rebuilding.contains(&peer)
    }

    /// Whether a peer has told of its clocks since this node started: before, nothing is known of what it lacks.
    pub(super) fn told_by(&self, peer: NodeId) -> bool {
        self.walls.contains_key(&peer)
    }

    /// The parts of our clocks that changed behind this number, and the number up to which it goes now.
    pub(super) fn changed_behind(&mut self, number: u64) -> (u64, impl Iterator<Item = (Partition, ActorId)> + '_) {
        self.told_upto = self.changes;
        (self.changes, self.by_number.range(number + 1..).map(|(_, part)| *part))
    }

    pub(super) fn hear_wall(&mut self, peer: NodeId, wall_ms: u64) {
        self.walls.insert(peer, wall_ms);
    }

    /// The least time that the other owners last reported; none at all before all of them have.
    pub(super) fn earliest_wall(&self, me: NodeId, owners: &[NodeId]) -> u64 {
        let others = owners.iter().filter(|owner| **owner != me);
        others.map(|owner| self.walls.get(owner).copied().unwrap_or(0)).min().unwrap_or(u64::MAX)
    }

    /// A ping came with this: unless it was full, it told all that there was to tell.
    pub(super) fn pinged(&mut self, peer: NodeId, news: &[ClockNews]) {
        let runs = news.iter().map(|news| news.seqs.all_runs().count()).sum();
        if !is_full(news.len(), runs) {
            self.told_all.insert(peer);
        }
    }

    /// Whether a peer has told all of its clocks since it last greeted.
    pub(super) fn has_told_all(&self, peer: NodeId) -> bool {
        self.told_all.contains(&peer)
    }

    /// What a peer says it has seen of one actor.
    pub(super) fn hear(&mut self, peer: NodeId, news: &ClockNews) {
        self.heard.entry((peer, news.partition)).or_default().union_actor(news.actor, &news.seqs);
    }

    /// What a peer has said of its clock of a partition.
    pub(super) fn heard(&self, peer: NodeId, partition: Partition) -> Option<&Clock> {
        self.heard.get(&(peer, partition))
    }

    /// Per actor, the seq up to which all owners have seen everything, as far as we have heard.
    pub(super) fn settled(&self, me: NodeId, owners: &[NodeId], partition: Partition, ours: &Clock) -> Context {
        let mut settled = ours.base();
        for owner in owners.iter().filter(|owner| **owner != me) {
            let Some(theirs) = self.heard(*owner, partition) else { return Context::new() };
            let base = |actor| theirs.seqs(actor).map_or(0, SeqSet::base);
            settled = settled.iter().map(|(actor, seq)| (actor, seq.min(base(actor)))).collect();
        }
        settled
    }

    /// How many dots the other owners have, together, that `ours` lacks, as far as we have heard.
    pub(super) fn missing(&self, me: NodeId, owners: &[NodeId], partition: Partition, ours: &Clock) -> u64 {
        let mut theirs = Clock::new();
        for clock in owners.iter().filter(|owner| **owner != me).filter_map(|owner| self.heard(*owner, partition)) {
            theirs.union(clock);
        }
        theirs.lag(ours)
    }
}

/// Whether no more goes into a ping.
fn is_full(parts: usize, runs: usize) -> bool {
    parts >= NEWS_MAX || runs >= NEWS_RUNS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{MemoryStorage, Staged};
    use quorate_ring::topology::Topology;
    use quorate_ring::version::{Context, Dot, Object};
    use std::sync::Arc;

    /// Two nodes that own all partitions.
    fn layout() -> Layout {
        let node = |id: u16| {
            format!(
                "[[node]]\nid = {id}\nname = \"n{id}\"\nrack = \"r\"\nclient_address = \"127.0.0.1:{}\"\n\
                 peer_address = \"127.0.0.1:{}\"\n",
                7000 + id,
                7100 + id
            )
        };
        let text = format!(
            "cluster = \"{}\"\nepoch = 1\npartitions = 8\n{}{}[[bucket]]\nid = 1\nname = \"b\"\nn = 2\n",
            "07".repeat(16),
            node(1),
            node(2)
        );
        Layout::new(Arc::new(Topology::parse(&text).unwrap())).unwrap()
    }

    #[test]
    fn clocks_full_of_holes_are_told_over_several_pings() {
        let (layout, peer, actor) = (layout(), NodeId(2), ActorId::new(NodeId(1), 1));
        let (mut clocks, mut replicas) = (Clocks::default(), BTreeMap::new());
        let mut store = Staged::new(MemoryStorage::new());
        for (partition, _) in layout.partitions() {
            let mut replica = Replica::load(&store, partition).unwrap();
            let place = crate::replica::Place { bucket: quorate_ring::id::BucketId(1), key: "k".into() };
            let dots: Vec<Dot> = (1..=1_500).map(|number| Dot(actor, 2 * number)).collect();
            replica.merge(&mut store, &place, &Object::absent(Context::of(dots[1_499])), &dots).unwrap();
            clocks.track(partition, replica.clock());
            replicas.insert(partition, replica);
        }
        let (mut told, mut pings) = (Vec::new(), 0);
        while !clocks.has_told_all(peer) {
            let (number, news) = clocks.news(peer, &replicas, &layout);
            assert!(news.len() <= 3, "{} parts of 1,500 runs each", news.len());
            clocks.pong(peer, number);
            clocks.pinged(peer, &news);
            told.extend(news.iter().map(|news| news.partition));
            pings += 1;
        }
        assert_eq!((told.len(), pings), (8, 3));
        told.dedup();
        assert_eq!(told.len(), 8, "each is told once");
    }
}
