//! A relay between two sockets that stand for nodes.
use super::*;
use std::net::{Ipv4Addr, UdpSocket as Plain};
use std::time::{Duration, Instant};

/// Packets in either direction, and nothing of anybody else.
struct World {
    nodes: [Plain; 2],
    plan: Plan,
}

fn socket() -> Plain {
    let socket = Plain::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket
}

/// An address that is free now; nobody else takes it in a moment.
fn free() -> SocketAddr {
    socket().local_addr().unwrap()
}

impl World {
    fn new() -> Self {
        let nodes = [socket(), socket()];
        let [first, second] = [0, 1].map(|node: usize| nodes[node].local_addr().unwrap());
        let port = |of: &str, as_if: &str| Port { of: of.to_string(), as_if: as_if.to_string(), address: free() };
        let control = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let plan = Plan {
            control,
            nodes: [("n1".to_string(), first), ("n2".to_string(), second)].into(),
            ports: vec![port("n1", "n2"), port("n2", "n1")],
        };
        let served = plan.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(served)).unwrap();
        });
        let began = Instant::now();
        while ask(control).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10), "the relay does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { nodes, plan }
    }

    fn send(&self, from: usize, text: &str) {
        let (of, as_if) = if from == 0 { ("n1", "n2") } else { ("n2", "n1") };
        self.nodes[from].send_to(text.as_bytes(), self.plan.port(of, as_if).unwrap()).unwrap();
    }

    /// What arrives, and from where.
    fn receive(&self, at: usize) -> Option<(String, SocketAddr)> {
        let mut buffer = [0; 100];
        let (length, from) = self.nodes[at].recv_from(&mut buffer).ok()?;
        Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
    }

    fn tell(&self, change: impl FnOnce(&mut Rules, &[String])) -> Account {
        let mut rules = ask(self.plan.control).unwrap().rules;
        change(&mut rules, &["n1".to_string(), "n2".to_string()]);
        tell(self.plan.control, rules).unwrap()
    }
}

#[test]
fn packets_come_from_where_the_other_node_is_taken_to_be() {
    let world = World::new();
    world.send(0, "hello");
    let as_first = world.plan.port("n2", "n1").unwrap();
    assert_eq!(world.receive(1), Some(("hello".to_string(), as_first)));
    world.send(1, "hello yourself");
    let as_second = world.plan.port("n1", "n2").unwrap();
    assert_eq!(world.receive(0), Some(("hello yourself".to_string(), as_second)));
    socket().send_to(b"from a stranger", as_second).unwrap();
    assert_eq!(world.receive(1), None);
}

#[test]
fn a_cut_is_one_way_and_healed_at_once() {
    let world = World::new();
    world.tell(|rules, known| rules.cut("n1", "n2", known).unwrap());
    world.send(0, "lost");
    assert_eq!(world.receive(1), None);
    world.send(1, "passes");
    assert_eq!(world.receive(0).unwrap().0, "passes");
    let account = world.tell(|rules, _| rules.heal());
    assert_eq!((account.passed, account.lost), (1, 1));
    world.send(0, "again");
    assert_eq!(world.receive(1).unwrap().0, "again");
}

#[test]
fn late_packets_keep_their_order_and_a_cut_takes_them() {
    let world = World::new();
    let late = Duration::from_millis(120);
    world.tell(|rules, known| rules.slow("n2", late, known).unwrap());
    let began = Instant::now();
    (0..5).for_each(|number| world.send(0, &number.to_string()));
    let received: Vec<String> = (0..5).map(|_| world.receive(1).unwrap().0).collect();
    assert!(began.elapsed() >= late, "{:?}", began.elapsed());
    assert_eq!(received, ["0", "1", "2", "3", "4"]);
    world.send(0, "on its way");
    world.tell(|rules, known| rules.isolate("n1", known).unwrap());
    assert_eq!(world.receive(1), None);
}
