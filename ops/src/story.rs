//! What happens to an account of 120 when the cluster is cut in two, and both sides take money from it.
//!
//! The story is played by a cluster of real processes and a real client; what it tells is what was seen, and every
//! outcome is asserted.

use crate::plan::Shape;
use crate::stage::{Stage, StageError, Stop};
use quorate_client::{
    ContextToken, NodeId, QuorumKind, ReadAnswer, ReadOptions, Receipt, Refusal, Supersede, Via, WriteError,
    WriteOptions,
};
use quorate_ring::wire::client::Standing;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// All writes of the story have long ended by then.
const DEADLINE: Duration = Duration::from_secs(10);

/// One side of a cut: its nodes, and the owner of the account through which its client works.
struct Side {
    nodes: Vec<String>,
    owner: NodeId,
    name: String,
}

/// An account in one bucket, and the two sides of the cut that goes through its owners.
struct Act {
    bucket: &'static str,
    key: &'static str,
    quorum: Option<QuorumKind>,
    /// Two of the three owners.
    left: Side,
    /// The third.
    right: Side,
    before: ContextToken,
}

/// Tells the story, line by line, and fails if it ends otherwise.
pub fn split_brain(
    program: &Path,
    scratch: Option<PathBuf>,
    stop: Stop<'_>,
    mut tell: impl FnMut(&str),
) -> Result<(), StageError> {
    let shape = Shape { faults: true, ..Shape::default() };
    let stage = Stage::set(program, scratch, &shape, stop)?;
    let told = play(&stage, &mut tell);
    let kept = stage.clear(told.is_err())?;
    if let Some(folder) = kept {
        tell(&format!("(The folder of the cluster is kept: {})", folder.display()));
    }
    told
}

fn play(stage: &Stage<'_>, tell: &mut dyn FnMut(&str)) -> Result<(), StageError> {
    tell(
        "Five nodes run on this machine. Every key is kept by three of them, its owners. A write is acknowledged when",
    );
    tell(
        "two copies of it are on disk, and a read asks two owners: any two of three have one in common, so that a read",
    );
    tell("meets the last write. An account holds 120.");
    strict(stage, tell)?;
    sloppy(stage, tell)?;
    last_write_wins(stage, tell)?;
    tell("");
    tell("Which of the three is right depends on what a wrong answer costs: nobody served on one side (strict), two");
    tell("values to be resolved (sloppy with siblings), or one withdrawal set aside (lww).");
    Ok(())
}

/// One side is refused, and its client is told that nothing was applied.
fn strict(stage: &Stage<'_>, tell: &mut dyn FnMut(&str)) -> Result<(), StageError> {
    tell("\n1. STRICT: two owners, or nothing");
    let act = Act::open(stage, tell, "default", None)?;
    let receipt = act.deduct(stage, &act.left, "20")?;
    tell(&format!("   A client at {} deducts 100 and writes 20: {}.", act.left.name, acks(stage, &receipt)));
    let refused = act.deduct(stage, &act.right, "70");
    let Err(StageError::Write(WriteError::NotApplied(declined))) = refused else {
        return unexpected(format!("the side with one owner answered {refused:?}"));
    };
    let is_unavailable = declined.to_string() == Refusal::Unavailable { needed: 2, got: 1 }.to_string();
    check(is_unavailable, || format!("it was refused for another reason: {declined}"))?;
    tell(&format!("   A client at {} deducts 50 and wants to write 70. It is refused, and told:", act.right.name));
    tell(&format!("     \"{declined}\""));
    tell("   Nothing was written anywhere: with one owner alone there is no telling what the other two did meanwhile.");
    act.heal(stage, tell)?;
    for name in &stage.names {
        let shown = act.values(stage, name)?.0;
        check(shown == ["20"], || format!("{name} shows {shown:?}"))?;
    }
    tell(
        "   The cut is healed, and every node answers 20. The second client may try again, and will see 20 before it does.",
    );
    Ok(())
}

