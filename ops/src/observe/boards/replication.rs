//! Replication and repair: who lacks what of whom, and what is done about it.

use crate::observe::board::{Board, Panel, Row, Unit};

pub fn board() -> Board {
    Board {
        uid: "quorate-replication",
        title: "Quorate / Replication and repair",
        description: "Who lacks what of whom, and what is being done about it.",
        rows: vec![lag(), hints(), repair(), settling()],
    }
}

fn lag() -> Row {
    let panels = vec![
        Panel::lines(
            "Lag of each pair",
            Unit::Count,
            "Writes that the first has and the second lacks, over the partitions of both. Exact, as of its last heartbeat.",
        )
        .query("quorate_lag_dots{$s}", "{{node}} > {{peer}}"),
        Panel::lines(
            "Age of the oldest, of each pair",
            Unit::Seconds,
            "How long the first has had the oldest write that the second lacks.",
        )
        .warn_from(60.0)
        .query("quorate_lag_oldest_seconds{$s}", "{{node}} > {{peer}}"),
        Panel::lines(
            "Who knows what peers have",
            Unit::Count,
            "Of its peers, those that have told a node of their clocks. Before they have, their lag is not known.",
        )
        .query("sum by (node) (quorate_peer_clock_known{$s})", "{{node}}"),
        Panel::lines(
            "Spread of acks",
            Unit::Seconds,
            "From the first owner that holds a write to the second, third, ...; late ones, after the answer, included.",
        )
        .percentiles("quorate_ack_spread_seconds", "", "owners", ["{{owners}} owners, half", "{{owners}} owners, 99%"]),
        Panel::lines("Writes merged", Unit::PerSecond, "Writes that objects sent by peers brought in, of whatever purpose.")
            .query("sum by (node) (rate(quorate_merged_dots_total{$s}[$r]))", "{{node}}"),
        Panel::lines("Links", Unit::Count, "Peers that answer each node's pings.")
            .query("sum by (node) (quorate_peer_up{$s})", "{{node}}"),
    ];
    Row { title: "Lag", panels }
}

fn hints() -> Row {
    let panels = vec![
        Panel::lines(
            "Hints kept",
            Unit::Count,
            "Writes that the first keeps for the second, until that can be reached.",
        )
        .query("quorate_hints_pending{$s}", "{{node}} for {{peer}}"),
        Panel::lines(
            "Hints, of what may be kept",
            Unit::Share,
            "Bytes of hints for one peer. Above 1 new ones are refused; no hint that counted is dropped.",
        )
        .warn_from(0.5)
        .query(
            "quorate_hints_bytes{$s} / on (cluster, node) group_left () quorate_hints_bytes_max{$s}",
            "{{node}} for {{peer}}",
        ),
        Panel::lines("Oldest hint", Unit::Seconds, "Age of the oldest write among the hints that were not delivered.")
            .query("max by (peer) (quorate_hints_oldest_seconds{$s})", "for {{peer}}"),
        Panel::lines("Hints handed off", Unit::PerSecond, "Hints that were delivered to their owner, and forgotten.")
            .query("sum by (node) (rate(quorate_hints_handed_off_total{$s}[$r]))", "{{node}}"),
    ];
    Row { title: "Hints", panels }
}

fn repair() -> Row {
    let panels = vec![
        Panel::lines(
            "Read repairs",
            Unit::PerSecond,
            "Owners that a read found behind, and that were sent what was found.",
        )
        .query("sum by (node) (rate(quorate_read_repairs_total{$s}[$r]))", "{{node}}"),
        Panel::lines(
            "Writes pulled",
            Unit::PerSecond,
            "Writes that a node asked another owner for, as its clock lacked them.",
        )
        .query("sum by (node) (rate(quorate_pulled_dots_total{$s}[$r]))", "{{node}}"),
        Panel::lines(
            "Full syncs",
            Unit::PerSecond,
            "Partitions copied whole: after a lost disk, or when a log was cut.",
        )
        .query("sum by (node) (rate(quorate_full_syncs_total{$s}[$r]))", "{{node}}"),
        Panel::lines(
            "Strays",
            Unit::PerSecond,
            "Objects that came with a pull or a full sync, were not asked for, and were not taken. Any at all is a fault.",
        )
        .query("sum by (node) (rate(quorate_misplaced_objects_total{$s}[$r]))", "{{node}}"),
        Panel::lines(
            "Copies that rebuilding nodes need",
            Unit::Count,
            "And those that they have made. Both 0 while none rebuilds.",
        )
        .query("sum by (node) (quorate_rebuilding_copies_needed{$s})", "{{node}} needs")
        .query("sum by (node) (quorate_rebuilding_copies_made{$s})", "{{node}} has made"),
        Panel::lines(
            "Writes set aside",
            Unit::PerSecond,
            "Concurrent writes of lww buckets that reads did not show, as a later one won.",
        )
        .query("sum by (node) (rate(quorate_set_aside_total{$s}[$r]))", "{{node}}"),
        Panel::lines("Clock offset", Unit::Seconds, "How far the wall clock of a peer is ahead of the node's.")
            .query("quorate_clock_offset_seconds{$s}", "{{peer}} ahead of {{node}}"),
    ];
    Row { title: "Repair", panels }
}

fn settling() -> Row {
    let panels = vec![
        Panel::lines(
            "Log that is not settled",
            Unit::Count,
            "Entries that not all owners are known to have seen. It grows while an owner is away.",
        )
        .query("quorate_log_unsettled{$s}", "{{node}}"),
        Panel::lines(
            "Keys that wait to be erased",
            Unit::Count,
            "Tombstones, and values that expire. They go when, and only when, all owners have seen what they supersede.",
        )
        .query("quorate_erasable_unsettled{$s}", "{{node}}"),
        Panel::lines("Erased", Unit::PerSecond, "Tombstones and expired objects that were settled, and went.")
            .query("sum by (node) (rate(quorate_erased_objects_total{$s}[$r]))", "{{node}}"),
        Panel::lines(
            "Timestamps too far ahead",
            Unit::PerSecond,
            "Writes whose timestamp is more than a minute ahead of the node's clock. They are kept, and move no clock.",
        )
        .query("sum by (node) (rate(quorate_clock_ahead_total{$s}[$r]))", "{{node}}"),
    ];
    Row { title: "What waits until all have seen it", panels }
}
