//! What a node is told at its start: a TOML file, overridden by `QUORATE_*`, overridden by flags.
//!
//! Unknown keys are refused with their line. Everything is checked once, here, and is a [`Config`] afterwards.

use crate::memory::Memory;
use quorate_ring::id::{BucketId, NodeId};
use quorate_ring::placement::Layout;
use quorate_ring::topology::{Node, Topology};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The file that `quorate-node config default` prints: every key, what it means, and its default.
pub const DEFAULT_FILE: &str = include_str!("config_default.toml");

const MIB: u64 = 1024 * 1024;

/// Each value that may be given, in the file under the name of the field, on the command line as a flag.
#[derive(Clone, Debug, Default, Deserialize, clap::Args)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Name of this node in the topology.
    #[arg(long, env = "QUORATE_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Topology file: the same on every node of the cluster.
    #[arg(long, env = "QUORATE_TOPOLOGY", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Folder of this node's data. Made by `quorate-node init`.
    #[arg(long, env = "QUORATE_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,
    /// Certificate of this node (PEM: the leaf, then its issuer).
    #[arg(long, env = "QUORATE_CERTIFICATE", value_name = "FILE")]
    pub certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, env = "QUORATE_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The certificate that signs nodes: the only one trusted among nodes (PEM).
    #[arg(long, env = "QUORATE_NODE_CA", value_name = "FILE")]
    pub node_ca: Option<PathBuf>,
    /// The certificate that signs clients: the only one trusted of clients (PEM).
    #[arg(long, env = "QUORATE_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// Loopback address for /livez, /readyz, /status and /metrics (HTTP).
    #[arg(long, env = "QUORATE_ADMIN_ADDRESS", value_name = "IP:PORT")]
    pub admin_address: Option<SocketAddr>,
    /// Threads that serve keys, each its own part of the partitions; the same on every node.
    #[arg(long, env = "QUORATE_SHARDS", value_name = "COUNT")]
    pub shards: Option<u8>,
    /// Memory that this node is to take in all.
    #[arg(long, env = "QUORATE_MEMORY_BYTES", value_name = "BYTES")]
    pub memory_bytes: Option<u64>,
    /// Of that, for requests of clients that wait for a shard; beyond it they are refused as overloaded.
    #[arg(long, env = "QUORATE_INBOX_BYTES", value_name = "BYTES")]
    pub inbox_bytes: Option<u64>,
    /// Refuse client writes when the disk has less free space than this.
    #[arg(long, env = "QUORATE_DISK_RESERVE_BYTES", value_name = "BYTES")]
    pub disk_reserve_bytes: Option<u64>,
    /// Measure, and show what was measured at /metrics.
    #[arg(long, env = "QUORATE_METRICS", value_name = "YES")]
    pub metrics: Option<bool>,
    /// Bucket in which a small write is made every 2 s, and looked for at the other owners. None: no such writes.
    #[arg(long, env = "QUORATE_CANARY_BUCKET", value_name = "NAME")]
    pub canary_bucket: Option<String>,
    /// Client connections at the same time.
    #[arg(long, env = "QUORATE_CLIENT_CONNECTIONS_MAX", value_name = "COUNT")]
    pub client_connections_max: Option<usize>,
    /// What pulls, full syncs and handoffs of this node may move in a second, in bytes; 0 for no limit.
    #[arg(long, env = "QUORATE_REPAIR_BYTES_PER_SECOND", value_name = "BYTES")]
    pub repair_bytes_per_second: Option<u64>,
    /// Of each shard's time, the percentage that repair gets while clients want something; 100 for no limit.
    #[arg(long, env = "QUORATE_REPAIR_SHARE_PERCENT", value_name = "PERCENT")]
    pub repair_share_percent: Option<u8>,
    /// How long a shutdown waits for what is under way.
    #[arg(long, env = "QUORATE_DRAIN_SECONDS", value_name = "SECONDS")]
    pub drain_seconds: Option<u64>,
    /// What to log: a level, or a filter such as `info,quorate_node::runtime=debug`.
    #[arg(long, env = "QUORATE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How to log.
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

