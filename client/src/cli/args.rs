//! What can be typed.

use crate::bench::args::Bench;
use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use quorate_client::{ContextToken, Count, Durability, OpId, QuorumKind};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

const AFTER_HELP: &str = "\
Examples:
  quorate put greeting 'hello, quorum' --trace   who holds it, how durably, and what took how long
  quorate put photo @cat.jpg --ttl 7d            a file as the value; gone in a week
  quorate get greeting -o raw                    the bytes, and nothing else
  quorate get greeting -r all                    what all its owners hold
  quorate load cities.ndjson --key id            a record a line; its field `id` is the key
  quorate export > dump.ndjson                   and back: quorate load dump.ndjson --exported
  quorate status                                 how the nodes are, and how many more may be lost

Exit codes: 0 done, 2 typed wrong, 3 no such key, 4 refused and nothing applied, 5 outcome unknown, 6 conflict (more
than one value), 7 not authorised (TLS refused), 1 anything else. `check` ends with 1 if a record is missing or differs.";

/// Talk to a Quorate cluster: put, get, delete, look where things lie, load and check files.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, after_help = AFTER_HELP, disable_help_subcommand = false)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Common options")]
pub struct Common {
    /// A profile file, or the name of one in ~/.config/quorate [default: ./.lab/client.toml, then
    /// ~/.config/quorate/client.toml]
    #[arg(long, global = true, env = "QUORATE_PROFILE", value_name = "FILE")]
    pub profile: Option<PathBuf>,
    /// The bucket [default: the one of the profile]
    #[arg(short, long, global = true, env = "QUORATE_BUCKET", value_name = "NAME")]
    pub bucket: Option<String>,
    /// Owners that have to answer a read: a number, one, quorum or all [default: as the bucket says]
    #[arg(short = 'r', global = true, env = "QUORATE_R", value_name = "COUNT")]
    pub r: Option<Count>,
    /// Owners that have to hold a write before it counts: a number, one, quorum or all [default: as the bucket says]
    #[arg(short = 'w', global = true, env = "QUORATE_W", value_name = "COUNT")]
    pub w: Option<Count>,
    /// Both -r and -w, where they are not given
    #[arg(long, global = true, env = "QUORATE_CONSISTENCY", value_enum)]
    pub consistency: Option<Consistency>,
    /// Who counts toward -w and -r [default: as the bucket says]
    #[arg(long, global = true, env = "QUORATE_QUORUM", value_enum)]
    pub quorum: Option<Quorum>,
    /// When a write counts [default: as the bucket says]
    #[arg(long, global = true, env = "QUORATE_DURABILITY", value_enum)]
    pub durability: Option<Durable>,
    /// Time for a request with all its retries, as in 800ms, 5s, 2m
    #[arg(long, global = true, env = "QUORATE_DEADLINE", value_parser = duration, default_value = "5s", value_name = "TIME")]
    pub deadline: Duration,
    /// Send everything to this node, whether it owns the key or not
    #[arg(long, global = true, env = "QUORATE_NODE", value_name = "NAME")]
    pub node: Option<String>,
    /// Show what each owner did, and when
    #[arg(long, global = true)]
    pub trace: bool,
    /// How to print results; with json and jsonl, errors are JSON too
    #[arg(
        short,
        long,
        global = true,
        env = "QUORATE_OUTPUT",
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Format,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Write a value
    Put(Put),
    /// Read a value
    Get {
        /// Its key: any bytes, 4096 at the most
        key: OsString,
    },
    /// Delete a key
    Del(Del),
    /// Show every concurrent value of a key
    Siblings {
        /// The key
        key: OsString,
    },
    /// End a conflict: write one value in place of all that are there
    Resolve(Resolve),
    /// List keys, in the order of partitions (not sorted)
    Ls {
        /// Only keys that begin with this
        prefix: Option<OsString>,
    },
    /// Print every key with its value, a JSON object a line, in the order of partitions
    Export {
        /// Only keys that begin with this
        prefix: Option<OsString>,
    },
    /// Show where a key lies: its hash, partition, owners and fallbacks
    Locate {
        /// The key, whether there is such a one or not
        key: OsString,
    },
    /// Show how evenly partitions lie on nodes and racks
    Ring,
    /// Say how many nodes can still be lost, and how each node is
    Status {
        /// Look again every second, until ended
        #[arg(long)]
        watch: bool,
    },
    /// Have the nodes get what they lack from each other now, and show how far they are
    Repair(Repair),
    /// Write every record of a file (NDJSON or CSV, also gzipped); can be resumed
    Load(Load),
    /// Read every record of a file back and compare bytes
    Check(Check),
    /// Measure how fast the cluster is, with the workloads of YCSB
    Bench(Box<Bench>),
    /// About buckets
    Bucket {
        #[command(subcommand)]
        command: BucketCommand,
    },
    /// Print a script that completes what is typed, as in: quorate completions bash > ~/.bash_completion
    Completions {
        /// The shell that it is for
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand, Debug)]
pub enum BucketCommand {
    /// List the buckets and their settings
    Ls,
}

