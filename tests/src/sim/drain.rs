//! A shard drains its inbox: events are handled, one batch is committed, then the effects are carried out. A node may
//! die at every step.

use super::disk::Batch;
use super::node::{AtMint, Committing, Death, Point};
use super::rare::Rare;
use super::world::{Happening, ShardRef, World};
use crate::checks::{Commit, Property, Violation};
use quorate_node::kernel::{Effect, Event, Now};
use quorate_node::planted::{self, Bug};
use quorate_node::storage::Storage;
use quorate_ring::wire::peer::PeerRequest;

/// Operations beside those of clients: handoffs and exchanges have credits of their own.
const REPAIR_MAX: usize = 512;
/// How long the handling of one event takes.
const HANDLING_US: u64 = 8;

impl World {
    pub fn drain(&mut self, at: ShardRef) -> Result<(), Violation> {
        let node = &mut self.nodes[at.node];
        if !node.running || node.incarnation != at.incarnation {
            return Ok(());
        }
        let shard = &mut node.shards[usize::from(at.shard)];
        if node.paused_until_us > self.now_us {
            self.heap.push(node.paused_until_us, Happening::Drain(at));
            return Ok(());
        }
        shard.called = false;
        let count = shard.inbox.len().min(self.options.drain_max);
        let now = node.clock.now(self.now_us);
        self.walls.show(at.node, now.wall_ms);
        let (bytes, events): (Vec<usize>, Vec<Event>) = shard.inbox.drain(..count).unzip();
        shard.inbox_bytes -= bytes.iter().sum::<usize>();
        let (first, others): (Vec<Event>, Vec<Event>) = events.into_iter().partition(Event::comes_first);
        let Some(mut effects) = self.handle(at, now, first)? else { return Ok(()) };
        if self.nodes[at.node].shards[usize::from(at.shard)].kernel.settled() {
            let effects = std::mem::take(&mut effects);
            let answers = Committing { effects, batch: None, minted: AtMint::new(), handled: now };
            self.release(at, answers)?;
            if self.nodes[at.node].incarnation != at.incarnation {
                return Ok(());
            }
        }
        let Some(more) = self.handle(at, now, others)? else { return Ok(()) };
        effects.extend(more);
        if let Some((Point::BeforeCommit, death)) = self.nodes[at.node].doomed {
            self.trace.rare(Rare::DeathBeforeCommit);
            return self.die(at.node, death);
        }
        let sync_us = self.rng.between(self.options.fsync_us.0, self.options.fsync_us.1);
        let slow = if self.nodes[at.node].slow_until_us > self.now_us { 60 } else { 1 };
        self.commit(at, now, count as u64 * HANDLING_US, sync_us * slow, effects)
    }

    /// While the disk is at work, what its batch does not concern goes through. The rest is given back.
    pub fn meanwhile(&mut self, at: ShardRef, event: Event) -> Result<Option<Event>, Violation> {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[usize::from(at.shard)];
        if shard.committing.is_none() || node.paused_until_us > self.now_us || node.doomed.is_some() {
            return Ok(Some(event));
        }
        let now = node.clock.now(self.now_us);
        let mut effects = Vec::new();
        let rare = if event.is_ack() { Rare::AckDuringCommit } else { Rare::ReadDuringCommit };
        let event = match shard.kernel.meanwhile(now, event, &mut effects) {
            Ok(event) => event,
            Err(error) => return self.disk_failed(at.node, &error.to_string()).map(|()| None),
        };
        if event.is_none() {
            self.trace.rare(rare);
            self.walls.show(at.node, now.wall_ms);
        }
        effects.into_iter().try_for_each(|effect| self.carry_out(at, now.wall_ms, effect))?;
        Ok(event)
    }

    /// None if the disk failed, and the node with it.
    fn handle(&mut self, at: ShardRef, now: Now, events: Vec<Event>) -> Result<Option<Vec<Effect>>, Violation> {
        let kernel = &mut self.nodes[at.node].shards[usize::from(at.shard)].kernel;
        let mut effects = Vec::new();
        for event in events {
            if let Err(error) = kernel.handle(now, event, &mut effects) {
                self.disk_failed(at.node, &error.to_string())?;
                return Ok(None);
            }
        }
        Ok(Some(effects))
    }

