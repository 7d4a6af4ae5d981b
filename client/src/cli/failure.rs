//! How a command ends when it does not end well: what happened, what state things are in, what to do.

use crate::output::{Format, node_name};
use quorate_client::{ConnectError, Declined, Layout, LinkError, Refusal, ScanError, Unknown, WriteError};
use serde_json::{Map, Value, json};
use std::process::ExitCode;

/// The kinds of ending; each has an exit code of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// Whoever reads stdout has had enough.
    Closed,
    /// Something on this machine, or what `check` found.
    Local,
    Usage,
    NotFound,
    NotApplied,
    Unknown,
    Conflict,
    NotAuthorised,
    Interrupted,
}

impl Code {
    pub fn exit(self) -> u8 {
        match self {
            Code::Closed => 0,
            Code::Local => 1,
            Code::Usage => 2,
            Code::NotFound => 3,
            Code::NotApplied => 4,
            Code::Unknown => 5,
            Code::Conflict => 6,
            Code::NotAuthorised => 7,
            Code::Interrupted => 130,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Code::Closed => "closed",
            Code::Local => "failed",
            Code::Usage => "usage",
            Code::NotFound => "not_found",
            Code::NotApplied => "not_applied",
            Code::Unknown => "unknown",
            Code::Conflict => "conflict",
            Code::NotAuthorised => "not_authorised",
            Code::Interrupted => "interrupted",
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// What state things are in.
    pub state: String,
    pub advice: String,
    /// More of it, for programs.
    pub details: Map<String, Value>,
}

/// Whether a request was a write: what a refusal leaves behind is said in other words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Write,
    Read,
}

const NOTHING_WRITTEN: &str = "nothing was written anywhere";
const NOTHING_READ: &str = "nothing was read, and nothing has changed";

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (state, advice) = (String::new(), String::new());
        Self { code, message: message.into(), state, advice, details: Map::new() }
    }

    /// Typed or set up wrong, which shows before anything is sent.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, message).state("nothing was sent")
    }

    pub fn local(message: impl Into<String>) -> Self {
        Self::new(Code::Local, message)
    }

    pub fn state(mut self, state: impl Into<String>) -> Self {
        self.state = state.into();
        self
    }

    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_string(), value.into());
        self
    }

    pub fn read(declined: &Declined) -> Self {
        Self::declined(declined, Kind::Read)
    }

    pub fn declined(declined: &Declined, kind: Kind) -> Self {
        let state = match kind {
            Kind::Write => NOTHING_WRITTEN,
            Kind::Read => NOTHING_READ,
        };
        let made = Self::new(Code::NotApplied, declined.to_string()).state(state);
        match declined {
            Declined::Refused { node, refusal } => {
                let mut made = made.advise(advice(refusal)).detail("refusal", refusal_name(refusal));
                if let Some(node) = node {
                    made = made.detail("node_id", node.0);
                }
                made
            }
            Declined::Unreachable(causes) if causes.all_tls() => {
                Self { code: Code::NotAuthorised, ..made }.advise(TLS_ADVICE)
            }
            Declined::Unreachable(_) => made.advise(UNREACHABLE_ADVICE),
            Declined::NoBucket { .. } => {
                made.advise("`quorate bucket ls` lists the buckets; a new one is added to the topology")
            }
            Declined::NoNode(_) => made.advise("`quorate ring` lists the nodes"),
            Declined::DeadlinePassed(_) => {
                made.advise("give it more time with --deadline; `quorate status` shows how the nodes are")
            }
        }
    }

    pub fn write(error: &WriteError, layout: &Layout) -> Self {
        match error {
            WriteError::NotApplied(declined) => Self::declined(declined, Kind::Write),
            WriteError::Unknown(unknown) => Self::unknown(unknown, layout),
        }
    }

    fn unknown(unknown: &Unknown, layout: &Layout) -> Self {
        let name = |node| node_name(layout, node);
        let acks: Vec<String> = unknown.acks.iter().map(|ack| name(ack.node)).collect();
        let held = match (unknown.needed, acks.as_slice()) {
            (Some(needed), []) => format!("; none of the {needed} acks that are needed had come in"),
            (Some(needed), acks) => format!("; {} of {needed} acks had come in ({})", acks.len(), acks.join(", ")),
            (None, _) => String::new(),
        };
        Self::new(Code::Unknown, unknown.to_string())
            .state(format!("the write was sent to {}; it may have taken effect, or may yet{held}", name(unknown.node)))
            .advise(format!(
                "read the key to see, or run the same command again with --op-id {}: nodes recognise it, so it is \
                 applied once",
                unknown.op_id
            ))
            .detail("op_id", unknown.op_id.to_string())
            .detail("node", name(unknown.node))
            .detail("acks", acks)
            .detail("needed", unknown.needed)
    }

    /// Prints it, and gives the exit code.
    pub fn report(&self, format: Format) -> ExitCode {
        if self.code != Code::Closed {
            match format {
                Format::Json | Format::Jsonl => eprintln!("{}", self.json()),
                Format::Table | Format::Raw => eprint!("{}", self.text()),
            }
        }
        ExitCode::from(self.code.exit())
    }

    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for (label, part) in [("state", &self.state), ("to do", &self.advice)] {
            if !part.is_empty() {
                text += &format!("  {label}: {part}\n");
            }
        }
        text
    }

    fn json(&self) -> Value {
        let mut error = self.details.clone();
        error.insert("code".to_string(), json!(self.code.name()));
        error.insert("exit".to_string(), json!(self.code.exit()));
        error.insert("message".to_string(), json!(self.message));
        for (label, part) in [("state", &self.state), ("to_do", &self.advice)] {
            if !part.is_empty() {
                error.insert(label.to_string(), json!(part));
            }
        }
        json!({ "error": error })
    }
}

