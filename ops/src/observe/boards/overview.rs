//! Overview: is it serving, is the data safe, how far behind is whom.

use crate::observe::board::{Board, Panel, Row, Unit};

pub fn board() -> Board {
    Board {
        uid: "quorate-overview",
        title: "Quorate / Overview",
        description: "Whether users are served, whether data is safe, and how far behind each node is.",
        rows: vec![serving(), safe(), behind()],
    }
}

fn serving() -> Row {
    let panels = vec![
        Panel::stat("Nodes that answer", Unit::Count, "Nodes whose admin address answers Prometheus.")
            .query("sum(up{job=\"quorate\", $c})", "up"),
        Panel::stat("Nodes in all", Unit::Count, "Nodes that Prometheus is told of.")
            .query("count(up{job=\"quorate\", $c})", "nodes"),
        Panel::stat(
            "Requests that failed, 5 min",
            Unit::Share,
            "Unavailable, unknown or refused as overloaded. An error of the client itself does not count.",
        )
        .warn_from(0.001)
        .query("quorate:requests_failed:ratio_rate5m{$c}", "failed"),
        Panel::stat(
            "Partitions without a quorum to read",
            Unit::Count,
            "As the node sees it that sees the fewest owners. Strict reads of their keys are refused.",
        )
        .warn_from(1.0)
        .query("quorate:partitions:worst{op=\"read\", state=\"no_quorum\", $c}", "partitions"),
        Panel::stat(
            "Partitions without a quorum to write",
            Unit::Count,
            "As the node sees it that sees the fewest owners. Strict writes of their keys are refused.",
        )
        .warn_from(1.0)
        .query("quorate:partitions:worst{op=\"write\", state=\"no_quorum\", $c}", "partitions"),
        Panel::stat(
            "Error budget burn, 1 h",
            Unit::Count,
            "How many times faster than allowed (99.9% over 30 days) the error budget goes. 14.4 wakes someone.",
        )
        .warn_from(14.4)
        .query("quorate:requests_failed:ratio_rate1h{$c} / 0.001", "times"),
        Panel::stack("Requests by outcome", Unit::PerSecond, "All requests of clients, by how they ended.")
            .query("sum by (outcome) (rate(quorate_requests_total{$s}[$r]))", "{{outcome}}"),
        Panel::lines(
            "Duration",
            Unit::Seconds,
            "From taking a request to its answer, at the coordinator; half of them, and 99 in 100, are faster than this.",
        )
        .percentiles("quorate_request_duration_seconds", "", "op", ["{{op}}, half", "{{op}}, 99%"]),
        Panel::lines(
            "Requests by node",
            Unit::PerSecond,
            "Requests that each node coordinated. A node that takes far fewer than the others is not reached by clients.",
        )
        .query("sum by (node) (rate(quorate_requests_total{$s}[$r]))", "{{node}}"),
    ];
    Row { title: "Is it serving?", panels }
}

fn safe() -> Row {
    let panels = vec![
        Panel::lines(
            "Partitions that miss owners",
            Unit::Count,
            "Partitions of which not all owners are within reach of the node that sees the fewest. `quorum` still serves \
             strict requests, and can lose no further owner; `no_quorum` does not.",
        )
        .query("quorate:partitions:worst{$c}", "{{op}}: {{state}}"),
        Panel::lines(
            "Nodes as their peers see them",
            Unit::Count,
            "By state, as the node sees it that sees most of them down. A suspect one is asked last, one that is down not \
             at all.",
        )
        .query("max by (state) (quorate_nodes{$s})", "{{state}}"),
        Panel::lines(
            "Nodes by state of their own",
            Unit::Count,
            "A node that rebuilds answers no reads; one that drains is on its way out.",
        )
        .query("sum by (state) (quorate_state{$s})", "{{state}}"),
        Panel::lines(
            "Hints that wait",
            Unit::Count,
            "Writes kept by a fallback for an owner that could not be reached, by owner.",
        )
        .query("sum by (peer) (quorate_hints_pending{$s})", "for {{peer}}"),
        Panel::lines(
            "Rebuilding",
            Unit::Share,
            "Of the copies of partitions that rebuilding nodes need, those that they have made; 1 while none rebuilds.",
        )
        .query(
            "(sum(quorate_rebuilding_copies_made{$s}) + 1) / (sum(quorate_rebuilding_copies_needed{$s}) + 1)",
            "made",
        ),
        Panel::lines(
            "Free disk above the reserve",
            Unit::Bytes,
            "Under 0 a node refuses writes of clients; reads and repair go on.",
        )
        .query("quorate_disk_free_bytes{$s} - quorate_disk_reserve_bytes{$s}", "{{node}}"),
    ];
    Row { title: "Is the data safe?", panels }
}

fn behind() -> Row {
    let panels = vec![
        Panel::lines(
            "Writes that a node lacks",
            Unit::Count,
            "Exact, from the replica clocks: the most that any other owner has and this node lacks. Under load it holds \
             what is on its way between two heartbeats (250 ms).",
        )
        .query("quorate:lag_dots:max{$c}", "{{peer}}"),
        Panel::lines(
            "Age of the oldest write that a node lacks",
            Unit::Seconds,
            "How long another owner has had it. Above 60 s there is an alert.",
        )
        .warn_from(60.0)
        .query("quorate:lag_oldest_seconds:max{$c}", "{{peer}}"),
        Panel::lines(
            "Canary: until it can be read at a node",
            Unit::Seconds,
            "A small write of each node, looked for at the other owners: 99 in 100 were found within this.",
        )
        .query(
            "histogram_quantile(0.99, sum by (le, peer) (rate(quorate_canary_duration_seconds_bucket{$s}[$r])))",
            "{{peer}}",
        ),
        Panel::lines(
            "Canary: owed for",
            Unit::Seconds,
            "How long a node has not shown a canary that it should show.",
        )
        .warn_from(10.0)
        .query("max by (peer) (quorate_canary_waiting_seconds{$s})", "{{peer}}"),
        Panel::lines("Canaries", Unit::PerSecond, "Canaries written. None: the canary is off, or nodes cannot write.")
            .query("sum by (node) (rate(quorate_canaries_total{$s}[$r]))", "{{node}}"),
    ];
    Row { title: "How far behind is whom?", panels }
}