/// A checked configuration. Paths are as they are to be opened.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: Node,
    pub layout: Arc<Layout>,
    pub data: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub node_ca: PathBuf,
    pub client_ca: PathBuf,
    pub admin_address: SocketAddr,
    /// 1 to 64.
    pub shards: u8,
    pub memory: Memory,
    pub disk_reserve_bytes: u64,
    pub metrics: bool,
    pub canary_bucket: Option<BucketId>,
    pub client_connections_max: usize,
    /// 0 for no limit.
    pub repair_bytes_per_second: u64,
    /// 1 to 100.
    pub repair_share_percent: u8,
    /// Owners that a rebuilding node does not wait for. Never from a file: it holds for one run.
    pub excused: BTreeSet<NodeId>,
    pub drain: Duration,
    pub log: String,
    pub log_format: LogFormat,
}

/// Why a node cannot be started as configured.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("{}, line {line}: {reason}", path.display())]
    Malformed { path: PathBuf, line: usize, reason: String },
    #[error("{key} is not set; set it in the configuration file, or by --{flag} or {variable}")]
    Missing { key: &'static str, flag: String, variable: String },
    #[error("{key}: expected {expected}, got {got}")]
    Value { key: &'static str, expected: String, got: String },
    #[error("node: the topology {} has no node {name:?}; it has {have}", topology.display())]
    NotInTopology { topology: PathBuf, name: String, have: String },
    #[error("{}: {cause}", topology.display())]
    Placement { topology: PathBuf, cause: quorate_ring::placement::PlacementError },
}

impl Config {
    /// Reads the file, if one is given, and lets `over` (flags and environment) win. Paths of the file are relative to
    /// its folder, those of `over` to the working directory.
    pub fn load(file: Option<&Path>, over: Settings) -> Result<Self, ConfigError> {
        let base = match file {
            None => Settings::default(),
            Some(path) => Settings::read(path)?,
        };
        over.or(base).check()
    }

    /// Excuses other nodes by name: a rebuild does not wait for them.
    pub fn excuse(&mut self, names: &[String]) -> Result<(), ConfigError> {
        let topology = self.layout.topology();
        for name in names {
            let others = topology.nodes.iter().filter(|node| node.id != self.node.id);
            let have: Vec<&str> = others.clone().map(|node| node.name.as_str()).collect();
            let Some(other) = others.clone().find(|node| node.name == *name) else {
                let expected = format!("another node of the topology ({})", have.join(", "));
                return Err(ConfigError::Value { key: "excuse", expected, got: name.clone() });
            };
            self.excused.insert(other.id);
        }
        Ok(())
    }
}

impl Settings {
    /// The settings of a file, with its paths made relative to the working directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let mut settings = Self::parse(path, &text)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let paths = [
            &mut settings.topology,
            &mut settings.data,
            &mut settings.certificate,
            &mut settings.key,
            &mut settings.node_ca,
            &mut settings.client_ca,
        ];
        for given in paths.into_iter().flatten() {
            *given = folder.join(&*given);
        }
        Ok(settings)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| {
            let offset = e.span().map_or(0, |span| span.start).min(text.len());
            let line = 1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count();
            ConfigError::Malformed { path: path.to_path_buf(), line, reason: e.message().to_string() }
        })
    }

    /// These settings, and those of `base` where nothing is given here.
    fn or(self, base: Settings) -> Settings {
        Settings {
            node: self.node.or(base.node),
            topology: self.topology.or(base.topology),
            data: self.data.or(base.data),
            certificate: self.certificate.or(base.certificate),
            key: self.key.or(base.key),
            node_ca: self.node_ca.or(base.node_ca),
            client_ca: self.client_ca.or(base.client_ca),
            admin_address: self.admin_address.or(base.admin_address),
            shards: self.shards.or(base.shards),
            memory_bytes: self.memory_bytes.or(base.memory_bytes),
            disk_reserve_bytes: self.disk_reserve_bytes.or(base.disk_reserve_bytes),
            inbox_bytes: self.inbox_bytes.or(base.inbox_bytes),
            metrics: self.metrics.or(base.metrics),
            canary_bucket: self.canary_bucket.or(base.canary_bucket),
            client_connections_max: self.client_connections_max.or(base.client_connections_max),
            repair_bytes_per_second: self.repair_bytes_per_second.or(base.repair_bytes_per_second),
            repair_share_percent: self.repair_share_percent.or(base.repair_share_percent),
            drain_seconds: self.drain_seconds.or(base.drain_seconds),
            log: self.log.or(base.log),
            log_format: self.log_format.or(base.log_format),
        }
    }

    fn check(self) -> Result<Config, ConfigError> {
        let topology_path = need("topology", self.topology)?;
        let topology = read_topology(&topology_path)?;
        let name = need("node", self.node)?;
        let node = named(&topology, &topology_path, &name)?;
        let canary_bucket = self.canary_bucket.filter(|name| !name.is_empty());
        let canary_bucket = canary_bucket.map(|name| canary(&topology, name)).transpose()?;
        let layout = Layout::new(Arc::new(topology))
            .map_err(|cause| ConfigError::Placement { topology: topology_path.clone(), cause })?;
        let admin_address = self.admin_address.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9101)));
        if !admin_address.ip().is_loopback() {
            let expected = "a loopback address, as this face asks nobody who they are (a proxy may)".to_string();
            return Err(ConfigError::Value { key: "admin_address", expected, got: admin_address.to_string() });
        }
        Ok(Config {
            node,
            layout: Arc::new(layout),
            data: need("data", self.data)?,
            certificate: need("certificate", self.certificate)?,
            key: need("key", self.key)?,
            node_ca: need("node_ca", self.node_ca)?,
            client_ca: need("client_ca", self.client_ca)?,
            admin_address,
            shards: range("shards", self.shards.map(u64::from), 1, (1, 64))? as u8,
            memory: memory(self.memory_bytes, self.inbox_bytes)?,
            disk_reserve_bytes: self.disk_reserve_bytes.unwrap_or(512 * MIB),
            metrics: self.metrics.unwrap_or(true),
            canary_bucket,
            client_connections_max: range(
                "client_connections_max",
                self.client_connections_max.map(|n| n as u64),
                1024,
                (1, 65_536),
            )? as usize,
            repair_bytes_per_second: self.repair_bytes_per_second.unwrap_or(32 * MIB),
            repair_share_percent: range("repair_share_percent", self.repair_share_percent.map(u64::from), 10, (1, 100))?
                as u8,
            excused: BTreeSet::new(),
            drain: Duration::from_secs(range("drain_seconds", self.drain_seconds, 10, (0, 600))?),
            log: self.log.unwrap_or_else(|| "info".to_string()),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
        })
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|cause| ConfigError::Unreadable { path: path.to_path_buf(), cause })
}

