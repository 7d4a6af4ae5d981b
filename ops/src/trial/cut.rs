//! The cluster is cut in two, or in other ways.

use super::ledger::Ledger;
use super::load::{Load, Route, owners};
use super::{Common, Receipt, SETTLE_LIMIT, WARM};
use crate::relay::{Rules, RulesError};
use crate::sequence::Sequence;
use crate::stage::{Stage, StageError, note, progress};
use bytes::Bytes;
use quorate_client::{Client, ContextToken, Count, Dot, NodeId, ReadOptions, Supersede, Via, WriteOptions};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Keys that are written on both sides of a cut.
const PAIRS: usize = 50;
const STRICT: &str = "default";
const SLOPPY: &str = "sloppy";

/// A key that holds one value before a cut, and is written on both sides of it: both writers had seen that value.
struct Pair {
    key: String,
    /// What was acknowledged, by dot.
    written: Vec<(Dot, Bytes)>,
}

pub fn run(stage: &mut Stage<'_>, common: &Common, time: Duration, rounds: u32) -> Result<Receipt, StageError> {
    let mut receipt = Receipt::new("cut");
    let mut sequence = Sequence::new(common.seed);
    let loads = {
        let _inside = stage.threads.enter();
        let half = Common { rate: common.rate.div_ceil(2), ..common.clone() };
        let mut sloppy = half.mix(SLOPPY, Route::AnyOwner);
        sloppy.judged = false; // While links are cut, a sloppy quorum promises nothing to readers.
        [Load::start(&stage.client, &half.mix(STRICT, Route::AnyOwner)), Load::start(&stage.client, &sloppy)]
    };
    stage.pause(WARM, |_| {})?;
    let (mut pairs, mut refused, mut links_back) = (Vec::new(), 0, Duration::ZERO);
    for round in 1..=rounds {
        let kind = if round == 1 { 0 } else { sequence.draw() % 4 };
        let sides = shuffled(&stage.names, &mut sequence);
        // Ten seconds are eight to twelve, so that no two cuts are in step with anything.
        let time = if rounds == 1 { time } else { time.mul_f64(0.8 + (sequence.draw() % 400) as f64 / 1000.0) };
        let before = if kind == 0 { baseline(stage, round)? } else { Vec::new() };
        let account = stage.cluster.change_rules(|rules, known| cut(kind, &sides, rules, known))?;
        let wrong = || loads.iter().map(|load| load.shared.tally.breaches.load(Ordering::Relaxed)).sum::<u64>();
        note(&format!("cut {round} of {rounds} for {:.1} s: {}", time.as_secs_f64(), account.rules));
        let tell = |since: Duration| {
            progress(&format!("cut for {:.0} s; {} answers wrong so far", since.as_secs_f64(), wrong()))
        };
        // Both sides have noticed by then.
        let noticed = time.mul_f64(0.5);
        stage.pause(noticed, tell)?;
        let both = write_both(stage, &sides, before);
        refused += both.1;
        pairs.extend(both.0);
        stage.pause(time.saturating_sub(noticed), tell)?;
        stage.cluster.change_rules(|rules, _| {
            rules.heal();
            Ok(())
        })?;
        links_back = links_back.max(stage.wait_noticed(|_, _| false)?);
    }
    let [strict, sloppy] = loads;
    let (strict, sloppy) = stage.threads.block_on(async { (strict.stop().await, sloppy.stop().await) });
    let (findings, took) = stage.settle(true, SETTLE_LIMIT);
    stage.threads.block_on(async {
        strict.read_all().await;
        sloppy.read_all().await;
    });
    receipt.fact("cuts", rounds);
    receipt.fact("each for about seconds", time.as_secs());
    receipt.seconds("all links back, slowest, seconds", links_back);
    receipt.load("strict: ", &strict.shared, false);
    receipt.load("sloppy: ", &sloppy.shared, false);
    receipt.fact("keys written on both sides", pairs.len());
    receipt.fact("not on both, one side refused", refused);
    check_pairs(stage, &pairs, &mut receipt)?;
    receipt.verify(&findings, took);
    Ok(receipt)
}

fn shuffled(names: &[String], sequence: &mut Sequence) -> Vec<String> {
    let mut names = names.to_vec();
    for place in (1..names.len()).rev() {
        names.swap(place, (sequence.draw() % (place as u64 + 1)) as usize);
    }
    names
}

