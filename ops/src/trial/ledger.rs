//! What the only writer of a key knows of it, and what a reader may therefore be shown.

use crate::sequence::Sequence;
use bytes::Bytes;
use quorate_client::{ContextToken, Dot, Receipt, Sibling};
use quorate_ring::wire::client::Standing;

const VALUE_BYTES_MAX: u64 = 1024;
/// The number of the version stands at the beginning of its value.
const NUMBER_BYTES: usize = 8;

/// What became of one write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Acknowledged, under this dot.
    Applied(Dot),
    /// "Nothing was written anywhere."
    NotApplied,
    /// "It may take effect, or may yet."
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Version {
    delete: bool,
    outcome: Outcome,
}

/// One key and all that was ever written to it, by one writer, one write after the other. Each write states that it
/// supersedes what the last acknowledged one had seen.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub key: Bytes,
    seed: u64,
    versions: Vec<Version>,
    last: Option<usize>,
    /// What the last acknowledged write had seen.
    context: Option<ContextToken>,
    /// Owners that acknowledged it.
    owners: usize,
}

/// Something that a reader must not be shown, or must be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Breach {
    /// Acknowledged, never superseded, and not there.
    Lost,
    /// Superseded or deleted, and there again.
    CameBack,
    /// "Nothing was written anywhere", and it is there.
    Refused,
    /// Bytes that nobody wrote under this key.
    Foreign,
}

impl Breach {
    pub fn text(self) -> &'static str {
        match self {
            Breach::Lost => "acknowledged, and not there",
            Breach::CameBack => "superseded or deleted, and there again",
            Breach::Refused => "refused as not applied, and there",
            Breach::Foreign => "bytes that nobody wrote",
        }
    }
}

/// What one answer showed.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Judgement {
    pub breaches: Vec<Breach>,
    /// Values of a write that was tried again at another coordinator: the first try had taken effect as well, under
    /// another dot, and what followed had not seen that one. Both are kept, as concurrent writes are.
    pub twins: u32,
}

impl Ledger {
    pub fn new(seed: u64, key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), seed, versions: Vec::new(), last: None, context: None, owners: 0 }
    }

    /// The bytes of the version that is written next.
    pub fn next_value(&self) -> Bytes {
        self.value(self.versions.len())
    }

    /// What the next write has seen; none before anything was acknowledged.
    pub fn context(&self) -> Option<&ContextToken> {
        self.context.as_ref()
    }

    pub fn applied(&mut self, delete: bool, receipt: &Receipt) {
        self.last = Some(self.versions.len());
        self.owners = receipt.acks.iter().filter(|ack| ack.standing == Standing::Owner).count();
        self.context = Some(receipt.context.clone());
        self.versions.push(Version { delete, outcome: Outcome::Applied(receipt.dot) });
    }

    pub fn not_applied(&mut self, delete: bool) {
        self.versions.push(Version { delete, outcome: Outcome::NotApplied });
    }

    pub fn unknown(&mut self, delete: bool) {
        self.versions.push(Version { delete, outcome: Outcome::Unknown });
    }

    /// Whether `n` owners are known to hold the last acknowledged write, and nothing after it is in doubt.
    pub fn held_by(&self, n: usize) -> bool {
        self.last.is_some() && self.owners >= n && !self.in_doubt()
    }

    /// Whether a write after the last acknowledged one may have taken effect.
    fn in_doubt(&self) -> bool {
        let after = self.last.map_or(0, |last| last + 1);
        self.versions[after..].iter().any(|version| version.outcome == Outcome::Unknown)
    }

    /// Judges an answer that began after everything that is written down here had ended.
    pub fn judge(&self, shown: &[Sibling]) -> Judgement {
        let mut judgement = Judgement::default();
        let mut last_is_shown = false;
        for sibling in shown {
            let number = self.number(&sibling.value);
            last_is_shown |= number.is_some() && number == self.last;
            match number.map(|number| (number, self.versions[number].outcome)) {
                None => judgement.breaches.push(Breach::Foreign),
                Some((_, Outcome::NotApplied)) => judgement.breaches.push(Breach::Refused),
                Some((_, Outcome::Unknown)) => {}
                Some((number, Outcome::Applied(_))) if Some(number) == self.last => {}
                Some((_, Outcome::Applied(dot))) if dot != sibling.dot => judgement.twins += 1,
                Some((_, Outcome::Applied(_))) => judgement.breaches.push(Breach::CameBack),
            }
        }
        let expected = self.last.is_some_and(|last| !self.versions[last].delete);
        if expected && !last_is_shown && !self.in_doubt() {
            judgement.breaches.push(Breach::Lost);
        }
        judgement
    }

    /// Which version these bytes are, all of them.
    fn number(&self, value: &Bytes) -> Option<usize> {
        let number = value.get(..NUMBER_BYTES)?.try_into().ok().map(u64::from_be_bytes)?;
        let number = usize::try_from(number).ok().filter(|number| *number < self.versions.len())?;
        (!self.versions[number].delete && self.value(number) == *value).then_some(number)
    }

    fn value(&self, number: usize) -> Bytes {
        let seed = self.key.iter().fold(self.seed, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        let mut sequence = Sequence::new(seed ^ ((number as u64) << 32));
        let length = NUMBER_BYTES + (sequence.draw() % VALUE_BYTES_MAX) as usize;
        let drawn = std::iter::repeat_with(|| sequence.draw().to_le_bytes()).flatten();
        (number as u64).to_be_bytes().into_iter().chain(drawn).take(length).collect()
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
