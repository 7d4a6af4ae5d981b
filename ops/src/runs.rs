//! Commands that look at a whole cluster, or play with one of their own: what they print, and how they end.

use crate::commands::stop_if_asked;
use crate::{Output, interrupt};
use anyhow::Result;
use quorate_client::{Client, Profile};
use quorate_ops::crash;
use quorate_ops::folder::Folder;
use quorate_ops::stage::progress;
use quorate_ops::story;
use quorate_ops::trial::{self, Trial};
use quorate_ops::verify::{self, Progress};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

fn code(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

pub fn crash_rounds(program: &Path, settings: &crash::Settings) -> Result<ExitCode> {
    interrupt::listen();
    let report = crash::rounds(program, settings, stop_if_asked)?;
    println!("{report}");
    Ok(code(report.passed()))
}

pub fn verify(folder: &Folder, residue: bool, within: Duration, output: Output) -> Result<ExitCode> {
    let profile = Profile::load(&folder.client_profile())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let (findings, _) = runtime.block_on(async {
        let client = Client::connect(&profile).await?;
        let show = |Progress { done, all }| progress(&format!("{done} of {all} partitions read"));
        let settled = verify::settle(&client, residue, within, show).await;
        progress("");
        client.close().await;
        Ok::<_, anyhow::Error>(settled)
    })?;
    match output {
        Output::Table => println!("{findings}"),
        Output::Json => println!("{}", serde_json::to_string(&findings)?),
    }
    Ok(code(findings.clean()))
}

pub fn split_brain(program: &Path, scratch: Option<PathBuf>) -> Result<()> {
    interrupt::listen();
    Ok(story::split_brain(program, scratch, &stop_if_asked, |line| println!("{line}"))?)
}

pub fn trial(program: &Path, trial: &Trial, output: Output) -> Result<ExitCode> {
    interrupt::listen();
    let receipt = trial::run(program, trial, &stop_if_asked)?;
    progress("");
    match output {
        Output::Table => println!("{receipt}"),
        Output::Json => println!("{}", receipt.json()),
    }
    Ok(code(receipt.passed()))
}
