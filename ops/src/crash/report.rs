//! What the rounds showed.

use super::load::Found;
use super::{Mode, Settings};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// All rounds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    mode: Mode,
    wanted: u32,
    pub rounds: Vec<Round>,
    /// All that was acknowledged in any round, read once more after the last.
    pub last_check: Option<Found>,
    /// The folder, if it was kept to be looked at.
    pub kept: Option<PathBuf>,
}

/// One round: what was found afterwards, by what the writer had been told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Round {
    pub number: u32,
    /// All of these must be there.
    pub acknowledged: Found,
    /// These may be there or not, but if they are, then with the bytes that were written.
    pub unknown: Found,
    /// None of these may be there.
    pub refused: Found,
    /// From the cut until all nodes were ready again.
    pub back: Duration,
}

impl Report {
    pub fn new(settings: &Settings) -> Self {
        Self { mode: settings.mode, wanted: settings.rounds, rounds: Vec::new(), last_check: None, kept: None }
    }

    /// Every round was run and had something acknowledged, and all of it was there, byte for byte, then and at the
    /// end.
    pub fn passed(&self) -> bool {
        self.rounds.len() == self.wanted as usize
            && self.rounds.iter().all(Round::passed)
            && self.last_check.as_ref().is_some_and(Found::complete)
    }
}

impl Round {
    fn passed(&self) -> bool {
        let something = self.acknowledged.all() > 0;
        let nothing_refused_is_there = self.refused.missing == self.refused.all();
        something && self.acknowledged.complete() && self.unknown.different == 0 && nothing_refused_is_there
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, acknowledged, unknown, refused, back } = self;
        write!(f, "round {number}: {} acknowledged: {acknowledged}; ", acknowledged.all())?;
        if unknown.all() > 0 {
            write!(f, "{} unknown: {unknown}; ", unknown.all())?;
        }
        if refused.all() > 0 {
            write!(f, "{} refused: {} of them there; ", refused.all(), refused.all() - refused.missing)?;
        }
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        write!(f, "ready again after {:.1} s; {verdict}", back.as_secs_f64())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.mode {
            Mode::Kill => "SIGKILL to all nodes",
            Mode::Power => "power cut",
        };
        let failed = self.rounds.iter().filter(|round| !round.passed()).count();
        let acknowledged: usize = self.rounds.iter().map(|round| round.acknowledged.all()).sum();
        writeln!(
            f,
            "{} rounds of {what}: {acknowledged} records acknowledged, {failed} rounds failed",
            self.rounds.len()
        )?;
        if let Some(found) = &self.last_check {
            writeln!(f, "all of them read once more at the end: {found}")?;
        }
        if let Some(folder) = &self.kept {
            writeln!(f, "the folder is kept: {}", folder.display())?;
        }
        write!(f, "{}", if self.passed() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(same: usize, missing: usize, different: usize) -> Found {
        Found { same, missing, different }
    }

    fn good() -> Round {
        let back = Duration::from_secs(1);
        Round { number: 1, acknowledged: found(90, 0, 0), unknown: found(3, 4, 0), refused: found(0, 5, 0), back }
    }

    #[test]
    fn a_round_passes_only_if_every_answer_was_true() {
        assert!(good().passed(), "unknown ones may be there or not");
        assert!(!Round { acknowledged: found(89, 1, 0), ..good() }.passed(), "acknowledged and lost");
        assert!(!Round { acknowledged: found(89, 0, 1), ..good() }.passed(), "acknowledged and changed");
        assert!(!Round { acknowledged: found(0, 0, 0), ..good() }.passed(), "nothing was tried");
        assert!(!Round { unknown: found(3, 4, 1), ..good() }.passed(), "bytes that nobody wrote");
        assert!(!Round { refused: found(1, 4, 0), ..good() }.passed(), "refused and there");
    }

    #[test]
    fn a_report_passes_only_with_all_its_rounds_and_the_last_check() {
        let report = |rounds: &[Round], last_check| Report {
            mode: Mode::Kill,
            wanted: 2,
            rounds: rounds.to_vec(),
            last_check,
            kept: None,
        };
        assert!(report(&[good(), good()], Some(found(180, 0, 0))).passed());
        assert!(!report(&[good()], Some(found(90, 0, 0))).passed());
        assert!(!report(&[good(), good()], Some(found(179, 1, 0))).passed());
        assert!(!report(&[good(), good()], None).passed());
    }
}
