//! The network: links that stand or break, directions that are cut, and how long a frame takes.

use super::options::{Options, stream};
use super::rng::Rng;
use bytes::Bytes;

/// A connection that one node made to another: requests go one way, replies come back the other. Nodes by position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LinkId {
    pub dialler: usize,
    pub target: usize,
}

impl LinkId {
    /// Who sends, who receives.
    pub fn ends(self, reply: bool) -> (usize, usize) {
        if reply { (self.target, self.dialler) } else { (self.dialler, self.target) }
    }
}

#[derive(Clone, Default, Debug)]
pub struct Link {
    pub up: bool,
    /// Grows each time it stands or breaks: what was sent before arrives no more.
    pub generation: u32,
    /// Which run of the target it leads to.
    pub incarnation: u32,
    /// When it is looked at next.
    pub check_at_us: Option<u64>,
    /// When the last frame arrives, of requests and of replies.
    last_us: [u64; 2],
}

/// A frame under way.
#[derive(Clone, Debug)]
pub struct Flight {
    pub link: LinkId,
    pub generation: u32,
    pub reply: bool,
    pub bytes: Bytes,
}

pub struct Network {
    nodes: usize,
    links: Vec<Link>,
    /// Per direction, how many faults cut it, and since when.
    cuts: Vec<(u32, u64)>,
    rng: Rng,
    ordered: bool,
    latency_us: (u64, u64),
    spikes: u64,
    lost: u64,
    repeated: u64,
    damaged: u64,
    pub figures: Figures,
}

#[derive(Clone, Default, Debug)]
pub struct Figures {
    pub frames: u64,
    pub lost: u64,
    pub repeated: u64,
    pub late: u64,
    pub damaged: u64,
}

impl Network {
    pub fn new(options: &Options) -> Self {
        let nodes = usize::from(options.nodes);
        Self {
            nodes,
            links: vec![Link::default(); nodes * nodes],
            cuts: vec![(0, 0); nodes * nodes],
            rng: Rng::new(options.seed, stream::NETWORK),
            ordered: options.ordered,
            latency_us: options.latency_us,
            spikes: options.spikes,
            lost: options.lost,
            repeated: options.repeated,
            damaged: options.damaged,
            figures: Figures::default(),
        }
    }

    /// Good weather from now on.
    pub fn calm(&mut self) {
        (self.ordered, self.spikes, self.lost, self.repeated, self.damaged) = (true, 0, 0, 0, 0);
        self.cuts.fill((0, 0));
    }

    pub fn ordered(&self) -> bool {
        self.ordered
    }

    pub fn link(&self, id: LinkId) -> &Link {
        &self.links[id.dialler * self.nodes + id.target]
    }

    pub fn link_mut(&mut self, id: LinkId) -> &mut Link {
        &mut self.links[id.dialler * self.nodes + id.target]
    }

    pub fn each_link(&self) -> impl Iterator<Item = LinkId> + use<> {
        let nodes = self.nodes;
        let pairs = (0..nodes).flat_map(move |dialler| (0..nodes).map(move |target| LinkId { dialler, target }));
        pairs.filter(|id| id.dialler != id.target)
    }

    pub fn cut(&mut self, now_us: u64, from: usize, to: usize) {
        let (count, since) = &mut self.cuts[from * self.nodes + to];
        if *count == 0 {
            *since = now_us;
        }
        *count += 1;
    }

    pub fn mend(&mut self, from: usize, to: usize) {
        let (count, _) = &mut self.cuts[from * self.nodes + to];
        *count = count.saturating_sub(1);
    }

    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from * self.nodes + to].0 > 0
    }

    /// Since when a connection between two nodes cannot live: it needs both directions.
    pub fn dead_since_us(&self, id: LinkId) -> Option<u64> {
        let directions = [(id.dialler, id.target), (id.target, id.dialler)];
        let cut = directions.into_iter().map(|(a, b)| self.cuts[a * self.nodes + b]).filter(|(count, _)| *count > 0);
        cut.map(|(_, since)| since).min()
    }

    /// A frame is sent: when it arrives, perhaps never, perhaps twice.
    pub fn send(&mut self, now_us: u64, link: LinkId, reply: bool, may_repeat: bool) -> [Option<u64>; 2] {
        self.figures.frames += 1;
        if !self.ordered && self.rng.chance(self.lost) {
            self.figures.lost += 1;
            return [None, None];
        }
        let mut at = now_us + self.delay_us();
        if self.ordered {
            let last = &mut self.link_mut(link).last_us[usize::from(reply)];
            at = at.max(*last + 1);
            *last = at;
        }
        let twice = !self.ordered && may_repeat && self.rng.chance(self.repeated);
        let again = twice.then(|| now_us + self.delay_us() * 3);
        self.figures.repeated += u64::from(twice);
        [Some(at), again]
    }

    /// Whether a frame arrives damaged.
    pub fn damages(&mut self) -> bool {
        let damages = self.damaged > 0 && self.rng.below(20_000) < self.damaged;
        self.figures.damaged += u64::from(damages);
        damages
    }

    pub fn delay_us(&mut self) -> u64 {
        let (least, most) = self.latency_us;
        let usual = self.rng.between(least, most);
        if self.spikes > 0 && self.rng.chance(self.spikes) {
            self.figures.late += 1;
            return usual + self.rng.span(1_000, 400_000);
        }
        usual
    }

    /// Of a few microseconds to a few milliseconds: how long an operating system takes to notice things.
    pub fn jitter_us(&mut self, most: u64) -> u64 {
        self.rng.between(1, most)
    }
}
