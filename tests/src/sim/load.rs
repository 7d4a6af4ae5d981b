//! The work: what clients ask, and what they remember.

use super::clock::EPOCH_MS;
use super::keys::{Key, Keys};
use super::options::{Options, stream};
use super::rng::Rng;
use bytes::Bytes;
use quorate_node::kernel::SessionId;
use quorate_ring::id::OpId;
use quorate_ring::topology::{Count, Durability, QuorumKind};
use quorate_ring::version::{Context, ContextToken, Hlc};
use quorate_ring::wire::client::{Change, ClientRequest, ReadRequest, Supersede, WriteRequest};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Put,
    Delete,
    Read,
}

/// What a write says that it supersedes.
#[derive(Clone, Debug)]
pub enum Stated {
    Nothing,
    Local,
    Latest,
    /// The token, and what it holds.
    Seen(ContextToken, Context),
}

/// One operation of a client. Tried again it is still the same.
#[derive(Clone, Debug)]
pub struct Op {
    pub number: u32,
    pub client: usize,
    pub key: u32,
    pub kind: Kind,
    pub stated: Stated,
    pub value: Bytes,
    pub expires_ms: Option<u64>,
    pub hlc: Hlc,
    pub r: Option<Count>,
    pub w: Option<Count>,
    pub quorum: Option<QuorumKind>,
    pub durability: Option<Durability>,
    pub blocking: bool,
    pub deadline_ms: u32,
    pub invoked_us: u64,
    pub attempts: u32,
    /// Attempts that were answered "not applied".
    pub refused: u32,
    pub applied: bool,
    /// Made when all has healed: it must succeed.
    pub last: bool,
}

impl Op {
    pub fn op_id(&self) -> OpId {
        let mut bytes = [0x5a; 16];
        bytes[..4].copy_from_slice(&self.number.to_be_bytes());
        OpId(bytes)
    }

    /// The number of the operation with this id.
    pub fn number_of(id: OpId) -> u32 {
        u32::from_be_bytes(id.0[..4].try_into().expect("four of sixteen bytes"))
    }

    pub fn w_of(&self, key: &Key) -> u8 {
        self.w.map_or(key.bucket.w, |w| w.of(key.bucket.n).expect("only valid counts are asked for"))
    }

    pub fn r_of(&self, key: &Key) -> u8 {
        self.r.map_or(key.bucket.r, |r| r.of(key.bucket.n).expect("only valid counts are asked for"))
    }

    pub fn quorum_of(&self, key: &Key) -> QuorumKind {
        self.quorum.unwrap_or(key.bucket.quorum)
    }

    pub fn durability_of(&self, key: &Key) -> Durability {
        self.durability.unwrap_or(key.bucket.durability)
    }

    /// As it goes over the wire.
    pub fn request(&self, keys: &Keys) -> ClientRequest {
        let key = keys.get(self.key);
        let (epoch, bucket) = (keys.layout.epoch(), key.bucket.id);
        let change = match self.kind {
            Kind::Read => {
                return ClientRequest::Read(ReadRequest {
                    epoch,
                    bucket,
                    key: key.bytes.clone(),
                    r: self.r,
                    quorum: self.quorum,
                    blocking_repair: self.blocking,
                    deadline_ms: self.deadline_ms,
                    request_id: None,
                });
            }
            Kind::Put => Change::Put { value: self.value.clone(), expires_ms: self.expires_ms },
            Kind::Delete => Change::Delete,
        };
        let supersede = match &self.stated {
            Stated::Nothing => Supersede::Nothing,
            Stated::Local => Supersede::Local,
            Stated::Latest => Supersede::Latest,
            Stated::Seen(token, _) => Supersede::Seen(token.clone()),
        };
        ClientRequest::Write(WriteRequest {
            epoch,
            bucket,
            key: key.bytes.clone(),
            change,
            supersede,
            op_id: self.op_id(),
            hlc: self.hlc,
            r: self.r,
            w: self.w,
            quorum: self.quorum,
            durability: self.durability,
            deadline_ms: self.deadline_ms,
        })
    }
}

#[derive(Default)]
pub struct Client {
    /// Counts its turns: one that is out of date is passed over.
    pub turn: u32,
    /// The request that it waits for.
    pub waiting: Option<u64>,
    /// The operation to be tried again.
    pub again: Option<u32>,
    /// Per node, its connection, and to which run.
    pub sessions: BTreeMap<usize, (u32, SessionId)>,
    /// Per key, the contexts that it was given, the newest last.
    contexts: BTreeMap<u32, Vec<(ContextToken, Context)>>,
    pub hlc: Hlc,
}

const CONTEXTS_MAX: usize = 4;

impl Client {
    pub fn remember(&mut self, key: u32, token: &ContextToken, context: Context) {
        let contexts = self.contexts.entry(key).or_default();
        contexts.push((token.clone(), context));
        if contexts.len() > CONTEXTS_MAX {
            contexts.remove(0);
        }
    }
}

/// A request that a gateway has yet to answer.
#[derive(Clone, Debug)]
pub struct Pending {
    pub op: u32,
    pub client: usize,
    pub node: usize,
    pub incarnation: u32,
    pub session: SessionId,
    pub asked_us: u64,
    /// The gateway's wall clock when the request arrived, and when it was answered.
    pub arrived_wall_ms: Option<u64>,
    pub replied_wall_ms: Option<u64>,
    pub cancelled: bool,
}

