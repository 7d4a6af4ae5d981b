//! What each owner did, and when: a timeline, from the times in a receipt or an answer.

use crate::output::{names, node_name, table};
use quorate_client::{Durability, Layout, NodeId, OpId, ReadAnswer, Receipt, Unknown};
use quorate_ring::wire::client::{Ack, Answered, Standing};

const WIDTH: usize = 32;

/// One node's part.
struct Part {
    node: NodeId,
    role: String,
    /// None: nothing is known of what it did.
    times: Option<Times>,
}

/// Microseconds since the coordinator, or the gateway, began.
#[derive(Clone, Copy)]
struct Times {
    sent_us: u64,
    /// How long the node itself took.
    took_us: u64,
    answered_us: u64,
}

/// Of a write, as its receipt tells it.
pub fn of_write(layout: &Layout, receipt: &Receipt) -> String {
    let head = format!(
        "trace: coordinated by {}; {} acks needed, {} came; times from when it began",
        node_name(layout, receipt.coordinator),
        receipt.needed,
        receipt.acks.len()
    );
    timeline(layout, &head, ["COMMITTED", "ACKED"], &of_acks(layout, receipt.coordinator, &receipt.acks), 0)
}

/// Of a write whose outcome is not known: the acks that had come in, and the owners of which nothing was heard.
pub fn of_doubt(layout: &Layout, owners: &[NodeId], unknown: &Unknown) -> String {
    let waited_us = u64::try_from(unknown.waited.as_micros()).unwrap_or(u64::MAX);
    let (Some(needed), Some(first)) = (unknown.needed, unknown.acks.first()) else {
        let (asked, owners) = (node_name(layout, unknown.node), names(layout, owners.iter().copied()));
        return format!("trace: {asked} was asked, and of no ack was heard in {}; owners: {owners}\n", ms(waited_us));
    };
    let head = format!(
        "trace: coordinated by {}; {needed} acks needed, {} came before it was given up after {}",
        node_name(layout, first.node),
        unknown.acks.len(),
        ms(waited_us)
    );
    let mut parts = of_acks(layout, first.node, &unknown.acks);
    let silent = owners.iter().filter(|owner| unknown.acks.iter().all(|ack| ack.node != **owner));
    parts.extend(silent.map(|owner| Part { node: *owner, role: "owner, not heard of".to_string(), times: None }));
    timeline(layout, &head, ["COMMITTED", "ACKED"], &parts, waited_us)
}

/// How to find the same request in the logs of the nodes; `what` is its id: an op id, or a request id.
pub fn in_logs(what: &str, id: OpId) -> String {
    format!("{what} {id}; nodes that log quorate::request=debug say what they did for it\n")
}

/// The coordinator's own ack is the first.
fn of_acks(layout: &Layout, coordinator: NodeId, acks: &[Ack]) -> Vec<Part> {
    let part = |ack: &Ack| {
        let durability = match ack.durability {
            Durability::Sync => "fsynced",
            Durability::Async => "written",
        };
        let role = match ack.standing {
            Standing::Owner if ack.node == coordinator => format!("coordinator, {durability}"),
            Standing::Owner => format!("owner, {durability}"),
            Standing::Fallback { target } => format!("hint for {}, {durability}", node_name(layout, target)),
        };
        let times = Times { sent_us: ack.sent_us, took_us: ack.took_us, answered_us: ack.acked_us };
        Part { node: ack.node, role, times: Some(times) }
    };
    acks.iter().map(part).collect()
}

/// Of a read, as its answer tells it.
pub fn of_read(layout: &Layout, answer: &ReadAnswer) -> String {
    let part = |answered: &Answered| {
        let held = match answered.siblings {
            0 => "holds no value".to_string(),
            1 => "holds 1 value".to_string(),
            several => format!("holds {several} values"),
        };
        let behind = if answer.repairing.contains(&answered.node) { "; behind, being repaired" } else { "" };
        let Answered { sent_us, took_us, answered_us, .. } = *answered;
        Part { node: answered.node, role: held + behind, times: Some(Times { sent_us, took_us, answered_us }) }
    };
    let parts: Vec<Part> = answer.answered.iter().map(part).collect();
    let head =
        format!("trace: {} answers needed, {} came; times from when the gateway began", answer.needed, parts.len());
    timeline(layout, &head, ["READ", "ANSWERED"], &parts, 0)
}