    /// Commits a drain. What it decided on is carried out when the disk has done its part.
    fn commit(
        &mut self,
        at: ShardRef,
        handled: Now,
        handled_us: u64,
        sync_us: u64,
        mut effects: Vec<Effect>,
    ) -> Result<(), Violation> {
        let node = &mut self.nodes[at.node];
        let shard = &mut node.shards[usize::from(at.shard)];
        let mut disk = node.disk.of_shard(at.shard);
        let staged = shard.kernel.staged_writes();
        let minted = staged.map(|(partition, write)| ((partition, write.dot), write.object.clone())).collect();
        let began = self.now_us + handled_us;
        // Answers leave, and the batch waits for the next commit.
        let withheld = planted::is(Bug::ReadUncommitted) && effects.iter().any(Effect::answers_a_read);
        let batch = if withheld { None } else { shard.kernel.batch() };
        let written = batch.map_or(Ok(()), |batch| disk.commit(&batch));
        if let Err(error) = written {
            // What was written is perhaps there when the node starts again.
            shard.committing = Some(Committing { effects, batch: disk.take_batch(), minted, handled });
            return self.disk_failed(at.node, &error.to_string());
        }
        let batch = disk.take_batch();
        if batch.is_none() {
            let now = node.clock.now(began);
            if !withheld {
                shard.kernel.committed(&mut || now, &mut effects);
            }
            if effects.is_empty() {
                self.call(at); // Nothing came of it, so nothing waits.
                return Ok(());
            }
        }
        let synced = batch.as_ref().is_some_and(|b| b.sync);
        let done_us = began + if synced { sync_us } else { 0 };
        shard.committing = Some(Committing { effects, batch, minted, handled });
        if let Some((Point::DuringCommit, death)) = node.doomed.filter(|_| synced) {
            self.trace.rare(Rare::DeathDuringFsync);
            return self.die(at.node, death);
        }
        self.heap.push(done_us, Happening::Committed(at));
        Ok(())
    }

    /// The disk has done its part.
    pub fn committed(&mut self, at: ShardRef) -> Result<(), Violation> {
        let node = &mut self.nodes[at.node];
        if !node.running || node.incarnation != at.incarnation {
            return Ok(());
        }
        if node.paused_until_us > self.now_us {
            self.heap.push(node.paused_until_us, Happening::Committed(at));
            return Ok(());
        }
        let shard = &mut node.shards[usize::from(at.shard)];
        let mut done = shard.committing.take().expect("a commit ends once, in the run in which it began");
        let now = node.clock.now(self.now_us);
        if done.batch.is_some() {
            shard.kernel.committed(&mut || now, &mut done.effects);
        }
        match &done.batch {
            Some(batch) if batch.sync => {
                node.disk.synced(batch.number);
                node.unsynced.retain(|(number, _)| *number > batch.number);
            }
            Some(batch) => node.unsynced.push((batch.number, node.disk.enters_dots(batch))),
            None => {}
        }
        let under_way = shard.kernel.under_way();
        if under_way > self.options.operations_max + REPAIR_MAX {
            let text = format!("{} has {under_way} operations under way", node.id);
            return Err(Violation::new(Property::Bounds, None, text));
        }
        self.release(at, done)?;
        if self.nodes[at.node].incarnation == at.incarnation {
            self.call(at);
        }
        Ok(())
    }

    /// Carries out what is committed, unless the node dies on the way.
    fn release(&mut self, at: ShardRef, done: Committing) -> Result<(), Violation> {
        if done.batch.is_none() && done.effects.is_empty() {
            return Ok(());
        }
        let node = &self.nodes[at.node];
        let commit = Commit {
            index: at.node,
            node,
            kernel: Some(&node.shards[usize::from(at.shard)].kernel),
            batch: done.batch.as_ref(),
            minted: &done.minted,
            handled: done.handled.mono,
            at_us: self.now_us,
            walls: &self.walls,
        };
        let minted = self.checks.committed(&commit, &self.keys, &self.load)?;
        self.say_minted(at.node, &minted);
        let dies = self.nodes[at.node].doomed.filter(|(point, _)| *point == Point::AmongEffects);
        let count = done.effects.len();
        let carried = dies.filter(|_| count > 1).map_or(count, |_| self.rng.below(count as u64) as usize);
        for effect in done.effects.into_iter().take(carried) {
            self.carry_out(at, done.handled.wall_ms, effect)?;
            if self.nodes[at.node].incarnation != at.incarnation {
                return Ok(()); // It found that it had forgotten, and started again.
            }
        }
        if let (Some((_, death)), true) = (dies, count > 1) {
            self.trace.rare(Rare::DeathAmongEffects);
            return self.die(at.node, death);
        }
        Ok(())
    }

