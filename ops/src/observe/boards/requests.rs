//! Requests: what clients ask for, how it ends, how long it takes, and where the time goes.

use crate::observe::board::{Board, Panel, Row, Unit};

pub fn board() -> Board {
    Board {
        uid: "quorate-requests",
        title: "Quorate / Requests",
        description: "What clients ask for, how it ends, how long it takes, and where the time goes.",
        rows: vec![outcomes(), durations(), parts()],
    }
}

fn outcomes() -> Row {
    let panels = vec![
        Panel::stack("Requests by kind", Unit::PerSecond, "Puts, deletes and gets of clients, whatever their outcome.")
            .query("sum by (op) (rate(quorate_requests_total{$s}[$r]))", "{{op}}"),
        Panel::stack(
            "Requests by consistency",
            Unit::PerSecond,
            "How many owners a request waits for; `other` is another number, or one that was refused before that was clear.",
        )
        .query("sum by (consistency) (rate(quorate_requests_total{$s}[$r]))", "{{consistency}}"),
        Panel::stack(
            "What was not served",
            Unit::PerSecond,
            "unavailable: too few owners in reach, nothing was done. unknown: may have taken effect. overloaded: refused. \
             error: what was asked for cannot be done.",
        )
        .query(
            "sum by (outcome) (rate(quorate_requests_total{$s, outcome!~\"ok|not_found|conflict\"}[$r]))",
            "{{outcome}}",
        ),
        Panel::lines("Gets that found nothing, or a conflict", Unit::PerSecond, "Answers that are none of one value.")
            .query("sum by (outcome) (rate(quorate_requests_total{$s, outcome=~\"not_found|conflict\"}[$r]))", "{{outcome}}"),
        Panel::lines(
            "Error budget burn",
            Unit::Count,
            "How many times faster than allowed (99.9%) the error budget goes, over short and long windows. The alerts look \
             at two at a time.",
        )
        .warn_from(14.4)
        .query("quorate:requests_failed:ratio_rate5m{$c} / 0.001", "5 min")
        .query("quorate:requests_failed:ratio_rate30m{$c} / 0.001", "30 min")
        .query("quorate:requests_failed:ratio_rate1h{$c} / 0.001", "1 h")
        .query("quorate:requests_failed:ratio_rate6h{$c} / 0.001", "6 h"),
        Panel::lines("Slower than 250 ms", Unit::Share, "Share of all requests. More than 1 in 100 uses up the budget.")
            .warn_from(0.01)
            .query("quorate:requests_slow:ratio_rate5m{$c}", "5 min")
            .query("quorate:requests_slow:ratio_rate1h{$c}", "1 h"),
    ];
    Row { title: "What is asked, and how it ends", panels }
}

fn durations() -> Row {
    let of = |title, op: &str, description| {
        let more = format!(", op=\"{op}\"");
        Panel::lines(title, Unit::Seconds, description).percentiles(
            "quorate_request_duration_seconds",
            &more,
            "consistency",
            ["{{consistency}}, half", "{{consistency}}, 99%"],
        )
    };
    let panels = vec![
        of("Puts", "put", "From taking a put to its answer, by how many owners it waits for."),
        of("Deletes", "delete", "From taking a delete to its answer, by how many owners it waits for."),
        of("Gets", "get", "From taking a get to its answer, by how many owners it waits for."),
    ];
    Row { title: "How long it takes", panels }
}

fn parts() -> Row {
    let panels = vec![
        Panel::lines(
            "What peers take",
            Unit::Seconds,
            "From asking a peer for its part to its answer, the network included.",
        )
        .percentiles("quorate_replica_rpc_duration_seconds", "", "kind", ["{{kind}}, half", "{{kind}}, 99%"]),
        Panel::lines(
            "Commits with fsync",
            Unit::Seconds,
            "A batch going to the disk; every synchronous write waits for one.",
        )
        .percentiles(
            "quorate_commit_duration_seconds",
            ", durability=\"sync\"",
            "node",
            ["{{node}}, half", "{{node}}, 99%"],
        ),
        Panel::lines(
            "Siblings that gets find",
            Unit::Count,
            "More than one is a conflict that someone has to resolve. In lww buckets readers are shown one.",
        )
        .query("sum(rate(quorate_read_siblings_sum{$s}[$r])) / sum(rate(quorate_read_siblings_count{$s}[$r]))", "mean"),
        Panel::lines("Under way", Unit::Count, "Requests that a node works on, of clients and of its own.")
            .query("quorate_operations{$s}", "{{node}}"),
        Panel::lines(
            "Refused unseen",
            Unit::PerSecond,
            "Requests for which there was no room in the inbox, or that would have waited for too long.",
        )
        .query("sum by (node) (rate(quorate_inbox_refused_total{$s}[$r]))", "{{node}}"),
        Panel::lines(
            "Clients' connections",
            Unit::Count,
            "Connections of clients to each node, those being made included.",
        )
        .query("quorate_connections{$s, plane=\"client\"}", "{{node}}"),
    ];
    Row { title: "Where the time goes", panels }
}
