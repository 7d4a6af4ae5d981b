//! Real nodes: processes of `quorate-node`, with certificates made for the test.

#![allow(dead_code, reason = "each test file uses its part of this")]

pub mod certs;
pub mod dial;
pub mod lane;

use certs::{Authority, Identity, write_identity};
use quorate_ring::id::{ClusterId, NodeId};
use quorate_ring::placement::Layout;
use quorate_ring::topology::Topology;
use quorate_ring::wire::server_name;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub const CLUSTER: ClusterId = ClusterId(*b"planes and nodes");
const READY_TIME_MAX: Duration = Duration::from_secs(20);
const END_TIME_MAX: Duration = Duration::from_secs(20);

/// A cluster's folder: topology, certificates, a configuration per node. Nodes are called n1, n2 and so on.
pub struct Cluster {
    folder: tempfile::TempDir,
    pub layout: Arc<Layout>,
    pub node_ca: Authority,
    pub client_ca: Authority,
    home: Home,
}

/// An address of the loopback network that no other cluster of these tests has, so that no port of a node is taken
/// while the node is down, be it by a node of another test or by a connection that goes out.
struct Home {
    address: Ipv4Addr,
    _held: TcpListener,
}

impl Home {
    /// Whoever listens at this port has the address. All ports are below those that are given to outgoing connections.
    const HELD: u16 = 31_000;
    const PORTS: u16 = 31_001;
    const PORTS_PER_NODE: u16 = 3;

    fn find() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        for _ in 0..1_000 {
            // Outgoing connections come from 127.0.0.1, and some resolvers are at 127.0.0.53.
            let step = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let address = Ipv4Addr::from(0x7f01_0000 + step % 0xfe_0000);
            if let Ok(held) = TcpListener::bind((address, Self::HELD)) {
                return Self { address, _held: held };
            }
        }
        panic!("port {} is taken at every address of the loopback network that was tried", Self::HELD);
    }

    /// The addresses of a node: of its client plane, its peer plane (UDP), and its admin face (TCP).
    fn of_node(&self, id: u16) -> [SocketAddr; 3] {
        let first = Self::PORTS + (id - 1) * Self::PORTS_PER_NODE;
        [first, first + 1, first + 2].map(|port| SocketAddr::from((self.address, port)))
    }
}

