//! Node: the machine under it, its queues, its disk, its connections.

use crate::observe::board::{Board, Panel, Row, Unit};

pub fn board() -> Board {
    Board {
        uid: "quorate-node",
        title: "Quorate / Node",
        description: "The machine under a node, its queues, its disk, its connections.",
        rows: vec![identity(), queues(), disk(), connections()],
    }
}

fn identity() -> Row {
    let panels = vec![
        Panel::stat("Program", Unit::Count, "Version of the program that each node runs; the number is how many do.")
            .query("count by (version) (quorate_build_info{$s})", "{{version}}"),
        Panel::stat("Running for", Unit::Seconds, "Since the start of the process, the youngest of those selected.")
            .query("time() - max(quorate_start_time_seconds{$s})", "running"),
        Panel::stat("Epoch", Unit::Count, "Version of the topology that the selected nodes go by, the oldest of them.")
            .query("min(quorate_epoch{$s})", "epoch"),
        Panel::stat("Partitions", Unit::Count, "Copies of partitions on the selected nodes, over all n.")
            .query("sum(quorate_partitions_owned{$s})", "copies"),
        Panel::stat(
            "Certificate ends",
            Unit::Moment,
            "When the first certificate of the selected nodes ends to be valid.",
        )
        .query("min(quorate_certificate_expiry_timestamp_seconds{$s}) * 1000", "ends"),
        Panel::stat("Memory", Unit::Bytes, "Resident memory of the selected nodes, the largest of them.")
            .query("max(quorate_resident_bytes{$s})", "resident"),
    ];
    Row { title: "What it is", panels }
}

fn queues() -> Row {
    let panels = vec![
        Panel::lines("Inbox", Unit::Bytes, "What waits for the shards, by class: urgent first, then work, then repair.")
            .query("sum by (class) (quorate_inbox_bytes{$s})", "{{class}}"),
        Panel::lines("Oldest in the inbox", Unit::Seconds, "How long it has waited. Above 1 s clients are refused.")
            .warn_from(1.0)
            .query("max by (class) (quorate_inbox_oldest_seconds{$s})", "{{class}}"),
        Panel::lines(
            "Events per commit",
            Unit::Count,
            "How many events share one commit, and so one fsync: more under load, which is what makes load cheap.",
        )
        .query(
            "sum by (node) (rate(quorate_batch_events_sum{$s}[$r])) / sum by (node) (rate(quorate_batch_events_count{$s}[$r]))",
            "{{node}}",
        ),
        Panel::lines("Memory by node", Unit::Bytes, "Resident memory of each process, and how much it is configured to take.")
            .query("quorate_resident_bytes{$s}", "{{node}}")
            .query("min(quorate_resident_bytes_max{$s})", "configured, the least"),
    ];
    Row { title: "Queues and memory", panels }
}

fn disk() -> Row {
    let panels = vec![
        Panel::lines("Commits", Unit::Seconds, "A batch going to the disk: with sync, the fsync included; async without.")
            .percentiles("quorate_commit_duration_seconds", "", "durability", ["{{durability}}, half", "{{durability}}, 99%"]),
        Panel::lines("Rows per commit", Unit::Count, "Rows that go to the disk in one batch: objects, log, hints, marks.")
            .query(
                "sum by (node) (rate(quorate_commit_rows_sum{$s}[$r])) / sum by (node) (rate(quorate_commit_rows_count{$s}[$r]))",
                "{{node}}",
            ),
        Panel::lines("Free on the disk", Unit::Share, "Of the size of the disk on which the data folder lies.")
            .query("quorate_disk_free_bytes{$s} / quorate_disk_size_bytes{$s}", "{{node}}"),
        Panel::stack("Files of the database", Unit::Count, "By level. Many in level 0: writes come faster than they are merged.")
            .query("sum by (level) (quorate_storage_files{$s})", "level {{level}}"),
        Panel::lines("Bytes of the database", Unit::Bytes, "In files, and in memory on their way to files.")
            .query("quorate_storage_files_bytes{$s}", "{{node}}, in files")
            .query("quorate_storage_buffered_bytes{$s}", "{{node}}, in memory"),
        Panel::lines("Waiting to be merged", Unit::Bytes, "What compactions have yet to rewrite, as the database estimates it.")
            .query("quorate_storage_unmerged_bytes{$s}", "{{node}}"),
        Panel::lines("Writes slowed", Unit::Count, "1 while the database slows or stops writes until compactions have caught up.")
            .warn_from(1.0)
            .query("quorate_storage_slowed{$s}", "{{node}}"),
        Panel::lines("Cache", Unit::Share, "How full the caches of blocks and of objects are. A full one is normal.")
            .query("quorate_cache_bytes{$s} / quorate_cache_bytes_max{$s}", "{{node}}, blocks")
            .query("quorate_object_cache_bytes{$s} / quorate_object_cache_bytes_max{$s}", "{{node}}, objects"),
    ];
    Row { title: "Disk", panels }
}

fn connections() -> Row {
    let panels = vec![
        Panel::lines("Connections", Unit::Count, "That others made to the selected nodes, by plane.")
            .query("sum by (node, plane) (quorate_connections{$s})", "{{node}}, {{plane}}"),
        Panel::lines("Connections refused", Unit::PerSecond, "Refused or closed by the node, by reason.")
            .query("sum by (plane, reason) (rate(quorate_connections_refused_total{$s}[$r]))", "{{plane}}: {{reason}}"),
        Panel::lines(
            "Frames dropped",
            Unit::PerSecond,
            "As the other side did not take them in time. Timers see to what was in them.",
        )
        .query("sum by (plane) (rate(quorate_lane_dropped_total{$s}[$r]))", "{{plane}}"),
    ];
    Row { title: "Connections", panels }
}