/// Up to the last answer, or to `end_us` if that is later.
fn timeline(layout: &Layout, head: &str, names: [&str; 2], parts: &[Part], end_us: u64) -> String {
    let answered = parts.iter().filter_map(|part| part.times).map(|times| times.answered_us);
    let end_us = answered.max().unwrap_or(0).max(end_us).max(1);
    let row = |part: &Part| {
        let mut row = vec![node_name(layout, part.node), part.role.clone()];
        match &part.times {
            Some(times) => row.extend([
                ms(times.sent_us),
                format!("{} (took {})", ms(done_us(times)), ms(times.took_us)),
                ms(times.answered_us),
                bar(times, end_us),
            ]),
            None => {
                row.extend(["?".to_string(), "?".to_string(), "-".to_string(), format!("|{}|", "?".repeat(WIDTH + 1))])
            }
        }
        row
    };
    let header = ["NODE", "ROLE", "SENT", names[0], names[1], "TIMELINE (. on its way, # at work)"];
    format!("{head}\n{}", table(&header, parts.iter().map(row).collect()))
}

/// When the node was done, by the coordinator's clock: taking both ways to be equally long.
fn done_us(times: &Times) -> u64 {
    let round_us = times.answered_us.saturating_sub(times.sent_us);
    let way_us = round_us.saturating_sub(times.took_us) / 2;
    times.answered_us - way_us.min(times.answered_us)
}

fn bar(times: &Times, end_us: u64) -> String {
    let column = |us: u64| ((us.min(end_us) as u128 * WIDTH as u128) / u128::from(end_us)) as usize;
    let done_us = done_us(times);
    let (sent, done, answered) = (column(times.sent_us), column(done_us), column(times.answered_us));
    let began = column(done_us.saturating_sub(times.took_us).max(times.sent_us));
    let mark = |i: usize| match i {
        i if i < sent || i > answered => ' ',
        i if (began..=done).contains(&i) => '#',
        _ => '.',
    };
    let marks: String = (0..=WIDTH).map(mark).collect();
    format!("|{marks}|")
}

fn ms(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_client::{OpId, UnknownCause};
    use std::time::Duration;

    fn times(sent_us: u64, took_us: u64, answered_us: u64) -> Times {
        Times { sent_us, took_us, answered_us }
    }

    #[test]
    fn a_bar_shows_the_way_and_the_work() {
        let whole = times(0, 3_200, 3_200);
        assert_eq!(bar(&whole, 3_200), format!("|{}|", "#".repeat(33)));
        let late = times(800, 800, 3_200);
        assert_eq!(done_us(&late), 2_400);
        assert_eq!(
            bar(&late, 3_200),
            format!("|{}{}{}{}|", " ".repeat(8), ".".repeat(8), "#".repeat(9), ".".repeat(8))
        );
        assert_eq!(ms(12_034), "12.034 ms");
    }

    #[test]
    fn a_doubt_shows_how_long_it_was_and_of_whom_nothing_was_heard() {
        let layout = crate::failure::tests::layout();
        let ack = Ack {
            node: NodeId(1),
            standing: Standing::Owner,
            durability: Durability::Sync,
            sent_us: 0,
            took_us: 1_000,
            acked_us: 1_000,
        };
        let doubt = |acks: Vec<Ack>| Unknown {
            op_id: OpId([1; 16]),
            cause: UnknownCause::Deadline,
            node: NodeId(1),
            waited: Duration::from_millis(32),
            needed: Some(2),
            acks,
        };
        let some = of_doubt(&layout, &[NodeId(1), NodeId(2)], &doubt(vec![ack]));
        let lines: Vec<&str> = some.lines().collect();
        assert_eq!(lines[0], "trace: coordinated by n1; 2 acks needed, 1 came before it was given up after 32.000 ms");
        assert!(lines[2].contains("coordinator, fsynced") && lines[2].ends_with(&format!("|##{}|", " ".repeat(31))));
        assert!(lines[3].contains("not heard of") && lines[3].ends_with(&format!("|{}|", "?".repeat(33))), "{some}");
        let none = of_doubt(&layout, &[NodeId(1)], &doubt(Vec::new()));
        assert_eq!(none, "trace: n1 was asked, and of no ack was heard in 32.000 ms; owners: n1\n");
    }

    #[test]
    fn times_that_do_not_fit_together_do_no_harm() {
        for (sent, took, answered) in [(5, 100, 3), (0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (9, 50, 10)] {
            assert_eq!(bar(&times(sent, took, answered), 10).chars().count(), WIDTH + 3);
        }
    }
}
