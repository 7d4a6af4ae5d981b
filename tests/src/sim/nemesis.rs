//! The nemesis: which fault comes next, to whom, and when it is over.

use super::disk::{Image, Trouble};
use super::faults::Fault;
use super::node::{Death, Point};
use super::options::{Options, stream};
use super::rng::Rng;
use super::world::{Happening, World};
use crate::checks::Violation;
use quorate_node::kernel::Event;
use quorate_node::storage::Table;
use quorate_ring::id::NodeId;

/// Faults that come and go, and how often each is chosen beside the others; a world favours some of them.
const CHOICES: &[(Fault, u64)] = &[
    (Fault::Crash, 10),
    (Fault::Power, 10),
    (Fault::Blackout, 1),
    (Fault::Shutdown, 2),
    (Fault::Pause, 6),
    (Fault::Step, 3),
    (Fault::Eio, 4),
    (Fault::Full, 2),
    (Fault::SlowDisk, 4),
    (Fault::Reserve, 2),
    (Fault::BitFlip, 1),
    (Fault::Wipe, 3),
    (Fault::Restore, 10),
    (Fault::Break, 6),
    (Fault::OneWay, 5),
    (Fault::Halves, 3),
    (Fault::Isolate, 4),
    (Fault::Bridge, 2),
];

/// What a world multiplies these with, each by chance: rare faults meet their like in some worlds.
const FAVOUR: [u64; 6] = [1, 1, 1, 1, 1, 16];

/// What ends when a fault is over.
enum Ends {
    Cuts(Vec<(usize, usize)>),
    Reserve(usize),
    Shutdown { node: usize, incarnation: u32 },
    Copied { node: usize, copy: Box<Image>, wiped: Option<usize>, for_us: u64 },
    Apart { node: usize, for_us: u64 },
}

pub struct Nemesis {
    rng: Rng,
    every_us: u64,
    choices: Vec<(Fault, u64)>,
    ends: Vec<Option<Ends>>,
    pub over: bool,
}

impl Nemesis {
    pub fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed, stream::FAULTS);
        let mut favour = || *rng.pick(&FAVOUR);
        let choices = CHOICES.iter().map(|(fault, weight)| (*fault, weight * favour())).collect();
        Self { rng, every_us: options.fault_every_us, choices, ends: Vec::new(), over: false }
    }
}

impl World {
    /// The next fault.
    pub fn fault(&mut self) -> Result<(), Violation> {
        if self.nemesis.over {
            return Ok(());
        }
        let every = self.nemesis.every_us;
        let next = self.now_us + self.nemesis.rng.between(every / 4, every * 2);
        self.heap.push(next, Happening::Fault);
        let total: u64 = self.nemesis.choices.iter().map(|(_, weight)| weight).sum();
        let mut draw = self.nemesis.rng.below(total);
        let chosen = self.nemesis.choices.iter().find(|(_, weight)| {
            let hit = draw < *weight;
            draw = draw.saturating_sub(*weight);
            hit
        });
        let fault = chosen.map_or(Fault::Crash, |(fault, _)| *fault);
        let node = self.nemesis.rng.below(self.nodes.len() as u64) as usize;
        let for_us = self.nemesis.rng.span(5_000, 3_000_000);
        // Drawn above in any case, so that switching one off leaves the others where they are.
        if self.options.mask.off(fault) {
            return Ok(());
        }
        self.strike(fault, node, for_us)
    }

