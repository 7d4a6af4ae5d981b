//! The load of a round, and the reading back.
//!
//! Every record is written once, under a key of its own, and its bytes follow from its number: so what is found can
//! be judged without keeping what was written.

use crate::sequence::Sequence;
use quorate_client::{Client, ConnectError, Declined, Profile, ProfileError, ReadOptions, WriteError, WriteOptions};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const BUCKET: &str = "default";
const VALUE_BYTES_MAX: u64 = 4096;
const READERS: u16 = 64;
/// A load is under way once so many puts were acknowledged.
const WARM: u64 = 50;
const WARM_LIMIT: Duration = Duration::from_secs(30);
const READ_DEADLINE: Duration = Duration::from_secs(20);
/// How long a put may take, and so how long a round waits for those that the cut left without an answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(3);
/// After a refusal a writer waits for a moment.
const BREATH: Duration = Duration::from_millis(10);

/// Why there was no load, or no reading back.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Profile(#[from] ProfileError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the threads of the client could not be started: {0}")]
    Threads(std::io::Error),
    #[error("{acknowledged} puts were acknowledged in {} s, too few to cut into; the last failure: {last}", WARM_LIMIT.as_secs())]
    Cold { acknowledged: u64, last: String },
    #[error("a record could not be read: {0}")]
    Read(#[from] Declined),
}

/// What became of the puts of one round, by the numbers of their records.
#[derive(Default)]
pub struct Written {
    pub acknowledged: Vec<u64>,
    pub unknown: Vec<u64>,
    pub refused: Vec<u64>,
    last_failure: Option<String>,
}

/// What was found of records that ought to be there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    pub same: usize,
    pub missing: usize,
    pub different: usize,
}

impl Found {
    pub fn all(&self) -> usize {
        self.same + self.missing + self.different
    }

    pub fn complete(&self) -> bool {
        self.missing == 0 && self.different == 0
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} there byte for byte, {} missing, {} different", self.same, self.missing, self.different)
    }
}

/// Writes and reads records of one seed.
pub struct Load {
    threads: Runtime,
    profile: Profile,
    seed: u64,
}

/// What the writers of one round share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

impl Load {
    pub fn new(profile: &Path, seed: u64) -> Result<Self, LoadError> {
        let threads = Runtime::new().map_err(LoadError::Threads)?;
        Ok(Self { threads, profile: Profile::load(profile)?, seed })
    }

    /// Puts records without a pause; `cut` is called in the midst of it, `time` after the load got going.
    pub fn write<E: From<LoadError>>(
        &self,
        round: u64,
        writers: u16,
        time: Duration,
        cut: impl FnOnce() -> Result<(), E>,
    ) -> Result<Written, E> {
        let client = self.threads.block_on(Client::connect(&self.profile)).map_err(LoadError::from)?;
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for writer in 0..writers {
            let first = record_number(round, writer, 0);
            let writing = write_on(client.clone(), Arc::clone(&shared), self.seed, first);
            tasks.spawn_on(writing, self.threads.handle());
        }
        let warm = shared.wait_warm();
        let was_cut = if warm {
            std::thread::sleep(time);
            cut()
        } else {
            Ok(())
        };
        shared.stop.store(true, Ordering::Relaxed);
        let written = self.threads.block_on(async {
            let parts = tasks.join_all().await;
            client.close().await;
            parts.into_iter().fold(Written::default(), Written::and)
        });
        was_cut?;
        match warm {
            true => Ok(written),
            false => Err(LoadError::Cold {
                acknowledged: written.acknowledged.len() as u64,
                last: written.last_failure.unwrap_or_else(|| "none".to_string()),
            }
            .into()),
        }
    }

