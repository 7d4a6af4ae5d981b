//! Prometheus beside a lab: its files, its process, and questions to it. Grafana too, if it is on the machine.

use crate::folder::{Folder, Record};
use crate::observe::boards;
use crate::plan;
use crate::probe;
use crate::process::{Doing, Process, Tie};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The rules that the repository has.
const RULES: [(&str, &str); 3] = [
    ("recording.yml", include_str!("../../../grafana/prometheus/rules/recording.yml")),
    ("slo.yml", include_str!("../../../grafana/prometheus/rules/slo.yml")),
    ("causes.yml", include_str!("../../../grafana/prometheus/rules/causes.yml")),
];
/// How a lab is called in the label `cluster`.
pub const CLUSTER: &str = "lab";
/// In a lab things happen fast.
const SCRAPED_EVERY: &str = "1s";
const FIRES_AFTER: &str = "3s";
const READY_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const END_GRACE: Duration = Duration::from_secs(10);
const GRAFANA_HOME: &str = "/usr/share/grafana";

/// Why a cluster cannot be watched. The cluster itself is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error(
        "there is no prometheus on this machine, and {why}; install it (on Debian: apt-get install prometheus) and try again"
    )]
    Missing { why: String },
    #[error("{path}: {error}", path = .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("no port is free for {0} on 127.0.0.1")]
    Port(&'static str),
    #[error("{program} did not start: {error}")]
    Start { program: &'static str, error: io::Error },
    #[error("{program} is not ready after {} s; its log is {log}", READY_LIMIT.as_secs(), log = log.display())]
    NotReady { program: &'static str, log: PathBuf },
    #[error("{program} cannot be ended: {error}")]
    End { program: &'static str, error: io::Error },
}

/// A program that runs beside a lab.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    pub address: SocketAddr,
    pub process: Process,
}

/// What watches a lab (`observe/observe.json`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Watch {
    pub prometheus: Service,
    pub grafana: Option<Service>,
}

/// Whether the program is on the path.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Starts what does not run yet.
pub fn start(folder: &Folder, record: &Record, tie: Tie) -> Result<Watch, ObserveError> {
    let home = home(folder);
    let before = running(folder);
    let prometheus = match before.as_ref().map(|watch| watch.prometheus.clone()) {
        Some(service) if service.process.doing() != Doing::Gone => service,
        _ => start_prometheus(&home, record, tie)?,
    };
    let grafana = match before.and_then(|watch| watch.grafana) {
        Some(service) if service.process.doing() != Doing::Gone => Some(service),
        _ => start_grafana(&home, prometheus.address, tie)?,
    };
    let watch = Watch { prometheus, grafana };
    let text = serde_json::to_string_pretty(&watch).expect("a record of addresses and numbers is written");
    write(&home.join("observe.json"), &text)?;
    Ok(watch)
}

/// Ends what runs beside a lab. Its data stays.
pub fn stop(folder: &Folder) -> Result<(), ObserveError> {
    let Some(watch) = running(folder) else { return Ok(()) };
    let end = |program, service: &Service| {
        service.process.end(END_GRACE).map_err(|error| ObserveError::End { program, error })
    };
    if let Some(grafana) = &watch.grafana {
        end("grafana", grafana)?;
    }
    end("prometheus", &watch.prometheus)?;
    let path = home(folder).join("observe.json");
    fs::remove_file(&path).map_err(|error| ObserveError::File { path, error })
}

/// What was started beside a lab, if anything was. It may have ended since.
pub fn running(folder: &Folder) -> Option<Watch> {
    serde_json::from_slice(&fs::read(home(folder).join("observe.json")).ok()?).ok()
}

fn home(folder: &Folder) -> PathBuf {
    folder.path().join("observe")
}

fn start_prometheus(home: &Path, record: &Record, tie: Tie) -> Result<Service, ObserveError> {
    let program = match find("prometheus") {
        Some(program) => program,
        None => install()?,
    };
    write(&home.join("prometheus.yml"), &config(record))?;
    for (name, text) in RULES {
        write(&home.join("rules").join(name), &hasten(text))?;
    }
    let address = free_address("prometheus")?;
    let log = home.join("prometheus.log");
    let arguments = [
        format!("--config.file={}", home.join("prometheus.yml").display()),
        format!("--storage.tsdb.path={}", home.join("data").display()),
        "--storage.tsdb.retention.time=2d".to_string(),
        format!("--web.listen-address={address}"),
        "--log.level=warn".to_string(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Process::start(&program, &arguments, &log, tie)
        .map_err(|error| ObserveError::Start { program: "prometheus", error })?;
    wait_ready("prometheus", Service { address, process }, "/-/ready", log)
}

/// By apt-get, as root. Anyone else is told what to type.
fn install() -> Result<PathBuf, ObserveError> {
    let missing = |why: &str| ObserveError::Missing { why: why.to_string() };
    // SAFETY: a plain question.
    if unsafe { libc::geteuid() } != 0 {
        return Err(missing("only root may install it"));
    }
    let apt = find("apt-get").ok_or_else(|| missing("there is no apt-get to install it with"))?;
    eprintln!("installing prometheus (apt-get)");
    let run = |arguments: &[&str]| {
        Command::new(&apt)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments)
            .output()
            .is_ok_and(|o| o.status.success())
    };
    run(&["update", "-qq"]);
    if !run(&["install", "-y", "-qq", "--no-install-recommends", "prometheus"]) {
        return Err(missing("apt-get could not install it"));
    }
    find("prometheus").ok_or_else(|| missing("apt-get installed it where it is not found"))
}

/// Grafana with the dashboards, if it is on the machine.
fn start_grafana(home: &Path, prometheus: SocketAddr, tie: Tie) -> Result<Option<Service>, ObserveError> {
    let Some(program) = find("grafana") else { return Ok(None) };
    let (provisioning, dashboards) = (home.join("provisioning"), home.join("dashboards"));
    for board in boards::all() {
        write(&dashboards.join(format!("{}.json", board.uid)), &board.text())?;
    }
    let sources = include_str!("../../../grafana/provisioning/datasources/quorate.yml");
    let sources = sources.replace("${QUORATE_PROMETHEUS_URL}", &format!("http://{prometheus}"));
    write(&provisioning.join("datasources/quorate.yml"), &sources)?;
    let providers = include_str!("../../../grafana/provisioning/dashboards/quorate.yml");
    let providers = providers.replace("${QUORATE_DASHBOARDS}", &dashboards.display().to_string());
    write(&provisioning.join("dashboards/quorate.yml"), &providers)?;
    let address = free_address("grafana")?;
    let log = home.join("grafana.log");
    let arguments = [
        "server".to_string(),
        format!("--homepath={GRAFANA_HOME}"),
        format!("cfg:paths.provisioning={}", provisioning.display()),
        format!("cfg:paths.data={}", home.join("grafana").display()),
        "cfg:server.http_addr=127.0.0.1".to_string(),
        format!("cfg:server.http_port={}", address.port()),
        "cfg:auth.anonymous.enabled=true".to_string(),
        "cfg:analytics.reporting_enabled=false".to_string(),
        "cfg:analytics.check_for_updates=false".to_string(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let process = Process::start(&program, &arguments, &log, tie)
        .map_err(|error| ObserveError::Start { program: "grafana", error })?;
    wait_ready("grafana", Service { address, process }, "/api/health", log).map(Some)
}

fn wait_ready(program: &'static str, service: Service, page: &str, log: PathBuf) -> Result<Service, ObserveError> {
    let began = Instant::now();
    while began.elapsed() < READY_LIMIT && service.process.doing() != Doing::Gone {
        if probe::get(service.address, page).is_ok_and(|(status, _)| status == 200) {
            return Ok(service);
        }
        std::thread::sleep(LOOK_EVERY);
    }
    service.process.end(END_GRACE).map_err(|error| ObserveError::End { program, error })?;
    Err(ObserveError::NotReady { program, log })
}

fn free_address(program: &'static str) -> Result<SocketAddr, ObserveError> {
    let port = plan::free_port().ok_or(ObserveError::Port(program))?;
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The configuration: the nodes of the lab, by name.
fn config(record: &Record) -> String {
    let mut text = format!(
        "global:\n  scrape_interval: {SCRAPED_EVERY}\n  evaluation_interval: {SCRAPED_EVERY}\nrule_files:\n  - rules/*.yml\n\
         scrape_configs:\n  - job_name: quorate\n    static_configs:\n"
    );
    for node in &record.nodes {
        let _ = write!(
            text,
            "      - targets: [\"{}\"]\n        labels: {{cluster: {CLUSTER}, node: {}}}\n",
            node.admin_address, node.name
        );
    }
    text
}

fn write(path: &Path, text: &str) -> Result<(), ObserveError> {
    let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
    made.map_err(|error| ObserveError::File { path: path.to_path_buf(), error })
}

/// The rules, with alerts that fire after seconds of trouble instead of minutes.
fn hasten(rules: &str) -> String {
    let line = |line: &str| match line.trim_start().starts_with("for: ") {
        true => format!("        for: {FIRES_AFTER}\n"),
        false => format!("{line}\n"),
    };
    rules.lines().map(line).collect()
}

/// One series of an answer: its labels, and its value now.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// Asks Prometheus for the value of an expression now.
pub fn query(prometheus: SocketAddr, expression: &str) -> io::Result<Vec<Sample>> {
    let (status, body) = probe::get(prometheus, &format!("/api/v1/query?query={}", encode(expression)))?;
    let wrong = || io::Error::other(format!("prometheus answers {status} to {expression}: {body}"));
    let answer: Value = serde_json::from_str(&body).map_err(|_| wrong())?;
    let result = answer["data"]["result"].as_array().filter(|_| status == 200).ok_or_else(wrong)?;
    let sample = |series: &Value| {
        let labels: BTreeMap<String, String> = serde_json::from_value(series["metric"].clone()).ok()?;
        Some(Sample { labels, value: series["value"][1].as_str()?.parse().ok()? })
    };
    result.iter().map(sample).collect::<Option<Vec<_>>>().ok_or_else(wrong)
}

/// As in a URL.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().fold(String::new(), |mut out, byte| {
        if plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Shape;

    #[test]
    fn the_configuration_names_each_node() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(&dir.path().join("lab")).unwrap();
        let record = plan::make(&folder, &Shape { nodes: 3, ..Shape::default() }).unwrap();
        let text = config(&record);
        for node in &record.nodes {
            let entry =
                format!("targets: [\"{}\"]\n        labels: {{cluster: lab, node: {}}}", node.admin_address, node.name);
            assert!(text.contains(&entry), "{text}");
        }
        assert_eq!(running(&folder), None);
        stop(&folder).unwrap();
    }

    #[test]
    fn in_a_lab_alerts_fire_soon() {
        let hastened = hasten(RULES[2].1);
        assert!(RULES[2].1.contains("for: 10m") && hastened.contains("for: 3s") && !hastened.contains("for: 10m"));
        assert_eq!(hastened.lines().count(), RULES[2].1.lines().count());
    }

    #[test]
    fn expressions_are_encoded_for_a_url() {
        assert_eq!(encode("a{b=\"1\"} > 0.5"), "a%7Bb%3D%221%22%7D%20%3E%200.5");
    }
}
