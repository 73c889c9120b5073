//! The transfer of clients to another super: each is called, and told again in the answers to its
//! heartbeats until it has left, has said why it stays, or time is over.

use std::collections::BTreeSet;

use super::Membership;
use super::calls::{Purpose, refusal};
use super::message::{Answer, Reason, Request};
use super::output::{Gone, Output, Report, Token};

/// A transfer under way.
pub(super) struct Moving {
    token: Option<Token>,
    pub to: String,
    pub number: u64,
    pub deadline: u64,
    waiting: BTreeSet<String>,
    moved: Vec<String>,
    failed: Vec<(String, Reason)>,
}

/// Which clients are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those with these addresses.
    These(Vec<String>),
}

impl Membership {
    /// Sends clients to another super. The report comes when all have left or said that they stay, or
    /// when the time for it is over. One transfer at a time.
    pub fn transfer_clients(&mut self, now: u64, token: Token, to: String, which: Which) {
        let mut failed = Vec::new();
        let chosen: Vec<String> = match which {
            Which::All => self.clients.keys().filter(|id| **id != to).cloned().collect(),
            Which::These(addresses) => {
                let known = |id: &String| self.clients.contains_key(id);
                let (known, strange) = addresses.into_iter().partition(known);
                let strange: Vec<String> = strange;
                failed.extend(strange.into_iter().map(|id| (id, Reason::NotAsked)));
                known
            }
        };
        let refused = if to == self.config.me {
            Some(Reason::Loop)
        } else if !self.allowed(&to) {
            Some(Reason::NotAllowed)
        } else {
            self.moving.as_ref().map(|_| Reason::Busy)
        };
        if let Some(reason) = refused {
            failed.extend(chosen.into_iter().map(|id| (id, reason)));
            let (moved, pending) = (Vec::new(), Vec::new());
            return self.done(token, Report::ClientsMoved { moved, failed, pending });
        }
        let number = self.sequence(now);
        let deadline = now + self.config.times.transfer;
        self.moving = Some(Moving {
            token: Some(token),
            to: to.clone(),
            number,
            deadline,
            waiting: chosen.iter().cloned().collect(),
            moved: Vec::new(),
            failed,
        });
        for id in chosen {
            self.mark(&id, true);
            let (me, to) = (self.config.me.clone(), to.clone());
            let message = Request::Move { id: me, to, transfer: number };
            self.call(now, id.clone(), message, Purpose::Move(id, number));
        }
        self.finish_moving(now);
        self.tell();
    }

    fn mark(&mut self, id: &str, moving: bool) {
        let kid = self.clients.get_mut(id).filter(|kid| kid.client.moving != moving);
        if let Some(kid) = kid {
            kid.client.moving = moving;
            self.outputs.push_back(Output::Client(kid.client.clone()));
        }
    }

    /// A client was called. One that does not answer hears it with its next heartbeat.
    pub(super) fn move_ended(
        &mut self,
        now: u64,
        client: &str,
        number: u64,
        answer: Option<Answer>,
    ) {
        if !matches!(answer, Some(Answer::Ok) | None) {
            self.not_moved(now, client, number, refusal(&answer));
        }
    }

    /// A client stays, and says why.
    pub(super) fn not_moved(&mut self, now: u64, id: &str, number: u64, reason: Reason) {
        let Some(moving) = self.moving.as_mut().filter(|moving| moving.number == number) else {
            return;
        };
        if moving.waiting.remove(id) {
            moving.failed.push((id.into(), reason));
            self.mark(id, false);
            self.finish_moving(now);
        }
    }

    /// Where a client is to go.
    pub(super) fn moves(&self, id: &str) -> Option<(String, u64)> {
        let moving = self.moving.as_ref().filter(|moving| moving.waiting.contains(id))?;
        Some((moving.to.clone(), moving.number))
    }

    /// A client is gone; why, if it was being transferred.
    pub(super) fn mover_gone(&mut self, now: u64, id: &str, why: Gone) -> Gone {
        let Some(moving) = &mut self.moving else { return why };
        if !moving.waiting.remove(id) {
            return why;
        }
        let left = why == Gone::Left;
        if left {
            moving.moved.push(id.into());
        } else {
            moving.failed.push((id.into(), Reason::NoAnswer));
        }
        self.finish_moving(now);
        if left { Gone::Moved } else { why }
    }

    pub(super) fn late_movers(&mut self, now: u64) {
        self.finish_moving(now);
    }

    fn finish_moving(&mut self, now: u64) {
        let over = |moving: &mut Moving| moving.waiting.is_empty() || moving.deadline <= now;
        let Some(moving) = self.moving.take_if(over) else { return };
        for id in &moving.waiting {
            self.mark(id, false);
        }
        if let Some(token) = moving.token {
            let pending = moving.waiting.into_iter().collect();
            let report =
                Report::ClientsMoved { moved: moving.moved, failed: moving.failed, pending };
            self.done(token, report);
        }
    }

    /// Goes on with the transfer that the router before had begun.
    pub(super) fn restore_moving(&mut self, now: u64, moving: Option<(String, u64)>) {
        let marked = self.clients.values().filter(|kid| kid.client.moving);
        let waiting: BTreeSet<String> = marked.map(|kid| kid.client.address.clone()).collect();
        self.moving = moving.map(|(to, number)| Moving {
            token: None,
            to,
            number,
            deadline: now + self.config.times.transfer,
            waiting,
            moved: Vec::new(),
            failed: Vec::new(),
        });
        if self.moving.is_none() {
            self.clients.values_mut().for_each(|kid| kid.client.moving = false);
        }
    }
}