fn read_topology(path: &Path) -> Result<Topology, ConfigError> {
    Topology::parse(&read(path)?).map_err(|e| ConfigError::Malformed {
        path: path.to_path_buf(),
        line: e.line,
        reason: e.reason,
    })
}

fn named(topology: &Topology, path: &Path, name: &str) -> Result<Node, ConfigError> {
    topology.node_named(name).cloned().ok_or_else(|| {
        let have: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
        ConfigError::NotInTopology { topology: path.to_path_buf(), name: name.to_string(), have: have.join(", ") }
    })
}

fn canary(topology: &Topology, name: String) -> Result<BucketId, ConfigError> {
    let have: Vec<&str> = topology.buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    let expected = format!("a bucket of the topology ({})", have.join(", "));
    let found = topology.bucket_named(&name).map(|bucket| bucket.id);
    found.ok_or(ConfigError::Value { key: "canary_bucket", expected, got: name })
}

fn memory(bytes: Option<u64>, inbox_bytes: Option<u64>) -> Result<Memory, ConfigError> {
    let in_range = |bytes| range("inbox_bytes", Some(bytes), bytes, (MIB, 16 * 1024 * MIB));
    let inbox_bytes = inbox_bytes.map(in_range).transpose()?;
    let bytes = bytes.unwrap_or(Memory::BYTES_USUAL);
    Memory::shared_out(bytes, inbox_bytes).map_err(|possible| {
        let beside = inbox_bytes.map_or(String::new(), |inbox_bytes| format!(", as inbox_bytes is {inbox_bytes}"));
        let expected = format!("{} to {}{beside}", possible.start(), possible.end());
        ConfigError::Value { key: "memory_bytes", expected, got: bytes.to_string() }
    })
}

fn need<T>(key: &'static str, value: Option<T>) -> Result<T, ConfigError> {
    let missing = || ConfigError::Missing {
        key,
        flag: key.replace('_', "-"),
        variable: format!("QUORATE_{}", key.to_uppercase()),
    };
    value.ok_or_else(missing)
}

fn range(key: &'static str, value: Option<u64>, default: u64, (least, most): (u64, u64)) -> Result<u64, ConfigError> {
    let value = value.unwrap_or(default);
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(ConfigError::Value { key, expected: format!("{least} to {most}"), got: value.to_string() })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