/// Both are served, and both values come back to be resolved.
fn sloppy(stage: &Stage<'_>, tell: &mut dyn FnMut(&str)) -> Result<(), StageError> {
    tell("\n2. SLOPPY, WITH SIBLINGS: everybody is served, and conflicts are shown");
    let act = Act::open(stage, tell, "sloppy", None)?;
    both_deduct(stage, tell, &act)?;
    act.heal(stage, tell)?;
    for name in &stage.names {
        let mut shown = act.values(stage, name)?.0;
        shown.sort();
        check(shown == ["20", "70"], || format!("{name} shows {shown:?}"))?;
    }
    tell(
        "   The cut is healed, and every node answers with both, 20 and 70: neither writer had seen the other's value, so",
    );
    tell("   neither replaces it. Somebody who knows what the numbers mean resolves it: 120 - 100 - 50 is -30.");
    let answer = act.read(stage, &stage.names[0])?;
    let options = WriteOptions { supersede: Some(Supersede::Seen(answer.context)), ..act.options(Via::Owner) };
    stage.threads.block_on(stage.client.put(act.bucket, act.key, "-30", &options))?;
    for name in &stage.names {
        let shown = act.values(stage, name)?.0;
        check(shown == ["-30"], || format!("{name} shows {shown:?} after -30 was written"))?;
    }
    tell("   A put of -30 that has seen both replaces both: every node answers -30, and the bank sends a letter.");
    Ok(())
}

/// Everybody is served, readers everywhere see the same one, the other is counted.
fn last_write_wins(stage: &Stage<'_>, tell: &mut dyn FnMut(&str)) -> Result<(), StageError> {
    tell("\n3. SLOPPY, LAST WRITE WINS: everybody is served, and one value is shown");
    let act = Act::open(stage, tell, "lww", Some(QuorumKind::Sloppy))?;
    both_deduct(stage, tell, &act)?;
    act.heal(stage, tell)?;
    for name in &stage.names {
        let (shown, set_aside) = act.values(stage, name)?;
        check(shown == ["70"] && set_aside == 1, || format!("{name} shows {shown:?}, {set_aside} set aside"))?;
    }
    let counted: u64 = stage.status().iter().map(|status| status.set_aside).sum();
    check(counted >= stage.names.len() as u64, || format!("only {counted} were counted as set aside"))?;
    tell(
        "   The cut is healed, and every node answers 70, the later one, and says that 1 concurrent write was set aside. The",
    );
    tell(
        "   withdrawal of 100 has left no trace in the balance; but it was not dropped in silence: each of these reads was",
    );
    tell(&format!(
        "   counted (`set_aside` at /status of the nodes: {counted} in all), and an alert can be put on that number."
    ));
    Ok(())
}

fn both_deduct(stage: &Stage<'_>, tell: &mut dyn FnMut(&str), act: &Act) -> Result<(), StageError> {
    let left = act.deduct(stage, &act.left, "20")?;
    tell(&format!("   A client at {} deducts 100 and writes 20: {}.", act.left.name, acks(stage, &left)));
    let right = act.deduct(stage, &act.right, "70")?;
    tell(&format!("   A client at {} deducts 50 and writes 70: {}.", act.right.name, acks(stage, &right)));
    let has_hint = right.acks.iter().any(|ack| matches!(ack.standing, Standing::Fallback { .. }));
    check(has_hint, || format!("the side with one owner got two acks without a hint: {right:?}"))?;
    tell(
        "   A hint is a copy that is kept for an owner that cannot be reached, and handed over when it answers again.",
    );
    Ok(())
}

