//! What each command of `quorate-lab` does, in words to the person who typed it.

use crate::{Command, Output, StoryName, fault_verbs, interrupt, runs};
use anyhow::{Context, Result, bail};
use quorate_ops::certs::Certs;
use quorate_ops::cluster::{self, Cluster, ClusterError, END_GRACE};
use quorate_ops::disk;
use quorate_ops::folder::Folder;
use quorate_ops::idle;
use quorate_ops::observe::{boards, prometheus};
use quorate_ops::plan::Shape;
use quorate_ops::process::{self, Doing, Ended, Tie};
use quorate_ops::relay;
use quorate_ops::show;
use quorate_ring::topology::Topology;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Each ordered pair of nodes has a port of the relay.
const FAULTS_NODES_MAX: u16 = 16;
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What a node of a lab that is watched is told beside.
const CANARY: &str = "canary_bucket = \"canary\"\n";

pub struct Commands {
    folder: Folder,
    node_program: PathBuf,
    /// Where this program lies, and the others beside it.
    programs: PathBuf,
}

/// What `up` was asked for: only a new cluster takes a shape.
struct Up {
    shape: Option<Shape>,
    observe: bool,
    foreground: bool,
    wait: Duration,
}

impl Commands {
    pub fn new(dir: &Path, node_program: Option<PathBuf>) -> Result<Self> {
        let own = std::env::current_exe().context("the path of this program is not known")?;
        let programs = own.parent().map(Path::to_path_buf).unwrap_or_default();
        let node_program = node_program.unwrap_or_else(|| programs.join("quorate-node"));
        Ok(Self { folder: Folder::at(dir)?, node_program, programs })
    }

    pub fn run(&self, command: Command) -> Result<ExitCode> {
        match command {
            Command::Up { nodes, racks, n, partitions, faults, disk, observe, foreground, with_parent, wait } => {
                if with_parent {
                    process::end_with_parent().context("this command cannot be tied to its parent")?;
                }
                let sized = nodes.is_some() || racks.is_some() || n.is_some() || partitions.is_some();
                let given = sized || faults || disk.is_some();
                let common = Shape::default();
                let shape = Shape {
                    nodes: nodes.unwrap_or(common.nodes),
                    racks: racks.unwrap_or(common.racks),
                    n,
                    partitions: partitions.unwrap_or(common.partitions),
                    node_settings: if observe { CANARY.to_string() } else { common.node_settings },
                    data: if disk.is_some() { disk::DATA } else { common.data },
                    faults,
                    disk_bytes: disk.map(|mib| mib * 1024 * 1024),
                };
                if faults && shape.nodes > FAULTS_NODES_MAX {
                    bail!("--faults takes {FAULTS_NODES_MAX} nodes at the most: each pair needs two ports");
                }
                let shape = (given || !self.folder.holds_a_lab()).then_some(shape);
                self.up(Up { shape, observe, foreground, wait: Duration::from_secs(wait) })?;
            }
            Command::Status { output } => self.status(output)?,
            Command::Idle { seconds, output } => self.idle(Duration::from_secs(seconds), output)?,
            Command::Kill { nodes } => {
                let mut cluster = self.open()?;
                let names = cluster.select(&nodes)?;
                cluster.kill(&names)?;
                println!("killed {}", names.join(", "));
            }
            Command::Restart { nodes, wait } => self.restart(&nodes, Duration::from_secs(wait))?,
            Command::Pause { nodes } => {
                let cluster = self.open()?;
                let names = cluster.select(&nodes)?;
                cluster.pause(&names)?;
                println!("paused {}; `quorate-lab resume {}` lets them go on", names.join(", "), names.join(" "));
            }
            Command::Resume { nodes } => {
                let cluster = self.open()?;
                let names = cluster.select(&nodes)?;
                cluster.resume(&names)?;
                println!("resumed {}", names.join(", "));
            }
            Command::Fault(fault) => fault_verbs::run(fault, self.open()?)?,
            Command::Relay { plan } => relay::run(&plan)?,
            Command::Down => self.down(&mut self.open()?)?,
            Command::Destroy => {
                let path = self.folder.path().display();
                let cluster = self.open()?;
                prometheus::stop(&self.folder)?;
                cluster.destroy()?;
                println!("removed {path}");
            }
            Command::Logs { node, follow, lines } => self.logs(&node, follow, lines)?,
            Command::Certs { topology, out } => certs(&topology, &out)?,
            Command::Dashboards { folder, preview, minutes } => dashboards(&folder, preview.as_deref(), minutes)?,
            Command::CrashRounds(settings) => return runs::crash_rounds(&self.node_program, &settings),
            Command::Verify { residue, within, output } => {
                return runs::verify(&self.folder, residue, Duration::from_secs(within), output);
            }
            Command::Story { name: StoryName::SplitBrain, scratch } => runs::split_brain(&self.node_program, scratch)?,
            Command::Trial { trial, output } => return runs::trial(&self.node_program, &trial, output),
        }
        Ok(ExitCode::SUCCESS)
    }

