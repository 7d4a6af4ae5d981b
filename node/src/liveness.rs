//! Failure detection: direct, per link, by the pongs that a peer sends to our own pings. No hearsay.
//!
//! Phi-accrual (Hayashibara et al. 2004): suspicion grows with the time since the last pong, measured by how the
//! pongs used to come. A pong needs both directions, so a link that is cut one way is noticed by both ends.

use quorate_ring::id::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Pongs remembered per peer.
const WINDOW: usize = 32;
/// Pongs are never taken to come more evenly than this: a pause of the machine is no death.
const DEVIATION_MIN: Duration = Duration::from_millis(100);

/// Looks that have to find a peer silent before nothing more is waited for from it.
const LOOKS_SILENT: u8 = 2;

/// How a peer looks from here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PeerState {
    Up,
    /// Silent for longer than it used to be: asked last.
    Suspect,
    /// Not linked, not greeted, or silent beyond the threshold: not asked.
    Down,
}

impl PeerState {
    pub fn name(self) -> &'static str {
        match self {
            PeerState::Up => "up",
            PeerState::Suspect => "suspect",
            PeerState::Down => "down",
        }
    }
}

#[derive(Debug, Default)]
struct Link {
    linked: bool,
    /// It told us what it remembers of us, since the link stands.
    greeted: bool,
    last_pong: Option<Duration>,
    /// Between pongs.
    intervals: VecDeque<Duration>,
    /// Looks in a row that found it down although it is linked.
    looks_silent: u8,
    /// Mean and deviation of these, in seconds; worked out with each pong, as each request asks.
    usual: Option<(f64, f64)>,
}

/// Every peer, as this shard sees it.
#[derive(Debug)]
pub struct Liveness {
    links: BTreeMap<NodeId, Link>,
    /// Down from this phi on; suspect from half of it.
    threshold: f64,
    ping_every: Duration,
}

impl Liveness {
    pub fn new(peers: impl IntoIterator<Item = NodeId>, threshold: f64, ping_every: Duration) -> Self {
        let links = peers.into_iter().map(|peer| (peer, Link::default())).collect();
        Self { links, threshold, ping_every }
    }

    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.keys().copied()
    }

    pub fn linked(&self, peer: NodeId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.linked)
    }

    pub fn greeted(&self, peer: NodeId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.greeted)
    }

    pub fn on_link_up(&mut self, peer: NodeId) {
        if let Some(link) = self.links.get_mut(&peer) {
            *link = Link { linked: true, ..Link::default() };
        }
    }

    pub fn on_link_down(&mut self, peer: NodeId) {
        if let Some(link) = self.links.get_mut(&peer) {
            *link = Link::default();
        }
    }

    /// The answer to our greeting counts as a first pong.
    pub fn on_greeted(&mut self, peer: NodeId, now: Duration) {
        if let Some(link) = self.links.get_mut(&peer).filter(|link| link.linked) {
            link.greeted = true;
            link.last_pong = Some(now);
        }
    }

    pub fn on_pong(&mut self, peer: NodeId, now: Duration) {
        let Some(link) = self.links.get_mut(&peer).filter(|link| link.greeted) else { return };
        if let Some(last) = link.last_pong {
            // A long silence that has ended says nothing about how pongs come.
            link.intervals.push_back(now.saturating_sub(last).min(4 * self.ping_every));
            if link.intervals.len() > WINDOW {
                link.intervals.pop_front();
            }
            link.usual = Some(usual(&link.intervals));
        }
        link.last_pong = Some(now);
    }

    pub fn state(&self, peer: NodeId, now: Duration) -> PeerState {
        let Some(phi) = self.phi(peer, now) else { return PeerState::Down };
        if phi >= self.threshold {
            PeerState::Down
        } else if phi >= self.threshold / 2.0 {
            PeerState::Suspect
        } else {
            PeerState::Up
        }
    }

    pub fn reachable(&self, peer: NodeId, now: Duration) -> bool {
        self.state(peer, now) != PeerState::Down
    }

    /// To be asked once with every tick: the peers that are down by their silence, each once until it is up again. It
    /// takes two looks in a row: of those that seem silent because this node itself stood still, pongs come between.
    pub fn fallen_silent(&mut self, now: Duration) -> Vec<NodeId> {
        let greeted: Vec<NodeId> = self.peers().filter(|peer| self.greeted(*peer)).collect();
        let mut fallen = Vec::new();
        for peer in greeted {
            let down = self.state(peer, now) == PeerState::Down;
            let Some(link) = self.links.get_mut(&peer) else { continue };
            link.looks_silent = if down { link.looks_silent.saturating_add(1) } else { 0 };
            if link.looks_silent == LOOKS_SILENT {
                fallen.push(peer);
            }
        }
        fallen
    }

    /// How long since the last pong; none if there is no link.
    pub fn silence(&self, peer: NodeId, now: Duration) -> Option<Duration> {
        self.links.get(&peer)?.last_pong.map(|last| now.saturating_sub(last))
    }

    /// -log10 of the probability that a pong comes later than this.
    fn phi(&self, peer: NodeId, now: Duration) -> Option<f64> {
        let link = self.links.get(&peer).filter(|link| link.greeted)?;
        let silence = now.saturating_sub(link.last_pong?).as_secs_f64();
        let (mean, deviation) = link.usual.unwrap_or((self.ping_every.as_secs_f64(), DEVIATION_MIN.as_secs_f64()));
        if silence <= mean {
            // No later than usual: at most this, however regular they are. Asked with every request, so not worked out.
            return Some(std::f64::consts::LOG10_2);
        }
        // The logistic approximation of the normal distribution's tail, as in Akka's detector.
        let y = (silence - mean) / deviation;
        let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
        Some(-(e / (1.0 + e)).log10())
    }
}

