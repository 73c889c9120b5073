//! The way to a super: one candidate after another is asked. While a node has a super, another one is
//! asked beside it (to return to a preferred one, or to follow a transfer), and only when that one
//! has taken it the old one is left.

use std::collections::VecDeque;

use super::bond::Bond;
use super::calls::{Order, Purpose, refusal};
use super::message::{Answer, Reason, Request};
use super::output::{CallId, Note, Report, Token};
use super::{HEARTBEAT_RANGE, Membership, State};

/// Tries at a super that somebody ordered; a single call may be lost.
const ORDERED_TRIES: u32 = 3;
/// How often a node follows the advice of full supers in one search.
const REDIRECTS: u32 = 8;

/// Why a super is sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// There is none.
    Search,
    /// A preferred one may be back.
    Failback,
    /// A transfer, and who gave the command.
    Transfer(Option<Token>),
    /// A transfer that the super ordered, by its number.
    Told(u64),
}

/// What a search begins with.
pub(super) enum From {
    /// The list.
    Start,
    /// A super that does not know this node: it is asked first.
    Forgotten(String),
    /// A super that does not answer, or that closes a loop: it is asked when the others said no.
    Lost(String),
}

/// A search under way.
pub(super) struct Attempt {
    why: Why,
    to: String,
    call: Option<CallId>,
    tries: u32,
    /// When the same is asked again.
    pub retry: Option<u64>,
    rest: VecDeque<String>,
    redirects: u32,
    asked: Vec<String>,
}

impl Attempt {
    /// Where somebody ordered this node to go.
    pub(super) fn transfer_to(&self) -> Option<String> {
        matches!(self.why, Why::Transfer(_)).then(|| self.to.clone())
    }
}

impl Membership {
    /// Looks at the list of supers anew: as a beginning, or because it is another one.
    pub(super) fn seek(&mut self, now: u64) {
        let wanted = self.preferred().next().cloned();
        let transferred = self.is_transferred();
        match (&mut self.state, wanted) {
            (State::Left, _) => {}
            (State::Joined(_), None) => self.become_root(now, Order::None),
            (State::Joined(bond), Some(first)) if bond.to != first => bond.failback = Some(now),
            (State::Joined(bond), Some(_)) => bond.failback = None,
            (_, None) => self.become_root(now, Order::None),
            // that attempt goes on
            (state, Some(_)) if transferred => *state = State::Orphan { next: now, round: 0 },
            (_, Some(_)) => self.search(now, From::Start),
        }
    }

    fn become_root(&mut self, now: u64, order: Order) {
        if !self.is_transferred() {
            self.attempt = None;
        }
        match std::mem::replace(&mut self.state, State::Root) {
            State::Joined(bond) => self.take_leave(now, bond.to, order),
            _ => {
                if let Order::Transfer(token) = order {
                    self.done(token, Report::Moved { result: Ok(()), told: true });
                }
            }
        }
    }

    /// Seeks a super.
    pub(super) fn search(&mut self, now: u64, from: From) {
        let round = match self.state {
            State::Orphan { round, .. } => round,
            _ => 0,
        };
        self.state = State::Orphan { next: now, round };
        let (first, last) = match from {
            From::Start => (None, None),
            From::Forgotten(to) => (Some(to), None),
            From::Lost(to) => (None, Some(to)),
        };
        let known =
            |address: &String| Some(address) == first.as_ref() || Some(address) == last.as_ref();
        let listed = |address: &String| self.index(address).is_some();
        // those above a lost super know the same tree
        let above =
            self.ancestors.iter().rev().filter(|id| {
                **id != self.config.me && !listed(id) && !known(id) && self.allowed(id)
            });
        let list = self.preferred().filter(|address| !known(address));
        let last = last.iter().filter(|address| listed(address));
        let all = first.iter().chain(list).chain(last).chain(above);
        let rest = all.filter(|address| !self.avoids(address)).cloned().collect();
        self.attempt(now, Why::Search, rest);
    }

    pub(super) fn return_to_preferred(&mut self, now: u64, current: &str) {
        let better = self.preferred().take_while(|address| *address != current);
        let rest = better.filter(|address| !self.avoids(address)).cloned().collect();
        self.attempt(now, Why::Failback, rest);
    }

    fn attempt(&mut self, now: u64, why: Why, rest: VecDeque<String>) {
        self.attempt = Some(Attempt {
            why,
            to: String::new(),
            call: None,
            tries: 0,
            retry: None,
            rest,
            redirects: 0,
            asked: Vec::new(),
        });
        self.next_candidate(now);
    }