    fn strike(&mut self, fault: Fault, node: usize, for_us: u64) -> Result<(), Violation> {
        let id = self.nodes[node].id;
        if !self.nodes[node].running && !matches!(fault, Fault::Wipe | Fault::Restore | Fault::Blackout) {
            return Ok(());
        }
        match fault {
            Fault::Crash => self.doom(node, Death::Process),
            Fault::Power => self.doom(node, Death::Machine),
            Fault::Blackout => self.blackout(),
            Fault::Shutdown => self.shutdown(node, for_us),
            Fault::Pause => {
                self.nodes[node].paused_until_us = self.now_us + for_us;
                Ok(())
            }
            Fault::Step => {
                self.step_clock(node);
                Ok(())
            }
            Fault::Eio => {
                self.nodes[node].disk.plan(Trouble::FailedSync);
                Ok(())
            }
            Fault::Full => {
                self.nodes[node].disk.plan(Trouble::Full);
                Ok(())
            }
            Fault::SlowDisk => {
                self.nodes[node].slow_until_us = self.now_us + for_us;
                Ok(())
            }
            Fault::Reserve => {
                self.ends_after(for_us, Ends::Reserve(node));
                self.tell_all(node, &Event::DiskReserve { reached: true })
            }
            Fault::BitFlip => self.flip(node),
            // These two count when the disk is gone.
            Fault::Wipe if self.nemesis.rng.chance(5_000) => return self.wipe(node, for_us),
            Fault::Wipe => {
                self.part_then_wipe(node, for_us);
                return Ok(());
            }
            Fault::Restore => {
                self.copy_disk(node, for_us);
                return Ok(());
            }
            Fault::Break => {
                let target = self.other_than(node);
                self.break_link(super::network::LinkId { dialler: node, target })
            }
            Fault::OneWay | Fault::Halves | Fault::Isolate | Fault::Bridge => {
                self.partition(fault, node, for_us);
                Ok(())
            }
            Fault::Loss
            | Fault::Repeat
            | Fault::Delay
            | Fault::Damage
            | Fault::Drift
            | Fault::Gone
            | Fault::Cancel
            | Fault::Late => Ok(()),
        }?;
        self.trace.fault(fault);
        if let Some(text) = in_words(fault, id, for_us / 1_000) {
            self.trace.say(self.now_us, None, || format!("fault {}: {text}", fault.name()));
        }
        Ok(())
    }

    fn step_clock(&mut self, node: usize) {
        let far = *self.nemesis.rng.pick(&[50, 1_000, 30_000, 3_600_000]);
        let by = self.nemesis.rng.between(0, 2 * far) as i64 - far as i64;
        let id = self.nodes[node].id;
        self.trace.say(self.now_us, None, || format!("the wall clock of {id} is set by {by} ms"));
        self.nodes[node].clock.step(by);
    }

    /// Now, or at a point of its next drain.
    fn doom(&mut self, node: usize, death: Death) -> Result<(), Violation> {
        let points = [Point::BeforeCommit, Point::DuringCommit, Point::AmongEffects];
        if self.nemesis.rng.chance(4_000) {
            return self.die(node, death);
        }
        self.nodes[node].doomed = Some((*self.nemesis.rng.pick(&points), death));
        Ok(())
    }

    fn blackout(&mut self) -> Result<(), Violation> {
        let down_us = self.nemesis.rng.span(20_000, 1_000_000);
        (0..self.nodes.len()).try_for_each(|node| self.die_for(node, Death::Machine, down_us))
    }

    fn shutdown(&mut self, node: usize, for_us: u64) -> Result<(), Violation> {
        let incarnation = self.nodes[node].incarnation;
        self.ends_after(for_us.min(500_000), Ends::Shutdown { node, incarnation });
        self.tell_all(node, &Event::Drain)
    }

    /// Whether a node may lose its disk: another owner of each of its partitions must keep its own. One with a damaged
    /// block is as good as lost: it goes when the block is read.
    fn may_lose(&self, node: usize) -> bool {
        let id = self.nodes[node].id;
        let sound = |other: &NodeId| {
            let node = &self.nodes[usize::from(other.0) - 1];
            *other != id && !node.is_rebuilding() && !node.disk.is_damaged()
        };
        self.layout.partitions().filter(|(_, list)| list.is_owner(id)).all(|(_, list)| list.owners().iter().any(sound))
    }

    fn wipe(&mut self, node: usize, for_us: u64) -> Result<(), Violation> {
        if !self.may_lose(node) {
            return Ok(());
        }
        self.trace.fault(Fault::Wipe);
        self.die_for(node, Death::Machine, for_us)?;
        self.replace_disk(node, None)
    }

