//! A read of R owners: the nearest first, the others when those are silent or refuse; what they hold is united.
//!
//! The same machine answers a client's get and gathers what a `latest` write supersedes.

use super::Step;
use super::plan::Route;
use quorate_ring::id::{Epoch, NodeId, OpId};
use quorate_ring::topology::QuorumKind;
use quorate_ring::version::{Dot, Object};
use quorate_ring::wire::client::Answered;
use quorate_ring::wire::failure::Refusal;
use quorate_ring::wire::peer::{Fetch, PeerRequest};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
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
    /// An owner leaves out values of so many bytes or more that an answer before has.
    held_min: usize,
    /// Owners not asked yet, nearest first.
    unasked: VecDeque<NodeId>,
    /// Owners asked and silent, and when they were asked.
    waiting: BTreeMap<NodeId, Duration>,
    answers: Vec<(Answered, Object)>,
}

impl Get {
    /// `owners` are those that can be reached, nearest first, without the coordinator itself. With `context_for` it gathers
    /// contexts for a write; else owners leave out values of `held_min` bytes or more that it has when it asks them.
    pub fn new(
        route: Route,
        r: u8,
        quorum: QuorumKind,
        epoch: Epoch,
        context_for: Option<OpId>,
        held_min: usize,
        owners: impl Iterator<Item = NodeId>,
    ) -> Self {
        Self {
            route,
            r,
            quorum,
            epoch,
            context_for,
            held_min,
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
        if let Ok((mut object, took_us)) = reply {
            self.answers.iter().for_each(|(_, answer)| object.take_values(answer));
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
            held: self.held(),
        };
        let count = count.min(self.unasked.len());
        let asked: Vec<NodeId> = self.unasked.drain(..count).collect();
        self.waiting.extend(asked.iter().map(|owner| (*owner, now)));
        asked.into_iter().map(|owner| (owner, PeerRequest::Fetch(fetch.clone()))).collect()
    }

    /// Siblings whose values are here already. An answer to a gathering may be merged as it is, so it is to be whole.
    fn held(&self) -> Vec<Dot> {
        if self.context_for.is_some() {
            return Vec::new();
        }
        let held: BTreeSet<Dot> = self.answers.iter().flat_map(|(_, answer)| answer.long(self.held_min)).collect();
        held.into_iter().collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::Place;
    use bytes::Bytes;
    use quorate_ring::id::{ActorId, BucketId, Partition};
    use quorate_ring::version::{Content, Context, Hlc};

    const DOT: Dot = Dot(ActorId(1), 1);
    const NOW: Duration = Duration::ZERO;

    fn object() -> Object {
        let (op_id, hlc) = (OpId([1; 16]), Hlc(1));
        let content = Content { value: Bytes::from_static(b"value"), hlc, expires_ms: None, op_id };
        let mut object = Object::default();
        object.write(DOT, (op_id, hlc), &Context::new(), Some(content));
        object
    }

    /// Of two of these owners.
    fn get(context_for: Option<OpId>, held_min: usize, owners: &[u16]) -> Get {
        let place = Place { bucket: BucketId(1), key: Bytes::from_static(b"k") };
        let (partition, deadline) = (Partition { n: 3, index: 0 }, Duration::from_secs(1));
        let route = Route { place, partition, began: NOW, deadline, request_id: None };
        let owners = owners.iter().map(|owner| NodeId(*owner));
        Get::new(route, 2, QuorumKind::Strict, Epoch(1), context_for, held_min, owners)
    }

    /// Whom a step asks, and what it says that it holds.
    fn asked(step: Step<GetAnswer>) -> Vec<(u16, Vec<Dot>)> {
        let asked = step.send.into_iter().map(|(owner, request)| match request {
            PeerRequest::Fetch(fetch) => (owner.0, fetch.held),
            other => panic!("{other:?}"),
        });
        asked.collect()
    }

    #[test]
    fn what_is_held_already_is_not_asked_for_and_is_in_every_answer_all_the_same() {
        let begun = |mut get: Get| asked(get.begin(NOW, Some((NodeId(1), object()))));
        assert_eq!(begun(get(None, 6, &[2])), [(2, vec![])]);
        assert_eq!(begun(get(Some(OpId([1; 16])), 5, &[2])), [(2, vec![])], "a gathering is told all");
        let mut get = get(None, 5, &[2]);
        assert_eq!(asked(get.begin(NOW, Some((NodeId(1), object())))), [(2, vec![DOT])]);
        let sent = Object::unsettled_record(&object().encode(), &Context::new(), &[DOT]).unwrap();
        let sent = Object::decode(&sent).unwrap();
        assert_ne!(sent, object());
        let Some(GetAnswer::Found(found)) = get.on_reply(NOW, NodeId(2), Ok((sent, 1))).answer else {
            panic!("two have answered")
        };
        assert!(found.union == object() && found.answers.iter().all(|(_, answer)| *answer == object()));
    }

    #[test]
    fn who_is_asked_later_is_told_what_came_before() {
        let mut get = get(None, 5, &[1, 2, 3]);
        assert_eq!(asked(get.begin(NOW, None)), [(1, vec![]), (2, vec![])]);
        get.on_reply(NOW, NodeId(2), Ok((object(), 1)));
        assert_eq!(asked(get.on_silence(NOW)), [(3, vec![DOT])]);
    }
}