    fn carry_out(&mut self, at: ShardRef, wall_ms: u64, effect: Effect) -> Result<(), Violation> {
        match effect {
            Effect::ClientReply { to, request, message } => self.reply_to_client(at, to, request, wall_ms, &message),
            Effect::PeerRequest { to, request, message } => {
                if matches!(&message, PeerRequest::Fetch(fetch) if !fetch.held.is_empty()) {
                    self.trace.rare(Rare::ValueHeld);
                }
                self.send_request(at.node, usize::from(to.0) - 1, request, &message);
                Ok(())
            }
            Effect::PeerReply { to, request, message } => {
                self.send_reply(at.node, usize::from(to.0) - 1, request, &message);
                Ok(())
            }
            Effect::Arm { timer, after } => {
                let wait = self.nodes[at.node].clock.world_us(after) + self.rng.below(100);
                self.heap.push(self.now_us + wait, Happening::Fired(at, timer));
                Ok(())
            }
            Effect::Amnesia { peer, partition, remembered, known } => {
                let node = self.nodes[at.node].id;
                let text = format!(
                    "{peer} says that {node} has forgotten: {known} of its events of partition {partition} were seen, \
                     it remembers {remembered}; but its disk lost nothing"
                );
                Err(Violation::new(Property::Amnesia, None, text))
            }
            Effect::Joined => {
                self.trace.rare(Rare::Rebuilt);
                let node = &mut self.nodes[at.node];
                node.rebuilding[usize::from(at.shard)] = false;
                let id = node.id;
                self.trace.say(self.now_us, None, || format!("shard {} of {id} has rebuilt", at.shard));
                Ok(())
            }
            Effect::Measure(measure) => {
                self.trace.measure(&measure);
                Ok(())
            }
        }
    }

    /// The disk failed: the process ends. What the failed fsync should have made durable may be there or not.
    fn disk_failed(&mut self, index: usize, why: &str) -> Result<(), Violation> {
        let id = self.nodes[index].id;
        self.trace.rare(Rare::DiskFailure);
        self.trace.say(self.now_us, None, || format!("{id} stops: {why}"));
        if why.contains("checksum") {
            self.die(index, Death::Process)?;
            return self.replace_disk(index, None);
        }
        self.die(index, if why.contains("fsync") { Death::Machine } else { Death::Process })
    }

    /// A node dies, and starts again after a while.
    pub fn die(&mut self, index: usize, death: Death) -> Result<(), Violation> {
        let down_us = self.rng.span(20_000, 2_000_000);
        self.die_for(index, death, down_us)
    }

    pub fn die_for(&mut self, index: usize, death: Death, down_us: u64) -> Result<(), Violation> {
        if !self.nodes[index].running {
            return Ok(());
        }
        let node = &mut self.nodes[index];
        let (id, unreleased) = (node.id, node.stop());
        let first_lost = match death {
            Death::Process => {
                node.disk.process_died();
                None
            }
            Death::Machine => node.disk.power_cut(&mut self.rng),
        };
        self.trace.say(self.now_us, None, || {
            let what = match death {
                Death::Process => "its process dies",
                Death::Machine => "its machine dies",
            };
            let lost = if first_lost.is_some() { ", and with it what was not fsynced" } else { "" };
            format!("{id}: {what}{lost}")
        });
        for drain in &unreleased {
            let Some(batch) = &drain.batch else { continue };
            if first_lost.is_some_and(|first| batch.number >= first) {
                self.trace.rare(Rare::BatchLost);
                continue;
            }
            // Nobody was told, and yet it is there: its writes are of unknown outcome, and they exist.
            self.survived(index, drain, batch)?;
        }
        let lost = |number: u64| first_lost.is_some_and(|first| number >= first);
        let released = std::mem::take(&mut self.nodes[index].unsynced);
        let lost: Vec<(u64, bool)> = released.into_iter().filter(|(number, _)| lost(*number)).collect();
        if !lost.is_empty() {
            self.trace.rare(Rare::AsyncLost);
            self.checks.async_lost(index, self.now_us);
        }
        // What is lost of hints and floors was nobody's knowledge; dots were.
        self.nodes[index].forgot |= lost.iter().any(|(_, dots)| *dots);
        self.links_of_stopped(index);
        self.connections_of_stopped(index);
        let incarnation = self.nodes[index].incarnation;
        self.heap.push(self.now_us + down_us, Happening::Start { node: index, incarnation });
        Ok(())
    }

    fn survived(&mut self, index: usize, drain: &Committing, batch: &Batch) -> Result<(), Violation> {
        self.trace.rare(Rare::CommitSurvived);
        let node = &self.nodes[index];
        let commit = Commit {
            index,
            node,
            kernel: None,
            batch: Some(batch),
            minted: &drain.minted,
            handled: drain.handled.mono,
            at_us: self.now_us,
            walls: &self.walls,
        };
        let minted = self.checks.committed(&commit, &self.keys, &self.load)?;
        self.say_minted(index, &minted);
        Ok(())
    }

    /// Puts another disk in the place of a node's: an empty one, or an old copy.
    pub fn replace_disk(&mut self, index: usize, copy: Option<&super::disk::Image>) -> Result<(), Violation> {
        self.checks.disk_lost(index, self.now_us, &self.nodes, &self.keys);
        let node = &mut self.nodes[index];
        let id = node.id;
        node.disk = copy.map_or_else(super::disk::SimDisk::default, super::disk::SimDisk::restored);
        node.forgot = true;
        node.unsynced.clear();
        let text = if copy.is_some() { "an old copy takes the place of its disk" } else { "its disk is lost" };
        self.trace.say(self.now_us, None, || format!("{id}: {text}"));
        Ok(())
    }
}