    pub fn open(&self) -> Result<Cluster> {
        Ok(Cluster::open(self.folder.clone(), self.node_program.clone())?)
    }

    fn up(&self, up: Up) -> Result<()> {
        let path = self.folder.path().display();
        let mut cluster = match up.shape {
            Some(_) if self.folder.holds_a_lab() => bail!(
                "there is a lab in {path} already. `quorate-lab up` without settings starts it again, \
                 `quorate-lab destroy` removes it, --dir names another folder"
            ),
            Some(shape) => Cluster::make(self.folder.clone(), &shape, self.node_program.clone())?,
            None => self.open()?,
        };
        interrupt::listen();
        let names = cluster.select(&[])?;
        let tie = if up.foreground { Tie::EndsWithUs } else { Tie::OutlivesUs };
        let mut started = Vec::new();
        let ready = cluster.start(&names, tie).and_then(|names| {
            started = names;
            wait(&cluster, &started, up.wait)
        });
        if let Err(error) = ready {
            cluster.stop(&started, END_GRACE)?;
            return Err(error).with_context(|| format!("the nodes were ended again, {path} is kept; this went wrong"));
        }
        if started.is_empty() {
            println!("all nodes ran already");
        }
        let watch = match up.observe {
            true => Some(prometheus::start(&self.folder, cluster.record(), tie)?),
            false => None,
        };
        drop(cluster);
        self.status(Output::Table)?;
        if let Some(watch) = watch {
            println!("\n{}", show::watch(&watch));
        }
        let last = names.last().map_or("n1", String::as_str);
        println!("\n{}", show::banner(&self.folder, &self.programs, last));
        if up.foreground {
            self.stay()?;
        }
        Ok(())
    }