/// Two halves; one node alone; one link one way; two majorities that share a node.
fn cut(kind: u64, sides: &[String], rules: &mut Rules, known: &[String]) -> Result<(), RulesError> {
    let groups = |first: &[String], second: &[String]| [first.join(","), second.join(",")];
    let half = sides.len() / 2;
    match kind {
        0 => rules.partition(&groups(&sides[..half], &sides[half..]), known),
        1 => rules.isolate(&sides[0], known),
        2 => rules.cut(&sides[0], &sides[1], known),
        _ => rules.partition(&groups(&sides[..=half], &sides[half..]), known),
    }
}

/// A value under each of some fresh keys, and what was seen of it.
fn baseline(stage: &Stage<'_>, round: u32) -> Result<Vec<(String, ContextToken)>, StageError> {
    let mut made = Vec::new();
    for number in 0..PAIRS {
        let key = format!("pair/{round}/{number}");
        let all = WriteOptions { w: Some(Count::All), ..WriteOptions::default() };
        let receipt = stage.threads.block_on(stage.client.put(SLOPPY, key.clone(), "before", &all))?;
        made.push((key, receipt.context));
    }
    Ok(made)
}

/// Writes each key on both sides of a cut, through an owner of it on that side. Returns those that were acknowledged
/// twice, and how many were not.
fn write_both(stage: &Stage<'_>, sides: &[String], before: Vec<(String, ContextToken)>) -> (Vec<Pair>, u64) {
    let (first, second) = sides.split_at(sides.len() / 2);
    let halves: [Vec<NodeId>; 2] = [first, second].map(|half| half.iter().map(|name| stage.node(name)).collect());
    let (mut pairs, mut refused) = (Vec::new(), 0);
    for (key, seen) in before {
        let written = halves.iter().map(|half| stage.threads.block_on(write_one(&stage.client, &key, &seen, half)));
        match written.collect::<Option<Vec<_>>>() {
            Some(written) => pairs.push(Pair { key, written }),
            None => refused += 1,
        }
    }
    (pairs, refused)
}

async fn write_one(client: &Client, key: &str, seen: &ContextToken, half: &[NodeId]) -> Option<(Dot, Bytes)> {
    let owner = owners(client, SLOPPY, key.as_bytes()).into_iter().find(|owner| half.contains(owner))?;
    let options = WriteOptions {
        supersede: Some(Supersede::Seen(seen.clone())),
        via: Via::Node(owner),
        ..WriteOptions::default()
    };
    let ledger = Ledger::new(u64::from(owner.0), key.to_string());
    let value = ledger.next_value();
    let receipt = client.put(SLOPPY, key.to_string(), value.clone(), &options).await.ok()?;
    Some((receipt.dot, value))
}

/// Both values of each pair are there, and nothing else.
fn check_pairs(stage: &Stage<'_>, pairs: &[Pair], receipt: &mut Receipt) -> Result<(), StageError> {
    let mut kept = 0;
    let options = ReadOptions { r: Some(Count::All), ..ReadOptions::default() };
    for Pair { key, written } in pairs {
        let answer = stage.threads.block_on(stage.client.get(SLOPPY, key.clone(), &options))?;
        let is_there = |(dot, value): &(Dot, Bytes)| answer.siblings.iter().any(|s| s.dot == *dot && s.value == *value);
        if written.iter().all(is_there) && answer.siblings.len() == written.len() {
            kept += 1;
        } else {
            let found = answer.siblings.len();
            receipt.wrong(format!("key {key:?} was written on both sides of a cut, and shows {found} other values"));
        }
    }
    receipt.fact("of these both kept as siblings", kept);
    if pairs.is_empty() {
        receipt.wrong("no key was written on both sides of a cut, so nothing was shown of siblings");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_cut_cuts_something_and_the_last_leaves_a_bridge() {
        let known: Vec<String> = (1..=5).map(|number| format!("n{number}")).collect();
        let sides = shuffled(&known, &mut Sequence::new(3));
        assert_ne!(sides, known);
        let made = |kind| {
            let mut rules = Rules::default();
            cut(kind, &sides, &mut rules, &known).unwrap();
            rules
        };
        let links = |rules: &Rules| {
            let pairs = known.iter().flat_map(|a| known.iter().map(move |b| (a, b)));
            pairs.filter(|(a, b)| rules.is_cut(a, b)).count()
        };
        assert_eq!([0, 1, 2, 3].map(|kind| links(&made(kind))), [12, 8, 1, 8]);
        let bridge = &sides[2];
        assert!(known.iter().all(|other| !made(3).is_cut(bridge, other) && !made(3).is_cut(other, bridge)));
    }
}
