//! What can be typed behind `quorate bench`.

use crate::args::{Replace, duration};
use clap::{Args, ValueEnum};
use std::time::Duration;

const BENCH_HELP: &str = "\
Workloads (YCSB, Cooper et al. 2010):
  a  half gets, half puts                 zipfian keys
  b  95 % gets, 5 % puts                  zipfian keys
  c  gets                                 zipfian keys
  d  95 % gets, 5 % inserts of new keys   the latest keys
  e  short scans of ranges of keys: left out, as keys are listed by partition and in no order
  f  half gets, half read-modify-writes   zipfian keys; the put says which context it has seen
  puts, gets                              nothing else, uniform keys

Records are loaded first, unless --skip-load is given. Latency in the open loop (--rate) counts from when an operation
was due, so that a stall is not left out. At the end what was acknowledged is read back and compared.";

#[derive(Args, Clone, Debug)]
#[command(after_help = BENCH_HELP)]
pub struct Bench {
    #[arg(value_enum)]
    pub workload: Workload,
    /// Keys that are loaded before the run
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000), value_name = "COUNT")]
    pub records: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(16..=8_388_608), value_name = "BYTES")]
    pub value_bytes: u32,
    /// How keys are chosen [default: as the workload says]
    #[arg(long, value_enum, value_name = "HOW")]
    pub keys: Option<Keys>,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub time: Duration,
    /// How long to run before measuring; 0s for not at all
    #[arg(long, default_value = "2s", value_parser = duration_or_none, value_name = "TIME")]
    pub warm_up: Duration,
    /// Operations under way at once: as many as this in the closed loop, at the most as many in the open one
    /// [default: 64, with --rate 1024]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "COUNT")]
    pub in_flight: Option<u32>,
    /// Open loop: begin so many operations a second, whether earlier ones have ended or not
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000), value_name = "COUNT")]
    pub rate: Option<u64>,
    /// Connections to each node, of each client process
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024), value_name = "COUNT")]
    pub connections: u16,
    /// Client processes; each has a share of the records, the operations under way and the rate
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64), value_name = "COUNT")]
    pub processes: u16,
    /// What a put replaces
    #[arg(long, value_enum, default_value = "local")]
    pub supersede: Replace,
    /// What goes before each key
    #[arg(long, default_value = "bench/", value_name = "TEXT")]
    pub key_prefix: String,
    /// The same seed draws the same keys and operations
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
    /// The records are there already, written with the same --records, --processes and --key-prefix
    #[arg(long)]
    pub skip_load: bool,
    /// About how many keys are read back and compared at the end; 0 for none
    #[arg(long, default_value_t = 10_000, value_name = "COUNT")]
    pub check: u64,
    /// Which of the processes this is; given by the first one
    #[arg(long, hide = true)]
    pub part: Option<u16>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    A,
    B,
    C,
    D,
    E,
    F,
    Puts,
    Gets,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Each as often as any other
    Uniform,
    /// A few very often (theta 0.99), spread over all
    Zipfian,
    /// Those that were inserted last most often
    Latest,
}

impl Workload {
    pub fn name(self) -> &'static str {
        match self {
            Workload::A => "a",
            Workload::B => "b",
            Workload::C => "c",
            Workload::D => "d",
            Workload::E => "e",
            Workload::F => "f",
            Workload::Puts => "puts",
            Workload::Gets => "gets",
        }
    }

    pub fn usual_keys(self) -> Keys {
        match self {
            Workload::A | Workload::B | Workload::C | Workload::E | Workload::F => Keys::Zipfian,
            Workload::D => Keys::Latest,
            Workload::Puts | Workload::Gets => Keys::Uniform,
        }
    }
}

impl Keys {
    pub fn name(self) -> &'static str {
        match self {
            Keys::Uniform => "uniform",
            Keys::Zipfian => "zipfian",
            Keys::Latest => "latest",
        }
    }
}

impl Bench {
    pub fn in_flight(&self) -> u32 {
        self.in_flight.unwrap_or(if self.rate.is_some() { 1_024 } else { 64 })
    }

    pub fn keys(&self) -> Keys {
        self.keys.unwrap_or_else(|| self.workload.usual_keys())
    }

    /// What there is too little of for each process to have a share of it: its option, and how much there is.
    pub fn too_few(&self) -> Option<(&'static str, u64)> {
        let shared = [
            ("--records", Some(self.records)),
            ("--in-flight", Some(u64::from(self.in_flight()))),
            ("--rate", self.rate),
        ];
        let few = |count: &u64| *count < u64::from(self.processes);
        shared.into_iter().find_map(|(option, count)| Some((option, count.filter(few)?)))
    }

    /// What one of several processes does: its share of everything that is counted for all.
    pub fn share(&self, part: u16) -> Self {
        let processes = u64::from(self.processes);
        let of = |total: u64| total / processes + u64::from(u64::from(part) < total % processes);
        Self {
            records: of(self.records),
            in_flight: Some(of(u64::from(self.in_flight())) as u32),
            rate: self.rate.map(of),
            check: if self.check == 0 { 0 } else { of(self.check).max(1) },
            key_prefix: format!("{}{part}/", self.key_prefix),
            seed: self.seed.wrapping_add(u64::from(part)),
            ..self.clone()
        }
    }
}

fn duration_or_none(text: &str) -> Result<Duration, String> {
    if matches!(text, "0" | "0s") { Ok(Duration::ZERO) } else { duration(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn parse(line: &str) -> Bench {
        let Command::Bench(bench) = Cli::try_parse_from(line.split(' ')).unwrap().command else { panic!() };
        *bench
    }

    #[test]
    fn shares_add_up_and_have_keys_of_their_own() {
        let bench = parse("quorate bench a --processes 3 --records 100 --in-flight 64 --rate 1000 --warm-up 0s");
        let shares: Vec<Bench> = (0..3).map(|part| bench.share(part)).collect();
        assert_eq!(shares.iter().map(|share| share.records).sum::<u64>(), 100);
        assert_eq!(shares.iter().map(|share| share.in_flight()).sum::<u32>(), 64);
        assert_eq!(shares.iter().filter_map(|share| share.rate).sum::<u64>(), 1_000);
        assert!(shares[0].key_prefix != shares[1].key_prefix && bench.warm_up.is_zero());
    }

    #[test]
    fn each_process_has_something_to_do() {
        assert_eq!(parse("quorate bench a --processes 64").too_few(), None);
        assert_eq!(parse("quorate bench a --processes 64 --in-flight 63").too_few(), Some(("--in-flight", 63)));
        assert_eq!(parse("quorate bench a --processes 3 --records 2").too_few(), Some(("--records", 2)));
        assert_eq!(parse("quorate bench a --processes 3 --rate 2").too_few(), Some(("--rate", 2)));
    }

    #[test]
    fn more_may_be_under_way_in_the_open_loop() {
        assert_eq!(parse("quorate bench puts").in_flight(), 64);
        assert_eq!(parse("quorate bench puts --rate 5").in_flight(), 1_024);
        assert_eq!(parse("quorate bench d").keys(), Keys::Latest);
        assert_eq!(parse("quorate bench d --keys uniform").keys(), Keys::Uniform);
    }
}