impl Act {
    /// Puts 120 into the account, and cuts the cluster in two.
    fn open(
        stage: &Stage<'_>,
        tell: &mut dyn FnMut(&str),
        bucket: &'static str,
        quorum: Option<QuorumKind>,
    ) -> Result<Self, StageError> {
        let key = "account";
        let layout = stage.client.layout();
        let of = layout.topology().bucket_named(bucket).expect("a lab has this bucket");
        let list = layout.preference(layout.partition(of, key.as_bytes())).expect("every key has owners");
        let (owners, fallbacks) = (list.owners(), list.fallbacks());
        let side = |owners: &[NodeId], fallback: NodeId| {
            let mut nodes: Vec<String> = owners.iter().chain([&fallback]).map(|node| stage.name(*node)).collect();
            nodes.sort();
            Side { nodes, owner: owners[0], name: stage.name(owners[0]) }
        };
        let (left, right) = (side(&owners[..2], fallbacks[0]), side(&owners[2..], fallbacks[1]));
        let names: Vec<String> = owners.iter().map(|owner| stage.name(*owner)).collect();
        stage.threads.block_on(stage.client.put(bucket, key, "120", &WriteOptions::default()))?;
        let before = stage.threads.block_on(stage.client.get(bucket, key, &ReadOptions::default()))?.context;
        let groups = [left.nodes.join(","), right.nodes.join(",")];
        stage.cluster.change_rules(|rules, known| rules.partition(&groups, known))?;
        let cut = |a: &str, b: &str| left.nodes.iter().any(|n| n == a) != left.nodes.iter().any(|n| n == b);
        let noticed = stage.wait_noticed(cut)?;
        tell(&format!(
            "   Owners of the account: {}. The network is cut: {} | {}.",
            names.join(", "),
            groups[0],
            groups[1]
        ));
        tell(&format!("   After {:.1} s every node has noticed whom it cannot hear any more.", noticed.as_secs_f64()));
        Ok(Self { bucket, key, quorum, left, right, before })
    }

    fn options(&self, via: Via) -> WriteOptions {
        WriteOptions { quorum: self.quorum, deadline: DEADLINE, via, ..WriteOptions::default() }
    }

    /// A client that read 120 before the cut writes what is left of it, through one side.
    fn deduct(&self, stage: &Stage<'_>, side: &Side, value: &'static str) -> Result<Receipt, StageError> {
        let supersede = Some(Supersede::Seen(self.before.clone()));
        let options = WriteOptions { supersede, ..self.options(Via::Node(side.owner)) };
        Ok(stage.threads.block_on(stage.client.put(self.bucket, self.key, value, &options))?)
    }

    fn read(&self, stage: &Stage<'_>, name: &str) -> Result<ReadAnswer, StageError> {
        let options = ReadOptions { via: Via::Node(stage.node(name)), ..ReadOptions::default() };
        Ok(stage.threads.block_on(stage.client.get(self.bucket, self.key, &options))?)
    }

    /// What a node answers, and how many concurrent writes it does not show.
    fn values(&self, stage: &Stage<'_>, name: &str) -> Result<(Vec<String>, u32), StageError> {
        let answer = self.read(stage, name)?;
        let values = answer.siblings.iter().map(|sibling| String::from_utf8_lossy(&sibling.value).into_owned());
        Ok((values.collect(), answer.set_aside))
    }

    fn heal(&self, stage: &Stage<'_>, tell: &mut dyn FnMut(&str)) -> Result<(), StageError> {
        stage.cluster.change_rules(|rules, _| {
            rules.heal();
            Ok(())
        })?;
        let heard = stage.wait_noticed(|_, _| false)?;
        let (findings, took) = stage.settle(false, SETTLE_LIMIT);
        check(findings.clean(), || format!("the owners do not become the same: {findings}"))?;
        let took = (heard + took).as_secs_f64();
        tell(&format!("   The cut is over; {took:.1} s later all owners hold the same, byte for byte."));
        Ok(())
    }
}

/// Who holds a write.
fn acks(stage: &Stage<'_>, receipt: &Receipt) -> String {
    let one = |ack: &quorate_ring::wire::client::Ack| match ack.standing {
        Standing::Owner => stage.name(ack.node),
        Standing::Fallback { target } => format!("{} as a hint for {}", stage.name(ack.node), stage.name(target)),
    };
    format!("applied, held by {}", receipt.acks.iter().map(one).collect::<Vec<_>>().join(" and "))
}

fn check(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), StageError> {
    if is_so { Ok(()) } else { unexpected(otherwise()) }
}

fn unexpected<T>(what: String) -> Result<T, StageError> {
    Err(StageError::Unexpected(format!("the story ends otherwise than it should: {what}")))
}
