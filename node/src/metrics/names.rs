//! Every metric that a node shows: its name, its kind, its labels, and what it means. There is no other place for them.

/// What kind of series a metric is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Counter,
    Gauge,
    /// With the buckets of seconds, or of counts, by its name.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $constant:ident = $name:literal $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// All of them.
        pub const ALL: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, labels: &$labels, help: $help },)*];
    };
}

metrics! {
    // The node.
    Gauge BUILD_INFO = "quorate_build_info" ["version"], "The program that runs; always 1.";
    Gauge START_TIME = "quorate_start_time_seconds" [], "When the node started, since 1970.";
    Gauge STATE = "quorate_state" ["state"], "1 for the state that the node is in.";
    Gauge EPOCH = "quorate_epoch" [], "Version of the topology that the node goes by.";
    Gauge NODES = "quorate_nodes" ["state"], "Nodes of the cluster as this node sees them, itself among the ones that are up.";
    Gauge PEER_UP = "quorate_peer_up" ["peer"], "1 while a peer answers its pings.";
    Gauge CLOCK_OFFSET = "quorate_clock_offset_seconds" ["peer"], "How far the wall clock of a peer is ahead of this node's.";
    Counter CLOCK_AHEAD = "quorate_clock_ahead_total" [], "Timestamps too far ahead of the wall clock, kept as data only.";

    // Requests of clients.
    Counter REQUESTS = "quorate_requests_total" ["op", "consistency", "outcome"], "Requests of clients that this node answered as their coordinator, or refused.";
    Histogram REQUEST_DURATION = "quorate_request_duration_seconds" ["op", "consistency"], "From taking a request to its answer, at the coordinator.";
    Histogram RPC_DURATION = "quorate_replica_rpc_duration_seconds" ["kind"], "From asking a peer for its part to its answer.";
    Gauge OPERATIONS = "quorate_operations" [], "Requests under way, of clients and of the node itself.";
    Counter INBOX_REFUSED = "quorate_inbox_refused_total" [], "Requests refused before they were looked at, because too much waited.";
    Gauge INBOX_BYTES = "quorate_inbox_bytes" ["class"], "What waits for the shards, by class of service.";
    Gauge INBOX_OLDEST = "quorate_inbox_oldest_seconds" ["class"], "How long the oldest event that waits for a shard has waited.";

    // Availability.
    Gauge PARTITIONS = "quorate_partitions" ["op", "state"], "Partitions by how many of their owners are within reach of this node: all, quorum (more than half), no_quorum.";
    Gauge PARTITIONS_OWNED = "quorate_partitions_owned" [], "Partitions of which this node keeps a copy.";

    // Replication.
    Gauge LAG_DOTS = "quorate_lag_dots" ["peer"], "Writes that this node has and that a peer lacks, over the partitions of both. Exact, as of the peer's last word.";
    Gauge LAG_OLDEST = "quorate_lag_oldest_seconds" ["peer"], "How long the oldest write that a peer lacks has been here; from this node's start at the earliest.";
    Gauge CLOCK_KNOWN = "quorate_peer_clock_known" ["peer"], "1 once a peer has told what it has. Before, its lag is not known and shown as 0.";
    Histogram ACK_SPREAD = "quorate_ack_spread_seconds" ["owners"], "From the first owner that holds a write to the one that makes it so many, late ones included.";
    Counter MERGED_DOTS = "quorate_merged_dots_total" [], "Writes that objects sent by peers brought in.";
    Counter CANARIES = "quorate_canaries_total" [], "Canaries written.";
    Histogram CANARY_DURATION = "quorate_canary_duration_seconds" ["peer"], "From writing a canary until a peer shows it.";
    Gauge CANARY_WAITING = "quorate_canary_waiting_seconds" ["peer"], "How long a peer has owed the canary; 0 once it shows it.";

    // Hints.
    Gauge HINTS_PENDING = "quorate_hints_pending" ["peer"], "Hints that this node keeps for a peer.";
    Gauge HINTS_BYTES = "quorate_hints_bytes" ["peer"], "Bytes of the hints that this node keeps for a peer.";
    Gauge HINTS_OLDEST = "quorate_hints_oldest_seconds" ["peer"], "Age of the oldest write among the hints for a peer that were not delivered.";
    Gauge HINTS_BYTES_MAX = "quorate_hints_bytes_max" [], "Bytes of hints for one peer beyond which new ones are refused.";
    Counter HANDED_OFF = "quorate_hints_handed_off_total" [], "Hints that were delivered to their owner, and forgotten here.";

    // Repair.
    Counter READ_REPAIRS = "quorate_read_repairs_total" [], "Owners that a read found behind, and that were sent the union.";
    Counter PULLED_DOTS = "quorate_pulled_dots_total" [], "Writes that pulls from other owners brought in.";
    Counter FULL_SYNCS = "quorate_full_syncs_total" [], "Partitions copied whole from another owner.";
    Counter MISPLACED = "quorate_misplaced_objects_total" [], "Objects of a pull or full sync that were not asked for, and were not taken.";
    Gauge COPIES_NEEDED = "quorate_rebuilding_copies_needed" [], "Copies of partitions that the node has to make before it has rebuilt; 0 while it does not rebuild.";
    Gauge COPIES_MADE = "quorate_rebuilding_copies_made" [], "Copies of partitions that a rebuilding node has made.";
    Counter SET_ASIDE = "quorate_set_aside_total" [], "Concurrent writes that reads of lww buckets did not show.";
    Histogram SIBLINGS = "quorate_read_siblings" [], "Siblings that a read found.";
    Gauge LOG_ENTRIES = "quorate_log_unsettled" [], "Entries of the log that not all owners are known to have seen.";
    Gauge ERASABLE = "quorate_erasable_unsettled" [], "Keys that wait to be erased until all owners have seen it: tombstones, and values that expire.";
    Counter ERASED = "quorate_erased_objects_total" [], "Tombstones and expired objects that were settled, and went.";

    // Connections.
    Gauge CONNECTIONS = "quorate_connections" ["plane"], "Connections that others made to this node, those being made included.";
    Counter CONNECTIONS_REFUSED = "quorate_connections_refused_total" ["plane", "reason"], "Connections refused or closed by this node, by reason.";
    Counter LANE_DROPPED = "quorate_lane_dropped_total" ["plane"], "Times that frames were dropped because the other side did not take them.";
    Gauge CERTIFICATE_EXPIRY = "quorate_certificate_expiry_timestamp_seconds" [], "When the certificate of the node ends to be valid, since 1970.";

    // Disk and memory.
    Histogram COMMIT_DURATION = "quorate_commit_duration_seconds" ["durability"], "A batch going to the disk; with sync, the fsync included.";
    Histogram COMMIT_ROWS = "quorate_commit_rows" [], "Rows of a batch, and runs that it cuts off the log.";
    Histogram BATCH_EVENTS = "quorate_batch_events" [], "Events that a shard handled between two commits.";
    Gauge DISK_FREE = "quorate_disk_free_bytes" [], "Free space on the disk of the data folder.";
    Gauge DISK_SIZE = "quorate_disk_size_bytes" [], "Size of the disk of the data folder.";
    Gauge DISK_RESERVE = "quorate_disk_reserve_bytes" [], "Free space under which writes of clients are refused.";
    Gauge STORE_FILES = "quorate_storage_files" ["level"], "Files of the database, by level.";
    Gauge STORE_BYTES = "quorate_storage_files_bytes" [], "Bytes of the files of the database.";
    Gauge STORE_UNMERGED = "quorate_storage_unmerged_bytes" [], "What compactions have yet to rewrite, about.";
    Gauge STORE_BUFFERED = "quorate_storage_buffered_bytes" [], "Rows in memory that are not in files yet; the log on disk has them.";
    Gauge STORE_SLOWED = "quorate_storage_slowed" [], "1 while the database slows or stops writes until compactions have caught up.";
    Gauge CACHE_BYTES = "quorate_cache_bytes" [], "Blocks of files that the cache holds.";
    Gauge CACHE_BYTES_MAX = "quorate_cache_bytes_max" [], "How much the cache may hold.";
    Gauge OBJECT_CACHE_BYTES = "quorate_object_cache_bytes" [], "Objects that were written not long ago, or read more than once, held in memory.";
    Gauge OBJECT_CACHE_BYTES_MAX = "quorate_object_cache_bytes_max" [], "How much of them may be held.";
    Gauge RESIDENT = "quorate_resident_bytes" [], "Memory that the process has resident.";
    Gauge RESIDENT_MAX = "quorate_resident_bytes_max" [], "How much of that it is configured to take.";
}
