//! What is left of a run: a hash over all that happened, a story for people, and figures.

use super::faults::Fault;
use super::rare::Rare;
use std::collections::BTreeMap;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a line of the story is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// Nodes, links, faults: part of every story.
    World,
    Key(u32),
    /// What nodes say to each other of no key in particular: part of the whole story only.
    Traffic,
}

struct Line {
    at_us: u64,
    about: About,
    text: String,
}

#[derive(Default)]
pub struct Trace {
    hash: u64,
    story: Option<Vec<Line>>,
    /// If a story is told: by asker, asked and request, the key of what nodes ask each other.
    pub asked: BTreeMap<(usize, usize, u64), u32>,
    pub figures: Figures,
}

/// Things worth counting.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    pub events: u64,
    pub operations: u64,
    /// Messages between nodes that were sent.
    pub frames: u64,
    pub faults: BTreeMap<Fault, u64>,
    pub rare: BTreeMap<Rare, u64>,
    pub virtual_us: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.events += other.events;
        self.operations += other.operations;
        self.frames += other.frames;
        self.virtual_us += other.virtual_us;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (rare, count) in &other.rare {
            *self.rare.entry(*rare).or_default() += count;
        }
    }

    pub fn hours(&self) -> f64 {
        self.virtual_us as f64 / 3.6e9
    }

    /// How often each kind of fault happened, in one line.
    pub fn faults_by_kind(&self) -> String {
        let count = |fault: &Fault| self.faults.get(fault).copied().unwrap_or(0);
        let each: Vec<_> = Fault::ALL.iter().map(|fault| format!("{} {}", fault.name(), count(fault))).collect();
        each.join(", ")
    }

    /// Rare events that did not happen.
    pub fn never(&self) -> Vec<&'static str> {
        let seen = |rare: &&Rare| self.rare.get(rare).is_some_and(|count| *count > 0);
        Rare::ALL.iter().filter(|rare| !seen(rare)).map(|rare| rare.name()).collect()
    }
}

impl Trace {
    pub fn new(story: bool) -> Self {
        Self { story: story.then(Vec::new), ..Self::default() }
    }

    /// Takes one more thing into the hash.
    pub fn note(&mut self, at_us: u64, node: usize, kind: u64, bytes: &[u8]) {
        let head = at_us ^ (node as u64).rotate_left(56) ^ kind.rotate_left(48);
        self.hash = xxh3_64_with_seed(bytes, self.hash.rotate_left(5) ^ head);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn tells(&self) -> bool {
        self.story.is_some()
    }

    /// Adds a line to the story, if one is told: about a key, or about the world.
    pub fn say(&mut self, at_us: u64, key: Option<u32>, text: impl FnOnce() -> String) {
        self.tell(at_us, key.map_or(About::World, About::Key), text);
    }

    pub fn tell(&mut self, at_us: u64, about: About, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.story {
            lines.push(Line { at_us, about, text: text() });
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.figures.faults.entry(fault).or_default() += 1;
    }

    pub fn rare(&mut self, what: Rare) {
        *self.figures.rare.entry(what).or_default() += 1;
    }

    /// The story: all of it, or what happened to one key and to the world.
    pub fn story(&self, of: Option<u32>) -> impl Iterator<Item = String> + '_ {
        let lines = self.story.iter().flatten();
        let belongs = move |line: &&Line| match (of, line.about) {
            (None, _) | (Some(_), About::World) => true,
            (Some(key), About::Key(about)) => key == about,
            (Some(_), About::Traffic) => false,
        };
        lines.filter(belongs).map(|line| format!("{:>11.6}  {}", line.at_us as f64 / 1e6, line.text))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} client operations, {} messages between nodes, {} events, {:.3} simulated hours",
            self.operations,
            self.frames,
            self.events,
            self.hours()
        )?;
        writeln!(f, "faults: {}", self.faults_by_kind())?;
        let rare: Vec<_> = self.rare.iter().map(|(rare, count)| format!("{} {count}", rare.name())).collect();
        writeln!(f, "rare events: {}", rare.join(", "))?;
        let never = self.never();
        write!(
            f,
            "rare events that never happened: {}",
            if never.is_empty() { "none".into() } else { never.join(", ") }
        )
    }
}
