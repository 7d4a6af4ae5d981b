//! Events that only some worlds see: a search that never meets one has not looked there.

use super::faults::kinds;

kinds! {
    /// Something worth counting.
    Rare {
        // How nodes die, and what is left of them.
        DeathBeforeCommit = "deaths before a commit",
        DeathDuringFsync = "deaths during an fsync",
        DeathAmongEffects = "deaths among effects",
        DiskFailure = "disk failures noticed",
        BatchLost = "batches lost in a power cut",
        AsyncLost = "acked at async and lost",
        AckDuringCommit = "acks that came during a commit",
        ReadDuringCommit = "reads that went on during a commit",
        CommitSurvived = "commits that survived their process",
        // Repair.
        ReadRepair = "read repairs",
        HandedOff = "hints handed off",
        HintsFull = "hints refused, no room",
        Pulled = "pulls that brought something",
        PullPages = "pulls of several pages",
        BelowFloor = "pulls below a floor",
        FullSync = "full syncs",
        Misplaced = "pages with misplaced objects",
        SyncPages = "full syncs of several pages",
        SyncFromRebuilding = "full syncs from a node that rebuilds",
        NotReady = "questions to a node that rebuilds",
        Rebuilt = "shards rebuilt",
        Erased = "erasures",
        // What clients see.
        Forwarded = "writes handed to an owner",
        Unknown = "outcomes unknown",
        RetryKnown = "retries known as such",
        GivenUp = "requests given up",
        ConnectionBroken = "connections broken under a request",
        Siblings = "reads with siblings",
        SetAside = "reads that set writes aside",
        ShortRead = "short reads",
        ValueHeld = "fetches that name values held",
        RepairingRead = "reads that repair",
        ClockAhead = "timestamps too far ahead",
        RefusedUnavailable = "refused: unavailable",
        RefusedOverloaded = "refused: overloaded",
        RefusedDeadline = "refused: deadline passed",
        RefusedDiskReserve = "refused: disk reserve",
        RefusedShuttingDown = "refused: shutting down",
        // The network.
        Damaged = "damaged frames",
        LinkBroken = "links broken",
    }
}
