//! `quorate-node`: one node of a cluster.

#[cfg(feature = "planted-bugs")]
compile_error!("bugs on purpose are for the simulation: build quorate-node without the feature `planted-bugs`");

use clap::{Args, Parser, Subcommand};
use quorate_node::config::{Config, ConfigError, DEFAULT_FILE, LogFormat, Settings};
use quorate_node::identity;
use quorate_node::runtime::machine;
use quorate_node::runtime::node::{Ended, credentials, run, with_claim};
use std::path::PathBuf;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// A request is many small things, each soon gone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration, the topology, a certificate or the data folder is not as it has to be. As EX_CONFIG.
const EXIT_CONFIG: u8 = 78;
/// The disk failed. As EX_IOERR.
const EXIT_STORAGE: u8 = 74;
/// Start it again: it had forgotten, and rebuilds. As EX_TEMPFAIL.
const EXIT_FORGOTTEN: u8 = 75;

/// One node of a Quorate cluster.
///
/// To get going: `quorate-node config default > node.toml`, edit it, `quorate-node config check --config node.toml`,
/// then once `quorate-node init --config node.toml`, and `quorate-node run --config node.toml`. For a whole cluster on
/// one machine, with certificates and all, there is `quorate-lab up`.
#[derive(Parser)]
#[command(name = "quorate-node", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the data folder of a new node, once.
    ///
    /// A node that lost its folder is given a new one by `init` and then `forget`, so that it rebuilds.
    Init(Configured),
    /// Run the node until SIGTERM or SIGINT.
    ///
    /// Exit status: 0 stopped as asked; 74 the disk failed; 75 the node had forgotten and rebuilds when started
    /// again; 78 the configuration, a certificate or the data folder is not as it has to be.
    Run(RunArguments),
    /// Give the data folder a new actor, on purpose; the node then rebuilds from the other owners.
    ///
    /// To be done before the first start after the machine or its disk was restored from an image: such a node has
    /// forgotten what it did since, and cannot know.
    Forget(Configured),
    /// Look at the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration, the topology and the certificates, without starting anything.
    Check(Box<Configured>),
    /// Print a configuration file with every key, what it means, and its default.
    Default,
}

#[derive(Args)]
struct RunArguments {
    /// Do not wait for this node (by name) while rebuilding: it is dead, and will not come back with its data.
    ///
    /// A node that may have forgotten answers only when it has copied everything from all other owners. Writes that
    /// only its own lost disk and the excused node held are lost by this: readers at R = 1 and R = 2 may then get older
    /// values, or none. Holds for this run; a node that answers is copied all the same. May be given several times.
    #[arg(long, value_name = "NAME")]
    excuse: Vec<String>,
    #[command(flatten)]
    configured: Configured,
}

#[derive(Args)]
struct Configured {
    /// Configuration file (TOML).
    #[arg(long, short, env = "QUORATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Configured {
    fn load(self) -> Result<Config, ConfigError> {
        Config::load(self.config.as_deref(), self.settings)
    }
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Init(configured) => init(configured),
        Command::Run(arguments) => run_node(arguments),
        Command::Forget(configured) => forget(configured),
        Command::Config { command: ConfigCommand::Check(configured) } => check(*configured),
        Command::Config { command: ConfigCommand::Default } => {
            print!("{DEFAULT_FILE}");
            Ok(ExitCode::SUCCESS)
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("quorate-node: {error:#}");
        ExitCode::from(EXIT_CONFIG)
    })
}

fn init(configured: Configured) -> anyhow::Result<ExitCode> {
    let config = configured.load()?;
    let made = with_claim(&config, |claim| identity::init(&config.data, claim))?;
    println!("made {} for {} (node {}), actor {}", config.data.display(), config.node.name, made.node.0, made.actor);
    Ok(ExitCode::SUCCESS)
}

fn forget(configured: Configured) -> anyhow::Result<ExitCode> {
    let config = configured.load()?;
    let now = with_claim(&config, |claim| identity::forget(&config.data, claim))?;
    println!("{} has the new actor {}; the node rebuilds at its next start", config.data.display(), now.actor);
    Ok(ExitCode::SUCCESS)
}

fn check(configured: Configured) -> anyhow::Result<ExitCode> {
    let config = configured.load()?;
    credentials(&config)?;
    let topology = config.layout.topology();
    println!(
        "{} is node {} of {} in cluster {} (epoch {}); configuration, topology and certificates are in order",
        config.node.name,
        config.node.id.0,
        topology.nodes.len(),
        topology.cluster,
        topology.epoch
    );
    Ok(ExitCode::SUCCESS)
}

fn run_node(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    machine::share_memory_between_threads();
    let mut config = arguments.configured.load()?;
    config.excuse(&arguments.excuse)?;
    log_to_stderr(&config)?;
    match machine::raise_open_files() {
        Ok(files) => tracing::debug!(files, "files that may be open"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
    // The only shard of a node shares its thread with the connections.
    let mut threads = match config.shards {
        1 => tokio::runtime::Builder::new_current_thread(),
        2.. => tokio::runtime::Builder::new_multi_thread(),
        0 => unreachable!("the configuration has at least one shard"),
    };
    let runtime = threads.enable_all().build()?;
    let ended = runtime.block_on(run(&config));
    let code = match ended {
        Ok(Ended::Stopped) => ExitCode::SUCCESS,
        Ok(Ended::StorageFailed(_)) => ExitCode::from(EXIT_STORAGE),
        Ok(Ended::Forgotten { .. }) => ExitCode::from(EXIT_FORGOTTEN),
        Err(error) => {
            tracing::error!(%error, "the node cannot run");
            ExitCode::from(EXIT_CONFIG)
        }
    };
    Ok(code)
}

fn log_to_stderr(config: &Config) -> anyhow::Result<()> {
    let filter: EnvFilter = config.log.parse().map_err(|e| anyhow::anyhow!("log: {e}"))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
