//! A super that has taken this node: heartbeats, its loss, and cycles that are only seen once paths
//! have travelled around them.

use super::calls::{Order, Purpose, refusal};
use super::message::{Answer, PATH_MAX, Reason, Request};
use super::output::{CallId, Note};
use super::search::From;
use super::standing::Super;
use super::{Membership, State, fingerprint};

/// Heartbeats that fail one after another before a super is lost.
const FAILURES: u32 = 3;
/// The node of a cycle with the lowest name leaves it at once. Another one does if so many heartbeats
/// later, beside those that the news need to come around, it still sees the cycle.
const LOOPED: usize = 3;

/// A node's super.
pub(super) struct Bond {
    /// As this node calls it.
    pub to: String,
    /// As it calls itself; empty until it is known.
    pub id: String,
    pub epoch: u64,
    /// From the root to it.
    pub path: Vec<String>,
    heartbeat: u64,
    next: u64,
    call: Option<CallId>,
    /// The refused transfer that this heartbeat reports.
    reported: Option<(u64, Reason)>,
    failures: u32,
    /// When the first of them ended.
    failing: u64,
    looped: usize,
    /// When a more preferred one is asked again.
    pub failback: Option<u64>,
}

impl Bond {
    /// One that was just made.
    pub fn new(
        to: String,
        id: String,
        epoch: u64,
        path: Vec<String>,
        heartbeat: u64,
        next: u64,
    ) -> Bond {
        Bond {
            to,
            id,
            epoch,
            path,
            heartbeat,
            next,
            call: None,
            reported: None,
            failures: 0,
            failing: 0,
            looped: 0,
            failback: None,
        }
    }

    /// When something is to be done; nobody is asked beside an attempt.
    pub fn next(&self, attempting: bool) -> Option<u64> {
        let beat = self.call.is_none().then_some(self.next);
        let failback = self.failback.filter(|_| !attempting);
        beat.into_iter().chain(failback).min()
    }
}

impl Membership {
    /// Goes on with the super that the router before had; the first heartbeat brings the path.
    pub(super) fn restore_bond(&mut self, now: u64, above: Super) {
        let heartbeat = self.config.times.heartbeat;
        let Super { address, epoch, .. } = above;
        let mut bond = Bond::new(address, String::new(), epoch, Vec::new(), heartbeat, now);
        bond.failback = Some(now + self.config.times.failback);
        self.state = State::Joined(bond);
        self.seek(now);
    }

    /// Beats, or asks a preferred super, where it is time for that.
    pub(super) fn beat(&mut self, now: u64) {
        let subtree = self.subtree();
        let State::Joined(bond) = &self.state else { return };
        let (to, path) = (bond.to.clone(), fingerprint(&bond.path));
        if bond.call.is_none() && bond.next <= now {
            let (id, epoch, seq) = (self.config.me.clone(), self.config.epoch, self.sequence(now));
            let message = Request::Beat { id, epoch, seq, subtree, path, refused: self.refused };
            let call = self.call(now, to.clone(), message, Purpose::Beat);
            if let State::Joined(bond) = &mut self.state {
                (bond.call, bond.reported) = (Some(call), self.refused);
            }
        }
        let State::Joined(bond) = &mut self.state else { return };
        if self.attempt.is_none() && bond.failback.is_some_and(|at| at <= now) {
            bond.failback = None;
            self.return_to_preferred(now, &to);
        }
    }

    /// A heartbeat has ended.
    pub(super) fn beat_ended(&mut self, now: u64, call: CallId, answer: Option<Answer>) {
        let State::Joined(bond) = &mut self.state else { return };
        if bond.call != Some(call) {
            return; // of a super that was left meanwhile
        }
        bond.call = None;
        bond.next = now + self.random.around(bond.heartbeat, 10);
        match answer {
            Some(Answer::Heard { id, epoch, path }) => {
                (bond.id, bond.epoch) = (id, epoch);
                if let Some(path) = path {
                    self.ancestors = path.clone();
                    bond.path = path;
                }
                self.was_heard();
                self.look_for_loop(now);
            }
            Some(Answer::Move { to, transfer }) => {
                self.was_heard();
                // what comes of it is in the next heartbeat
                self.told_to_move(now, None, to, transfer);
            }
            Some(Answer::Unknown) => {
                let to = bond.to.clone();
                self.lose(now, Reason::Forgotten, From::Forgotten(to));
            }
            Some(Answer::Deny { reason, .. }) => {
                let to = bond.to.clone();
                self.lose(now, reason, From::Lost(to));
            }
            answer => {
                bond.failures += 1;
                bond.next = now + self.config.times.retry;
                if bond.failures == 1 {
                    bond.failing = now;
                }
                let long = now.saturating_sub(bond.failing) >= self.config.times.patience;
                if bond.failures >= FAILURES && long {
                    let to = bond.to.clone();
                    self.lose(now, refusal(&answer), From::Lost(to));
                }
            }
        }
    }

    fn was_heard(&mut self) {
        if let State::Joined(bond) = &mut self.state {
            bond.failures = 0;
            if bond.reported == self.refused {
                self.refused = None;
            }
        }
    }

    fn look_for_loop(&mut self, now: u64) {
        // while a cycle turns, paths are longer than the tree is deep
        let deep = (2 * self.config.limits.depth).min(PATH_MAX - 1);
        let State::Joined(bond) = &mut self.state else { return };
        let cycle = bond.path.iter().position(|id| *id == self.config.me);
        let reason = match cycle {
            Some(at) => {
                bond.looped += 1;
                let lowest = bond.path.iter().skip(at).all(|id| *id >= self.config.me);
                if !lowest && bond.looped < LOOPED + bond.path.len() - at {
                    return;
                }
                Reason::Loop
            }
            None if bond.path.len() >= deep => Reason::Depth,
            None => {
                bond.looped = 0;
                return;
            }
        };
        let to = bond.to.clone();
        // those who left the same cycle must not come back at once, all together
        let avoid = self.random.around(self.config.times.avoid, 50);
        self.avoided.push((to.clone(), now + avoid));
        self.take_leave(now, to.clone(), Order::None);
        self.ancestors.clear();
        self.lose(now, reason, From::Lost(to));
    }

    fn lose(&mut self, now: u64, why: Reason, from: From) {
        if let State::Joined(bond) = &self.state {
            self.note(Note::SuperLost { address: bond.to.clone(), why });
        }
        // somebody ordered this node to go elsewhere: that attempt goes on
        if self.is_transferred() {
            self.state = State::Orphan { next: now, round: 0 };
        } else {
            self.search(now, from);
        }
    }
}
