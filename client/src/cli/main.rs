//! The command line client `quorate`.
//!
//! `args` is what can be typed, `session` what every command needs, `failure` how things end; then one file for each
//! group of commands. Results go to stdout, everything else to stderr.

mod args;
mod bench;
mod check;
mod failure;
mod listing;
mod load;
mod output;
mod place;
mod read;
mod repair;
mod resolve;
mod session;
mod status;
mod trace;
mod value;
mod write;

use args::{BucketCommand, Cli, Command};
use clap::{CommandFactory, Parser};
use failure::Failure;
use output::Format;
use session::Session;
use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let typed: Vec<OsString> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&typed) {
        Ok(cli) => cli,
        Err(error) => return refuse_usage(&error, &typed),
    };
    let format = cli.common.output;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::local(format!("the runtime does not start: {error}")).report(format),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(format),
    }
}

/// Help and version are no errors; what was typed wrong is, in JSON if JSON was asked for.
fn refuse_usage(error: &clap::Error, typed: &[OsString]) -> ExitCode {
    let asked = args::asks_for_json(typed, std::env::var_os("QUORATE_OUTPUT").as_deref());
    if !error.use_stderr() || !asked {
        // Nothing is left to be done if stderr is gone.
        let _ = error.print();
        return ExitCode::from(error.exit_code() as u8);
    }
    let text = error.to_string();
    let message = text.trim().trim_start_matches("error: ").to_string();
    Failure::usage(message).advise("`quorate help` lists what can be typed").report(Format::Json)
}

async fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "quorate", &mut script);
        return output::bytes(&script);
    }
    if let Command::Status { watch } = cli.command {
        return if watch { status::watch(&cli.common).await } else { status::run(&cli.common).await };
    }
    if let Command::Bench(bench) = &cli.command {
        bench::refuse(bench)?;
    }
    let session = Session::open(cli.common).await?;
    let result = dispatch(&session, cli.command).await;
    session.client.close().await;
    result
}

async fn dispatch(session: &Session, command: Command) -> Result<(), Failure> {
    match command {
        Command::Put(put) => write::put(session, put).await,
        Command::Get { key } => read::get(session, &key).await,
        Command::Del(del) => write::del(session, del).await,
        Command::Siblings { key } => read::siblings(session, &key).await,
        Command::Resolve(resolve) => resolve::run(session, resolve).await,
        Command::Ls { prefix } => listing::ls(session, prefix).await,
        Command::Export { prefix } => listing::export(session, prefix).await,
        Command::Locate { key } => place::locate(session, &key).await,
        Command::Ring => place::ring(session),
        Command::Bucket { command: BucketCommand::Ls } => place::buckets(session),
        Command::Repair(repair) => repair::run(session, &repair).await,
        Command::Load(load) => load::run(session, load).await,
        Command::Bench(bench) => bench::run(session, *bench).await,
        Command::Check(check) => check::run(session, check).await,
        Command::Status { .. } | Command::Completions { .. } => unreachable!("done without a session"),
    }
}
