//! Who is let in to a plane before anything is known of them: bounds on connections and on handshakes.

use quinn::Incoming;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};

/// Handshakes under way, from which on an address has to prove that it is its own.
const HANDSHAKES_UNPROVEN_MAX: usize = 32;
/// Handshakes under way at the most.
const HANDSHAKES_MAX: usize = 128;

/// What to do with a connection attempt.
#[derive(Debug)]
pub enum Verdict {
    Enter(Ticket),
    /// Ask the address to come again with a token.
    Prove,
    Refuse(&'static str),
}

#[derive(Debug)]
struct Counts {
    handshakes: usize,
    connections: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// Counts the connections of a plane.
#[derive(Debug)]
pub struct Door {
    counts: Mutex<Counts>,
    connections_max: usize,
    per_ip_max: usize,
}

impl Door {
    /// `connections_max` bounds all connections, handshakes included; `per_ip_max` those of one address.
    pub fn new(connections_max: usize, per_ip_max: usize) -> Arc<Self> {
        let counts = Counts { handshakes: 0, connections: 0, by_ip: HashMap::new() };
        Arc::new(Self { counts: Mutex::new(counts), connections_max, per_ip_max })
    }

    pub fn judge(self: &Arc<Self>, incoming: &Incoming) -> Verdict {
        let proven = incoming.remote_address_validated() || !incoming.may_retry();
        self.admit(incoming.remote_address().ip(), proven)
    }

    fn admit(self: &Arc<Self>, ip: IpAddr, proven: bool) -> Verdict {
        let mut counts = self.lock();
        if counts.connections >= self.connections_max {
            return Verdict::Refuse("connections");
        }
        if counts.by_ip.get(&ip).is_some_and(|count| *count >= self.per_ip_max) {
            return Verdict::Refuse("connections_of_one_address");
        }
        if counts.handshakes >= HANDSHAKES_MAX {
            return Verdict::Refuse("handshakes");
        }
        if counts.handshakes >= HANDSHAKES_UNPROVEN_MAX && !proven {
            return Verdict::Prove;
        }
        counts.handshakes += 1;
        counts.connections += 1;
        *counts.by_ip.entry(ip).or_default() += 1;
        Verdict::Enter(Ticket { door: self.clone(), ip, shaking: true })
    }

    /// Connections that stand or are being made.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nothing panics while it counts")
    }
}

/// Stands for one connection; counted until it is dropped.
#[derive(Debug)]
pub struct Ticket {
    door: Arc<Door>,
    ip: IpAddr,
    shaking: bool,
}

impl Ticket {
    /// The handshake is over.
    pub fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking) {
            self.door.lock().handshakes -= 1;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shaken();
        let mut counts = self.door.lock();
        counts.connections -= 1;
        if let Some(count) = counts.by_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(door: &Arc<Door>, ip: [u8; 4], proven: bool) -> Result<Ticket, String> {
        match door.admit(IpAddr::from(ip), proven) {
            Verdict::Enter(ticket) => Ok(ticket),
            Verdict::Prove => Err("prove".to_string()),
            Verdict::Refuse(why) => Err(why.to_string()),
        }
    }

    #[test]
    fn connections_are_bounded_in_all_and_by_address() {
        let door = Door::new(3, 2);
        let first = enter(&door, [10, 0, 0, 1], false).unwrap();
        let _second = enter(&door, [10, 0, 0, 1], false).unwrap();
        assert_eq!(enter(&door, [10, 0, 0, 1], true).unwrap_err(), "connections_of_one_address");
        let _third = enter(&door, [10, 0, 0, 2], false).unwrap();
        assert_eq!(enter(&door, [10, 0, 0, 3], true).unwrap_err(), "connections");
        drop(first);
        let _again = enter(&door, [10, 0, 0, 1], false).unwrap();
        assert_eq!(door.connections(), 3);
    }

    #[test]
    fn many_handshakes_have_to_prove_their_address_and_are_bounded() {
        let door = Door::new(1000, 1000);
        let mut under_way: Vec<Ticket> =
            (0..HANDSHAKES_UNPROVEN_MAX).map(|_| enter(&door, [10, 0, 0, 1], false).unwrap()).collect();
        assert_eq!(enter(&door, [10, 0, 0, 1], false).unwrap_err(), "prove");
        while let Ok(ticket) = enter(&door, [10, 0, 0, 1], true) {
            under_way.push(ticket);
        }
        assert_eq!(under_way.len(), HANDSHAKES_MAX);
        under_way.iter_mut().for_each(Ticket::shaken);
        assert!(enter(&door, [10, 0, 0, 1], false).is_ok());
        drop(under_way);
        assert_eq!(door.connections(), 0);
    }
}