    fn next_candidate(&mut self, now: u64) {
        let Some(attempt) = &mut self.attempt else { return };
        match attempt.rest.pop_front() {
            Some(to) => {
                attempt.asked.push(to.clone());
                (attempt.to, attempt.tries) = (to, 0);
                self.ask(now);
            }
            None => self.nobody_left(now, Reason::NoAnswer),
        }
    }

    fn ask(&mut self, now: u64) {
        let (seq, subtree) = (self.sequence(now), self.subtree());
        let Some(attempt) = &mut self.attempt else { return };
        (attempt.retry, attempt.tries) = (None, attempt.tries + 1);
        let to = attempt.to.clone();
        let (id, epoch) = (self.config.me.clone(), self.config.epoch);
        let message = Request::Join { id, epoch, seq, to: to.clone(), subtree };
        let call = self.call(now, to.clone(), message, Purpose::Join(to));
        if let Some(attempt) = &mut self.attempt {
            attempt.call = Some(call);
        }
    }

    pub(super) fn ask_again(&mut self, now: u64) {
        if self.attempt.as_ref().and_then(|attempt| attempt.retry).is_some_and(|at| at <= now) {
            self.ask(now);
        }
    }

    /// A JOIN has ended.
    pub(super) fn join_ended(
        &mut self,
        now: u64,
        call: CallId,
        to: String,
        answer: Option<Answer>,
    ) {
        let current = self.attempt.as_ref().is_some_and(|attempt| attempt.call == Some(call));
        match answer {
            Some(Answer::Joined { id, epoch, path, heartbeat }) if current => {
                let loops = path.contains(&self.config.me) || id == self.config.me;
                if loops || path.len() >= self.depth() {
                    self.take_leave(now, to, Order::None);
                    self.refused(now, if loops { Reason::Loop } else { Reason::Depth });
                } else {
                    let heartbeat =
                        heartbeat.clamp(*HEARTBEAT_RANGE.start(), *HEARTBEAT_RANGE.end());
                    let next = now + self.random.around(heartbeat, 10);
                    self.adopt(now, Bond::new(to, id, epoch, path, heartbeat, next));
                }
            }
            // nobody waits for it any more, but that super has taken this node
            Some(Answer::Joined { id, .. }) if !self.is_above(&to) && !self.is_above(&id) => {
                self.take_leave(now, to, Order::None);
            }
            Some(Answer::Deny { reason, redirect }) if current => {
                self.follow(redirect);
                self.refused(now, reason);
            }
            answer if current => self.refused(now, refusal(&answer)),
            _ => {}
        }
    }

    /// Remembers who may take this node instead of a super that is full.
    fn follow(&mut self, mut redirect: Vec<String>) {
        redirect.retain(|address| *address != self.config.me && self.allowed(address));
        let Some(attempt) = &mut self.attempt else { return };
        redirect.retain(|address| !attempt.asked.contains(address));
        if attempt.why == Why::Search && attempt.redirects < REDIRECTS && !redirect.is_empty() {
            attempt.redirects += 1;
            let choice = self.random.below(redirect.len() as u64) as usize;
            attempt.rest.extend(redirect.get(choice).into_iter().cloned());
            attempt.rest.rotate_right(1);
        }
    }

    /// The super that was asked does not take this node.
    fn refused(&mut self, now: u64, reason: Reason) {
        let Some(attempt) = &mut self.attempt else { return };
        let address = attempt.to.clone();
        attempt.call = None;
        let ordered = matches!(attempt.why, Why::Transfer(_) | Why::Told(_));
        let passing = matches!(reason, Reason::NoAnswer | Reason::Busy);
        if ordered && passing && attempt.tries < ORDERED_TRIES {
            attempt.retry = Some(now + self.random.around(self.config.times.retry, 30));
            return;
        }
        // once in a search, not in each of its rounds
        if ordered || !matches!(self.state, State::Orphan { round: 1.., .. }) {
            self.note(Note::RefusedBy { address, reason });
        }
        if ordered { self.nobody_left(now, reason) } else { self.next_candidate(now) }
    }

    /// Gives up what is being tried.
    pub(super) fn give_up(&mut self, reason: Reason) {
        match self.attempt.take().map(|attempt| attempt.why) {
            Some(Why::Transfer(Some(token))) => {
                self.done(token, Report::Moved { result: Err(reason), told: false });
            }
            Some(Why::Told(number)) => self.refused = Some((number, reason)),
            _ => {}
        }
    }

    fn nobody_left(&mut self, now: u64, reason: Reason) {
        self.give_up(reason);
        // a dial-back that reached a worker on its way out is as good as no answer
        let passing = matches!(reason, Reason::Busy | Reason::DialBack);
        let times = &self.config.times;
        self.plan_failback(now, if passing { times.heartbeat } else { times.failback });
        if let State::Orphan { next, round } = &mut self.state {
            let times = &self.config.times;
            let wait = times.backoff.saturating_mul(1 << (*round).min(16)).min(times.backoff_max);
            *next = now + self.random.around(wait, 25);
            let first = *round == 0;
            *round += 1;
            if first {
                self.note(Note::Orphan);
            }
        }
    }

