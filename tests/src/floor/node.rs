//! One of the three nodes.

use super::disk::Disk;
use super::quic::{Credentials, Fault, dial, endpoint};
use super::stream::{Frame, Kind, Out, read};
use super::{NODES, Sizes};
use quinn::Connection;
use quorate_ring::id::NodeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::LocalSet;

/// Says "I am a client" as the first byte of a stream; nodes say their number.
pub const CLIENT: u8 = 255;

#[derive(Default)]
struct Inbox {
    frames: RefCell<Vec<(Frame, Out)>>,
    filled: Notify,
}

struct Node {
    me: usize,
    disk: Disk,
    sizes: Sizes,
    /// Where requests to each other node go out.
    peers: Vec<Out>,
    /// What was asked of others, and for whom.
    asked: HashMap<u64, (u64, Out)>,
    next: u64,
    object: Vec<u8>,
}

/// Runs until the process is ended. `addresses` are those of all nodes.
pub fn run(me: usize, addresses: &[SocketAddr], folder: &Path, value_bytes: usize) -> Result<(), Fault> {
    let sizes = Sizes::of(value_bytes);
    let disk = Disk::open(folder, NodeId(me as u16 + 1), sizes)?;
    let credentials = Credentials::read(folder)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(me, addresses, &credentials, sizes, disk))
}

async fn serve(
    me: usize,
    addresses: &[SocketAddr],
    credentials: &Credentials,
    sizes: Sizes,
    disk: Disk,
) -> Result<(), Fault> {
    let endpoint = endpoint(addresses[me], credentials)?;
    let inbox = Rc::new(Inbox::default());
    let accepting = {
        let (endpoint, inbox) = (endpoint.clone(), inbox.clone());
        tokio::task::spawn_local(async move {
            while let Some(incoming) = endpoint.accept().await {
                if let Ok(connection) = incoming.await {
                    tokio::task::spawn_local(answer(connection, inbox.clone()));
                }
            }
        })
    };
    let mut peers = Vec::new();
    for peer in (1..NODES).map(|step| (me + step) % NODES) {
        let (connection, send, receive) = dial(&endpoint, addresses[peer], me as u8).await?;
        let out = Out::default();
        tokio::task::spawn_local(out.clone().write(send));
        tokio::task::spawn_local(take(connection, receive, out.clone(), inbox.clone()));
        peers.push(out);
    }
    println!("ready");
    let object = vec![b'o'; sizes.object];
    let mut node = Node { me, disk, sizes, peers, asked: HashMap::new(), next: 0, object };
    loop {
        inbox.filled.notified().await;
        // Whatever else has arrived comes along.
        tokio::task::yield_now().await;
        let frames = std::mem::take(&mut *inbox.frames.borrow_mut());
        node.drain(frames)?;
        if accepting.is_finished() {
            return Ok(());
        }
    }
}

async fn answer(connection: Connection, inbox: Rc<Inbox>) {
    let Ok((send, mut receive)) = connection.accept_bi().await else { return };
    let mut who = [0];
    if receive.read_exact(&mut who).await.is_err() {
        return;
    }
    let out = Out::default();
    tokio::task::spawn_local(out.clone().write(send));
    take(connection, receive, out, inbox).await;
}

async fn take(_connection: Connection, receive: quinn::RecvStream, out: Out, inbox: Rc<Inbox>) {
    let push = |frame| inbox.frames.borrow_mut().push((frame, out.clone()));
    read(receive, push, || inbox.filled.notify_one()).await;
}

impl Node {
    /// Everything that has arrived: one batch, one fsync, then the answers.
    fn drain(&mut self, frames: Vec<(Frame, Out)>) -> Result<(), Fault> {
        let mut batch = Disk::batch();
        let mut committed = Vec::new();
        let mut told: Vec<Out> = Vec::new();
        for (frame, from) in frames {
            match frame.kind {
                Kind::Write | Kind::Replicate => {
                    self.disk.add(&mut batch, frame.key, self.me, &self.object);
                    committed.push((frame, from));
                }
                Kind::Read => {
                    self.get(frame.key)?;
                    let id = self.ask(frame.id, from);
                    self.peers[0].add(Frame { kind: Kind::Fetch, id, key: frame.key }, self.sizes.fetch);
                    self.peers.rotate_left(1);
                }
                Kind::Fetch => {
                    self.get(frame.key)?;
                    from.add(Frame { kind: Kind::Fetched, ..frame }, self.sizes.fetched);
                    told.push(from);
                }
                Kind::Fetched => told.extend(self.answer(frame, Kind::Found, self.sizes.found)),
                Kind::Replicated => told.extend(self.answer(frame, Kind::Written, self.sizes.written)),
                Kind::Written | Kind::Found => return Err("an answer came to a node as a request".into()),
            }
        }
        if !committed.is_empty() {
            self.disk.commit(batch)?;
        }
        for (frame, from) in committed {
            if frame.kind == Kind::Write {
                let id = self.ask(frame.id, from);
                let replicate = Frame { kind: Kind::Replicate, id, key: frame.key };
                self.peers.iter().for_each(|peer| peer.add(replicate, self.sizes.replicate));
            } else {
                from.add(Frame { kind: Kind::Replicated, ..frame }, self.sizes.replicated);
                told.push(from);
            }
        }
        self.peers.iter().chain(&told).for_each(Out::flush);
        Ok(())
    }

    fn get(&self, key: u32) -> Result<(), Fault> {
        if self.disk.get(key)? { Ok(()) } else { Err(format!("key {key} is not there").into()) }
    }

    fn ask(&mut self, id: u64, from: Out) -> u64 {
        self.next += 1;
        self.asked.insert(self.next, (id, from));
        self.next
    }

    /// The first ack or answer decides; the others find nobody who waits.
    fn answer(&mut self, frame: Frame, kind: Kind, length: usize) -> Option<Out> {
        let (id, out) = self.asked.remove(&frame.id)?;
        out.add(Frame { kind, id, key: frame.key }, length);
        Some(out)
    }
}
