//! A read of R owners: the nearest first, the others when those are silent or refuse; what they hold is united.
//!
//! The same machine answers a client's get and gathers what a `latest` write supersedes.

use super::Step;
use super::plan::Route;
use quorate_ring::id::{Epoch, NodeId, OpId};
use quorate_ring::topology::QuorumKind;
use quorate_ring::version::Object;
use quorate_ring::wire::client::Answered;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{Fetch, PeerRequest};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What R owners hold of a key.
#[derive(Debug)]
pub struct Found {
    pub union: Object,
    /// What each of them held, and how long it took.
    pub answers: Vec<(Answered, Object)>,
    /// Fewer than R: a sloppy read.
    pub short: bool,
}

#[derive(Debug)]
pub enum GetAnswer {
    Found(Found),
    /// Not enough owners answered, and none is left to ask.
    Unavailable {
        needed: u8,
        got: u8,
    },
    DeadlinePassed,
}

#[derive(Debug)]
pub struct Get {
    route: Route,
    r: u8,
    quorum: QuorumKind,
    epoch: Epoch,
    context_for: Option<OpId>,
    /// Owners not asked yet, nearest first.
    unasked: VecDeque<NodeId>,
    /// Owners asked and silent, and when they were asked.
    waiting: BTreeMap<NodeId, Duration>,
    answers: Vec<(Answered, Object)>,
}

impl Get {
    /// `owners` are those that can be reached, nearest first, without the coordinator itself.
    pub fn new(
        route: Route,
        r: u8,
        quorum: QuorumKind,
        epoch: Epoch,
        context_for: Option<OpId>,
        owners: impl Iterator<Item = NodeId>,
    ) -> Self {
        Self {
            route,
            r,
            quorum,
            epoch,
            context_for,
            unasked: owners.collect(),
            waiting: BTreeMap::new(),
            answers: Vec::new(),
        }
    }

    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Starts with the coordinator's own answer, if it is an owner that may give one.
    pub fn begin(&mut self, now: Duration, own: Option<(NodeId, Object)>) -> Step<GetAnswer> {
        if let Some((node, object)) = own {
            let us = self.micros(now);
            let answered = Answered { node, sent_us: us, answered_us: us, took_us: 0, siblings: count(&object) };
            self.answers.push((answered, object));
        }
        self.proceed(now)
    }

    pub fn on_reply(&mut self, now: Duration, from: NodeId, reply: Result<(Object, u64), Refusal>) -> Step<GetAnswer> {
        let Some(sent) = self.waiting.remove(&from) else { return Step::wait() };
        if let Ok((object, took_us)) = reply {
            let (sent_us, answered_us) = (self.micros(sent), self.micros(now));
            let answered = Answered { node: from, sent_us, answered_us, took_us, siblings: count(&object) };
            self.answers.push((answered, object));
        }
        self.proceed(now)
    }

    /// Whether all answers so far show the same as this one.
    pub fn agrees(&self, object: &Object) -> bool {
        self.answers.iter().all(|(_, answer)| answer.shows_same_as(object))
    }

    /// How long a node that is asked has taken by now.
    pub fn waited(&self, now: Duration, from: NodeId) -> Option<Duration> {
        self.waiting.get(&from).map(|sent| now.saturating_sub(*sent))
    }

    pub fn on_link_down(&mut self, now: Duration, peer: NodeId) -> Step<GetAnswer> {
        self.unasked.retain(|owner| *owner != peer);
        match self.waiting.remove(&peer) {
            Some(_) => self.proceed(now),
            None => Step::wait(),
        }
    }

    /// Those asked have been silent for a while: asks one more for each of them, and goes on waiting for all.
    pub fn on_silence(&mut self, now: Duration) -> Step<GetAnswer> {
        let more = self.waiting.len();
        Step { send: self.ask(now, more), ..Step::wait() }
    }

    pub fn on_deadline(&mut self) -> Step<GetAnswer> {
        let answer = match self.quorum {
            QuorumKind::Sloppy if !self.answers.is_empty() => self.found(true),
            QuorumKind::Sloppy | QuorumKind::Strict => GetAnswer::DeadlinePassed,
        };
        Step { answer: Some(answer), ..Step::done() }
    }

    fn proceed(&mut self, now: Duration) -> Step<GetAnswer> {
        let needed = usize::from(self.r);
        if self.answers.len() >= needed {
            let answer = Some(self.found(false));
            return Step { answer, ..Step::done() };
        }
        let missing = (needed - self.answers.len()).saturating_sub(self.waiting.len());
        let send = self.ask(now, missing);
        let hopeless = self.quorum == QuorumKind::Strict && self.answers.len() + self.waiting.len() < needed;
        if self.waiting.is_empty() || hopeless {
            let got = (self.answers.len() + self.waiting.len()) as u8;
            let answer = match self.quorum {
                QuorumKind::Sloppy if got > 0 => self.found(true),
                QuorumKind::Sloppy | QuorumKind::Strict => GetAnswer::Unavailable { needed: self.r, got },
            };
            return Step { answer: Some(answer), ..Step::done() };
        }
        Step { send, ..Step::wait() }
    }

    fn ask(&mut self, now: Duration, count: usize) -> Vec<(NodeId, PeerRequest)> {
        let left = self.route.deadline.saturating_sub(now).as_millis();
        let fetch = Fetch {
            epoch: self.epoch,
            bucket: self.route.place.bucket,
            key: self.route.place.key.clone(),
            context_for: self.context_for,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            request_id: self.route.request_id,
        };
        let count = count.min(self.unasked.len());
        let asked: Vec<NodeId> = self.unasked.drain(..count).collect();
        self.waiting.extend(asked.iter().map(|owner| (*owner, now)));
        asked.into_iter().map(|owner| (owner, PeerRequest::Fetch(fetch.clone()))).collect()
    }

    fn found(&mut self, short: bool) -> GetAnswer {
        let answers = std::mem::take(&mut self.answers);
        let mut union = Object::default();
        for (_, object) in &answers {
            union.union(object);
        }
        GetAnswer::Found(Found { union, answers, short })
    }

    fn micros(&self, at: Duration) -> u64 {
        at.saturating_sub(self.route.began).as_micros() as u64
    }
}

fn count(object: &Object) -> u32 {
    object.siblings().len() as u32
}
