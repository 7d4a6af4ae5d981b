//! Names: what nodes show, what dashboards and rules ask for, what the runbook explains. And promtool's opinion of it.
#![allow(clippy::unwrap_used)]

use quorate_node::metrics::names::{ALL, Kind};
use quorate_ops::observe::board::ANNOTATIONS;
use quorate_ops::observe::boards;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Metrics that are on no panel, and why.
const ON_NO_PANEL: [(&str, &str); 0] = [];

fn grafana() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../grafana")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(grafana().join(path)).unwrap_or_else(|error| panic!("grafana/{path}: {error}"))
}

fn rules() -> String {
    ["recording", "slo", "causes"].map(|name| read(&format!("prometheus/rules/{name}.yml"))).concat()
}

/// Every name of ours in a text; recorded ones have a colon.
fn names(text: &str) -> BTreeSet<String> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !in_name(c))
        .filter(|word| word.starts_with("quorate_") || word.starts_with("quorate:"))
        .map(str::to_string)
        .collect()
}

/// The names of the series that a metric is made of.
fn series(name: &str, kind: Kind) -> Vec<String> {
    match kind {
        Kind::Counter | Kind::Gauge => vec![name.to_string()],
        Kind::Histogram => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).into(),
    }
}

fn of_panels() -> BTreeSet<String> {
    let boards = boards::all();
    let queries = boards.iter().flat_map(|board| board.panels()).flat_map(|panel| &panel.queries);
    queries.flat_map(|query| names(&query.expression)).collect()
}

/// What follows `key: ` at the beginning of a line.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter_map(move |line| line.trim_start().trim_start_matches("- ").strip_prefix(key)?.strip_prefix(": "))
}

#[test]
fn what_is_asked_for_is_shown_or_recorded() {
    let shown: BTreeSet<String> = ALL.iter().flat_map(|metric| series(metric.name, metric.kind)).collect();
    let rules = rules();
    let recorded: BTreeSet<String> = values(&rules, "record").map(str::to_string).collect();
    let annotations = ANNOTATIONS.map(|(_, _, expression, _)| expression).join(" ");
    let asked: BTreeSet<String> = of_panels().into_iter().chain(names(&rules)).chain(names(&annotations)).collect();
    let unknown: Vec<&String> =
        asked.iter().filter(|name| !shown.contains(*name) && !recorded.contains(*name)).collect();
    assert!(unknown.is_empty(), "nobody shows {unknown:?}");
    let unused: Vec<&String> =
        recorded.iter().filter(|name| rules.matches(*name).count() == 1 && !of_panels().contains(*name)).collect();
    assert!(unused.is_empty(), "{unused:?} are recorded for nobody");
}

#[test]
fn what_is_shown_is_on_a_panel() {
    let rules = rules();
    let panels = of_panels();
    // A panel may show what a rule records of it.
    let recorded = |name: &str| {
        rules
            .split("- record: ")
            .skip(1)
            .any(|rule| rule.contains(name) && panels.contains(rule.lines().next().unwrap_or_default()))
    };
    for metric in ALL {
        let on_one = series(metric.name, metric.kind).iter().any(|name| panels.contains(name) || recorded(name));
        let excused = ON_NO_PANEL.iter().any(|(name, why)| *name == metric.name && !why.is_empty());
        assert!(on_one != excused, "{} is on a panel: {on_one}, on the list of exceptions: {excused}", metric.name);
    }
}

#[test]
fn each_alert_is_explained_and_tested_both_ways() {
    let (rules, runbook) = (rules(), read("RUNBOOK.md"));
    let tests = ["causes", "slo_fast", "slo_slow"].map(|name| read(&format!("prometheus/tests/{name}.yml"))).concat();
    let alerts: Vec<&str> = values(&rules, "alert").collect();
    assert!(alerts.len() > 15, "{alerts:?}");
    for alert in &alerts {
        assert!(runbook.contains(&format!("\n## {alert}\n")), "{alert} is not in the runbook");
        assert!(rules.contains(&format!("runbook: grafana/RUNBOOK.md#{}\n", alert.to_lowercase())), "{alert}");
        let looks = tests.split("- eval_time: ").skip(1).filter(|look| look.contains(&format!("alertname: {alert}\n")));
        let (silent, firing): (Vec<&str>, Vec<&str>) = looks.partition(|look| look.contains("exp_alerts: []"));
        assert!(silent.len() >= 2 && !firing.is_empty(), "{alert}: silent {}, firing {}", silent.len(), firing.len());
    }
    for section in runbook.lines().filter_map(|line| line.strip_prefix("## ")) {
        assert!(alerts.contains(&section), "there is no alert {section}");
    }
}

#[test]
fn promtool_agrees() {
    if !quorate_tests::watched::installed() {
        return;
    }
    let commands: [&[&str]; 3] = [
        &["check", "config", "prometheus.yml"],
        &["check", "rules", "rules/recording.yml", "rules/slo.yml", "rules/causes.yml"],
        &["test", "rules", "tests/causes.yml", "tests/slo_fast.yml", "tests/slo_slow.yml"],
    ];
    for arguments in commands {
        let done = Command::new("promtool").args(arguments).current_dir(grafana().join("prometheus")).output().unwrap();
        let said = [done.stdout, done.stderr].concat();
        assert!(done.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}
