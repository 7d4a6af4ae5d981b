//! What is done to which link, in the words of the fault verbs.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

/// Faults that hold now. Nodes are named.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rules {
    /// (from, to): packets of the first do not reach the second.
    cuts: BTreeSet<(String, String)>,
    /// Milliseconds by which every packet that a node sends to its peers, or gets from them, is late.
    slow: BTreeMap<String, u64>,
}

/// What was typed names no fault. The rules are as they were.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RulesError {
    #[error("there is no node {name:?} in this lab; it has {}", .known.join(", "))]
    UnknownNode { name: String, known: Vec<String> },
    #[error("a partition has two groups at least, as in `quorate-lab partition n1,n2 n3,n4,n5`")]
    OneGroup,
    #[error("{0} cannot be cut off from itself")]
    Itself(String),
    #[error("{0:?} is no time; give one such as 100ms or 2s, up to 60s, or off")]
    Time(String),
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.slow.is_empty()
    }

    /// Divides the cluster: two nodes that are named and have no group in common do not hear each other. A node may be
    /// in several groups, and one that is not named hears all. Earlier cuts are over.
    ///
    /// Groups are as typed: names with commas, apart by blanks or `|`.
    pub fn partition(&mut self, typed: &[String], known: &[String]) -> Result<(), RulesError> {
        let text = typed.join("|");
        let names = |group: &str| -> Vec<String> {
            let split = group.split([',', ' ']).map(str::trim).filter(|name| !name.is_empty());
            split.map(str::to_string).collect()
        };
        let groups: Vec<Vec<String>> = text.split('|').map(names).filter(|group| !group.is_empty()).collect();
        groups.iter().flatten().try_for_each(|name| check(name, known))?;
        if groups.len() < 2 {
            return Err(RulesError::OneGroup);
        }
        let named: BTreeSet<&String> = groups.iter().flatten().collect();
        let together = |a: &String, b: &String| groups.iter().any(|group| group.contains(a) && group.contains(b));
        let pairs = named.iter().flat_map(|a| named.iter().map(move |b| (*a, *b)));
        self.cuts = pairs.filter(|(a, b)| a != b && !together(a, b)).map(|(a, b)| (a.clone(), b.clone())).collect();
        Ok(())
    }

    /// Packets of `from` do not reach `to` any more; those of `to` still reach `from`.
    pub fn cut(&mut self, from: &str, to: &str, known: &[String]) -> Result<(), RulesError> {
        check(from, known)?;
        check(to, known)?;
        if from == to {
            return Err(RulesError::Itself(from.to_string()));
        }
        self.cuts.insert((from.to_string(), to.to_string()));
        Ok(())
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&mut self, node: &str, known: &[String]) -> Result<(), RulesError> {
        check(node, known)?;
        for other in known.iter().filter(|other| *other != node) {
            self.cut(node, other, known)?;
            self.cut(other, node, known)?;
        }
        Ok(())
    }

    /// Makes every packet that a node sends or gets late; with no time at all it is as fast as it can be.
    pub fn slow(&mut self, node: &str, late: Duration, known: &[String]) -> Result<(), RulesError> {
        check(node, known)?;
        match late.as_millis() as u64 {
            0 => self.slow.remove(node),
            ms => self.slow.insert(node.to_string(), ms),
        };
        Ok(())
    }

    /// Nothing is cut, nothing is late.
    pub fn heal(&mut self) {
        *self = Self::default();
    }

    pub fn is_cut(&self, from: &str, to: &str) -> bool {
        self.cuts.iter().any(|(a, b)| a == from && b == to)
    }

    /// How late packets on this link are.
    pub fn late(&self, from: &str, to: &str) -> Duration {
        let of = |node| self.slow.get(node).copied().unwrap_or(0);
        Duration::from_millis(of(from) + of(to))
    }
}

fn check(name: &str, known: &[String]) -> Result<(), RulesError> {
    match known.iter().any(|other| other == name) {
        true => Ok(()),
        false => Err(RulesError::UnknownNode { name: name.to_string(), known: known.to_vec() }),
    }
}

