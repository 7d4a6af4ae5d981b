//! A cluster of real processes, watched by a real Prometheus. Both end with the value, whichever way it ends.

use quorate_client::{Client, Count, Durability, Profile, QuorumKind, ReadOptions, WriteOptions};
use quorate_ops::observe::prometheus::{self, Sample};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long Prometheus may be silent.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

pub struct Watched {
    folder: tempfile::TempDir,
    prometheus: SocketAddr,
}

/// Cargo puts programs beside the folder of the tests. `./ops/test` builds them first.
fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it lies");
    let beside = |folder: &Path| Some(folder.join(name)).filter(|path| path.exists());
    let folders = [own.parent(), own.parent().and_then(Path::parent)];
    let found = folders.into_iter().flatten().find_map(beside);
    found.unwrap_or_else(|| panic!("there is no {name}: cargo build --release --workspace --bins"))
}

/// Whether there is a Prometheus on this machine; a word of it if not.
pub fn installed() -> bool {
    let both = ["prometheus", "promtool"].into_iter().all(|program| prometheus::find(program).is_some());
    if !both {
        println!("skipped: prometheus is not installed (apt-get install prometheus)");
    }
    both
}

impl Watched {
    /// Starts the nodes and then Prometheus, each as told on the command line of `quorate-lab up`.
    pub fn up(arguments: &[&[&str]]) -> Self {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut watched = Self { folder: tempfile::tempdir().expect("a temporary folder"), prometheus: nowhere };
        for arguments in arguments {
            watched.lab(&[&["up"][..], *arguments].concat());
        }
        let folder = quorate_ops::folder::Folder::at(&watched.dir()).expect("a path");
        watched.prometheus = prometheus::running(&folder).expect("it was just started").prometheus.address;
        watched
    }

    /// Where the lab lies.
    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    /// Runs a command of `quorate-lab` that has to succeed.
    pub fn lab(&self, arguments: &[&str]) {
        let done = Command::new(program("quorate-lab")).arg("--dir").arg(self.dir()).args(arguments).output();
        let done = done.expect("quorate-lab runs");
        assert!(done.status.success(), "quorate-lab {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub async fn client(&self) -> Client {
        let profile = Profile::load(&self.dir().join("client.toml")).expect("the lab wrote it");
        Client::connect(&profile).await.expect("the nodes are up")
    }

    pub fn prometheus(&self) -> SocketAddr {
        self.prometheus
    }

    /// The value of an expression now. On a machine that is busy Prometheus may take its time.
    pub fn query(&self, expression: &str) -> Vec<Sample> {
        let began = Instant::now();
        loop {
            match prometheus::query(self.prometheus, expression) {
                Ok(samples) => return samples,
                Err(error) if began.elapsed() > ANSWER_LIMIT => panic!("{error}"),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// Waits until `enough` is content with the value of an expression; what it was then.
    #[track_caller]
    pub fn wait_for(&self, expression: &str, limit: Duration, enough: impl Fn(&[Sample]) -> bool) -> Vec<Sample> {
        let began = Instant::now();
        loop {
            let samples = self.query(expression);
            if enough(&samples) {
                return samples;
            }
            assert!(began.elapsed() < limit, "{expression} after {} s: {samples:?}", limit.as_secs());
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let destroy = Command::new(program("quorate-lab")).arg("--dir").arg(self.dir()).arg("destroy").status();
        if !std::thread::panicking() {
            assert!(destroy.is_ok_and(|status| status.success()), "the lab does not end");
        }
    }
}

/// Puts, deletes and gets of all kinds, until they are stopped. Whether they succeed is not looked at.
pub struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start(client: &Client, tasks: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks = (0..tasks).map(|_| tokio::spawn(load(client.clone(), stop.clone()))).collect();
        Self { stop, tasks }
    }

    pub async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a load does not panic");
        }
    }
}

async fn load(client: Client, stop: Arc<AtomicBool>) {
    let sloppy = WriteOptions { quorum: Some(QuorumKind::Sloppy), w: Some(Count::All), ..WriteOptions::default() };
    let plain = WriteOptions::default();
    let fast = WriteOptions { durability: Some(Durability::Async), w: Some(Count::One), ..WriteOptions::default() };
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = format!("key-{}", number % 500);
        let _down_perhaps = match number % 4 {
            0 => client.put("sloppy", key.clone(), "value", &sloppy).await,
            1 => client.put("lww", key.clone(), "value", &fast).await,
            2 => client.delete("default", key.clone(), &plain).await,
            _ => client.put("default", key.clone(), "value", &plain).await,
        };
        let _absent_perhaps = client.get("default", key, &ReadOptions::default()).await;
    }
}