    /// Another node cannot reach this one for a while, so that hints for it grow old there; then its disk is lost, and
    /// they come while it rebuilds.
    fn part_then_wipe(&mut self, node: usize, for_us: u64) {
        let other = self.other_than(node);
        let wiped_us = self.nemesis.rng.span(100_000, 5_000_000);
        let after_us = self.nemesis.rng.span(1_000, 1_000_000);
        self.cut_links(vec![(node, other), (other, node)], wiped_us + for_us + after_us);
        self.ends_after(wiped_us, Ends::Apart { node, for_us });
    }

    /// A copy of the disk is made now, and takes its place later on. With it another node may lose its disk: then the
    /// two copy from each other, and one of them shows what the others have deleted and forgotten since.
    fn copy_disk(&mut self, node: usize, for_us: u64) {
        let later_us = self.nemesis.rng.between(200_000, 3_000_000);
        let wiped = if self.nemesis.rng.chance(7_000) { Some(self.other_owner(node)) } else { None };
        let copy = Box::new(self.nodes[node].disk.image());
        self.ends_after(later_us, Ends::Copied { node, copy, wiped, for_us });
    }

    fn restore(&mut self, node: usize, copy: &Image, wiped: Option<usize>, for_us: u64) -> Result<(), Violation> {
        if !self.may_lose(node) {
            return Ok(());
        }
        self.die_for(node, Death::Machine, for_us)?;
        self.replace_disk(node, Some(copy))?;
        self.trace.fault(Fault::Restore);
        match wiped.filter(|_| !self.options.mask.off(Fault::Wipe)) {
            Some(other) => {
                let later_us = self.nemesis.rng.span(10_000, 1_000_000);
                if self.nemesis.rng.chance(7_000) {
                    // None but the other one reaches it: what it copies from here has not been set right yet.
                    let count = self.nodes.len();
                    let rest = (0..count).filter(|third| *third != node && *third != other);
                    let cuts = rest.flat_map(|third| [(node, third), (third, node)]).collect();
                    let after_us = self.nemesis.rng.span(10_000, 3_000_000);
                    self.cut_links(cuts, for_us + later_us + after_us);
                }
                self.wipe(other, for_us + later_us)
            }
            None => Ok(()),
        }
    }

    fn flip(&mut self, node: usize) -> Result<(), Violation> {
        if self.may_lose(node) {
            let table = *self.nemesis.rng.pick(&[Table::Objects, Table::Log]);
            self.nodes[node].disk.damage(table, &mut self.nemesis.rng);
        }
        Ok(())
    }

    fn other_than(&mut self, node: usize) -> usize {
        let count = self.nodes.len() as u64;
        (node + 1 + self.nemesis.rng.below(count - 1) as usize) % count as usize
    }

    /// One that owns a partition together with a node.
    fn other_owner(&mut self, node: usize) -> usize {
        let id = self.nodes[node].id;
        let lists = self.layout.partitions().filter(|(_, list)| list.is_owner(id));
        let mut others: Vec<NodeId> = lists.flat_map(|(_, list)| list.owners().iter().copied()).collect();
        others.sort_unstable();
        others.dedup();
        others.retain(|other| *other != id);
        match others.is_empty() {
            true => self.other_than(node),
            false => usize::from(self.nemesis.rng.pick(&others).0) - 1,
        }
    }