impl Cluster {
    /// `nodes` nodes, each in its own rack, and one bucket of `n` copies.
    pub fn new(nodes: u16, n: u8, extra_config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::find();
        let mut text = format!("cluster = \"{CLUSTER}\"\nepoch = 1\npartitions = 32\n");
        for id in 1..=nodes {
            let [client, peer, _] = home.of_node(id);
            text += &format!(
                "[[node]]\nid = {id}\nname = \"n{id}\"\nrack = \"r{id}\"\nclient_address = \"{client}\"\n\
                 peer_address = \"{peer}\"\n"
            );
        }
        text += &format!("[[bucket]]\nid = 1\nname = \"default\"\nn = {n}\n");
        let layout = Arc::new(Layout::new(Arc::new(Topology::parse(&text).unwrap())).unwrap());
        fs::write(folder.path().join("topology.toml"), text).unwrap();
        let (node_ca, client_ca) = (Authority::new("node CA"), Authority::new("client CA"));
        fs::write(folder.path().join("node-ca.pem"), &node_ca.pem).unwrap();
        fs::write(folder.path().join("client-ca.pem"), &client_ca.pem).unwrap();
        let cluster = Self { folder, layout, node_ca, client_ca, home };
        for id in 1..=nodes {
            let name = format!("n{id}");
            write_identity(cluster.path(), &name, &cluster.node_identity(id));
            let config = format!(
                "node = \"{name}\"\ntopology = \"topology.toml\"\ndata = \"{name}\"\ncertificate = \"{name}.pem\"\n\
                 key = \"{name}-key.pem\"\nnode_ca = \"node-ca.pem\"\nclient_ca = \"client-ca.pem\"\n\
                 admin_address = \"{}\"\n{extra_config}",
                cluster.admin(id)
            );
            fs::write(cluster.config(id), config).unwrap();
        }
        cluster
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn config(&self, id: u16) -> PathBuf {
        self.path().join(format!("n{id}.toml"))
    }

    pub fn admin(&self, id: u16) -> SocketAddr {
        self.home.of_node(id)[2]
    }

    pub fn node_identity(&self, id: u16) -> Identity {
        self.node_ca.issue(&server_name(CLUSTER, NodeId(id)), certs::Validity::Now)
    }

    pub fn client_identity(&self) -> Identity {
        self.client_ca.issue("client-test.quorate", certs::Validity::Now)
    }

    /// Makes the data folder of a node.
    pub fn init(&self, id: u16) {
        let made = program().arg("init").arg("--config").arg(self.config(id)).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    /// Starts a node, and waits until it is ready.
    pub fn start(&self, id: u16) -> RealNode {
        let mut node = self.spawn(id);
        node.wait_ready();
        node
    }

    /// Starts a node.
    pub fn spawn(&self, id: u16) -> RealNode {
        self.spawn_by(id, program())
    }

    /// Starts a node whose disk takes no file longer than this: writing more is an error.
    pub fn spawn_on_a_small_disk(&self, id: u16, file_kib_max: u32) -> RealNode {
        let mut shell = Command::new("bash");
        let limit = format!("trap '' XFSZ; ulimit -f {file_kib_max}; exec \"$@\"");
        shell.arg("-c").arg(limit).arg("bash").arg(env!("CARGO_BIN_EXE_quorate-node"));
        self.spawn_by(id, shell)
    }

    /// Starts a node as `set` has it.
    pub fn spawn_with(&self, id: u16, set: impl FnOnce(&mut Command)) -> RealNode {
        let mut command = program();
        set(&mut command);
        self.spawn_by(id, command)
    }

    fn spawn_by(&self, id: u16, mut command: Command) -> RealNode {
        let log_path = self.path().join(format!("n{id}.log"));
        let log = fs::OpenOptions::new().create(true).append(true).open(&log_path).unwrap();
        command.arg("run").arg("--config").arg(self.config(id)).stdout(Stdio::null()).stderr(log);
        let node = self.layout.topology().node(NodeId(id)).unwrap();
        RealNode {
            child: command.spawn().unwrap(),
            id,
            client_address: node.client_address,
            peer_address: node.peer_address,
            admin_address: self.admin(id),
            log: log_path,
        }
    }
}

/// The program under test.
pub fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_quorate-node"))
}

/// A process of `quorate-node`; killed when dropped.
pub struct RealNode {
    child: Child,
    pub id: u16,
    pub client_address: SocketAddr,
    pub peer_address: SocketAddr,
    pub admin_address: SocketAddr,
    log: PathBuf,
}

impl RealNode {
    /// Status and body of a page of the admin face; none if nobody answers.
    pub fn admin(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.admin_address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_string()))
    }

    pub fn wait_ready(&mut self) {
        let until = Instant::now() + READY_TIME_MAX;
        while self.admin("/readyz").is_none_or(|(status, _)| status != 200) {
            assert!(self.is_running(), "n{} has ended:\n{}", self.id, self.log());
            assert!(Instant::now() < until, "n{} does not get ready:\n{}", self.id, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The value of a metric, by its name with labels.
    pub fn metric(&self, name: &str) -> f64 {
        let (_, text) = self.admin("/metrics").expect("the node answers");
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{text}"))
    }

    pub fn resident_bytes(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(&mut self) -> ExitStatus {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        // SAFETY: the process is a child of ours that was not waited for yet, so its number is still its own.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        self.wait_end()
    }

    /// The exit status of a node that ends.
    pub fn wait_end(&mut self) -> ExitStatus {
        let until = Instant::now() + END_TIME_MAX;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "n{} does not end:\n{}", self.id, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for RealNode {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _waited_already = self.child.wait();
        if std::thread::panicking() {
            eprintln!("log of n{}:\n{}", self.id, self.log());
        }
    }
}
