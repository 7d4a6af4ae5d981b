//! Nodes that do as they are told: the client plane of a cluster, with scripted answers.

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use quorate_client::{Client, NodeId, OpId, Profile, Receipt};
use quorate_ring::id::{ActorId, ClusterId, Epoch};
use quorate_ring::topology::Durability;
use quorate_ring::version::{Context, ContextToken, Dot, Hlc};
use quorate_ring::wire::client::*;
use quorate_ring::wire::{self, FRAME_BYTES_MAX, take_frame};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;

pub const CLUSTER: ClusterId = ClusterId([7; 16]);
pub const ACTOR: ActorId = ActorId((1 << 48) | 5);

/// What a node does with the next request.
#[allow(clippy::large_enum_variant, reason = "a test holds a handful of them")]
pub enum Play {
    Answer(ClientReply),
    Silence,
    /// Closes the connection.
    Break,
    /// Answers the request before this one only after this one.
    Late,
}

#[derive(Default)]
struct Script {
    epoch: u64,
    topology: String,
    plays: BTreeMap<NodeId, VecDeque<Play>>,
    heard: Vec<(NodeId, ClientRequest)>,
}

pub struct FakeCluster {
    script: Arc<Mutex<Script>>,
    pub profile: Profile,
    endpoints: BTreeMap<NodeId, Endpoint>,
    _tasks: JoinSet<()>,
    pub folder: TempDir,
    ports: Vec<(NodeId, SocketAddr)>,
}

struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec![name.to_string()]).unwrap();
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// Writes a client's certificate of a new authority into `folder`, and gives that authority.
fn client_certificate(folder: &Path) -> Authority {
    let authority = Authority::new("client CA");
    let (certificate, key) = authority.issue("client");
    std::fs::write(folder.join("client.pem"), certificate.pem() + &authority.pem).unwrap();
    std::fs::write(folder.join("client-key.pem"), key.serialize_pem()).unwrap();
    authority
}

fn server_config(node_ca: &Authority, client_ca: &Authority, node: NodeId) -> ServerConfig {
    let (certificate, key) = node_ca.issue(&wire::server_name(CLUSTER, node));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut anchors = rustls::RootCertStore::empty();
    anchors.add(client_ca.der.clone()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(anchors), Arc::clone(&provider))
            .build()
            .unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone(), node_ca.der.clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![wire::ALPN_CLIENT.to_vec()];
    ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

impl FakeCluster {
    /// So many nodes, each in a rack of its own, and a bucket `default` with these settings.
    pub fn start(nodes: u16, bucket: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let node_ca = Authority::new("node CA");
        let client_ca = client_certificate(folder.path());
        std::fs::write(folder.path().join("node-ca.pem"), &node_ca.pem).unwrap();
        let script = Arc::new(Mutex::new(Script { epoch: 1, ..Script::default() }));
        let (mut endpoints, mut tasks, mut ports) = (BTreeMap::new(), JoinSet::new(), Vec::new());
        for node in (1..=nodes).map(NodeId) {
            let config = server_config(&node_ca, &client_ca, node);
            let endpoint = Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
            ports.push((node, endpoint.local_addr().unwrap()));
            tasks.spawn(serve(endpoint.clone(), node, Arc::clone(&script)));
            endpoints.insert(node, endpoint);
        }
        let profile = Profile {
            cluster: CLUSTER,
            nodes: ports.iter().copied().collect(),
            certificate: folder.path().join("client.pem"),
            key: folder.path().join("client-key.pem"),
            node_ca: folder.path().join("node-ca.pem"),
            bucket: "default".to_string(),
        };
        let cluster = Self { script, profile, endpoints, _tasks: tasks, folder, ports };
        cluster.set_topology(1, bucket);
        cluster
    }

    pub fn set_topology(&self, epoch: u64, bucket: &str) {
        let mut text = format!("cluster = \"{CLUSTER}\"\nepoch = {epoch}\npartitions = 16\n");
        for (node, address) in &self.ports {
            let (id, peer) = (node.0, address.port().wrapping_add(1).max(1));
            text += &format!(
                "[[node]]\nid = {id}\nname = \"n{id}\"\nclient_address = \"{address}\"\npeer_address = \
                 \"127.0.1.{id}:{peer}\"\nrack = \"r{id}\"\n"
            );
        }
        text += &format!("[[bucket]]\nid = 1\nname = \"default\"\n{bucket}\n");
        let mut script = self.script.lock().unwrap();
        script.epoch = epoch;
        script.topology = text;
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.profile).await.unwrap()
    }

    /// What `node` does next. With nothing left to play it answers `Written`, or an empty read.
    pub fn play(&self, node: NodeId, play: Play) {
        self.script.lock().unwrap().plays.entry(node).or_default().push_back(play);
    }

    pub fn play_everywhere(&self, play: impl Fn() -> Play) {
        for (node, _) in &self.ports {
            self.play(*node, play());
        }
    }

    /// The node ends, and tells nobody.
    pub fn stop(&mut self, node: NodeId) {
        let endpoint = self.endpoints.remove(&node).unwrap();
        // Its socket is replaced by one that nobody sends to.
        endpoint.rebind(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
        endpoint.set_server_config(None);
    }

    /// Puts another client certificate into the profile, which the nodes do not trust.
    pub fn swap_client_certificate(&self) {
        client_certificate(self.folder.path());
    }

    /// Everything that was asked but greetings, in the order of its arrival.
    pub fn heard(&self) -> Vec<(NodeId, ClientRequest)> {
        self.script.lock().unwrap().heard.clone()
    }

    pub fn writes(&self) -> Vec<(NodeId, WriteRequest)> {
        let only = |(node, request)| match request {
            ClientRequest::Write(write) => Some((node, write)),
            _ => None,
        };
        self.heard().into_iter().filter_map(only).collect()
    }

    /// Waits until so many cancellations have arrived.
    pub async fn cancellations(&self, count: usize) {
        let seen = || self.heard().iter().filter(|(_, r)| matches!(r, ClientRequest::Cancel(_))).count();
        let enough = async {
            while seen() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), enough).await.expect("the cancellations arrive");
    }
}

