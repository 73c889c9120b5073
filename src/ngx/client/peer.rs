//! A connection with the call that runs on it, moved on whenever nginx reports something: what is
//! left of the call is written, what has come is read (`proto/cluster/wire.rs`).

use std::io::IoSlice;
use std::rc::Rc;
use std::task::Poll;

use super::link::Link;
use super::{Answer, Call, CallError, Done, Endpoint, Stage};
use crate::proto::cluster::wire::{self, Reader, Unreadable, Whole};

/// More room for heads than this is not kept for the next call.
const HEAD_KEPT: usize = 16 * 1024;

/// A call on its way, with the function that takes its answer.
pub(super) struct Job {
    pub(super) serial: u64,
    pub(super) call: Call,
    pub(super) done: Done,
}

struct Running {
    job: Box<Job>,
    /// Of head and body.
    written: usize,
    reader: Reader,
}

/// What became of a call.
pub(super) enum Outcome {
    /// Its answer, or why there is none.
    Over(Box<Job>, Result<Answer, CallError>),
    /// The peer had closed the kept-alive connection: it goes to a fresh one.
    Again(Box<Job>),
}

/// One connection.
pub(super) struct Peer {
    pub(super) endpoint: Endpoint,
    link: Rc<Link>,
    /// The head of the running call.
    head: Vec<u8>,
    over: bool,
    /// It has served a call before the running one.
    used: bool,
    running: Option<Running>,
    deadline: usize,
}

impl Peer {
    /// A connection over `link`; `number` is what the event handlers find.
    pub(super) fn new(endpoint: Endpoint, link: Rc<Link>, number: usize) -> Peer {
        link.set_number(number);
        let head = Vec::with_capacity(512);
        Peer { endpoint, link, head, over: false, used: false, running: None, deadline: 0 }
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether an idle connection is as it was left.
    pub(super) fn is_quiet(&self) -> bool {
        self.link.quiet() && self.link.rearm()
    }

    /// Takes the call on; it is sent by [`Peer::advance`].
    pub(super) fn begin(&mut self, job: Box<Job>) -> Result<(), (Box<Job>, CallError)> {
        let call = &job.call;
        self.head.clear();
        let (method, length) = (&call.method, call.body.len());
        let head = &mut self.head;
        if let Err(why) =
            wire::write_head(method, &call.target, &call.host, &call.headers, length, head)
        {
            return Err((job, CallError::Malformed(why.to_string())));
        }
        self.link.begin();
        self.link.set_idle(false);
        let mut reader = Reader::new(method, call.max_body);
        reader.want(call.wanted);
        self.running = Some(Running { job, written: 0, reader });
        Ok(())
    }

    /// Moves the call on as far as it goes, with `room` to read into. None: it waits for the peer.
    pub(super) fn advance(&mut self, now: usize, room: &mut [u8]) -> Option<Outcome> {
        let mut running = self.running.take()?;
        let result = match self.exchange(&mut running, room) {
            Poll::Pending if self.link.rearm() => {
                if self.link.moved() {
                    let timeouts = running.job.call.timeouts;
                    let allowed = match self.stage() {
                        Stage::Connect => timeouts.connect,
                        Stage::Send => timeouts.send,
                        Stage::Read => timeouts.read,
                    };
                    self.set_deadline(now, allowed);
                }
                self.running = Some(running);
                return None;
            }
            Poll::Pending => Err(CallError::Closed),
            Poll::Ready(result) => result,
        };
        let job = running.job;
        let result = match result {
            Ok(whole) => {
                // an answer may come before the call was sent; then, as when there is more to read,
                // the connection has done its service
                let length = self.head.len() + job.call.body.len();
                self.over = !whole.keep || running.written < length || self.link.has_more();
                let Whole { status, headers, lines, body, .. } = whole;
                Ok(Answer { status, headers, lines, body })
            }
            Err(error) => {
                self.over = true;
                if self.may_try_again(&job.call, &error) {
                    return Some(Outcome::Again(job));
                }
                Err(error)
            }
        };
        Some(Outcome::Over(job, result))
    }

    fn exchange(
        &mut self,
        running: &mut Running,
        room: &mut [u8],
    ) -> Poll<Result<Whole, CallError>> {
        let body = &running.job.call.body;
        let length = self.head.len() + body.len();
        while running.written < length {
            let head = self.head.get(running.written..).unwrap_or_default();
            let body = body.get(running.written.saturating_sub(self.head.len())..);
            let parts = [IoSlice::new(head), IoSlice::new(body.unwrap_or_default())];
            let parts = match parts {
                [_, ref body] if body.is_empty() => &parts[..1],
                [ref head, _] if head.is_empty() => &parts[1..],
                _ => &parts[..],
            };
            match self.link.transmit(parts) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) => running.written += n,
                Poll::Ready(Err(_)) => {
                    let refused = self.link.refused().map(CallError::Refused);
                    return Poll::Ready(Err(refused.unwrap_or(CallError::Closed)));
                }
            }
        }
        loop {
            let whole = match self.link.receive(room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => running.reader.end().map(Some),
                Poll::Ready(Ok(n)) => running.reader.feed(room.get(..n).unwrap_or_default()),
                Poll::Ready(Err(_)) => Err(Unreadable::Cut),
            };
            return Poll::Ready(match whole {
                Ok(None) => continue,
                Ok(Some(whole)) => Ok(whole),
                Err(Unreadable::TooLarge) => Err(CallError::TooLarge),
                Err(Unreadable::Cut) => Err(CallError::Closed),
                Err(Unreadable::Malformed(why)) => Err(CallError::Malformed(why.into())),
            });
        }
    }

    fn stage(&self) -> Stage {
        match (self.link.connected(), self.link.blocked()) {
            (false, _) => Stage::Connect,
            (true, true) => Stage::Send,
            (true, false) => Stage::Read,
        }
    }

    fn set_deadline(&mut self, now: usize, milliseconds: u64) {
        let milliseconds = usize::try_from(milliseconds).unwrap_or(usize::MAX).max(1);
        self.deadline = now.saturating_add(milliseconds);
        self.link.alarm(now, milliseconds);
    }

    /// The timer went off. None: not yet, and it is set again; otherwise the stage that took too long.
    pub(super) fn expired(&mut self, now: usize) -> Option<Stage> {
        if now < self.deadline {
            self.link.alarm(now, self.deadline - now);
            return None;
        }
        Some(self.stage())
    }

    /// Takes the running call off a connection that is given up.
    pub(super) fn abandon(&mut self) -> Option<Box<Job>> {
        self.over = true;
        self.running.take().map(|running| running.job)
    }

    /// Whether the connection can serve another call.
    pub(super) fn can_serve(&self) -> bool {
        !self.over && self.running.is_none()
    }

    /// Nothing runs on it for now.
    pub(super) fn rest(&mut self, now: usize, idle_timeout: u64) {
        self.used = true;
        self.head.clear();
        self.head.shrink_to(HEAD_KEPT);
        self.link.set_idle(true);
        self.set_deadline(now, idle_timeout);
    }

    /// Only where nothing of an answer came; a method that must not be done twice only if the
    /// peer did not read the call.
    fn may_try_again(&self, call: &Call, error: &CallError) -> bool {
        self.used
            && matches!(error, CallError::Closed)
            && !self.link.received()
            && (call.method.is_idempotent() || self.link.unread())
    }
}