    /// Until this command is asked to end; then every node is.
    fn stay(&self) -> Result<()> {
        println!("The nodes run until this command ends (Ctrl-C).");
        let mut told = Vec::new();
        while !interrupt::asked() {
            std::thread::sleep(LOOK_EVERY);
            if !self.folder.holds_a_lab() {
                return Ok(()); // `quorate-lab destroy` ended them all.
            }
            for node in cluster::view(&self.folder)? {
                let name = node.record.name;
                let gone = node.doing == Doing::Gone;
                if gone && !told.contains(&name) {
                    println!("{name} is down; `quorate-lab restart {name}` starts it, its log says why it ended");
                    told.push(name);
                } else if !gone {
                    told.retain(|other| *other != name);
                }
            }
        }
        // Another command may be at work in the folder: what it started is to end as well.
        for _ in 0..50 {
            match Cluster::open(self.folder.clone(), self.node_program.clone()) {
                Ok(mut cluster) => return self.down(&mut cluster),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
        self.down(&mut self.open()?)
    }

    fn status(&self, output: Output) -> Result<()> {
        let nodes = cluster::view(&self.folder)?;
        let links = self.folder.read_record()?.relay.map(|relay| relay::ask(relay.control));
        match output {
            Output::Table => {
                println!("{}", show::status_table(&self.folder, &nodes));
                match links {
                    Some(Ok(account)) => println!("\nlinks: {}", account.rules),
                    Some(Err(silent)) => println!("\nlinks: {silent}"),
                    None => {}
                }
            }
            Output::Json => {
                let links = links.and_then(Result::ok);
                println!("{}", show::status_json(&self.folder, &nodes, links.as_ref()));
            }
        }
        Ok(())
    }

    fn idle(&self, time: Duration, output: Output) -> Result<()> {
        interrupt::listen();
        let (time, costs) = idle::watch(&self.folder, time, stop_if_asked)?;
        match output {
            Output::Table => println!("{}", idle::table(time, &costs)),
            Output::Json => println!("{}", idle::json(time, &costs)),
        }
        Ok(())
    }

    fn restart(&self, nodes: &[String], limit: Duration) -> Result<()> {
        let mut cluster = self.open()?;
        let names = cluster.select(nodes)?;
        cluster.stop(&names, END_GRACE)?;
        interrupt::listen();
        cluster.start(&names, Tie::OutlivesUs)?;
        Ok(wait(&cluster, &names, limit)?)
    }

    fn down(&self, cluster: &mut Cluster) -> Result<()> {
        prometheus::stop(&self.folder)?;
        let names = cluster.select(&[])?;
        let ended = cluster.stop(&names, END_GRACE)?;
        let count = |wanted| ended.iter().filter(|(_, how)| *how == wanted).count();
        println!("{} nodes ended when asked", count(Ended::WhenAsked));
        for (name, _) in ended.iter().filter(|(_, how)| *how == Ended::Killed) {
            println!("{name} did not end within {} s and was killed", END_GRACE.as_secs());
        }
        Ok(())
    }

    fn logs(&self, node: &str, follow: bool, lines: usize) -> Result<()> {
        let record = self.folder.read_record()?;
        if record.node(node).is_none() {
            return Err(ClusterError::UnknownNode { name: node.to_string(), known: record.names() }.into());
        }
        let path = self.folder.node_log(node);
        let mut file = fs::File::open(&path).with_context(|| format!("{}", path.display()))?;
        println!("{}", cluster::last_lines(&path, lines)?);
        file.seek(SeekFrom::End(0))?;
        let mut more = Vec::new();
        if !follow {
            return Ok(());
        }
        loop {
            file.read_to_end(&mut more)?;
            std::io::stdout().write_all(&more)?;
            std::io::stdout().flush()?;
            more.clear();
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

pub fn wait(cluster: &Cluster, names: &[String], limit: Duration) -> Result<(), ClusterError> {
    cluster.wait_ready(names, limit, |progress| {
        show::progress_line(progress);
        stop_if_asked()
    })
}

pub fn stop_if_asked() -> ControlFlow<()> {
    if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

fn dashboards(folder: &Path, preview: Option<&str>, minutes: u32) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    for board in boards::all() {
        let (kind, text) = match preview {
            None => ("json", board.text()),
            Some(prometheus) => ("html", board.preview(prometheus, prometheus::CLUSTER, minutes)),
        };
        let path = folder.join(format!("{}.{kind}", board.uid));
        fs::write(&path, text).with_context(|| format!("{}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn certs(topology: &Path, out: &Path) -> Result<()> {
    let text = fs::read_to_string(topology).with_context(|| format!("{}", topology.display()))?;
    let topology = Topology::parse(&text).with_context(|| format!("{}", topology.display()))?;
    let certs = Certs::open_or_make(out)?;
    for node in &topology.nodes {
        certs.issue_node(topology.cluster, node.id, &node.name)?;
    }
    certs.issue_client(topology.cluster, "client")?;
    println!("certificates of {} nodes and a client are in {}", topology.nodes.len(), out.display());
    Ok(())
}