pub fn receipt(node: NodeId, hlc: u64, repeated: bool) -> Receipt {
    Receipt {
        epoch: Epoch(1),
        coordinator: node,
        dot: Dot(ACTOR, 1),
        hlc: Hlc(hlc),
        needed: 1,
        acks: vec![Ack {
            node,
            standing: Standing::Owner,
            durability: Durability::Sync,
            sent_us: 0,
            acked_us: 10,
            took_us: 5,
        }],
        context: ContextToken::seal(CLUSTER, quorate_ring::id::BucketId(1), b"k", &Context::new()),
        siblings: 1,
        repeated,
    }
}

pub fn answer(values: &[(&str, u64)]) -> ReadAnswer {
    let sibling = |(i, (value, hlc)): (usize, &(&str, u64))| Sibling {
        value: Bytes::from(value.to_string()),
        dot: Dot(ACTOR, i as u64 + 1),
        hlc: Hlc(*hlc),
        expires_ms: None,
        op_id: OpId([i as u8; 16]),
    };
    ReadAnswer {
        epoch: Epoch(1),
        siblings: values.iter().enumerate().map(sibling).collect(),
        context: ContextToken::seal(CLUSTER, quorate_ring::id::BucketId(1), b"k", &Context::new()),
        needed: 1,
        answered: Vec::new(),
        set_aside: 0,
        repairing: Vec::new(),
        short: false,
    }
}

async fn serve(endpoint: Endpoint, node: NodeId, script: Arc<Mutex<Script>>) {
    let mut connections = JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let script = Arc::clone(&script);
        connections.spawn(async move {
            if let Ok(connection) = incoming.await
                && let Ok((send, receive)) = connection.accept_bi().await
            {
                lane(connection, send, receive, node, script).await;
            }
        });
    }
}

async fn lane(
    connection: Connection,
    mut send: SendStream,
    mut receive: RecvStream,
    node: NodeId,
    script: Arc<Mutex<Script>>,
) {
    let mut buffer = BytesMut::new();
    let mut late: Option<(u64, ClientReply)> = None;
    while let Ok(Some(chunk)) = receive.read_chunk(usize::MAX, true).await {
        buffer.extend_from_slice(&chunk.bytes);
        while let Some(frame) = take_frame(&mut buffer, FRAME_BYTES_MAX).unwrap() {
            let request = ClientRequest::decode(frame.kind, &frame.payload).unwrap();
            let mut out = Vec::new();
            match act(node, request, &script) {
                Play::Answer(reply) => reply.write(frame.request, &mut out),
                Play::Silence => {}
                Play::Late => late = Some((frame.request, ClientReply::Written(receipt(node, 1, false)))),
                Play::Break => return connection.close(VarInt::from_u32(9), b"scripted"),
            }
            if !out.is_empty()
                && let Some((id, reply)) = late.take()
            {
                reply.write(id, &mut out);
            }
            if send.write_all(&out).await.is_err() {
                return;
            }
        }
    }
}

fn act(node: NodeId, request: ClientRequest, script: &Mutex<Script>) -> Play {
    let mut script = script.lock().unwrap();
    if let ClientRequest::Hello(_) = request {
        let (epoch, topology) = (Epoch(script.epoch), script.topology.clone());
        return Play::Answer(ClientReply::Hello(HelloReply { minor: 1, node, cluster: CLUSTER, epoch, topology }));
    }
    script.heard.push((node, request.clone()));
    if let ClientRequest::Cancel(_) = request {
        return Play::Silence;
    }
    if let Some(play) = script.plays.entry(node).or_default().pop_front() {
        return play;
    }
    let reply = match request {
        ClientRequest::Write(_) => ClientReply::Written(receipt(node, 1, false)),
        ClientRequest::Read(_) => ClientReply::Read(answer(&[])),
        ClientRequest::Scan(_) => ClientReply::Page(ScanPage { records: Vec::new(), done: true, base: Context::new() }),
        ClientRequest::Log(_) => {
            let (actor, base) = (ActorId::new(node, 1), Context::new());
            ClientReply::LogPage(LogPage { actor, base, records: Vec::new(), done: true })
        }
        ClientRequest::Status(_) | ClientRequest::Repair(_) => ClientReply::Status(Box::new(NodeStatus {
            node: node.0,
            state: "serving".to_string(),
            ..NodeStatus::default()
        })),
        ClientRequest::Hello(_) | ClientRequest::Cancel(_) => unreachable!("answered above"),
    };
    Play::Answer(reply)
}
