//! Calls under way, each with what it is for; and the LEAVEs, which nobody waits for and which are
//! tried again.

use super::message::{Answer, Reason, Request};
use super::output::{CallId, Output, Report, Token};
use super::{Membership, clients};

/// Tries of a LEAVE; who does not hear it forgets this node by itself.
const LEAVES: u32 = 3;
/// Milliseconds beyond its timeout after which a call that the driver forgot has failed.
const GRACE: u64 = 1000;

/// What a call is for.
pub(super) enum Purpose {
    /// Asking for a super.
    Join(String),
    /// A heartbeat.
    Beat,
    /// See [`Leave`].
    Leave(Leave),
    /// Asking a node whether it is who it says.
    Dial(clients::Dial),
    /// Telling a client to go elsewhere.
    Move(String, u64),
}

/// A call that was made.
pub(super) struct Pending {
    purpose: Purpose,
    /// When it has failed at the latest.
    pub overdue: u64,
}

/// Who waits for a LEAVE.
#[derive(Clone, Copy)]
pub(super) enum Order {
    /// Nobody.
    None,
    /// The one who had this node transferred.
    Transfer(Token),
    /// The one who had it leave.
    Leave(Token),
}

/// A LEAVE.
pub(super) struct Leave {
    to: String,
    tries: u32,
    order: Order,
}

impl Membership {
    /// Makes a call.
    pub(super) fn call(
        &mut self,
        now: u64,
        to: String,
        message: Request,
        purpose: Purpose,
    ) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        let timeout = match purpose {
            Purpose::Dial(_) => self.config.times.call * 2 / 3,
            _ => self.config.times.call,
        };
        let overdue = now + timeout + GRACE;
        self.calls.insert(id, Pending { purpose, overdue });
        self.outputs.push_back(Output::Call { id, to, message, timeout });
        id
    }

    /// A call was answered.
    pub fn answered(&mut self, now: u64, call: CallId, answer: Answer) {
        self.ended(now, call, Some(answer));
    }

    /// A call was not answered in time, or could not be made, or the answer was none.
    pub fn failed(&mut self, now: u64, call: CallId) {
        self.ended(now, call, None);
    }

    fn ended(&mut self, now: u64, call: CallId, answer: Option<Answer>) {
        let Some(Pending { purpose, .. }) = self.calls.remove(&call) else { return };
        match purpose {
            Purpose::Join(to) => self.join_ended(now, call, to, answer),
            Purpose::Beat => self.beat_ended(now, call, answer),
            Purpose::Leave(leave) => self.leave_ended(now, leave, answer.is_some()),
            Purpose::Dial(dial) => self.dial_ended(now, dial, answer),
            Purpose::Move(client, number) => self.move_ended(now, &client, number, answer),
        }
        self.tell();
    }

    pub(super) fn overdue_calls(&mut self, now: u64) {
        while let Some((call, _)) = self.calls.iter().find(|(_, call)| call.overdue <= now) {
            let call = *call;
            self.ended(now, call, None);
        }
    }

    /// The dial-backs under way.
    pub(super) fn dials(&mut self) -> impl Iterator<Item = &mut clients::Dial> + use<'_> {
        self.calls.values_mut().filter_map(|call| match &mut call.purpose {
            Purpose::Dial(dial) => Some(dial),
            _ => None,
        })
    }

    /// Tells a super that this node is its client no more.
    pub(super) fn take_leave(&mut self, now: u64, to: String, order: Order) {
        self.send_leave(now, Leave { to, tries: 0, order });
    }

    fn send_leave(&mut self, now: u64, leave: Leave) {
        let seq = self.sequence(now);
        let message = Request::Leave { id: self.config.me.clone(), epoch: self.config.epoch, seq };
        self.call(now, leave.to.clone(), message, Purpose::Leave(leave));
    }

    fn leave_ended(&mut self, now: u64, leave: Leave, told: bool) {
        let leave = Leave { tries: leave.tries + 1, ..leave };
        if !told && leave.tries < LEAVES {
            self.leaves.push((now + self.config.times.retry, leave));
            return;
        }
        match leave.order {
            Order::None => {}
            Order::Transfer(token) => self.done(token, Report::Moved { result: Ok(()), told }),
            Order::Leave(token) => self.done(token, Report::Left),
        }
    }

    pub(super) fn leave_again(&mut self, now: u64) {
        let (due, later) =
            std::mem::take(&mut self.leaves).into_iter().partition(|(at, _)| *at <= now);
        self.leaves = later;
        let due: Vec<(u64, Leave)> = due;
        for (_, leave) in due {
            // it may have come back there meanwhile, and would leave its new place
            match self.is_above(&leave.to) {
                true => self.leave_ended(now, Leave { tries: LEAVES, ..leave }, false),
                false => self.send_leave(now, leave),
            }
        }
    }
}

/// Why, in an answer that is no yes.
pub(super) fn refusal(answer: &Option<Answer>) -> Reason {
    match answer {
        Some(Answer::Deny { reason, .. }) => *reason,
        Some(_) => Reason::Other,
        None => Reason::NoAnswer,
    }
}
