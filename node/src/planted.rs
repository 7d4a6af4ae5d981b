//! Bugs on purpose: the simulation plants one, and its checks must find it. No program of ours is built with them.
//!
//! Each hook asks [`is`], which is `false` at compile time unless the feature `planted-bugs` is on.

/// Where the store goes wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// Acks leave, and the batch waits for the next commit.
    AckBeforeCommit,
    AckAtWMinusOne,
    CoordinatorCountedTwice,
    /// A merge drops concurrent siblings that were here before.
    DroppedSibling,
    /// Answers to reads leave, and the batch that they were served from waits for the next commit.
    ReadUncommitted,
    /// A read during a commit is answered from what is being committed.
    ReadUnderWay,
    /// "Absent" is said during a commit, with a clock that knows what is being committed.
    AbsentUnderWay,
    /// An owner leaves values out of its answer that the reader does not hold.
    ValueNotHeld,
    /// A node that starts does not remember its last events.
    DotReuse,
    ExpiredDeadlineExecuted,
    /// A write to which nobody answered counts as written.
    QuorumWaived,
    /// A node that refuses because it is no owner counts as one that wrote.
    NonOwnerCounted,
    OverwriteInsteadOfMerge,
    RepairSkipsEmpty,
    /// An object lets the op ids of superseded events go as soon as every owner has seen them.
    SettledOpForgotten,
    /// From here on, those of the model.
    GcOwnDot,
    AckForgetsMore,
    ServeAfterWipe,
    KeepActor,
    IgnoreClock,
    ClockBeforeData,
    SyncKeepsStale,
    SyncGap,
    ResumeNewClock,
}

#[cfg(feature = "planted-bugs")]
mod on {
    use super::Bug;
    use std::cell::Cell;

    impl Bug {
        pub const ALL: [Bug; 24] = [
            Bug::AckBeforeCommit,
            Bug::AckAtWMinusOne,
            Bug::CoordinatorCountedTwice,
            Bug::DroppedSibling,
            Bug::ReadUncommitted,
            Bug::ReadUnderWay,
            Bug::AbsentUnderWay,
            Bug::ValueNotHeld,
            Bug::DotReuse,
            Bug::ExpiredDeadlineExecuted,
            Bug::QuorumWaived,
            Bug::NonOwnerCounted,
            Bug::OverwriteInsteadOfMerge,
            Bug::RepairSkipsEmpty,
            Bug::SettledOpForgotten,
            Bug::GcOwnDot,
            Bug::AckForgetsMore,
            Bug::ServeAfterWipe,
            Bug::KeepActor,
            Bug::IgnoreClock,
            Bug::ClockBeforeData,
            Bug::SyncKeepsStale,
            Bug::SyncGap,
            Bug::ResumeNewClock,
        ];

        pub fn name(self) -> &'static str {
            match self {
                Bug::AckBeforeCommit => "ack-before-commit",
                Bug::AckAtWMinusOne => "ack-at-w-minus-one",
                Bug::CoordinatorCountedTwice => "coordinator-counted-twice",
                Bug::DroppedSibling => "dropped-sibling",
                Bug::ReadUncommitted => "read-uncommitted",
                Bug::ReadUnderWay => "read-under-way",
                Bug::AbsentUnderWay => "absent-under-way",
                Bug::ValueNotHeld => "value-not-held",
                Bug::DotReuse => "dot-reuse",
                Bug::ExpiredDeadlineExecuted => "expired-deadline-executed",
                Bug::QuorumWaived => "quorum-waived",
                Bug::NonOwnerCounted => "non-owner-counted",
                Bug::OverwriteInsteadOfMerge => "overwrite-instead-of-merge",
                Bug::RepairSkipsEmpty => "repair-skips-empty",
                Bug::SettledOpForgotten => "settled-op-forgotten",
                Bug::GcOwnDot => "gc-own-dot",
                Bug::AckForgetsMore => "ack-forgets-more",
                Bug::ServeAfterWipe => "serve-after-wipe",
                Bug::KeepActor => "keep-actor",
                Bug::IgnoreClock => "ignore-clock",
                Bug::ClockBeforeData => "clock-before-data",
                Bug::SyncKeepsStale => "sync-keeps-stale",
                Bug::SyncGap => "sync-gap",
                Bug::ResumeNewClock => "resume-new-clock",
            }
        }
    }

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug in everything that runs on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use on::{is, plant};

/// Whether a bug is planted: never, in this build.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is(_: Bug) -> bool {
    false
}