pub struct Load {
    pub rng: Rng,
    pub ops: Vec<Op>,
    pub clients: Vec<Client>,
    pub pending: BTreeMap<u64, Pending>,
    /// Requests whose connection broke, or whose client is gone.
    pub abandoned: BTreeSet<u64>,
    requests: u64,
    sessions: u64,
    /// Keys that are written to, and how often they were used.
    open: Vec<(u32, u64)>,
    /// Keys that are read once more when all has healed.
    pub finale: Vec<u32>,
}

impl Load {
    pub fn new(options: &Options) -> Self {
        Self {
            rng: Rng::new(options.seed, stream::CLIENTS),
            ops: Vec::new(),
            clients: (0..options.clients).map(|_| Client::default()).collect(),
            pending: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            requests: 0,
            sessions: 0,
            open: Vec::new(),
            finale: Vec::new(),
        }
    }

    pub fn op(&self, number: u32) -> &Op {
        &self.ops[number as usize]
    }

    pub fn new_request(&mut self) -> u64 {
        self.requests += 1;
        self.requests
    }

    pub fn new_session(&mut self) -> SessionId {
        self.sessions += 1;
        SessionId(self.sessions)
    }

    /// A client makes up its next operation.
    pub fn invent(&mut self, client: usize, now_us: u64, options: &Options, keys: &mut Keys) -> u32 {
        let key = self.pick_key(options, keys);
        let rng = &mut self.rng;
        let kind = match rng.below(10_000) {
            draw if draw < options.reads => Kind::Read,
            draw if draw < options.reads + options.deletes => Kind::Delete,
            _ => Kind::Put,
        };
        let number = self.ops.len() as u32;
        let stated = stated(rng, self.clients[client].contexts.get(&key));
        let length = if rng.chance(200) { rng.between(1_000, 20_000) } else { rng.span(8, 200) };
        let expires = kind == Kind::Put && rng.chance(options.expiring);
        let deadline = [rng.between(3, 60), rng.between(200, 1_000), rng.between(1_000, 4_000)];
        let count =
            |rng: &mut Rng| *rng.pick(&[None, None, None, Some(Count::One), Some(Count::Quorum), Some(Count::All)]);
        let op = Op {
            number,
            client,
            key,
            kind,
            stated,
            value: value(number, length as usize),
            expires_ms: expires.then(|| EPOCH_MS + now_us / 1_000 + rng.span(20, 5_000)),
            hlc: if rng.chance(8_000) { self.clients[client].hlc } else { Hlc::default() },
            r: count(rng),
            w: count(rng),
            quorum: *rng.pick(&[
                None,
                None,
                None,
                None,
                None,
                None,
                Some(QuorumKind::Sloppy),
                Some(QuorumKind::Strict),
            ]),
            durability: (options.asynchronous && rng.chance(3_000)).then_some(Durability::Async),
            blocking: rng.chance(2_000),
            deadline_ms: *rng.pick(&[deadline[0], deadline[1], deadline[1], deadline[1], deadline[2]]) as u32,
            invoked_us: now_us,
            attempts: 0,
            refused: 0,
            applied: false,
            last: false,
        };
        self.ops.push(op);
        number
    }

    /// A read of everything that all owners hold of a key.
    pub fn invent_last(&mut self, client: usize, key: u32, now_us: u64) -> u32 {
        let number = self.ops.len() as u32;
        self.ops.push(Op {
            number,
            client,
            key,
            kind: Kind::Read,
            stated: Stated::Nothing,
            value: Bytes::new(),
            expires_ms: None,
            hlc: Hlc::default(),
            r: Some(Count::All),
            w: None,
            quorum: Some(QuorumKind::Strict),
            durability: None,
            blocking: true,
            deadline_ms: 5_000,
            invoked_us: now_us,
            attempts: 0,
            refused: 0,
            applied: false,
            last: true,
        });
        number
    }

    fn pick_key(&mut self, options: &Options, keys: &mut Keys) -> u32 {
        let count = options.keys_open as usize;
        while self.open.len() < count {
            self.open.push((keys.add(), 0));
        }
        // Some keys are used more than others.
        let at = self.rng.below(count as u64).min(self.rng.below(count as u64)) as usize;
        let (key, used) = &mut self.open[at];
        let key = *key;
        *used += 1;
        if *used >= options.key_ops_max {
            self.open[at] = (keys.add(), 0);
        }
        key
    }
}

fn stated(rng: &mut Rng, contexts: Option<&Vec<(ContextToken, Context)>>) -> Stated {
    match (rng.below(20), contexts) {
        (0..3, _) => Stated::Nothing,
        (3..8, _) => Stated::Local,
        (8..13, _) => Stated::Latest,
        (13..17, Some(contexts)) => {
            let (token, context) = contexts.last().expect("a list of contexts is made with its first");
            Stated::Seen(token.clone(), context.clone())
        }
        (17.., Some(contexts)) => {
            let (token, context) = rng.pick(contexts);
            Stated::Seen(token.clone(), context.clone())
        }
        (13.., None) => Stated::Local,
    }
}

/// Values are unique: they name their operation.
fn value(number: u32, length: usize) -> Bytes {
    let mut bytes = format!("op{number};").into_bytes();
    bytes.resize(bytes.len().max(length), b'.');
    Bytes::from(bytes)
}
