//! A run: faults and work, then peace, then the reckoning.

use super::faults::Fault;
use super::options::{Asked, Options};
use super::trace::Figures;
use super::world::{Happening, World};
use crate::checks::{Property, Violation};

/// In virtual time: for the work.
const WORK_MAX_US: u64 = 600_000_000;
/// For everything to be well again.
const HEALING_MAX_US: u64 = 120_000_000;
/// For the last reads.
const FINALE_MAX_US: u64 = 60_000_000;
/// How often it is asked whether all is well.
const LOOK_EVERY_US: u64 = 500_000;
/// Keys that are read once more at the end.
const FINALE_KEYS_MAX: usize = 100;
/// Things that may happen in a run.
const EVENTS_MAX: u64 = 20_000_000;

/// How a run ended.
pub struct Report {
    pub options: Options,
    pub hash: u64,
    pub figures: Figures,
    pub violation: Option<Violation>,
    /// If one was asked for: of the key that a promise was broken for, or of everything.
    pub story: Vec<String>,
}

/// How much of the story is told.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub enum Telling {
    #[default]
    Nothing,
    /// If a promise is broken, what happened to the key and to the world.
    OfFailure,
    Everything,
}

/// Runs the world of a seed to its end, or to the first promise that is broken.
pub fn run(asked: &Asked, telling: Telling) -> Report {
    let mut world = World::new(asked, telling != Telling::Nothing);
    let violation = world.live().err();
    world.finish();
    let of = match telling {
        Telling::Everything => None,
        Telling::Nothing | Telling::OfFailure => violation.as_ref().and_then(|violation| violation.key),
    };
    let title = of.map(|key| world.title(key));
    let story = title.into_iter().chain(world.trace.story(of)).collect();
    let mut figures = world.trace.figures.clone();
    figures.virtual_us = world.now_us;
    world.count_network(&mut figures);
    Report { hash: world.trace.hash(), options: world.options, figures, violation, story }
}

impl World {
    fn live(&mut self) -> Result<(), Violation> {
        self.work()?;
        self.heal()?;
        self.recover()?;
        self.last_reads()?;
        self.reckon()
    }

    /// Until every client has done its share.
    fn work(&mut self) -> Result<(), Violation> {
        while !self.work_is_done() {
            if self.now_us > WORK_MAX_US || self.trace.figures.events > EVENTS_MAX {
                return Err(self.late("the clients did not get their work done"));
            }
            self.step()?;
        }
        Ok(())
    }

    fn work_is_done(&self) -> bool {
        self.trace.figures.operations >= self.options.ops
            && self.load.clients.iter().all(|client| client.waiting.is_none() && client.again.is_none())
    }

    /// Until all owners hold the same, and what is settled is forgotten.
    fn recover(&mut self) -> Result<(), Violation> {
        let awake_us = self.nodes.iter().map(|node| node.paused_until_us).max().unwrap_or(0);
        self.live_for(awake_us.saturating_sub(self.now_us))?;
        let until = self.now_us + HEALING_MAX_US;
        loop {
            self.live_for(LOOK_EVERY_US)?;
            let verdict = self.checks.check_converged(&self.nodes, &self.keys, &self.walls);
            match verdict {
                Ok(()) => return self.whole(),
                Err(violation) if self.now_us > until => return Err(violation),
                Err(_) => {}
            }
        }
    }

    /// What each node holds keeps C1; what was refused was not written.
    fn whole(&mut self) -> Result<(), Violation> {
        for node in &self.nodes {
            for key in 0..self.keys.len() {
                self.checks.check_key(node, key, &self.keys, &self.walls)?;
            }
        }
        self.checks.check_not_applied(&self.load)
    }

    /// Every key is read from all of its owners once more, by whoever is free.
    fn last_reads(&mut self) -> Result<(), Violation> {
        let mut keys: Vec<u32> = (0..self.keys.len()).collect();
        self.load.rng.shuffle(&mut keys);
        keys.truncate(FINALE_KEYS_MAX);
        self.load.finale = keys;
        for client in 0..self.load.clients.len() {
            self.load.clients[client].turn += 1;
            let turn = self.load.clients[client].turn;
            self.heap.push(self.now_us + 1 + client as u64, Happening::ClientTurn { client, turn });
        }
        self.live_for(LOOK_EVERY_US)?;
        let until = self.now_us + FINALE_MAX_US;
        while !(self.load.finale.is_empty() && self.work_is_done()) {
            if self.now_us > until {
                return Err(self.late("the last reads were not done"));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Nothing is left over.
    fn reckon(&mut self) -> Result<(), Violation> {
        // Longer than any deadline.
        self.live_for(6_000_000)?;
        for node in &self.nodes {
            if let Some(shard) = node.shards.iter().find(|shard| !shard.kernel.idle()) {
                let text = format!("{} still has {} operations under way", node.id, shard.kernel.under_way());
                return Err(Violation::new(Property::Liveness, None, text));
            }
        }
        let owed = self.load.pending.iter().find(|(_, p)| p.replied_wall_ms.is_none() && !p.cancelled);
        if let Some((request, pending)) = owed {
            let key = self.load.op(pending.op).key;
            let text = format!("request {request} of op {} was never answered", pending.op);
            return Err(Violation::new(Property::AnsweredOnce, Some(key), text));
        }
        self.recover() // What expired just now may not be erased everywhere at this very moment.
    }

    fn live_for(&mut self, us: u64) -> Result<(), Violation> {
        let until = self.now_us + us;
        while self.now_us < until {
            self.step()?;
            if self.trace.figures.events > EVENTS_MAX {
                return Err(self.late("too much happens"));
            }
        }
        Ok(())
    }

    fn late(&self, what: &str) -> Violation {
        Violation::new(Property::Liveness, None, format!("{what} in {} virtual seconds", self.now_us / 1_000_000))
    }

    /// Takes the final state into the hash.
    fn finish(&mut self) {
        let (now, trace) = (self.now_us, &mut self.trace);
        for (index, node) in self.nodes.iter().enumerate() {
            trace.note(now, index, u64::from(node.incarnation), &node.actor.0.to_be_bytes());
            node.disk.each_row(|table, key, value| {
                trace.note(0, index, table as u64, key);
                trace.note(0, index, table as u64, value);
            });
        }
    }

    fn count_network(&self, figures: &mut Figures) {
        let network = &self.network.figures;
        let weather = [
            (Fault::Loss, network.lost),
            (Fault::Repeat, network.repeated),
            (Fault::Delay, network.late),
            (Fault::Damage, network.damaged),
            (Fault::Drift, u64::from(self.options.drift_ppm_max > 0 || self.options.skew_ms_max > 0)),
        ];
        for (fault, count) in weather {
            *figures.faults.entry(fault).or_default() += count;
        }
        figures.frames = network.frames;
    }
}