/// Mean and standard deviation, in seconds; there is at least one interval.
fn usual(intervals: &VecDeque<Duration>) -> (f64, f64) {
    let count = intervals.len() as f64;
    let seconds = || intervals.iter().map(Duration::as_secs_f64);
    let mean = seconds().sum::<f64>() / count;
    let variance = seconds().map(|s| (s - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt().max(DEVIATION_MIN.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);
    const EVERY: Duration = Duration::from_millis(250);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn living(until_ms: u64) -> Liveness {
        let mut liveness = Liveness::new([PEER], 8.0, EVERY);
        liveness.on_link_up(PEER);
        liveness.on_greeted(PEER, at(0));
        for ms in (250..=until_ms).step_by(250) {
            liveness.on_pong(PEER, at(ms));
        }
        liveness
    }

    #[test]
    fn a_peer_is_down_until_it_has_greeted() {
        let mut liveness = Liveness::new([PEER], 8.0, EVERY);
        assert_eq!(liveness.state(PEER, at(0)), PeerState::Down);
        liveness.on_link_up(PEER);
        assert_eq!(liveness.state(PEER, at(0)), PeerState::Down);
        liveness.on_greeted(PEER, at(0));
        assert_eq!(liveness.state(PEER, at(0)), PeerState::Up);
    }

    #[test]
    fn silence_is_suspected_then_taken_for_death_and_one_pong_ends_it() {
        let mut liveness = living(5_000);
        assert_eq!(liveness.state(PEER, at(5_250)), PeerState::Up);
        let first = |state| (5_000..20_000).find(|ms| liveness.state(PEER, at(*ms)) == state).unwrap();
        let (suspect, down) = (first(PeerState::Suspect), first(PeerState::Down));
        assert!(suspect < down && down < 6_500, "suspect at {suspect}, down at {down}");
        liveness.on_pong(PEER, at(30_000));
        assert_eq!(liveness.state(PEER, at(30_000)), PeerState::Up);
    }

    #[test]
    fn a_silent_peer_is_given_up_once_and_not_for_a_pause_of_our_own() {
        let mut liveness = living(5_000);
        let given_up: Vec<u64> =
            (5_250..20_000).step_by(250).filter(|ms| !liveness.fallen_silent(at(*ms)).is_empty()).collect();
        assert!(matches!(given_up[..], [once] if once <= 6_500), "given up at {given_up:?}");
        // We stand still for ten seconds; its pongs come right after.
        let mut liveness = living(5_000);
        assert!(liveness.fallen_silent(at(5_250)).is_empty());
        assert!(liveness.fallen_silent(at(15_250)).is_empty());
        liveness.on_pong(PEER, at(15_260));
        assert!((15_500..15_750).step_by(250).all(|ms| liveness.fallen_silent(at(ms)).is_empty()));
    }

    #[test]
    fn a_broken_link_is_down_at_once() {
        let mut liveness = living(1_000);
        liveness.on_link_down(PEER);
        assert_eq!(liveness.state(PEER, at(1_000)), PeerState::Down);
    }

    #[test]
    fn an_unknown_node_is_down() {
        assert_eq!(living(1_000).state(NodeId(9), at(1_000)), PeerState::Down);
    }
}
