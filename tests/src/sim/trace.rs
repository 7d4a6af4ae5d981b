//! What is left of a run: a hash over all that happened, a story for people, and figures.

use super::faults::Fault;
use std::collections::BTreeMap;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A line of the story.
struct Line {
    at_us: u64,
    /// The key that it is about; none if it is about the world.
    key: Option<u32>,
    text: String,
}

#[derive(Default)]
pub struct Trace {
    hash: u64,
    story: Option<Vec<Line>>,
    pub figures: Figures,
}

/// Things worth counting.
#[derive(Clone, Default, Debug)]
pub struct Figures {
    pub events: u64,
    pub operations: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// Rare events, by what they are called.
    pub rare: BTreeMap<&'static str, u64>,
    pub virtual_us: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Figures) {
        self.events += other.events;
        self.operations += other.operations;
        self.virtual_us += other.virtual_us;
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &other.rare {
            *self.rare.entry(name).or_default() += count;
        }
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

    /// Adds a line to the story, if one is told.
    pub fn say(&mut self, at_us: u64, key: Option<u32>, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.story {
            lines.push(Line { at_us, key, text: text() });
        }
    }

    pub fn fault(&mut self, fault: Fault) {
        *self.figures.faults.entry(fault.name()).or_default() += 1;
    }

    pub fn rare(&mut self, what: &'static str) {
        *self.figures.rare.entry(what).or_default() += 1;
    }

    /// The story: all of it, or what happened to one key and to the world.
    pub fn story(&self, of: Option<u32>) -> impl Iterator<Item = String> + '_ {
        let lines = self.story.iter().flatten();
        let about = move |line: &&Line| of.is_none() || line.key.is_none() || line.key == of;
        lines.filter(about).map(|line| format!("{:>11.6}  {}", line.at_us as f64 / 1e6, line.text))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<&'static str, u64>| {
            let each: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
            each.join(", ")
        };
        writeln!(
            f,
            "{} client operations, {} events, {:.3} simulated hours",
            self.operations,
            self.events,
            self.virtual_us as f64 / 3.6e9
        )?;
        writeln!(f, "faults: {}", list(&self.faults))?;
        write!(f, "rare events: {}", list(&self.rare))
    }
}