/// `100ms`, `2s`, `off`.
pub fn parse_late(text: &str) -> Result<Duration, RulesError> {
    let wrong = || RulesError::Time(text.to_string());
    if text == "off" {
        return Ok(Duration::ZERO);
    }
    let (number, unit_ms) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1_000),
    };
    let ms = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).ok_or_else(wrong)?;
    if ms > 60_000 { Err(wrong()) } else { Ok(Duration::from_millis(ms)) }
}

/// A sentence for each fault.
impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sentences = Vec::new();
        let mut deaf: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (from, to) in &self.cuts {
            if !self.is_cut(to, from) {
                sentences.push(format!("{to} does not hear {from}"));
            } else if from < to {
                deaf.entry(from).or_default().push(to);
            }
        }
        sentences.extend(deaf.iter().map(|(node, others)| format!("{node} is cut off from {}", others.join(", "))));
        sentences.extend(self.slow.iter().map(|(node, ms)| format!("packets of {node} are {ms} ms late, each way")));
        if sentences.is_empty() {
            sentences.push("every link is whole".to_string());
        }
        f.write_str(&sentences.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        (1..=5).map(|number| format!("n{number}")).collect()
    }

    fn divided(typed: &[&str]) -> Rules {
        let mut rules = Rules::default();
        let typed: Vec<String> = typed.iter().map(|part| part.to_string()).collect();
        rules.partition(&typed, &known()).unwrap();
        rules
    }

    #[test]
    fn a_partition_however_it_is_typed() {
        let quoted = divided(&["n1,n2 | n3,n4,n5"]);
        assert_eq!(quoted, divided(&["n1,n2", "n3,n4,n5"]));
        assert_eq!(quoted, divided(&["n1,n2", "|", "n3,n4,n5"]));
        assert_eq!(quoted.cuts.len(), 12);
        assert!(quoted.is_cut("n1", "n3") && quoted.is_cut("n5", "n2") && !quoted.is_cut("n1", "n2"));
        assert_eq!(quoted.to_string(), "n1 is cut off from n3, n4, n5; n2 is cut off from n3, n4, n5");
    }

    #[test]
    fn majorities_that_overlap_share_a_node() {
        let rules = divided(&["n1,n2,n3", "n3,n4,n5"]);
        assert!(rules.is_cut("n1", "n4") && rules.is_cut("n5", "n2"));
        assert!(known().iter().all(|other| !rules.is_cut("n3", other) && !rules.is_cut(other, "n3")));
    }

    #[test]
    fn a_cut_is_one_way_and_healing_ends_all() {
        let mut rules = Rules::default();
        rules.cut("n1", "n2", &known()).unwrap();
        assert!(rules.is_cut("n1", "n2") && !rules.is_cut("n2", "n1"));
        assert_eq!(rules.to_string(), "n2 does not hear n1");
        rules.isolate("n3", &known()).unwrap();
        assert!(rules.is_cut("n3", "n1") && rules.is_cut("n5", "n3") && rules.is_cut("n1", "n2"));
        rules.slow("n4", Duration::from_millis(100), &known()).unwrap();
        assert_eq!(rules.late("n4", "n5"), Duration::from_millis(100));
        rules.slow("n5", Duration::from_millis(20), &known()).unwrap();
        assert_eq!(rules.late("n5", "n4"), Duration::from_millis(120));
        rules.heal();
        assert!(rules.is_empty());
        assert_eq!(rules.to_string(), "every link is whole");
    }

    #[test]
    fn what_names_no_fault_changes_nothing() {
        let mut rules = divided(&["n1", "n2"]);
        let before = rules.clone();
        assert_eq!(rules.partition(&["n1,n2".to_string()], &known()), Err(RulesError::OneGroup));
        let unknown = rules.partition(&["n1,n9".to_string(), "n2".to_string()], &known());
        assert!(unknown.unwrap_err().to_string().contains("it has n1, n2"));
        assert!(rules.cut("n1", "n1", &known()).is_err() && rules.isolate("n0", &known()).is_err());
        assert_eq!(rules, before);
        for wrong in ["", "ms", "12", "-1s", "61s", "fast"] {
            assert!(parse_late(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_late("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_late("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_late("off"), Ok(Duration::ZERO));
    }
}