    /// A super has taken this node; the one before is left.
    fn adopt(&mut self, now: u64, bond: Bond) {
        let Some(attempt) = self.attempt.take() else { return };
        let (to, id) = (bond.to.clone(), bond.id.clone());
        self.ancestors = bond.path.clone();
        let old = match std::mem::replace(&mut self.state, State::Joined(bond)) {
            State::Joined(old) if old.to != to && old.id != id => Some(old.to),
            _ => None,
        };
        if matches!(attempt.why, Why::Transfer(_) | Why::Told(_)) {
            let configured = self.config.supers.first() == Some(&to);
            self.moved = (!configured).then(|| to.clone());
        }
        self.plan_failback(now, self.config.times.failback);
        self.refused = None;
        if old.is_some() || attempt.why == Why::Search {
            self.note(Note::Joined { to });
        }
        let order = match attempt.why {
            Why::Transfer(Some(token)) => Order::Transfer(token),
            _ => Order::None,
        };
        match (old, order) {
            (Some(old), order) => self.take_leave(now, old, order),
            (None, Order::Transfer(token)) => {
                self.done(token, Report::Moved { result: Ok(()), told: true });
            }
            (None, _) => {}
        }
    }

    fn plan_failback(&mut self, now: u64, wait: u64) {
        let wait = wait + self.random.below(wait / 4 + 1);
        let first = self.preferred().next().cloned();
        if let State::Joined(bond) = &mut self.state {
            bond.failback = (first.as_ref() != Some(&bond.to)).then_some(now + wait);
        }
    }

    /// `transferServer`: this node goes to another super, or, with its own address, to none. The
    /// report comes when the old super knows, or when the node has stayed.
    pub fn transfer(&mut self, now: u64, token: Token, to: String) {
        self.transfer_on(now, Some(token), to);
        self.tell();
    }

    pub(super) fn transfer_on(&mut self, now: u64, token: Option<Token>, to: String) {
        let refuse = |node: &mut Self, reason| {
            if let Some(token) = token {
                node.done(token, Report::Moved { result: Err(reason), told: false });
            }
        };
        if matches!(self.state, State::Left) {
            return refuse(self, Reason::Leaving);
        }
        if self.is_transferred() {
            return refuse(self, Reason::Busy);
        }
        if to == self.config.me {
            (self.moved, self.attempt) = (Some(to), None);
            return self.become_root(now, token.map_or(Order::None, Order::Transfer));
        }
        if !self.allowed(&to) {
            return refuse(self, Reason::NotAllowed);
        }
        self.attempt(now, Why::Transfer(token), [to].into());
    }

    pub(super) fn is_transferred(&self) -> bool {
        let attempt = self.attempt.as_ref();
        attempt.is_some_and(|attempt| matches!(attempt.why, Why::Transfer(_) | Why::Told(_)))
    }

    /// The super says that this node is to go elsewhere: in the answer to a heartbeat (`from` is
    /// None), or by a call.
    pub(super) fn told_to_move(
        &mut self,
        now: u64,
        from: Option<&str>,
        to: String,
        transfer: u64,
    ) -> Answer {
        let mine = match &self.state {
            State::Joined(bond) => from.is_none_or(|id| id == bond.id || id == bond.to),
            _ => false,
        };
        if !mine {
            return Answer::deny(Reason::NotAsked);
        }
        let under_way = self.attempt.as_ref().map(|attempt| attempt.why);
        if under_way == Some(Why::Told(transfer))
            || self.refused.is_some_and(|(n, _)| n == transfer)
        {
            return Answer::Ok;
        }
        if self.is_transferred() {
            return Answer::deny(Reason::Busy);
        }
        if to == self.config.me || !self.allowed(&to) {
            let reason = if to == self.config.me { Reason::Loop } else { Reason::NotAllowed };
            self.refused = Some((transfer, reason));
            return Answer::deny(reason);
        }
        if self.is_above(&to) {
            return Answer::Ok;
        }
        self.attempt(now, Why::Told(transfer), [to].into());
        Answer::Ok
    }

    /// Whether this node asks that super just now, under that address.
    pub(super) fn asks(&self, address: &str) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.to == address)
    }

    pub(super) fn is_above(&self, address: &str) -> bool {
        matches!(&self.state, State::Joined(bond) if bond.to == address || bond.id == address)
    }

    fn avoids(&self, address: &str) -> bool {
        self.avoided.iter().any(|(avoided, _)| avoided == address)
    }
}