const TLS_ADVICE: &str = "check `certificate`, `node_ca` and `cluster` in the profile: the certificate has to be a \
                          client's, issued for this cluster and valid today (`openssl x509 -noout -issuer -dates -in \
                          FILE` shows that); `node_ca` has to be the authority of its nodes";
const UNREACHABLE_ADVICE: &str = "check that the nodes run (`quorate status`, on this machine also `quorate-lab \
                                  status`) and that the addresses in the profile are right";

fn advice(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unavailable { .. } => {
            "`quorate status` shows which nodes are down, `quorate locate KEY` the owners of the key; or ask for fewer \
             with -r or -w"
        }
        Refusal::Count(_) => "`quorate bucket ls` shows how many copies each bucket keeps",
        Refusal::Context(_) => "`quorate get KEY` prints the context of the key",
        Refusal::TooManySiblings { .. } | Refusal::ObjectLength { .. } => {
            "`quorate siblings KEY` shows them, `quorate resolve KEY` ends it"
        }
        Refusal::UnknownBucket { .. } => "`quorate bucket ls` lists the buckets",
        Refusal::KeyLength { length: 0, .. } => "give the key a name",
        Refusal::KeyLength { .. } | Refusal::ValueLength { .. } => crate::value::TOO_LONG_ADVICE,
        Refusal::WrongCluster { .. } => "check the profile",
        Refusal::Overloaded { .. }
        | Refusal::DeadlinePassed
        | Refusal::DiskReserve
        | Refusal::HintsFull { .. }
        | Refusal::NotReady
        | Refusal::ShuttingDown
        | Refusal::NotOwner
        | Refusal::StaleEpoch { .. } => "run it again in a while; `quorate status` shows how the nodes are",
        Refusal::Malformed(_) => "check that the versions of client and nodes fit (`quorate status`)",
    }
}

/// The name of a refusal as it travels.
fn refusal_name(refusal: &Refusal) -> Value {
    match serde_json::to_value(refusal) {
        Ok(Value::Object(fields)) => fields.into_iter().next().map_or(Value::Null, |(name, _)| name.into()),
        Ok(name) => name,
        Err(_) => Value::Null,
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let made = Self::new(Code::NotApplied, error.to_string()).state("nothing was sent");
        match error {
            ConnectError::Certificate { .. } | ConnectError::Tls(_) => {
                Self { code: Code::Usage, ..made }.advise("check `certificate`, `key` and `node_ca` in the profile")
            }
            ConnectError::Unreachable(causes) if causes.all_tls() => {
                Self { code: Code::NotAuthorised, ..made }.advise(TLS_ADVICE)
            }
            ConnectError::Unreachable(causes) => {
                let wrong_cluster =
                    causes.0.iter().any(|(_, c)| matches!(c, LinkError::Refused(Refusal::WrongCluster { .. })));
                made.advise(if wrong_cluster { "check `cluster` in the profile" } else { UNREACHABLE_ADVICE })
            }
        }
    }
}