    fn partition(&mut self, fault: Fault, node: usize, for_us: u64) {
        let count = self.nodes.len();
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b);
        let mut order: Vec<usize> = (0..count).collect();
        self.nemesis.rng.shuffle(&mut order);
        let half = count / 2;
        let left = |n: usize| order[..half].contains(&n);
        let middle = order[half];
        let cuts: Vec<(usize, usize)> = match fault {
            Fault::OneWay => vec![(node, self.other_than(node))],
            Fault::Isolate => pairs.filter(|(a, b)| *a == node || *b == node).collect(),
            Fault::Bridge => pairs.filter(|(a, b)| left(*a) != left(*b) && *a != middle && *b != middle).collect(),
            _ => pairs.filter(|(a, b)| left(*a) != left(*b)).collect(),
        };
        self.cut_links(cuts, for_us);
    }

    fn cut_links(&mut self, cuts: Vec<(usize, usize)>, for_us: u64) {
        for (from, to) in &cuts {
            self.network.cut(self.now_us, *from, *to);
            self.links_of_cut(*from, *to);
        }
        self.trace.say(self.now_us, None, || {
            let each: Vec<_> = cuts.iter().map(|(from, to)| format!("{} to {}", from + 1, to + 1)).collect();
            format!("a cut: nothing gets through from node {}, {} ms", each.join(", "), for_us / 1_000)
        });
        self.ends_after(for_us, Ends::Cuts(cuts));
    }

    fn ends_after(&mut self, us: u64, ends: Ends) {
        let number = self.nemesis.ends.len();
        self.nemesis.ends.push(Some(ends));
        self.heap.push(self.now_us + us, Happening::FaultOver(number));
    }

    pub fn fault_over(&mut self, number: usize) -> Result<(), Violation> {
        match self.nemesis.ends[number].take() {
            Some(Ends::Cuts(cuts)) => {
                cuts.into_iter().for_each(|(from, to)| self.network.mend(from, to));
                Ok(())
            }
            Some(Ends::Reserve(node)) => self.tell_all(node, &Event::DiskReserve { reached: false }),
            Some(Ends::Shutdown { node, incarnation }) if self.nodes[node].incarnation == incarnation => {
                self.die(node, Death::Process)
            }
            Some(Ends::Copied { node, copy, wiped, for_us }) if !self.nemesis.over => {
                self.restore(node, &copy, wiped, for_us)
            }
            Some(Ends::Apart { node, for_us }) if !self.nemesis.over => self.wipe(node, for_us),
            Some(Ends::Shutdown { .. } | Ends::Copied { .. } | Ends::Apart { .. }) | None => Ok(()),
        }
    }

    /// From now on nothing bad happens any more. Nodes that are paused go on when their time has come.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.nemesis.over = true;
        self.trace.say(self.now_us, None, || "the faults are over".to_string());
        for number in 0..self.nemesis.ends.len() {
            self.fault_over(number)?;
        }
        self.network.calm();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.mend();
            self.nodes[node].doomed = None;
            self.nodes[node].slow_until_us = 0;
            self.nodes[node].clock.set_right(self.now_us);
            if !self.nodes[node].running {
                let incarnation = self.nodes[node].incarnation;
                self.heap.push(self.now_us + 1, Happening::Start { node, incarnation });
            }
        }
        let links: Vec<_> = self.network.each_link().collect();
        links.into_iter().for_each(|link| self.look_at(link, self.now_us + 1_000));
        Ok(())
    }
}

/// What happened to a node, for the story; none if something else in it says so.
fn in_words(fault: Fault, id: NodeId, ms: u64) -> Option<String> {
    let text = match fault {
        Fault::Crash => format!("the process of {id} is to die"),
        Fault::Power => format!("the power of {id} is to fail"),
        Fault::Blackout => "the power of all nodes fails".to_string(),
        Fault::Shutdown => format!("{id} is asked to stop"),
        Fault::Pause => format!("{id} is paused for {ms} ms"),
        Fault::Eio => format!("the next fsync of {id} fails"),
        Fault::Full => format!("there is no room on the disk of {id}"),
        Fault::SlowDisk => format!("the disk of {id} is slow for {ms} ms"),
        Fault::Reserve => format!("the disk of {id} is below its reserve for {ms} ms"),
        Fault::BitFlip => format!("a block of the disk of {id} is damaged"),
        Fault::Wipe
        | Fault::Restore
        | Fault::Step
        | Fault::Break
        | Fault::OneWay
        | Fault::Halves
        | Fault::Isolate
        | Fault::Bridge
        | Fault::Loss
        | Fault::Repeat
        | Fault::Delay
        | Fault::Damage
        | Fault::Drift
        | Fault::Gone
        | Fault::Cancel
        | Fault::Late => return None,
    };
    Some(text)
}
