//! How a command tells a relay that runs what to do: a line of JSON on loopback, answered by a line of JSON.

use super::link::Valve;
use super::rules::Rules;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// A line is no longer than this: 16 nodes have 240 links.
const LINE_BYTES_MAX: u64 = 256 * 1024;
const PATIENCE: Duration = Duration::from_secs(3);

/// What a relay does, and what it has done.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Account {
    pub rules: Rules,
    /// Packets since its start.
    pub passed: u64,
    pub lost: u64,
}

/// None: only tell. Rules replace those that hold.
#[derive(Serialize, Deserialize)]
struct Order {
    rules: Option<Rules>,
}

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the relay of this lab does not answer at {address}: {error}; `quorate-lab up` starts it again")]
    Silent { address: SocketAddr, error: io::Error },
    #[error("the relay at {address} does not answer as one: {error}")]
    Answer { address: SocketAddr, error: serde_json::Error },
}

/// What the relay does now.
pub fn ask(address: SocketAddr) -> Result<Account, ControlError> {
    order(address, &Order { rules: None })
}

/// Sets the rules. They hold for every packet that comes after this has returned.
pub fn tell(address: SocketAddr, rules: Rules) -> Result<Account, ControlError> {
    order(address, &Order { rules: Some(rules) })
}

fn order(address: SocketAddr, order: &Order) -> Result<Account, ControlError> {
    let spoken = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut answer = String::new();
        io::BufReader::new(io::Read::take(stream, LINE_BYTES_MAX)).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = spoken().map_err(|error| ControlError::Silent { address, error })?;
    serde_json::from_str(&answer).map_err(|error| ControlError::Answer { address, error })
}

/// The relay's side.
pub struct Desk {
    nodes: Vec<String>,
    rules: Rules,
    valves: BTreeMap<(String, String), Arc<Valve>>,
}

impl Desk {
    pub fn new(nodes: Vec<String>, valves: BTreeMap<(String, String), Arc<Valve>>) -> Self {
        Self { nodes, rules: Rules::default(), valves }
    }

    /// One command at a time, for as long as it is polled.
    pub async fn serve(mut self, listener: TcpListener) {
        loop {
            // Who does not say what it wants, or does not wait for the answer, is of no interest.
            if let Ok((stream, _)) = listener.accept().await {
                let _unfinished = timeout(PATIENCE, self.attend(stream)).await;
            }
        }
    }

    async fn attend(&mut self, mut stream: tokio::net::TcpStream) -> io::Result<()> {
        let (reader, mut writer) = stream.split();
        let mut line = String::new();
        BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
        let order: Order = serde_json::from_str(&line)?;
        if let Some(rules) = order.rules {
            for ((from, to), valve) in &self.valves {
                valve.turn(rules.is_cut(from, to), rules.late(from, to));
            }
            eprintln!("{} nodes: {rules}", self.nodes.len());
            self.rules = rules;
        }
        let sum = |count: fn(&Valve) -> u64| self.valves.values().map(|valve| count(valve)).sum::<u64>();
        let account = Account {
            rules: self.rules.clone(),
            passed: sum(|valve| valve.passed.load(Ordering::Relaxed)),
            lost: sum(|valve| valve.lost.load(Ordering::Relaxed)),
        };
        let mut answer = serde_json::to_vec(&account)?;
        answer.push(b'\n');
        writer.write_all(&answer).await
    }
}