impl From<ScanError> for Failure {
    fn from(error: ScanError) -> Self {
        match &error {
            ScanError::Declined(declined) => Self::read(declined),
            ScanError::TooFewOwners { .. } => Self::new(Code::NotApplied, error.to_string())
                .state("the listing is not complete; what was printed stands")
                .advise("`quorate status` shows how the nodes are; with -r one a single owner will do"),
            ScanError::Record { .. } => Self::new(Code::NotApplied, error.to_string())
                .state("the listing is not complete; what was printed stands")
                .advise("that node's data is damaged, or of another version; look at its log"),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use quorate_client::{Causes, Doubt, NodeId, OpId, UnknownCause};
    use quorate_ring::topology::Topology;
    use std::sync::Arc;
    use std::time::Duration;

    /// A cluster of one node.
    pub fn layout() -> Layout {
        let text = "cluster = \"000102030405060708090a0b0c0d0e0f\"\nepoch = 1\n[[node]]\nid = 1\nname = \"n1\"\n\
                    client_address = \"127.0.0.1:1\"\npeer_address = \"127.0.0.1:2\"\nrack = \"a\"\n\
                    [[bucket]]\nid = 1\nname = \"default\"\nn = 1\n";
        Layout::new(Arc::new(Topology::parse(text).unwrap())).unwrap()
    }

    fn unreachable(cause: LinkError) -> Declined {
        Declined::Unreachable(Causes(vec![(NodeId(1), cause)]))
    }

    #[test]
    fn every_outcome_has_its_exit_code() {
        let layout = layout();
        let unavailable = Declined::Refused { node: None, refusal: Refusal::Unavailable { needed: 2, got: 1 } };
        let unknown = Unknown {
            op_id: OpId([1; 16]),
            cause: UnknownCause::Reported(Doubt::LinkBroke),
            node: NodeId(1),
            waited: Duration::from_millis(5),
            needed: Some(2),
            acks: Vec::new(),
        };
        let tls = LinkError::Tls("expired".to_string());
        let silent = LinkError::Silent(Duration::from_secs(1));
        let write = |error: WriteError| Failure::write(&error, &layout).code.exit();
        assert_eq!(write(unavailable.clone().into()), 4);
        assert_eq!(write(WriteError::Unknown(Box::new(unknown))), 5);
        assert_eq!(write(unreachable(tls.clone()).into()), 7);
        assert_eq!(Failure::read(&unavailable).code.exit(), 4);
        assert_eq!(Failure::read(&unreachable(silent.clone())).code.exit(), 4);
        assert_eq!(Failure::from(ConnectError::Unreachable(Causes(vec![(NodeId(1), tls.clone())]))).code.exit(), 7);
        let mixed = Causes(vec![(NodeId(1), tls), (NodeId(2), silent)]);
        assert_eq!(Failure::from(ConnectError::Unreachable(mixed)).code.exit(), 4);
        assert_eq!(Failure::usage("").code.exit(), 2);
        assert_eq!((Code::NotFound.exit(), Code::Conflict.exit(), Code::Closed.exit()), (3, 6, 0));
    }

    #[test]
    fn errors_say_what_state_things_are_in_and_what_to_do() {
        let unknown = Unknown {
            op_id: OpId([1; 16]),
            cause: UnknownCause::Reported(Doubt::OwnersFailed),
            node: NodeId(1),
            waited: Duration::from_millis(5),
            needed: Some(2),
            acks: Vec::new(),
        };
        let failure = Failure::write(&WriteError::Unknown(Box::new(unknown)), &layout());
        let text = failure.text();
        assert!(text.contains("may have taken effect, or may yet; none of the 2 acks"), "{text}");
        assert!(text.contains("--op-id 01010101010101010101010101010101"), "{text}");
        let json = failure.json();
        assert_eq!(json["error"]["code"], "unknown");
        assert_eq!(json["error"]["exit"], 5);
        assert_eq!(json["error"]["node"], "n1");
        let refused = Declined::Refused { node: None, refusal: Refusal::KeyLength { length: 0, limit: 4096 } };
        assert_eq!(Failure::read(&refused).json()["error"]["refusal"], "key_length");
    }
}
