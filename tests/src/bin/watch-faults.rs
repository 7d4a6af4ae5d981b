//! A run of faults under load, watched: after each it is asserted, by queries, that the panels and alerts that ought to
//! move do, and that they come back. Afterwards pictures of the dashboards may be taken of it.
//!
//! Needs Prometheus, and root for disks that can be filled; for pictures also Chromium. Takes some minutes.

use clap::Parser;
use quorate_tests::watched::{Load, Watched, installed};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Of the rates that are asked for.
const LIMIT: Duration = Duration::from_secs(60);
/// The size of a picture.
const PICTURES: [(&str, u32); 4] =
    [("quorate-overview", 1560), ("quorate-requests", 1440), ("quorate-replication", 2200), ("quorate-node", 1840)];

/// Watches a run of faults.
#[derive(Parser)]
struct Arguments {
    /// Folder for pictures of the dashboards, taken at the end.
    #[arg(long, value_name = "FOLDER")]
    pictures: Option<PathBuf>,
}

/// Links that can be cut, and disks that can be filled.
const UP: &[&str] = &["--nodes", "5", "--racks", "5", "--faults", "--disk", "512", "--observe"];

struct Run {
    cluster: Watched,
    began: Instant,
}

impl Run {
    fn say(&self, what: &str) {
        println!("{:5.0} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Waits until an expression has a value at all: a panel has moved, an alert fires.
    #[track_caller]
    fn moves(&self, what: &str, expression: &str) {
        self.cluster.wait_for(expression, LIMIT, |samples| !samples.is_empty());
        self.say(&format!("seen: {what}"));
    }

    /// Waits until it has none any more.
    #[track_caller]
    fn comes_back(&self, what: &str, expression: &str) {
        self.cluster.wait_for(expression, LIMIT, <[_]>::is_empty);
        self.say(&format!("over: {what}"));
    }

    /// A fault, what has to move with it, the way back, after which all of that has to have come back.
    fn fault(&self, name: &str, begin: impl FnOnce(), end: impl FnOnce(), signs: &[(&str, String)]) {
        self.say(&format!("== {name}"));
        begin();
        signs.iter().for_each(|(what, expression)| self.moves(what, expression));
        end();
        signs.iter().for_each(|(what, expression)| self.comes_back(what, expression));
    }

    fn lab(&self, arguments: &[&str]) {
        self.cluster.lab(arguments);
    }

    fn killed(&self) {
        let signs = [
            ("a node is down", "up == 0".to_string()),
            ("its peers say so", "max(quorate_nodes{state=\"down\"}) > 0".to_string()),
            ("alert QuorateNodeDown", alert("QuorateNodeDown", "node=\"n5\"")),
            ("partitions miss an owner", "quorate:partitions:worst{op=\"write\", state=\"quorum\"} > 0".to_string()),
            ("it lacks writes", "max(quorate_lag_dots{peer=\"n5\"}) > 100".to_string()),
            ("hints are kept for it", "sum(quorate_hints_pending{peer=\"n5\"}) > 0".to_string()),
        ];
        self.fault("n5 is killed", || self.lab(&["kill", "n5"]), || self.lab(&["restart", "n5"]), &signs);
        self.moves("hints were handed off", "sum(quorate_hints_handed_off_total) > 0");
    }

    fn paused(&self) {
        let signs = [
            ("alert QuorateNodeDown", alert("QuorateNodeDown", "node=\"n4\"")),
            ("it owes canaries", "max(quorate_canary_waiting_seconds{peer=\"n4\"}) > 5".to_string()),
            ("alert QuorateCanaryLate", alert("QuorateCanaryLate", "peer=\"n4\"")),
            ("its lag has an age", "max(quorate_lag_oldest_seconds{peer=\"n4\"}) > 10".to_string()),
        ];
        self.fault("n4 is paused", || self.lab(&["pause", "n4"]), || self.lab(&["resume", "n4"]), &signs);
        self.moves("it pulled what it lacked", "increase(quorate_pulled_dots_total{node=\"n4\"}[1m]) > 0");
    }

    fn without_a_quorum(&self) {
        let signs = [
            // Any one node takes the quorum from a fifth of the partitions of which there is one copy.
            (
                "partitions of three copies have no quorum",
                "quorate:partitions:worst{state=\"no_quorum\"} > 110".to_string(),
            ),
            ("alert QuoratePartitionsWithoutQuorum", alert("QuoratePartitionsWithoutQuorum", "op=\"write\"")),
            (
                "requests are unavailable",
                "sum(rate(quorate_requests_total{outcome=\"unavailable\"}[10s])) > 0".to_string(),
            ),
        ];
        let (begin, end) = (|| self.lab(&["kill", "n1", "n2"]), || self.lab(&["restart", "n1", "n2"]));
        self.fault("n1 and n2 are killed", begin, end, &signs);
    }

    /// Every process runs, and answers Prometheus; they do not hear each other.
    fn cut(&self) {
        let signs = [
            (
                "nodes that run are down to others",
                "max(quorate_nodes{state=\"down\"}) > 0 and min(up) == 1".to_string(),
            ),
            (
                "partitions have no quorum on one side",
                "quorate:partitions:worst{state=\"no_quorum\"} > 110 and on() min(up) == 1".to_string(),
            ),
            ("alert QuoratePartitionsWithoutQuorum", alert("QuoratePartitionsWithoutQuorum", "op=\"write\"")),
            ("one side lacks writes of the other", "max(quorate_lag_dots{peer=~\"n1|n2\"}) > 100".to_string()),
            ("they grow old", "max(quorate_lag_oldest_seconds{peer=~\"n1|n2\"}) > 10".to_string()),
        ];
        let begin = || self.lab(&["partition", "n1,n2 | n3,n4,n5"]);
        self.fault("n1,n2 and n3,n4,n5 are cut off from each other", begin, || self.lab(&["heal"]), &signs);
    }

    fn wiped(&self) {
        let copied = self.cluster.query("sum(quorate_full_syncs_total{node=\"n3\"})");
        assert!(copied.iter().all(|sample| sample.value == 0.0), "{copied:?}");
        self.say("== n3 loses its disk");
        self.lab(&["wipe", "n3"]);
        self.moves("partitions were copied whole", "sum(quorate_full_syncs_total{node=\"n3\"}) > 0");
        self.moves("it serves again", "quorate_state{node=\"n3\", state=\"serving\"} == 1");
        self.comes_back("it lacks no old writes", "max(quorate_lag_oldest_seconds{peer=\"n3\"}) > 2");
    }

    fn full_disk(&self) {
        let signs = [
            ("less than the reserve is free", "quorate_disk_free_bytes - quorate_disk_reserve_bytes < 0".to_string()),
            ("alert QuorateDiskReserve", alert("QuorateDiskReserve", "node=\"n2\"")),
        ];
        let (begin, end) = (|| self.lab(&["fill-disk", "n2"]), || self.lab(&["free-disk", "n2"]));
        self.fault("the disk of n2 is full", begin, end, &signs);
    }

    fn pictures(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("a folder");
        let pages = self.cluster.dir().join("preview");
        let minutes = (self.began.elapsed().as_secs() / 60 + 1).to_string();
        let url = format!("http://{}", self.cluster.prometheus());
        self.lab(&["dashboards", &pages.display().to_string(), "--preview", &url, "--minutes", &minutes]);
        for (name, height) in PICTURES {
            let picture = folder.join(format!("{name}.png"));
            let done = Command::new("chromium")
                .args([
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--hide-scrollbars",
                    "--virtual-time-budget=20000",
                ])
                .arg(format!("--window-size=1600,{height}"))
                .arg(format!("--screenshot={}", picture.display()))
                .arg(format!("file://{}", pages.join(format!("{name}.html")).display()))
                .output();
            assert!(done.is_ok_and(|done| done.status.success()) && picture.exists(), "no picture of {name}");
            self.say(&format!("drawn: {}", picture.display()));
        }
    }
}

fn alert(name: &str, labels: &str) -> String {
    format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\", {labels}}}")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let arguments = Arguments::parse();
    if !installed() {
        return;
    }
    let run = Run { cluster: Watched::up(&[UP]), began: Instant::now() };
    let client = run.cluster.client().await;
    let load = Load::start(&client, 4);
    tokio::task::block_in_place(|| {
        run.moves("requests are served", "sum(rate(quorate_requests_total{outcome=\"ok\"}[10s])) > 0");
        run.killed();
        run.paused();
        run.cut();
        run.wiped();
        run.full_disk();
        run.without_a_quorum();
        std::thread::sleep(Duration::from_secs(15));
        run.comes_back("every lag that is older than what is on its way", "quorate_lag_oldest_seconds > 2");
        run.comes_back("alerts, all of them", "ALERTS{alertname!~\"QuorateAvailability.*|QuorateRestarting\"}");
        if let Some(folder) = &arguments.pictures {
            run.pictures(folder);
        }
    });
    load.stop().await;
    client.close().await;
    println!("every fault was seen, and its end");
}