/// What a write replaces, and under which op id it is known.
#[derive(Args, Clone, Debug, Default)]
pub struct Writing {
    /// Replace exactly what this context covers: the one that a get printed
    #[arg(long, value_name = "HEX", conflicts_with = "supersede")]
    pub context: Option<ContextToken>,
    /// What is replaced [default: latest]
    #[arg(long, value_enum)]
    pub supersede: Option<Replace>,
    /// Repeat a write whose outcome is unknown: the op id that its error named
    #[arg(long, value_name = "HEX")]
    pub op_id: Option<OpId>,
}

#[derive(Args, Debug)]
pub struct Put {
    /// Its key: any bytes, 4096 at the most
    pub key: OsString,
    /// The value, - for stdin, or @FILE
    #[arg(allow_negative_numbers = true)]
    pub value: OsString,
    /// Take the value as it is typed, also if it is - or begins with @
    #[arg(long)]
    pub literal: bool,
    /// Let it expire after this time, as in 30s, 12h, 7d
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub ttl: Option<Duration>,
    #[command(flatten)]
    pub writing: Writing,
}

#[derive(Args, Debug)]
pub struct Del {
    /// The key
    pub key: OsString,
    #[command(flatten)]
    pub writing: Writing,
}

#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("winner").required(true).args(["value", "pick", "file"])))]
pub struct Resolve {
    /// The key
    pub key: OsString,
    /// Write this value
    #[arg(long)]
    pub value: Option<OsString>,
    /// Keep this one: its number, or its version, as `siblings` shows them
    #[arg(long, value_name = "NUMBER|VERSION")]
    pub pick: Option<String>,
    /// Write what is in @FILE, or - for stdin
    #[arg(value_name = "@FILE")]
    pub file: Option<OsString>,
    /// Replace exactly what this context covers [default: all that is there now]
    #[arg(long, value_name = "HEX")]
    pub context: Option<ContextToken>,
}

#[derive(Args, Debug)]
pub struct Repair {
    /// Only this partition of the bucket, as `locate` numbers it
    #[arg(long, value_name = "NUMBER")]
    pub partition: Option<u16>,
    /// Go on showing it until nothing is missing anywhere
    #[arg(long)]
    pub wait: bool,
    /// Do not wait longer than this
    #[arg(long, value_parser = duration, requires = "wait", value_name = "TIME")]
    pub timeout: Option<Duration>,
}

#[derive(Args, Debug, Clone)]
pub struct Records {
    /// One JSON object a line, or CSV with a header; also gzipped
    pub file: PathBuf,
    /// The field that is the key; the whole record is its value
    #[arg(long, visible_alias = "key", value_name = "FIELD", required_unless_present = "exported")]
    pub key_field: Option<String>,
    /// The file is what `quorate export` printed: keys, values and expiry are taken from it as they were
    #[arg(long, conflicts_with_all = ["key_field", "key_prefix", "format"])]
    pub exported: bool,
    /// What goes before each key
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub key_prefix: String,
    /// What the file is [default: by its name]
    #[arg(long, value_enum)]
    pub format: Option<RecordFormat>,
    /// Requests under way at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024), value_name = "COUNT")]
    pub in_flight: u16,
}

#[derive(Args, Debug)]
pub struct Load {
    #[command(flatten)]
    pub records: Records,
    /// Go on where an earlier run of the same load was broken off
    #[arg(long)]
    pub resume: bool,
    /// Where the progress is kept while the load runs [default: FILE.load.json in this folder]
    #[arg(long, value_name = "PATH")]
    pub state: Option<PathBuf>,
    /// Where records go that were not stored [default: FILE.rejects.ndjson in this folder]
    #[arg(long, value_name = "PATH")]
    pub rejects: Option<PathBuf>,
    /// Stop when so many in a row could not be stored
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    pub stop_after: u64,
    /// What each record replaces [default: latest]
    #[arg(long, value_enum)]
    pub supersede: Option<Replace>,
}

#[derive(Args, Debug)]
pub struct Check {
    #[command(flatten)]
    pub records: Records,
    /// Send each read to another node than the first owner of the key, which took its write
    #[arg(long, conflicts_with = "node")]
    pub avoid_owner: bool,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    One,
    Quorum,
    All,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// All that was acknowledged before: R owners are asked for it first
    Latest,
    /// What the owner that takes the write holds: one trip less, and what others hold may become a sibling
    Local,
    /// The value becomes a sibling of all that is there
    Nothing,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// Only owners count
    Strict,
    /// A hint for an unreachable owner counts toward -w, and a read makes do with the owners there are
    Sloppy,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// Fsynced before it is acknowledged
    Sync,
    /// Acknowledged from memory: a power cut may lose it
    Async,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordFormat {
    Ndjson,
    Csv,
}

impl Common {
    pub fn r(&self) -> Option<Count> {
        self.r.or(self.consistency.map(Consistency::count))
    }

