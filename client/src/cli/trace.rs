//! What each owner did, and when: a timeline, from the times in a receipt or an answer.

use crate::output::{node_name, table};
use quorate_client::{Durability, Layout, NodeId, OpId, ReadAnswer, Receipt, Unknown};
use quorate_ring::wire::client::{Ack, Standing};

const WIDTH: usize = 32;

/// One node's part. Microseconds since the coordinator, or the gateway, began.
struct Part {
    node: NodeId,
    role: String,
    sent_us: u64,
    /// How long the node itself took.
    took_us: u64,
    answered_us: u64,
}

/// Of a write, as its receipt tells it.
pub fn of_write(layout: &Layout, receipt: &Receipt) -> String {
    of_acks(layout, receipt.coordinator, receipt.needed, &receipt.acks)
}

/// Of a write whose outcome is not known: the acks that had come in.
pub fn of_doubt(layout: &Layout, unknown: &Unknown) -> String {
    match (unknown.needed, unknown.acks.first()) {
        (Some(needed), Some(first)) => of_acks(layout, first.node, needed, &unknown.acks),
        _ => format!("trace: {} told nothing\n", node_name(layout, unknown.node)),
    }
}

/// How to find the same write in the logs of the nodes.
pub fn in_logs(op_id: OpId) -> String {
    format!("op id {op_id}; nodes that log quorate::request=debug say what they did for it\n")
}

/// The coordinator's own ack is the first.
fn of_acks(layout: &Layout, coordinator: NodeId, needed: u8, acks: &[Ack]) -> String {
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
        Part { node: ack.node, role, sent_us: ack.sent_us, took_us: ack.took_us, answered_us: ack.acked_us }
    };
    let parts: Vec<Part> = acks.iter().map(part).collect();
    let head = format!(
        "trace: coordinated by {}; {needed} acks needed, {} came; times from when it began",
        node_name(layout, coordinator),
        parts.len()
    );
    timeline(layout, &head, ["COMMITTED", "ACKED"], &parts)
}

/// Of a read, as its answer tells it.
pub fn of_read(layout: &Layout, answer: &ReadAnswer) -> String {
    let part = |answered: &quorate_ring::wire::client::Answered| {
        let held = match answered.siblings {
            0 => "holds no value".to_string(),
            1 => "holds 1 value".to_string(),
            several => format!("holds {several} values"),
        };
        let behind = if answer.repairing.contains(&answered.node) { "; behind, being repaired" } else { "" };
        Part {
            node: answered.node,
            role: held + behind,
            sent_us: answered.sent_us,
            took_us: answered.took_us,
            answered_us: answered.answered_us,
        }
    };
    let parts: Vec<Part> = answer.answered.iter().map(part).collect();
    let head =
        format!("trace: {} answers needed, {} came; times from when the gateway began", answer.needed, parts.len());
    timeline(layout, &head, ["READ", "ANSWERED"], &parts)
}

fn timeline(layout: &Layout, head: &str, names: [&str; 2], parts: &[Part]) -> String {
    let end_us = parts.iter().map(|part| part.answered_us).max().unwrap_or(0).max(1);
    let row = |part: &Part| {
        vec![
            node_name(layout, part.node),
            part.role.clone(),
            ms(part.sent_us),
            format!("{} (took {})", ms(done_us(part)), ms(part.took_us)),
            ms(part.answered_us),
            bar(part, end_us),
        ]
    };
    let header = ["NODE", "ROLE", "SENT", names[0], names[1], "TIMELINE (. on its way, # at work)"];
    format!("{head}\n{}", table(&header, parts.iter().map(row).collect()))
}

/// When the node was done, by the coordinator's clock: taking both ways to be equally long.
fn done_us(part: &Part) -> u64 {
    let round_us = part.answered_us.saturating_sub(part.sent_us);
    let way_us = round_us.saturating_sub(part.took_us) / 2;
    part.answered_us - way_us.min(part.answered_us)
}

fn bar(part: &Part, end_us: u64) -> String {
    let column = |us: u64| ((us.min(end_us) as u128 * WIDTH as u128) / u128::from(end_us)) as usize;
    let done_us = done_us(part);
    let (sent, done, answered) = (column(part.sent_us), column(done_us), column(part.answered_us));
    let began = column(done_us.saturating_sub(part.took_us).max(part.sent_us));
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

    fn part(sent_us: u64, took_us: u64, answered_us: u64) -> Part {
        Part { node: NodeId(1), role: String::new(), sent_us, took_us, answered_us }
    }

    #[test]
    fn a_bar_shows_the_way_and_the_work() {
        let whole = part(0, 3_200, 3_200);
        assert_eq!(bar(&whole, 3_200), format!("|{}|", "#".repeat(33)));
        let late = part(800, 800, 3_200);
        assert_eq!(done_us(&late), 2_400);
        assert_eq!(
            bar(&late, 3_200),
            format!("|{}{}{}{}|", " ".repeat(8), ".".repeat(8), "#".repeat(9), ".".repeat(8))
        );
        assert_eq!(ms(12_034), "12.034 ms");
    }

    #[test]
    fn times_that_do_not_fit_together_do_no_harm() {
        for (sent, took, answered) in [(5, 100, 3), (0, 0, 0), (u64::MAX, u64::MAX, u64::MAX), (9, 50, 10)] {
            assert_eq!(bar(&part(sent, took, answered), 10).chars().count(), WIDTH + 3);
        }
    }
}