    /// Reads records that have to be there.
    pub fn check(&self, numbers: &[u64]) -> Result<Found, LoadError> {
        let numbers: Arc<[u64]> = numbers.into();
        self.threads.block_on(async {
            let client = Client::connect(&self.profile).await?;
            let mut tasks = JoinSet::new();
            for reader in 0..READERS {
                tasks.spawn(read_every(client.clone(), self.seed, Arc::clone(&numbers), usize::from(reader)));
            }
            let parts = tasks.join_all().await;
            client.close().await;
            let mut found = Found::default();
            for part in parts {
                let part = part?;
                found.same += part.same;
                found.missing += part.missing;
                found.different += part.different;
            }
            Ok(found)
        })
    }
}

impl Shared {
    /// Whether the load got going in time.
    fn wait_warm(&self) -> bool {
        let began = Instant::now();
        while self.acknowledged.load(Ordering::Relaxed) < WARM {
            if began.elapsed() > WARM_LIMIT {
                return false;
            }
            std::thread::sleep(BREATH);
        }
        true
    }
}

impl Written {
    fn and(mut self, other: Self) -> Self {
        self.acknowledged.extend(other.acknowledged);
        self.unknown.extend(other.unknown);
        self.refused.extend(other.refused);
        self.last_failure = other.last_failure.or(self.last_failure);
        self
    }
}

async fn write_on(client: Client, shared: Arc<Shared>, seed: u64, first: u64) -> Written {
    let options = WriteOptions { deadline: WRITE_DEADLINE, ..WriteOptions::default() };
    let mut written = Written::default();
    for number in first.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        match client.put(BUCKET, key(number), value(seed, number), &options).await {
            Ok(_) => {
                written.acknowledged.push(number);
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(WriteError::Unknown(doubt)) => {
                written.unknown.push(number);
                written.last_failure = Some(doubt.to_string());
            }
            Err(WriteError::NotApplied(declined)) => {
                written.refused.push(number);
                written.last_failure = Some(declined.to_string());
                tokio::time::sleep(BREATH).await;
            }
        }
    }
    written
}

/// One of `READERS`: each takes every so-many-th record.
async fn read_every(client: Client, seed: u64, numbers: Arc<[u64]>, first: usize) -> Result<Found, Declined> {
    let options = ReadOptions { deadline: READ_DEADLINE, ..ReadOptions::default() };
    let mut found = Found::default();
    for number in numbers.iter().skip(first).step_by(usize::from(READERS)) {
        let answer = client.get(BUCKET, key(*number), &options).await?;
        match answer.siblings.as_slice() {
            [] => found.missing += 1,
            [one] if one.value == value(seed, *number) => found.same += 1,
            _ => found.different += 1,
        }
    }
    Ok(found)
}

/// Round, writer and count in one number: no two records are the same.
fn record_number(round: u64, writer: u16, count: u64) -> u64 {
    (round << 48) | (u64::from(writer) << 32) | count
}

fn key(number: u64) -> Vec<u8> {
    format!("crash/{number:016x}").into_bytes()
}

/// 1 to `VALUE_BYTES_MAX` bytes that follow from seed and number.
fn value(seed: u64, number: u64) -> Vec<u8> {
    let mut sequence = Sequence::new(seed ^ number);
    let length = 1 + sequence.draw() % VALUE_BYTES_MAX;
    std::iter::repeat_with(|| sequence.draw().to_le_bytes()).flatten().take(length as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn records_are_all_different_and_always_the_same() {
        let numbers = [record_number(1, 0, 0), record_number(1, 0, 1), record_number(1, 1, 0), record_number(2, 0, 0)];
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
        let values: BTreeSet<Vec<u8>> = numbers.iter().map(|number| value(7, *number)).collect();
        assert_eq!(values.len(), numbers.len());
        assert!(values.iter().all(|value| (1..=VALUE_BYTES_MAX as usize).contains(&value.len())));
        assert_eq!(value(7, numbers[2]), value(7, numbers[2]));
        assert_ne!(value(7, numbers[2]), value(8, numbers[2]));
    }
}