    pub fn w(&self) -> Option<Count> {
        self.w.or(self.consistency.map(Consistency::count))
    }

    pub fn quorum(&self) -> Option<QuorumKind> {
        self.quorum.map(|quorum| match quorum {
            Quorum::Strict => QuorumKind::Strict,
            Quorum::Sloppy => QuorumKind::Sloppy,
        })
    }

    pub fn durability(&self) -> Option<Durability> {
        self.durability.map(|durability| match durability {
            Durable::Sync => Durability::Sync,
            Durable::Async => Durability::Async,
        })
    }
}

impl Consistency {
    fn count(self) -> Count {
        match self {
            Consistency::One => Count::One,
            Consistency::Quorum => Count::Quorum,
            Consistency::All => Count::All,
        }
    }
}

/// A number and a unit: ms, s, m, h or d.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a number with ms, s, m, h or d, as in 5s, got {text:?}");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit_ms = match &text[digits..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit_ms) {
        Some(ms) if ms > 0 => Ok(Duration::from_millis(ms)),
        Some(_) | None => Err(format!("expected more than nothing and less than for ever, got {text:?}")),
    }
}

/// Whether JSON was asked for, of a command line that does not parse; `setting` is what the environment says.
pub fn asks_for_json(typed: &[OsString], setting: Option<&OsStr>) -> bool {
    let words: Vec<&str> = typed.iter().filter_map(|word| word.to_str()).collect();
    let apart = words.windows(2).filter(|pair| matches!(pair[0], "-o" | "--output")).map(|pair| pair[1]);
    let joined = words.iter().filter_map(|word| {
        let value = word.strip_prefix("--output=").or_else(|| word.strip_prefix("-o"));
        value.map(|value| value.trim_start_matches('=')).filter(|value| !value.is_empty())
    });
    let asked: Vec<&str> = apart.chain(joined).collect();
    let is_json = |text: &&str| *text == "json" || *text == "jsonl";
    match (asked.as_slice(), setting.and_then(OsStr::to_str)) {
        ([], Some(setting)) => is_json(&setting),
        (asked, _) => asked.iter().any(is_json),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_may_stand_anywhere() {
        let cli = parse("quorate -r 1 put k v --consistency all -o json --deadline 300ms --ttl 7d").unwrap();
        assert_eq!((cli.common.r(), cli.common.w()), (Some(Count::Exactly(1)), Some(Count::All)));
        assert_eq!((cli.common.deadline, cli.common.output), (Duration::from_millis(300), Format::Json));
        let Command::Put(put) = cli.command else { panic!() };
        assert_eq!(put.ttl, Some(Duration::from_secs(7 * 86_400)));
        assert!(matches!(parse("quorate put k -5").unwrap().command, Command::Put(put) if put.value == "-5"));
        assert!(matches!(parse("quorate put k -").unwrap().command, Command::Put(put) if put.value == "-"));
    }

    #[test]
    fn what_is_typed_wrong_is_refused_with_2() {
        let lines = [
            "quorate",
            "quorate put k",
            "quorate get k -r most",
            "quorate put k v --context xyz",
            "quorate put k v --context 00 --supersede latest",
            "quorate put k v --deadline 5",
            "quorate put k v --ttl 0s",
            "quorate resolve k",
            "quorate resolve k --value v --pick 1",
            "quorate load f.csv",
            "quorate load f.csv --exported --key id",
            "quorate load f.csv --key-field id --in-flight 0",
            "quorate check f.csv --key id --avoid-owner --node n1",
            "quorate get k -o xml",
            "quorate repair --timeout 5s",
        ];
        for line in lines {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
        assert_eq!(parse("quorate --help").expect_err("help").exit_code(), 0);
    }

    #[test]
    fn a_key_field_has_a_short_name() {
        let Command::Load(load) = parse("quorate load f.csv --key id").unwrap().command else { panic!() };
        assert_eq!(load.records.key_field.as_deref(), Some("id"));
        assert!(
            matches!(parse("quorate load f --exported").unwrap().command, Command::Load(load) if load.records.exported)
        );
    }

    #[test]
    fn json_is_noticed_where_nothing_else_parses() {
        let typed = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let asks = |line: &str| asks_for_json(&typed(line), None);
        assert!(asks("quorate put -o json") && asks("quorate --output=jsonl put") && asks("quorate -ojson"));
        assert!(!asks("quorate put -o table json") && !asks("quorate put json"));
        let set = Some(OsStr::new("json"));
        assert!(asks_for_json(&typed("quorate put"), set) && !asks_for_json(&typed("quorate -o table put"), set));
    }
}
